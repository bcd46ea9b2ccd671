using Evio.Transport;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace Microsoft.AspNetCore.Hosting;

/// <summary>Puts Kestrel on evio's event loops.</summary>
public static class EvioWebHostBuilderExtensions
{
    /// <summary>
    /// Makes Kestrel accept and serve its connections through evio's event loops, with the options that the section "Evio" of the
    /// configuration sets.
    /// </summary>
    /// <remarks>
    /// The section's keys are the names of <see cref="EvioTransportOptions"/>. An unknown name, a value that cannot be read, or a value out
    /// of range stops the start; the message has the option's name.
    /// </remarks>
    /// <param name="builder">The builder of the web host, for example <c>builder.WebHost</c>.</param>
    /// <returns>The same builder.</returns>
    public static IWebHostBuilder UseEvioTransport(this IWebHostBuilder builder)
    {
        ArgumentNullException.ThrowIfNull(builder);
        return builder.ConfigureServices(static (context, services) => services.AddEvioTransport().Configure(context.Configuration));
    }

    /// <summary>
    /// Makes Kestrel accept and serve its connections through evio's event loops, with options from code. They override those of the
    /// section "Evio" of the configuration (<see cref="UseEvioTransport(IWebHostBuilder)"/>).
    /// </summary>
    /// <param name="builder">The builder of the web host, for example <c>builder.WebHost</c>.</param>
    /// <param name="configure">Sets the options; a value out of range stops the start with its name and the permitted range.</param>
    /// <returns>The same builder.</returns>
    public static IWebHostBuilder UseEvioTransport(this IWebHostBuilder builder, Action<EvioTransportOptions> configure)
    {
        ArgumentNullException.ThrowIfNull(builder);
        ArgumentNullException.ThrowIfNull(configure);
        return builder.ConfigureServices((context, services) => services.AddEvioTransport(configure).Configure(context.Configuration));
    }

    private static void Configure(this IServiceCollection services, IConfiguration configuration)
    {
        // First, and once, so that all code that sets options comes after it, wherever it stands.
        if (!services.Any(static service =>
                service.ServiceType == typeof(IConfigureOptions<EvioTransportOptions>) && service.ImplementationInstance is EvioTransportConfiguration))
        {
            services.Insert(0, ServiceDescriptor.Singleton<IConfigureOptions<EvioTransportOptions>>(new EvioTransportConfiguration(configuration)));
        }
    }
}
