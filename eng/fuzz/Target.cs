using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;

namespace Evio.Fuzz;

/// <summary>Runs code on one input, and throws when it does not keep what it promises.</summary>
internal delegate void Target(ReadOnlySpan<byte> input);

internal static class Targets
{
    /// <summary>By the name that the folder of its corpus has as well.</summary>
    public static SortedDictionary<string, Target> All { get; } = new(StringComparer.Ordinal)
    {
        ["address"] = AddressTarget.Run,
        ["input-stream"] = InputStreamTarget.Run,
        ["resp"] = RespTarget.Run,
    };
}

internal static class Property
{
    public static void Holds([DoesNotReturnIf(false)] bool property, [CallerArgumentExpression(nameof(property))] string? text = null)
    {
        if (!property)
        {
            throw new BrokenPropertyException($"This does not hold: {text}");
        }
    }
}

internal sealed class BrokenPropertyException(string message) : Exception(message);
