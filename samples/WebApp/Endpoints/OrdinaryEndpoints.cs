namespace Evio.Samples.WebApp.Endpoints;

public sealed record Product(int Id, string Name, decimal Price);

public sealed record Order(int Id, string Customer, IReadOnlyList<Product> Products);

/// <summary>
/// Answers written as most applications write them: a handler returns a value, and the framework does the rest. It sends bodies of unknown length in chunks.
/// </summary>
internal static class OrdinaryEndpoints
{
    private const int StreamedCount = 20;
    private const int CompressedCount = 100;
    private const int MaxDelay = 60_000;

    public static void AddOrdinary(this IServiceCollection services)
    {
        services.ConfigureHttpJsonOptions(static options => options.SerializerOptions.TypeInfoResolverChain.Insert(0, SampleJson.Default));
        services.AddResponseCompression();
    }

    public static void MapOrdinary(this WebApplication app)
    {
        app.MapGet("/string", static () => "Hello, World!");
        app.MapGet("/object", static () => CreateOrder());
        app.MapPost("/object", static (Order order) => order);
        app.MapGet("/stream-objects", static () => StreamAsync());
        app.MapGet("/yield", YieldAsync);
        app.MapGet("/delay", DelayAsync);

        // On this path alone: compression is not what the other answers are about.
        app.UseWhen(static context => context.Request.Path == "/compressed", static branch => branch.UseResponseCompression());
        app.MapGet("/compressed", static () => Enumerable.Range(1, CompressedCount).Select(CreateProduct).ToArray());
    }

    public static Order CreateOrder() => new(1, "Ada", [CreateProduct(1), CreateProduct(2), CreateProduct(3)]);

    private static Product CreateProduct(int id) => new(id, $"Product number {id}", id + 0.99m);

    /// <summary>Some products are there at once and some are not, as those of a database that sends them in batches.</summary>
    private static async IAsyncEnumerable<Product> StreamAsync()
    {
        for (var id = 1; id <= StreamedCount; id++)
        {
            if (id % 4 == 0)
            {
                await Task.Yield();
            }

            yield return CreateProduct(id);
        }
    }

    private static async Task<string> YieldAsync()
    {
        await Task.Yield();
        return "yielded";
    }

    private static async Task<string> DelayAsync(int ms = 1)
    {
        await Task.Delay(Math.Clamp(ms, 0, MaxDelay));
        return "delayed";
    }
}
