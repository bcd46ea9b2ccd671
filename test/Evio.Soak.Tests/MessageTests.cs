namespace Evio.Soak.Tests;

public class MessageTests
{
    private const long Identity = 0x1234_5678_9ABC_DEF0;

    [Theory]
    [InlineData(0)]
    [InlineData(7)]
    [InlineData(70_000)]
    public void AMessageComesBackAsItWas(int length)
    {
        var sent = new Message(Identity, MessageKind.Sent, 3, 5, length);
        byte[] bytes = [.. sent.ToBytes(), 1];
        ReadOnlySpan<byte> data = bytes;

        Assert.True(Message.TryRead(ref data, out var read));
        Assert.Equal(sent, read);
        Assert.Equal(1, data.Length);
    }

    [Fact]
    public void APartOfAMessageIsNone()
    {
        var bytes = new Message(Identity, MessageKind.Echo, 0, Length: 10).ToBytes();
        for (var length = 0; length < bytes.Length; length++)
        {
            ReadOnlySpan<byte> data = bytes.AsSpan(0, length);
            Assert.False(Message.TryRead(ref data, out _));
            Assert.Equal(length, data.Length);
        }
    }

    [Fact]
    public void EveryWrongByteOfAPayloadIsSeen()
    {
        var message = new Message(Identity, MessageKind.Echo, 0, Length: 21);
        for (var i = 1; i <= message.Length; i++)
        {
            var bytes = message.ToBytes();
            bytes[^i]++;
            Assert.Throws<SoakException>(() => Read(bytes));
        }
    }

    [Fact]
    public void ThePayloadOfAnotherConnectionIsSeen()
    {
        var bytes = new Message(Identity, MessageKind.Echo, 0, Length: 8).ToBytes();
        new Message(Identity + 1, MessageKind.Echo, 0, Length: 8).ToBytes().AsSpan(^8..).CopyTo(bytes.AsSpan(^8..));
        Assert.Throws<SoakException>(() => Read(bytes));
    }

    [Fact]
    public void BytesThatBeginNoMessageAreSeen() => Assert.Throws<SoakException>(() => Read([0]));

    [Fact]
    public void AnswersAreCompleteWhenAllHaveCome()
    {
        var answers = new Answers(Identity);
        Assert.True(answers.AreComplete);
        answers.Expect(MessageKind.Sent, 4, count: 2);
        answers.Receive(new Message(Identity, MessageKind.Sent, 0, 4));
        Assert.False(answers.AreComplete);
        Assert.Equal("1 Sent", answers.Missing);
        answers.Receive(new Message(Identity, MessageKind.Sent, 1, 4));
        Assert.True(answers.AreComplete);
    }

    [Fact]
    public void AGreetingIsNobodysAndNotWaitedFor()
    {
        var answers = new Answers(Identity);
        answers.Receive(new Message(0, MessageKind.Greeting, 0));
        Assert.True(answers.AreComplete);
        Assert.Throws<SoakException>(() => answers.Receive(new Message(0, MessageKind.Greeting, 2)));
    }

    [Theory]
    [InlineData(Identity + 1, MessageKind.Sent, 0, 4)]
    [InlineData(Identity, MessageKind.Sent, 1, 4)]
    [InlineData(Identity, MessageKind.Sent, 0, 5)]
    [InlineData(Identity, MessageKind.Woken, 0, 4)]
    public void AnAnswerOfAnotherConnectionOrPlaceOrQuestionIsSeen(long connection, object kind, int number, long argument)
    {
        var answers = new Answers(Identity);
        answers.Expect(MessageKind.Sent, 4, count: 2);
        Assert.Throws<SoakException>(() => answers.Receive(new Message(connection, (MessageKind)kind, number, argument)));
    }

    [Fact]
    public void AnAnswerTooManyIsSeen()
    {
        var answers = new Answers(Identity);
        answers.Expect(MessageKind.Echoed, 0);
        answers.Receive(new Message(Identity, MessageKind.Echoed, 0));
        Assert.Throws<SoakException>(() => answers.Receive(new Message(Identity, MessageKind.Echoed, 1)));
    }

    private static void Read(byte[] bytes)
    {
        ReadOnlySpan<byte> data = bytes;
        Message.TryRead(ref data, out _);
    }
}
