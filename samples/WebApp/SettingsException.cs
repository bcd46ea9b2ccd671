namespace Evio.Samples.WebApp;

/// <summary>A setting has a value that is not permitted. The message is for the person who set it.</summary>
public sealed class SettingsException(string message) : Exception(message);
