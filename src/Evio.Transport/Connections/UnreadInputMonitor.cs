using Evio.Transport.Native;
using Evio.Transport.Pipes;

namespace Evio.Transport;

/// <summary>The unread-input monitor of one loop: it watches connections whose applications have left input in the kernel.</summary>
/// <remarks>
/// Input stays in the kernel until the application reads. When it fills the receive window, the peer cannot even announce that it leaves:
/// its FIN waits behind what it could not send (RFC 9293, 3.8.6). So input for which no read has come between two ticks is read ahead, up
/// to the size of the read buffer. No event reports that moment, because a burst that fills the window is a single event. Hence the timer,
/// which runs only while there is something to watch.
/// </remarks>
internal sealed class UnreadInputMonitor(EventLoop loop)
{
    private static readonly TimeSpan CheckInterval = TimeSpan.FromMilliseconds(250);

    private readonly Lock _lock = new();

    // What follows is guarded by this. A reader knows its place, from 1 on, so that it can be removed when its connection ends. Otherwise
    // many short connections, gone before the next tick, would be held until then, and would survive garbage collections for nothing.
    private readonly List<SocketPipeReader> _watched = [];
    private bool _scheduled;

    /// <summary>The number of readers that are watched.</summary>
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

    /// <summary>Stops watching a reader, if it is watched. From any thread.</summary>
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

    // A loop that is ending refuses the call, and closes its connections.
    private void Schedule() => _ = loop.Schedule(CheckInterval, static watch => ((UnreadInputMonitor)watch!).Check(), this);

    private void Check()
    {
        try
        {
            // From the end, because readers that are added meanwhile, or again, come behind.
            for (var i = Count - 1; i >= 0; i--)
            {
                CheckUnreadInput(i);
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

    private void CheckUnreadInput(int index)
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

        if (reader.CheckUnreadInput())
        {
            Add(reader);
        }
    }
}
