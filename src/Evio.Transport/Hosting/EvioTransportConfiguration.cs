using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.Options;

namespace Evio.Transport;

/// <summary>Reads the options from the section <see cref="Section"/> of a configuration.</summary>
internal sealed class EvioTransportConfiguration(IConfiguration configuration) : IConfigureOptions<EvioTransportOptions>
{
    internal const string Section = "Evio";

    public void Configure(EvioTransportOptions options)
    {
        var section = configuration.GetSection(Section);

        // A misspelled name is an error like a misspelled value.
        section.Bind(options, static binder => binder.ErrorOnUnknownConfiguration = true);

        // The binder passes over a value where it expects a list.
        if (section[nameof(options.LoopAffinity)] is { Length: > 0 } processors)
        {
            throw new InvalidOperationException(
                $"Configuration value '{processors}' at '{Section}:{nameof(options.LoopAffinity)}' is no list; it must be an array of processor numbers.");
        }

        // The binder takes the digits of a mode for a decimal number.
        if (section[nameof(options.UnixSocketMode)] is { Length: > 0 } mode)
        {
            options.UnixSocketMode = ParseMode(mode);
        }
    }

    private static UnixFileMode ParseMode(string text)
    {
        var mode = 0;
        foreach (var digit in text)
        {
            mode = (mode << 3) | (digit - '0');
            if (digit is < '0' or > '7' || mode > (int)EvioTransportOptions.MaxUnixSocketMode)
            {
                throw new InvalidOperationException(
                    $"Configuration value '{text}' at '{Section}:{nameof(EvioTransportOptions.UnixSocketMode)}' is no file mode; "
                    + "it must be octal digits, from 0 to 0777.");
            }
        }

        return (UnixFileMode)mode;
    }
}
