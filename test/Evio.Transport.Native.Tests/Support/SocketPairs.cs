namespace Evio.Transport.Native.Tests.Support;

/// <summary>Takes the lowest free descriptors, those closed last among them, and tells whether anybody wrote to them.</summary>
internal sealed unsafe class SocketPairs : IDisposable
{
    private readonly List<int> _descriptors = [];

    internal SocketPairs()
    {
        var pair = stackalloc int[2];
        for (var i = 0; i < 8; i++)
        {
            Assert.Equal(0, TestLibc.socketpair(TestLibc.AF_UNIX, TestLibc.SOCK_STREAM | TestLibc.SOCK_NONBLOCK | TestLibc.SOCK_CLOEXEC, 0, pair));
            _descriptors.Add(pair[0]);
            _descriptors.Add(pair[1]);
        }
    }

    internal void AssertUntouched()
    {
        foreach (var descriptor in _descriptors)
        {
            byte foreign;
            var count = TestLibc.read(descriptor, &foreign, 1);
            Assert.True(count < 0, "A byte that was meant for a closed descriptor reached the next one with its number.");
        }
    }

    public void Dispose() => _descriptors.ForEach(static descriptor => _ = TestLibc.close(descriptor));
}
