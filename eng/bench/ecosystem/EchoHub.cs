using System.Diagnostics.CodeAnalysis;
using Microsoft.AspNetCore.SignalR;

namespace Evio.Bench.Ecosystem;

internal sealed class EchoHub : Hub
{
    [SuppressMessage("Performance", "CA1822", Justification = "A hub's methods are instance methods.")]
    public string Echo(string text) => text;
}
