using System.Net;
using Evio.Bench.Ecosystem;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.Caching.Memory;
using Npgsql;
using Yarp.ReverseProxy.Configuration;
using Yarp.ReverseProxy.Forwarder;

// What applications on ASP.NET Core are made of besides it: gRPC, SignalR, YARP, PostgreSQL, a cache. eng/bench starts it with
//   --transport evio|sockets --scheduling adaptive|inline|threadpool --loops N --urls URL
//   [--h2c-port PORT] [--call-out URL, of a server behind the proxy] [--database CONNECTION-STRING]
var builder = WebApplication.CreateBuilder(new WebApplicationOptions
{
    Args = args,
    // appsettings.json lies beside the program, whatever directory it is started from.
    ContentRootPath = AppContext.BaseDirectory,
});
var settings = builder.Configuration;

var scheduling = settings.GetValue<LoopScheduling>("scheduling");
if (settings["transport"] == "evio")
{
    builder.WebHost.UseEvioTransport(evio =>
    {
        evio.LoopCount = settings.GetValue<int>("loops");
        evio.Scheduling = scheduling;
    });
}
else
{
    builder.WebHost.UseSockets(sockets => sockets.UnsafePreferInlineScheduling = scheduling == LoopScheduling.Inline);
}

var h2cPort = settings.GetValue<int?>("h2c-port");
if (h2cPort is not null)
{
    // Kestrel ignores urls once an end point is added by Listen(), so this one is a url too.
    builder.WebHost.UseUrls($"{settings[WebHostDefaults.ServerUrlsKey]};http://{IPAddress.Loopback}:{h2cPort}");
    builder.WebHost.ConfigureKestrel(kestrel => kestrel.ConfigureEndpointDefaults(listen =>
    {
        if (listen.IPEndPoint?.Port == h2cPort)
        {
            listen.Protocols = HttpProtocols.Http2;
        }
    }));
}

builder.Services.AddGrpc();
builder.Services.AddSignalR();
builder.Services.AddMemoryCache();
if (settings["call-out"] is { } backend)
{
    // As shipped, the proxy logs lines for each request.
    builder.Logging.AddFilter("Yarp", LogLevel.Warning);
    builder.Services.AddSingleton<IForwarderHttpClientFactory, ProxyClientFactory>();
    builder.Services.AddReverseProxy().LoadFromMemory(
        [.. ProxyClientFactory.Clusters.Select(static cluster => new RouteConfig
        {
            RouteId = cluster,
            ClusterId = cluster,
            Match = new RouteMatch { Path = "/" + cluster },
            Transforms = [new Dictionary<string, string> { ["PathSet"] = "/string" }],
        })],
        [.. ProxyClientFactory.Clusters.Select(cluster => new ClusterConfig
        {
            ClusterId = cluster,
            Destinations = new Dictionary<string, DestinationConfig>
            {
                ["only"] = new() { Address = new Uri(backend).GetLeftPart(UriPartial.Authority) },
            },
        })]);
}

if (settings["database"] is { } database)
{
    builder.Services.AddSingleton(_ => NpgsqlDataSource.Create(database));
}

var app = builder.Build();
app.MapGrpcService<TalkService>();
app.MapHub<EchoHub>("/hub");
app.MapGet("/cached-row", static (IMemoryCache cache, int? id) =>
    cache.GetOrCreate(id ?? DatabaseEndpoints.RandomId(), static entry => new World((int)entry.Key, 1)));
if (settings["call-out"] is not null)
{
    app.MapReverseProxy();
}

if (settings["database"] is not null)
{
    app.MapDatabase();
}

await app.RunAsync();
