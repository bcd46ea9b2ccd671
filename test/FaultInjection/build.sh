#!/bin/sh
# Builds the library: build.sh FILE
set -eu
mkdir -p "$(dirname "$1")"
exec cc -std=gnu11 -O2 -Wall -Wextra -Werror -fvisibility=hidden -shared -fPIC -pthread "$(dirname "$0")/faults.c" -o "$1"
