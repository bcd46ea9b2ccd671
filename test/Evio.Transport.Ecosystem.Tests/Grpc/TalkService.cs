using Google.Protobuf;
using Grpc.Core;

namespace Evio.Transport.Ecosystem.Tests.Grpc;

internal sealed class TalkService(TalkService.Witness witness) : Talk.TalkBase
{
    public override Task<Message> Say(Message request, ServerCallContext context) => Task.FromResult(request);

    public override async Task<Message> Gather(IAsyncStreamReader<Message> requestStream, ServerCallContext context)
    {
        var number = 0;
        using var data = new MemoryStream();
        await foreach (var message in requestStream.ReadAllAsync(context.CancellationToken))
        {
            number++;
            message.Data.WriteTo(data);
        }

        return new Message { Number = number, Data = ByteString.CopyFrom(data.GetBuffer().AsSpan(0, (int)data.Length)) };
    }

    public override async Task Count(Message request, IServerStreamWriter<Message> responseStream, ServerCallContext context)
    {
        for (var i = 0; i < request.Number; i++)
        {
            await responseStream.WriteAsync(new Message { Number = i, Data = request.Data }, context.CancellationToken);
        }
    }

    public override async Task Converse(
        IAsyncStreamReader<Message> requestStream, IServerStreamWriter<Message> responseStream, ServerCallContext context)
    {
        await foreach (var message in requestStream.ReadAllAsync(context.CancellationToken))
        {
            await responseStream.WriteAsync(message, context.CancellationToken);
        }
    }

    public override async Task<Message> Wait(Message request, ServerCallContext context)
    {
        using var registration = context.CancellationToken.UnsafeRegister(_ => witness.GivenUp.TrySetResult(), null);
        witness.Waiting.TrySetResult();
        await witness.GivenUp.Task;
        return request;
    }

    public override Task<Message> Fail(Message request, ServerCallContext context)
    {
        context.ResponseTrailers.Add("reason", "asked to");
        throw new RpcException(new Status((StatusCode)request.Number, "as asked"));
    }

    /// <summary>What the server saw of <see cref="Wait"/>.</summary>
    internal sealed class Witness
    {
        public TaskCompletionSource Waiting { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public TaskCompletionSource GivenUp { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
