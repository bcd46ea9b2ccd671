using Evio.Transport.Native;
using Microsoft.AspNetCore.Hosting;

namespace Evio.Transport.Testing;

/// <summary>What both transports let a test set, and the number of loops; null keeps the default.</summary>
internal sealed record TransportSettings
{
    public static TransportSettings Default { get; } = new();

    public int? LoopCount { get; init; }

    public LoadBalance? LoadBalance { get; init; }

    public int? MaxBlockedThreads { get; init; }

    public long? MaxReadBufferSize { get; init; }

    public long? MaxWriteBufferSize { get; init; }

    /// <summary>Puts the server that <paramref name="builder"/> makes on the transport.</summary>
    public void Use(TransportKind kind, IWebHostBuilder builder)
    {
        if (kind.IsEvio())
        {
            builder.UseEvioTransport(options => Apply(kind, options));
            return;
        }

        builder.UseSockets(options =>
        {
            options.MaxReadBufferSize = MaxReadBufferSize ?? options.MaxReadBufferSize;
            options.MaxWriteBufferSize = MaxWriteBufferSize ?? options.MaxWriteBufferSize;
        });
    }

    public void Apply(TransportKind kind, EvioTransportOptions options)
    {
        options.Scheduling = kind.Scheduling();
        options.LoopCount = LoopCount ?? options.LoopCount;
        options.LoadBalance = LoadBalance ?? options.LoadBalance;
        options.MaxBlockedThreads = MaxBlockedThreads ?? options.MaxBlockedThreads;
        options.MaxReadBufferSize = MaxReadBufferSize ?? options.MaxReadBufferSize;
        options.MaxWriteBufferSize = MaxWriteBufferSize ?? options.MaxWriteBufferSize;
    }
}
