using System.Net;
using System.Net.Sockets;
using System.Text;
using Evio.Transport.Native.Callbacks;

namespace Evio.Fuzz;

/// <summary>An address is refused as documented, or is one that can be written down and read again.</summary>
internal static class AddressTarget
{
    public static void Run(ReadOnlySpan<byte> input)
    {
        var text = Encoding.UTF8.GetString(input);
        if (TryParse(text) is not { } address)
        {
            return;
        }

        Property.Holds(address.Text == text);
        Property.Holds(address.DialEndPoint is not IPEndPoint dialled || (!dialled.Address.Equals(IPAddress.Any) && !dialled.Address.Equals(IPAddress.IPv6Any)));

        // The whole path reaches the system.
        Property.Holds(address.EndPoint is IPEndPoint || address.EndPoint.Create(address.EndPoint.Serialize()).Equals(address.EndPoint));

        // A literal's brackets are one pair, and a zone that was asked for is there.
        if (address.EndPoint is IPEndPoint { Address: var ip })
        {
            Property.Holds(text.AsSpan().Count('[') <= 1 && text.AsSpan().Count(']') <= 1);
            Property.Holds(text.IndexOf('%', StringComparison.Ordinal) is var zone && (zone < 0 || ip.ScopeId != 0 || text[zone + 1] == '0'));
        }

        var again = TryParse(Write(address, text));
        Property.Holds(again is not null);
        Property.Holds(again.EndPoint.Equals(address.EndPoint));
        Property.Holds(again.DialEndPoint.Equals(address.DialEndPoint));
        Property.Holds(again.IsDatagram == address.IsDatagram);
        Property.Holds(again.DualMode == address.DualMode);
        Property.Holds(again.ReusePort == address.ReusePort);
        Property.Holds(again.Managed == address.Managed);
    }

    /// <summary>Null for one that is refused.</summary>
    private static EvioAddress? TryParse(string text)
    {
        var failed = false;
        try
        {
            return EvioAddress.Parse(text, LookUp);
        }
        catch (ArgumentException exception)
        {
            // None of another method's about an argument of its own.
            Property.Holds(exception.GetType() == typeof(ArgumentException));
            Property.Holds(exception.Message.StartsWith($"The address '{text}' cannot be used: ", StringComparison.Ordinal));
            return null;
        }
        catch (SocketException exception)
        {
            Property.Holds(failed);
            Property.Holds(exception.Message.StartsWith($"The address '{text}' cannot be used: ", StringComparison.Ordinal));
            return null;
        }

        // As Dns.GetHostAddresses, of a resolver that knows the names of an even length: each by one, two or no addresses of the family.
        IPAddress[] LookUp(string host, AddressFamily family)
        {
            Property.Holds(!IPAddress.TryParse(host, out _));
            ArgumentOutOfRangeException.ThrowIfGreaterThan(host.Length, 255);
            if (host.Length % 2 != 0)
            {
                failed = true;
                throw new SocketException((int)SocketError.HostNotFound);
            }

            IPAddress[] addresses = [IPAddress.Parse("2001:db8::1"), IPAddress.Parse("192.0.2.1")];
            addresses = [.. addresses.Take(host.Length % 3).Where(address => family is AddressFamily.Unspecified || address.AddressFamily == family)];
            failed = addresses.Length == 0;
            return addresses;
        }
    }

    /// <summary>Another text for the same address.</summary>
    private static string Write(EvioAddress address, string original)
    {
        var suffix = address.Managed ? "-net" : "";
        if (address.EndPoint is not IPEndPoint ip)
        {
            return $"unix{suffix}://{original[(original.IndexOf("://", StringComparison.Ordinal) + 3)..].Split('?')[0]}";
        }

        var family = address.DualMode ? "" : ip.AddressFamily == AddressFamily.InterNetwork ? "4" : "6";
        return $"{(address.IsDatagram ? "udp" : "tcp")}{family}{suffix}://{ip}?reuseport={(address.ReusePort ? 1 : 0)}";
    }
}
