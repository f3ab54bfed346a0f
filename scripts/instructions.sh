#!/bin/bash
# SPDX-License-Identifier: MIT
# Counts the instructions of one spawn + run + join, which a noisy machine cannot disturb:
# runs a program under callgrind for N and for 2N tasks, and divides the difference by N.
# Usage: scripts/instructions.sh [--count N] [--json FILE] [--bench PROGRAM] [--driver P]
#                                [--coroutines]
#        scripts/instructions.sh [--count N] [--json FILE --runtime NAME] [--preload LIBRARY]
#                                -- PROGRAM [ARGS]   (PROGRAM ARGS N does N tasks)
# Without --coroutines: both futures and coroutines.  The driver must not be sqpoll, whose kernel
# thread would wait for a program that runs fifty times slower.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bench=$root/build/release/bin/numio-bench
count=20000
driver=epoll
flavors=(futures coroutines)
program=()
json=''
runtime=numio
preload=''

die() { echo "instructions: $*" >&2; exit 1; }

while (($#)); do
    case $1 in
        --count) count=${2:?--count wants a number}; shift 2 ;;
        --bench) bench=${2:?--bench wants a program}; shift 2 ;;
        --driver) driver=${2:?--driver wants a profile}; shift 2 ;;
        --json) json=${2:?--json wants a file}; shift 2 ;;
        --runtime) runtime=${2:?--runtime wants a name}; shift 2 ;;
        --preload) preload=${2:?--preload wants a library}; shift 2 ;;
        --coroutines) flavors=(coroutines); shift ;;
        --) shift; program=("$@"); break ;;
        -h | --help) sed -n '3,11s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) die "unknown argument $1" ;;
    esac
done
[[ $count =~ ^[1-9][0-9]*$ ]] || die "--count $count is no number"
[[ $driver != sqpoll ]] || die "--driver sqpoll cannot be counted"
command -v valgrind > /dev/null || die "no valgrind: install the Debian package valgrind"

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Instructions of one run, all threads together.
collect() {
    LD_PRELOAD=$preload \
        valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" > "$log" 2>&1 ||
        die "$(tail -n 20 "$log")"$'\n'"failed: $*"
    sed -n 's/.*Collected *: *\([0-9][0-9]*\).*/\1/p' "$log"
}

# report SCENARIO NAME PROGRAM [ARGS]
report() {
    local scenario=$1 name=$2 once twice each
    shift 2
    echo "instructions: $name, $count and $((2 * count)) tasks under callgrind ..." >&2
    once=$(collect "$@" "$count")
    twice=$(collect "$@" "$((2 * count))")
    [[ -n $once && -n $twice ]] || die "callgrind gave no total for: $*"
    each=$(((twice - once + count / 2) / count))
    echo "$name: $each instructions per spawn + run + join"
    if [[ -n $json ]]; then
        printf '{"scenario":"%s","runtime":"%s","version":"-","workers":1,"driver":"%s",' \
            "$scenario" "$runtime" "$driver" >> "$json"
        printf '"unit":"instr/op","median":%d,"mad":0,"min":%d,"max":%d,"n":1}\n' \
            "$each" "$each" "$each" >> "$json"
    fi
}

if ((${#program[@]})); then
    report instructions "${program[0]##*/}${preload:+ with ${preload##*/}}" "${program[@]}"
    exit
fi
[[ -x $bench ]] || die "no $bench: build the release preset, or give --bench"
for flavor in "${flavors[@]}"; do
    args=(--workers 1 --driver "$driver")
    scenario=instructions
    if [[ $flavor == coroutines ]]; then
        args+=(--coroutines)
        scenario=instructions_co
    fi
    report "$scenario" "numio $flavor" "$bench" "${args[@]}" --instructions
done
