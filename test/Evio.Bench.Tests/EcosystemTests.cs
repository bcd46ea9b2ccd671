namespace Evio.Bench.Tests;

/// <summary>The application of eng/bench/ecosystem and what it is started with.</summary>
public sealed class EcosystemTests(LoadGeneratorTests.Program load) : IClassFixture<LoadGeneratorTests.Program>
{
    private static string Program => Path.Combine(AppContext.BaseDirectory, "Evio.Bench.Ecosystem");

    [Fact]
    public async Task AllTransportsAnswerAlike()
    {
        var cancellation = TestContext.Current.CancellationToken;
        SkipWithout([Tool.Compiler, .. Database.Tools]);
        var backendProgram = Path.Combine(Path.GetDirectoryName(load.Path)!, "epoll-server");
        await Tool.CompileAsync(Path.Combine(Workshop.Find().Root, "eng/bench/epoll-server.c"), backendProgram, cancellation);
        var (processor, other) = Machine.ChooseProcessors();
        await using var database = await Database.StartAsync(other, cancellation);
        await using var backend = await Server.StartAsync(Variant.CEpoll, backendProgram, ServerPort.Http, [], other, cancellation);
        string[] switches = ["--database", database.ConnectionString, "--call-out", $"http://127.0.0.1:{backend.Port}/string"];

        var answers = new Dictionary<string, string>();
        foreach (var port in (ServerPort[])[ServerPort.Http, ServerPort.H2c])
        {
            await using var evio = await Server.StartAsync(Variant.EvioAdaptive, Program, port, switches, processor, cancellation);
            await using var sockets = await Server.StartAsync(Variant.Sockets, Program, port, switches, processor, cancellation);
            foreach (var scenario in Scenario.All.Where(scenario => scenario.Application == Application.Ecosystem && scenario.Port == port))
            {
                if (scenario.Probe is { } probe)
                {
                    answers[scenario.Name] = await evio.ProbeAsync(probe, cancellation);
                    Assert.Equal(answers[scenario.Name], await sockets.ProbeAsync(probe, cancellation));
                }
            }
        }

        Assert.Matches(@"(?s)^HTTP/2\.0 200 .*Hello, World!\s+grpc-status: 0$", answers["grpc-unary"]);
        Assert.Equal(20, answers["grpc-stream"].Split("Hello, World!").Length - 1);
        Assert.EndsWith("""{"id":42,"randomNumber":2599}""", answers["pg-row-64"], StringComparison.Ordinal);
        Assert.Contains("""[{"id":42,"randomNumber":2599},{"id":43,"randomNumber":518},""", answers["pg-rows-20-64"]);
        Assert.Contains("<td>0</td><td>Additional fortune added at request time.</td></tr><tr><td>3</td>", answers["pg-fortunes-64"]);
        Assert.Contains("&lt;script&gt;alert(&quot;", answers["pg-fortunes-64"]);
        Assert.EndsWith("""{"id":42,"randomNumber":1}""", answers["cached-row-64"], StringComparison.Ordinal);
        Assert.EndsWith("Hello, World!", answers["yarp-64"], StringComparison.Ordinal);
        Assert.Equal(answers["yarp-64"], answers["yarp-evio-64"]);
    }

    [Fact]
    public async Task TheHubAnswersTheLoad()
    {
        var cancellation = TestContext.Current.CancellationToken;
        SkipWithout([Tool.Compiler]);
        var scenario = Scenario.All.Single(static scenario => scenario.Name == "signalr-echo-64");
        var (processor, other) = Machine.ChooseProcessors();
        await using var server = await Server.StartAsync(Variant.EvioAdaptive, Program, scenario.Port, [], processor, cancellation);

        // A server that has just started has 64 handshakes to do, which on a busy machine takes it longer than the load lasts.
        var arguments = scenario.Load.Arguments(server.Port, seconds: 1, scratch: "");
        var requests = 0L;
        for (var i = 0; i < 20 && requests == 0; i++)
        {
            var result = OwnLoad.Parse(await Child.RunToEndAsync(Child.Pinned(other, load.Path, arguments), cancellation));
            Assert.Equal((0, null), (result.Failed, result.Failure));
            requests = result.Requests;
        }

        Assert.True(requests > 0);
    }

    [Fact]
    public async Task TheDatabaseLeavesNothing()
    {
        SkipWithout(Database.Tools);
        var database = await Database.StartAsync(Machine.ChooseProcessors().Load, TestContext.Current.CancellationToken);
        Assert.True(Directory.Exists(database.Folder));

        await database.DisposeAsync();

        Assert.False(Directory.Exists(database.Folder));
        Assert.False(Directory.Exists($"/proc/{database.ProcessId}"));
    }

    private static void SkipWithout(IEnumerable<Tool> tools)
    {
        Assert.SkipUnless(Environment.ProcessorCount > 1, "Server and load need a processor each.");
        foreach (var tool in tools)
        {
            Assert.SkipUnless(tool.IsInstalled, tool.Obstacle ?? "");
        }
    }
}
