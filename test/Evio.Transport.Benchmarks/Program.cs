using BenchmarkDotNet.Running;

// dotnet run -c Release --project test/Evio.Transport.Benchmarks -- --filter '*' (or --list flat, --job dry, ...)
BenchmarkSwitcher.FromAssembly(typeof(Program).Assembly).Run(args);
