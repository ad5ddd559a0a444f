#!/usr/bin/env bash
# Runs the conformance suite on everything that computes: NumPy writes what is
# expected; the native library, the module under wasmtime, in Node, Chromium and
# Firefox must agree with it, and the module with itself bit for bit everywhere.
# Usage: scripts/lib/conformance.sh
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/lib/setup.sh
source "$ROOT/scripts/lib/setup.sh"
cd "$ROOT"

ensure_rust
ensure_python || die "a Python environment with NumPy is needed"
ensure_chromium || die "a Chromium is needed"
ensure_firefox || say "no Firefox is here: it is left out"
ensure_npm .
bash scripts/build kernel

suite=target/conformance
mkdir -p "$suite"
"$PYTHON" -B tests/conformance/reference.py "$suite"
select_packages raven-conformance
cargo build --quiet --release --locked "${SELECTION[@]}" --all-targets
"$CARGO_TARGET_DIR/release/pack-conformance" "$suite"
cargo test --release --locked "${SELECTION[@]}" --test native --test module -- --include-ignored --nocapture
node tests/conformance/browser.mjs dist/kernel "$suite"
