#!/usr/bin/env bash
# Looks for inputs on which a parser does not keep what it promises, guided by the branches that inputs reach (SharpFuzz, afl-fuzz):
#
#   eng/fuzz.sh [--target TARGET] SECONDS     fuzzes TARGET, or each one, for SECONDS; targets are the folders of eng/fuzz/corpus
#   eng/fuzz.sh --replay TARGET FILE...       runs a target on inputs, as built and without afl-fuzz, and shows what does not hold
#
# The exit code is 0 if nothing was found, 1 if something was: it stays in artifacts/fuzz/found. What is mended goes to eng/fuzz/corpus,
# which the tests run.
set -euo pipefail
cd "$(dirname "$0")/.."
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
readonly out=artifacts/fuzz

usage() {
    sed -n '2,8s/^# \{0,1\}//p' eng/fuzz.sh >&2
    exit 2
}

targets=()
for folder in eng/fuzz/corpus/*/; do targets+=("$(basename "$folder")"); done
is_target() { [[ " ${targets[*]} " == *" $1 "* ]] || { echo "There is no target '$1'; there are: ${targets[*]}" >&2; exit 2; }; }

if [ "${1:-}" = --replay ]; then
    [ $# -ge 3 ] || usage
    is_target "$2"
    dotnet build eng/fuzz -c Release -v quiet --tl:off >&2
    exec eng/fuzz/bin/Release/net10.0/Evio.Fuzz replay "${@:2}"
fi

if [ "${1:-}" = --target ]; then
    [ $# -ge 2 ] || usage
    is_target "$2"
    targets=("$2")
    shift 2
fi
[ $# -eq 1 ] && [[ $1 =~ ^[1-9][0-9]{0,6}$ ]] || usage
readonly seconds=$1

missing=()
command -v dotnet >/dev/null || missing+=('dotnet: the SDK of .NET 10')
command -v afl-fuzz >/dev/null || missing+=('afl-fuzz: apt-get install --no-install-recommends afl++')
if [ ${#missing[@]} -gt 0 ]; then
    printf 'Missing: %s\n' "${missing[@]}" >&2
    exit 2
fi

rm -rf "$out/run" "$out/program"
mkdir -p "$out/run"
dotnet publish eng/fuzz -c Release -o "$out/program" -v quiet --tl:off >&2

# afl-fuzz passes over an input of the corpus that fails.
for target in "${targets[@]}"; do
    "$out/program/Evio.Fuzz" replay "$target" "eng/fuzz/corpus/$target"/* >"$out/run/$target.log" 2>&1 ||
        { cat "$out/run/$target.log" >&2; exit 1; }
done

# From here on the program tells afl-fuzz which branches it takes in what is fuzzed.
instrument() { (cd eng/fuzz && dotnet sharpfuzz "../../$out/program/$1" "${@:2}") >&2; }
(cd eng/fuzz && dotnet tool restore -v quiet) >/dev/null
instrument Evio.Transport.Native.dll Evio.Transport.Native.Callbacks.EvioAddress Evio.Transport.Native.InputStream
instrument Evio.Fuzz.dll Evio.Samples.WebApp.Native.RespCommand

# afl-fuzz would rather have another machine: core dumps that no program takes (SharpFuzz tells it of failures itself), a processor of its own, a fixed clock.
export AFL_NO_UI=1 AFL_SKIP_BIN_CHECK=1 AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1

fuzzer=''
trap '[ -z "$fuzzer" ] || kill -TERM "$fuzzer" 2>/dev/null || true' EXIT

# How many inputs target $1 has in afl-fuzz's folder $2.
count() { ls "$out/run/$1/default/$2" 2>/dev/null | grep -c '^id' || true; }

for target in "${targets[@]}"; do
    afl-fuzz -i "eng/fuzz/corpus/$target" -o "$out/run/$target" -V "$seconds" -t 5000 -m none -- "$out/program/Evio.Fuzz" fuzz "$target" \
        >"$out/run/$target.log" 2>&1 &
    fuzzer=$!
    start=$SECONDS
    while kill -0 "$fuzzer" 2>/dev/null; do
        sleep 1
        progress="$target: $((SECONDS - start)) of $seconds s, $(count "$target" queue) inputs, $(count "$target" crashes) crashes, $(count "$target" hangs) hangs"
        [ ! -t 2 ] || printf '\r\033[K%s' "$progress" >&2
    done
    [ ! -t 2 ] || printf '\r\033[K' >&2
    echo "$progress" >&2
    wait "$fuzzer" || { code=$?; cat "$out/run/$target.log" >&2; echo "$target: afl-fuzz ended with exit code $code" >&2; exit 2; }
    fuzzer=''
done

stat() { sed -n "s/^$2 *: //p" "$out/run/$1/default/fuzzer_stats"; }

echo
echo '| target | seconds | executions | per second | inputs | edges | crashes | hangs |'
echo '|---|---:|---:|---:|---:|---:|---:|---:|'
for target in "${targets[@]}"; do
    echo "| $target | $(stat "$target" run_time) | $(stat "$target" execs_done) | $(stat "$target" execs_per_sec) | $(stat "$target" corpus_count) |" \
        "$(stat "$target" edges_found) | $(stat "$target" saved_crashes) | $(stat "$target" saved_hangs) |"
done

code=0
for target in "${targets[@]}"; do
    for file in "$out/run/$target/default"/{crashes,hangs}/id*; do
        [ -e "$file" ] || continue
        # Under a name that is its own, where the next run leaves it.
        kept=$out/found/$target-$(sha1sum "$file" | cut -c1-12)
        mkdir -p "$out/found"
        cp "$file" "$kept"
        [ "$code" -ne 0 ] || printf '\nFound, and replayed by:\n\n'
        code=1
        echo "eng/fuzz.sh --replay $target $kept"
    done
done
exit "$code"
