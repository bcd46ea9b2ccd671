namespace Evio.Transport.Native.Polling;

/// <summary>
/// The poller of loops that watch no descriptors, because their sockets are the BCL's. Only the timeout and the wake-up end its wait. It
/// runs on every system.
/// </summary>
internal sealed class WakeOnlyPoller : Poller
{
    private readonly AutoResetEvent _signal = new(initialState: false);

    internal override int RegisterStream(int descriptor, ulong token) => throw new NotSupportedException();

    internal override int RegisterListener(int descriptor, ulong token) => throw new NotSupportedException();

    internal override void Deregister(int descriptor) => throw new NotSupportedException();

    internal override int Wait(int timeoutMilliseconds)
    {
        _ = _signal.WaitOne(timeoutMilliseconds);
        return 0;
    }

    internal override (ulong Token, ReadyEvents Events) GetEvent(int index) => throw new NotSupportedException();

    internal override void Wake()
    {
        try
        {
            _ = _signal.Set();
        }
        catch (ObjectDisposedException)
        {
            // The loop has ended meanwhile.
        }
    }

    public override void Dispose() => _signal.Dispose();
}
