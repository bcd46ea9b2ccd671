using System.Text;
using System.Text.RegularExpressions;

namespace Evio.Docs.Tests;

/// <summary>A fenced block, with the name in the comment <c>&lt;!-- example: name --&gt;</c> before it, if there is one.</summary>
internal sealed record CodeBlock(string Page, int Line, string Language, string? Name, string Text)
{
    public string Place => $"{Page}:{Line}";
}

/// <summary>A link or an image, with its target as it is written.</summary>
internal sealed record Link(string Page, int Line, string Target)
{
    public string Place => $"{Page}:{Line}";
}

/// <summary>One of the project's Markdown pages, taken apart as far as the tests need it.</summary>
internal sealed partial class DocumentPage
{
    private readonly List<CodeBlock> _blocks = [];
    private readonly List<Link> _links = [];
    private readonly HashSet<string> _anchors = [];

    private DocumentPage(string name, IEnumerable<string> lines)
    {
        Name = name;
        Read(lines);
    }

    /// <summary>The folder of the repository.</summary>
    public static string Root { get; } = FindRoot();

    /// <summary>The pages that feeds show of the packages.</summary>
    public static IReadOnlyList<string> Packages { get; } = ["src/Evio.Transport.Native/README.md", "src/Evio.Transport/README.md", "templates/README.md"];

    public static IReadOnlyList<DocumentPage> All { get; } =
    [
        .. Directory.EnumerateFiles(Root, "*.md")
            .Concat(Directory.EnumerateFiles(Path.Combine(Root, "docs"), "*.md", SearchOption.AllDirectories))
            .Concat(Packages.Select(static name => Path.Combine(Root, name)))
            .Order(StringComparer.Ordinal)
            .Select(static path => new DocumentPage(Path.GetRelativePath(Root, path), File.ReadLines(path))),
    ];

    /// <summary>The path from <see cref="Root"/>.</summary>
    public string Name { get; }

    public IReadOnlyList<CodeBlock> Blocks => _blocks;

    public IReadOnlyList<Link> Links => _links;

    /// <summary>What may stand behind a # in a link to this page: its headings as GitHub spells them.</summary>
    public IReadOnlySet<string> Anchors => _anchors;

    private void Read(IEnumerable<string> lines)
    {
        var number = 0;
        string? fence = null, language = null, name = null;
        var text = new StringBuilder();
        var started = 0;
        foreach (var line in lines)
        {
            number++;
            if (fence is not null)
            {
                if (line.Trim() == fence)
                {
                    _blocks.Add(new CodeBlock(Name, started, language!, name, text.ToString()));
                    (fence, name) = (null, null);
                }
                else
                {
                    text.AppendLine(line);
                }
            }
            else if (Fence().Match(line) is { Success: true } opening)
            {
                (fence, language, started) = (opening.Groups[1].Value, opening.Groups[2].Value, number);
                text.Clear();
            }
            else if (ExampleComment().Match(line) is { Success: true } comment)
            {
                name = comment.Groups[1].Value;
            }
            else
            {
                if (Heading().Match(line) is { Success: true } heading)
                {
                    AddAnchor(heading.Groups[1].Value);
                }

                _links.AddRange(LinkTarget().Matches(InlineCode().Replace(line, "")).Select(link => new Link(Name, number, link.Groups[1].Value)));
            }
        }

        Assert.True(fence is null, $"{Name}:{started}: the block has no end.");
    }

    private void AddAnchor(string heading)
    {
        var spelled = string.Concat(heading.ToLowerInvariant().Replace(' ', '-').Where(static c => char.IsLetterOrDigit(c) || c is '-' or '_'));
        var anchor = spelled;
        for (var i = 1; !_anchors.Add(anchor); i++)
        {
            anchor = $"{spelled}-{i}";
        }
    }

    private static string FindRoot()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder.FullName, "Evio.Transport.sln")))
        {
            folder = folder.Parent ?? throw new InvalidOperationException($"{AppContext.BaseDirectory} is not in the repository.");
        }

        return folder.FullName;
    }

    [GeneratedRegex(@"^\s*(```+)(\w*)\s*$")]
    private static partial Regex Fence();

    [GeneratedRegex(@"^<!-- example: ([\w-]+) -->$")]
    private static partial Regex ExampleComment();

    [GeneratedRegex(@"^#{1,6} (.+?)\s*$")]
    private static partial Regex Heading();

    [GeneratedRegex(@"\]\(([^)\s]+)\)")]
    private static partial Regex LinkTarget();

    [GeneratedRegex("`[^`]*`")]
    private static partial Regex InlineCode();
}
