using Evio.Transport;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Options;

namespace Microsoft.Extensions.DependencyInjection;

/// <summary>Registers the evio transport in a service collection, with or without Kestrel.</summary>
public static class EvioServiceCollectionExtensions
{
    /// <summary>
    /// Adds <see cref="EvioTransportFactory"/> as an <see cref="IConnectionListenerFactory"/> beside those already registered. Kestrel asks
    /// the factory registered last first, so end points that evio cannot bind go to the others. The factory becomes the
    /// <see cref="IConnectionFactory"/> as well, unless one is registered already.
    /// </summary>
    /// <param name="services">The service collection.</param>
    /// <param name="configure">Sets the options; <see langword="null"/> leaves the defaults.</param>
    /// <returns>The same service collection.</returns>
    public static IServiceCollection AddEvioTransport(this IServiceCollection services, Action<EvioTransportOptions>? configure = null)
    {
        ArgumentNullException.ThrowIfNull(services);

        var options = services.AddOptions<EvioTransportOptions>();
        if (configure is not null)
        {
            options.Configure(configure);
        }

        options.ValidateOnStart();
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IValidateOptions<EvioTransportOptions>, EvioTransportOptionsValidator>());

        // One factory, and so one group of loops, per container, however often this is called.
        if (services.All(static d => d.ServiceType != typeof(EvioTransportFactory)))
        {
            services.AddSingleton<EvioTransportFactory>();
            services.AddSingleton<IConnectionListenerFactory>(static provider => provider.GetRequiredService<EvioTransportFactory>());
            services.TryAddSingleton<IConnectionFactory>(static provider => provider.GetRequiredService<EvioTransportFactory>());
        }

        return services;
    }
}
