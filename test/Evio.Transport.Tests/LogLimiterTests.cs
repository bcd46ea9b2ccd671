namespace Evio.Transport.Tests;

/// <summary>What clients can cause as often as they like is logged once in a minute, with the number of what was left out.</summary>
public sealed class LogLimiterTests
{
    private readonly Queue<Action> _scheduled = new();
    private readonly List<string> _log = [];

    [Fact]
    public void One_message_passes_in_a_period_and_the_number_of_the_others_is_logged_at_its_end()
    {
        var limiter = new LogLimiter(TrySchedule, count => _log.Add($"{count} more"));

        Assert.Equal([true, false, false], Enumerable.Range(0, 3).Select(_ => limiter.TryPass()));
        EndPeriod();
        Assert.Equal(["2 more"], _log);

        // That was the next period's message.
        Assert.False(limiter.TryPass());
        EndPeriod();
        Assert.Equal(["2 more", "1 more"], _log);
    }

    [Fact]
    public void After_a_period_in_which_nothing_was_left_out_the_next_message_passes()
    {
        var limiter = new LogLimiter(TrySchedule, count => _log.Add($"{count} more"));

        Assert.True(limiter.TryPass());
        EndPeriod();

        Assert.Empty(_scheduled);
        Assert.True(limiter.TryPass());
        Assert.Empty(_log);
    }

    [Fact]
    public void Where_no_time_can_be_kept_everything_passes()
    {
        var limiter = new LogLimiter(static (_, _) => false, count => _log.Add($"{count} more"));

        Assert.All(Enumerable.Range(0, 3), _ => Assert.True(limiter.TryPass()));
    }

    [Fact]
    public void Many_episodes_are_one_pair_of_messages_and_one_number_in_a_minute()
    {
        var episodes = NewEpisodes();
        for (var i = 0; i < 116; i++)
        {
            episodes.Begin(i);
            episodes.End();
        }

        Assert.Equal(["begin 0", "end"], _log);
        EndPeriod();
        Assert.Equal(["begin 0", "end", "115 more"], _log);
        EndPeriod();
        Assert.Equal(3, _log.Count);
        episodes.Begin(116);
        Assert.Equal("begin 116", _log[^1]);
    }

    [Fact]
    public void An_episode_that_was_left_out_and_lasts_is_logged_at_the_end_of_the_period()
    {
        var episodes = NewEpisodes();
        episodes.Begin(1);
        episodes.End();
        episodes.Begin(2);
        episodes.End();
        episodes.Begin(3);

        EndPeriod();

        Assert.Equal(["begin 1", "end", "1 more", "begin 3"], _log);
        episodes.End();
        Assert.Equal("end", _log[^1]);
    }

    [Fact]
    public void The_end_of_an_episode_whose_beginning_was_left_out_is_left_out()
    {
        var episodes = NewEpisodes();
        episodes.Begin(1);
        episodes.End();
        episodes.Begin(2);
        episodes.End();

        Assert.Equal(["begin 1", "end"], _log);
    }

    /// <summary>Different threads tell of them.</summary>
    [Fact]
    public void An_end_that_is_told_before_its_beginning_is_logged_after_it()
    {
        var episodes = NewEpisodes();
        episodes.End();
        Assert.Empty(_log);
        episodes.Begin(1);

        Assert.Equal(["begin 1", "end"], _log);
    }

    [Fact]
    public void An_episode_that_is_told_before_the_end_of_the_one_before_is_one_with_it()
    {
        var episodes = NewEpisodes();
        episodes.Begin(1);
        episodes.Begin(2);
        episodes.End();
        Assert.Equal(["begin 1"], _log);
        episodes.End();

        Assert.Equal(["begin 1", "end"], _log);
    }

    private EpisodeLog<int> NewEpisodes() =>
        new(TrySchedule, what => _log.Add($"begin {what}"), () => _log.Add("end"), count => _log.Add($"{count} more"));

    private bool TrySchedule(TimeSpan delay, Action call)
    {
        Assert.Equal(LogLimiter.Period, delay);
        _scheduled.Enqueue(call);
        return true;
    }

    private void EndPeriod() => _scheduled.Dequeue()();
}
