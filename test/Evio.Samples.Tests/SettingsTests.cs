using Evio.Samples.WebApp;
using Microsoft.Extensions.Configuration;

namespace Evio.Samples.Tests;

/// <summary>What the command line may say.</summary>
public sealed class SettingsTests
{
    [Fact]
    public void What_is_called_and_MVC_are_read()
    {
        var settings = Read("--call-out", "http://127.0.0.1:5001/string", "--mvc", "true");

        Assert.Equal(new Uri("http://127.0.0.1:5001/string"), settings.CallOut);
        Assert.True(settings.Mvc);
    }

    [Fact]
    public void By_default_the_server_calls_itself_and_has_no_MVC()
    {
        var settings = Read();

        Assert.Null(settings.CallOut);
        Assert.False(settings.Mvc);
    }

    [Theory]
    [InlineData("--call-out", "/string")]
    [InlineData("--call-out", "ftp://127.0.0.1/")]
    [InlineData("--call-out", "")]
    [InlineData("--mvc", "yes")]
    public void What_is_not_permitted_is_refused(string option, string value)
    {
        var refused = Assert.Throws<SettingsException>(() => Read(option, value));

        Assert.StartsWith($"{option} (WebApp:", refused.Message, StringComparison.Ordinal);
    }

    private static Settings Read(params string[] args)
    {
        using var configuration = new ConfigurationManager();
        return Settings.Read(configuration, args);
    }
}
