#!/usr/bin/env bash
# Compares settings of the sample with each other, on this machine: every argument is one variant, the options that the sample gets.
#
#   eng/tune.sh -p /plaintext -c 64 -- '--loops 1' '--loops 2' '--scheduling inline --Evio:Backlog 16'
#
#   -p PATH      what is asked for (/plaintext)              -c N     connections (64)
#   -n ROUNDS    measurements of each variant (5)            -d S     seconds of each (2)
#   -s CPUS      processors of the server (0)                -l CPUS  processors of the load (1), as taskset(1) takes them
#   -H HEADER    a header of the requests                    -S FILE  a script for wrk
#
# All servers run at the same time, each is measured in turn, and the table has the medians. Requests per CPU second are those of the server's own
# processor time, which other work on the machine disturbs least.
set -euo pipefail
cd "$(dirname "$0")/.."
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

path=/plaintext connections=64 rounds=5 seconds=2 server_cpus=0 load_cpus=1 wrk_options=()
while getopts 'p:c:n:d:s:l:H:S:' option; do
    case $option in
        p) path=$OPTARG ;;
        c) connections=$OPTARG ;;
        n) rounds=$OPTARG ;;
        d) seconds=$OPTARG ;;
        s) server_cpus=$OPTARG ;;
        l) load_cpus=$OPTARG ;;
        H) wrk_options+=(-H "$OPTARG") ;;
        S) wrk_options+=(-s "$OPTARG") ;;
        *) sed -n '2,12s/^# \{0,1\}//p' eng/tune.sh; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '2,12s/^# \{0,1\}//p' eng/tune.sh; exit 2; }
command -v wrk >/dev/null || { echo 'this needs wrk' >&2; exit 1; }

work=$(mktemp -d)
servers=()
trap 'for server in "${servers[@]}"; do kill -TERM "$server" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT
dotnet publish samples/WebApp -c Release -o "$work/sample" -v quiet --tl:off >&2

urls=()
for variant in "$@"; do
    log=$work/log.${#servers[@]}
    : >"$log"
    # shellcheck disable=SC2086 # a variant is several arguments
    taskset -c "$server_cpus" "$work/sample/WebApp" --urls http://127.0.0.1:0 $variant >"$log" 2>&1 &
    servers+=($!)
    for _ in {1..300}; do
        url=$(sed -n 's/.*Now listening on: //p' "$log")
        [ -z "$url" ] && kill -0 "${servers[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    [ -n "$url" ] || { cat "$log" >&2; exit 1; }
    urls+=("$url")
done

load() { # seconds url
    taskset -c "$load_cpus" wrk -t 1 -c "$connections" -d "$1" --timeout 10s --latency "${wrk_options[@]}" "$2$path"
}

ticks() { # process: user and system time, in hundredths of a second
    sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f12,13 | { read -r user system; echo $((user + system)); }
}

for url in "${urls[@]}"; do load 5 "$url" >/dev/null; done
for ((round = 0; round < rounds; round++)); do
    for ((i = 0; i < $#; i++)); do
        variant=$(((i + round) % $#))
        before=$(ticks "${servers[variant]}")
        load "$seconds" "${urls[variant]}" >"$work/wrk"
        used=$(($(ticks "${servers[variant]}") - before))
        if grep -E 'Socket errors|Non-2xx' "$work/wrk"; then echo "variant '${*:variant+1:1}' failed" >&2; exit 1; fi
        awk -v used="$used" '/requests in/ { requests = $1 } /Requests\/sec/ { rate = $2 } / 50%/ { p50 = $2 } / 99%/ { p99 = $2 }
            END { printf "%d %d %s %s\n", requests * 100 / used, rate, p50, p99 }' "$work/wrk" >>"$work/results.$variant"
    done
done

processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "$processor, $(nproc) processors, Linux $(uname -r), .NET $(dotnet --version), $(date -u +%F), load average $(cut -d' ' -f1-3 /proc/loadavg)"
echo "$path, $connections connections, server on processor $server_cpus, load on $load_cpus; medians of $rounds x $seconds s"
echo
echo '| variant | requests per CPU second | lowest and highest | requests/s | p50 | p99 |'
echo '|---|---:|---:|---:|---:|---:|'
for ((variant = 0; variant < $#; variant++)); do
    middle=$(((rounds + 1) / 2))
    column() { cut -d' ' -f"$1" "$work/results.$variant" | sort -h | sed -n "${2}p"; }
    echo "| \`${*:variant+1:1}\` | $(column 1 $middle) | $(column 1 1)–$(column 1 "$rounds") | $(column 2 $middle) | $(column 3 $middle) | $(column 4 $middle) |"
done
