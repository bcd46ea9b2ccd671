using System.Globalization;
using Evio.Transport;
using Evio.Transport.Native;

namespace Evio.Samples.WebApp;

public enum TransportKind
{
    Evio,
    Sockets,
}

/// <summary>
/// What the command line (<c>--raw-port 7000</c>), the environment (<c>WebApp__RawPort=7000</c>) and appsettings.json
/// (<c>"WebApp": { "RawPort": 7000 }</c>) say, in this order of precedence.
/// </summary>
public sealed record Settings
{
    private const string DefaultUrl = "http://127.0.0.1:5000";

    private static readonly Dictionary<string, string> KeysBySwitch = new(StringComparer.OrdinalIgnoreCase)
    {
        ["--transport"] = "WebApp:Transport",
        ["--loops"] = "WebApp:Loops",
        ["--balance"] = "WebApp:Balance",
        ["--scheduling"] = "WebApp:Scheduling",
        ["--raw-port"] = "WebApp:RawPort",
        ["--https-port"] = "WebApp:HttpsPort",
        ["--h2c-port"] = "WebApp:H2cPort",
        ["--echo-port"] = "WebApp:EchoPort",
        ["--udp-echo-port"] = "WebApp:UdpEchoPort",
        ["--native-http-port"] = "WebApp:NativeHttpPort",
        ["--redis-port"] = "WebApp:RedisPort",
        ["--call-out"] = "WebApp:CallOut",
        ["--mvc"] = "WebApp:Mvc",
        ["--metrics"] = "WebApp:Metrics",
    };

    public TransportKind Transport { get; init; } = TransportKind.Evio;

    /// <summary>The number of evio loops, as in <see cref="EvioTransportOptions.LoopCount"/>. The Sockets transport has none.</summary>
    public int Loops { get; init; } = -1;

    /// <summary>Which loop gets a connection. The Sockets transport has nothing to balance.</summary>
    public LoadBalance Balance { get; init; } = LoadBalance.LeastConnections;

    public LoopScheduling Scheduling { get; init; } = LoopScheduling.Adaptive;

    /// <summary>The addresses of <c>--urls</c>, in Kestrel's notation.</summary>
    public IReadOnlyList<string> Urls { get; init; } = [];

    /// <summary>The loopback port of the raw TCP echo.</summary>
    public int? RawPort { get; init; }

    /// <summary>The loopback port of HTTP/1.1 and HTTP/2 over TLS.</summary>
    public int? HttpsPort { get; init; }

    /// <summary>The loopback port of HTTP/2 without TLS, for clients with prior knowledge.</summary>
    public int? H2cPort { get; init; }

    /// <summary>The loopback port of the TCP echo on the callback API.</summary>
    public int? EchoPort { get; init; }

    /// <summary>The loopback port of the UDP echo on the callback API.</summary>
    public int? UdpEchoPort { get; init; }

    /// <summary>The loopback port of the HTTP responder on the callback API.</summary>
    public int? NativeHttpPort { get; init; }

    /// <summary>The loopback port of the little Redis on the callback API.</summary>
    public int? RedisPort { get; init; }

    /// <summary>What <c>/call-out</c> asks. Null: this server's <c>/string</c>.</summary>
    public Uri? CallOut { get; init; }

    /// <summary>Whether there is an action of MVC at <c>/mvc</c>.</summary>
    public bool Mvc { get; init; }

    /// <summary>Whether the meters of the transport and of Kestrel are kept for Prometheus at <c>/metrics</c>.</summary>
    public bool Metrics { get; init; }

    /// <exception cref="SettingsException">A value is not permitted.</exception>
    public static Settings Read(ConfigurationManager configuration, string[] args)
    {
        // The configuration silently drops a last switch that has no value.
        if (args is [.., var last] && KeysBySwitch.ContainsKey(last))
        {
            throw new SettingsException($"{last} needs a value.");
        }

        configuration.AddCommandLine(args, KeysBySwitch);

        return new Settings
        {
            Transport = Choice(configuration, "--transport", TransportKind.Evio),
            Loops = Number(configuration, "--loops", -1, EventLoopGroupOptions.MaxLoopCount, " (-1 is one per processor)") ?? -1,
            Balance = Choice(configuration, "--balance", LoadBalance.LeastConnections),
            Scheduling = Choice(configuration, "--scheduling", LoopScheduling.Adaptive),
            RawPort = Port(configuration, "--raw-port"),
            HttpsPort = Port(configuration, "--https-port"),
            H2cPort = Port(configuration, "--h2c-port"),
            EchoPort = Port(configuration, "--echo-port"),
            UdpEchoPort = Port(configuration, "--udp-echo-port"),
            NativeHttpPort = Port(configuration, "--native-http-port"),
            RedisPort = Port(configuration, "--redis-port"),
            CallOut = Url(configuration, "--call-out"),
            Mvc = ReadMvc(configuration),
            Metrics = Flag(configuration, "--metrics"),
            Urls = ReadUrls(configuration),
        };
    }

    /// <summary>How the command line spells a value: <c>roundrobin</c> for <see cref="LoadBalance.RoundRobin"/>.</summary>
    public static string Spell<T>(T value)
        where T : struct, Enum => value.ToString().ToLowerInvariant();

    private static T Choice<T>(ConfigurationManager configuration, string option, T fallback)
        where T : struct, Enum
    {
        if (configuration[KeysBySwitch[option]] is not { } text)
        {
            return fallback;
        }

        // Not Enum.TryParse, which takes any number for a value.
        foreach (var value in Enum.GetValues<T>())
        {
            if (Spell(value).Equals(text, StringComparison.OrdinalIgnoreCase))
            {
                return value;
            }
        }

        throw Refuse(option, text, $"one of {string.Join(", ", Enum.GetValues<T>().Select(Spell))}");
    }

    private static bool ReadMvc(ConfigurationManager configuration)
    {
        const string option = "--mvc";
        var isWanted = Flag(configuration, option);
#if !MVC
        if (isWanted)
        {
            throw new SettingsException($"{option} ({KeysBySwitch[option]}) is 'true'; a program that is compiled ahead of time has no MVC.");
        }
#endif
        return isWanted;
    }

    private static Uri? Url(ConfigurationManager configuration, string option)
    {
        if (configuration[KeysBySwitch[option]] is not { } text)
        {
            return null;
        }

        return Uri.TryCreate(text, UriKind.Absolute, out var url) && url.Scheme is "http" or "https"
            ? url
            : throw Refuse(option, text, "an http or https address such as http://127.0.0.1:5001/string");
    }

    private static bool Flag(ConfigurationManager configuration, string option) =>
        configuration[KeysBySwitch[option]] is { } text && (bool.TryParse(text, out var flag) ? flag : throw Refuse(option, text, "true or false"));

    private static int? Port(ConfigurationManager configuration, string option) =>
        Number(configuration, option, 1, 65535);

    private static int? Number(ConfigurationManager configuration, string option, int min, int max, string meaning = "")
    {
        if (configuration[KeysBySwitch[option]] is not { } text)
        {
            return null;
        }

        return int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number) && number >= min && number <= max
            ? number
            : throw Refuse(option, text, $"a whole number from {min} to {max}{meaning}");
    }

    /// <summary>The same sources in the same order as in any ASP.NET Core program: urls, else ports, else end points of Kestrel's section.</summary>
    private static string[] ReadUrls(ConfigurationManager configuration)
    {
        string[] urls = Split(WebHostDefaults.ServerUrlsKey);
        if (urls.Length == 0)
        {
            urls =
            [
                .. Split(WebHostDefaults.HttpPortsKey).Select(static port => $"http://*:{port}"),
                .. Split(WebHostDefaults.HttpsPortsKey).Select(static port => $"https://*:{port}"),
            ];
        }

        if (urls.Length == 0 && !configuration.GetSection("Kestrel:Endpoints").GetChildren().Any())
        {
            urls = [DefaultUrl];
        }

        return Array.Find(urls, static url => !IsUrl(url)) is { } bad
            ? throw new SettingsException($"--urls is '{bad}'; it must be http or https addresses such as {DefaultUrl}, https://*:5001 " +
                "or http://unix:/run/web.sock, with ports from 0 to 65535, separated by ';'.")
            : urls;

        string[] Split(string key) =>
            configuration[key]?.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries) ?? [];
    }

    private static bool IsUrl(string url)
    {
        try
        {
            var address = BindingAddress.Parse(url);
            return address is { Scheme: "http" or "https", PathBase: "", Port: >= 0 and <= 65535 };
        }
        catch (FormatException)
        {
            return false;
        }
    }

    private static SettingsException Refuse(string option, string value, string permitted) =>
        new($"{option} ({KeysBySwitch[option]}) is '{value}'; it must be {permitted}.");
}
