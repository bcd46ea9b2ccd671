using System.Diagnostics.Metrics;
using System.Net;
using Evio.Transport;
using Evio.Transport.Native;
using Evio.Transport.Testing;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Samples.Tests;

/// <summary>The sample's health check and its metrics. Alone: who collects a meter's instruments gets those of all hosts in the process.</summary>
[CollectionDefinition(nameof(OperationsTests), DisableParallelization = true)]
[Collection(nameof(OperationsTests))]
public sealed class OperationsTests
{
    [Theory, AllTransports]
    public async Task It_is_well_when_every_loop_answers(TransportKind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();

        Assert.Equal($"loops: Healthy, {(kind.IsEvio() ? SampleHost.Loops : 0)} answer\n", await client.GetStringAsync("/health").OrTimeout());
    }

    [Theory, EvioTransports]
    public async Task It_is_not_well_when_a_loop_is_held_and_nobody_takes_it_over(TransportKind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();
        // In turn: this connection is on the first loop.
        await client.GetStringAsync("/plaintext").OrTimeout();
        var loop = host.Services.GetRequiredService<EvioTransportFactory>().Loops[2];
        using var release = new ManualResetEventSlim();
        try
        {
            Assert.True(loop.TryPost(_ => release.Wait(TestContext.Current.CancellationToken), null));

            using var held = await client.GetAsync("/health").OrTimeout();

            if (kind == TransportKind.EvioAdaptive)
            {
                // The thread is held; the loop goes on with another one.
                Assert.Equal("loops: Healthy, 4 answer\n", await held.Content.ReadAsStringAsync().OrTimeout());
            }
            else
            {
                Assert.Equal(HttpStatusCode.ServiceUnavailable, held.StatusCode);
                Assert.Equal("loops: Unhealthy, no answer within 1 s from 2\n", await held.Content.ReadAsStringAsync().OrTimeout());
            }
        }
        finally
        {
            release.Set();
        }

        Assert.Equal("loops: Healthy, 4 answer\n", await client.GetStringAsync("/health").OrTimeout());
    }

    [Theory, EvioTransports]
    public async Task Prometheus_gets_the_meter_of_the_transport(TransportKind kind)
    {
        await using var host = await SampleHost.StartAsync(kind, metrics: true);
        using var client = host.CreateClient();
        await client.GetStringAsync("/plaintext").OrTimeout();

        var text = await client.GetStringAsync("/metrics").OrTimeout();

        Assert.Contains("evio_loop_accepts_total{", text, StringComparison.Ordinal);
        Assert.Matches("""(?m)^evio_loop_connections\{.*evio_loop_index="0".*\} 1\r?$""", text);
        Assert.Contains("kestrel_active_connections{", text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Without_the_switch_nothing_is_collected()
    {
        await using var host = await SampleHost.StartAsync(TransportKind.EvioThreadPool);
        using var client = host.CreateClient();

        using var response = await client.GetAsync("/metrics").OrTimeout();

        Assert.Equal(HttpStatusCode.NotFound, response.StatusCode);
        Assert.NotEmpty(Instruments(host));
        Assert.DoesNotContain(Instruments(host), static instrument => instrument.Enabled);
    }

    /// <summary>The transport's instruments of one host, without enabling them.</summary>
    internal static IReadOnlyList<Instrument> Instruments(TransportHost host)
    {
        var meters = host.Services.GetRequiredService<IMeterFactory>();
        var instruments = new List<Instrument>();
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, _) =>
            {
                if (instrument.Meter.Name == EventLoopGroup.MeterName && ReferenceEquals(instrument.Meter.Scope, meters))
                {
                    instruments.Add(instrument);
                }
            },
        };
        listener.Start();
        return instruments;
    }
}
