#!/usr/bin/env bash
# A compiler that writes /raven for the folder of this clone: cargo's RUSTC_WRAPPER for the kernel.
# As a flag of cargo's it would be part of every dependency's fingerprint, and each clone
# would compile all of them again.
compiler="$1"
shift
# First, so that the flags for folders within this one come later and win.
exec "$compiler" "--remap-path-prefix=$ROOT=/raven" "$@"
