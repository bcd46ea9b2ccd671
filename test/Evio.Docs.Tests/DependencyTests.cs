using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;

namespace Evio.Docs.Tests;

/// <summary>The folders of the libraries use each other as docs/design.md says, in every line of code.</summary>
public sealed class DependencyTests
{
    private const string ImplicitUsings = """
        global using System;
        global using System.Collections.Generic;
        global using System.IO;
        global using System.Linq;
        global using System.Net.Http;
        global using System.Threading;
        global using System.Threading.Tasks;
        """;

    [Theory, InlineData("Evio.Transport.Native"), InlineData("Evio.Transport")]
    public void Folders_use_what_the_page_says_and_nothing_else(string library)
    {
        var stated = Stated(library);
        var found = Found(Path.Combine(DocumentPage.Root, "src", library));

        Assert.Equal(
            Directory.EnumerateDirectories(Path.Combine(DocumentPage.Root, "src", library)).Select(Path.GetFileName).Except(["bin", "obj"]).Order(),
            stated.Keys.Order());
        Assert.Empty(found.Where(use => !stated[use.Key.From].Contains(use.Key.To)).Select(static use => $"{use.Key.From} uses {use.Key.To}: {use.Value}"));
        Assert.Empty(stated.SelectMany(static row => row.Value.Select(to => (From: row.Key, To: to))).Except(found.Keys));
    }

    /// <summary>What the table of a library says: for each folder, those that it may use.</summary>
    private static Dictionary<string, string[]> Stated(string library)
    {
        var lines = File.ReadAllLines(Path.Combine(DocumentPage.Root, "docs", "design.md"));
        return lines.SkipWhile(line => !line.StartsWith($"| folder of `{library}` |", StringComparison.Ordinal))
            .Skip(2)
            .TakeWhile(static line => line.StartsWith('|'))
            .Select(static line => line.Split('|', StringSplitOptions.TrimEntries))
            .ToDictionary(static row => row[1].Trim('`'), static row => row[3].Split(", ").Select(static name => name.Trim('`')).Where(static name => name != "–").ToArray());
    }

    /// <summary>Which folders use which, with one place for each.</summary>
    private static Dictionary<(string From, string To), string> Found(string root)
    {
        var files = Directory.EnumerateDirectories(root).Where(static folder => Path.GetFileName(folder) is not ("bin" or "obj"))
            .SelectMany(static folder => Directory.EnumerateFiles(folder, "*.cs", SearchOption.AllDirectories));
        var references = ExampleProgram.Assemblies.Where(path => Path.GetFileNameWithoutExtension(path) != Path.GetFileName(root));
        var compilation = CSharpCompilation.Create(
            "library",
            [CSharpSyntaxTree.ParseText(ImplicitUsings), .. files.Select(static path => CSharpSyntaxTree.ParseText(File.ReadAllText(path), path: path))],
            references.Select(static path => MetadataReference.CreateFromFile(path)),
            new CSharpCompilationOptions(OutputKind.DynamicallyLinkedLibrary, allowUnsafe: true));
        var uses = new Dictionary<(string, string), string>();
        foreach (var tree in compilation.SyntaxTrees.Where(static tree => tree.FilePath.Length > 0))
        {
            var model = compilation.GetSemanticModel(tree);
            var from = FolderOf(tree);
            foreach (var name in tree.GetRoot().DescendantNodes().OfType<SimpleNameSyntax>())
            {
                var info = model.GetSymbolInfo(name);
                var folders = FoldersOf(info.Symbol ?? info.CandidateSymbols.FirstOrDefault());
                if (folders.Length > 0 && !folders.Contains(from))
                {
                    var line = name.GetLocation().GetLineSpan().StartLinePosition.Line + 1;
                    _ = uses.TryAdd((from, folders[0]), $"{name} in {Path.GetFileName(tree.FilePath)}:{line}");
                }
            }
        }

        return uses;

        string FolderOf(SyntaxTree tree) => Path.GetRelativePath(root, tree.FilePath).Split(Path.DirectorySeparatorChar)[0];

        // A member belongs to the part of its type that declares it, and what the compiler adds, to the type.
        string[] FoldersOf(ISymbol? symbol) =>
            symbol is null or INamespaceSymbol ? []
            : symbol.OriginalDefinition.DeclaringSyntaxReferences is { Length: > 0 } declarations
                ? [.. declarations.Select(static declaration => declaration.SyntaxTree).Where(static tree => tree.FilePath.Length > 0).Select(FolderOf).Distinct()]
                : FoldersOf(symbol.ContainingType);
    }
}
