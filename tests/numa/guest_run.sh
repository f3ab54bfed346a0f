#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs in the guest (busybox): every numa_* program of /usr/local/bin, and the tool, one after the
# other, each with a limit of time; then a line with the sums.
export NUMIO_SPOIL_MACHINE=1 # CPUs may be unplugged here
limit_s=$1
passed=0
failed=0
skipped=0
failures=/tmp/failures # what has failed, once more at the end
: >"$failures"

# run NAME COMMAND...: counts the lines that it prints; without any, its status.  A program numa_*
# that ends well without a line has looked at nothing: a failure.
run() {
    name=$1
    shift
    echo "== $name"
    timeout -s KILL "$limit_s" "$@" >/tmp/out 2>&1
    status=$?
    cat /tmp/out
    grep '^FAILED ' /tmp/out | sed "s/^/$name: /" >>"$failures"
    p=$(grep -c '^ok ' /tmp/out)
    f=$(grep -c '^FAILED ' /tmp/out)
    s=$(grep -c '^skipped ' /tmp/out)
    if [ "$status" -ne 0 ] && [ "$status" -ne 77 ] && [ "$f" -eq 0 ]; then
        echo "FAILED $name: exit status $status" | tee -a "$failures"
        f=1
    fi
    if [ $((p + f + s)) -eq 0 ]; then
        case $status:$name in
            77:*) s=1 ;;
            *:numa_*)
                echo "FAILED $name: it checked nothing" | tee -a "$failures"
                f=1 ;;
            *) p=1 ;;
        esac
    fi
    passed=$((passed + p))
    failed=$((failed + f))
    skipped=$((skipped + s))
}

for program in /usr/local/bin/numa_*; do
    run "${program##*/}" "$program"
done
run info /usr/local/bin/numio info
run tour /usr/local/bin/numio tour --tasks 20000
run numa-check /usr/local/bin/numio numa-check

# Memory of the last node alone is allowed to the workers of all: numa-check must say so, and how.
misplaced() {
    cgroup=/sys/fs/cgroup/misplaced
    nodes=$(cat /sys/devices/system/node/has_memory)
    last=${nodes##*[-,]}
    if [ "$last" = "$nodes" ]; then
        echo "skipped a wrong cpuset is told: there is one node with memory"
        return 77
    fi
    echo +cpuset >/sys/fs/cgroup/cgroup.subtree_control
    mkdir -p $cgroup
    cat /sys/devices/system/cpu/online >$cgroup/cpuset.cpus
    echo "$last" >$cgroup/cpuset.mems
    sh -c "echo \$\$ >$cgroup/cgroup.procs && exec /usr/local/bin/numio numa-check" >/tmp/told
    status=$?
    cat /tmp/told
    if [ $status -eq 1 ] && grep -q 'cpuset.mems' /tmp/told; then
        echo "ok a wrong cpuset is told"
    else
        echo "FAILED a wrong cpuset is told: exit status $status"
        return 1
    fi
}
if grep -q '^0::/$' /proc/self/cgroup; then
    echo "== misplaced"
    misplaced >/tmp/out
    cat /tmp/out
    grep '^FAILED ' /tmp/out >>"$failures"
    passed=$((passed + $(grep -c '^ok ' /tmp/out)))
    failed=$((failed + $(grep -c '^FAILED ' /tmp/out)))
    skipped=$((skipped + $(grep -c '^skipped ' /tmp/out)))
fi
cat "$failures"
echo "numa passed=$passed failed=$failed skipped=$skipped"
[ "$failed" -eq 0 ]
