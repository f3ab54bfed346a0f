#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_tour.sh BIN: the tour, short, on this machine and on a described one with two nodes, with each
# driver; a file given by path; Ctrl-C in the middle; bad input.
set -u
unset "${!NUMIO_@}"
numio=$1/numio
work=$(mktemp -d "${TMPDIR:-/tmp}/run_tour.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work
failures=0

fail() {
    echo "run_tour: $*" >&2
    failures=$((failures + 1))
}

# tour ARGS...: it ends with 0 and says so; its output is in $work/out.
tour() {
    if ! timeout 60 "$numio" tour --tasks 20000 --file-mib 2 --reads 500 "$@" \
        >"$work/out" 2>"$work/err"; then
        fail "tour $*: exit status not 0"
        cat "$work/out" "$work/err" >&2
    fi
    grep -q '^All is well' "$work/out" || fail "tour $*: does not say that all is well"
    [ -s "$work/err" ] && fail "tour $*: writes to stderr: $(cat "$work/err")"
    for step in start tasks file serve read sleep cancel shutdown; do
        grep -q "^ [^ ]* $step " "$work/out" || fail "tour $*: no step $step"
    done
}

tour
tour --topology 'pack:2 numa:1 core:2 pu:1'
grep -q '^all  ' "$work/out" || fail "no line for all nodes in the table"
tour --driver defer
tour --driver epoll
tour --workers 1
tour --idle park

# A file of an odd size; the digest is the one that sha256sum gives.
head -c 1234567 /dev/urandom >"$work/file"
tour --file "$work/file"
digest=$(sha256sum <"$work/file" | cut -c 1-16)
tr -s ' \n' ' ' <"$work/out" | grep -q "$digest" || fail "another digest than sha256sum's"
printf x >"$work/tiny"
tour --file "$work/tiny"

# A file system without O_DIRECT is read through the page cache, and that is said.
if [ -s /sys/kernel/notes ]; then
    tour --file /sys/kernel/notes
    tr -s ' \n' ' ' <"$work/out" | grep -q 'refuses O_DIRECT' || fail "no word about O_DIRECT"
fi

# What cannot be served is said, and makes the tour fail.
for bad in /nowhere /dev/null "$work"; do
    timeout 60 "$numio" tour --tasks 100 --file "$bad" >"$work/out" 2>&1 &&
        fail "--file $bad is accepted"
    grep -q 'went wrong' "$work/out" || fail "--file $bad: does not say what is wrong"
done

# A file that changes while it is served is noticed, by the client and by the readers.
head -c 64M /dev/zero >"$work/changing"
timeout 60 "$numio" tour --tasks 100 --reads 2000 --file "$work/changing" >"$work/out" 2>&1 &
pid=$!
for _ in $(seq 2000); do
    grep -q ' file ' "$work/out" && break
    sleep 0.005
done
head -c 32M /dev/zero | tr '\0' x |
    dd of="$work/changing" bs=1M seek=32 conv=notrunc iflag=fullblock status=none
wait "$pid"
status=$?
[ "$status" -eq 1 ] || fail "a changed file: exit status $status instead of 1"
grep -q 'differ from the file' "$work/out" || fail "a changed file: the readers do not notice"

# Ctrl-C ends it in good order.
timeout --foreground 60 "$numio" tour --tasks 1000000000 >"$work/out" 2>&1 &
pid=$!
for _ in $(seq 200); do
    grep -q ' start ' "$work/out" && break
    sleep 0.05
done
kill -INT "$pid" # passed on, and with --foreground once: a second one ends the tour at once
wait "$pid"
status=$?
[ "$status" -eq 130 ] || fail "interrupted: exit status $status instead of 130"
grep -q 'Interrupted' "$work/out" || fail "interrupted: does not say so"

left=$(find "$work" -name 'numio-tour-*' | wc -l)
[ "$left" -eq 0 ] || fail "$left files are left behind"

[ "$failures" -eq 0 ] || exit 1
echo "run_tour: all as it should be"
