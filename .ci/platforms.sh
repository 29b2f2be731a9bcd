#!/usr/bin/env bash
# Encodes golden tables on other processors, in qemu-user, and compares with what Python
# gave on this one: arm64, and s390x, whose numbers begin with their highest byte.
#
# It installs nothing, and says what it lacks. Needs Debian's cross compilers.
set -euo pipefail
cd "$(dirname "$0")/.."
host=${VENV:-.venv}/bin/python
out=build/platforms
mkdir -p "$out"

"$host" -m tests.golden_program "$out/golden.c"
sources=$("$host" -c 'import tomllib
libraries = tomllib.load(open("csrc/libraries.toml", "rb"))
print(*(s for s in libraries["ops"] if not s.startswith("csrc/ops/")))')

for target in aarch64-linux-gnu:qemu-aarch64 s390x-linux-gnu:qemu-s390x; do
  cc=${target%:*}-gcc
  emulator=${target#*:}
  for need in "$cc:gcc-${target%:*}" "$emulator:qemu-user"; do
    command -v "${need%:*}" >/dev/null || {
      printf 'expected the command %s - at `%s`. Run, as root: apt-get install %s\n' \
        "${need%:*}" "$0" "${need#*:}" >&2
      exit 1
    }
  done
  # shellcheck disable=SC2086 # a list of files
  "$cc" -std=c11 -O1 -Wall -Icsrc -Idin_infer/include "$out/golden.c" $sources -lm \
    -static -o "$out/golden-${target%:*}"
  printf '%s: ' "${target%:*}"
  "$emulator" "$out/golden-${target%:*}"
done
