using Evio.Transport;
using Microsoft.Extensions.DependencyInjection;

namespace Microsoft.AspNetCore.Hosting;

/// <summary>Puts Kestrel on evio's event loops.</summary>
public static class EvioWebHostBuilderExtensions
{
    /// <summary>Makes Kestrel accept and serve its connections through evio's event loops, with default options.</summary>
    /// <param name="builder">The builder of the web host, for example <c>builder.WebHost</c>.</param>
    /// <returns>The same builder.</returns>
    public static IWebHostBuilder UseEvioTransport(this IWebHostBuilder builder)
    {
        ArgumentNullException.ThrowIfNull(builder);
        return builder.ConfigureServices(static services => services.AddEvioTransport());
    }

    /// <summary>Makes Kestrel accept and serve its connections through evio's event loops.</summary>
    /// <param name="builder">The builder of the web host, for example <c>builder.WebHost</c>.</param>
    /// <param name="configure">Sets the options; a value out of range stops the start with its name and the permitted range.</param>
    /// <returns>The same builder.</returns>
    public static IWebHostBuilder UseEvioTransport(this IWebHostBuilder builder, Action<EvioTransportOptions> configure)
    {
        ArgumentNullException.ThrowIfNull(builder);
        ArgumentNullException.ThrowIfNull(configure);
        return builder.ConfigureServices(services => services.AddEvioTransport(configure));
    }
}
