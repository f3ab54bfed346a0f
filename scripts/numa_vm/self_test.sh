#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# self_test.sh [--all]: what numa-vm.sh promises: statuses, streams, limits of time, clear errors,
# nothing left behind.  --all: every topology as well.  Prints `ok` and `FAILED` lines; exits with
# 77 where there can be no guest.
# shellcheck disable=SC2016 # scripts for the guest's shell
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
vm=$here/../numa-vm.sh
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0
failed=0

tell() {
    if [ "$1" -eq 0 ]; then
        echo "ok $2"
        passed=$((passed + 1))
    else
        echo "FAILED $2"
        failed=$((failed + 1))
    fi
}

# expect NAME STATUS STDOUT-RE STDERR-RE ARGS...
expect() {
    local name=$1 wanted=$2 stdout=$3 stderr=$4 status=0
    shift 4
    "$vm" "$@" >"$out/stdout" 2>"$out/stderr" </dev/null || status=$?
    if [ $status -eq "$wanted" ] && [[ $(<"$out/stdout") =~ $stdout ]] &&
        [[ $(<"$out/stderr") =~ $stderr ]]; then
        tell 0 "$name"
    else
        tell 1 "$name (status $status, wanted $wanted)"
        tail -n 15 "$out/stdout" "$out/stderr"
    fi
}

# left_behind SIGNAL: a harness that is ended takes its guest and its files along.
left_behind() {
    local pid try found=1
    TMPDIR=$out/tmp "$vm" --quiet -- sh -c 'echo up; sleep 60' >"$out/up" 2>/dev/null &
    pid=$!
    for ((try = 0; try < 600; try++)); do
        ! grep -q up "$out/up" || break
        sleep 0.1
    done
    kill "-$1" $pid
    wait $pid 2>/dev/null
    for ((try = 0; try < 100 && found == 1; try++)); do
        pgrep -f "path=$out/tmp/numa-vm" >/dev/null || found=0
        [ $found -eq 0 ] || sleep 0.1
    done
    if [ "$1" != KILL ] && [ -n "$(ls -A "$out/tmp")" ]; then
        found=1
    fi
    tell $found "nothing is left after SIG$1"
}

mkdir "$out/tmp"
"$vm" --quiet -- true || { [ $? -ne 77 ] || exit 77; }
expect 'status and both streams' 42 '^out$' 'err' -- sh -c 'echo out; echo err >&2; exit 42'
expect 'ended by a signal' 139 '' '' -- sh -c 'kill -SEGV $$'
expect 'no such command in the guest' 127 '' 'not found' -- no-such-command
expect 'words keep their blanks' 0 "^a 'b  \\\$c\$" '' -- echo "a 'b  \$c"
expect 'a command that hangs' 124 'begun' 'ran longer than 3 s' --timeout 3 -- \
    sh -c 'echo begun; sleep 60'
expect 'a kernel that crashes' 125 '' 'sysrq' -- sh -c 'echo c >/proc/sysrq-trigger; sleep 9'
expect 'a guest that goes away' 125 '' 'without saying' -- poweroff -f
expect 'a guest that does not boot' 125 '' 'once more.*did not boot' \
    --append rdinit=/none --append init=/none -- true
expect 'a guest that never boots' 124 '' 'ran longer than' --timeout 1 --boot-timeout 1 -- true
expect 'an unknown topology' 125 '' "no topology 'moon'; there are: 1n 2n" --topology moon -- true
expect 'an unknown option' 125 '' 'unknown option --nosuch' --nosuch x -- true
expect 'no command' 125 '' 'no command' --topology 2n
expect 'an unknown module' 125 '' 'no module nosuch' --module nosuch -- true
expect 'a disk on no node' 125 '' 'no node 7' --nvme 16@7 -- true
expect 'a missing program' 125 '' 'no file' --bin /nowhere/program -- true
expect 'an unknown kernel' 77 '' 'no cloud kernel 1.2' --kernel 1.2 -- true
expect 'another user, affinity, environment' 0 '^7777 v w .*0000 *3$' '' --uid 7777 --taskset 3 \
    --env 'X=v w' -- \
    sh -c 'echo $(id -u) "$X" 0000 $(sed -n "s/Cpus_allowed_list:.//p" /proc/self/status)'
expect 'a disk at its node, polled' 0 'poll=1 node=1' '' --nvme 16@1 --append nvme.poll_queues=1 \
    -- sh -c 'cd /sys/block/nvme0n1; echo poll=$(cat queue/io_poll) node=$(cat device/numa_node)'
# 300,000 lines through an emulated serial line, none of them lost.
expect 'no byte is lost' 0 '' '' -- seq 1 30000
seq 1 30000 | cmp -s - "$out/stdout"
tell $? 'no byte is lost: the same to the last'
left_behind TERM
left_behind INT
left_behind KILL
if [ "${1:-}" = --all ]; then
    for topology in $("$vm" --list | cut -d' ' -f1); do
        expect "topology $topology" 0 'nodes=' '' --topology "$topology" -- \
            sh -c 'echo nodes=$(cat /sys/devices/system/node/online)'
    done
fi
echo "numa-vm: $passed passed, $failed failed"
if [ -n "${NUMIO_TEST_REPORT:-}" ]; then
    echo "numa_vm passed=$passed failed=$failed skipped=0" >>"$NUMIO_TEST_REPORT"
fi
[ "$failed" -eq 0 ]
