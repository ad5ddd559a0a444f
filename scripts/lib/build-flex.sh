#!/usr/bin/env bash
# Builds a peer of the step benchmark: burn-flex with burn's autodiff, with the flags of the kernel module.
# Usage: scripts/lib/build-flex.sh     writes target/bench/flex/
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# shellcheck source=scripts/lib/toolchain.sh
source "$root/scripts/lib/toolchain.sh"
ensure_wasm_toolchain

target_dir="${CARGO_TARGET_DIR:-$root/target}/flex"
flags=(-C target-feature=+simd128 -C llvm-args=-disable-lsr --cfg 'getrandom_backend="custom"')
encoded="$(IFS=$'\x1f'; printf '%s' "${flags[*]}")"
cd "$root/bench/step/flex"
env -u RUSTFLAGS CARGO_ENCODED_RUSTFLAGS="$encoded" "${WASM_CARGO[@]}" build --release --locked \
  --target "$WASM_TARGET" --target-dir "$target_dir" "${WASM_BUILD_FLAGS[@]}" >&2

# burn has a clock and a random source of JavaScript's among its dependencies, hence the glue.
locked="$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)"
cargo build --quiet --release --locked --manifest-path "$root/wasm-worker/glue/Cargo.toml" \
  --target-dir "$RAVEN_CACHE/glue-$locked" >&2
mkdir -p "$root/target/bench/flex"
"$RAVEN_CACHE/glue-$locked/release/raven-glue" \
  "$target_dir/$WASM_TARGET/release/raven_bench_flex.wasm" "$root/target/bench/flex" flex >&2
