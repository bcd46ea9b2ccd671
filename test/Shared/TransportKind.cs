using System.Reflection;
using Evio.Transport.Native;
using Xunit.Sdk;
using Xunit.v3;

namespace Evio.Transport.Testing;

/// <summary>The transports on which the same test body must have the same outcome.</summary>
public enum TransportKind
{
    EvioInline,
    EvioThreadPool,
    EvioAdaptive,

    /// <summary>The framework's own transport: the reference.</summary>
    Sockets,
}

internal static class TransportKindExtensions
{
    public static bool IsEvio(this TransportKind kind) => kind is not TransportKind.Sockets;

    public static LoopScheduling Scheduling(this TransportKind kind) => kind switch
    {
        TransportKind.EvioInline => LoopScheduling.Inline,
        TransportKind.EvioAdaptive => LoopScheduling.Adaptive,
        _ => LoopScheduling.ThreadPool,
    };
}

/// <summary>Runs a theory on every transport, and with each of the values, if there are any, as its second argument.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class AllTransportsAttribute(params object[] values)
    : TransportsAttribute([TransportKind.EvioInline, TransportKind.EvioThreadPool, TransportKind.EvioAdaptive, TransportKind.Sockets], values);

/// <summary>Runs a theory on evio only, in all scheduling modes: the reference has no such behaviour.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class EvioTransportsAttribute(params object[] values)
    : TransportsAttribute([TransportKind.EvioInline, TransportKind.EvioThreadPool, TransportKind.EvioAdaptive], values);

public abstract class TransportsAttribute(TransportKind[] kinds, object[] values) : DataAttribute
{
    public override ValueTask<IReadOnlyCollection<ITheoryDataRow>> GetData(MethodInfo testMethod, DisposalTracker disposalTracker) =>
        ValueTask.FromResult<IReadOnlyCollection<ITheoryDataRow>>(
            values.Length == 0
                ? [.. kinds.Select(static kind => new TheoryDataRow(kind))]
                : [.. kinds.SelectMany(kind => values.Select(value => new TheoryDataRow(kind, value)))]);

    public override bool SupportsDiscoveryEnumeration() => true;
}
