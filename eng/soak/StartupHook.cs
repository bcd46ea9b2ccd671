#pragma warning disable CA1050 // The runtime looks for this name, without a namespace.
/// <summary>Where the runtime begins that has DOTNET_STARTUP_HOOKS name this assembly.</summary>
internal static class StartupHook
#pragma warning restore CA1050
{
    /// <summary>Called before the program.</summary>
    public static void Initialize() => Evio.Soak.HostileSample.Begin();
}
