#!/usr/bin/env bash
# Builds the page into target/web: WebAssembly, the JavaScript around it, and the files of tools/web/page.
#
#   tools/web/build.sh           build, and tell the sizes
#   tools/web/build.sh --check   tell whether this machine can (exit code 0), and with what
#
# Takes the toolchain of rustup where that has (or can fetch) the target wasm32-unknown-unknown; else Debian's packages
# rustc-web, cargo-web, rust-web-src and lld, building the standard library from source. wasm-opt (binaryen) makes it smaller where it
# is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=wasm32-unknown-unknown
say() { printf '%s\n' "$*" >&2; }
has_target() { [ -d "$(rustc --print target-libdir --target $target 2>/dev/null || echo /nowhere)" ]; }
is_debian() { [ -x /usr/bin/cargo ] && [ -d /usr/lib/rustlib/src/rust/library ] && ls /usr/bin/wasm-ld* >/dev/null 2>&1; }

kind=
if has_target; then
  kind=rustup
elif is_debian; then
  kind=debian
elif command -v rustup >/dev/null && timeout 120 rustup target add $target >&2 2>/dev/null && has_target; then
  kind=rustup
elif [ "${1:-}" != --check ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq >&2
  # The newest linker: the distribution's default may be older than what the compiler writes.
  lld="$(apt-cache pkgnames lld- | grep -E '^lld-[0-9]+$' | sort -V | tail -n 1)"
  say "installing rustc-web cargo-web rust-web-src ${lld:-lld} binaryen"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustc-web cargo-web rust-web-src "${lld:-lld}" binaryen >/dev/null
  is_debian && kind=debian
fi
if [ -z "$kind" ]; then
  say "no toolchain for $target: rustup target add $target; or on Debian: apt-get install rustc-web cargo-web rust-web-src lld binaryen"
  exit 3
fi
if [ "${1:-}" = --check ]; then
  say "$kind"
  exit 0
fi

# The tool that makes the JavaScript runs here, with this machine's toolchain.
cargo build --quiet --release --locked --manifest-path tools/web/pack/Cargo.toml --target-dir target/web-pack

arguments=(build --locked --profile web --package wgpu-llm-web --target $target --target-dir target/web-build)
# Whose machine it was built on is nobody's business.
flags=(-Ctarget-feature=+simd128 "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=cargo" "--remap-path-prefix=$PWD=wgpu-llm")
CARGO_ENCODED_RUSTFLAGS="$(IFS=$'\x1f'; printf '%s' "${flags[*]}")"
export CARGO_ENCODED_RUSTFLAGS
if [ $kind = debian ]; then
  linker="$(ls /usr/bin/wasm-ld* | sort -V | tail -n 1)"
  # CARGO and the like are of the toolchain that runs the tests, where they run this. With large pages it takes a third of the time in
  # a virtual machine.
  env -u CARGO -u RUSTDOC -u RUSTUP_TOOLCHAIN -u RUSTFLAGS PATH=/usr/bin:/bin RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
    GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}" \
    CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker" \
    /usr/bin/cargo "${arguments[@]}" -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size
else
  env -u RUSTFLAGS cargo "${arguments[@]}"
fi

out=target/web
made=target/web-build/$target/web/wgpu_llm_web.wasm
mkdir -p $out
# Packing and shrinking take a minute: only where there is something new.
if [ ! -f $out/wgpu_llm_bg.wasm ] || [ $made -nt $out/wgpu_llm_bg.wasm ] || [ tools/web/build.sh -nt $out/wgpu_llm_bg.wasm ]; then
  rm -f $out/wgpu_llm_bg.wasm
  mkdir -p target/web-pack/out
  small=$made
  if command -v wasm-opt >/dev/null; then
    # Before packing: versions of Debian's age confuse the tables that packing adds.
    small=target/web-pack/small.wasm
    wasm-opt -Os --enable-simd --enable-bulk-memory --enable-sign-ext --enable-mutable-globals \
      --enable-nontrapping-float-to-int --enable-reference-types --enable-multivalue $made -o $small
  else
    say "no wasm-opt (binaryen): the page works, and is a little larger than it need be"
  fi
  target/web-pack/release/wgpu-llm-web-pack $small target/web-pack/out
  cp target/web-pack/out/wgpu_llm.js target/web-pack/out/wgpu_llm.d.ts $out/
  mv target/web-pack/out/wgpu_llm_bg.wasm $out/
fi
cp tools/web/page/* LICENSE $out/
# Its pictures are no part of the page.
grep -v "^!\[" tools/web/README.md >$out/README.md

size() { awk "BEGIN { printf \"%.2f MB\", $1 / 1000000 }"; }
wasm=$(wc -c <$out/wgpu_llm_bg.wasm)
packed=$(gzip -9c $out/wgpu_llm_bg.wasm | wc -c)
say "$out: wgpu_llm_bg.wasm $(size "$wasm"), $(size "$packed") compressed"
