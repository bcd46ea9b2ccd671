using System.Text;
using System.Text.Encodings.Web;
using Npgsql;

namespace Evio.Bench.Ecosystem;

internal sealed record World(int Id, int RandomNumber);

internal sealed record Fortune(int Id, string Message);

/// <summary>Answers from PostgreSQL. Rows are random, or those from <c>id</c> on.</summary>
internal static class DatabaseEndpoints
{
    /// <summary>The ids are 1 to this.</summary>
    private const int RowCount = 10_000;

    private const int Queries = 20;

    public static void MapDatabase(this IEndpointRouteBuilder endpoints)
    {
        endpoints.MapGet("/row", GetRowAsync);
        endpoints.MapGet("/rows", GetRowsAsync);
        endpoints.MapGet("/fortunes", GetFortunesAsync);
    }

    public static int RandomId() => Random.Shared.Next(1, RowCount + 1);

    private static async Task<World> GetRowAsync(NpgsqlDataSource database, int? id)
    {
        await using var connection = await database.OpenConnectionAsync();
        return await ReadRowAsync(connection, id ?? RandomId());
    }

    private static async Task<List<World>> GetRowsAsync(NpgsqlDataSource database, int? id)
    {
        await using var connection = await database.OpenConnectionAsync();
        var rows = new List<World>();
        for (var i = 0; i < Queries; i++)
        {
            rows.Add(await ReadRowAsync(connection, id + i ?? RandomId()));
        }

        return rows;
    }

    private static async Task<World> ReadRowAsync(NpgsqlConnection connection, int id)
    {
        await using var command = new NpgsqlCommand("SELECT id, randomnumber FROM world WHERE id = $1", connection);
        command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = id });
        await using var reader = await command.ExecuteReaderAsync();
        return await reader.ReadAsync()
            ? new World(reader.GetInt32(0), reader.GetInt32(1))
            : throw new ArgumentOutOfRangeException(nameof(id), id, "There is no such row.");
    }

    private static async Task<IResult> GetFortunesAsync(NpgsqlDataSource database)
    {
        var fortunes = new List<Fortune>();
        await using (var command = database.CreateCommand("SELECT id, message FROM fortune"))
        await using (var reader = await command.ExecuteReaderAsync())
        {
            while (await reader.ReadAsync())
            {
                fortunes.Add(new Fortune(reader.GetInt32(0), reader.GetString(1)));
            }
        }

        fortunes.Add(new Fortune(0, "Additional fortune added at request time."));
        fortunes.Sort(static (one, other) => string.CompareOrdinal(one.Message, other.Message));

        var page = new StringBuilder("<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table>");
        page.Append("<tr><th>id</th><th>message</th></tr>");
        foreach (var fortune in fortunes)
        {
            page.Append("<tr><td>").Append(fortune.Id).Append("</td><td>");
            page.Append(HtmlEncoder.Default.Encode(fortune.Message)).Append("</td></tr>");
        }

        return Results.Content(page.Append("</table></body></html>").ToString(), "text/html; charset=utf-8");
    }
}
