#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_bench.sh BIN: numio-bench lists its scenarios, all of them documented, runs a few short ones
# and writes lines as perf/SCENARIOS.md says; scripts/bench.sh makes tables of them and of I/O, with
# those peers whose packages are there.  Nothing is timed: figures are checked for being figures.
set -u
unset "${!NUMIO_@}"
bin=$1
bench=$bin/numio-bench
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/run_bench.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work
failures=0

fail() {
    echo "run_bench: $*" >&2
    failures=$((failures + 1))
}

# refused WORD ARGS...: ends with 2 and names WORD on stderr.
refused() {
    local word=$1 text status
    shift
    text=$("$bench" "$@" 2>&1 >/dev/null)
    status=$?
    [ "$status" -eq 2 ] || fail "$*: exit status $status instead of 2"
    [[ $text == *"$word"* ]] || fail "$*: does not say '$word' but: $text"
}

"$bench" --quick --filter '^coroutine_switch$' --json "$work/first" >/dev/null 2>"$work/err"
if grep -q 'measure a release build' "$work/err"; then
    echo "run_bench: skipped: numio-bench measures release builds only"
    exit 77
fi

# Each scenario that is listed is described, and each that a target names is listed.
"$bench" --list >"$work/list"
[ -s "$work/list" ] || fail "--list lists nothing"
python3 - "$work/list" "$root/perf" <<'PYTHON' || fail "see above"
import re, sys

listed = open(sys.argv[1], encoding="utf-8").read().split()
described = set()
for page, part in (("SCENARIOS.md", "# "), ("README.md", "## Scenarios that only")):
    text = open(f"{sys.argv[2]}/{page}", encoding="utf-8").read()
    text = text[text.index(part):]
    if part.startswith("## "):
        text = text[:text.index("\n## ")]
    described |= set(re.findall(r"`([a-z0-9_*]+)`", text))
    for first, rest in re.findall(r"`([a-z0-9_]+)`((?:, `_\w+`)+)", text):
        base = first[:first.rfind("_")]
        described |= {base + end for end in re.findall(r"`(_\w+)`", rest)}
names = {re.sub("_(co|raw)$", "", name) for name in listed}
unknown = sorted(n for n in names if n not in described)
assert not unknown, f"neither SCENARIOS.md nor README.md describes {unknown}"
targets = [line.split()[0] for line in open(f"{sys.argv[2]}/targets.tsv", encoding="utf-8")
           if line.strip() and not line.startswith("#")]
# What bench.sh itself makes of scenarios: variants, echo rows, and what is counted.
known = set(listed) | {name + "_spin" for name in listed} | {"instructions"}
stray = sorted(t for t in set(targets) if t not in known and not t.startswith("tcp_echo_"))
assert not stray, f"targets.tsv names {stray}, which numio-bench does not have"
PYTHON

few='^(spawn_join_10k|chained_spawn|yield_many|file_read_cached_qd1)(_co|_raw)?$'
few+='|^(notify_pingpong|xthread_pingpong|remote_wake|spawn_blocking|coroutine_switch)$'
few+='|^idle_task_bytes$'
[ "$(nproc)" -lt 2 ] || few+='|^udp_echo_(block|spin)_p(50|99)$'
timeout 120 "$bench" --quick --rounds 2 --filter "$few" --json "$work/lines" \
    >"$work/out" 2>"$work/err" || fail "numio-bench: status $?: $(cat "$work/err")"
timeout 60 "$bench" --quick --rounds 1 --filter '^skynet$' --workers 1 --driver epoll \
    --json "$work/lines" >>"$work/out" 2>"$work/err" ||
    fail "numio-bench --driver epoll: status $?: $(cat "$work/err")"
timeout 60 "$bench" --quick --rounds 1 --filter '^skynet_co$' \
    --topology 'pack:2 numa:1 core:2 pu:1' --json "$work/lines" >>"$work/out" 2>"$work/err" ||
    fail "numio-bench --topology: status $?: $(cat "$work/err")"
python3 - "$work/lines" "$work/list" "$few|^skynet(_co)?\$" <<'PYTHON' || fail "see above"
import json, re, sys

lines = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
wanted = {n for n in open(sys.argv[2], encoding="utf-8").read().split()
          if re.search(sys.argv[3], n)}
assert {line["scenario"] for line in lines} == wanted, wanted
for line in lines:
    assert set(line) == {"scenario", "runtime", "version", "workers", "driver", "unit",
                         "median", "mad", "min", "max", "n"}, line
    assert 0 < line["min"] <= line["median"] <= line["max"] and line["mad"] >= 0, line
    assert line["n"] in (1, 2), line
assert any(line["driver"] == "epoll" for line in lines), lines
PYTHON

refused 'number' --rounds 0
refused 'number' --rounds many
refused 'driver' --driver nonsense
refused '--help' --nonsense
"$bench" --filter '^no_such_scenario$' >/dev/null 2>"$work/err" &&
    fail "a filter that nothing matches is no error"

# bench.sh: a table with the echo rows, and the JSON of all that it shows.
peers=none
if dpkg-query -W librust-tokio-dev >/dev/null 2>&1 &&
    { command -v cargo >/dev/null || [ -x "${HOME:-/}/.cargo/bin/cargo" ]; }; then
    peers=tokio
else
    echo "run_bench: without Tokio: cargo and librust-tokio-dev are not both there"
fi
if command -v go >/dev/null; then
    peers="${peers#none} go"
else
    echo "run_bench: without Go: golang-go is not there"
fi
echo_row=
[ "$(nproc)" -lt 2 ] || echo_row='|^tcp_echo_1$'
timeout 150 "$root/scripts/bench.sh" --quick --peers "$peers" --no-install --numio "$bench" \
    --filter "^(spawn_join_10k|mutex_uncontended)\$$echo_row" --rounds 1 --samples 1 --workers 1 \
    --json "$work/table.json" >"$work/table" 2>"$work/err" ||
    fail "bench.sh: status $?: $(tail -n 20 "$work/err" "$work/table")"
grep -q '^spawn_join_10k_co .*ns/op' "$work/table" || fail "bench.sh: no row of coroutines"
[ -z "$echo_row" ] || grep -q '^tcp_echo_1_p99 .*us ' "$work/table" || fail "bench.sh: no echo row"
for peer in ${peers#none}; do
    grep -q "\"scenario\": \"mutex_uncontended\", \"runtime\": \"$peer\"" "$work/table.json" ||
        fail "bench.sh: no $peer"
done

# --io: rows of TCP, UDP and files in one table, beside the peers that can be built here; those that
# cannot be are named with the reason.
if [ "$(nproc)" -ge 2 ]; then
    io_rows='^(tcp_echo_1|udp_echo_spin|file_read_cached_qd1)(_raw|_p50|_p99)?$'
    timeout 150 "$root/scripts/bench.sh" --io --quick --peers "libuv go" --no-install \
        --numio "$bench" --filter "$io_rows" --rounds 1 --json "$work/io.json" \
        >"$work/io" 2>"$work/err" || fail "bench.sh --io: $(tail -n 20 "$work/err" "$work/io")"
    for row in 'tcp_echo_1 .*req/s' 'tcp_echo_1_cpu .*us/req' 'tcp_echo_1_spin_p50 .*<=27' \
        'udp_echo_spin_p50 .* us .* floor ' 'file_read_cached_qd1 .*liburing'; do
        for driver in sqpoll defer; do
            grep -Eq "^${row/ / +1 +$driver }" "$work/io" ||
                fail "bench.sh --io: no '$row', $driver"
        done
    done
    grep -q '_p999 ' "$work/io" && fail "bench.sh --io: shows p999"
    python3 - "$work/io.json" "$work/io" <<'PYTHON' || fail "see above"
import json, sys

lines = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
table = open(sys.argv[2], encoding="utf-8").read()
measured = {line["runtime"] for line in lines if line["scenario"] == "tcp_echo_1"}
assert {"numio", "epoll"} <= measured, measured
for peer in ("libuv", "go"):
    assert (peer in measured) != (f"Note: {peer} skipped: " in table), (peer, measured)
spinning = {line["runtime"] for line in lines if line["scenario"] == "tcp_echo_1_spin"}
assert spinning == {"numio", "epoll"}, spinning
PYTHON
fi
# Without what they are built with, peers are skipped and older programs of theirs go.
mkdir -p "$work/peers" "$work/tools"
touch "$work/peers/go-peer" "$work/peers/tokio-peer"
for tool in bash dirname mkdir rm find sort tail; do
    ln -s "$(command -v "$tool")" "$work/tools/$tool"
done
PATH=$work/tools NUMIO_CRATES=$work "$work/tools/bash" "$root/perf/peers/build.sh" "$work/peers" \
    >"$work/out" 2>"$work/err" || fail "peers/build.sh does not skip but: $(cat "$work/err")"
for peer in tokio libuv go; do
    grep -q "^peers: $peer skipped: .*Debian package" "$work/err" ||
        fail "peers/build.sh: $peer: no reason"
done
[ -z "$(ls "$work/peers")" ] || fail "peers/build.sh leaves old programs: $(ls "$work/peers")"
"$root/perf/peers/build.sh" "$work/peers" nobody 2>"$work/err" && fail "build.sh nobody is accepted"
grep -q 'no peer is called nobody' "$work/err" || fail "build.sh nobody: does not say what is wrong"
"$root/scripts/bench.sh" --no-install --peers nobody >/dev/null 2>"$work/err" &&
    fail "bench.sh --peers nobody is accepted"
grep -q 'not nobody' "$work/err" || fail "bench.sh --peers nobody: does not say what is wrong"
"$root/scripts/bench.sh" --no-install --rounds no >/dev/null 2>"$work/err" &&
    fail "bench.sh --rounds no is accepted"
grep -q 'no count' "$work/err" || fail "bench.sh --rounds no: does not say what is wrong"

[ "$failures" -eq 0 ] || exit 1
echo "run_bench: all as it should be"
