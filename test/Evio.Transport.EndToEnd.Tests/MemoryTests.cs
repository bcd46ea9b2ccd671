using Evio.Transport.Testing;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.DependencyInjection;

namespace Evio.Transport.EndToEnd.Tests;

public sealed class MemoryTests
{
    [Theory, AllTransports]
    public async Task All_blocks_are_back_after_the_stop_however_the_clients_ended(TransportKind kind)
    {
        var pools = new StrictMemoryPoolFactory(StrictMemoryPool.LargeBlocks);
        await using (var host = await TransportHost.StartAsync(
            kind,
            ClientEnds.AnswerAsync,
            new HostSettings { Services = services => services.AddSingleton<IMemoryPoolFactory<byte>>(pools) }))
        {
            await ClientEnds.RunAsync(host, connections: 100);
            await host.StopAsync().OrTimeout();
        }

        Assert.True(pools.Rented > 0);
        Assert.Equal(0, pools.Outstanding);
        Assert.Equal(0, pools.DoubleReturns);
    }
}
