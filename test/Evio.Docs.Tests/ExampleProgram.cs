using System.Diagnostics;
using System.Text;
using Evio.Transport.Testing;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;

namespace Evio.Docs.Tests;

/// <summary>A code block as a running program: compiled as the Web SDK would, against the transport that this test project was built with.</summary>
internal sealed class ExampleProgram : IAsyncDisposable
{
    /// <summary>The implicit usings of Microsoft.NET.Sdk.Web.</summary>
    private static readonly string GlobalUsings = string.Concat(new[]
    {
        "System", "System.Collections.Generic", "System.IO", "System.Linq", "System.Net.Http", "System.Net.Http.Json", "System.Threading",
        "System.Threading.Tasks", "Microsoft.AspNetCore.Builder", "Microsoft.AspNetCore.Hosting", "Microsoft.AspNetCore.Http",
        "Microsoft.AspNetCore.Routing", "Microsoft.Extensions.Configuration", "Microsoft.Extensions.DependencyInjection",
        "Microsoft.Extensions.Hosting", "Microsoft.Extensions.Logging",
    }.Select(static name => $"global using {name};\n"));

    private static readonly CSharpParseOptions ParseOptions = new(LanguageVersion.CSharp14);

    private static readonly Lazy<MetadataReference[]> References = new(static () => [.. Assemblies.Select(static path => MetadataReference.CreateFromFile(path))]);

    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("evio-docs-");
    private readonly StringBuilder _output = new();
    private readonly Process _process;

    private ExampleProgram(CodeBlock block, string source, string[] arguments)
    {
        Compile(block, source);
        foreach (var library in new[] { "Evio.Transport.dll", "Evio.Transport.Native.dll", "Yarp.ReverseProxy.dll", "System.IO.Hashing.dll" })
        {
            File.Copy(Path.Combine(AppContext.BaseDirectory, library), Path.Combine(_folder.FullName, library));
        }

        File.Copy(
            Path.Combine(AppContext.BaseDirectory, typeof(ExampleProgram).Assembly.GetName().Name + ".runtimeconfig.json"),
            Path.Combine(_folder.FullName, "example.runtimeconfig.json"));
        _process = new Process
        {
            StartInfo = new ProcessStartInfo("dotnet", ["exec", Assembly, .. arguments])
            {
                WorkingDirectory = _folder.FullName,
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            },
        };
        _process.OutputDataReceived += OnOutput;
        _process.ErrorDataReceived += OnOutput;
    }

    /// <summary>The paths of what this process was started with: the framework, the transport, and the packages.</summary>
    public static IEnumerable<string> Assemblies => ((string)AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES")!).Split(Path.PathSeparator);

    /// <summary>All that the program has printed so far, line by line.</summary>
    public string Output
    {
        get
        {
            lock (_output)
            {
                return _output.ToString();
            }
        }
    }

    private string Assembly => Path.Combine(_folder.FullName, "example.dll");

    /// <summary>Compiles and starts it. A program that serves HTTP does so on <paramref name="url"/>, if it leaves the choice.</summary>
    public static ExampleProgram Start(CodeBlock block, string source, string? url = null, params string[] arguments)
    {
        var program = new ExampleProgram(block, source, url is null ? arguments : ["--urls", url, .. arguments]);
        program._process.Start();
        program._process.BeginOutputReadLine();
        program._process.BeginErrorReadLine();
        return program;
    }

    /// <summary>Waits until it has printed this.</summary>
    public Task PrintsAsync(string text) => Eventually.HoldsAsync(
        () => Output.Contains(text, StringComparison.Ordinal)
            || (_process.HasExited ? throw new InvalidOperationException($"The program has ended with {_process.ExitCode}.\n{Output}") : false),
        () => Output,
        text);

    /// <summary>Waits until it has ended by itself.</summary>
    public async Task EndsAsync()
    {
        await _process.WaitForExitAsync().OrTimeout();
        Assert.True(_process.ExitCode == 0, $"Exit code {_process.ExitCode}\n{Output}");
    }

    public async ValueTask DisposeAsync()
    {
        _process.Kill();
        await _process.WaitForExitAsync().OrTimeout();
        _process.Dispose();
        _folder.Delete(recursive: true);
    }

    private void Compile(CodeBlock block, string source)
    {
        var compilation = CSharpCompilation.Create(
            "example",
            [
                CSharpSyntaxTree.ParseText(GlobalUsings, ParseOptions, "usings.cs"),
                CSharpSyntaxTree.ParseText(source, ParseOptions, block.Place),
            ],
            References.Value,
            // Those of an SDK project: references to older versions of the framework are no reason for a warning.
            new CSharpCompilationOptions(
                OutputKind.ConsoleApplication,
                nullableContextOptions: NullableContextOptions.Enable,
                specificDiagnosticOptions: [new("CS1701", ReportDiagnostic.Suppress), new("CS1702", ReportDiagnostic.Suppress)]));
        var result = compilation.Emit(Assembly);
        Assert.True(result.Success, $"{block.Place} does not compile.\n{string.Join("\n", result.Diagnostics.Where(IsBad))}\n{source}");

        // A reader's compiler would warn as well.
        Assert.Empty(result.Diagnostics.Where(IsBad));
    }

    private static bool IsBad(Diagnostic diagnostic) => diagnostic.Severity >= DiagnosticSeverity.Warning;

    private void OnOutput(object sender, DataReceivedEventArgs line)
    {
        if (line.Data is not null)
        {
            lock (_output)
            {
                _output.AppendLine(line.Data);
            }
        }
    }
}
