# shellcheck shell=bash
# Installs what a script needs and the machine lacks. Sourced after common.sh.

NUMPY_VERSION=2.4.6
VENV="$RAVEN_CACHE/venv"
# Where Debian's dataset-fashion-mnist puts its files.
FASHION_MNIST_DIR="${RAVEN_FASHION_MNIST:-/usr/share/datasets/fashion-mnist}"

# Installs Debian packages that are missing; says what to do where it may not.
ensure_debian() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [[ ${#missing[@]} -eq 0 ]] && return 0
    if ! have apt-get; then
        say "missing: ${missing[*]} (Debian package names); install them with this system's package manager"
        return 1
    fi
    if [[ "$(id -u)" -ne 0 ]]; then
        say "missing: run 'sudo apt-get install --no-install-recommends ${missing[*]}' and try again"
        return 1
    fi
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local log="$RAVEN_CACHE/apt.log"
    # The list of packages may be missing or old on a fresh machine: it is fetched only when needed.
    if ! apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
        { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >>"$log" 2>&1 || {
            tail -5 "$log" >&2
            say "could not install ${missing[*]}; the log is $log"
            return 1
        }
    fi
}

ensure_rust() {
    have cargo || die "Rust is missing: install it from https://rustup.rs (or your system's packages), then try again"
}

ensure_node() {
    { have node && have npm; } || die "Node.js is missing: install version 20 or later with npm, then try again"
    # Vite needs what 20.19 brought.
    node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
        die "Node.js $(node --version) is too old: version 20.19 or later is needed"
}

# Sets RAVEN_CHROMIUM to a Chromium that Playwright can drive.
ensure_chromium() {
    local name
    for name in "${RAVEN_CHROMIUM:-}" chromium chromium-browser google-chrome; do
        if [[ -n "$name" ]] && have "$name"; then
            RAVEN_CHROMIUM="$(command -v "$name")"
            export RAVEN_CHROMIUM
            return 0
        fi
    done
    ensure_debian chromium || return 1
    RAVEN_CHROMIUM="$(command -v chromium)" || return 1
    export RAVEN_CHROMIUM
}

# Sets RAVEN_FIREFOX to a Firefox that speaks WebDriver BiDi; tests go without where there is none.
ensure_firefox() {
    local name
    for name in "${RAVEN_FIREFOX:-}" firefox-esr firefox; do
        if [[ -n "$name" ]] && have "$name"; then
            RAVEN_FIREFOX="$(command -v "$name")"
            export RAVEN_FIREFOX
            return 0
        fi
    done
    ensure_debian firefox-esr || return 1
    RAVEN_FIREFOX="$(command -v firefox-esr)" || return 1
    export RAVEN_FIREFOX
}

# Sets PYTHON to an interpreter with the pinned NumPy.
ensure_python() {
    have python3 || die "Python 3 is missing: install version 3.11 or later, then try again"
    PYTHON="$VENV/bin/python"
    export PYTHON
    if [[ -x "$PYTHON" ]] &&
        [[ "$("$PYTHON" -c 'import numpy; print(numpy.__version__)' 2>/dev/null)" == "$NUMPY_VERSION" ]]; then
        return 0
    fi
    say "making a Python environment with NumPy $NUMPY_VERSION in $VENV"
    # Debian keeps the venv module apart from Python.
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        ensure_debian python3-venv || return 1
    fi
    rm -rf "$VENV"
    python3 -m venv "$VENV"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "numpy==$NUMPY_VERSION"
}

# Sets RAVEN_NATIVE_PEER to an interpreter with TensorFlow; fails where it can't be had.
ensure_native_peer() {
    have python3 || return 1
    local venv="$RAVEN_CACHE/venv-peers" version=2.21.0
    export RAVEN_NATIVE_PEER="$venv/bin/python"
    if [[ ! -x "$RAVEN_NATIVE_PEER" ]] ||
        ! "$RAVEN_NATIVE_PEER" -m pip show --quiet tensorflow-cpu 2>/dev/null; then
        say "making a Python environment with TensorFlow $version in $venv"
        if ! python3 -m venv "$venv" ||
            ! "$RAVEN_NATIVE_PEER" -m pip install --quiet --disable-pip-version-check "tensorflow-cpu==$version"; then
            unset RAVEN_NATIVE_PEER
            return 1
        fi
    fi
}

# Sets FASHION_MNIST to the folder with the four files; fails where they can't be had.
ensure_fashion_mnist() {
    if [[ ! -f "$FASHION_MNIST_DIR/train-images-idx3-ubyte.gz" ]]; then
        ensure_debian dataset-fashion-mnist || return 1
    fi
    [[ -f "$FASHION_MNIST_DIR/train-images-idx3-ubyte.gz" ]] || return 1
    export FASHION_MNIST="$FASHION_MNIST_DIR"
}

# Installs a folder's npm packages exactly as its lock file says, once per lock file.
# "." is the workspace of the embed, the pages and the tests; bench has its own.
ensure_npm() {
    local folder="$ROOT/$1" stamp want
    ensure_node
    stamp="$folder/node_modules/.raven-lock"
    want="$(sha256sum <"$folder/package-lock.json" | cut -d' ' -f1)"
    [[ -f "$stamp" && "$(cat "$stamp")" == "$want" ]] && return 0
    say "npm ci in $1"
    # No package here needs an install script: esbuild's only verifies the binary that npm has placed.
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2
    printf '%s\n' "$want" >"$stamp"
}
