#!/usr/bin/env bash
# Measures the transports side by side; `eng/bench.sh --help` lists the options, docs/benchmarks.md explains the figures.
set -euo pipefail
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
bench=$(cd "$(dirname "$0")" && pwd)/bench
dotnet build "$bench" -c Release -v quiet --tl:off >&2
exec "$bench/bin/Release/net10.0/Evio.Bench" "$@"
