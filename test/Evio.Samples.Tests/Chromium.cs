using Evio.Transport.Testing;
using Microsoft.Playwright;

namespace Evio.Samples.Tests;

/// <summary>The system's Chromium, without a window, driven by Playwright. One for all tests of a class; each has pages of its own.</summary>
public sealed class Chromium : IAsyncLifetime
{
    private static readonly string[] Names = ["chromium", "chromium-browser", "google-chrome"];

    private IPlaywright? _playwright;
    private IBrowser? _browser;

    public async ValueTask InitializeAsync()
    {
        if (Find() is { } path)
        {
            _playwright = await Playwright.CreateAsync().OrTimeout();
            _browser = await _playwright.Chromium.LaunchAsync(new() { ExecutablePath = path }).OrTimeout();
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_browser is not null)
        {
            await _browser.DisposeAsync().OrTimeout();
        }

        _playwright?.Dispose();
    }

    internal async Task<IPage> OpenAsync(Uri address, BrowserNewContextOptions? options = null)
    {
        Assert.SkipWhen(_browser is null, $"None of {string.Join(", ", Names)} is installed.");
        var context = await _browser.NewContextAsync(options).OrTimeout();
        context.SetDefaultTimeout((float)TestTimeouts.Default.TotalMilliseconds);
        var page = await context.NewPageAsync().OrTimeout();
        page.PageError += static (_, error) => Assert.Fail(error);
        await page.GotoAsync(address.ToString()).OrTimeout();
        return page;
    }

    private static string? Find() => (Environment.GetEnvironmentVariable("PATH") ?? "")
        .Split(Path.PathSeparator)
        .SelectMany(static folder => Names.Select(name => Path.Combine(folder, name)))
        .FirstOrDefault(File.Exists);
}
