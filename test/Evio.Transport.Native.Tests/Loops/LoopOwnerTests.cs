using Evio.Transport.Native.Loops;
using Evio.Transport.Native.Tests.Support;

namespace Evio.Transport.Native.Tests.Loops;

/// <summary>What belongs to a loop asks for its owner.</summary>
public sealed class LoopOwnerTests
{
    [Fact]
    public async Task A_thread_that_has_lost_the_loop_is_refused_what_it_was_given_before()
    {
        await using var group = new TestGroup(scheduling: LoopScheduling.Adaptive);
        var loop = group.Loops[0];
        var checkedAll = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);

        // A call of the reactor's, in which the loop is not lost unless it says so.
        Assert.True(loop.TryPostInternal(
            _ =>
            {
                try
                {
                    using var owner = loop.Ownership.Enter();
                    owner.Verify();
                    var begun = loop.Ownership.TryBeginCall();
                    Assert.True(IsRefused(owner));
                    Waiting.Until(() => !loop.IsCurrent);
                    Assert.False(loop.Ownership.TryReturnFromCall(begun));

                    Assert.True(IsRefused(owner));
                    checkedAll.SetResult();
                }
                catch (Exception exception)
                {
                    checkedAll.SetException(exception);
                }
            },
            null));
        await checkedAll.Task.Within();
    }

    [Fact]
    public async Task Who_is_not_the_owner_gets_nothing_that_would_do()
    {
        await using var group = new TestGroup(loops: 2);

        Refuse(group.Loops[0]);
        await group.RunAsync(() => Refuse(group.Loops[1]));

        static void Refuse(EventLoop loop)
        {
            using var owner = loop.Ownership.Enter();
            Assert.False(owner.IsOwner);
            Assert.True(IsRefused(owner));
        }
    }

    [Fact]
    public async Task The_owner_of_one_loop_is_not_that_of_another()
    {
        await using var group = new TestGroup(loops: 2);

        await group.RunAsync(() =>
        {
            using var owner = group.Loops[0].Ownership.Enter();
            Assert.False(IsRefused(owner));
            Assert.False(IsRefused(owner, group.Loops[0]));
            Assert.True(IsRefused(owner, group.Loops[1]));
        });
    }

    private static bool IsRefused(in LoopOwner owner, EventLoop? loop = null)
    {
        try
        {
            owner.Verify(loop?.Ownership);
            return false;
        }
        catch (InvalidOperationException)
        {
            return true;
        }
    }
}
