#!/usr/bin/env bash
# Makes the packages in artifacts/packages, and proves them: they hold what belongs there, a second build is the same byte for byte, and a new
# application that has these two packages and no other source of any runs and answers.
set -euo pipefail
cd "$(dirname "$0")/.."

export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
readonly packages=$PWD/artifacts/packages
version=$(dotnet msbuild src/Evio.Transport -getProperty:Version)
readonly version

grep -q "^## $version\b" CHANGELOG.md || { echo "CHANGELOG.md does not say what is in $version" >&2; exit 1; }

# Paths in the assemblies are those of the repository, not of this machine.
readonly build=(-c Release -p:ContinuousIntegrationBuild=true)

# From scratch: the compiler is not run again for other paths alone, so what an ordinary build has left would be packed.
dotnet build src/Evio.Transport "${build[@]}" --no-incremental

rm -rf "$packages"
for project in Evio.Transport.Native Evio.Transport; do
    dotnet pack "src/$project" "${build[@]}" --no-build -o "$packages"
done

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

server=''
work=$(mktemp -d)
readonly work
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"

# With a package cache of its own, where no package of the same version lies from before.
cat >nuget.config <<EOF
<configuration>
  <config><add key="globalPackagesFolder" value="$work/cache" /></config>
  <packageSources><clear /><add key="packed" value="$packages" /></packageSources>
</configuration>
EOF
cat >app.csproj <<EOF
<Project Sdk="Microsoft.NET.Sdk.Web">
  <PropertyGroup>
    <TargetFramework>net10.0</TargetFramework>
    <ImplicitUsings>enable</ImplicitUsings>
    <NuGetAudit>false</NuGetAudit>
  </PropertyGroup>
  <ItemGroup>
    <PackageReference Include="Evio.Transport" Version="$version" />
    <PackageReference Include="Evio.Transport.Native" Version="$version" />
  </ItemGroup>
</Project>
EOF
cat >Program.cs <<'EOF'
using Evio.Transport;

var builder = WebApplication.CreateBuilder(args);
builder.WebHost.UseEvioTransport();
var app = builder.Build();
var evio = app.Services.GetRequiredService<EvioTransportFactory>();
app.MapGet("/", () => $"{evio.Loops.Sum(loop => loop.ConnectionCount)} connection on {evio.Loops.Count} loops");
app.Run();
EOF
dotnet build -c Release -o out
grep -A 4 "\"Evio.Transport/$version\": {" obj/project.assets.json | grep -q "\"Evio.Transport.Native\": \"$version\"" \
    || { echo 'Evio.Transport does not depend on Evio.Transport.Native' >&2; exit 1; }

out/app --urls http://127.0.0.1:0 --Evio:LoopCount 3 >log 2>&1 &
server=$!
url=''
for _ in {1..300}; do
    url=$(sed -n 's/.*Now listening on: //p' log)
    [ -z "$url" ] && kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
[ -n "$url" ] || { cat log >&2; exit 1; }

answer=$(curl -sS --fail --max-time 10 "$url/") || { cat log >&2; exit 1; }
[ "$answer" = '1 connection on 3 loops' ] || { echo "the application answered '$answer'" >&2; cat log >&2; exit 1; }
kill -TERM "$server"
wait "$server" || { echo "the application ended with exit code $?" >&2; cat log >&2; exit 1; }
server=''
echo "a new application with Evio.Transport $version and Evio.Transport.Native $version: $answer"
