#!/usr/bin/env bash
# Runs a coordinator for a while under small jobs and contributors that come and go, and fails where
# memory, leases, files or sockets grow. Usage: soak.sh MINUTES
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

minutes="${1:?how many minutes?}"
say "soak: $minutes minutes"
RAVEN_SOAK_MINUTES="$minutes" exec cargo test --release --locked -p raven-coordinator --test process soak:: \
    -- --ignored --nocapture
