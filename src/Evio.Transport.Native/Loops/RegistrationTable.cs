using Evio.Transport.Native.Polling;

namespace Evio.Transport.Native.Loops;

/// <summary>Receives the events of a registered descriptor. All members are called on the loop.</summary>
internal interface IPollTarget
{
    /// <summary>Handles the events that the kernel has reported.</summary>
    void OnReady(ReadyEvents events);

    /// <summary>Called when <see cref="OnReady"/> has thrown. The target should close itself, and only itself.</summary>
    void OnHandlerException(Exception exception);

    /// <summary>Called when the loop ends. The target closes its descriptor, or moves to another loop.</summary>
    void OnLoopStopping();
}

/// <summary>
/// A loop's registrations by token. A token is a slot and the slot's generation. After a descriptor was closed, the next one with the same
/// number, or in the same slot, has another token. So it cannot get an event that the kernel reported for the closed one.
/// </summary>
internal sealed class RegistrationTable
{
    // Slot 0 is never given out: its first token would be the poller's own.
    private Slot[] _slots = new Slot[64];
    private int _used = 1;
    private int _firstFree;

    internal int Count { get; private set; }

    internal ulong Add(IPollTarget target)
    {
        int index;
        if (_firstFree != 0)
        {
            index = _firstFree;
            _firstFree = _slots[index].NextFree;
        }
        else
        {
            if (_used == _slots.Length)
            {
                Array.Resize(ref _slots, _slots.Length * 2);
            }

            index = _used++;
        }

        ref var slot = ref _slots[index];
        slot.Target = target;
        Count++;
        return ((ulong)slot.Generation << 32) | (uint)index;
    }

    /// <summary>The target of a token, or null when it is no longer registered.</summary>
    internal IPollTarget? Find(ulong token)
    {
        var slots = _slots;
        var index = (uint)token;
        return index < (uint)slots.Length && slots[index].Generation == (uint)(token >> 32) ? slots[index].Target : null;
    }

    /// <summary>Removes a token. A token that is not registered any more is no error.</summary>
    internal void Remove(ulong token)
    {
        if (token == Poller.WakeToken || Find(token) is null)
        {
            return;
        }

        var index = (int)(uint)token;
        ref var slot = ref _slots[index];
        slot.Target = null;
        slot.Generation++;
        slot.NextFree = _firstFree;
        _firstFree = index;
        Count--;
    }

    /// <summary>Copies the targets of this moment, because they remove themselves while the caller walks through them.</summary>
    internal List<IPollTarget> Snapshot()
    {
        var targets = new List<IPollTarget>(Count);
        foreach (ref readonly var slot in _slots.AsSpan(0, _used))
        {
            if (slot.Target is { } target)
            {
                targets.Add(target);
            }
        }

        return targets;
    }

    private struct Slot
    {
        internal IPollTarget? Target;
        internal uint Generation;
        internal int NextFree;
    }
}
