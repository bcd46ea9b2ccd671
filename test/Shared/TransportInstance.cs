using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.Testing;

/// <summary>A transport by itself, made by a service container, without a server on top. It owns the listeners that it bound.</summary>
internal sealed class TransportInstance : IAsyncDisposable
{
    private readonly IAsyncDisposable _container;
    private readonly StrictMemoryPoolFactory? _pools;
    private readonly List<IConnectionListener> _listeners = [];

    private TransportInstance(IServiceProvider services, IAsyncDisposable container)
    {
        _container = container;
        Services = services;
        Factory = services.GetServices<IConnectionListenerFactory>().Last();
        _pools = services.GetService<IMemoryPoolFactory<byte>>() as StrictMemoryPoolFactory;
    }

    public IServiceProvider Services { get; }

    public IConnectionListenerFactory Factory { get; }

    public static TransportInstance Create(
        TransportKind kind, TransportSettings? settings = null, Action<IServiceCollection>? configureServices = null)
    {
        settings ??= TransportSettings.Default;
        if (kind.IsEvio())
        {
            var services = new ServiceCollection().AddLogging();
            services.AddSingleton<IMemoryPoolFactory<byte>>(new StrictMemoryPoolFactory());
            configureServices?.Invoke(services);
            var provider = services.AddEvioTransport(options => settings.Apply(kind, options)).BuildServiceProvider();
            return new TransportInstance(provider, provider);
        }

        // The reference reads its memory pool factory from the container only when a web host builder registers it.
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore();
        settings.Use(kind, builder.WebHost);
        builder.Services.AddSingleton<IMemoryPoolFactory<byte>>(new StrictMemoryPoolFactory());
        configureServices?.Invoke(builder.Services);
        var application = builder.Build();
        return new TransportInstance(application.Services, application);
    }

    /// <summary>Binds <paramref name="endPoint"/>, or else a free port of the loopback address.</summary>
    public async Task<IConnectionListener> BindAsync(EndPoint? endPoint = null)
    {
        var listener = await Factory.BindAsync(endPoint ?? new IPEndPoint(IPAddress.Loopback, 0)).OrTimeout();
        _listeners.Add(listener);
        return listener;
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            await DisposeAllAsync();
        }
        finally
        {
            _pools?.AssertKept();
        }
    }

    private async Task DisposeAllAsync()
    {
        foreach (var listener in _listeners)
        {
            await listener.DisposeAsync().OrTimeout();
        }

        await _container.DisposeAsync().OrTimeout();
    }
}
