using Evio.Transport.Native;
using Evio.Transport.Pipes;

namespace Evio.Transport;

/// <summary>Looks after the connections of one loop whose applications have left input in the kernel.</summary>
/// <remarks>
/// Input stays there until somebody reads. But when the receive window is full of it, the peer cannot even say that it leaves: its FIN waits behind what
/// it could not send (RFC 9293, 3.8.6). So what nobody has asked for between two looks is read ahead, as far as the read buffer goes. No event
/// tells of that moment, a burst that fills the window is a single one, hence the timer; it runs only while there is something to look after.
/// </remarks>
internal sealed class UnreadInputWatch(EventLoop loop)
{
    private static readonly TimeSpan LookInterval = TimeSpan.FromMilliseconds(250);

    private readonly Lock _lock = new();

    // Added to by any thread, under the lock; a look takes it.
    private List<SocketPipeReader> _watched = [];

    /// <summary>Watches a reader that is not watched yet. From any thread.</summary>
    internal void Add(SocketPipeReader reader)
    {
        lock (_lock)
        {
            _watched.Add(reader);
            if (_watched.Count > 1)
            {
                return;
            }
        }

        // A loop that is ending closes its connections.
        _ = loop.Schedule(LookInterval, static watch => ((UnreadInputWatch)watch!).Look(), this);
    }

    private void Look()
    {
        List<SocketPipeReader> looking;
        lock (_lock)
        {
            looking = _watched;
            _watched = [];
        }

        foreach (var reader in looking)
        {
            if (reader.LookAfter())
            {
                Add(reader);
            }
        }
    }
}
