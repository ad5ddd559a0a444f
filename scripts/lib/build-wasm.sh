#!/usr/bin/env bash
# Builds the kernel module: scripts/lib/build-wasm.sh [wasm|wasm-dev] [OUT_DIR]
#
# Writes OUT_DIR (default dist/kernel): raven_kernel.wasm, raven_kernel.js with
# its types, and kernel.json {kernel, bytes, brotli_bytes}, where kernel is the
# blake3 of the module: the kernel id of the protocol.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root"
# shellcheck source=scripts/lib/toolchain.sh
source scripts/lib/toolchain.sh

profile="${1:-wasm}"
out="${2:-dist/kernel}"
case "$profile" in
  wasm | wasm-dev) ;;
  *) say "usage: scripts/lib/build-wasm.sh [wasm|wasm-dev] [OUT_DIR]"; exit 2 ;;
esac

ensure_wasm_toolchain

# No path of this machine may reach the module: two machines with one compiler
# build the same bytes. The clone's own path is the wrapper's affair.
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
sysroot="$("$WASM_RUSTC" --print sysroot)"
target_dir="${CARGO_TARGET_DIR:-$root/target}/wasm"
# Loop strength reduction rewrites addresses so that they no longer fold into the loads: a
# third of the innermost loop of a matrix product would be additions.
flags=(-C target-feature=+simd128 -C llvm-args=-disable-lsr
  "--remap-path-prefix=$cargo_home=/cargo"
  "--remap-path-prefix=$sysroot=/rust"
  "--remap-path-prefix=$target_dir=/target")
# 0x1f separates flags, so that paths may hold spaces.
encoded="$(IFS=$'\x1f'; printf '%s' "${flags[*]}")"

# burn-ndarray draws a seed at compile time unless it is given one.
say "kernel: cargo build --profile $profile"
# The list of target features, which `strip = true` removes, tells the glue
# generator what the module may use.
strip="CARGO_PROFILE_$(tr a-z- A-Z_ <<<"$profile")_STRIP=debuginfo"
env -u RUSTFLAGS "$strip" CONST_RANDOM_SEED=raven CARGO_ENCODED_RUSTFLAGS="$encoded" \
  ROOT="$root" RUSTC_WRAPPER="$root/scripts/lib/rustc-remapped.sh" \
  "${WASM_CARGO[@]}" build --locked --package raven-worker --lib --profile "$profile" \
  --target "$WASM_TARGET" --target-dir "$target_dir" "${WASM_BUILD_FLAGS[@]}"

# The glue generator must have the version that the kernel was compiled with.
locked="$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)"
if ! grep -q "wasm-bindgen-cli-support = \"=$locked\"" wasm-worker/glue/Cargo.toml; then
  say "kernel: wasm-worker/glue/Cargo.toml must pin wasm-bindgen-cli-support to =$locked"
  exit 1
fi
say "kernel: glue (wasm-bindgen $locked)"
cargo build --quiet --release --locked --manifest-path wasm-worker/glue/Cargo.toml \
  --target-dir "$RAVEN_CACHE/glue-$locked"

mkdir -p "$out"
kernel_id="$("$RAVEN_CACHE/glue-$locked/release/raven-glue" \
  "$target_dir/$WASM_TARGET/$profile/raven_worker.wasm" "$out")"

node - "$out" "$kernel_id" "$profile" <<'JS'
const { readFileSync, writeFileSync } = require('node:fs');
const { brotliCompressSync, constants } = require('node:zlib');
const [, , out, kernel, profile] = process.argv;
const brotli = (file) => brotliCompressSync(file, {
  params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 },
}).length;
const module = readFileSync(`${out}/raven_kernel.wasm`);
const script = readFileSync(`${out}/raven_kernel.js`);
const description = { kernel, profile, bytes: module.length, brotli_bytes: brotli(module), script_bytes: script.length };
writeFileSync(`${out}/kernel.json`, `${JSON.stringify(description, null, 2)}\n`);
const limit = 400_000;
const verdict = description.brotli_bytes <= limit ? 'within' : 'OVER';
console.log(`kernel ${kernel.slice(0, 16)}: ${module.length} bytes, ${description.brotli_bytes} brotli (${verdict} ${limit}), script ${script.length} (${brotli(script)} brotli)`);
// Without link-time optimisation the size says nothing about what is shipped.
if (profile === 'wasm' && description.brotli_bytes > limit) process.exit(1);
JS
