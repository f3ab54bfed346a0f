#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_xdp.sh BIN: xdp_trip measures every kind of round trip once, briefly, and writes lines as
# perf/SCENARIOS.md says.  Nothing is timed: figures are checked for being figures.
set -u
unset NUMIO_WORKERS NUMIO_DRIVER NUMIO_IDLE NUMIO_CPUS
work=$(mktemp -d "${TMPDIR:-/tmp}/run_xdp.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

timeout -s KILL 120 "$1/xdp_trip" --quick --rounds 1 --json "$work/lines" \
    >"$work/table" 2>"$work/err"
status=$?
cat "$work/err"
if [ "$status" -eq 77 ]; then
    [[ ${NUMIO_REQUIRE:-} != *xdp* ]] || exit 1
    exit 77
fi
[ "$status" -eq 0 ] || exit 1
python3 - "$work/lines" <<'PYTHON'
import json, sys

lines = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
names = {line["scenario"] for line in lines}
kinds = ("xdp_generic", "xdp_driver", "xdp_socket", "spin", "block")
assert names == {f"udp_trip_{kind}_{end}" for kind in kinds for end in ("p50", "p99")}, names
for line in lines:
    assert line["unit"] == "us" and line["n"] == 1, line
    assert 0 < line["min"] <= line["median"] <= line["max"] < 1e6, line
PYTHON
