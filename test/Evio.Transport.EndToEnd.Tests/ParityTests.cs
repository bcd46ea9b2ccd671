using System.Net;
using System.Net.Http.Headers;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.TestHost;
using Microsoft.Extensions.Logging;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>
/// The same requests to the same application, once in the framework's in-memory server and once over a transport: status, headers and body
/// must be the same. (The reason phrase is not compared: each server words it by a table of its own.)
/// </summary>
public sealed class ParityTests(ParityTests.Servers servers) : IClassFixture<ParityTests.Servers>
{
    private static readonly Dictionary<string, Func<HttpRequestMessage>> Requests = new()
    {
        ["GET text"] = () => Get("/text"),
        ["GET JSON"] = () => Get("/json"),
        ["GET UTF-8"] = () => Get("/utf8"),
        ["GET an empty body"] = () => Get("/bytes/0"),
        ["GET one byte"] = () => Get("/bytes/1"),
        ["GET exactly a block"] = () => Get("/bytes/4096"),
        ["GET 1 MB"] = () => Get("/bytes/1000000"),
        ["GET 10 MB"] = () => Get("/bytes/10000000"),
        ["GET with Content-Length"] = () => Get("/content-length/12345"),
        ["GET with Content-Length 0"] = () => Get("/content-length/0"),
        ["GET a started response"] = () => Get("/started"),
        ["GET with OnStarting"] = () => Get("/on-starting"),
        ["GET a stream of small chunks"] = () => Get("/stream/100/10"),
        ["GET a stream of large chunks"] = () => Get("/stream/20/100000"),
        ["GET an empty stream"] = () => Get("/stream/0/0"),
        ["GET a range"] = () => With(Get("/range"), static headers => headers.Range = new RangeHeaderValue(100, 199)),
        ["GET the end of a range"] = () => With(Get("/range"), static headers => headers.Range = new RangeHeaderValue(null, 50)),
        ["GET an unsatisfiable range"] = () => With(Get("/range"), static headers => headers.Range = new RangeHeaderValue(20_000, 30_000)),
        ["GET many headers back"] = () => Get("/headers"),
        ["GET with cookies"] = () => With(Get("/cookies"), static headers => headers.Add("Cookie", "b=2; a=1; odd=%20x")),
        ["GET 200 without a body"] = () => Get("/status/200"),
        ["GET 201"] = () => Get("/status/201"),
        ["GET 202"] = () => Get("/status/202"),
        ["GET 204"] = () => Get("/status/204"),
        ["GET 205"] = () => Get("/status/205"),
        ["GET 301"] = () => Get("/redirect/301"),
        ["GET 302"] = () => Get("/redirect/302"),
        ["GET 303"] = () => Get("/redirect/303"),
        ["GET 304"] = () => With(Get("/not-modified"), static headers => headers.Add("If-None-Match", "\"v1\"")),
        ["GET 307"] = () => Get("/redirect/307"),
        ["GET 308"] = () => Get("/redirect/308"),
        ["GET 400"] = () => Get("/status/400"),
        ["GET 401"] = () => Get("/status/401"),
        ["GET 403"] = () => Get("/status/403"),
        ["GET 418"] = () => Get("/status/418"),
        ["GET 429"] = () => Get("/status/429"),
        ["GET 503"] = () => Get("/status/503"),
        ["GET an unassigned status"] = () => Get("/status/599"),
        ["GET an exception"] = () => Get("/throw"),
        ["GET a bad request exception"] = () => Get("/bad"),
        ["GET the wrong method"] = () => Get("/echo"),
        ["GET nothing known"] = () => Get("/no/such/path"),
        ["GET the root"] = () => Get("/"),
        ["GET a query"] = () => Get("/q?a=1&b=two&a=3"),
        ["GET an escaped query"] = () => Get("/q?text=a%20b%26c%3D%C5%99&empty=&flag"),
        ["GET a long query"] = () => Get("/q?long=" + new string('x', 6000)),
        ["GET an escaped path"] = () => Get("/p/a%20b/%C5%99/c%2Fd"),
        ["GET a path with dots"] = () => Get("/p/./a/../b"),
        ["GET many headers"] = () => With(Get("/h"), static headers =>
        {
            for (var i = 0; i < 50; i++)
            {
                headers.Add($"x-header-{i:00}", new string((char)('a' + (i % 26)), 100));
            }
        }),
        ["GET a multi-valued header"] = () => With(Get("/h"), static headers => headers.Add("x-many", ["a", "b"])),
        ["GET with Accept"] = () => With(Get("/h"), static headers => headers.Add("Accept", "text/html;q=0.8, application/json")),
        ["GET with Authorization"] = () => With(Get("/h"), static headers => headers.Authorization = new("Basic", "dXNlcjpwYXNz")),
        ["GET with a host"] = () => With(Get("/h"), static headers => headers.Host = "example.org:8080"),
        ["HEAD text"] = () => new(HttpMethod.Head, "/text"),
        ["HEAD nothing known"] = () => new(HttpMethod.Head, "/no/such/path"),
        ["OPTIONS"] = () => new(HttpMethod.Options, "/text"),
        ["TRACE"] = () => new(HttpMethod.Trace, "/anything"),
        ["an unknown method"] = () => new(new HttpMethod("PURGE"), "/anything"),
        ["POST text"] = () => Send(HttpMethod.Post, "/echo", new StringContent("posted", Encoding.UTF8)),
        ["POST JSON"] = () => Send(HttpMethod.Post, "/echo", new StringContent("{\"a\":1}", Encoding.UTF8, "application/json")),
        ["POST nothing"] = () => Send(HttpMethod.Post, "/echo", new ByteArrayContent([])),
        ["POST without content"] = () => new(HttpMethod.Post, "/echo"),
        ["POST one byte"] = () => Send(HttpMethod.Post, "/echo", new ByteArrayContent([7])),
        ["POST 1 MB"] = () => Send(HttpMethod.Post, "/echo", new ByteArrayContent(TestData.Bytes(1_000_000))),
        ["POST chunked"] = () => Chunked(Send(HttpMethod.Post, "/echo", new ByteArrayContent(TestData.Bytes(10_000)))),
        ["POST 1 MB chunked"] = () => Chunked(Send(HttpMethod.Post, "/echo", new ByteArrayContent(TestData.Bytes(1_000_000)))),
        ["POST nothing chunked"] = () => Chunked(Send(HttpMethod.Post, "/echo", new ByteArrayContent([]))),
        ["POST a body that is ignored"] = () => Send(HttpMethod.Post, "/ignore-body", new ByteArrayContent(TestData.Bytes(50_000))),
        ["POST to a path without an endpoint"] = () => Send(HttpMethod.Post, "/nowhere", new StringContent("lost")),
        ["POST with expectation"] = () => With(
            Send(HttpMethod.Post, "/echo", new StringContent("expected")), static headers => headers.ExpectContinue = true),
        ["POST a form"] = () => Send(HttpMethod.Post, "/form", new FormUrlEncodedContent([new("b", "2 &="), new("a", "ř")])),
        ["POST a multipart form"] = () => Send(HttpMethod.Post, "/form", new MultipartFormDataContent("boundary")
        {
            { new StringContent("value"), "field" },
            { new ByteArrayContent(TestData.Bytes(100_000)), "file", "name.bin" },
        }),
        ["PUT text"] = () => Send(HttpMethod.Put, "/echo", new StringContent("put")),
        ["PATCH text"] = () => Send(HttpMethod.Patch, "/echo", new StringContent("patched")),
        ["DELETE with a body"] = () => Send(HttpMethod.Delete, "/echo", new StringContent("deleted")),
        ["DELETE without a body"] = () => new(HttpMethod.Delete, "/echo"),
    };

    public static TheoryData<TransportKind, string> Cases =>
        [.. Enum.GetValues<TransportKind>().SelectMany(static kind => Requests.Keys.Select(request => (kind, request)))];

    [Theory, MemberData(nameof(Cases))]
    public async Task The_answer_is_the_same_as_in_memory(TransportKind kind, string request)
    {
        var expected = await Answer.OfAsync(servers.InMemory, Requests[request]());
        var actual = await Answer.OfAsync(servers.Over(kind), Requests[request]());

        Assert.Equal(expected.Status, actual.Status);
        Assert.Equal(expected.Headers, actual.Headers);

        // In memory nobody takes the body off the answer to HEAD. On a connection it must not be there.
        var expectedBody = expected.Method == HttpMethod.Head ? [] : expected.Body;
        Assert.True(
            expectedBody.AsSpan().SequenceEqual(actual.Body),
            $"In memory:\n{Excerpt(expectedBody)}\n\nOver {kind}:\n{Excerpt(actual.Body)}");

        // Kestrel frames a body of known length by itself; where the application says the length, it must be that one.
        if (expected.ContentLength is not null)
        {
            Assert.Equal(expected.ContentLength, actual.ContentLength);
        }
        else if (actual.ContentLength is not null)
        {
            Assert.Equal(actual.Body.Length, actual.ContentLength);
        }
    }

    private static string Excerpt(byte[] body) => Encoding.UTF8.GetString(body.AsSpan(0, Math.Min(body.Length, 500)));

    private static HttpRequestMessage Get(string target) => new(HttpMethod.Get, new Uri(target, UriKind.Relative));

    private static HttpRequestMessage Send(HttpMethod method, string target, HttpContent content) =>
        new(method, target) { Content = content };

    private static HttpRequestMessage With(HttpRequestMessage request, Action<HttpRequestHeaders> change)
    {
        change(request.Headers);
        return request;
    }

    private static HttpRequestMessage Chunked(HttpRequestMessage request) =>
        With(request, static headers => headers.TransferEncodingChunked = true);

    private sealed record Answer(
        HttpMethod Method, HttpStatusCode Status, IReadOnlyList<string> Headers, long? ContentLength, byte[] Body)
    {
        private static readonly HashSet<string> DifferentByNature = new(StringComparer.OrdinalIgnoreCase)
        {
            // Kestrel stamps each response; the in-memory server does not.
            "Date",

            // Kestrel's own name.
            "Server",

            // How HTTP/1.1 delimits a body. There is nothing to delimit in memory.
            "Transfer-Encoding",

            // Whether the TCP connection stays. There is none in memory.
            "Connection",

            // Compared by a rule of its own: Kestrel adds it where the application leaves it out.
            "Content-Length",
        };

        public static async Task<Answer> OfAsync(HttpClient client, HttpRequestMessage request)
        {
            using (request)
            {
                // The servers' own addresses differ, and the application answers with the host that it was asked for.
                request.Headers.Host ??= "parity.example";
                using var response = await client.SendAsync(request).OrTimeout();
                var headers = response.Headers.Concat(response.Content.Headers)
                    .Where(static header => !DifferentByNature.Contains(header.Key))
                    .SelectMany(static header => header.Value.Select(value => $"{header.Key}: {value}"))
                    .Order(StringComparer.OrdinalIgnoreCase);
                var contentLength = response.Content.Headers.TryGetValues("Content-Length", out var values)
                    ? long.Parse(values.Single(), System.Globalization.CultureInfo.InvariantCulture)
                    : (long?)null;
                var body = await response.Content.ReadAsByteArrayAsync().OrTimeout();
                return new Answer(request.Method, response.StatusCode, [.. headers], contentLength, body);
            }
        }
    }

    /// <summary>One server of each kind for all the cases.</summary>
    public sealed class Servers : IAsyncLifetime
    {
        private readonly Dictionary<TransportKind, (TransportHost Host, HttpClient Client)> _overTransport = [];
        private WebApplication? _inMemory;

        internal HttpClient InMemory { get; private set; } = null!;

        public async ValueTask InitializeAsync()
        {
            var builder = WebApplication.CreateSlimBuilder();
            builder.Logging.ClearProviders();
            builder.WebHost.UseTestServer();
            _inMemory = builder.Build();
            ParityApplication.Configure(_inMemory);
            await _inMemory.StartAsync().OrTimeout();
            InMemory = _inMemory.GetTestClient();
            foreach (var kind in Enum.GetValues<TransportKind>())
            {
                var host = await TransportHost.StartAsync(kind, ParityApplication.Configure);
                var client = host.CreateClient();
                _overTransport.Add(kind, (host, client));
            }
        }

        public async ValueTask DisposeAsync()
        {
            foreach (var (host, client) in _overTransport.Values)
            {
                client.Dispose();
                await host.DisposeAsync();
            }

            InMemory?.Dispose();
            if (_inMemory is not null)
            {
                await _inMemory.DisposeAsync().OrTimeout();
            }
        }

        internal HttpClient Over(TransportKind kind) => _overTransport[kind].Client;
    }
}
