#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Sourced by numa-vm.sh: the guest's kernel and its root file system.
# shellcheck disable=SC2154,SC2034,SC2054 # shared with numa-vm.sh; QEMU's commas

readonly lock_timeout_s=300 # what a download may take

# The newest Debian cloud kernel of a series: 6.1 -> linux-image-6.1.0-56-cloud-amd64.
newest_package() {
    local meta package
    for meta in "linux-image-$1-cloud-amd64" linux-image-cloud-amd64; do
        package=$(apt-cache depends "$meta" 2>/dev/null |
            sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
        if [[ $package == linux-image-"$1".* ]]; then
            echo "$package"
            return 0
        fi
    done
    return 1
}

# vmlinuz FILE OUT: unpacks the ELF kernel, which QEMU starts at once; offsets are those of the x86
# boot protocol (Documentation/arch/x86/boot.rst); the payload ends with its unpacked size.
unpack_kernel() {
    local sectors offset bytes magic unpack
    sectors=$(od -An -tu1 -j $((0x1f1)) -N 1 "$1")
    offset=$(od -An -tu4 -j $((0x248)) -N 4 "$1")
    bytes=$(od -An -tu4 -j $((0x24c)) -N 4 "$1")
    offset=$(((sectors + 1) * 512 + offset))
    magic=$(od -An -tx1 -j $offset -N 4 "$1" | tr -d ' ')
    case $magic in
        02214c18) unpack=(lz4 -dc) ;;
        28b52ffd) unpack=(zstd -dcq) ;;
        fd377a58) unpack=(xz -dc --single-stream) ;;
        1f8b*) unpack=(gzip -dc) ;;
        *) return 1 ;;
    esac
    tail -c +$((offset + 1)) "$1" | head -c $((bytes - 4)) | "${unpack[@]}" >"$2"
}

fetch_kernel() {
    local package=$1 deb=$2 tmp=$work/kernel image
    mkdir -p "$tmp/x"
    if [ -z "$deb" ]; then
        progress "downloading $package"
        (cd "$tmp" && apt-get -q -o APT::Sandbox::User=root download "$package" >&2) ||
            lacking "cannot download $package"
        deb=$(echo "$tmp"/*.deb)
    fi
    dpkg-deb -x "$deb" "$tmp/x" || die "$deb is no Debian package"
    [ -d "$tmp/x/lib/modules" ] || mv "$tmp/x/usr/lib" "$tmp/x/lib"
    image=$(echo "$tmp"/x/boot/vmlinuz-*)
    unpack_kernel "$image" "$tmp/vmlinux" || cp "$image" "$tmp/vmlinux" # QEMU takes that as well
    rm -rf "$kernel_dir"
    mkdir -p "$kernel_dir"
    mv "$tmp/vmlinux" "$tmp/x/lib/modules" "$kernel_dir/"
    touch "$kernel_dir/complete"
    rm -rf "$tmp"
}

# Sets kernel_dir, with vmlinux and modules/ in it.
prepare_kernel() {
    local package deb='' series='' lock
    case $kernel in
        *.deb)
            deb=$(realpath "$kernel")
            package=$(dpkg-deb -f "$deb" Package) || die "$kernel is no Debian package" ;;
        linux-image-*) package=$kernel ;;
        *)
            # Kept, so that later runs need no network and do not change kernels.
            if [ -s "$cache/series-$kernel" ]; then
                package=$(<"$cache/series-$kernel")
            else
                package=$(newest_package "$kernel") ||
                    lacking "apt knows no cloud kernel $kernel (apt-get update? Debian 12 has 6.1)"
                series=$cache/series-$kernel
            fi ;;
    esac
    kernel_dir=$cache/$package
    exec {lock}>"$cache/lock"
    flock -w "$lock_timeout_s" "$lock" || die "another numa-vm.sh holds $cache/lock"
    [ -e "$kernel_dir/complete" ] || fetch_kernel "$package" "$deb"
    [ -z "$series" ] || echo "$package" >"$series" # only what could be had
    exec {lock}>&-
}

# put FILE DEST: copies what a link leads to, once.
put() {
    [ ! -e "$image$2" ] || return 0
    mkdir -p "$(dirname "$image$2")"
    cp -L --preserve=mode "$1" "$image$2"
}

# The program and every library that the loader would map for it; ldd fails for a static one.
put_program() {
    local library
    put "$1" "$2"
    { ldd "$1" 2>/dev/null || true; } |
        sed -n -e 's/^[[:space:]]*[^ ]* => \(\/[^ ]*\) (0x.*/\1/p' \
            -e 's/^[[:space:]]*\(\/[^ ]*\) (0x.*/\1/p' >"$work/libraries"
    while read -r library; do
        put "$library" "$library"
    done <"$work/libraries"
}

# put_module NAME ARGS: what it depends on first; file names have - where names have _.
put_module() {
    local name=${1//-/_} file depends word
    [ ! -e "$image/modules/$name.ko" ] || return 0
    file=$(find "$kernel_dir/modules" -name "${name//_/[-_]}.ko*" -print -quit)
    if [ -z "$file" ]; then
        grep -qs "/${name//_/[-_]}\.ko" "$kernel_dir"/modules/*/modules.builtin ||
            die "there is no module $1 in $(basename "$kernel_dir")"
        return 0
    fi
    mkdir -p "$image/modules"
    case $file in
        *.xz) xz -dc "$file" ;;
        *.zst) zstd -dcq "$file" ;;
        *) cat "$file" ;;
    esac >"$image/modules/$name.ko"
    depends=$(tr '\0' '\n' <"$image/modules/$name.ko" | sed -n 's/^depends=//p' | head -n 1)
    for word in ${depends//,/ }; do
        put_module "$word" ''
    done
    echo "$name $2" >>"$image/etc/numa-vm/modules"
}

# A word for the guest's shell.
quoted() {
    printf "'%s'" "${1//\'/\'\\\'\'}"
}

put_named() {
    local spec from to
    for spec in "${bins[@]}"; do
        from=$spec
        [[ $from == */* ]] || from=$(type -P "$spec") || die "--bin: there is no $spec"
        [ -f "$from" ] || die "--bin: there is no file $from"
        to=/usr/local/bin/${from##*/}
        put_program "$from" "$to"
        # In full, since busybox's shell prefers its own applets.
        [ "${command[0]}" != "${from##*/}" ] || command[0]=$to
    done
    for spec in "${files[@]}"; do
        from=$(realpath -s "${spec%%:*}")
        to=$from
        [[ $spec != *:* ]] || to=${spec#*:}
        [ -e "$from" ] || die "--file: there is no $from"
        mkdir -p "$(dirname "$image$to")"
        cp -rL "$from" "$image$to"
    done
    if [[ ${command[0]} == */* ]] && [ -f "${command[0]}" ]; then
        command[0]=$(realpath -s "${command[0]}")
        put_program "${command[0]}" "${command[0]}"
    fi
}

# The script that the guest's init runs in a session of its own.
write_run() {
    local word
    {
        for word in "${envs[@]}"; do
            echo "export $(quoted "$word")"
        done
        if [ -n "$cpuset" ]; then
            echo "cd /sys/fs/cgroup && echo +cpuset >cgroup.subtree_control && mkdir numio &&" \
                "echo ${cpuset%%/*} >numio/cpuset.cpus && echo ${cpuset#*/} >numio/cpuset.mems &&" \
                "echo \$\$ >numio/cgroup.procs || exit $status_broken"
        fi
        [ "$uid" -eq 0 ] || echo 'chmod 666 /dev/ttyS1 /dev/ttyS3'
        echo 'cd /tmp'
        printf 'exec'
        [ -z "$affinity" ] || printf ' taskset -c %s' "$(quoted "$affinity")"
        [ "$uid" -eq 0 ] || printf ' start-stop-daemon -S -c user -x /bin/env --'
        for word in "${command[@]}"; do
            printf ' %s' "$(quoted "$word")"
        done
        echo
    } >"$image/etc/numa-vm/run"
}

# Makes $work/initrd; not compressed, since unpacking it in the guest costs more than reading it.
build_image() {
    local spec library user=$((uid > 0 ? uid : 1000))
    image=$work/root
    mkdir -p "$image"/{bin,sbin,dev,proc,sys,tmp,run,root,etc/numa-vm,usr/bin,usr/local/bin,var/tmp}
    : >"$image/etc/numa-vm/modules"
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' "user:x:$user:$user::/tmp:/bin/sh" \
        >"$image/etc/passwd"
    put "$(type -P busybox)" /bin/busybox
    # glibc opens this one by name for pthread_cancel(): ldd cannot know.
    library=$(ldconfig -p | sed -n 's/.*libgcc_s\.so\.1 .*x86-64.* => //p' | head -n 1)
    [ -z "$library" ] || put_program "$library" "$library"
    for spec in "${modules[@]}"; do
        if [[ $spec == *:* ]]; then
            put_module "${spec%%:*}" "${spec#*:}"
        else
            put_module "$spec" ''
        fi
    done
    put_named
    printf 'limit_s=%s disks=%s\n' "$timeout_s" "${#disks[@]}" >"$image/etc/numa-vm/conf"
    write_run
    cp "$here/numa_vm/init" "$image/init"
    chmod 755 "$image/init"
    (cd "$image" && find . -print0 | cpio -0 -o -H newc --quiet -R 0:0) >"$work/initrd"
    rm -rf "$image"
}
