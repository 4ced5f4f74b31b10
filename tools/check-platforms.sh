#!/usr/bin/env bash
# Type-checks the program and the profiler's window for Windows and macOS, so that what is written for them (DX12's and Metal's memory,
# files, terminals) is compiled before a user does it. Nothing is linked, nothing runs. Ten minutes the first time.
#
# With rustup the targets are fetched; without, Debian's newest Rust (rustc-web, cargo-web, rust-web-src) builds the standard library
# from its source.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

check() { # TARGET
  local arguments=(check --locked --target "$1" --target-dir target/platforms -p wgpu-llm -p wgpu-llm-profiler --lib --bins)
  # C code of dependencies is not needed where nothing is linked.
  local name=${1//-/_}
  export "CC_$name=true" "AR_$name=true" "RANLIB_$name=true"
  say "$1"
  if command -v rustup >/dev/null && rustup target add "$1" 2>/dev/null; then
    cargo "${arguments[@]}"
  elif [ -x /usr/bin/cargo ] && [ -d /usr/lib/rustlib/src/rust/library ]; then
    env -u CARGO -u RUSTUP_TOOLCHAIN PATH=/usr/bin:/bin RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
      CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" /usr/bin/cargo "${arguments[@]}" -Zbuild-std=std,panic_abort
  else
    say "no Rust for $1: rustup target add $1; or on Debian: apt-get install rustc-web cargo-web rust-web-src"
    exit 3
  fi
}
check x86_64-pc-windows-gnu
check aarch64-apple-darwin
say "compiles for both"
