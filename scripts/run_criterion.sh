#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_criterion.sh PROGRAM [ARGS]: runs one Criterion program and judges its result.
# run_criterion.sh --self-test:    compiles small programs and expects the right verdicts.
#
# Two things that Criterion lets pass fail here: a program that ran no test at all (as happens
# without /proc), and a leak that LeakSanitizer finds when a test's process ends, which is after
# Criterion has noted the test as passed.  Exits with 77 when every test was skipped.
# The last line printed is `criterion: NAME passed=N failed=N skipped=N`; it is also appended to
# the file named by NUMIO_TEST_REPORT if that is set.
set -u

# A test that hangs is named by Criterion itself before CTest ends the whole program.
readonly test_timeout_s=60

# verdict NAME STATUS DIR: prints the result line of a finished program, returns the exit status.
verdict() {
    local name=$1 status=$2 dir=$3 passed failed skipped leaks
    skipped=$(grep -cE '^ok .*# SKIP' "$dir/tap")
    failed=$(grep -cE '^not ok ' "$dir/tap")
    passed=$(($(grep -cE '^ok ' "$dir/tap") - skipped))
    sed -n 's/^ok - *\(.*# SKIP.*\)/skipped: \1/p' "$dir/tap"

    leaks=$(grep -ls 'LeakSanitizer: detected' "$dir"/sanitizer.* | wc -l)
    cat "$dir"/sanitizer.* 2>/dev/null
    if [ "$leaks" -gt 0 ]; then
        echo "criterion: $leaks tests of $name passed but leak"
        passed=$((passed - leaks))
        failed=$((failed + leaks))
        status=1
    elif [ $((passed + failed + skipped)) -eq 0 ]; then
        echo "criterion: $name ran no test at all (exit status $status)"
        failed=1
        status=1
    elif [ "$failed" -gt 0 ] && [ "$status" -eq 0 ]; then
        status=1
    elif [ "$failed" -eq 0 ] && [ "$status" -ne 0 ]; then
        echo "criterion: $name exits with $status though no test failed"
        failed=1
    elif [ "$passed" -eq 0 ] && [ "$failed" -eq 0 ]; then
        status=77
    fi
    echo "criterion: $name passed=$passed failed=$failed skipped=$skipped"
    if [ -n "${NUMIO_TEST_REPORT:-}" ]; then
        echo "$name passed=$passed failed=$failed skipped=$skipped" >>"$NUMIO_TEST_REPORT"
    fi
    return "$status"
}

run() {
    local program=$1 dir status
    shift
    dir=$(mktemp -d "${TMPDIR:-/tmp}/criterion.XXXXXX") || return 2
    touch "$dir/tap"
    # --jobs 1: CTest already runs as many programs as there are CPUs.
    ASAN_OPTIONS=${ASAN_OPTIONS:-}:log_path=$dir/sanitizer \
        "$program" --jobs 1 --timeout "$test_timeout_s" --verbose=1 --tap="$dir/tap" "$@"
    status=$?
    verdict "$(basename "$program")" "$status" "$dir"
    status=$?
    rm -rf "$dir"
    return "$status"
}

# expect STATUS LINE FLAGS...: compiles the self-test's program with FLAGS and judges it.
expect() {
    local status=$1 line=$2 output rc
    shift 2
    "${CC:-cc}" "$work/demo.c" -o "$work/demo" "$@" -lcriterion || return 1
    output=$(NUMIO_TEST_REPORT='' run "$work/demo" 2>&1)
    rc=$?
    if [ "$rc" -ne "$status" ] || ! grep -qF "criterion: demo $line" <<<"$output"; then
        echo "self-test: $*: expected $status and '$line', got $rc and:"
        echo "$output"
        return 1
    fi
}

self_test() {
    local result=0
    work=$(mktemp -d)
    cat >"$work/demo.c" <<'C'
#include <stdlib.h>
#include <criterion/criterion.h>
#ifdef PASSES
Test(demo, passes) { cr_assert(1); }
#endif
#ifdef SKIPS
Test(demo, skips) { cr_skip_test("not here"); }
#endif
#ifdef FAILS
Test(demo, fails) { cr_assert(0); }
Test(demo, crashes) { abort(); }
#endif
#ifdef LEAKS
static void *volatile leak;
Test(demo, leaks) { leak = malloc(9); leak = NULL; }
#endif
#ifdef EMPTY
int main(void) { return 0; }
#endif
C
    expect 0 'passed=1 failed=0 skipped=0' -DPASSES || result=1
    expect 0 'passed=1 failed=0 skipped=1' -DPASSES -DSKIPS || result=1
    expect 77 'passed=0 failed=0 skipped=1' -DSKIPS || result=1
    expect 1 'passed=1 failed=2 skipped=0' -DPASSES -DFAILS || result=1
    expect 1 'passed=1 failed=1 skipped=0' -DPASSES -DLEAKS -fsanitize=address || result=1
    expect 1 'passed=0 failed=1 skipped=0' -DEMPTY || result=1
    rm -rf "$work"
    [ "$result" -eq 0 ] && echo "run_criterion.sh: self-test passes"
    return "$result"
}

case ${1:-} in
'')
    echo "usage: run_criterion.sh PROGRAM [ARGS] | --self-test" >&2
    exit 2
    ;;
--self-test) self_test ;;
*) run "$@" ;;
esac
