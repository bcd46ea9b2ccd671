using System.Buffers;
using System.Buffers.Binary;
using System.IO.Pipelines;
using System.Security.Cryptography;
using Microsoft.AspNetCore.Connections;

namespace Evio.Samples.WebApp.Endpoints;

/// <summary>Bodies of any length, up and down, in constant memory.</summary>
internal static partial class BodyEndpoints
{
    private const int PieceSize = 32 * 1024;

    private static readonly QueryNumber Bytes = new("bytes", Default: 1024 * 1024, Min: 0, Max: 1L << 40);
    private static readonly byte[] Noise = CreateNoise();

    public static void MapBodies(this IEndpointRouteBuilder endpoints)
    {
        endpoints.MapPost("/echo", UntilReset(EchoAsync));
        endpoints.MapPost("/upload", UntilReset(UploadAsync));
        endpoints.MapPost("/drain", UntilReset(DrainAsync));
        endpoints.MapGet("/large", LargeAsync);
    }

    // None reads a body with RequestAborted: Kestrel ends the read by itself when the client has gone, and a read cancelled from
    // outside leaves its connection in the middle of one, which it then reports as a fault.

    private static async Task EchoAsync(HttpContext context)
    {
        var (request, response) = (context.Request, context.Response);
        response.ContentType = request.ContentType;
        response.ContentLength = request.ContentLength;

        ReadResult read;
        FlushResult flush;
        do
        {
            read = await request.BodyReader.ReadAsync();
            foreach (var segment in read.Buffer)
            {
                // Not Write(): it asks for memory of any size, and Kestrel gives none to a response whose connection was aborted.
                segment.CopyTo(response.BodyWriter.GetMemory(segment.Length));
                response.BodyWriter.Advance(segment.Length);
            }

            flush = await response.BodyWriter.FlushAsync();
            request.BodyReader.AdvanceTo(read.Buffer.End);
        }
        while (!read.IsCompleted && !flush.IsCompleted);
    }

    private static async Task UploadAsync(HttpContext context)
    {
        using var sha256 = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var body = context.Request.BodyReader;
        var length = 0L;

        ReadResult read;
        do
        {
            read = await body.ReadAsync();
            foreach (var segment in read.Buffer)
            {
                sha256.AppendData(segment.Span);
            }

            length += read.Buffer.Length;
            body.AdvanceTo(read.Buffer.End);
        }
        while (!read.IsCompleted);

        var receipt = new UploadReceipt(length, Convert.ToHexStringLower(sha256.GetHashAndReset()));
        await context.Response.WriteJsonAsync(receipt, SampleJson.Default.UploadReceipt);
    }

    private static async Task DrainAsync(HttpContext context)
    {
        var body = context.Request.BodyReader;
        var length = 0L;

        ReadResult read;
        do
        {
            read = await body.ReadAsync();
            length += read.Buffer.Length;
            body.AdvanceTo(read.Buffer.End);
        }
        while (!read.IsCompleted);

        await context.Response.WriteJsonAsync(new DrainReceipt(length), SampleJson.Default.DrainReceipt);
    }

    private static async Task LargeAsync(HttpContext context)
    {
        var response = context.Response;
        if (!Bytes.TryRead(context.Request, out var bytes))
        {
            await QueryNumber.RefuseAsync(response, Bytes);
            return;
        }

        response.ContentType = "application/octet-stream";
        response.ContentLength = bytes;

        var piece = ArrayPool<byte>.Shared.Rent(PieceSize);
        try
        {
            Noise.CopyTo(piece);
            for (long number = 0, left = bytes; left > 0; number++)
            {
                // With its number in front, a piece that is lost, doubled or swapped changes the hash of the whole.
                BinaryPrimitives.WriteInt64LittleEndian(piece, number);

                var size = (int)Math.Min(left, PieceSize);
                await response.BodyWriter.WriteAsync(piece.AsMemory(0, size), context.RequestAborted);
                left -= size;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(piece);
        }
    }

    /// <summary>
    /// Ends the request when its client resets the connection amid the body. Kestrel tells that from an error of the application only
    /// if it has learnt of the reset before the handler does, which is a race.
    /// </summary>
    private static RequestDelegate UntilReset(RequestDelegate handler) => async context =>
    {
        try
        {
            await handler(context);
        }
        catch (ConnectionResetException reset)
        {
            var logger = context.RequestServices.GetRequiredService<ILogger<Program>>();
            LogReset(logger, context.Connection.Id, reset);

            // Nor must Kestrel look for the rest of the body.
            context.Abort();
        }
    };

    private static byte[] CreateNoise()
    {
        var noise = new byte[PieceSize];
        new Random(Seed: 1).NextBytes(noise);
        return noise;
    }

    [LoggerMessage(1, LogLevel.Debug, "Client of connection {ConnectionId} reset it amid a body")]
    private static partial void LogReset(ILogger logger, string connectionId, Exception reset);
}
