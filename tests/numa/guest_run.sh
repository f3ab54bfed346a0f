#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs in the guest (busybox): every numa_* program of /usr/local/bin, and the tool, one after the
# other, each with a limit of time; then a line with the sums.
limit_s=$1
passed=0
failed=0
skipped=0

# run NAME COMMAND...: counts the lines that it prints; without any, its status.
run() {
    name=$1
    shift
    echo "== $name"
    timeout -s KILL "$limit_s" "$@" >/tmp/out 2>&1
    status=$?
    cat /tmp/out
    p=$(grep -c '^ok ' /tmp/out)
    f=$(grep -c '^FAILED ' /tmp/out)
    s=$(grep -c '^skipped ' /tmp/out)
    if [ "$status" -ne 0 ] && [ "$status" -ne 77 ] && [ "$f" -eq 0 ]; then
        echo "FAILED $name: exit status $status"
        f=1
    fi
    [ $((p + f + s)) -gt 0 ] || p=1
    passed=$((passed + p))
    failed=$((failed + f))
    skipped=$((skipped + s))
}

for program in /usr/local/bin/numa_*; do
    run "${program##*/}" "$program"
done
run info /usr/local/bin/numio info
run tour /usr/local/bin/numio tour --tasks 20000
echo "numa passed=$passed failed=$failed skipped=$skipped"
[ "$failed" -eq 0 ]
