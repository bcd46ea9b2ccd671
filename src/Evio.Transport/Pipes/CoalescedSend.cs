namespace Evio.Transport.Pipes;

/// <summary>
/// A send for several flushes, on a thread of the pool, as a rule after the work item that made them. It finds out by itself whether a flush gets company when it waits.
/// </summary>
/// <remarks>
/// <para>
/// Kestrel's HTTP/2 flushes once for each response of a connection's many streams, from a single work item. If each of these is a send, sending is most
/// of what the server does. Nothing says beforehand whether another flush follows, so the last attempt tells: as long as flushes come in company,
/// all wait, and one that stayed alone has the next ones leave at once: 1 of them, then 3, 7, and so on up to <see cref="MaxDirect"/>. One lonely flush in 64 then costs a work item more.
/// </para>
/// <para>All members but <see cref="IThreadPoolWorkItem.Execute"/> are called under the connection's gate.</para>
/// </remarks>
internal sealed class CoalescedSend(SocketPipeWriter writer) : IThreadPoolWorkItem
{
    private const int MaxDirect = 63;

    private bool _tried;
    private int _flushes;
    private int _direct;
    private int _directLeft;

    /// <summary>Whether it is on its way: in the queue of the thread pool.</summary>
    internal bool IsQueued { get; private set; }

    /// <summary>Takes note of a flush that need not wait, since another thread is sending and takes it along.</summary>
    internal void NoteCompany() => _flushes++;

    /// <summary>Whether a flush is to wait for this send.</summary>
    /// <param name="queue">Whether the caller has to queue it, as soon as he has left the gate.</param>
    internal bool TryJoin(out bool queue)
    {
        queue = false;
        _flushes++;
        if (IsQueued)
        {
            return true;
        }

        if (_tried)
        {
            // Without this flush, which came too late for the last attempt.
            _tried = false;
            _direct = _flushes > 2 ? 0 : Math.Min((2 * _direct) + 1, MaxDirect);
            _directLeft = _direct;
        }

        if (_directLeft > 0)
        {
            _directLeft--;
            return false;
        }

        _tried = true;
        _flushes = 1;
        return queue = IsQueued = true;
    }

    /// <summary>It is being executed: a flush that comes from now on is not waited for.</summary>
    internal void Dequeue() => IsQueued = false;

    void IThreadPoolWorkItem.Execute() => writer.SendWaiting(due: this);
}
