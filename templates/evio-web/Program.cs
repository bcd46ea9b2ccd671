using Evio.Transport;

var builder = WebApplication.CreateBuilder(args);

// Kestrel on evio's event loops. The section Evio of appsettings.json has their options; what is set here would win.
builder.WebHost.UseEvioTransport();

var app = builder.Build();

app.MapGet("/", (HttpContext context) => $"Hello from loop {context.Features.Get<IEventLoopFeature>()?.Loop.Index}");

app.Run();
