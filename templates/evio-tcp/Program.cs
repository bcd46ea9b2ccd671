using System.Text;
using Evio.Transport.Native;

// Answers each line with its length. All callbacks of a connection run on its loop and must not block.
EvioServer.Serve(
    new Events
    {
        NumLoops = -1,                                    // one per processor
        Serving = server =>
        {
            Console.WriteLine($"serving {server.Addresses[0]}");
            return EvioAction.None;
        },
        Opened = (Connection connection, ref ConnectionOptions options) =>
        {
            connection.Context = new InputStream();
            options.IdleTimeout = TimeSpan.FromMinutes(1);
            return EvioAction.None;
        },
        Data = (connection, input) =>
        {
            var stream = (InputStream)connection.Context!;
            var data = stream.Begin(input);
            while (data.IndexOf((byte)'\n') is var end and >= 0)
            {
                connection.Write(Encoding.ASCII.GetBytes($"{end} bytes\n"));
                data = data[(end + 1)..];
            }

            stream.End(data);
            return EvioAction.None;
        },
    },
    args is [var address] ? address : "tcp://127.0.0.1:5000");
