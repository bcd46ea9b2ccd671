using System.IO.Compression;
using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Evio.Samples.WebApp.Endpoints;
using Evio.Transport.Testing;

namespace Evio.Samples.Tests;

/// <summary>The end points that are written as most applications write them.</summary>
public sealed class OrdinaryEndpointTests
{
    private const string Text = "text/plain; charset=utf-8";
    private const string Json = "application/json; charset=utf-8";

    private const string OrderText =
        """
        {"id":1,"customer":"Ada","products":[{"id":1,"name":"Product number 1","price":1.99},{"id":2,"name":"Product number 2","price":2.99},{"id":3,"name":"Product number 3","price":3.99}]}
        """;

    [Theory, AllTransports("/string=Hello, World!", "/yield=yielded", "/delay=delayed", "/delay?ms=20=delayed", "/delay?ms=-1=delayed")]
    public async Task A_string_is_answered_as_text(TransportKind kind, string exchange)
    {
        var split = exchange.LastIndexOf('=');
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();

        using var response = await client.GetAsync(exchange[..split]).OrTimeout();

        await AssertAnswersAsync(response, Text, exchange[(split + 1)..]);
    }

    [Theory, AllTransports]
    public async Task A_delay_that_is_no_number_is_refused(TransportKind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();

        using var response = await client.GetAsync("/delay?ms=x").OrTimeout();

        Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
    }

    [Theory, AllTransports]
    public async Task An_object_is_answered_as_JSON(TransportKind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();

        using var response = await client.GetAsync("/object").OrTimeout();

        await AssertAnswersAsync(response, Json, OrderText);
    }

    [Theory, AllTransports]
    public async Task An_object_comes_back(TransportKind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();
        var products = Enumerable.Range(1, 1000).Select(static id => new Product(id, $"p{id}", id / 100m)).ToArray();
        var sent = JsonSerializer.Serialize(new Order(7, "Grace", products), JsonSerializerOptions.Web);

        using var response = await client.PostAsync("/object", new StringContent(sent, Encoding.UTF8, "application/json")).OrTimeout();

        await AssertAnswersAsync(response, Json, sent);
    }

    [Theory, AllTransports]
    public async Task What_is_no_object_is_refused(TransportKind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();

        using var malformed = await client.PostAsync("/object", new StringContent("{", Encoding.UTF8, "application/json")).OrTimeout();
        using var noJson = await client.PostAsync("/object", new StringContent("text")).OrTimeout();

        Assert.Equal(HttpStatusCode.BadRequest, malformed.StatusCode);
        Assert.Equal(HttpStatusCode.UnsupportedMediaType, noJson.StatusCode);
    }

    [Theory, AllTransports]
    public async Task Objects_are_streamed(TransportKind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();

        using var response = await client.GetAsync("/stream-objects").OrTimeout();
        var products = await response.Content.ReadFromJsonAsync<Product[]>().OrTimeout();

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.Equal(Json, response.Content.Headers.ContentType?.ToString());
        Assert.Equal(Enumerable.Range(1, 20).Select(static id => new Product(id, $"Product number {id}", id + 0.99m)), products);
    }

    [Theory, AllTransports]
    public async Task Objects_are_compressed_for_a_client_that_accepts_it(TransportKind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();
        var plain = await client.GetStringAsync("/compressed").OrTimeout();

        using var request = new HttpRequestMessage(HttpMethod.Get, "/compressed") { Headers = { { "Accept-Encoding", "gzip" } } };
        using var response = await client.SendAsync(request).OrTimeout();
        var compressed = await response.Content.ReadAsByteArrayAsync().OrTimeout();
        using var reader = new StreamReader(new GZipStream(new MemoryStream(compressed), CompressionMode.Decompress));

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.Equal(Json, response.Content.Headers.ContentType?.ToString());
        Assert.Equal(["gzip"], response.Content.Headers.ContentEncoding);
        Assert.Equal(plain, await reader.ReadToEndAsync().OrTimeout());
        Assert.Equal(100, JsonSerializer.Deserialize<Product[]>(plain, JsonSerializerOptions.Web)!.Length);
        Assert.True(compressed.Length < plain.Length / 2);
    }

    [Theory, AllTransports]
    public async Task Other_answers_are_not_compressed(TransportKind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();

        using var request = new HttpRequestMessage(HttpMethod.Get, "/object") { Headers = { { "Accept-Encoding", "gzip" } } };
        using var response = await client.SendAsync(request).OrTimeout();

        await AssertAnswersAsync(response, Json, OrderText);
        Assert.Empty(response.Content.Headers.ContentEncoding);
    }

    [Theory, AllTransports("/file=204800", "/static/8k.txt=8192", "/static/200k.txt=204800")]
    public async Task A_file_is_sent_whole(TransportKind kind, string exchange)
    {
        var (path, length) = (exchange.Split('=')[0], int.Parse(exchange.Split('=')[1], provider: null));
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();

        using var response = await client.GetAsync(path).OrTimeout();

        Assert.Equal(length, response.Content.Headers.ContentLength);
        await AssertAnswersAsync(response, "text/plain", string.Concat(Enumerable.Repeat("0123456789abcde\n", length / 16)));
    }

    /// <summary>A file that is not there, and the action that there is with a switch only.</summary>
    [Theory, AllTransports("/static/none.txt", "/mvc")]
    public async Task What_is_not_there_is_not_found(TransportKind kind, string path)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();

        using var response = await client.GetAsync(path).OrTimeout();

        Assert.Equal(HttpStatusCode.NotFound, response.StatusCode);
    }

    [Theory, AllTransports("/call-out", "/call-out-evio")]
    public async Task A_handler_asks_its_own_server(TransportKind kind, string path)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();

        using var response = await client.GetAsync(path).OrTimeout();

        await AssertAnswersAsync(response, Text, "Hello, World!");
    }

    [Theory, AllTransports("/call-out", "/call-out-evio")]
    public async Task A_handler_asks_another_server(TransportKind kind, string path)
    {
        await using var other = await SampleHost.StartAsync(TransportKind.Sockets);
        await using var host = await SampleHost.StartAsync(kind, callOut: new Uri(other.BaseAddress, "/object"));
        using var client = host.CreateClient();

        // Calls at the same time, and then on connections that have been used before.
        for (var round = 0; round < 2; round++)
        {
            var answers = await Task.WhenAll(Enumerable.Range(0, 20).Select(_ => client.GetStringAsync(path))).OrTimeout();
            Assert.All(answers, static answer => Assert.Equal(OrderText, answer));
        }
    }

    [Theory, AllTransports]
    public async Task An_action_answers_as_JSON(TransportKind kind)
    {
        await using var host = await SampleHost.StartAsync(kind, mvc: true);
        using var client = host.CreateClient();

        using var response = await client.GetAsync("/mvc").OrTimeout();

        await AssertAnswersAsync(response, Json, OrderText);
    }

    private static async Task AssertAnswersAsync(HttpResponseMessage response, string contentType, string body)
    {
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.Equal(contentType, response.Content.Headers.ContentType?.ToString());
        Assert.Equal(body, await response.Content.ReadAsStringAsync().OrTimeout());
    }
}
