using Evio.Samples.WebApp;
using Evio.Samples.WebApp.Endpoints;
using Evio.Transport.Native;
using Evio.Transport.Testing;
using SampleKind = Evio.Samples.WebApp.TransportKind;

namespace Evio.Samples.Tests;

/// <summary>The sample's end points on a server in this process.</summary>
internal static class SampleHost
{
    public const int Loops = 4;

    public static Task<TransportHost> StartAsync(
        Evio.Transport.Testing.TransportKind kind, LoadBalance balance = LoadBalance.RoundRobin, bool metrics = false,
        bool mvc = false, Uri? callOut = null)
    {
        var settings = new Settings
        {
            Transport = kind.IsEvio() ? SampleKind.Evio : SampleKind.Sockets,
            Scheduling = kind.Scheduling(),
            Balance = balance,
            Loops = Loops,
            Metrics = metrics,
            Mvc = mvc,
            CallOut = callOut,
        };
        return TransportHost.StartAsync(
            kind,
            static application => application.MapSampleEndpoints(),
            new HostSettings
            {
                Transport = new TransportSettings { LoopCount = Loops, LoadBalance = balance },
                Services = services => services.AddSampleEndpoints(settings),
            });
    }
}
