namespace Evio.Docs.Tests;

/// <summary>Every link of the pages leads somewhere. Those to other sites are only looked at, not followed.</summary>
public sealed class LinkTests
{
    [Fact]
    public void Every_link_leads_somewhere()
    {
        var links = DocumentPage.All.SelectMany(static page => page.Links).ToArray();
        Assert.True(links.Length > 30, $"Only {links.Length} links were found.");

        Assert.Empty(links.Select(static link => Broken(link)).OfType<string>());
    }

    [Fact]
    public void Every_page_can_be_reached_from_the_readme()
    {
        var reached = new HashSet<string> { "README.md" };
        var open = new Queue<string>(reached);
        while (open.TryDequeue(out var name))
        {
            var page = DocumentPage.All.Single(page => page.Name == name);
            foreach (var target in page.Links.Select(link => PathOf(page.Name, link.Target)).OfType<string>().Where(static path => path.EndsWith(".md", StringComparison.Ordinal)))
            {
                if (reached.Add(target))
                {
                    open.Enqueue(target);
                }
            }
        }

        Assert.Equal(DocumentPage.All.Select(static page => page.Name).Order(), reached.Order());
    }

    /// <summary>A feed shows them without the repository around them.</summary>
    [Fact]
    public void Pages_of_packages_link_to_no_file()
    {
        var pages = DocumentPage.All.Where(static page => DocumentPage.Packages.Contains(page.Name)).ToArray();
        Assert.Equal(DocumentPage.Packages.Count, pages.Length);

        Assert.Empty(pages.SelectMany(static page => page.Links).Where(static link => PathOf(link.Page, link.Target) is not null).Select(static link => $"{link.Place}: {link.Target}"));
    }

    private static string? Broken(Link link)
    {
        if (link.Target.Contains("://", StringComparison.Ordinal))
        {
            return Uri.TryCreate(link.Target, UriKind.Absolute, out var uri) && uri.Scheme == Uri.UriSchemeHttps && uri.Host.Contains('.')
                ? null
                : $"{link.Place}: {link.Target} is no https address";
        }

        var path = PathOf(link.Page, link.Target)!;
        if (!Path.Exists(Path.Combine(DocumentPage.Root, path)))
        {
            return $"{link.Place}: {path} does not exist";
        }

        return link.Target.Split('#') is [_, var anchor] && DocumentPage.All.SingleOrDefault(page => page.Name == path)?.Anchors.Contains(anchor) != true
            ? $"{link.Place}: {path} has no heading #{anchor}"
            : null;
    }

    /// <summary>What a relative link means, from the root; null for others.</summary>
    private static string? PathOf(string page, string target)
    {
        if (target.Contains("://", StringComparison.Ordinal))
        {
            return null;
        }

        var file = target.Split('#')[0];
        return file.Length == 0
            ? page
            : Path.GetRelativePath(DocumentPage.Root, Path.GetFullPath(Path.Combine(DocumentPage.Root, Path.GetDirectoryName(page)!, file)));
    }
}
