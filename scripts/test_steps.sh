#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The steps of test.sh, one function each.  Builds go on after an error (-k 0), so that one log
# names all of them.  A step runs in the repository's root, prints what it does, and fails by its
# exit status, or skips by 77.  A step that runs several tests writes `PASSED FAILED SKIPPED` to
# the file $COUNTS; another counts as one test.

# Files that git knows or would add and that match the patterns.
repo_files() {
    git ls-files -co --exclude-standard -- "$@" | sort -u | while read -r file; do
        [ ! -f "$file" ] || echo "$file"
    done
}

# run_ctest PRESET LABELS [ARGS]: runs what has one of the labels, writes $COUNTS.
run_ctest() {
    local preset=$1 labels=$2 status=0 report=$COUNTS.report junit=$COUNTS.xml
    shift 2
    : >"$report"
    NUMIO_TEST_REPORT=$report ctest --preset "$preset" -L "^($labels)\$" --parallel "$JOBS" \
        --output-junit "$junit" "$@" || status=$?
    grep -h '^skipped: ' "build/$preset/Testing/Temporary/LastTest.log" || true
    [ -s "$junit" ] || return 1
    python3 scripts/count_tests.py "$junit" "$report" >"$COUNTS"
    return "$status"
}

# The Rust and the Go of the peers are looked at where their formatters are, which building numio
# does not need.
step_format() {
    local file bad=0
    for file in $(repo_files '*.c' '*.h' '*.cpp'); do
        if ! clang-format --dry-run -Werror "$file" 2>/dev/null; then
            echo "not formatted, run: clang-format -i $file"
            bad=1
        fi
    done
    if ! rustfmt --version >/dev/null 2>&1; then
        echo "no rustfmt: the Rust sources are not looked at"
    elif ! repo_files '*.rs' | xargs rustfmt --edition 2021 --check; then
        bad=1
    fi
    if ! command -v gofmt >/dev/null; then
        echo "no gofmt: the Go sources are not looked at"
    elif [ -n "$(repo_files '*.go' | xargs gofmt -l)" ]; then
        echo "not formatted, run: gofmt -w $(repo_files '*.go' | xargs gofmt -l | tr '\n' ' ')"
        bad=1
    fi
    return "$bad"
}

step_layers() {
    python3 scripts/layers.py --self-test
    python3 scripts/layers.py
}

step_tidy() {
    python3 scripts/tidy.py --self-test
    python3 scripts/tidy.py
}

# Every file that a shell runs, whatever it is called.
step_shellcheck() {
    local file line scripts=()
    for file in $(repo_files); do
        line=
        read -r line <"$file" 2>/dev/null || true
        if [[ $file == *.sh || $line =~ ^'#!'.*[/\ ](ba|da)?sh([[:space:]]|$) ]]; then
            scripts+=("$file")
        fi
    done
    echo "shellcheck of ${#scripts[@]} scripts"
    shellcheck -x "${scripts[@]}"
}

# What the scripts promise beside their work: judging figures, installing packages.
step_scripts() {
    python3 perf/report.py --self-test
    python3 scripts/mutate.py --check-fit
    scripts/check_packages.sh
}

step_build() {
    configure dev
    build dev -- -k 0
}

step_headers() {
    build dev --target check_headers -- -k 0
}

step_unit() {
    scripts/run_criterion.sh --self-test
    run_ctest dev unit
}

step_stress() {
    run_ctest dev stress
}

step_symbols() {
    scripts/symbols.sh --self-test
    scripts/symbols.sh build/dev/lib/libnumio.a build/dev/lib/libnumio.so
}

step_asan() {
    configure asan
    build asan -- -k 0
    run_ctest asan 'unit|stress'
}

step_tsan() {
    configure tsan
    build tsan -- -k 0
    run_ctest tsan stress
}

step_clang() {
    configure clang
    build clang --target all --target check_headers -- -k 0
    run_ctest clang 'unit|stress'
}

# The coroutines run under emulation.  The rest is compiled only: for linking it the libraries would
# be needed for aarch64, too.  Their headers are the same, and are looked for last.
step_aarch64() {
    local file bad=0 host
    local flags=(-std=gnu17 -O2 -D_GNU_SOURCE -DNUMIO_UNSTABLE=1 -Wall -Wextra -Wshadow -Wundef
        -Werror -I. -Iruntime/include -Inuma/include -Ialloc/include)
    scripts/cross_coro.sh
    host=$(gcc -print-multiarch)
    flags+=(-idirafter /usr/include -idirafter "/usr/include/$host")
    echo "compile the library and the tool for aarch64"
    mkdir -p build/aarch64
    for file in $(repo_files 'numa/*.c' 'alloc/*.c' 'runtime/*.c'); do
        aarch64-linux-gnu-gcc "${flags[@]}" -c "$file" -o build/aarch64/last.o || bad=1
    done
    return "$bad"
}

step_release() {
    configure release
    build release -- -k 0
    scripts/symbols.sh build/release/lib/libnumio.a build/release/lib/libnumio.so
    run_ctest release run
}

# Guests with several nodes; all topologies instead of those that matter most with NUMA_LABELS.
step_numa() {
    configure release
    build release -- -k 0
    run_ctest release "${NUMA_LABELS:-numa}"
}

# A program outside the tree that finds the installed numio in every documented way.
step_install() {
    local prefix=$ROOT/build/install out=$ROOT/build/consumer
    rm -rf "$prefix" "$out"
    [ -f build/release/lib/libnumio.a ] || { configure release && build release; }
    cmake --install build/release --prefix "$prefix"
    scripts/check_install.sh "$prefix" "$out"
}
