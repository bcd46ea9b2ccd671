using System.Globalization;

namespace Exploration;

/// <summary>Who goes on, where several can.</summary>
internal interface ISchedule
{
    /// <summary>The choices that were made, in a form that <see cref="ReplayedSchedule"/> takes.</summary>
    string Text { get; }

    /// <summary>Chooses one of several actors.</summary>
    /// <param name="count">How many there are, more than one.</param>
    /// <param name="isPreemption">Whether the first of them is at it and could go on, so that the choice of another is a preemption.</param>
    /// <returns>The actor's index.</returns>
    int Choose(int count, bool isPreemption);
}

/// <summary>Writes down choices, those alone that are not the first: "12=1 40=2".</summary>
internal static class ScheduleText
{
    internal static string Of(IEnumerable<int> choices) => string.Join(
        ' ', choices.Select((choice, i) => (choice, i)).Where(static pair => pair.choice > 0).Select(static pair => $"{pair.i}={pair.choice}"));

    internal static Dictionary<int, int> Parse(string text) => text.Split(' ', StringSplitOptions.RemoveEmptyEntries)
        .Select(static part => part.Split('='))
        .ToDictionary(static pair => int.Parse(pair[0], CultureInfo.InvariantCulture), static pair => int.Parse(pair[1], CultureInfo.InvariantCulture));
}

/// <summary>
/// All schedules that depart at most so many times from the first one, in which everybody goes on until he has to wait, and the next one follows. One after the
/// other, depth first.
/// </summary>
/// <remarks>Errors of concurrency that there are show with one or two departures; the number of schedules grows with their power.</remarks>
internal sealed class DepthFirstSchedule(int maxDepartures) : ISchedule
{
    private readonly List<(int Choice, int Count, bool IsPreemption)> _choices = [];
    private int _departures;
    private int _position;

    public string Text => ScheduleText.Of(_choices.Select(static made => made.Choice));

    public int Choose(int count, bool isPreemption)
    {
        if (_position == _choices.Count)
        {
            _choices.Add((0, count, isPreemption));
        }

        var made = _choices[_position++];
        if (made.Count != count || made.IsPreemption != isPreemption)
        {
            throw new InvalidOperationException($"The scenario does not repeat itself: choice {_position - 1} was another one the last time.");
        }

        return made.Choice;
    }

    /// <summary>Goes to the next schedule.</summary>
    /// <returns>False when there is none.</returns>
    internal bool TryAdvance()
    {
        _position = 0;
        while (_choices.Count > 0)
        {
            var (choice, count, isPreemption) = _choices[^1];
            _choices.RemoveAt(_choices.Count - 1);
            _departures -= choice > 0 ? 1 : 0;
            if (choice + 1 < count && _departures < maxDepartures)
            {
                _choices.Add((choice + 1, count, isPreemption));
                _departures++;
                return true;
            }
        }

        return false;
    }
}

/// <summary>Chance, which is the same for the same seed.</summary>
internal sealed class RandomSchedule(int seed) : ISchedule
{
    private readonly Random _random = new(seed);
    private readonly List<int> _choices = [];

    public string Text => ScheduleText.Of(_choices);

    public int Choose(int count, bool isPreemption)
    {
        // Not at every step, or nobody would ever get far before the others.
        var choice = isPreemption && _random.Next(4) > 0 ? 0 : _random.Next(count);
        _choices.Add(choice);
        return choice;
    }
}

/// <summary>A schedule that was written down.</summary>
internal sealed class ReplayedSchedule(string text) : ISchedule
{
    private readonly Dictionary<int, int> _choices = ScheduleText.Parse(text);
    private int _position;

    public string Text => text;

    public int Choose(int count, bool isPreemption)
    {
        var choice = _choices.GetValueOrDefault(_position++);
        return choice < count
            ? choice
            : throw new InvalidOperationException($"The schedule is not one of this scenario: at choice {_position - 1} there are only {count}.");
    }
}
