using Evio.Transport.Native;

namespace Evio.Transport.Pipes;

/// <summary>Whether a receive may bring something, by the rules of edge-triggered epoll(7).</summary>
/// <remarks>
/// <list type="bullet">
/// <item><see cref="IsReadable"/> is cleared <i>before</i> a receive, so that an event during it is not lost.</item>
/// <item>A receive that fills its room leaves more: <see cref="IsReadable"/> is set again. One that does not has drained the socket...</item>
/// <item>...unless the end of the input, an error or an urgent mark may follow (<see cref="IsEndAhead"/>), which get no event of their own.</item>
/// </list>
/// <para>A part of the reader, whose gate guards it.</para>
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
