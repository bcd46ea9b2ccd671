using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.RegularExpressions;
using Evio.Transport;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace Evio.Docs.Tests;

/// <summary>Every C# block of the pages is compiled and run, and does what the page says of it.</summary>
public sealed partial class ExampleTests
{
    private static readonly Dictionary<string, Example> Examples = new()
    {
        // README.md
        ["readme-kestrel"] = new(static run => run.GetsAsync("/", "Hello from an event loop")),
        ["readme-listener"] = new(static async run =>
        {
            await run.Program.PrintsAsync("listening on ");
            using var socket = await ConnectAsync(IPEndPoint.Parse(run.Program.Output.Split("listening on ")[1].Split('\n')[0]));
            await AssertEchoesAsync(socket);
        })
        {
            Wrap = static block => $$"""
                using System.Net;
                using Evio.Transport;
                using Microsoft.AspNetCore.Connections;

                {{block.Replace("while (await", "Console.WriteLine($\"listening on {listener.EndPoint}\");\nwhile (await", StringComparison.Ordinal)}}

                static async Task ServeAsync(ConnectionContext connection)
                {
                    await using var _ = connection;
                    await connection.Transport.Input.CopyToAsync(connection.Transport.Output);
                }
                """,
        },
        ["readme-client"] = new(static run => run.GetsAsync("/", "from the backend"))
        {
            Wrap = static block => $$"""
                using Evio.Transport;

                var builder = WebApplication.CreateBuilder(args);
                builder.WebHost.UseEvioTransport();
                {{block}}
                var app = builder.Build();
                app.MapGet("/backend", () => "from the backend");
                app.MapGet("/", (HttpContext context, IHttpClientFactory clients) =>
                    clients.CreateClient("backend").GetStringAsync($"http://{context.Request.Host}/backend"));
                app.Run();
                """,
        },
        ["readme-callbacks"] = new(EchoesEverywhereAsync) { Wrap = static block => $"using Evio.Transport.Native;\n{block}" },

        // The packages' pages
        ["package-kestrel"] = new(static run => run.GetsAsync("/", "Hello from an event loop")),
        ["package-callbacks"] = new(EchoesEverywhereAsync),

        // docs/getting-started.md
        ["start-kestrel"] = new(static async run =>
        {
            await run.GetsAsync("/", "Hello from an event loop");
            var loops = await run.GetAsync("/loops");
            Assert.Matches("""^\["loop 0: \d connections","loop 1: \d connections"\]$""", loops);
            await run.Program.PrintsAsync("2 event loops started: LeastConnections, Adaptive.");
        })
        {
            Arguments = ["--Logging:LogLevel:Evio.Transport=Debug"],
        },
        ["start-raw"] = new(static async run =>
        {
            using var socket = await run.ConnectAsync(run.Port(7000));
            await AssertAnswersAsync(socket, "hello\nwor", "HELLO\n");
            await AssertAnswersAsync(socket, "ld\n", "WORLD\n");
        }),
        ["start-native"] = new(static async run =>
        {
            await run.Program.PrintsAsync($"serving 127.0.0.1:{run.Port(5000)}");
            using var socket = await run.ConnectAsync(run.Port(5000));
            await AssertAnswersAsync(socket, "one\nthr", "3 bytes\n");
            await AssertAnswersAsync(socket, "ee\n\n", "5 bytes\n0 bytes\n");
        }),
        ["start-loops"] = new(static async run =>
        {
            await run.Program.PrintsAsync($"listening on 127.0.0.1:{run.Port(5000)}");
            using var first = await run.ConnectAsync(run.Port(5000));
            using var second = await run.ConnectAsync(run.Port(5000));
            await Task.WhenAll(AssertAnswersAsync(first, "one", "one"), AssertAnswersAsync(second, "two", "two"));
            await AssertAnswersAsync(first, "three", "three");
        }),
        ["start-client"] = new(static run => run.GetsAsync("/offer", "Only 42 today")) { UrlPort = 5000 },
        ["start-proxy"] = new(static async run =>
        {
            await using var backend = WebApplication.CreateSlimBuilder(["--urls", $"http://127.0.0.1:{run.Port(7000)}"]).Build();
            backend.Run(static context => context.Response.WriteAsync($"{context.Request.Path} is behind"));
            await backend.StartAsync().OrTimeout();
            await run.GetsAsync("/this", "/this is behind");
        }),
        ["start-unix"] = new(static async run =>
        {
            await run.Program.EndsAsync();
            Assert.Contains("Hello from a file\nUserWrite, UserRead\n", run.Program.Output.ReplaceLineEndings("\n"), StringComparison.Ordinal);
        }),

        // docs/how-it-works.md
        ["which-loop"] = new(static run => run.GetsAsync("/", "loop 0")),

        // docs/scheduling.md
        ["inline-offload"] = new(static async run =>
        {
            var report = run.GetAsync("/report");
            await run.GetsAsync("/fast", "fast");
            Assert.Equal("report", await report);
        }),

        // docs/migration-from-sockets.md
        ["migrate-sockets"] = new(static run => run.GetsAsync("/", "the same on both")),

        // docs/migration-from-evio.md
        ["evio-echo"] = new(static async run =>
        {
            using var socket = await run.ConnectAsync(run.Port(5000));
            await AssertEchoesAsync(socket);
        }),
        ["evio-callbacks"] = new(static async run =>
        {
            await run.Program.EndsAsync();
            Assert.Equal("stopped after 3 ticks\nwoken\ndetached\n", run.Program.Output.ReplaceLineEndings("\n"));
        }),
    };

    public static TheoryData<string> Names => [.. Examples.Keys];

    [Fact]
    public void Every_block_has_a_test_and_every_test_a_block()
    {
        var blocks = Blocks().ToArray();

        Assert.Empty(blocks.Where(static block => block.Name is null).Select(static block => $"{block.Place} has no example comment"));
        Assert.Equal(Examples.Keys.Order(), blocks.Select(static block => block.Name!).Order());
    }

    [Theory, MemberData(nameof(Names))]
    public async Task It_does_what_the_page_says(string name)
    {
        var block = Blocks().Single(block => block.Name == name);
        var example = Examples[name];
        var folder = Directory.CreateTempSubdirectory("evio-docs-");
        try
        {
            // The pages' ports may be somebody's on this machine, and so may their path in /tmp.
            var ports = Port().Matches(block.Text).Select(static match => match.Value).Distinct().ToArray();
            var free = FreePorts.Find(ports.Length + 1);
            var map = ports.Zip(free).ToDictionary(static pair => int.Parse(pair.First, null), static pair => pair.Second);
            var unixPath = Path.Combine(folder.FullName, "echo.sock");
            var source = Port().Replace(block.Text, match => $"{map[int.Parse(match.Value, null)]}").Replace("/tmp/echo.sock", unixPath, StringComparison.Ordinal);
            var url = example.UrlPort is { } port ? map[port] : free[^1];
            await using var program = ExampleProgram.Start(block, example.Wrap(source), $"http://127.0.0.1:{url}", example.Arguments);

            await example.Check(new Run(program, new Uri($"http://127.0.0.1:{url}"), map, unixPath));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Fact]
    public void Every_configuration_on_the_pages_is_accepted()
    {
        var blocks = DocumentPage.All.SelectMany(static page => page.Blocks).Where(static block => block.Language == "json" && block.Text.Contains("\"Evio\"", StringComparison.Ordinal)).ToArray();
        Assert.NotEmpty(blocks);
        foreach (var block in blocks)
        {
            var builder = WebApplication.CreateSlimBuilder();
            builder.Configuration.AddJsonStream(new MemoryStream(Encoding.UTF8.GetBytes(block.Text)));
            builder.WebHost.UseEvioTransport();
            using var app = builder.Build();

            var options = app.Services.GetRequiredService<IOptions<EvioTransportOptions>>().Value;

            Assert.Equal(app.Configuration.GetValue<int>("Evio:LoopCount"), options.LoopCount);
        }
    }

    private static IEnumerable<CodeBlock> Blocks() =>
        DocumentPage.All.SelectMany(static page => page.Blocks).Where(static block => block.Language is "csharp" or "cs");

    private static async Task<Socket> ConnectAsync(EndPoint endPoint)
    {
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
        await socket.ConnectAsync(endPoint).OrTimeout();
        return socket;
    }

    private static async Task EchoesEverywhereAsync(Run run)
    {
        var port = run.Port(5000);
        using (var tcp = await run.ConnectAsync(port))
        {
            await AssertEchoesAsync(tcp);
        }

        using var udp = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        await udp.ConnectAsync(new IPEndPoint(IPAddress.Loopback, port)).OrTimeout();
        await AssertEchoesAsync(udp);
        using var unix = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await unix.ConnectAsync(new UnixDomainSocketEndPoint(run.UnixPath)).OrTimeout();
        await AssertEchoesAsync(unix);
    }

    private static Task AssertEchoesAsync(Socket socket) => AssertAnswersAsync(socket, "hello", "hello");

    private static async Task AssertAnswersAsync(Socket socket, string text, string expected)
    {
        await socket.SendAsync(Encoding.ASCII.GetBytes(text)).OrTimeout();
        var answer = new byte[expected.Length];
        for (var count = 0; count < answer.Length;)
        {
            var received = await socket.ReceiveAsync(answer.AsMemory(count)).OrTimeout();
            Assert.NotEqual(0, received);
            count += received;
        }

        Assert.Equal(expected, Encoding.ASCII.GetString(answer));
    }

    [GeneratedRegex(@"(?<=[:(])[57]000(?=\D)")]
    private static partial Regex Port();

    private sealed record Example(Func<Run, Task> Check)
    {
        /// <summary>What makes a program of a block that is part of one.</summary>
        public Func<string, string> Wrap { get; init; } = static block => block;

        public string[] Arguments { get; init; } = [];

        /// <summary>The page's port that Kestrel is to have, if that is not free to choose.</summary>
        public int? UrlPort { get; init; }
    }

    private sealed record Run(ExampleProgram Program, Uri Url, IReadOnlyDictionary<int, int> Ports, string UnixPath)
    {
        /// <summary>What stands for a port of the page.</summary>
        public int Port(int port) => Ports[port];

        public async Task<string> GetAsync(string path)
        {
            await Program.PrintsAsync("Now listening on: ");
            using var client = new HttpClient { BaseAddress = Url, Timeout = TestTimeouts.Default };
            return await client.GetStringAsync(path).OrTimeout();
        }

        public async Task GetsAsync(string path, string body) => Assert.Equal(body, await GetAsync(path));

        /// <summary>Connects as soon as the program listens.</summary>
        public async Task<Socket> ConnectAsync(int port)
        {
            Socket? connected = null;
            await Eventually.HoldsAsync(
                async () =>
                {
                    try
                    {
                        connected = await ExampleTests.ConnectAsync(new IPEndPoint(IPAddress.Loopback, port));
                        return true;
                    }
                    catch (SocketException exception) when (exception.SocketErrorCode == SocketError.ConnectionRefused)
                    {
                        return false;
                    }
                },
                () => Program.Output);
            return connected!;
        }
    }
}
