using System.Diagnostics.CodeAnalysis;
using Exploration;

// In its own namespace, so that the product's using directives are not in vain.
namespace System.Collections.Concurrent;

internal sealed class ConcurrentQueue<T>
{
    private readonly Queue<T> _items = new();

    internal bool IsEmpty
    {
        get
        {
            Execution.Current.Point("looks into a queue");
            return _items.Count == 0;
        }
    }

    internal void Enqueue(T item)
    {
        Execution.Current.Point("enqueues");
        _items.Enqueue(item);
    }

    internal bool TryDequeue([MaybeNullWhen(false)] out T item)
    {
        Execution.Current.Point("dequeues");
        return _items.TryDequeue(out item);
    }
}
