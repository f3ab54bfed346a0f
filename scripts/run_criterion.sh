#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_criterion.sh PROGRAM [ARGS]: runs one Criterion program and judges its result.
#
# Criterion exits 0 when it ran no test at all (no /proc, or everything skipped), which must not
# pass for success: a program that reports no test, passed or skipped, fails here.  The last line
# printed is `criterion: NAME passed=N failed=N skipped=N`; it is also appended to the file named
# by NUMIO_TEST_REPORT if that is set.  Exits with 77 when every test was skipped.
set -u

# A test that hangs is named by Criterion itself before CTest ends the whole program.
readonly test_timeout_s=60

if [ $# -lt 1 ]; then
    echo "usage: run_criterion.sh PROGRAM [ARGS]" >&2
    exit 2
fi
program=$1
shift
name=$(basename "$program")
tap=$(mktemp "${TMPDIR:-/tmp}/$name.XXXXXX") || exit 2
trap 'rm -f "$tap"' EXIT

# --jobs 1: CTest already runs as many programs as there are CPUs.
"$program" --jobs 1 --timeout "$test_timeout_s" --verbose=1 --tap="$tap" "$@"
status=$?

skipped=$(grep -cE '^ok .*# SKIP' "$tap")
failed=$(grep -cE '^not ok ' "$tap")
passed=$(($(grep -cE '^ok ' "$tap") - skipped))
sed -n 's/^ok - *\(.*# SKIP.*\)/skipped: \1/p' "$tap"

line="$name passed=$passed failed=$failed skipped=$skipped"
if [ $((passed + failed + skipped)) -eq 0 ]; then
    echo "criterion: $name ran no test at all (exit status $status)" >&2
    line="$name passed=0 failed=1 skipped=0"
    status=1
elif [ "$failed" -gt 0 ] && [ "$status" -eq 0 ]; then
    status=1
elif [ "$failed" -eq 0 ] && [ "$status" -ne 0 ]; then
    echo "criterion: $name exits with $status though no test failed" >&2
    line="$name passed=$passed failed=1 skipped=$skipped"
elif [ $((passed + failed)) -eq 0 ]; then
    status=77
fi
echo "criterion: $line"
if [ -n "${NUMIO_TEST_REPORT:-}" ]; then
    echo "$line" >>"$NUMIO_TEST_REPORT"
fi
exit "$status"
