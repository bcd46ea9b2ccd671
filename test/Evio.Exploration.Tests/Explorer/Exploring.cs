using System.Globalization;

namespace Exploration;

/// <summary>Runs a scenario under many schedules.</summary>
internal static class Exploring
{
    /// <summary>A schedule to run instead of all others, as a failure gives it.</summary>
    internal const string ScheduleVariable = "EVIO_EXPLORE_SCHEDULE";

    /// <summary>How many departures to search through, instead of the scenario's own number.</summary>
    internal const string DeparturesVariable = "EVIO_EXPLORE_DEPARTURES";

    /// <summary>How many random schedules to run, instead of <see cref="RandomSchedules"/>.</summary>
    internal const string RandomVariable = "EVIO_EXPLORE_RANDOM";

    /// <summary>The seed of the first random schedule; the others' follow. 0 without it.</summary>
    internal const string SeedVariable = "EVIO_EXPLORE_SEED";

    private const int RandomSchedules = 100;

    /// <summary>
    /// Runs a scenario with every schedule of at most some departures (<see cref="DepthFirstSchedule"/>), those with the fewest first, and then with random ones.
    /// </summary>
    /// <param name="scenario">Sets up, adds its actors, explores, checks and takes down.</param>
    /// <param name="atLeast">How many schedules there are at the least; a scenario with fewer does not explore what it is about.</param>
    /// <param name="departures">How many departures.</param>
    internal static void Run(Action<Execution> scenario, int atLeast, int departures = 2)
    {
        if (Environment.GetEnvironmentVariable(ScheduleVariable) is { } given)
        {
            Try(scenario, new ReplayedSchedule(given))?.Throw();
            return;
        }

        var watch = Environment.TickCount64;
        var failure = Find(scenario, Number(DeparturesVariable, departures), Number(RandomVariable, RandomSchedules), out var schedules);
        failure?.Throw();
        TestContext.Current.SendDiagnosticMessage("{0}: {1} schedules in {2} ms", TestContext.Current.Test!.TestDisplayName, schedules, Environment.TickCount64 - watch);
        Assert.True(schedules >= atLeast, $"{schedules} schedules, not {atLeast}: the scenario does not explore what it is about.");
    }

    /// <summary>Searches for a failure.</summary>
    /// <param name="schedules">How many schedules there are with that many departures, or were tried until one failed.</param>
    internal static Failure? Find(Action<Execution> scenario, int departures, int random, out int schedules)
    {
        schedules = 0;
        for (var most = 0; most <= departures; most++)
        {
            // The next search repeats all schedules of this one.
            schedules = 0;
            var search = new DepthFirstSchedule(most);
            do
            {
                schedules++;
                if (Try(scenario, search) is { } failure)
                {
                    return failure;
                }
            }
            while (search.TryAdvance());
        }

        var seed = Number(SeedVariable, 0);
        for (var i = 0; i < random; i++)
        {
            if (Try(scenario, new RandomSchedule(seed + i)) is { } failure)
            {
                return failure;
            }
        }

        return null;
    }

    internal static Failure? Try(Action<Execution> scenario, ISchedule schedule)
    {
        var execution = new Execution(schedule);
        return execution.Run(scenario) is { } reason ? new Failure(reason, schedule.Text, execution.Trace(120)) : null;
    }

    private static int Number(string variable, int otherwise) =>
        Environment.GetEnvironmentVariable(variable) is { } text ? int.Parse(text, CultureInfo.InvariantCulture) : otherwise;

    /// <summary>What went wrong, and under which schedule.</summary>
    internal sealed record Failure(string Reason, string Schedule, string Trace)
    {
        internal void Throw() => Assert.Fail($"{Reason}\nTo repeat it: {ScheduleVariable}=\"{Schedule}\"\nThe last steps:\n{Trace}");
    }
}
