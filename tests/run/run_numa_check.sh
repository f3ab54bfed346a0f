#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_numa_check.sh BIN: `numio numa-check` on this machine: its JSON, its words, its exit status,
# and that it tells of a worker that was moved.  What it tells of other misplacements is tried in
# guests with several nodes (tests/numa/guest_run.sh).
set -u
unset "${!NUMIO_@}"
numio=$1/numio
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "run_numa_check: $*" >&2
    failures=$((failures + 1))
}

status=0
"$numio" numa-check --json >"$work/json" || status=$?
python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
assert d["nodes"] and (int(sys.argv[2]) == 1) == bool(d["findings"]), d
for n in d["nodes"]:
    assert n["pinned"] == n["workers"] and n["sq_at_home"], n
    for kind in ("cells", "stacks", "io_buffers", "malloc"):
        assert n[kind]["home"] > 0 and n[kind]["away"] == 0, (kind, n)
    assert len(n["latency_ns"]) == len(n["gb_per_s"]) == len(d["memory_nodes"]), n
    assert any(1 < t < 10000 for t in n["latency_ns"]), n["latency_ns"]
    assert any(0.01 < t < 10000 for t in n["gb_per_s"]), n["gb_per_s"]
' "$work/json" "$status" || fail "the JSON does not say what it should"
"$numio" numa-check >"$work/text" 2>&1 || true
grep -q 'ns a dependent load' "$work/text" || fail "no latencies: $(cat "$work/text")"
if [ "$status" -eq 0 ] && ! grep -q 'Everything is where it belongs' "$work/text"; then
    fail "does not say that all is well: $(cat "$work/text")"
fi

# refused STATUS WORD ARGS...
refused() {
    local expected=$1 word=$2 text status=0
    shift 2
    text=$("$numio" numa-check "$@" 2>&1) || status=$?
    [ "$status" -eq "$expected" ] || fail "$*: exit status $status instead of $expected"
    [[ $text == *"$word"* ]] || fail "$*: does not say '$word' but: $text"
}
refused 2 'this option belongs to numio tour' --tasks 3
refused 2 'unexpected argument' nonsense
refused 1 'workers' --workers 4000

# Somebody else moves the workers as soon as they are there: every one of them is told.
if [ "$(nproc)" -ge 2 ]; then
    cpus=$(taskset -cp $$ | sed 's/.*: //')
    moved=0
    for _ in $(seq 20); do
        "$numio" numa-check >"$work/moved" 2>&1 &
        pid=$!
        for _ in $(seq 60); do
            taskset -acp "$cpus" $pid >/dev/null 2>&1
        done
        wait $pid || true
        if grep -q 'somebody changed' "$work/moved"; then
            moved=1
            break
        fi
    done
    [ $moved -eq 1 ] || fail "workers that were moved are not told: $(cat "$work/moved")"
fi
[ $failures -eq 0 ] && echo "run_numa_check: all as it should be"
exit $((failures > 0))
