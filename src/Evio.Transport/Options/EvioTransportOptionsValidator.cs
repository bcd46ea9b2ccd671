using Evio.Transport.Native;
using Microsoft.Extensions.Options;

namespace Evio.Transport;

/// <summary>
/// Rejects options that are out of range, before anything is bound. The message has the option, its value and what is permitted.
/// </summary>
internal sealed class EvioTransportOptionsValidator : IValidateOptions<EvioTransportOptions>
{
    public ValidateOptionsResult Validate(string? name, EvioTransportOptions options)
    {
        var failures = new List<string>();

        Require(options.LoopCount is >= -1 and <= EventLoopGroupOptions.MaxLoopCount, nameof(options.LoopCount), options.LoopCount,
            $"must be from 1 to {EventLoopGroupOptions.MaxLoopCount}, 0 (one loop) or -1 (one per processor)");
        Require(Enum.IsDefined(options.LoadBalance), nameof(options.LoadBalance), options.LoadBalance,
            $"must be one of {string.Join(", ", Enum.GetNames<LoadBalance>())}");
        Require(Enum.IsDefined(options.Scheduling), nameof(options.Scheduling), options.Scheduling,
            $"must be one of {string.Join(", ", Enum.GetNames<LoopScheduling>())}");
        Require(options.MaxBlockedThreads >= 1, nameof(options.MaxBlockedThreads), options.MaxBlockedThreads, "must be at least 1");
        Require(options.LoopAffinity?.All(static processor => processor is >= 0 and < 1024) == true, nameof(options.LoopAffinity),
            options.LoopAffinity is null ? "null" : string.Join(", ", options.LoopAffinity), "must be numbers of processors, from 0 to 1023, or empty");
        Require(options.Backlog is >= 1 and <= StreamListenerOptions.MaxBacklog, nameof(options.Backlog), options.Backlog,
            $"must be from 1 to {StreamListenerOptions.MaxBacklog}");
        Require(options.MaxReadBufferSize is null or >= 0, nameof(options.MaxReadBufferSize), options.MaxReadBufferSize,
            "must be a number of bytes from 1 on, or 0 or null for no limit");
        Require(options.MaxWriteBufferSize is null or >= 0, nameof(options.MaxWriteBufferSize), options.MaxWriteBufferSize,
            "must be a number of bytes from 1 on, or 0 or null for no limit");
        Require(options.ConnectTimeout == Timeout.InfiniteTimeSpan
                || (options.ConnectTimeout >= TimeSpan.FromMilliseconds(1) && options.ConnectTimeout.TotalMilliseconds <= int.MaxValue),
            nameof(options.ConnectTimeout), options.ConnectTimeout, "must be from 1 ms to 24 days, or Timeout.InfiniteTimeSpan");
        Require(options.UnixSocketMode is null or (>= 0 and <= EvioTransportOptions.MaxUnixSocketMode), nameof(options.UnixSocketMode),
            Convert.ToString((int)options.UnixSocketMode.GetValueOrDefault(), 8), "must be from 0 to 777 (octal), or null for what the umask leaves");

        return failures.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(failures);

        void Require(bool holds, string option, object? value, string permitted)
        {
            if (!holds)
            {
                failures.Add($"{nameof(EvioTransportOptions)}.{option} is {value}; it {permitted}.");
            }
        }
    }
}
