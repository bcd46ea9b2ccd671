using Evio.Transport.Native.Loops;

namespace Evio.Transport.Native.Tests.Loops;

/// <summary>
/// Every interleaving of the threads of one job and of the monitor that takes it from them, with the real transitions and each step of a thread apart: a search through all
/// states that can be reached.
/// </summary>
public sealed class OwnershipWordTests
{
    private enum At : byte
    {
        /// <summary>Has no turn.</summary>
        Spare,

        /// <summary>Has the turn, and looks for the next item.</summary>
        Working,

        /// <summary>In a call.</summary>
        InCall,

        /// <summary>Came back from the call for something that is the job's.</summary>
        Inside,

        /// <summary>Found that the turn is another thread's.</summary>
        Late,
    }

    [Theory]
    [InlineData(2, 3)]
    [InlineData(3, 4)]
    [InlineData(4, 3)]
    public void The_job_is_always_one_threads_and_every_item_is_taken_once(int threads, int items)
    {
        var seen = new HashSet<State>();
        var open = new Stack<State>();
        var takeOvers = 0;
        var ends = 0;
        open.Push(State.Initial(threads, items));
        while (open.TryPop(out var state))
        {
            if (!seen.Add(state))
            {
                continue;
            }

            state.Check();
            var successors = state.Successors().ToList();
            takeOvers += successors.Count(successor => successor.Owner != state.Owner);
            if (successors.Count == 0)
            {
                ends++;
                Assert.Equal(items, state.Taken);
            }

            successors.ForEach(open.Push);
        }

        // It has seen what it is about.
        Assert.True(seen.Count > 100, $"{seen.Count} states");
        Assert.True(takeOvers > 0);
        Assert.True(ends > 0);
    }

    [Fact]
    public void A_call_is_another_one_after_each_return()
    {
        var turns = default(OwnershipWord);
        var first = turns.BeginCall(0);
        var word = turns.Observe();
        Assert.True(turns.TryReturn(first));
        var second = turns.BeginCall(first);

        Assert.False(turns.TryRetake(word, out _));
        Assert.True(turns.TryRetake(turns.Observe(), out var turn));
        Assert.False(turns.TryReturn(second));
        Assert.True(turns.IsEpoch(turn));
        Assert.False(turns.IsEpoch(second));
    }

    [Fact]
    public void Going_on_with_a_call_is_the_same_call()
    {
        var turns = default(OwnershipWord);
        var turn = turns.BeginCall(0);
        var word = turns.Observe();
        Assert.True(turns.TryReturn(turn));
        Assert.False(turns.TryRetake(turns.Observe(), out _));
        turns.ResumeCall(turn);

        Assert.Equal(word, turns.Observe());
        Assert.True(turns.TryRetake(word, out _));
    }

    /// <summary>One state of all threads; compared by its values.</summary>
    private sealed record State(string Key)
    {
        private OwnershipWord _ownership;
        private At[] _at = [];
        private long[] _epoch = [];
        private long _observed = -1;

        internal int Taken { get; private set; }

        internal int Owner { get; private set; }

        private int Items { get; init; }

        internal static State Initial(int threads, int items)
        {
            var state = new State("")
            {
                _at = new At[threads],
                _epoch = new long[threads],
                Items = items,
            };
            state._at[0] = At.Working;
            return state.WithKey();
        }

        internal void Check()
        {
            // Between the monitor's decision and the new thread's first step the job is that thread's already.
            Assert.Single(_at.Where((at, i) => at is At.Working or At.Inside || (at == At.InCall && _ownership.IsEpoch(_epoch[i]))));
            Assert.True(_ownership.IsEpoch(_epoch[Owner]));
        }

        internal IEnumerable<State> Successors()
        {
            for (var i = 0; i < _at.Length; i++)
            {
                switch (_at[i])
                {
                    case At.Working when Taken < Items:
                        yield return Step(i, static (state, i) =>
                        {
                            state.Taken++;
                            state._epoch[i] = state._ownership.BeginCall(state._epoch[i]);
                            state._at[i] = At.InCall;
                        });

                        // Or it gives the turn away before the call, which it makes all the same.
                        if (Array.IndexOf(_at, At.Spare) is >= 0 and var next)
                        {
                            yield return Step(i, (state, i) =>
                            {
                                state.Taken++;
                                state._epoch[next] = state._ownership.HandOff(state._epoch[i]);
                                state._at[i] = At.Late;
                                state._at[next] = At.Working;
                                state.Owner = next;
                            });
                        }

                        break;
                    case At.InCall:
                        yield return Step(i, static (state, i) => state._at[i] = state._ownership.TryReturn(state._epoch[i]) ? At.Working : At.Late);
                        yield return Step(i, static (state, i) => state._at[i] = state._ownership.TryReturn(state._epoch[i]) ? At.Inside : At.InCall);
                        break;
                    case At.Inside:
                        yield return Step(i, static (state, i) =>
                        {
                            state._ownership.ResumeCall(state._epoch[i]);
                            state._at[i] = At.InCall;
                        });
                        break;
                    case At.Late:
                        yield return Step(i, static (state, i) => state._at[i] = At.Spare);
                        break;
                }
            }

            if (Taken == Items && _at[Owner] == At.Working)
            {
                yield break;
            }

            // The monitor: looks, and takes over what it saw, at any later time.
            yield return Step(0, static (state, _) => state._observed = state._ownership.Observe());
            var spare = Array.IndexOf(_at, At.Spare);
            if (_observed >= 0 && spare >= 0)
            {
                yield return Step(spare, static (state, spare) =>
                {
                    if (state._ownership.TryRetake(state._observed, out var turn))
                    {
                        state._epoch[spare] = turn;
                        state._at[spare] = At.Working;
                        state.Owner = spare;
                    }

                    state._observed = -1;
                });
            }
        }

        private State Step(int thread, Action<State, int> step)
        {
            var next = this with { _at = [.. _at], _epoch = [.. _epoch] };
            step(next, thread);
            return next.WithKey();
        }

        private State WithKey() => this with { Key = $"{_ownership.Observe()} {_observed} {Taken} {Owner} {string.Join(',', _at)} {string.Join(',', _epoch)}" };

        public bool Equals(State? other) => other?.Key == Key;

        public override int GetHashCode() => StringComparer.Ordinal.GetHashCode(Key);
    }
}
