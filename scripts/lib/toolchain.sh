# shellcheck shell=bash
# shellcheck disable=SC2034 # the arrays are for whoever sources this
# Finds or installs a compiler that can build for wasm32, to be sourced.
#
# After `ensure_wasm_toolchain`:
#   WASM_CARGO   array: the cargo command with the flags that the compiler needs
#   WASM_RUSTC   the compiler
#   WASM_BUILD_FLAGS  array: what `cargo build` is given
#   RAVEN_CACHE  folder for tools that outlive a clone
#
# Two ways, the first that works: the standard library from rustup, or the
# distribution's compiler with library sources that it builds itself.

# Cargo finds its home without HOME, so this does too.
: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
RAVEN_CACHE="${RAVEN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/raven}"
WASM_TARGET=wasm32-unknown-unknown

say() { printf '%s\n' "$*" >&2; }

# The standard library of the toolchain that rustup selects in this folder.
has_rustup_wasm() {
  command -v rustup >/dev/null 2>&1 || return 1
  local sysroot
  sysroot="$(rustc --print sysroot 2>/dev/null)" || return 1
  compgen -G "$sysroot/lib/rustlib/$WASM_TARGET/lib/libstd-*.rlib" >/dev/null
}

# Asks rustup once a day at most: where its server cannot be reached, the
# question takes a minute to fail.
add_rustup_wasm() {
  command -v rustup >/dev/null 2>&1 || return 1
  local marker="$RAVEN_CACHE/rustup-$WASM_TARGET-unreachable"
  if [[ -n "$(find "$marker" -mtime -1 2>/dev/null)" ]]; then
    return 1
  fi
  say "toolchain: rustup target add $WASM_TARGET"
  if timeout 60 rustup target add "$WASM_TARGET" >&2; then
    rm -f "$marker"
    return 0
  fi
  mkdir -p "$RAVEN_CACHE" && touch "$marker"
  return 1
}

# The distribution's compiler has another version than rustup's, so it brings
# its own library sources.
distribution_source() {
  [[ -x /usr/bin/rustc && -x /usr/bin/cargo ]] || return 1
  local sysroot
  sysroot="$(/usr/bin/rustc --print sysroot)" || return 1
  [[ -f "$sysroot/lib/rustlib/src/rust/library/Cargo.toml" ]]
}

install_distribution_rust() {
  command -v apt-get >/dev/null 2>&1 || return 1
  local sudo=()
  if [[ "$(id -u)" != 0 ]]; then
    command -v sudo >/dev/null 2>&1 || return 1
    sudo=(sudo)
  fi
  say "toolchain: apt-get install rustc-web cargo-web rust-web-src"
  "${sudo[@]}" apt-get update >&2 || true
  "${sudo[@]}" apt-get install -y --no-install-recommends rustc-web cargo-web rust-web-src >&2 || return 1
  # Without rustup there is no linker for wasm yet.
  wasm_linker >/dev/null || "${sudo[@]}" apt-get install -y --no-install-recommends lld >&2
}

# A linker for wasm: rustup ships one; distributions call it wasm-ld or rust-lld.
wasm_linker() {
  local sysroot host found
  if command -v rustup >/dev/null 2>&1; then
    sysroot="$(rustc --print sysroot)"
    host="$(rustc -vV | sed -n 's/^host: //p')"
    found="$sysroot/lib/rustlib/$host/bin/rust-lld"
    [[ -x "$found" ]] && { printf '%s\n' "$found"; return 0; }
  fi
  command -v rust-lld || command -v wasm-ld || compgen -c wasm-ld- | head -n 1 | grep .
}

ensure_wasm_toolchain() {
  if has_rustup_wasm || add_rustup_wasm; then
    WASM_RUSTC="$(rustup which rustc)"
    WASM_CARGO=(env RUSTC="$WASM_RUSTC" "$(rustup which cargo)")
    WASM_BUILD_FLAGS=()
    return 0
  fi
  distribution_source || install_distribution_rust || true
  if distribution_source; then
    local linker
    linker="$(wasm_linker)"
    if [[ -n "$linker" ]]; then
      WASM_RUSTC=/usr/bin/rustc
      # The library is built from source with unstable flags, which a stable
      # compiler takes only when told so.
      WASM_CARGO=(env RUSTC="$WASM_RUSTC" RUSTC_BOOTSTRAP=1
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker" /usr/bin/cargo)
      WASM_BUILD_FLAGS=('-Zbuild-std=std,panic_abort')
      return 0
    fi
  fi
  say "toolchain: no compiler for $WASM_TARGET: run 'rustup target add $WASM_TARGET',"
  say "toolchain: or install the packages rustc-web, cargo-web and rust-web-src"
  return 1
}
