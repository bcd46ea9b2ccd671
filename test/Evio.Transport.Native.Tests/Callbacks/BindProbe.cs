namespace Evio.Transport.Native.Tests.Callbacks;

/// <summary>A process that tries to listen once, and prints what it was refused with.</summary>
internal static class BindProbe
{
    internal const string Argument = "--bind-probe";

    internal static async Task RunAsync(string address)
    {
        try
        {
            await using var server = await EvioServer.StartAsync(new Events(), address);
            Console.WriteLine("bound");
        }
        catch (System.Net.Sockets.SocketException exception)
        {
            Console.WriteLine(exception.Message);
        }
    }
}
