using Evio.Transport;
using Evio.Transport.Native;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using OpenTelemetry.Metrics;

namespace Evio.Samples.WebApp.Endpoints;

/// <summary>What those ask for who operate a server: whether it is well, and its metrics.</summary>
internal static class OperationsEndpoints
{
    public static void AddOperations(this IServiceCollection services, Settings settings)
    {
        services.AddHealthChecks().AddCheck<LoopsHealthCheck>("loops");
        if (settings.Metrics)
        {
            services.AddOpenTelemetry().WithMetrics(static metrics => metrics
                .AddMeter(EventLoopGroup.MeterName, "Microsoft.AspNetCore.Server.Kestrel", "Microsoft.AspNetCore.Hosting")
                .AddPrometheusExporter());
        }
    }

    public static void MapOperations(this IEndpointRouteBuilder endpoints)
    {
        endpoints.MapHealthChecks("/health", new() { ResponseWriter = WriteAsync });
        if (endpoints.ServiceProvider.GetRequiredService<Settings>().Metrics)
        {
            endpoints.MapPrometheusScrapingEndpoint("/metrics");
        }
    }

    private static Task WriteAsync(HttpContext context, HealthReport report) => context.Response.WriteAsync(
        string.Concat(report.Entries.Select(static entry => $"{entry.Key}: {entry.Value.Status}, {entry.Value.Description}\n")));

    /// <summary>Asks every loop for a sign of life. A loop that a handler holds gives none; with <see cref="LoopScheduling.Inline"/> that happens.</summary>
    private sealed class LoopsHealthCheck(IServiceProvider services) : IHealthCheck
    {
        private static readonly TimeSpan MaxWaitForProcessor = TimeSpan.FromSeconds(1);

        public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
        {
            var loops = services.GetService<EvioTransportFactory>()?.Loops ?? [];
            var silent = (await Task.WhenAll(loops.Select(loop => AnswersAsync(loop, cancellationToken))))
                .Index()
                .Where(static answer => !answer.Item)
                .Select(static answer => answer.Index)
                .ToArray();
            return silent.Length == 0
                ? HealthCheckResult.Healthy($"{loops.Count} answer")
                : HealthCheckResult.Unhealthy($"no answer within {MaxWaitForProcessor.TotalSeconds} s from {string.Join(", ", silent)}");
        }

        private static async Task<bool> AnswersAsync(EventLoop loop, CancellationToken cancellationToken)
        {
            var answer = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            if (!loop.TryPost(static state => ((TaskCompletionSource)state!).SetResult(), answer))
            {
                return false;
            }

            try
            {
                await answer.Task.WaitAsync(MaxWaitForProcessor, cancellationToken);
                return true;
            }
            catch (TimeoutException)
            {
                return false;
            }
        }
    }
}
