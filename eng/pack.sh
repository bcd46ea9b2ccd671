#!/usr/bin/env bash
# Makes the packages in artifacts/packages, and proves them: they hold what belongs there, a second build is the same byte for byte, and new
# applications, made of the templates with these packages and no other source of any, run and answer. With --quick it only makes them.
set -euo pipefail
cd "$(dirname "$0")/.."

export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
readonly packages=$PWD/artifacts/packages
version=$(dotnet msbuild src/Evio.Transport -getProperty:Version)
readonly version

grep -q "^## $version\b" CHANGELOG.md || { echo "CHANGELOG.md does not say what is in $version" >&2; exit 1; }

case "$*" in
    '') quick='' ;;
    --quick) quick=true ;;
    *) echo "usage: $0 [--quick]" >&2; exit 2 ;;
esac

# Paths in the assemblies are those of the repository, not of this machine.
readonly build=(-c Release -p:ContinuousIntegrationBuild=true)

# From scratch: the compiler is not run again for other paths alone, so what an ordinary build has left would be packed.
dotnet build src/Evio.Transport "${build[@]}" --no-incremental

rm -rf "$packages"
for project in Evio.Transport.Native Evio.Transport; do
    dotnet pack "src/$project" "${build[@]}" --no-build -o "$packages"
done
dotnet pack templates "${build[@]}" -o "$packages"
[ -z "$quick" ] || exit 0

# Fails unless package $1 has each of the files after it.
must_hold() {
    local package=$packages/$1 file files
    files=$(unzip -Z1 "$package")
    for file in "${@:2}"; do
        grep -qxF "$file" <<<"$files" || { echo "$1 has no $file" >&2; exit 1; }
    done
}

for project in Evio.Transport.Native Evio.Transport; do
    must_hold "$project.$version.nupkg" "lib/net10.0/$project.dll" "lib/net10.0/$project.xml" README.md CHANGELOG.md LICENSE icon.png
    must_hold "$project.$version.snupkg" "lib/net10.0/$project.pdb"

    nuspec=$(unzip -p "$packages/$project.$version.nupkg" "$project.nuspec")
    for entry in '<license type="expression">MIT</license>' '<icon>icon.png</icon>' '<readme>README.md</readme>' "<repository type=\"git\""; do
        grep -qF "$entry" <<<"$nuspec" || { echo "$project.nuspec has no $entry" >&2; exit 1; }
    done
    ! grep 'dependency id=' <<<"$nuspec" | grep -v 'id="Evio.Transport.Native"' || { echo "$project has a dependency that it must not have" >&2; exit 1; }
done

# Once more: the same input must give the same assemblies.
dotnet build src/Evio.Transport "${build[@]}" --no-incremental
for project in Evio.Transport.Native Evio.Transport; do
    unzip -p "$packages/$project.$version.nupkg" "lib/net10.0/$project.dll" | cmp - "src/$project/bin/Release/net10.0/$project.dll"
    ! grep -q "$PWD" "src/$project/bin/Release/net10.0/$project.dll" || { echo "$project.dll knows where it was built" >&2; exit 1; }
done

must_hold "Evio.Transport.Templates.$version.nupkg" content/evio-{web/EvioWeb1,tcp/EvioTcp1}.csproj content/evio-{web,tcp}/{Program.cs,.template.config/template.json} \
    README.md LICENSE icon.png

server=''
work=$(mktemp -d)
readonly work
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"

# With a home and a cache of their own, where no template and no package of the same version lies from before.
export DOTNET_CLI_HOME=$work/home DOTNET_GENERATE_ASPNET_CERTIFICATE=false
cat >nuget.config <<EOF
<configuration>
  <config><add key="globalPackagesFolder" value="$work/cache" /></config>
  <packageSources><clear /><add key="packed" value="$packages" /></packageSources>
</configuration>
EOF
dotnet new install "$packages/Evio.Transport.Templates.$version.nupkg"

# Makes an application of template $1 with the options after it, and builds it.
make() {
    dotnet new "$1" -o "$1" "${@:2}"
    dotnet build "$1" -c Release -o "$1/out" -warnaserror
}

# Starts template $1's application with the arguments from the third on; $address is what stands behind $2 in its log.
start() {
    # There before the application is, which the loop below does not wait for.
    : >log
    "$1/out/$1" "${@:3}" >log 2>&1 &
    server=$!
    address=''
    for _ in {1..300}; do
        address=$(sed -n "s/.*$2//p" log)
        [ -z "$address" ] && kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    [ -n "$address" ] || fail "$1 does not listen"
}

fail() {
    echo "$1" >&2
    cat log >&2
    exit 1
}

make evio-web --scheduling Adaptive
grep -A 4 "\"Evio.Transport/$version\": {" evio-web/obj/project.assets.json | grep -q "\"Evio.Transport.Native\": \"$version\"" \
    || { echo 'Evio.Transport does not depend on Evio.Transport.Native' >&2; exit 1; }
start evio-web 'Now listening on: ' --contentRoot "$work/evio-web" --urls http://127.0.0.1:0 --Evio:LoopCount 3 --Logging:LogLevel:Evio.Transport Debug
grep -q '3 event loops started: LeastConnections, Adaptive' log || fail 'the loops are not those that were asked for'
answer=$(curl -sS --fail --max-time 10 "$address/") || fail 'evio-web does not answer'
[[ $answer =~ ^'Hello from loop '[012]$ ]] || fail "evio-web answered '$answer'"
kill -TERM "$server"
wait "$server" || fail "evio-web ended with exit code $?"
server=''
echo "evio-web with Evio.Transport $version: $answer"

make evio-tcp
start evio-tcp 'serving ' tcp://127.0.0.1:0
exec {tcp}<>"/dev/tcp/${address%:*}/${address#*:}"
printf 'hello\n' >&"$tcp"
read -r -t 10 -u "$tcp" answer || fail 'evio-tcp does not answer'
[ "$answer" = '5 bytes' ] || fail "evio-tcp answered '$answer'"
echo "evio-tcp with Evio.Transport.Native $version: $answer"
