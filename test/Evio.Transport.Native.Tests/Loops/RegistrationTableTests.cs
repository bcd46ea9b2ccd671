using System.Reflection;
using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Polling;

namespace Evio.Transport.Native.Tests.Loops;

public sealed class RegistrationTableTests
{
    private readonly RegistrationTable _table = new();

    [Fact]
    public void A_token_finds_its_target()
    {
        var target = new Target();

        Assert.Same(target, _table.Find(_table.Add(target)));
        Assert.Equal(1, _table.Count);
    }

    [Fact]
    public void The_token_of_the_wake_up_is_never_given_out_and_finds_nothing()
    {
        Assert.Null(_table.Find(Poller.WakeToken));
        for (var i = 0; i < 1_000; i++)
        {
            var token = _table.Add(new Target());
            Assert.NotEqual(Poller.WakeToken, token);
            Assert.NotEqual(0u, (uint)token);
            if (i % 2 == 0)
            {
                _table.Remove(token);
            }
        }

        _table.Remove(Poller.WakeToken);
        Assert.Null(_table.Find(Poller.WakeToken));
        Assert.Equal(500, _table.Count);
    }

    [Fact]
    public void Tokens_stay_unique_while_slots_are_reused_and_the_table_grows()
    {
        const int Seed = 20_240_607;
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {Seed}");
        var random = new Random(Seed);
        var live = new List<(ulong Token, Target Target)>();
        var given = new HashSet<ulong>();
        for (var i = 0; i < 20_000; i++)
        {
            if (live.Count == 0 || random.Next(100) < 55)
            {
                var target = new Target();
                var token = _table.Add(target);
                Assert.True(given.Add(token), "The token was given out before.");
                live.Add((token, target));
            }
            else
            {
                var at = random.Next(live.Count);
                _table.Remove(live[at].Token);
                Assert.Null(_table.Find(live[at].Token));
                live[at] = live[^1];
                live.RemoveAt(live.Count - 1);
            }
        }

        Assert.True(live.Count > 64, "The table did not have to grow.");
        Assert.Equal(live.Count, _table.Count);
        Assert.All(live, entry => Assert.Same(entry.Target, _table.Find(entry.Token)));
        Assert.Equal(live.Select(static entry => entry.Target).ToHashSet<IPollTarget>(), _table.Snapshot().ToHashSet());
    }

    [Fact]
    public void A_stale_token_does_not_find_the_slots_next_target()
    {
        var stale = _table.Add(new Target());
        _table.Remove(stale);
        var target = new Target();
        var token = _table.Add(target);

        Assert.Equal((uint)stale, (uint)token);
        Assert.Null(_table.Find(stale));
        Assert.Same(target, _table.Find(token));
    }

    [Fact]
    public void Removing_a_stale_token_leaves_the_slots_next_target()
    {
        var stale = _table.Add(new Target());
        _table.Remove(stale);
        var target = new Target();
        var token = _table.Add(target);

        _table.Remove(stale);

        Assert.Same(target, _table.Find(token));
        Assert.Equal(1, _table.Count);
    }

    [Theory]
    [InlineData(63u)]
    [InlineData(64u)]
    [InlineData(0x7FFF_FFFFu)]
    [InlineData(0x8000_0001u)]
    [InlineData(0xFFFF_FFFFu)]
    public void A_token_of_no_slot_finds_nothing(uint slot) => Assert.Null(_table.Find(slot));

    [Fact]
    public void The_generation_wraps_without_becoming_the_wake_up()
    {
        var before = _table.Add(new Target());
        _table.Remove(before);

        // Four thousand million reuses of the slot, in short.
        var slots = (Array)typeof(RegistrationTable).GetField("_slots", BindingFlags.Instance | BindingFlags.NonPublic)!.GetValue(_table)!;
        var slot = slots.GetValue((int)(uint)before)!;
        slot.GetType().GetField("Generation", BindingFlags.Instance | BindingFlags.NonPublic)!.SetValue(slot, uint.MaxValue);
        slots.SetValue(slot, (int)(uint)before);

        var last = _table.Add(new Target());
        Assert.Equal(uint.MaxValue, (uint)(last >> 32));
        _table.Remove(last);
        var target = new Target();
        var wrapped = _table.Add(target);

        Assert.Equal(0u, (uint)(wrapped >> 32));
        Assert.NotEqual(Poller.WakeToken, wrapped);
        Assert.Same(target, _table.Find(wrapped));
        Assert.Null(_table.Find(last));
    }

    [Fact]
    public void A_snapshot_may_be_walked_while_its_targets_remove_themselves()
    {
        var tokens = Enumerable.Range(0, 100).ToDictionary(_ => (IPollTarget)new Target(), _ => 0ul);
        foreach (var target in tokens.Keys)
        {
            tokens[target] = _table.Add(target);
        }

        foreach (var target in _table.Snapshot())
        {
            _table.Remove(tokens[target]);
        }

        Assert.Equal(0, _table.Count);
        Assert.Empty(_table.Snapshot());
    }

    private sealed class Target : IPollTarget
    {
        public void OnReady(ReadyEvents events) => Assert.Fail("The table calls nobody.");

        public void OnHandlerException(Exception exception) => Assert.Fail("The table calls nobody.");

        public void OnLoopStopping() => Assert.Fail("The table calls nobody.");
    }
}
