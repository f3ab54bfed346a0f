#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_info.sh BIN: `numio info` on this machine and on described ones: exit status, valid JSON,
# what the JSON says, the drawing's width, and refusals of bad input.
set -u
unset "${!NUMIO_@}"
numio=$1/numio
machines=$(cd "$(dirname "${BASH_SOURCE[0]}")/../machines" && pwd)
failures=0

fail() {
    echo "run_info: $*" >&2
    failures=$((failures + 1))
}

# json EXPRESSION ARGS...: the JSON of `numio info ARGS` parses and EXPRESSION holds for it as d.
json() {
    local expression=$1 text
    shift
    if ! text=$("$numio" info --json "$@"); then
        fail "info --json $*: exit status not 0"
    elif ! python3 -c 'import json, sys; d = json.load(sys.stdin); assert eval(sys.argv[1]), d' \
        "$expression" <<<"$text"; then
        fail "info --json $*: does not hold: $expression"
    fi
}

# refused STATUS WORD ARGS...: exits with STATUS and names WORD on stderr.
refused() {
    local expected=$1 word=$2 text status
    shift 2
    text=$("$numio" "$@" 2>&1 >/dev/null)
    status=$?
    [ "$status" -eq "$expected" ] || fail "$*: exit status $status instead of $expected"
    [[ $text == *"$word"* ]] || fail "$*: does not say '$word' but: $text"
}

# fits WIDTH ARGS...: no line is wider; below 80 columns that goes for the boxes, not for tables.
fits() {
    local width=$1 widest
    shift
    widest=$(LC_ALL=C.UTF-8 "$numio" info --width "$width" "$@" |
        python3 -c 'import sys
print(max(len(l.rstrip("\n")) for l in sys.stdin if int(sys.argv[1]) >= 80 or l[0] in "│┌└"))' \
            "$width")
    [ "$widest" -le "$width" ] || fail "info --width $width $*: a line of $widest columns"
}

json 'd["version"] and d["topology"]["cores"] and not d["topology"]["emulated"]'
json 'len(d["runtime"]["workers"]) >= 1 and d["error"] is None'
json 'len(d["runtime"]["workers"]) == 1' --workers 1
json 'd["runtime"]["driver"] == "epoll" and d["asked"]["driver"] == "epoll"' --driver epoll
json 'd["runtime"]["idle"] == "park"' --idle park

two_by_four='pack:2 numa:1 core:4 pu:1'
json 'len(d["runtime"]["nodes"]) == 2 and len(d["topology"]["cores"]) == 8' \
    --topology "$two_by_four"
json 'd["topology"]["emulated"] and len(d["distances"] if "distances" in d else
      d["topology"]["distances"]) == 2' --topology "$two_by_four"
json 'all(w["node"] == c["node"] for c in d["topology"]["cores"] for p in c["pus"]
      if p["worker"] is not None for w in [d["runtime"]["workers"][p["worker"]]])' \
    --topology "$two_by_four"
json 'len(d["runtime"]["nodes"]) == 4' --topology 'pack:1 l3:4 core:2 pu:1' --shard-by l3
json 'len(d["reasons"]) >= 1' --topology "$two_by_four"
for machine in "$machines"/*.xml; do
    json 'd["runtime"]["nodes"] and d["error"] is None' --topology "$machine"
done

for width in 40 80 132; do
    fits "$width" --topology 'pack:2 numa:2 l3:2 core:4 pu:2'
    fits "$width" --topology 'pack:1 core:1 pu:1'
    fits "$width" --topology 'pack:4 numa:1 core:16 pu:2'
done
if "$numio" info --ascii --topology "$two_by_four" | LC_ALL=C grep -q '[^ -~]'; then
    fail "info --ascii prints other characters"
fi
if LC_ALL=C.UTF-8 "$numio" info | grep -q $'\033'; then
    fail "info prints colours into a pipe"
fi

# json_error WORD ARGS...: exits with 1, and the JSON's error names WORD.
json_error() {
    local word=$1 text status
    shift
    text=$("$numio" info --json "$@" 2>/dev/null)
    status=$?
    [ "$status" -eq 1 ] || fail "info --json $*: exit status $status instead of 1"
    python3 -c 'import json, sys; d = json.load(sys.stdin)
assert d["version"] and d["error"]["number"] < 0 and sys.argv[1] in d["error"]["detail"], d' \
        "$word" <<<"$text" || fail "info --json $*: no JSON whose error names '$word': $text"
}

json_error 'topology' --topology 'nonsense'
json_error 'No such file' --topology /nowhere/machine.xml
json_error 'workers' --workers 4000

refused 2 'say what to do'
refused 2 'no such command' nonsense
refused 2 'unexpected argument' info nonsense
refused 2 'numio info' tour --json
refused 2 'numio tour' info --tasks 3
refused 2 'number from' info --width 3
refused 1 'topology' info --topology 'nonsense'
refused 1 'No such file' info --topology /nowhere/machine.xml
refused 2 'NUMIO_DRIVER' info --driver nonsense
refused 2 'NUMIO_SHARD_BY' info --shard-by nonsense
refused 1 'workers' info --workers 4000
refused 1 'cpus' info --cpus 4095

[ "$("$numio" --version)" = "$("$numio" -V)" ] || fail "--version and -V differ"
"$numio" --help | grep -q -- --topology || fail "--help does not name --topology"
"$numio" info >/dev/full 2>/dev/null && fail "a full disk is not an error"

[ "$failures" -eq 0 ] || exit 1
echo "run_info: all as it should be"
