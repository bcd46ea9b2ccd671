using Grpc.Core;

namespace Evio.Bench.Ecosystem;

internal sealed class TalkService : Talk.TalkBase
{
    private const int Repetitions = 20;

    public override Task<Message> Say(Message request, ServerCallContext context) => Task.FromResult(request);

    public override async Task Repeat(Message request, IServerStreamWriter<Message> responseStream, ServerCallContext context)
    {
        for (var i = 0; i < Repetitions; i++)
        {
            await responseStream.WriteAsync(request, context.CancellationToken);
        }
    }
}
