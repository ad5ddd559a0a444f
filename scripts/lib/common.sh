# shellcheck shell=bash
# What every script shares: where things are, how they speak, how they fail.
# Sourced, never run.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
export ROOT
# Some service managers and containers leave HOME unset.
: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
export HOME
# Downloads and builds that outlive a clone.
export RAVEN_CACHE="${RAVEN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/raven}"

# People find cargo's output where they expect it, in the clone. Automatic runs
# get a fresh clone each time and share one folder outside of it instead.
if [[ -z "${CARGO_TARGET_DIR:-}" ]]; then
    if [[ "${CI:-}" == "true" ]]; then
        CARGO_TARGET_DIR="$RAVEN_CACHE/target"
    else
        CARGO_TARGET_DIR="$ROOT/target"
    fi
fi
export CARGO_TARGET_DIR
# Reports, screenshots and logs of test and bench runs.
export RAVEN_OUT="$ROOT/target"

mkdir -p "$RAVEN_CACHE" "$RAVEN_OUT"

say() { printf '%s\n' "$*" >&2; }

step() { printf '\n=== %s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# One digest over the names and contents of files and folders below the root.
# Build output and installed packages are left out.
digest_of() {
    (
        cd "$ROOT" || exit 1
        for path in "$@"; do
            [[ -e "$path" ]] || continue
            find "$path" \( -name node_modules -o -name target -o -name dist -o -name __pycache__ \) -prune \
                -o -type f -print0
        done | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
    )
}

# Sets SELECTION to what cargo is told to build where package $1 is wanted. Cargo
# unites features over what it builds, so that each selection compiles the
# dependencies anew: a run of all tests keeps to one, with the tests' own features
# (cargo counts these only where it builds tests too).
# shellcheck disable=SC2034 # SELECTION is for whoever calls this
select_packages() {
    if [[ "${RAVEN_ALL_TESTS:-}" == "true" ]]; then
        SELECTION=(--workspace --exclude raven-sim)
    else
        SELECTION=(-p "$1")
    fi
}

# A binary of the coordinator crate, as cargo left it.
coordinator_bin() { printf '%s/release/coordinator\n' "$CARGO_TARGET_DIR"; }
