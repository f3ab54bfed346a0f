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

step_format() {
    local file bad=0
    for file in $(repo_files '*.c' '*.h'); do
        if ! clang-format --dry-run -Werror "$file" 2>/dev/null; then
            echo "not formatted, run: clang-format -i $file"
            bad=1
        fi
    done
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

step_shellcheck() {
    repo_files '*.sh' '.ci/run' | xargs --no-run-if-empty shellcheck -x
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
}

# The assembly of the coroutines must assemble for aarch64 (each file guards itself by
# architecture).  The layers that need no other library, base and coro, are linked with the
# programs that need no others, and these run under qemu-user.
step_aarch64() {
    local out=build/aarch64 assembly sources programs file name passed=0 failed=0
    local cc=(aarch64-linux-gnu-gcc -std=gnu17 -D_GNU_SOURCE -DNIO_TINY=1 -DNIO_TEST_POINTS=1
        -DNIO_DEBUG=1 -O2 -g -Wall -Wextra -Werror -pthread -static -I. -Iruntime/include
        -Inuma/include -Ialloc/include)
    rm -rf "$out"
    mkdir -p "$out"
    mapfile -t assembly < <(repo_files 'runtime/coro/*.S')
    mapfile -t sources < <(repo_files 'runtime/base/*.c' 'runtime/coro/*.c')
    mapfile -t programs < <(repo_files tests/stress/stress_coro.c 'tests/aarch64/*.c')
    for file in "${assembly[@]}"; do
        echo "assemble $file"
        "${cc[@]}" -c "$file" -o "$out/$(basename "$file").o"
    done
    aarch64-linux-gnu-nm --defined-only "$out"/*.S.o | grep ' T nio_' # some define code
    for file in "${programs[@]}"; do
        name=$(basename "$file" .c)
        echo "build and run $file"
        if "${cc[@]}" "$file" "${sources[@]}" "${assembly[@]}" -o "$out/$name" &&
            timeout 120 qemu-aarch64 "$out/$name"; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
        fi
    done
    echo "$passed $failed 0" >"$COUNTS"
    [ "$failed" -eq 0 ]
}

step_release() {
    configure release
    build release -- -k 0
    run_ctest release run
}

# A program outside the tree that finds the installed numio in every documented way.
step_install() {
    local prefix=$ROOT/build/install out=$ROOT/build/consumer
    rm -rf "$prefix" "$out"
    [ -f build/release/lib/libnumio.a ] || { configure release && build release; }
    cmake --install build/release --prefix "$prefix"
    scripts/check_install.sh "$prefix" "$out"
}
