using Evio.Samples.WebApp;
using Evio.Samples.WebApp.Endpoints;
using Evio.Samples.WebApp.Native;

var builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions
{
    Args = args,
    // appsettings.json lies beside the program, whatever directory it is started from.
    ContentRootPath = AppContext.BaseDirectory,
});

Settings settings;
try
{
    settings = Settings.Read(builder.Configuration, args);
}
catch (SettingsException refused)
{
    Console.Error.WriteLine(refused.Message);
    return 2;
}

builder.UseTransport(settings);
builder.ListenOn(settings);
builder.Services.AddSampleEndpoints(settings);
builder.Services.AddHostedService<NativeServers>();

// Ctrl+C stops the program at once: requests that have not ended by then are aborted.
builder.Services.Configure<HostOptions>(static host => host.ShutdownTimeout = TimeSpan.FromMilliseconds(500));

var app = builder.Build();
app.MapSampleEndpoints();
app.AnnounceTransport(settings);
await app.RunAsync();
return 0;
