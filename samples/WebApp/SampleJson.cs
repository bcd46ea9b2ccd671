using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using Evio.Samples.WebApp.Endpoints;
using Evio.Samples.WebApp.Live;

namespace Evio.Samples.WebApp;

internal sealed record Greeting(string Message);

internal sealed record UploadReceipt(long Length, string Sha256);

internal sealed record DrainReceipt(long Length);

/// <summary>The JSON answers, with serializers generated at compile time.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(Greeting))]
[JsonSerializable(typeof(UploadReceipt))]
[JsonSerializable(typeof(DrainReceipt))]
[JsonSerializable(typeof(Order))]
[JsonSerializable(typeof(Product[]))]
[JsonSerializable(typeof(IAsyncEnumerable<Product>))]
[JsonSerializable(typeof(ServerInfo))]
[JsonSerializable(typeof(LoopSample[]))]
[JsonSerializable(typeof(ClientBatch))]
internal sealed partial class SampleJson : JsonSerializerContext;

internal static class JsonResponse
{
    /// <summary>Serializes before the headers go out, so that the answer has a Content-Length instead of chunks.</summary>
    public static async Task WriteJsonAsync<T>(this HttpResponse response, T value, JsonTypeInfo<T> type)
    {
        var json = JsonSerializer.SerializeToUtf8Bytes(value, type);
        response.ContentType = "application/json";
        response.ContentLength = json.Length;
        await response.BodyWriter.WriteAsync(json);
    }
}
