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

# left_behind SIGNAL STATUS: a harness that is ended takes its guest and its files along, at once.
left_behind() {
    local pid try found=1 is_up=0 status=0 name="nothing is left after SIG$1"
    # A shell's background job ignores SIGINT, and a script cannot trap what was ignored.
    TMPDIR=$out/tmp env --default-signal=INT "$vm" --quiet --timeout 100 -- \
        sh -c 'echo up; sleep 90' >"$out/up" 2>/dev/null &
    pid=$!
    for ((try = 0; try < 600 && is_up == 0; try++)); do
        ! grep -q up "$out/up" || is_up=1
        sleep 0.1
    done
    if [ $is_up -eq 0 ]; then
        kill $pid 2>/dev/null
        wait $pid
        tell 1 "$name: the guest never said that it is up"
        return
    fi
    SECONDS=0
    kill "-$1" $pid
    wait $pid 2>/dev/null || status=$?
    for ((try = 0; try < 100 && found == 1; try++)); do
        pgrep -f "path=$out/tmp/numa-vm" >/dev/null || found=0
        [ $found -eq 0 ] || sleep 0.1
    done
    if [ "$1" != KILL ] && [ -n "$(ls -A "$out/tmp")" ]; then
        found=1
    fi
    [ $status -eq "$2" ] && [ $SECONDS -le 20 ] || found=1
    tell $found "$name (status $status, ${SECONDS} s)"
}

mkdir "$out/tmp"
"$vm" --quiet -- true || {
    if [ $? -eq 77 ]; then
        [[ ${NUMIO_REQUIRE:-} != *numa* ]] || exit 1
        exit 77
    fi
}
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
# The first QEMU only says that it has locked up; the next is a real one.
mkdir "$out/bin"
cat >"$out/bin/qemu-system-x86_64" <<END
#!/bin/bash
PATH=${PATH@Q}
if mkdir "$out/has-hung" 2>/dev/null; then
    for word; do
        [[ \$word != file,id=console,path=* ]] || console=\${word#*,path=}
    done
    echo 'watchdog: BUG: soft lockup - CPU#1 stuck for 52s! [migration/1:21]' >"\$console"
    exec sleep 300
fi
exec qemu-system-x86_64 "\$@"
END
chmod +x "$out/bin/qemu-system-x86_64"
path=$PATH
PATH=$out/bin:$PATH
expect 'a guest that locks up while booting' 0 '^up$' 'locked up while booting, once more' \
    -- echo up
PATH=$path
# Whether it gets as far as the command in these two seconds depends on the host.
expect 'a guest without time' 124 '' 'ran longer than' --timeout 1 --boot-timeout 1 -- sleep 60
expect 'an unknown topology' 125 '' "no topology 'moon'; there are: 1n 2n" --topology moon -- true
expect 'an unknown option' 125 '' 'unknown option --nosuch' --nosuch x -- true
expect 'no limit of time' 125 '' "wants seconds, not '0'" --timeout 0 -- true
expect 'an octal number' 125 '' "wants a number, not '08'" --uid 08 -- true
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
# 30,000 lines through an emulated serial line, none of them lost.
expect 'no byte is lost' 0 '' '' -- seq 1 30000
seq 1 30000 | cmp -s - "$out/stdout"
tell $? 'no byte is lost: the same to the last'
expect 'no byte is lost on stderr' 0 '^$' '' --quiet -- sh -c 'seq 1 30000 >&2'
seq 1 30000 | cmp -s - "$out/stderr"
tell $? 'no byte is lost on stderr: the same to the last'
left_behind TERM 143
left_behind INT 130
left_behind KILL 137
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
