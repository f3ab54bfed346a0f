#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test.sh [OPTIONS]: everything that must hold before a change is merged.  Installs the packages
# that are missing, then runs the steps below one after the other; a failed step does not stop the
# later ones.  Ends with a table and the line `N passed, N failed, N skipped`; exits with 1 if
# anything failed.
#
#   --quick       only the steps that take seconds: guards, dev build, unit tests
#   --only STEP   only this step (and what was built before); may be repeated
#   --numa-all    only the guests with several nodes, but in all nine topologies
#   --list        names the steps
#   --no-install  leaves the packages alone
# Logs lie in build/test-logs/STEP.log.  A step is a function step_NAME in test_steps.sh.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/test_steps.sh
source "$ROOT/scripts/test_steps.sh"

readonly logs=$ROOT/build/test-logs
readonly tail_lines=60
readonly skip_status=77
TEST_PACKAGES=(g++ libcriterion-dev clang clang-format shellcheck python3 git binutils gdb strace
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    curl wrk socat iproute2 qemu-system-x86 busybox-static cpio lz4 zstd xz-utils)
QUICK_STEPS=(format layers tidy shellcheck scripts build headers unit symbols)
ALL_STEPS=(format layers tidy shellcheck scripts build headers unit stress symbols asan tsan clang
    aarch64 release install numa)

usage() {
    sed -n '3,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

table=()
passed=0
failed=0
skipped=0

failures=() # what each failed step said, once more at the end

# The failed tests of a log with the end of what they said, else the log's end.
last_words() {
    if grep -q '^failed: ' "$1"; then
        sed -n '/^failed: /,$p' "$1" | head -n "$tail_lines"
    else
        tail -n "$tail_lines" "$1"
    fi
}

# Runs one step in a subshell with its output in a log; adds a row to the table.
run_step() {
    local name=$1 log=$logs/$1.log counts=$logs/$1.counts status result start words p f s
    rm -f "$counts"
    say "[$((${#table[@]} + 1))/${#steps[@]}] $name"
    start=$(date +%s)
    # No `|| status=$?` here: it would switch errexit off inside the step.
    set +e
    (
        set -e
        cd "$ROOT"
        COUNTS=$counts "step_$name"
    ) >"$log" 2>&1 </dev/null
    status=$?
    set -e
    if [ -s "$counts" ]; then
        read -r p f s <"$counts"
    elif [ "$status" -eq "$skip_status" ]; then
        p=0 f=0 s=1
    else
        p=$((status == 0)) f=$((status != 0)) s=0
    fi
    if [ "$status" -ne 0 ] && [ "$status" -ne "$skip_status" ] && [ "$f" -eq 0 ]; then
        f=1
    fi
    result=ok
    if [ "$f" -gt 0 ]; then
        result=FAILED
        words=$(last_words "$log")
        printf '%s\n' "$words"
        say "$name failed; the whole log is $log"
        failures+=("== $name, log $log"$'\n'"$words")
    elif [ "$p" -eq 0 ]; then
        result=skipped
        tail -n 1 "$log"
    elif [ "$s" -gt 0 ]; then
        grep -h '^skipped: ' "$log" || true
    fi
    passed=$((passed + p))
    failed=$((failed + f))
    skipped=$((skipped + s))
    table+=("$(printf '%-12s %7d  %-8s %6d %6d %7d' "$name" $(($(date +%s) - start)) "$result" \
        "$p" "$f" "$s")")
}

is_step() {
    declare -F "step_$1" >/dev/null
}

steps=("${ALL_STEPS[@]}")
only=()
install=yes
while [ $# -gt 0 ]; do
    case $1 in
    --quick) steps=("${QUICK_STEPS[@]}") ;;
    --numa-all)
        only+=(numa)
        export NUMA_LABELS='numa|numa-more'
        ;;
    --only)
        is_step "${2:-}" || die "--only: no step '${2:-}', see --list"
        only+=("$2")
        shift
        ;;
    --list)
        printf '%s\n' "${ALL_STEPS[@]}"
        exit 0
        ;;
    --no-install) install=no ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    shift
done
if [ ${#only[@]} -gt 0 ]; then
    steps=("${only[@]}")
fi

mkdir -p "$logs"
if [ "$install" = yes ]; then
    install_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
fi
for step in "${steps[@]}"; do
    run_step "$step"
done

if [ ${#failures[@]} -gt 0 ]; then
    printf '\n%s\n' "${failures[@]}"
fi
printf '\n%-12s %7s  %-8s %6s %6s %7s\n' step seconds result passed failed skipped
printf '%s\n' "${table[@]}"
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
