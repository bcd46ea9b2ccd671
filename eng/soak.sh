#!/usr/bin/env bash
# Mixes verified traffic and faults against the sample, in all scheduling modes at once, and a server of hostile callbacks: eng/soak.sh MINUTES [--seed N].
# The exit code is 0 only if nothing was lost and nothing leaked.
set -euo pipefail
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
soak=$(cd "$(dirname "$0")" && pwd)/soak
dotnet build "$soak" -c Release -v quiet --tl:off >&2
exec "$soak/bin/Release/net10.0/Evio.Soak" "$@"
