using Evio.Fuzz;
using SharpFuzz;

// eng/fuzz.sh calls this: `fuzz TARGET` under afl-fuzz, `replay TARGET FILE...` for what was found.
switch (args)
{
    case ["fuzz", var name] when Targets.All.TryGetValue(name, out var target):
        // In a child process: an input that makes the target hang or overflow its stack is found too, and the next is run.
        Fuzzer.OutOfProcess.Run(stream =>
        {
            using var input = new MemoryStream();
            stream.CopyTo(input);
            target(input.GetBuffer().AsSpan(0, (int)input.Length));
        });
        return 0;

    case ["replay", var name, .. var files] when files.Length > 0 && Targets.All.TryGetValue(name, out var target):
        foreach (var file in files)
        {
            Console.WriteLine($"{name}: {file}");
            target(File.ReadAllBytes(file));
        }

        Console.WriteLine("all as it should be");
        return 0;

    default:
        Console.Error.WriteLine($"Usage: fuzz TARGET | replay TARGET FILE...; targets: {string.Join(", ", Targets.All.Keys)}");
        return 2;
}
