using System.IO.MemoryMappedFiles;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Evio.Transport.Testing;

namespace Evio.Transport.Faults.Tests;

/// <summary>The calls that test/FaultInjection/faults.c can make fail, in its order.</summary>
internal enum Call
{
    Accept,
    Accept4,
    Bind,
    Close,
    Connect,
    EpollCreate1,
    EpollCtl,
    EpollWait,
    EventFd,
    FChMod,
    FChModAt,
    FCntl,
    FLock,
    GetSockName,
    GetSockOpt,
    Listen,
    Open,
    Read,
    Recv,
    RecvMMsg,
    RecvMsg,
    SchedSetAffinity,
    Send,
    SendMMsg,
    SendMsg,
    SetSockOpt,
    Shutdown,
    Socket,
    StatX,
    Write,
}

/// <summary>Which calls fail: those of one kind, from one on, and with what.</summary>
/// <param name="Call">The kind of call.</param>
/// <param name="Error">The error number, or <see cref="FaultControl.Short"/>.</param>
/// <param name="Port">The port of the peer, or of the bound socket; 0 for any.</param>
/// <param name="Detail">The option, operation or family that the call is about, or <see cref="FaultControl.Any"/>.</param>
/// <param name="First">The first that fails, from 1.</param>
/// <param name="Count">How many fail.</param>
internal readonly record struct Fault(Call Call, int Error, int Port = 0, int Detail = FaultControl.Any, int First = 1, int Count = 1);

/// <summary>What went wrong on request.</summary>
internal readonly record struct InjectedFault(Call Call, int Error, int Port);

/// <summary>The memory that is shared with faults.c in the server, and laid out as there.</summary>
internal sealed unsafe class FaultControl : IDisposable
{
    internal const int Short = -1;
    internal const int Any = -1;

    private const int MaxRules = 4;
    private const int MaxErrors = 32;
    private const int MaxLog = 1 << 16;
    private const int CallCount = (int)Call.Write + 1;

    private readonly MemoryMappedFile _file;
    private readonly MemoryMappedViewAccessor _view;
    private readonly Layout* _memory;

    internal FaultControl(string path)
    {
        _file = MemoryMappedFile.CreateFromFile(path, FileMode.Create, null, sizeof(Layout));
        _view = _file.CreateViewAccessor();
        byte* start = null;
        _view.SafeMemoryMappedViewHandle.AcquirePointer(ref start);
        _memory = (Layout*)start;
    }

    /// <summary>Whether the library is in the server, and laid out like this.</summary>
    internal bool IsLoaded => Volatile.Read(ref _memory->Loaded) == sizeof(Layout);

    /// <summary>How many calls reached a descriptor that was not open, other than on request.</summary>
    internal int CallsOnClosed => Volatile.Read(ref _memory->Closed);

    /// <summary>How often a call was made.</summary>
    internal long Calls(Call call) => Volatile.Read(ref _memory->Calls[(int)call]);

    /// <summary>How many calls a fault of the last <see cref="Arm"/> has met.</summary>
    internal int Met(int index = 0) => Volatile.Read(ref Rule(index).Met);

    /// <summary>All faults since the last <see cref="Arm"/> or <see cref="ArmChances"/>.</summary>
    internal List<InjectedFault> Log()
    {
        var count = Volatile.Read(ref _memory->Logged);
        Assert.InRange(count, 0, MaxLog);
        var log = new List<InjectedFault>((int)count);
        for (var i = 0; i < count; i++)
        {
            var entry = (LogLayout*)(&_memory->Log) + i;
            log.Add(new InjectedFault((Call)entry->Call, entry->Error, entry->Port));
        }

        return log;
    }

    /// <summary>Has calls fail until <see cref="Disarm"/>.</summary>
    internal void Arm(params Fault[] faults)
    {
        Disarm();
        Assert.InRange(faults.Length, 1, MaxRules);
        for (var i = 0; i < faults.Length; i++)
        {
            var fault = faults[i];
            Rule(i) = new RuleLayout
            {
                Call = (int)fault.Call,
                Error = fault.Error,
                Port = fault.Port,
                Detail = fault.Detail,
                Skip = fault.First - 1,
                Count = fault.Count,
            };
        }

        Begin(faults.Length, chances: false);
    }

    /// <summary>Has calls fail by chance until <see cref="Disarm"/>.</summary>
    /// <param name="seed">Where the sequence of chances begins.</param>
    /// <param name="chances">For each kind of call how many of a million fail, and with which errors.</param>
    internal void ArmChances(int seed, IReadOnlyDictionary<Call, (int Millionths, int[] Errors)> chances)
    {
        Disarm();
        for (var call = (Call)0; (int)call < CallCount; call++)
        {
            ref var chance = ref Chance(call);
            var (millionths, errors) = chances.GetValueOrDefault(call);
            chance.Millionths = millionths;
            chance.Errors = errors?.Length ?? 0;
            Assert.InRange(chance.Errors, millionths > 0 ? 1 : 0, MaxErrors);
            for (var i = 0; i < chance.Errors; i++)
            {
                chance.Error[i] = errors![i];
            }
        }

        // Anything but 0, of which xorshift makes nothing else.
        _memory->Random = (ulong)(uint)seed + 0x9E3779B97F4A7C15;
        Begin(rules: 0, chances: true);
    }

    /// <summary>Has nothing fail any more.</summary>
    internal void Disarm()
    {
        Interlocked.Exchange(ref _memory->Armed, 0);
        Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref _memory->Busy) == 0, TestTimeouts.Default), "The server does not come to an end of a call.");
    }

    public void Dispose()
    {
        _view.SafeMemoryMappedViewHandle.ReleasePointer();
        _view.Dispose();
        _file.Dispose();
    }

    private void Begin(int rules, bool chances)
    {
        _memory->Rules = rules;
        _memory->Chances = chances ? 1 : 0;
        _memory->Logged = 0;
        Volatile.Write(ref _memory->Armed, 1);
    }

    private ref RuleLayout Rule(int index) => ref ((RuleLayout*)&_memory->Rule)[index];

    private ref ChanceLayout Chance(Call call) => ref ((ChanceLayout*)&_memory->Chance)[(int)call];

    [StructLayout(LayoutKind.Sequential)]
    private struct Layout
    {
        public int Armed;
        public int Busy;
        public int Closed;
        public int Loaded;
        public int Rules;
        public int Chances;
        public ulong Random;
        public RulesLayout Rule;
        public ChancesLayout Chance;
        public fixed long Calls[CallCount];
        public long Logged;
        public LogsLayout Log;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct RuleLayout
    {
        public int Call;
        public int Error;
        public int Port;
        public int Detail;
        public int Skip;
        public int Count;
        public int Met;
        public int Unused;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct ChanceLayout
    {
        public int Millionths;
        public int Errors;
        public fixed int Error[MaxErrors];
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct LogLayout
    {
        public int Call;
        public int Error;
        public int Port;
        public int Unused;
    }

    [InlineArray(MaxRules)]
    private struct RulesLayout
    {
        private RuleLayout _first;
    }

    [InlineArray(CallCount)]
    private struct ChancesLayout
    {
        private ChanceLayout _first;
    }

    [InlineArray(MaxLog)]
    private struct LogsLayout
    {
        private LogLayout _first;
    }
}
