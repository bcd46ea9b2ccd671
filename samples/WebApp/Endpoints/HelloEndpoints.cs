namespace Evio.Samples.WebApp.Endpoints;

/// <summary>The two answers that are measured most. They touch nothing of the request, so their cost is the server's.</summary>
internal static class HelloEndpoints
{
    private static readonly byte[] HelloWorld = "Hello, World!"u8.ToArray();

    public static void MapHello(this IEndpointRouteBuilder endpoints)
    {
        endpoints.MapGet("/plaintext", static context => PlaintextAsync(context.Response));
        endpoints.MapGet("/json", static context =>
            context.Response.WriteJsonAsync(new Greeting("Hello, World!"), SampleJson.Default.Greeting));
    }

    private static async Task PlaintextAsync(HttpResponse response)
    {
        response.ContentType = "text/plain";
        response.ContentLength = HelloWorld.Length;
        await response.BodyWriter.WriteAsync(HelloWorld);
    }
}
