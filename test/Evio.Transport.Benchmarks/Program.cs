using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Running;

// Each benchmark gets a process that is built for it, with this project and all that it refers to.
var config = ManualConfig.Create(DefaultConfig.Instance)
    .WithBuildTimeout(TimeSpan.FromMinutes(10))
    .WithArtifactsPath("artifacts/benchmarks");
BenchmarkSwitcher.FromAssembly(typeof(Program).Assembly).Run(args, config);
