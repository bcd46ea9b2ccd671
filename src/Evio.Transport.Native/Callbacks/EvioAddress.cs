using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Evio.Transport.Native.Callbacks;

/// <summary>
/// An address in evio's notation: <c>scheme[-net]://where[?reuseport=true|false]</c>, with the schemes <c>tcp tcp4 tcp6 udp udp4 udp6
/// unix</c>.
/// </summary>
internal sealed class EvioAddress
{
    /// <summary>The longest host name (RFC 1035, 3.1), as the BCL counts it.</summary>
    private const int MaxHostLength = 255;

    private EvioAddress(string text) => Text = text;

    /// <summary>The address as it was given, for messages.</summary>
    internal string Text { get; }

    internal required EndPoint EndPoint { get; init; }

    /// <summary>
    /// The end point to connect to: as <see cref="EndPoint"/>, but with the loopback address of this machine instead of the address for all
    /// its addresses.
    /// </summary>
    internal EndPoint DialEndPoint => EndPoint is IPEndPoint ip && ip.Address.Equals(AnyOf(ip.AddressFamily))
        ? new IPEndPoint(ip.AddressFamily == AddressFamily.InterNetwork || DualMode ? IPAddress.Loopback : IPAddress.IPv6Loopback, ip.Port)
        : EndPoint;

    internal bool IsDatagram { get; init; }

    /// <summary>Whether an IPv6 socket for all addresses takes IPv4 as well. True for schemes that name no family.</summary>
    internal bool DualMode { get; init; }

    internal bool ReusePort { get; init; }

    /// <summary>Whether the address asks for the fallback on System.Net.Sockets (<c>-net</c>).</summary>
    internal bool Managed { get; init; }

    /// <summary>Parses an address, and looks up host names.</summary>
    /// <exception cref="ArgumentException">
    /// The address is malformed, or something in the address is not supported; the message says what.
    /// </exception>
    /// <exception cref="SocketException">The host name is not known.</exception>
    internal static EvioAddress Parse(string text) => Parse(text, Dns.GetHostAddresses);

    /// <inheritdoc cref="Parse(string)"/>
    /// <param name="text">The address.</param>
    /// <param name="lookUp">As <see cref="Dns.GetHostAddresses(string, AddressFamily)"/>.</param>
    internal static EvioAddress Parse(string text, Func<string, AddressFamily, IPAddress[]> lookUp) => ParseCore(text, lookUp);

    /// <summary>
    /// Parses an address to connect to. A host name is not looked up: it becomes a <see cref="DnsEndPoint"/> of the scheme's family.
    /// </summary>
    /// <exception cref="ArgumentException">
    /// The address is malformed, or something in the address is not supported; the message says what.
    /// </exception>
    internal static EvioAddress ParseForDial(string text) => ParseCore(text, lookUp: null);

    private static EvioAddress ParseCore(string text, Func<string, AddressFamily, IPAddress[]>? lookUp)
    {
        ArgumentNullException.ThrowIfNull(text);
        var schemeEnd = text.IndexOf("://", StringComparison.Ordinal);
        if (schemeEnd < 0)
        {
            Refuse(text, "it has no scheme, as in tcp://127.0.0.1:5000");
        }

        var scheme = text[..schemeEnd];
        var where = text[(schemeEnd + 3)..];
        var managed = scheme.EndsWith("-net", StringComparison.Ordinal);
        var kind = managed ? scheme[..^4] : scheme;
        var reusePort = TakeReusePort(text, ref where);
        switch (kind)
        {
            case "tcp" or "tcp4" or "tcp6" or "udp" or "udp4" or "udp6":
                return new EvioAddress(text)
                {
                    EndPoint = ParseIP(text, kind, where, lookUp),
                    IsDatagram = kind[0] == 'u',
                    DualMode = kind.Length == 3,
                    ReusePort = reusePort,
                    Managed = managed,
                };
            case "unix":
                if (where.Length == 0)
                {
                    Refuse(text, "it has no path");
                }

                // An abstract address (unix(7)), as Go and the BCL write it.
                if (where[0] == '@' && OperatingSystem.IsLinux())
                {
                    where = '\0' + where[1..];
                }

                // The system would take the part before it for the path.
                if (where.AsSpan(1).Contains('\0'))
                {
                    Refuse(text, "its path contains a null character");
                }

                try
                {
                    return new EvioAddress(text) { EndPoint = new UnixDomainSocketEndPoint(where), Managed = managed };
                }
                catch (ArgumentOutOfRangeException)
                {
                    // sun_path has 108 bytes (unix(7)).
                    Refuse(text, "its path is longer than the system permits");
                    throw;
                }

            default:
                Refuse(text, $"'{scheme}' is none of the schemes tcp, tcp4, tcp6, udp, udp4, udp6, unix, each with or without -net");
                throw new InvalidOperationException();
        }
    }

    private static bool TakeReusePort(string text, ref string where)
    {
        var query = where.IndexOf('?', StringComparison.Ordinal);
        if (query < 0)
        {
            return false;
        }

        var reusePort = false;
        foreach (var parameter in where[(query + 1)..].Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            reusePort = parameter switch
            {
                "reuseport=1" or "reuseport=true" => true,
                "reuseport=0" or "reuseport=false" => false,
                _ => throw Refusal(text, $"'{parameter}' is not reuseport=true or reuseport=false, the only parameter there is"),
            };
        }

        where = where[..query];
        return reusePort;
    }

    private static EndPoint ParseIP(string text, string kind, string where, Func<string, AddressFamily, IPAddress[]>? lookUp)
    {
        var family = kind[^1] switch
        {
            '4' => AddressFamily.InterNetwork,
            '6' => AddressFamily.InterNetworkV6,
            _ => AddressFamily.Unspecified,
        };

        if (where.Length == 0)
        {
            return new IPEndPoint(AnyOf(family), 0);
        }

        // The last colon that is not within an IPv6 literal's brackets.
        var colon = where.LastIndexOf(':');
        if (colon < 0 || colon < where.LastIndexOf(']'))
        {
            Refuse(text, "it has no port");
        }

        if (!ushort.TryParse(where.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out var port))
        {
            Refuse(text, $"'{where[(colon + 1)..]}' is no port from 0 to 65535");
        }

        var host = where[..colon];
        return ParseHost(text, host, family) switch
        {
            { } address => new IPEndPoint(address, port),
            null when lookUp is null => new DnsEndPoint(host, port, family),
            null => new IPEndPoint(LookUpOne(text, host, family, lookUp), port),
        };
    }

    /// <returns>The address; <see langword="null"/> for a name.</returns>
    private static IPAddress? ParseHost(string text, string host, AddressFamily family)
    {
        if (host.Length == 0)
        {
            return AnyOf(family);
        }

        var isBracketed = host[0] == '[' && host[^1] == ']';
        var literal = isBracketed ? host.AsSpan(1, host.Length - 2) : host;
        if (IPAddress.TryParse(literal, out var address))
        {
            // TryParse takes brackets of its own, too, with a port that it ignores.
            if (isBracketed != (address.AddressFamily == AddressFamily.InterNetworkV6) || literal.StartsWith('['))
            {
                Refuse(text, "an IPv6 address, and only that, stands in brackets, as in tcp://[::1]:5000");
            }

            // TryParse ignores a zone that is no interface's name or number.
            var zone = literal.IndexOf('%');
            if (zone >= 0 && address.ScopeId == 0 && literal[(zone + 1)..].ContainsAnyExcept('0'))
            {
                Refuse(text, $"this machine has no interface '{literal[(zone + 1)..]}'");
            }

            if (family != AddressFamily.Unspecified && address.AddressFamily != family)
            {
                Refuse(text, $"{address} is not of the scheme's address family");
            }

            return address;
        }

        if (isBracketed || Uri.CheckHostName(host) != UriHostNameType.Dns)
        {
            Refuse(text, $"'{host}' is neither an IP address nor a host name");
        }

        if (host.Length > MaxHostLength)
        {
            Refuse(text, $"'{host}' is too long for a host name");
        }

        return null;
    }

    private static IPAddress LookUpOne(string text, string host, AddressFamily family, Func<string, AddressFamily, IPAddress[]> lookUp)
    {
        var addresses = LookUp(text, host, family, lookUp);

        // As in Go, a name with addresses of both families stands for its IPv4 address.
        return addresses.FirstOrDefault(static candidate => candidate.AddressFamily == AddressFamily.InterNetwork) ?? addresses[0];
    }

    private static IPAddress[] LookUp(string text, string host, AddressFamily family, Func<string, AddressFamily, IPAddress[]> lookUp)
    {
        var error = SocketError.NoData;
        try
        {
            if (lookUp(host, family) is [_, ..] addresses)
            {
                return addresses;
            }
        }
        catch (SocketException exception)
        {
            error = exception.SocketErrorCode;
        }
        catch (ArgumentException)
        {
            Refuse(text, $"'{host}' is too long for a host name");
        }

        throw new SocketException((int)error, $"The address '{text}' cannot be used: '{host}' could not be looked up ({error}).");
    }

    private static IPAddress AnyOf(AddressFamily family) =>
        family == AddressFamily.InterNetwork || (family == AddressFamily.Unspecified && !Socket.OSSupportsIPv6) ? IPAddress.Any : IPAddress.IPv6Any;

    [DoesNotReturn]
    private static void Refuse(string text, string reason) => throw Refusal(text, reason);

    private static ArgumentException Refusal(string text, string reason) => new($"The address '{text}' cannot be used: {reason}.");
}
