using System.Globalization;
using Evio.Transport.Native;
using Evio.Transport.Testing;
using Microsoft.Playwright;
using static Microsoft.Playwright.Assertions;
using Kind = Evio.Transport.Testing.TransportKind;

namespace Evio.Samples.Tests;

/// <summary>The sample's front page in a browser.</summary>
public sealed class FrontPageTests(Chromium chromium) : IClassFixture<Chromium>
{
    /// <summary>The environment variable that names a folder, such as docs, for pictures of the page. Without it none are taken.</summary>
    private const string ScreenshotVariable = "EVIO_SCREENSHOTS";

    private static readonly LocatorAssertionsToHaveTextOptions Patient = new() { Timeout = (float)TestTimeouts.Default.TotalMilliseconds };

    [Theory, EvioTransports]
    public async Task Each_loop_has_a_lane_and_fifty_connections_spread_over_them(Kind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        var page = await chromium.OpenAsync(host.BaseAddress);
        await Expect(page.Locator("#server")).ToHaveTextAsync(
            $"evio · {kind.ToString()["Evio".Length..].ToLowerInvariant()} · roundrobin · {SampleHost.Loops} loops · process {Environment.ProcessId}", Patient);
        await Expect(page.Locator("#lanes h3")).ToHaveTextAsync(["Loop 0", "Loop 1", "Loop 2", "Loop 3"], Patient);
        await Expect(page.Locator("#state")).ToHaveTextAsync("live", Patient);

        await page.GetByRole(AriaRole.Button, new() { Name = "Open 50 connections" }).ClickAsync();

        await Expect(page.GetByRole(AriaRole.Status)).ToHaveTextAsync(
            "50 connections for 10 s, each with ten requests per second.", Patient);
        // In turn: 12 for each and one more for two of them.
        await SeesAsync(page, "connections", static lanes => lanes.Length == SampleHost.Loops && lanes.All(static count => count >= 12));
        await SeesAsync(page, "requests", static lanes => lanes.All(static rate => rate > 0));
        Assert.Equal(SampleHost.Loops, await page.Locator("#chart polyline").CountAsync());
        Assert.NotEqual("0 B/s", await page.Locator("[data-loop='0'] [data-value='sent']").InnerTextAsync());

        // They end by themselves; what stays is the browser's.
        await SeesAsync(page, "connections", static lanes => lanes.Sum() <= 6);
        if (kind == Kind.EvioInline && Environment.GetEnvironmentVariable(ScreenshotVariable) is { } folder)
        {
            await TakeScreenshotsAsync(folder);
        }
    }

    [Theory, EvioTransports]
    public async Task A_blocking_request_holds_the_loop_that_runs_it_and_no_other(Kind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        var page = await chromium.OpenAsync(host.BaseAddress);
        await Expect(page.Locator("#state")).ToHaveTextAsync("live", Patient);
        await page.EvaluateAsync(
            """
            () => {
                window.most = {};
                for (const lane of document.querySelectorAll('#lanes li')) {
                    const busy = lane.querySelector('[role=meter]');
                    const note = () => window.most[lane.dataset.loop] = Math.max(window.most[lane.dataset.loop] ?? 0, +busy.getAttribute('aria-valuenow'));
                    new MutationObserver(note).observe(busy, { attributes: true });
                }
            }
            """);

        await page.GetByRole(AriaRole.Button, new() { Name = "Send a blocking request" }).ClickAsync();

        await Expect(page.GetByRole(AriaRole.Status)).ToHaveTextAsync(
            new System.Text.RegularExpressions.Regex("^The handler blocked its thread for 500 ms; the answer came after .* ms.$"), Patient);
        if (kind == Kind.EvioInline)
        {
            // The other loops have nothing to do: theirs rounds to 0 %.
            await page.WaitForFunctionAsync("() => Object.values(window.most).some(most => most >= 10)");
        }
        else if (kind == Kind.EvioAdaptive)
        {
            // Kestrel begins a connection on the thread pool. On one that is begun, another thread takes the loop over.
            await page.GetByRole(AriaRole.Button, new() { Name = "Send a blocking request" }).ClickAsync();
            await SeesAsync(page, "takeOvers", static lanes => lanes.Sum() > 0);
        }
    }

    [Theory]
    [InlineData(ColorScheme.Light, 375)]
    [InlineData(ColorScheme.Light, 1280)]
    [InlineData(ColorScheme.Dark, 375)]
    [InlineData(ColorScheme.Dark, 1280)]
    public async Task It_fits_and_can_be_read(ColorScheme scheme, int width)
    {
        await using var host = await SampleHost.StartAsync(Kind.EvioThreadPool);
        var page = await chromium.OpenAsync(
            host.BaseAddress, new() { ColorScheme = scheme, ViewportSize = new() { Width = width, Height = 800 }, ReducedMotion = ReducedMotion.Reduce });
        await page.GetByRole(AriaRole.Button, new() { Name = "Open 50 connections" }).ClickAsync();
        await SeesAsync(page, "connections", static lanes => lanes.Length == SampleHost.Loops && lanes.Sum() >= 50);

        // To the right of the window there is nothing, and no text is cut off.
        Assert.Equal(width, await page.EvaluateAsync<int>("() => document.documentElement.scrollWidth"));
        Assert.Empty(await page.EvaluateAsync<string[]>(
            "() => [...document.querySelectorAll('dt, dd, h1, h3, button, p:not(.unseen)')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"));

        // WCAG 2.2, 1.4.3: text has a contrast of at least 4.5.
        var contrasts = await page.EvaluateAsync<Dictionary<string, double>>(
            """
            () => {
                const luminance = colour => {
                    const [r, g, b] = colour.match(/[\d.]+/g).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const ground = element => {
                    const colour = getComputedStyle(element).backgroundColor;
                    return colour === 'rgba(0, 0, 0, 0)' ? ground(element.parentElement) : colour;
                };
                const contrasts = {};
                for (const element of document.querySelectorAll('h1, h2, h3, dt, dd, p, button, a')) {
                    const [a, b] = [getComputedStyle(element).color, ground(element)].map(luminance);
                    contrasts[element.tagName + ' ' + element.textContent.trim()] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                }
                return contrasts;
            }
            """);
        Assert.All(contrasts, static contrast => Assert.True(contrast.Value >= 4.5, $"{contrast.Key}: {contrast.Value:F2}"));
        var dark = await page.EvaluateAsync<bool>("() => +getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] < 128");
        Assert.Equal(scheme == ColorScheme.Dark, dark);

        // Nothing moves by itself.
        Assert.Equal("0s", await page.EvaluateAsync<string>("() => getComputedStyle(document.querySelector('.busy span')).transitionDuration"));
    }

    [Fact]
    public async Task It_works_from_the_keyboard()
    {
        await using var host = await SampleHost.StartAsync(Kind.EvioThreadPool);
        var page = await chromium.OpenAsync(host.BaseAddress);

        await page.Keyboard.PressAsync("Tab");
        await Expect(page.Locator("#open")).ToBeFocusedAsync();
        Assert.NotEqual("none", await page.EvaluateAsync<string>("() => getComputedStyle(document.activeElement).outlineStyle"));
        await page.Keyboard.PressAsync("Tab");
        await Expect(page.Locator("#block")).ToBeFocusedAsync();
        await page.Keyboard.PressAsync("Enter");

        await Expect(page.GetByRole(AriaRole.Status)).ToContainTextAsync("The handler blocked its thread", new() { Timeout = Patient.Timeout });
    }

    [Fact]
    public async Task Nothing_is_measured_unless_somebody_looks()
    {
        await using var host = await SampleHost.StartAsync(Kind.EvioThreadPool);
        var instruments = OperationsTests.Instruments(host);
        var time = instruments.Single(static instrument => instrument.Name == "evio.loop.busy.time");
        var io = instruments.Single(static instrument => instrument.Name == "evio.loop.io");
        Assert.False(time.Enabled || io.Enabled);

        var page = await chromium.OpenAsync(host.BaseAddress);
        await Expect(page.Locator("#state")).ToHaveTextAsync("live", Patient);
        await Eventually.HoldsAsync(() => time.Enabled && io.Enabled);

        // As when another tab is chosen.
        await page.EvaluateAsync("() => { Object.defineProperty(document, 'hidden', { value: true, configurable: true }); document.dispatchEvent(new Event('visibilitychange')); }");
        await Eventually.HoldsAsync(() => !time.Enabled && !io.Enabled);

        await page.EvaluateAsync("() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange')); }");
        await Eventually.HoldsAsync(() => time.Enabled && io.Enabled);

        await page.CloseAsync();
        await Eventually.HoldsAsync(() => !time.Enabled && !io.Enabled);
    }

    [Fact]
    public async Task Without_loops_it_says_so()
    {
        await using var host = await SampleHost.StartAsync(Kind.Sockets);
        var page = await chromium.OpenAsync(host.BaseAddress);

        await Expect(page.Locator("#none")).ToBeVisibleAsync(new() { Timeout = Patient.Timeout });

        Assert.Equal(0, await page.Locator("#lanes li").CountAsync());
    }

    [Fact]
    public async Task The_server_opens_no_more_connections_to_itself_than_it_says()
    {
        await using var host = await SampleHost.StartAsync(Kind.EvioThreadPool);
        using var client = host.CreateClient();
        for (var batch = 0; batch < 4; batch++)
        {
            using var opened = await client.PostAsync("/live/connections", null).OrTimeout();
            Assert.Equal("""{"connections":50,"seconds":10}""", await opened.Content.ReadAsStringAsync().OrTimeout());
        }

        using var refused = await client.PostAsync("/live/connections", null).OrTimeout();

        Assert.Equal(System.Net.HttpStatusCode.TooManyRequests, refused.StatusCode);
        Assert.Equal("200 connections are open already; they end after some seconds.\n", await refused.Content.ReadAsStringAsync().OrTimeout());
    }

    [Theory, AllTransports]
    public async Task Who_does_not_ask_for_HTML_gets_the_list(Kind kind)
    {
        await using var host = await SampleHost.StartAsync(kind);
        using var client = host.CreateClient();

        Assert.Contains("GET  /plaintext  ", await client.GetStringAsync("/").OrTimeout(), StringComparison.Ordinal);
    }

    /// <summary>Waits until the lanes' figures are as they must be.</summary>
    private static Task SeesAsync(IPage page, string name, Func<double[], bool> condition)
    {
        var seen = "";
        return Eventually.HoldsAsync(
            async () =>
            {
                var texts = await page.Locator($"#lanes [data-value='{name}']").AllInnerTextsAsync().OrTimeout();
                seen = string.Join(" | ", texts);
                return texts.All(static text => text.Length > 0)
                    && condition([.. texts.Select(static text => double.Parse(text, NumberStyles.Number, CultureInfo.InvariantCulture))]);
            },
            () => seen,
            name);
    }

    /// <summary>A minute of the page, with a blocking request at its end.</summary>
    private async Task TakeScreenshotsAsync(string folder)
    {
        await using var host = await SampleHost.StartAsync(Kind.EvioInline, LoadBalance.Random);
        var page = await chromium.OpenAsync(host.BaseAddress, new() { ViewportSize = new() { Width = 960, Height = 900 } });
        for (var second = 0; second < 60; second += 4)
        {
            if (second % 24 < 12)
            {
                await page.Locator("#open").ClickAsync();
            }
            else if (second % 24 == 16)
            {
                await page.Locator("#block").ClickAsync();
            }

            await Task.Delay(TimeSpan.FromSeconds(4));
        }

        await page.Locator("#block").ClickAsync();
        await page.Mouse.MoveAsync(0, 0);
        await page.Locator(".held").WaitForAsync();
        foreach (var (name, width, scheme) in new[] { ("loops", 960, ColorScheme.Light), ("loops-dark", 960, ColorScheme.Dark), ("loops-phone", 375, ColorScheme.Light) })
        {
            await page.EmulateMediaAsync(new() { ColorScheme = scheme });
            await page.SetViewportSizeAsync(width, 900);
            await page.ScreenshotAsync(new() { Path = Path.Combine(folder, name + ".png"), FullPage = true });
        }
    }
}
