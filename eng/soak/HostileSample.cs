using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using Evio.Transport.Native;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Evio.Soak;

/// <summary>
/// What is hostile inside of the sample's process, without the sample's knowing: a listener and a logger provider that throw, and a middleware that takes
/// connections' sockets and drops or keeps them. The runtime runs it before the program, as a startup hook.
/// </summary>
internal static class HostileSample
{
    private const string SeedVariable = "EVIO_SOAK_HOSTILITY";
    private const int LogCallsForEachThrow = 50;
    private const int RequestsForEachSocket = 20;
    private const int MaxKept = 200;

    private static readonly ConcurrentQueue<(Socket Socket, CancellationToken Closed, long Since)> Kept = new();

    /// <summary>How long a connection may take to end after its token has said so.</summary>
    private static readonly TimeSpan LongestEnd = TimeSpan.FromSeconds(10);

    /// <summary>Has a program of ASP.NET Core start with it.</summary>
    public static void Attach(ProcessStartInfo start, int seed)
    {
        start.Environment["DOTNET_STARTUP_HOOKS"] = typeof(HostileSample).Assembly.Location;
        start.Environment[SeedVariable] = seed.ToString(CultureInfo.InvariantCulture);
    }

    /// <summary>What <see cref="StartupHook"/> does.</summary>
    public static void Begin()
    {
        if (Environment.GetEnvironmentVariable(SeedVariable) is not { } seed)
        {
            return;
        }

        var mischief = new Mischief(int.Parse(seed, CultureInfo.InvariantCulture));
        _ = HostileListener.Start(mischief);
        DiagnosticListener.AllListeners.Subscribe(new Observer<DiagnosticListener>(listener =>
        {
            if (listener.Name == "Microsoft.Extensions.Hosting")
            {
                listener.Subscribe(new Observer<KeyValuePair<string, object?>>(happening =>
                {
                    if (happening is { Key: "HostBuilding", Value: IHostBuilder builder })
                    {
                        builder.ConfigureServices((_, services) => Configure(services, mischief));
                    }
                }));
            }
        }));
    }

    private static void Configure(IServiceCollection services, Mischief mischief)
    {
        services.AddSingleton<ILoggerProvider>(new LoggerProvider(mischief));
        services.Configure<LoggerFilterOptions>(static options =>
        {
            options.Rules.Add(new LoggerFilterRule(typeof(LoggerProvider).FullName, null, LogLevel.None, null));
            options.Rules.Add(new LoggerFilterRule(typeof(LoggerProvider).FullName, EventLoopGroup.MeterName, LogLevel.Trace, null));
        });
        services.AddSingleton<IStartupFilter>(new SocketTaker(mischief));
    }

    /// <summary>A connection that has ended has taken its socket along.</summary>
    private static void TryKept()
    {
        while (Kept.TryPeek(out var oldest) && (Kept.Count > MaxKept || Stopwatch.GetElapsedTime(oldest.Since) > LongestEnd))
        {
            if (!Kept.TryDequeue(out var kept) || !kept.Closed.IsCancellationRequested)
            {
                continue;
            }

            try
            {
                // Whoever gets it finds a byte that is not an answer's.
                kept.Socket.Send([0xEE]);
                Console.Error.WriteLine("fail: a socket that was kept beyond its connection's end sends");
            }
            catch (Exception exception) when (exception is ObjectDisposedException or SocketException)
            {
                // As it was to be.
            }
        }
    }

    private sealed class SocketTaker(Mischief mischief) : IStartupFilter
    {
        public Action<IApplicationBuilder> Configure(Action<IApplicationBuilder> next) => application =>
        {
            application.Use(async (context, next) =>
            {
                if (mischief.Next(RequestsForEachSocket) == 0 && context.Features.Get<IConnectionSocketFeature>() is { } feature)
                {
                    var socket = feature.Socket;
                    if (mischief.Next(2) == 0 && context.Features.Get<IConnectionLifetimeFeature>() is { } lifetime)
                    {
                        var closed = lifetime.ConnectionClosed;
                        closed.UnsafeRegister(_ => Kept.Enqueue((socket, closed, Stopwatch.GetTimestamp())), null);
                    }

                    TryKept();
                }

                await next(context);
            });
            next(application);
        };
    }

    private sealed class LoggerProvider(Mischief mischief) : ILoggerProvider, ILogger
    {
        public ILogger CreateLogger(string categoryName) => this;

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull
        {
            mischief.MayThrow(LogCallsForEachThrow, nameof(BeginScope));
            return null;
        }

        public bool IsEnabled(LogLevel logLevel)
        {
            mischief.MayThrow(LogCallsForEachThrow, nameof(IsEnabled));
            return true;
        }

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            mischief.MayThrow(LogCallsForEachThrow, nameof(Log));

        public void Dispose()
        {
        }
    }

    private sealed class Observer<T>(Action<T> onNext) : IObserver<T>
    {
        public void OnCompleted()
        {
        }

        public void OnError(Exception error)
        {
        }

        public void OnNext(T value) => onNext(value);
    }
}
