namespace Evio.Bench;

/// <summary>A server that answers like the others of its scenario.</summary>
internal sealed record Variant(string Name, string Description)
{
    public static Variant EvioInline { get; } = new("evio-inline", "evio, application on the loop's thread") { Transport = "evio", Scheduling = "inline" };

    public static Variant EvioPool { get; } = new("evio-pool", "evio, application on the thread pool") { Transport = "evio", Scheduling = "threadpool" };

    public static Variant EvioAdaptive { get; } =
        new("evio-adaptive", "evio, application on the loop's thread, which it may lose") { Transport = "evio", Scheduling = "adaptive" };

    /// <summary>What everything is compared with.</summary>
    public static Variant Sockets { get; } = new("sockets", "Kestrel's own transport as shipped") { Transport = "sockets", Scheduling = "threadpool" };

    public static Variant SocketsInline { get; } =
        new("sockets-inline", "the same with UnsafePreferInlineScheduling and DOTNET_SYSTEM_NET_SOCKETS_INLINE_COMPLETIONS=1")
        {
            Transport = "sockets",
            Scheduling = "inline",
        };

    public static Variant Native { get; } = new("evio-native", "evio's callback API") { Transport = "evio", Scheduling = "inline" };

    public static Variant NativeOnSockets { get; } =
        new("native-net", "the same callbacks on System.Net.Sockets (the -net fallback)") { Transport = "sockets", Scheduling = "threadpool" };

    /// <summary>The limit of the method.</summary>
    public static Variant CEpoll { get; } = new("c-epoll", "a plain single-threaded epoll server in C");

    public static IReadOnlyList<Variant> Kestrel { get; } = [EvioAdaptive, EvioInline, EvioPool, Sockets, SocketsInline];

    public static IReadOnlyList<Variant> KestrelAndC { get; } = [.. Kestrel, CEpoll];

    public static IReadOnlyList<Variant> NativeAndC { get; } = [Native, NativeOnSockets, CEpoll];

    public static IReadOnlyList<Variant> All { get; } = [.. Kestrel, Native, NativeOnSockets, CEpoll];

    /// <summary>An application's --transport and --scheduling; null for the server in C.</summary>
    public string? Transport { get; private init; }

    public string Scheduling { get; private init; } = "";

    /// <summary>Whether it is an application on .NET.</summary>
    public bool IsApplication => Transport is not null;

    /// <summary>Names of variants, or <c>evio</c> for all on evio's loops.</summary>
    public static bool Matches(Variant variant, IReadOnlyCollection<string> names) =>
        names.Count == 0 || names.Contains(variant.Name) || (names.Contains("evio") && variant.Transport == "evio");
}
