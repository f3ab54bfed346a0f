#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Sourced by numa-vm.sh: the topologies and QEMU's command line.
# shellcheck disable=SC2154,SC2034,SC2054 # shared with numa-vm.sh; QEMU's commas

topology_names=(1n 2n 2n-smt 4n snc 2p1n memless cxl 2n-cpuset)

# describe_topology NAME: sets what build_machine() needs, and topology_text.  Fails for a name
# that there is not.
#   node_mb      memory of each node, 0 for none; those beyond `nodes` have no CPUs
#   nodes, cores nodes with CPUs, and cores in each; packages, threads: as they say
#   distances    A-B:D words; others are 20
#   cpuset       CPUS/MEMS of a cgroup around the command
describe_topology() {
    nodes=2 cores=2 packages=2 threads=1 cpuset='' distances=''
    node_mb=(400 400)
    case $1 in
        1n)
            nodes=1 packages=1 node_mb=(600)
            topology_text='one package, one node, two cores' ;;
        2n)
            distances='0-1:21'
            topology_text='two packages, a node of two cores in each' ;;
        2n-smt)
            cores=1 threads=2
            topology_text='two packages, a node of one core with two threads in each' ;;
        4n)
            nodes=4 cores=1 packages=4 node_mb=(256 256 256 256)
            distances='0-1:16 2-3:16 0-2:32 0-3:32 1-2:32 1-3:32'
            topology_text='four packages of one core, two near pairs' ;;
        snc)
            packages=1
            topology_text='one package of two nodes, two cores in each' ;;
        2p1n)
            nodes=1 cores=4 node_mb=(700)
            topology_text='two packages of two cores, one node for both' ;;
        memless)
            node_mb=(700 0)
            topology_text='two packages of two cores, the second without memory' ;;
        cxl)
            node_mb=(400 400 128) distances='0-1:21 0-2:17 1-2:28'
            topology_text='two nodes of two cores, and one of memory alone' ;;
        2n-cpuset)
            cpuset=2-3/1 distances='0-1:21'
            topology_text='two nodes of two cores, of which only the second is allowed' ;;
        *) return 1 ;;
    esac
}

list_topologies() {
    local name
    for name in "${topology_names[@]}"; do
        describe_topology "$name"
        printf '%-10s %s\n' "$name" "$topology_text"
    done
}

# Appends -numa and memory options to numa_options; sets total_mb.
describe_nodes() {
    local n per=$((cores * threads)) spec pair
    total_mb=0
    for ((n = 0; n < ${#node_mb[@]}; n++)); do
        spec=node,nodeid=$n
        # QEMU numbers threads, cores, packages: consecutive CPUs fill a node.
        [ $n -ge "$nodes" ] || spec+=,cpus=$((n * per))-$(((n + 1) * per - 1))
        if [ "${node_mb[n]}" -gt 0 ]; then
            numa_options+=(-object "memory-backend-ram,id=m$n,size=${node_mb[n]}M")
            spec+=,memdev=m$n
        fi
        numa_options+=(-numa "$spec")
        total_mb=$((total_mb + node_mb[n]))
    done
    for pair in $distances; do
        n=${pair%%:*}
        numa_options+=(-numa "dist,src=${n%%-*},dst=${n#*-},val=${pair#*:}")
    done
}

# Appends disks to disk_options; those with a node stand behind a bridge that ACPI puts there.
describe_disks() {
    local i=0 spec node bus
    local -A bridges=()
    for spec in "${disks[@]}"; do
        bus=''
        if [[ $spec == *@* ]]; then
            node=${spec#*@}
            [ "$node" -lt ${#node_mb[@]} ] || die "--nvme $spec: $topology has no node $node"
            [ -n "${bridges[$node]:-}" ] ||
                disk_options+=(-device
                    "pxb,id=pxb$node,bus=pci.0,bus_nr=$((64 + 16 * node)),numa_node=$node")
            bridges[$node]=1
            bus=,bus=pxb$node
        fi
        truncate -s "${spec%%@*}M" "$work/disk$i"
        disk_options+=(-drive "file=$work/disk$i,format=raw,if=none,id=d$i,cache=unsafe"
            -device "nvme,drive=d$i,serial=numio$i$bus")
        i=$((i + 1))
    done
}

# Sets qemu[].  Serial lines: the kernel's console, the command's stdout, how it did, its stderr.
build_machine() {
    local all_cores=$((nodes * cores)) per_package=$((nodes * cores / packages))
    local cpu=max,la57=off,erms=off,fsrm=off line
    local numa_options=() disk_options=() total_mb
    # QEMU's CPU calls itself a K8, for which Linux looks for no threads of a core.
    [ "$threads" -eq 1 ] || cpu+=,vendor=GenuineIntel
    describe_nodes
    describe_disks
    qemu=(qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -machine pc
        -accel tcg,thread=multi -cpu "$cpu"
        -smp "$((all_cores * threads)),sockets=$packages,cores=$per_package,threads=$threads"
        -m "${total_mb}M" "${numa_options[@]}" -device virtio-rng-pci "${disk_options[@]}"
        -kernel "$kernel_dir/vmlinux" -initrd "$work/initrd")
    for line in console stdout status stderr; do
        qemu+=(-chardev "file,id=$line,path=$work/$line" -serial "chardev:$line")
    done
    # What makes a boot take 3 s and not 6, and every crash end QEMU.  numa_balancing=disable keeps
    # the kernel from migrating pages that a test has just placed.
    qemu+=(-append "console=ttyS0 quiet loglevel=3 panic=-1 oops=panic nokaslr mitigations=off \
cryptomgr.notests tsc=reliable no_timer_check lpj=4000000 rcupdate.rcu_expedited=1 \
random.trust_cpu=on numa_balancing=disable ${appended[*]}")
}
