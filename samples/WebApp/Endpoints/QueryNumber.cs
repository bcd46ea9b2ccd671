using System.Globalization;
using System.Text;

namespace Evio.Samples.WebApp.Endpoints;

/// <summary>A whole number in the query string, with the value it has when it is not given and the range it must be in.</summary>
internal sealed record QueryNumber(string Name, long Default, long Min, long Max)
{
    public bool TryRead(HttpRequest request, out long value)
    {
        if (!request.Query.TryGetValue(Name, out var text))
        {
            value = Default;
            return true;
        }

        return long.TryParse(text.ToString(), NumberStyles.None, CultureInfo.InvariantCulture, out value) && value >= Min && value <= Max;
    }

    /// <summary>Answers 400 and says what is permitted.</summary>
    public static Task RefuseAsync(HttpResponse response, params ReadOnlySpan<QueryNumber> permitted)
    {
        var text = new StringBuilder();
        foreach (var number in permitted)
        {
            text.Append(CultureInfo.InvariantCulture, $"{number.Name} must be a whole number from {number.Min} to {number.Max}\n");
        }

        response.StatusCode = StatusCodes.Status400BadRequest;
        response.ContentType = "text/plain";
        return response.WriteAsync(text.ToString());
    }
}
