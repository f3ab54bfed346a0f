#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Sourced by run.sh and test.sh: where the repository is, progress lines, packages, presets.
# Sets ROOT and JOBS.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
JOBS=$(nproc)
readonly ROOT JOBS
readonly apt_lock_timeout_s=600

# shellcheck disable=SC2034 # used by the scripts that source this one
BUILD_PACKAGES=(cmake ninja-build gcc libc6-dev pkg-config libhwloc-dev liburing-dev
    libjemalloc-dev libxdp-dev libbpf-dev)

# One line of progress.
say() {
    printf '== %s\n' "$*"
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Runs a command as root; `sudo` where we are not.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Prints those of the given packages that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        if ! dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^.i'; then
            echo "$package"
        fi
    done
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q \
        -o "DPkg::Lock::Timeout=$apt_lock_timeout_s" "$@" </dev/null
}

# Installs the packages that are missing.  Does nothing, and needs no network, if none is.
install_packages() {
    local missing package
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        say "packages: this is no Debian, so nothing is installed; needed are what Debian calls $*"
        return 0
    fi
    mapfile -t missing < <(missing_packages "$@")
    if [ ${#missing[@]} -eq 0 ]; then
        say "packages: all ${#} are there"
        return 0
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        die "missing are the packages ${missing[*]}; neither is this root nor is there a sudo:" \
            "have root run 'apt-get install ${missing[*]}'"
    fi
    say "packages: installing ${missing[*]}"
    apt_get update || say "packages: apt-get update failed, trying with the lists there are"
    if apt_get install -y --no-install-recommends "${missing[@]}"; then
        return 0
    fi
    for package in $(missing_packages "${missing[@]}"); do
        if ! apt-cache show "$package" >/dev/null 2>&1; then
            echo "error: package $package is in none of this machine's apt sources" >&2
        else
            echo "error: package $package could not be installed" >&2
        fi
    done
    die "without these packages numio cannot be built here; see apt's messages above (no network?" \
        "an old Debian? numio is built on Debian 12 or later)"
}

# configure PRESET [ARGS]: configures into build/PRESET; starts afresh where the old cache does
# not fit (the checkout moved, another compiler).
configure() {
    local preset=$1
    shift
    if (cd "$ROOT" && cmake --preset "$preset" "$@"); then
        return 0
    fi
    if [ ! -f "$ROOT/build/$preset/CMakeCache.txt" ]; then
        return 1
    fi
    say "configure: trying again without the cache of build/$preset"
    (cd "$ROOT" && cmake --preset "$preset" --fresh "$@")
}

# build PRESET [ARGS]: the targets that the preset names.
build() {
    local preset=$1
    shift
    (cd "$ROOT" && cmake --build --preset "$preset" --parallel "$JOBS" "$@")
}
