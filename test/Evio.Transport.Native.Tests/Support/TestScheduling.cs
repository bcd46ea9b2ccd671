namespace Evio.Transport.Native.Tests.Support;

/// <summary>Where the tests' loops run what may block, unless a test says so itself: <c>EVIO_TEST_SCHEDULING=adaptive</c> runs all of them in adaptive groups.</summary>
internal static class TestScheduling
{
    internal static LoopScheduling Value { get; } =
        Environment.GetEnvironmentVariable("EVIO_TEST_SCHEDULING") is { Length: > 0 } name
            ? Enum.Parse<LoopScheduling>(name, ignoreCase: true)
            : LoopScheduling.Inline;

    internal static Events Apply(Events events, LoopScheduling? scheduling)
    {
        events.Scheduling = scheduling ?? Value;
        return events;
    }

    /// <summary>Starts a server in the mode of the tests, unless its events name one that is not the default.</summary>
    internal static Task<EvioServer> StartAsync(Events events, params IReadOnlyList<string> addresses) =>
        EvioServer.StartAsync(events.Scheduling == LoopScheduling.Inline ? Apply(events, Value) : events, addresses);
}
