#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Measures numio beside its peers, in turns, and prints one table with the ratios.
#
# Usage: scripts/bench.sh [options]
#   --peers LIST     of tokio, libuv and go (all three), or none; libuv has the echo rows,
#                    go those, and the ones about time, locks and messages
#                    only, which have a plain epoll server in any case
#   --io             the I/O rows: TCP echo, UDP echo, file reads; one worker, --drivers "sqpoll
#                    defer", medians with their MAD, ratios to the best peer; what is given counts
#   --filter RE      only scenarios whose name matches (POSIX extended)
#   --rounds N       how often every program runs each scenario, in turns (5; quick 3)
#   --samples N      samples in each of those runs (3; quick 2; with --io 1)
#   --workers LIST   numbers of workers ("ALL 1" where ALL is the number of CPUs)
#   --drivers LIST   numio's driver profiles (auto), for example "sqpoll defer"
#   --idle P         numio's idle policy, instead of its default
#   --ct             Tokio's current-thread flavour as well, in the rows of one worker
#   --json FILE      append every run's lines to FILE
#   --quick          short runs: a smoke test, no figures to quote
#   --check          end with status 1 if a target was missed or could not be judged
#   --numio PROGRAM  this numio-bench instead of building one
#   --no-install     do not install missing Debian packages
# The table goes to stdout, progress to stderr.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly run_timeout_s=600 port_tries=100
# Measured under the idle policy spin as well, as NAME_spin, beside the floor of that name.
readonly spin_scenarios='xthread_pingpong remote_wake sleep_1ms sleep_100us tcp_echo_1'
# Counted, not timed: once for each program, by scripts/instructions.sh.
readonly counted_scenario=instructions
readonly io_filter='^(tcp_echo|udp_echo|file_read)_'
peers='tokio libuv go' filter='' rounds='' samples='' worker_counts='' drivers='' idle='' json=''
is_quick=0 is_io=0 has_ct=0 does_check=0 does_install=1 numio=''
peer_dir=$ROOT/build/peers
failures=0
server_pid=''

usage() {
    sed -n '3,/^# The table/{s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

is_count() {
    [[ $1 =~ ^[1-9][0-9]{0,4}$ ]]
}

parse() {
    local option
    while [ $# -gt 0 ]; do
        option=$1
        case $option in
            --quick) is_quick=1 ;;
            --io) is_io=1 ;;
            --ct) has_ct=1 ;;
            --check) does_check=1 ;;
            --no-install) does_install=0 ;;
            --help) usage; exit 0 ;;
            --peers | --filter | --rounds | --samples | --workers | --drivers | --idle | --json | \
                --numio)
                [ $# -ge 2 ] || die "$option wants a value; --help lists the options"
                take "$option" "$2"
                shift
                ;;
            *) die "unknown option $option; --help lists them" ;;
        esac
        shift
    done
}

take() {
    local word
    case $1 in
        --peers)
            for word in $2; do
                [[ $word =~ ^(tokio|libuv|go)$ || $2 == none ]] ||
                    die "--peers: tokio, libuv and go, or none, not $word"
            done
            peers=${2/#none/} ;;
        --filter) filter=$2 ;;
        --rounds) is_count "$2" || die "--rounds: no count: $2"; rounds=$2 ;;
        --samples) is_count "$2" || die "--samples: no count: $2"; samples=$2 ;;
        --workers)
            for word in $2; do is_count "$word" || die "--workers: no count: $word"; done
            worker_counts=$2 ;;
        --drivers) drivers=$2 ;;
        --idle) idle=$2 ;;
        --json) json=$(realpath -m "$2") ;;
        --numio) numio=$(realpath -m "$2") ;;
    esac
}

has_peer() {
    [[ " $peers " == *" $1 "* ]]
}

note() {
    echo "$*" >>"$work/notes"
}

# --- what is compared -----------------------------------------------------------------------

# A debug build of numio says nothing about numio.
refuse_debug() {
    local cache type
    cache=$(dirname "$(dirname "$numio")")/CMakeCache.txt
    if [ -f "$cache" ]; then
        type=$(sed -n 's/^CMAKE_BUILD_TYPE:[A-Z]*=//p' "$cache")
        case $type in
            Release | RelWithDebInfo) ;;
            *) die "$numio is a ${type:-nameless} build; figures come from release builds only" ;;
        esac
        if grep -Eq '^NUMIO_(DEBUG|EXPENSIVE):BOOL=(ON|1|TRUE)$|^NUMIO_SANITIZE:STRING=.' "$cache"
        then
            die "$numio is built with assertions or sanitizers; figures come from release builds"
        fi
    fi
}

build_numio() {
    local program
    if [ -z "$numio" ]; then
        say "building numio (release)"
        configure release
        build release
        numio=$ROOT/build/release/bin/numio-bench
    fi
    [ -x "$numio" ] || die "there is no $numio"
    refuse_debug
    load_dir=$(dirname "$numio")
    if [ ! -x "$load_dir/echo_load" ]; then
        load_dir=$ROOT/build/release/bin
    fi
    for program in echo_load epoll_echo wake_floor udp_floor; do
        if [ ! -x "$load_dir/$program" ]; then
            die "there is no $load_dir/$program; build the release preset"
        fi
    done
}

find_mimalloc() {
    mimalloc=$(ldconfig -p | sed -n 's/^[[:space:]]*libmimalloc\.so\.2 .*=> //p' | head -n 1)
    if [ -z "$mimalloc" ]; then
        note "no libmimalloc.so.2 (Debian: libmimalloc2.0): Tokio was measured on malloc only"
    elif LD_PRELOAD=$mimalloc "$peer_dir/tokio-peer" --version 2>&1 | grep -q 'cannot be preloaded'
    then
        die "$mimalloc cannot be preloaded"
    fi
}

# Builds the peers; those that cannot be built here are noted and left out.
build_peers() {
    local peer program wanted
    read -ra wanted <<<"$peers"
    say "building the peers: $peers"
    "$ROOT/perf/peers/build.sh" "$peer_dir" "${wanted[@]}" 2>&1 | tee "$work/out"
    sed -n 's/^peers: \(.*skipped: .*\)$/\1/p' "$work/out" >>"$work/notes"
    peers=''
    for peer in "${wanted[@]}"; do
        case $peer in libuv) program=libuv-echo ;; *) program=$peer-peer ;; esac
        [ ! -x "$peer_dir/$program" ] || peers+="${peers:+ }$peer"
    done
}

prepare() {
    local packages=("${BUILD_PACKAGES[@]}" python3 util-linux)
    has_peer libuv && packages+=(libuv1-dev)
    has_peer go && packages+=(golang-go)
    if has_peer tokio; then
        packages+=(librust-tokio-dev libmimalloc2.0 valgrind)
        if ! command -v cargo >/dev/null && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
            packages+=(rustc cargo)
        fi
    fi
    if [ $does_install -eq 1 ]; then
        install_packages "${packages[@]}"
    fi
    build_numio
    mimalloc=''
    [ -z "$peers" ] || build_peers
    # I/O allocates nothing for an operation, so there Tokio is measured as it comes.
    if has_peer tokio && [ $is_io -eq 0 ]; then
        find_mimalloc
    fi
}

# --- running --------------------------------------------------------------------------------

# run_logged NAME COMMAND...: a failure is reported, counted and noted, and the rest goes on.
run_logged() {
    local name=$1 status=0
    shift
    timeout "$run_timeout_s" "$@" >"$work/out" 2>"$work/err" || status=$?
    sed -n "s/^\(.*skipped: .*\)$/$name: \1/p" "$work/err" >>"$work/notes"
    if [ $status -ne 0 ]; then
        failures=$((failures + 1))
        note "$name failed with status $status: $(tail -n 1 "$work/err")"
        tail -n 5 "$work/err" >&2
    fi
    return $status
}

# collect ROUND WORKERS DRIVER [VARIANT]
collect() {
    python3 "$ROOT/perf/report.py" tag --round "$1" --workers "$2" --driver "$3" \
        --variant "${4:-}" "$work/lines" "$results" || failures=$((failures + 1))
    : >"$work/lines"
}

# The program that measures the floor of a scenario, if there is one.
floor_of() {
    local program
    for program in wake_floor udp_floor; do
        if [ -n "$("$load_dir/$program" --list --filter "^$1(_p50)?\$")" ]; then
            echo "$program"
        fi
    done
}

has_spin_variant() {
    [ -z "$idle" ] && [[ " $spin_scenarios " == *" $1 "* ]]
}

# run_one WHO SCENARIO ROUND WORKERS DRIVER: one program's samples of one scenario.
run_one() {
    local who=$1 scenario=$2 round=$3 workers=$4 driver=$5
    local options=("${bench_options[@]}" --workers "$workers" --json "$work/lines")
    local policy=$idle variant='' kinds='_co|_raw|_p50|_p99'
    [ $is_io -eq 0 ] || kinds='_raw|_p50|_p99'
    case $who in
        numio | numio-spin)
            if [ "$who" = numio-spin ]; then
                policy=spin variant=$scenario:spin
            fi
            options+=(--filter "^$scenario($kinds)?\$")
            [ -n "$("$numio" --list "${options[@]}")" ] || return 0 # a peer's alone
            options+=(--driver "$driver")
            [ -z "$policy" ] || options+=(--idle "$policy")
            run_logged "$who" "$numio" "${options[@]}" || true
            ;;
        floor)
            options+=(--filter "^$scenario(_spin|_p50|_p99)?\$")
            run_logged floor "$load_dir/$(floor_of "$scenario")" "${options[@]}" || true
            ;;
        tokio*)
            options+=(--filter "^$scenario(_p50|_p99)?\$")
            case $who in *-ct) options+=(--flavor current_thread) ;; esac
            case $who in
                tokio-mimalloc*)
                    run_logged "$who" env "LD_PRELOAD=$mimalloc" "$peer_dir/tokio-peer" \
                        "${options[@]}" || true ;;
                *) run_logged "$who" "$peer_dir/tokio-peer" "${options[@]}" || true ;;
            esac
            ;;
        go)
            options+=(--filter "^$scenario(_p50|_p99)?\$")
            run_logged go "$peer_dir/go-peer" "${options[@]}" || true
            ;;
    esac
    [ ! -s "$work/lines" ] || collect "$round" "$workers" "$driver" "$variant"
}

go_has() {
    has_peer go && [ -n "$("$peer_dir/go-peer" --list --filter "^$1(_p50|_p99)?\$")" ]
}

# contestants ROUND WORKERS EXTRA SCENARIO: who runs, one "WHO DRIVER" a line; every second round
# the other way round, so that whoever comes after whom is not always the same.
contestants() {
    local round=$1 workers=$2 extra=$3 scenario=$4 driver
    {
        for driver in $drivers; do
            echo "numio $driver"
            if has_spin_variant "$scenario"; then
                echo "numio-spin $driver"
            fi
        done
        if has_peer tokio; then
            echo "tokio auto"
            [ -z "$mimalloc" ] || echo "tokio-mimalloc auto"
            if [ $has_ct -eq 1 ] && [ "$workers" -eq 1 ]; then
                echo "tokio-ct auto"
                [ -z "$mimalloc" ] || echo "tokio-mimalloc-ct auto"
            fi
        fi
        if [ "$extra" = epoll ]; then
            if has_peer libuv; then echo "libuv auto"; fi
            if has_peer go; then echo "go auto"; fi
            if has_spin_variant "$scenario"; then echo "epoll-spin auto"; fi
        fi
        if go_has "$scenario"; then echo "go auto"; fi
        [ -z "$extra" ] || echo "$extra auto"
    } | if [ $((round % 2)) -eq 0 ]; then tac; else cat; fi
}

list_scenarios() {
    {
        "$numio" --list --filter "$filter"
        if has_peer tokio; then "$peer_dir/tokio-peer" --list --filter "$filter"; fi
        if has_peer go; then "$peer_dir/go-peer" --list --filter "$filter"; fi
    } | sed -E 's/_(co|raw|p50|p99)$//' | awk 'NF && !seen[$0]++'
}

run_scenarios() {
    local workers scenario round who driver extra number=0 total
    total=$(($(wc -l <"$work/scenarios") * $(wc -w <<<"$worker_counts")))
    for workers in $worker_counts; do
        while read -r scenario <&3; do
            number=$((number + 1))
            extra=''
            if [ -n "$(floor_of "$scenario")" ]; then
                extra=floor
            fi
            say "[$number/$total] $scenario, $workers worker(s), $rounds rounds"
            for ((round = 1; round <= rounds; round++)); do
                while read -r who driver <&4; do
                    run_one "$who" "$scenario" "$round" "$workers" "$driver"
                done 4< <(contestants "$round" "$workers" "$extra" "$scenario")
            done
        done 3<"$work/scenarios"
    done
}

# --- TCP echo -------------------------------------------------------------------------------

stop_server() {
    if [ -n "$server_pid" ]; then
        kill "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
        server_pid=''
    fi
}

# start_server WHO DRIVER: on server_cpu and a port that nobody had; sets server_pid and port.
start_server() {
    local who=$1 driver=$2 command try policy=$idle
    port=$((20000 + RANDOM % 10000))
    command=(taskset -c "$server_cpu")
    case $who in
        numio | numio-spin)
            [ "$who" = numio ] || policy=spin
            command+=("$numio" --serve-echo --port "$port" --workers 1 --driver "$driver")
            [ -z "$policy" ] || command+=(--idle "$policy")
            ;;
        epoll) command+=("$load_dir/epoll_echo" --port "$port") ;;
        epoll-spin) command+=("$load_dir/epoll_echo" --port "$port" --spin) ;;
        libuv) command+=("$peer_dir/libuv-echo" --port "$port") ;;
        go) command+=("$peer_dir/go-peer" echo --port "$port") ;;
        tokio) command+=("$peer_dir/tokio-peer" echo --port "$port" --workers 1) ;;
        tokio-mimalloc)
            command=(env "LD_PRELOAD=$mimalloc" "${command[@]}" "$peer_dir/tokio-peer" echo
                --port "$port" --workers 1) ;;
    esac
    : >"$work/server.out" # there before anybody looks into it
    "${command[@]}" >"$work/server.out" 2>"$work/server.err" &
    server_pid=$!
    for ((try = 0; try < port_tries; try++)); do
        if ! kill -0 "$server_pid" 2>/dev/null; then
            break
        fi
        # The server's own line, not a connection: somebody else might be listening there.
        if grep -Eq "(^|[^0-9])$port([^0-9]|\$)" "$work/server.out"; then
            return 0
        fi
        sleep 0.05
    done
    stop_server
    failures=$((failures + 1))
    note "$who: the echo server did not start: $(tail -n 1 "$work/server.err")"
    return 1
}

version_of() {
    case $1 in
        numio*) "$numio" --version | awk '{print $2; exit}' ;;
        tokio*) "$peer_dir/tokio-peer" --version | awk '{print $2; exit}' ;;
        libuv) "$peer_dir/libuv-echo" --version | awk '{print $2; exit}' ;;
        go) "$peer_dir/go-peer" --version | awk '{print $2; exit}' ;;
        epoll*) uname -r ;;
    esac
}

run_echo_one() {
    local who=$1 scenario=$2 round=$3 driver=$4 shown=epoll variant=''
    case $who in numio*) shown=$driver ;; esac
    case $who in *-spin) variant=$scenario:spin ;; esac
    start_server "$who" "$driver" || return 0
    run_logged "$who" taskset -c "$load_cpu" "$load_dir/echo_load" "${bench_options[@]}" \
        --port "$port" --pid "$server_pid" --filter "^$scenario\$" --runtime "${who%-spin}" \
        --version "$(version_of "$who")" --workers 1 --driver "$shown" --json "$work/lines" || true
    stop_server
    [ ! -s "$work/lines" ] || collect "$round" 1 "$driver" "$variant"
}

run_echo() {
    local scenario round who driver cpus number=0 total
    total=$(wc -l <"$work/echo_scenarios")
    mapfile -t cpus < <(python3 -c 'import os
for cpu in sorted(os.sched_getaffinity(0)): print(cpu)')
    if [ ${#cpus[@]} -lt 2 ]; then
        note "TCP echo needs two CPUs: left out"
        return 0
    fi
    server_cpu=${cpus[0]} load_cpu=${cpus[1]}
    while read -r scenario <&3; do
        number=$((number + 1))
        say "[$number/$total] $scenario, servers on CPU $server_cpu, load on CPU $load_cpu," \
            "$rounds rounds"
        for ((round = 1; round <= rounds; round++)); do
            while read -r who driver <&4; do
                run_echo_one "$who" "$scenario" "$round" "$driver"
            done 4< <(contestants "$round" 0 epoll "$scenario")
        done
    done 3<"$work/echo_scenarios"
}

# --- instructions ---------------------------------------------------------------------------

count_one() {
    run_logged "$1" "$ROOT/scripts/instructions.sh" --json "$work/lines" "${@:2}" || true
    [ ! -s "$work/lines" ] || collect 1 1 "$drivers"
}

# The same on every run, so once; the driver does not matter to a task that does no I/O.
run_counted() {
    if ! grep -Eq -- "$filter" <<<"$counted_scenario"; then
        return 0
    fi
    if ! command -v valgrind >/dev/null; then
        note "$counted_scenario: left out, there is no valgrind (Debian: valgrind)"
        return 0
    fi
    say "$counted_scenario, once for each program"
    count_one numio --bench "$numio"
    if has_peer tokio; then
        count_one tokio --runtime tokio -- "$peer_dir/tokio-peer" instructions
        [ -z "$mimalloc" ] || count_one tokio-mimalloc --runtime tokio-mimalloc \
            --preload "$mimalloc" -- "$peer_dir/tokio-peer" instructions
    fi
}

# --- the whole ------------------------------------------------------------------------------

print_machine() {
    local governor=/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor
    local cpu virt peer
    cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
    virt=$(systemd-detect-virt 2>/dev/null || true)
    echo "Machine:   ${cpu:-$(uname -m)}, $(nproc) CPU(s) allowed of $(nproc --all)"
    echo "Kernel:    $(uname -sr); virtualisation: ${virt:-unknown}"
    if [ -r $governor ]; then
        echo "Governor:  $(cat $governor)"
    else
        echo "Governor:  unavailable (the frequency is not ours to see)"
    fi
    echo "Load:      $(cut -d' ' -f1-3 /proc/loadavg) before the first run"
    echo "numio:     $("$numio" --version) ($numio)"
    if has_peer tokio; then
        echo "Peers:     $("$peer_dir/tokio-peer" --version), ${mimalloc:-without mimalloc}"
    fi
    for peer in libuv-echo go-peer; do
        ! has_peer ${peer%-*} || echo "           $("$peer_dir/$peer" --version)"
    done
    echo "Runs:      $rounds rounds of $samples samples, in turns, workers $worker_counts"
    if [ $is_quick -eq 1 ]; then
        echo "           --quick: a smoke test; these are no figures to quote"
    fi
    echo "A machine that others use is noisy: trust medians and ratios only as far as their spread."
    echo
}

fill_defaults() {
    local all
    all=$(nproc)
    if [ $is_io -eq 1 ]; then
        : "${filter:=$io_filter}" "${worker_counts:=1}" "${drivers:=sqpoll defer}" "${samples:=1}"
    fi
    : "${drivers:=auto}"
    if [ -z "$worker_counts" ]; then
        worker_counts=$all
        [ "$all" -eq 1 ] || worker_counts="$all 1"
    fi
    : "${rounds:=$((is_quick ? 3 : 5))}" "${samples:=$((is_quick ? 2 : 3))}"
    bench_options=(--rounds "$samples")
    [ $is_quick -eq 0 ] || bench_options+=(--quick)
}

main() {
    local table_options=()
    parse "$@"
    fill_defaults
    work=$(mktemp -d)
    trap 'stop_server; rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    results=$work/results
    : >"$work/notes"
    : >"$work/lines"
    : >"$results"
    prepare >&2
    list_scenarios >"$work/scenarios" || die "numio-bench or a peer does not list its scenarios"
    "$load_dir/echo_load" --list --filter "$filter" >"$work/echo_scenarios"
    [ -s "$work/scenarios" ] || [ -s "$work/echo_scenarios" ] ||
        grep -Eq -- "$filter" <<<"$counted_scenario" || die "no scenario matches $filter"
    print_machine
    run_scenarios >&2
    run_echo >&2
    run_counted >&2
    [ -z "$json" ] || cat "$results" >>"$json"
    [ -s "$results" ] || die "nothing was measured: $(tail -n 1 "$work/notes")"
    [ $does_check -eq 0 ] || table_options+=(--check)
    [ $is_io -eq 0 ] || table_options+=(--io)
    local status=0
    python3 "$ROOT/perf/report.py" table --notes "$work/notes" "${table_options[@]}" "$results" ||
        status=$?
    echo "Load:      $(cut -d' ' -f1-3 /proc/loadavg) after the last run"
    if [ $failures -ne 0 ]; then
        die "$failures run(s) failed; the notes under the table say which"
    fi
    return $status
}

main "$@"
