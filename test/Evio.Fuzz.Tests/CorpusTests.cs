namespace Evio.Fuzz.Tests;

/// <summary>Every input of <c>eng/fuzz/corpus</c>, what fuzzing has found among them, through its target.</summary>
public sealed class CorpusTests
{
    private static readonly string Corpus = Path.Combine(AppContext.BaseDirectory, "corpus");

    public static TheoryData<string, string> Inputs =>
        [.. Directory.EnumerateFiles(Corpus, "*", SearchOption.AllDirectories)
            .Select(static file => (Path.GetFileName(Path.GetDirectoryName(file))!, Path.GetFileName(file)))];

    [Theory, MemberData(nameof(Inputs))]
    public void What_the_target_promises_holds_for_the_input(string target, string input) =>
        Targets.All[target](File.ReadAllBytes(Path.Combine(Corpus, target, input)));

    [Fact]
    public void Every_target_has_a_corpus() =>
        Assert.Equal(Targets.All.Keys, Directory.EnumerateDirectories(Corpus).Select(Path.GetFileName).Order(StringComparer.Ordinal));
}
