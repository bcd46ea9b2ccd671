using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <summary>Whether a receive may bring something, by the rules of edge-triggered epoll(7).</summary>
/// <remarks>
/// <list type="bullet">
/// <item><see cref="IsReadable"/> is cleared <i>before</i> a receive, so that an event during the receive is not lost.</item>
/// <item>
/// A receive that fills its room sets <see cref="IsReadable"/> again, because it leaves more. Any other receive has drained the socket.
/// </item>
/// <item>
/// The end of the input, an error and an urgent mark get no event of their own. While one may follow (<see cref="IsEndAhead"/>), each
/// receive sets <see cref="IsReadable"/> again.
/// </item>
/// </list>
/// <para>A part of the reader. The connection's gate guards it.</para>
/// </remarks>
internal struct InputReadiness
{
    internal bool IsReadable { get; private set; }

    internal bool IsEndAhead { get; private set; }

    /// <returns>Whether one of the events is about the input.</returns>
    internal bool Note(ReadyEvents events)
    {
        if ((events & ~ReadyEvents.Writable) == 0)
        {
            return false;
        }

        IsReadable = true;
        IsEndAhead |= (events & ~(ReadyEvents.Writable | ReadyEvents.Readable)) != 0;
        return true;
    }

    internal void BeginReceive() => IsReadable = false;

    /// <param name="isFull">Whether the receive has filled its room.</param>
    internal void EndReceive(bool isFull) => IsReadable |= isFull || IsEndAhead;
}
