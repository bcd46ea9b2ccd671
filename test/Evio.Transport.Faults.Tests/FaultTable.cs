using System.Text.RegularExpressions;

namespace Evio.Transport.Faults.Tests;

/// <summary>A row of the table in docs/faults.md.</summary>
/// <param name="Call">The system call.</param>
/// <param name="Where">What the call is made for.</param>
/// <param name="Errors">The names of the errors.</param>
/// <param name="Effect">What the server does, as far as the first colon.</param>
internal sealed record FaultRow(string Call, string Where, string[] Errors, string Effect)
{
    internal const string Unnoticed = "nothing is noticed";
    internal const string EndsConnection = "that connection ends";

    internal Call ToCall() => Enum.Parse<Call>(Call.Replace("_", "", StringComparison.Ordinal), ignoreCase: true);

    public override string ToString() => $"{Call}, {Where}: {Effect}";
}

/// <summary>The table, which the tests read where people read it.</summary>
internal static partial class FaultTable
{
    internal static IReadOnlyList<FaultRow> Rows { get; } = Read();

    private static List<FaultRow> Read()
    {
        var rows = File.ReadLines(Path.Combine(AppContext.BaseDirectory, "faults.md"))
            .Where(static line => line.StartsWith("| `", StringComparison.Ordinal))
            .Select(static line => line.Split('|', StringSplitOptions.TrimEntries))
            .Select(static cells => new FaultRow(
                cells[1].Trim('`'), cells[2], [.. Name().Matches(cells[3]).Select(static match => match.Value)], cells[4].Split(':')[0]))
            .ToList();
        return rows.Count > 0 ? rows : throw new InvalidDataException("docs/faults.md has no table.");
    }

    [GeneratedRegex("E[A-Z0-9]+|short")]
    private static partial Regex Name();
}
