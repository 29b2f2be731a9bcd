#!/usr/bin/env bash
# Builds both libraries for arm64 and runs them in qemu-user, on any Debian 12: golden
# hashes, frozen models, and the tests of the native operators (NEON).
#
# It installs nothing on the machine and says what it lacks. Debian's arm64 Python and
# the wheels are unpacked into build/arm64.
set -euo pipefail
cd "$(dirname "$0")/.."
host=${VENV:-.venv}/bin/python
arm=$PWD/build/arm64
root=$arm/root
python=3.11 # of Debian 12

lacks() {
  printf 'expected %s - at `%s`. Run, as root: %s\n' "$1" "$0" "$2" >&2
  exit 1
}

for need in aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu qemu-aarch64:qemu-user; do
  command -v "${need%:*}" >/dev/null || lacks "the command ${need%:*}" "apt-get install ${need#*:}"
done
[ -n "$(apt-cache madison "libpython$python-dev:arm64" 2>/dev/null)" ] ||
  lacks "Debian's list of arm64 packages, with Python $python" "dpkg --add-architecture arm64 && apt-get update"

if [ ! -e "$root/usr/bin/python$python" ]; then
  mkdir -p "$arm/debs" "$root"
  packages=(libc6 libgcc-s1 libstdc++6 zlib1g libbz2-1.0 liblzma5 libffi8 libexpat1 libssl3
    libcrypt1 libsqlite3-0 libuuid1 "libpython$python-minimal" "libpython$python-stdlib"
    "libpython$python-dev" "python$python-minimal")
  (cd "$arm/debs" && apt-get download -qq "${packages[@]/%/:arm64}")
  for deb in "$arm"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
fi

# the wheel of 1.32 crashes on import in qemu 7.2
wheels=(onnxruntime==1.24.1)
for name in numpy onnx pytest pytest-xdist hypothesis; do
  wheels+=("$(grep "^$name==" constraints.txt)")
done
if [ "$(cat "$arm/site/made" 2>/dev/null)" != "${wheels[*]}" ]; then
  rm -rf "$arm/site"
  "$host" -m pip install --quiet --disable-pip-version-check --target "$arm/site" \
    --only-binary :all: --python-version "$python" --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 "${wheels[@]}"
  echo "${wheels[*]}" >"$arm/site/made"
fi

# the headers of arm64 before those of this machine's Python
CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" DIN_NVCC='' \
  CFLAGS="-I$root/usr/include/python$python -I$root/usr/include" \
  SETUPTOOLS_EXT_SUFFIX=.cpython-${python/./}-aarch64-linux-gnu.so \
  "$host" setup.py --quiet build --build-lib "$arm/lib" --build-temp "$arm/temp"

emulated() {
  PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$arm/lib:$arm/site:$PWD HYPOTHESIS_PROFILE=few \
    qemu-aarch64 -L "$root" "$root/usr/bin/python$python" -uP "$@"
}

emulated .ci/check_arm64.py
# left out: tests that take minutes in emulation, and those of AMX
emulated -m pytest -q -p no:cacheprovider -o pythonpath="$arm/lib" tests/test_frozen.py \
  tests/test_ops.py -k "not 100_000 and not million and not cross_blocks and not any_shape and not bf16" "$@"
