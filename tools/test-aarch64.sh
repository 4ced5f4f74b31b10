#!/usr/bin/env bash
# Tests the NEON code on a machine of another kind: builds for 64-bit ARM Linux and runs the CPU kernels' tests in qemu, as a core
# with products of small matrices of bytes, which has byte dot products too, and as one without. Half a minute, once built. On ARM itself `cargo test` does all of it.
#
# Needs: Rust with the target (rustup adds it; without rustup Debian's newest Rust is taken), a cross linker and qemu-user, which
# are installed where this user may (Debian and Ubuntu).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
target=aarch64-unknown-linux-gnu

install() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing $*"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  else
    say "missing: $*. On Debian or Ubuntu: sudo apt-get install $*"
    exit 1
  fi
}

missing=()
command -v aarch64-linux-gnu-gcc >/dev/null || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
command -v qemu-aarch64 >/dev/null || missing+=(qemu-user)
[ ${#missing[@]} = 0 ] || install "${missing[@]}"

if ! { command -v rustup >/dev/null && rustup target add "$target"; }; then
  # Not the cargo of a rustup that could not get the target.
  export PATH="/usr/bin:$PATH"
  if [ ! -d "/usr/lib/rustlib/$target" ]; then
    [ "$(id -u)" != 0 ] || dpkg --add-architecture arm64
    install rustc-web cargo-web libstd-rust-web-dev:arm64
  fi
fi

# The loader and the C library must be of one make: those of a foreign architecture's packages if there are such, else the
# cross compiler's.
qemu="qemu-aarch64"
[ -e /lib/ld-linux-aarch64.so.1 ] || qemu+=" -L /usr/aarch64-linux-gnu"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc

check() { # CPU LEVEL
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$qemu -cpu $1"
  say "qemu's CPU $1: $2"
  cargo test -p wgpu-llm --locked --no-default-features --target "$target" --lib -- simd:: quant:: ops:: cpu::
  # It says at which level it ran, which must be the one that is to be tested.
  cargo test -p wgpu-llm --locked --no-default-features --target "$target" --test ops -- --nocapture |
    awk -v level=" at $2" '{ print } level == substr($0, length($0) - length(level) + 1) { found = 1 } END { exit !found }'
}
check max neon+i8mm
check cortex-a72 neon
