#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# numa-vm.sh [OPTIONS] -- COMMAND [ARGS]: runs a command inside a QEMU guest with the NUMA topology
# of your choice, streams its output, and exits as it did.
#
# Nothing is installed and no image is kept: the kernel is a Debian package that is unpacked below
# build/numa-vm, the root an initramfs of busybox, the named programs and their libraries.  The
# guest is emulated (TCG): its times say nothing.
#
#   --topology NAME      one of --list (2n)
#   --list               the topologies, and ends
#   --kernel WHICH       6.1 (default), 6.12, a Debian package's name, or a .deb
#   --bin PATH           copies a program with its libraries to /usr/local/bin; repeatable
#   --file PATH[:DEST]   copies a file or folder (DEST: the same path); repeatable
#   --env NAME=VALUE     for the command; repeatable
#   --uid N              runs it as this user
#   --taskset LIST       runs it with this affinity
#   --nvme MB[@NODE]     adds an NVMe disk, on a bus of this node; repeatable
#   --module NAME[:ARGS] loads a kernel module first; repeatable
#   --append WORDS       appends to the kernel's command line; repeatable
#   --timeout S          for the command (60)
#   --boot-timeout S     for booting and ending (90)
#   --log FILE           keeps the kernel's log there
#   --quiet              no progress on stderr
#
# COMMAND is a host's program by its path, which is copied in, or a name: of a --bin or a busybox
# applet.  Exit status: the command's, 128 + N if signal N ended it; 124 if it or the guest ran out
# of time; 125 if the guest or this script failed; 77 if the host lacks what it takes.  The last
# three are explained on stderr by a line that begins with "numa-vm:".
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root_dir=$(cd "$here/.." && pwd)
# shellcheck source=scripts/numa_vm/machine.sh
source "$here/numa_vm/machine.sh"
# shellcheck source=scripts/numa_vm/image.sh
source "$here/numa_vm/image.sh"

readonly status_timeout=124 status_broken=125 status_lacking=77
readonly boots_max=3 kill_after_s=5
cache=${NUMA_VM_CACHE:-$root_dir/build/numa-vm}
topology=2n kernel=6.1 timeout_s=60 boot_timeout_s=90 uid=0 affinity='' log_file='' is_quiet=0
bins=() files=() envs=() disks=() modules=() appended=() command=()
work='' vm_pid='' pump_pids=() vm_status=0

die() {
    printf 'numa-vm: %s\n' "$*" >&2
    exit $status_broken
}

lacking() {
    printf 'numa-vm: %s\n' "$*" >&2
    exit $status_lacking
}

progress() {
    [ $is_quiet -eq 1 ] || printf 'numa-vm: %s\n' "$*" >&2
}

usage() {
    sed -n '3,/^# three are/{s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

# No leading zero, which bash would take for octal.
is_number() {
    [[ $1 =~ ^(0|[1-9][0-9]{0,8})$ ]]
}

# Not 0 either, which timeout(1) takes for no limit.
is_limit() {
    is_number "$1" && [ "$1" -gt 0 ]
}

take() {
    case $1 in
        --topology) topology=$2 ;;
        --kernel) kernel=$2 ;;
        --bin) bins+=("$2") ;;
        --file) files+=("$2") ;;
        --env) [[ $2 == [A-Za-z_]*=* ]] || die "--env wants NAME=VALUE, not '$2'"; envs+=("$2") ;;
        --uid) is_number "$2" || die "--uid wants a number, not '$2'"; uid=$2 ;;
        --taskset) affinity=$2 ;;
        --nvme)
            [[ $2 =~ ^[0-9]{1,6}(@[0-9]{1,2})?$ ]] || die "--nvme wants MB[@NODE], not '$2'"
            disks+=("$2") ;;
        --module) modules+=("$2") ;;
        --append) appended+=("$2") ;;
        --timeout) is_limit "$2" || die "--timeout wants seconds, not '$2'"; timeout_s=$2 ;;
        --boot-timeout)
            is_limit "$2" || die "--boot-timeout wants seconds, not '$2'"
            boot_timeout_s=$2 ;;
        --log) log_file=$2 ;;
        *) die "unknown option $1; --help lists them" ;;
    esac
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            --) shift; break ;;
            -h | --help) usage; exit 0 ;;
            --list) list_topologies; exit 0 ;;
            --quiet) is_quiet=1; shift; continue ;;
            -*) [ $# -ge 2 ] || die "$1 wants a value" ;;
            *) break ;;
        esac
        take "$1" "$2"
        shift 2
    done
    [ $# -gt 0 ] || die "no command; --help says how"
    command=("$@")
    describe_topology "$topology" ||
        die "there is no topology '$topology'; there are: ${topology_names[*]}"
}

# Signals only what this script has started, by its number.
# shellcheck disable=SC2317 # reached through the trap
clean_up() {
    trap - EXIT
    if [ -n "$vm_pid" ]; then
        kill -TERM "$vm_pid" 2>/dev/null || true
        wait "$vm_pid" 2>/dev/null || true
    fi
    local pid
    for pid in "${pump_pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    [ -z "$work" ] || rm -rf "$work"
}

check_host() {
    local tool missing=()
    for tool in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio xz:xz-utils \
        lz4:lz4 zstd:zstd dpkg-deb:dpkg ldd:libc-bin setpriv:util-linux flock:util-linux; do
        [ -n "$(type -P "${tool%%:*}")" ] || missing+=("${tool#*:}")
    done
    [ ${#missing[@]} -eq 0 ] || lacking "install the Debian packages ${missing[*]}"
    [ "$(uname -m)" = x86_64 ] || lacking "the guest takes the host's programs: x86-64 is needed"
}

# start_pump NAME: copies what is written to the FIFO $work/NAME to our stdout.  Sets pump_fd, which
# holds it open for writing: the copy ends when that is closed and QEMU has ended.  Opened here, not
# by cat, which could still be waiting in open() after QEMU is gone.
start_pump() {
    local both_fd read_fd
    mkfifo "$work/$1"
    exec {both_fd}<>"$work/$1"
    exec {read_fd}<"$work/$1"
    exec {pump_fd}>"$work/$1"
    exec {both_fd}>&-
    cat <&"$read_fd" {read_fd}<&- {pump_fd}>&- &
    pump_pids+=($!)
    exec {read_fd}<&-
}

# Ends the guest if its kernel says that it has locked up before the command began; leaves a mark.
# It ends with the boot, at the latest with QEMU.
watch_boot() {
    local pid=$1
    while kill -0 "$pid" 2>/dev/null && ! has_begun; do
        if grep -qs 'BUG: soft lockup' "$work/console"; then
            : >"$work/hung"
            kill -TERM "$pid" 2>/dev/null || true
            return 0
        fi
        sleep 1
    done
}

# boot IS_WATCHED: one boot; sets vm_status to QEMU's, or to that of timeout(1).
boot() {
    local limit_s=$((timeout_s + boot_timeout_s)) started=$SECONDS
    rm -f "$work"/{console,status,stdout,stderr,hung}
    # QEMU makes what it writes to non-blocking, which would stick to our caller's pipe: it gets
    # FIFOs, and cat pumps them.
    pump_pids=()
    start_pump stdout
    local out_fd=$pump_fd
    start_pump stderr >&2
    local err_fd=$pump_fd
    # If this script is killed the kernel tells timeout, and timeout tells QEMU.
    setpriv --pdeathsig TERM timeout --kill-after=$kill_after_s \
        $limit_s "${qemu[@]}" </dev/null >"$work/qemu.log" 2>&1 {out_fd}>&- {err_fd}>&- &
    vm_pid=$!
    vm_status=0
    local watcher=''
    if [ "$1" -eq 1 ]; then
        watch_boot "$vm_pid" {out_fd}>&- {err_fd}>&- &
        watcher=$!
    fi
    wait "$vm_pid" 2>/dev/null || vm_status=$?
    vm_pid=''
    if [ -n "$watcher" ]; then
        kill "$watcher" 2>/dev/null || true
        wait "$watcher" 2>/dev/null || true
    fi
    # A QEMU that had to be killed ran out of time as well.
    if [ $vm_status -eq 137 ] && [ $((SECONDS - started)) -ge $limit_s ]; then
        vm_status=$status_timeout
    fi
    exec {out_fd}>&- {err_fd}>&-
    wait "${pump_pids[@]}" 2>/dev/null || true
    pump_pids=()
}

has_begun() {
    grep -qs '^begun$' "$work/status"
}

# A guest that died or locked up before the command began is booted again: under multi-threaded TCG
# a kernel that patches itself does so now and then (6.12: 1 boot of 80).
boot_until_begun() {
    local attempt
    for ((attempt = 1; ; attempt++)); do
        boot $((attempt < boots_max))
        if has_begun || [ $attempt -eq $boots_max ]; then
            return 0
        fi
        if [ -e "$work/hung" ]; then
            progress "the guest locked up while booting, once more"
            continue
        fi
        [ "$vm_status" -ne $status_timeout ] || return 0
        case $vm_status in
            0 | 134 | 139) progress "the guest died while booting, once more" ;;
            *) return 0 ;; # QEMU did not like its command line
        esac
    done
}

explain_death() {
    local what="the guest ended without saying how the command did (QEMU's status $vm_status)"
    has_begun || what="the guest did not boot (QEMU's status $vm_status)"
    [ "$vm_status" -ne $status_timeout ] ||
        what="the guest ran longer than $((timeout_s + boot_timeout_s)) s"
    {
        echo "numa-vm: $what"
        cat "$work/qemu.log"
        echo "numa-vm: the end of its log:"
        tail -n 80 "$work/console" 2>/dev/null | tr -d '\r' || true
    } >&2
}

main() {
    local status
    parse "$@"
    check_host
    mkdir -p "$cache"
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    work=$(mktemp -d "${TMPDIR:-/tmp}/numa-vm.XXXXXX")
    prepare_kernel
    build_image
    build_machine
    progress "booting $topology: $topology_text, Linux $kernel"
    boot_until_begun
    [ -z "$log_file" ] || tr -d '\r' <"$work/console" >"$log_file" || true
    status=$(sed -n 's/^status=\([0-9]*\)$/\1/p' "$work/status" 2>/dev/null | tail -n 1) || true
    if [ -z "$status" ]; then
        explain_death
        [ "$vm_status" -ne $status_timeout ] || exit $status_timeout
        exit $status_broken
    fi
    if grep -qs '^late$' "$work/status"; then
        echo "numa-vm: the command ran longer than $timeout_s s" >&2
    fi
    exit "$status"
}

main "$@"
