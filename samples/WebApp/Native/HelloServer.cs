using System.Globalization;
using System.Text;
using Evio.Transport.Native;

namespace Evio.Samples.WebApp.Native;

/// <summary>
/// Answers every GET with <c>Hello, World!</c>, however requests are packed: several in one packet (pipelined), or one in several.
/// </summary>
internal static class HelloServer
{
    /// <summary>More than this without the end of a request's head is no request.</summary>
    private const int MaxHead = 16 * 1024;

    private static readonly byte[] Hello = Response("200 OK", "Hello, World!");
    private static readonly byte[] NotAllowed = Response("405 Method Not Allowed", "Only GET.\n", close: true);
    private static readonly byte[] TooLarge = Response("431 Request Header Fields Too Large", "Too large.\n", close: true);

    public static Events Create(int loops) => new()
    {
        NumLoops = loops,
        Opened = static (Connection connection, ref ConnectionOptions options) =>
        {
            connection.Context = new InputStream();
            return EvioAction.None;
        },
        Data = OnData,
    };

    private static EvioAction OnData(Connection connection, ReadOnlySpan<byte> input)
    {
        var stream = (InputStream)connection.Context!;
        var data = stream.Begin(input);
        var action = EvioAction.None;
        while (action == EvioAction.None)
        {
            var end = data.IndexOf("\r\n\r\n"u8);
            if (end < 0)
            {
                if (data.Length > MaxHead)
                {
                    connection.Write(TooLarge);
                    action = EvioAction.Close;
                }

                break;
            }

            // Requests with a body are none of this server's, so what follows a head is the next one.
            if (data.StartsWith("GET "u8))
            {
                connection.Write(Hello);
            }
            else
            {
                connection.Write(NotAllowed);
                action = EvioAction.Close;
            }

            data = data[(end + 4)..];
        }

        stream.End(data);
        return action;
    }

    private static byte[] Response(string status, string body, bool close = false) => Encoding.ASCII.GetBytes(string.Create(
        CultureInfo.InvariantCulture,
        $"HTTP/1.1 {status}\r\nServer: evio\r\n{(close ? "Connection: close\r\n" : "")}Content-Type: text/plain\r\nContent-Length: {body.Length}\r\n\r\n{body}"));
}
