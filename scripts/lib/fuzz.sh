#!/usr/bin/env bash
# Coverage-guided fuzzing of everything that decodes bytes from a peer; needs nightly Rust and cargo-fuzz.
# Usage: scripts/lib/fuzz.sh SECONDS [TARGET ...]      (each target for that long; all of them by default)
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

seconds="${1:?usage: scripts/lib/fuzz.sh SECONDS [TARGET ...]}"
shift
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(frame message kernel graph_json graph_canonical evidence bundle)

out="$CARGO_TARGET_DIR/fuzz"
log="$RAVEN_OUT/fuzz.log"
cd "$ROOT/fuzz"
cargo run --quiet --release --example seeds --target-dir "$out" -- "$out/seeds"
# These read files with the coordinator's own code, which takes long to compile.
case " ${targets[*]} " in
    *" evidence "* | *" bundle "*)
        cargo run --quiet --release --features files --example file_seeds --target-dir "$out" -- "$out/seeds"
        ;;
esac
for target in "${targets[@]}"; do
    mkdir -p "$out/corpus/$target"
    say "fuzz $target: $seconds s"
    features=()
    case "$target" in evidence | bundle) features=(--features files) ;; esac
    if ! cargo +nightly fuzz run --fuzz-dir . --target-dir "$out" "${features[@]}" "$target" "$out/corpus/$target" "$out/seeds/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 >"$log" 2>&1; then
        tail -40 "$log" >&2
        die "fuzz target $target failed; the input is in fuzz/artifacts/$target"
    fi
    sed -n 's/^stat::number_of_executed_units: */  runs: /p; s/^stat::peak_rss_mb: */  peak MiB: /p' "$log" >&2
done
