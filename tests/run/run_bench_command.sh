#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_bench_command.sh BIN: `numio bench` runs scripts/bench.sh of its own source tree, else the
# numio-bench that is installed with it, with the arguments as they are; alone it says what it
# lacks.  Nothing is measured.
set -u
unset "${!NUMIO_@}"
numio=$1/numio
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/run_bench_command.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "run_bench_command: $*" >&2
    failures=$((failures + 1))
}

# script PATH NAME: a program that prints NAME and its arguments, one a line, and ends with 7.
script() {
    mkdir -p "$(dirname "$1")"
    printf '#!/bin/sh\necho %s\nprintf "<%%s>\\n" "$@"\nexit 7\n' "$2" >"$1"
    chmod 755 "$1"
}

# copy FOLDER: the program alone, in a folder that may be new; sets copied.
copy() {
    mkdir -p "$1"
    copied=$1/numio
    cp "$numio" "$copied"
}

# runs NAME PROGRAM: `PROGRAM bench` runs the script NAME with its arguments, and ends as it does.
runs() {
    local status
    (cd / && "$2" bench --filter 'a  b' '' --help-not '*') >"$work/out" 2>"$work/err"
    status=$?
    [ "$status" -eq 7 ] || fail "$2: status $status instead of 7: $(cat "$work/err")"
    printf '%s\n' "$1" '<--filter>' '<a  b>' '<>' '<--help-not>' '<*>' | cmp - "$work/out" ||
        fail "$2: other arguments: $(cat "$work/out")"
}

# In the source tree: the words and the status of bench.sh.
case $(realpath "$1") in
    "$(realpath "$root")"/build/*/bin)
        timeout 20 "$numio" bench --help >"$work/out" || fail "bench --help: exit status not 0"
        "$root/scripts/bench.sh" --help | cmp - "$work/out" || fail "bench --help: not bench.sh's"
        grep -q '^Usage: scripts/bench.sh' "$work/out" || fail "bench --help: no usage"
        timeout 20 "$numio" bench --nonsense >"$work/out" 2>"$work/err"
        status=$?
        "$root/scripts/bench.sh" --nonsense >"$work/out" 2>"$work/expected"
        [ "$status" -eq $? ] || fail "bench --nonsense: status $status is not bench.sh's"
        cmp "$work/expected" "$work/err" || fail "bench --nonsense: not bench.sh's words"
        grep -q 'unknown option --nonsense' "$work/err" || fail "bench --nonsense: is not named"
        ;;
    *) echo "run_bench_command: $1 is in no build folder of this tree: its bench.sh is not run" ;;
esac
grep -q "^ *numio bench " <<<"$("$numio" --help)" ||
    fail "numio --help does not list it"

# A tree that lies elsewhere, also by a link, and with a numio-bench beside.
copy "$work/a tree/build/some/bin"
touch "$work/a tree/build/some/CMakeCache.txt"
script "$work/a tree/scripts/bench.sh" tree
script "$work/a tree/build/some/bin/numio-bench" beside
runs tree "$copied"
ln -s "$copied" "$work/link"
runs tree "$work/link"

# A prefix is no source tree, even if a folder three above it has such a script.
mv "$work/a tree/build/some/CMakeCache.txt" "$work"
runs beside "$copied"
rm "$work/a tree/build/some/bin/numio-bench"
script "$work/a tree/build/some/libexec/numio/numio-bench" installed
runs installed "$copied"
"$copied" bench --quick --help >"$work/out" 2>"$work/err"
status=$?
[ "$status" -eq 7 ] || fail "installed, --help: status $status instead of 7"
grep -q 'need the source tree' "$work/out" || fail "installed, --help: no word of the source tree"
grep -qx -e '<--help>' "$work/out" || fail "installed, --help: numio-bench is not asked"
[[ $(head -n 1 "$work/out") == "There is no source tree"* ]] || fail "the note does not come first"

# What cannot be run is named.
chmod 644 "$work/a tree/build/some/libexec/numio/numio-bench"
"$copied" bench --list >"$work/out" 2>"$work/err"
status=$?
[ "$status" -eq 1 ] || fail "not executable: status $status instead of 1"
grep -q 'libexec/numio/numio-bench cannot be run: Permission denied' "$work/err" ||
    fail "not executable: says $(cat "$work/err")"

# Alone, in a folder that is empty otherwise.
copy "$work/alone"
for arguments in --help --list ''; do
    # shellcheck disable=SC2086 # none or one
    "$copied" bench $arguments >"$work/out" 2>"$work/err"
    status=$?
    [ "$status" -eq 1 ] || fail "alone, $arguments: status $status instead of 1"
    [ -s "$work/out" ] && fail "alone, $arguments: writes to stdout: $(cat "$work/out")"
    for word in "$work/alone/../../../scripts/bench.sh" "$work/alone/numio-bench" \
        "$work/alone/../libexec/numio/numio-bench" 'cmake --install' 'source tree'; do
        grep -qF "$word" "$work/err" || fail "alone, $arguments: does not name $word"
    done
done

[ "$failures" -eq 0 ] || exit 1
echo "run_bench_command: all as it should be"
