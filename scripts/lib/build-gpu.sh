#!/usr/bin/env bash
# Builds the GPU kernel module: scripts/lib/build-gpu.sh [wasm|wasm-dev] [OUT_DIR]
#
# Writes OUT_DIR (default dist/gpu): raven_gpu.wasm, raven_gpu.js with its types,
# and gpu.json {kernel, bytes, brotli_bytes}. Pages fetch it only where the visitor
# allows the GPU and an adapter is there.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
# shellcheck source=scripts/lib/toolchain.sh
source scripts/lib/toolchain.sh

profile="${1:-wasm}"
out="${2:-dist/gpu}"
case "$profile" in
  wasm | wasm-dev) ;;
  *) say "usage: scripts/lib/build-gpu.sh [wasm|wasm-dev] [OUT_DIR]"; exit 2 ;;
esac

ensure_wasm_toolchain

# As in build-wasm.sh: no path of this machine may reach the module.
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
sysroot="$("$WASM_RUSTC" --print sysroot)"
target_dir="${CARGO_TARGET_DIR:-$root/target}/wasm"
flags=("--remap-path-prefix=$cargo_home=/cargo"
  "--remap-path-prefix=$sysroot=/rust"
  "--remap-path-prefix=$target_dir=/target")
# 0x1f separates flags, so that paths may hold spaces.
encoded="$(IFS=$'\x1f'; printf '%s' "${flags[*]}")"

# The module is small because it does little arithmetic itself: size before speed.
level="CARGO_PROFILE_$(tr a-z- A-Z_ <<<"$profile")_OPT_LEVEL=s"
strip="CARGO_PROFILE_$(tr a-z- A-Z_ <<<"$profile")_STRIP=debuginfo"
say "gpu: cargo build --profile $profile"
env -u RUSTFLAGS "$strip" "$level" CARGO_ENCODED_RUSTFLAGS="$encoded" \
  ROOT="$root" RUSTC_WRAPPER="$root/scripts/lib/rustc-remapped.sh" \
  "${WASM_CARGO[@]}" build --locked --package raven-gpu --lib --profile "$profile" \
  --target "$WASM_TARGET" --target-dir "$target_dir" "${WASM_BUILD_FLAGS[@]}"

locked="$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)"
say "gpu: glue (wasm-bindgen $locked)"
cargo build --quiet --release --locked --manifest-path wasm-worker/glue/Cargo.toml \
  --target-dir "$RAVEN_CACHE/glue-$locked"

mkdir -p "$out"
kernel_id="$("$RAVEN_CACHE/glue-$locked/release/raven-glue" \
  "$target_dir/$WASM_TARGET/$profile/raven_gpu.wasm" "$out" raven_gpu)"

node - "$out" "$kernel_id" "$profile" <<'JS'
const { readFileSync, writeFileSync } = require('node:fs');
const { brotliCompressSync, constants } = require('node:zlib');
const [, , out, kernel, profile] = process.argv;
const brotli = (file) => brotliCompressSync(file, {
  params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 },
}).length;
const module = readFileSync(`${out}/raven_gpu.wasm`);
const script = readFileSync(`${out}/raven_gpu.js`);
const description = { kernel, profile, bytes: module.length, brotli_bytes: brotli(module), script_bytes: script.length };
writeFileSync(`${out}/gpu.json`, `${JSON.stringify(description, null, 2)}\n`);
const limit = 250_000;
const verdict = description.brotli_bytes <= limit ? 'within' : 'OVER';
console.log(`gpu ${kernel.slice(0, 16)}: ${module.length} bytes, ${description.brotli_bytes} brotli (${verdict} ${limit}), script ${script.length} (${brotli(script)} brotli)`);
if (profile === 'wasm' && description.brotli_bytes > limit) process.exit(1);
JS
