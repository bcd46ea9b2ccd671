using Evio.Transport.Native;
using Evio.Transport.Pipes;

namespace Evio.Transport;

/// <summary>Looks after the connections of one loop whose applications have left input in the kernel.</summary>
/// <remarks>
/// Input stays there until somebody reads. But when the receive window is full of it, the peer cannot even say that it leaves: its FIN waits behind what
/// it could not send (RFC 9293, 3.8.6). So what nobody has asked for between two looks is read ahead, as far as the read buffer goes. No event
/// tells of that moment, a burst that fills the window is a single one, hence the timer; it runs only while there is something to look after.
/// </remarks>
internal sealed class UnreadInputMonitor(EventLoop loop)
{
    private static readonly TimeSpan CheckInterval = TimeSpan.FromMilliseconds(250);

    private readonly Lock _lock = new();

    // What follows is guarded by this. A reader knows its place, from 1 on, so that it can leave when its connection ends: of many short
    // connections, each of them gone before the next look, all would be held until then, and would survive collections for nothing.
    private readonly List<SocketPipeReader> _watched = [];
    private bool _scheduled;

    /// <summary>How many are watched.</summary>
    internal int Count => _watched.Count;

    /// <summary>Watches a reader that is not watched yet. From any thread.</summary>
    internal void Add(SocketPipeReader reader)
    {
        lock (_lock)
        {
            _watched.Add(reader);
            reader.MonitorPlace = _watched.Count;
            if (_scheduled)
            {
                return;
            }

            _scheduled = true;
        }

        Schedule();
    }

    /// <summary>Watches a reader no longer, if it is watched. From any thread.</summary>
    internal void Remove(SocketPipeReader reader)
    {
        lock (_lock)
        {
            var place = reader.MonitorPlace;
            if (place == 0)
            {
                return;
            }

            var last = _watched[^1];
            _watched[place - 1] = last;
            last.MonitorPlace = place;
            _watched.RemoveAt(_watched.Count - 1);
            reader.MonitorPlace = 0;
        }
    }

    // A loop that is ending refuses it, and closes its connections.
    private void Schedule() => _ = loop.Schedule(CheckInterval, static watch => ((UnreadInputMonitor)watch!).Check(), this);

    private void Check()
    {
        try
        {
            // From the end: who is added meanwhile, or again, is behind.
            for (var i = Count - 1; i >= 0; i--)
            {
                LookAfter(i);
            }
        }
        finally
        {
            bool again;
            lock (_lock)
            {
                again = _scheduled = _watched.Count > 0;
            }

            if (again)
            {
                Schedule();
            }
        }
    }

    private void LookAfter(int index)
    {
        SocketPipeReader reader;
        lock (_lock)
        {
            if (index >= _watched.Count)
            {
                return;
            }

            reader = _watched[index];
            Remove(reader);
        }

        if (reader.LookAfter())
        {
            Add(reader);
        }
    }
}
