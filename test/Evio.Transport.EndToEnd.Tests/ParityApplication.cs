using System.Globalization;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Diagnostics;
using Microsoft.AspNetCore.Http;

namespace Evio.Transport.EndToEnd.Tests;

/// <summary>The application that answers the same over every server.</summary>
internal static class ParityApplication
{
    public static void Configure(WebApplication application)
    {
        application.UseExceptionHandler(static errors => errors.Run(static context =>
        {
            var exception = context.Features.Get<IExceptionHandlerFeature>()!.Error;
            return context.Response.WriteAsync($"caught {exception.GetType().Name}");
        }));

        application.MapGet("/text", static () => Results.Text("plain text"));
        application.MapGet("/json", static () => Results.Json(new { name = "evio", nested = new { deep = true, number = 1.5 } }));
        application.MapGet("/utf8", static () => Results.Text("žluťoučký kůň 🐎", "text/plain", Encoding.UTF8));
        application.MapGet("/bytes/{count:int}", static (int count) => Results.Bytes(TestData.Bytes(count)));
        application.MapGet("/status/{code:int}", static (int code) => Results.StatusCode(code));
        application.MapGet("/redirect/{code:int}", static (int code, HttpContext context) =>
        {
            context.Response.StatusCode = code;
            context.Response.Headers.Location = "/text?from=redirect";
        });
        application.MapGet("/not-modified", static (HttpContext context) =>
        {
            context.Response.StatusCode = StatusCodes.Status304NotModified;
            context.Response.Headers.ETag = "\"v1\"";
        });
        application.MapGet("/throw", IResult () => throw new InvalidTimeZoneException());
        application.MapGet("/bad", IResult () => throw new BadHttpRequestException("refused", StatusCodes.Status418ImATeapot));
        application.MapGet("/headers", static (HttpContext context) =>
        {
            context.Response.Headers.Append("x-one", "1");
            context.Response.Headers.Append("x-many", "a");
            context.Response.Headers.Append("x-many", "b, c");
            context.Response.Headers.Append("x-empty", string.Empty);
            context.Response.Headers.CacheControl = "no-store, max-age=0";
            return Results.Text("see headers");
        });
        application.MapGet("/cookies", static (HttpContext context) =>
        {
            foreach (var (name, value) in context.Request.Cookies.OrderBy(static cookie => cookie.Key, StringComparer.Ordinal))
            {
                context.Response.Cookies.Append(name, value + "!", new CookieOptions { HttpOnly = true, Path = "/here" });
            }

            context.Response.Cookies.Delete("old");
        });
        application.MapGet("/content-length/{count:int}", static async (int count, HttpContext context) =>
        {
            context.Response.ContentLength = count;
            await context.Response.Body.WriteAsync(TestData.Bytes(count));
        });
        application.MapGet("/stream/{chunks:int}/{size:int}", static async (int chunks, int size, HttpContext context) =>
        {
            for (var i = 0; i < chunks; i++)
            {
                await context.Response.Body.WriteAsync(TestData.Bytes(size, seed: i));
                await context.Response.Body.FlushAsync();
            }
        });
        application.MapGet("/started", static async (HttpContext context) =>
        {
            await context.Response.StartAsync();
            await context.Response.WriteAsync("after the start");
        });
        application.MapGet("/on-starting", static (HttpContext context) =>
        {
            context.Response.OnStarting(() =>
            {
                context.Response.Headers["x-on-starting"] = "ran";
                return Task.CompletedTask;
            });
            return Results.Text("body");
        });
        application.MapGet("/range", static () => Results.Bytes(TestData.Bytes(10_000), enableRangeProcessing: true));
        application.MapMethods("/echo", ["POST", "PUT", "PATCH", "DELETE"], static async (HttpContext context) =>
        {
            context.Response.ContentType = context.Request.ContentType;
            await context.Request.Body.CopyToAsync(context.Response.Body);
        });
        application.MapPost("/ignore-body", static () => Results.Text("not read"));
        application.MapPost("/form", static async (HttpContext context) =>
        {
            var form = await context.Request.ReadFormAsync();
            var fields = form.OrderBy(static field => field.Key, StringComparer.Ordinal)
                .Select(static field => $"{field.Key}={field.Value}");
            var files = form.Files.Select(static file => $"{file.Name}:{file.FileName}:{file.Length}");
            await context.Response.WriteAsync(string.Join('\n', fields.Concat(files)));
        });

        // Everything that the server told the application about the request.
        application.MapFallback(static async context =>
        {
            var request = context.Request;
            var text = new StringBuilder()
                .Append(CultureInfo.InvariantCulture, $"{request.Method} {request.Scheme}://{request.Host}")
                .AppendLine(CultureInfo.InvariantCulture, $"{request.PathBase}{request.Path}{request.QueryString}");
            foreach (var (name, value) in request.Query.OrderBy(static pair => pair.Key, StringComparer.Ordinal))
            {
                text.AppendLine(CultureInfo.InvariantCulture, $"query {name} = {string.Join('|', value.ToArray())}");
            }

            // Whether a request without a body says so is the client's choice.
            foreach (var (name, value) in request.Headers
                .Where(static header => header.Key != "Content-Length")
                .OrderBy(static header => header.Key, StringComparer.OrdinalIgnoreCase))
            {
                text.AppendLine(CultureInfo.InvariantCulture, $"header {name} = {string.Join(", ", value.ToArray())}");
            }

            using var reader = new StreamReader(request.Body);
            text.Append(CultureInfo.InvariantCulture, $"body {await reader.ReadToEndAsync()}");
            context.Response.StatusCode = StatusCodes.Status404NotFound;
            await context.Response.WriteAsync(text.ToString());
        });
    }
}
