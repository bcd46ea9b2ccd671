using Evio.Transport.Native.Callbacks;

namespace Evio.Transport.Native.Managed;

internal static class ManagedListener
{
    internal static Task<IServerListener> BindAsync(EvioServer server, ListenAddress address, int index) => throw new NotImplementedException();
}
