#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_numa.sh BUILD TOPOLOGY [VM-OPTIONS]: boots a guest of scripts/numa-vm.sh and runs there every
# program numa_* of BUILD/tests/numa and the tool.  Exits with 0, with 1 if a check failed, with 77
# where there can be no guest (and with 1 if NUMIO_REQUIRE names numa).  Appends its counts to the
# file named by NUMIO_TEST_REPORT.
set -euo pipefail
build=$1 topology=$2
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly program_limit_s=60 guest_limit_s=280
out=$(mktemp)
trap 'rm -f "$out"' EXIT

options=(--topology "$topology" --timeout "$guest_limit_s" --bin "$build/bin/numio"
    --file "$here/guest_run.sh:/numa/guest_run.sh" "$@")
for program in "$build"/tests/numa/numa_*; do
    [ ! -x "$program" ] || options+=(--bin "$program")
done
status=0
"$here/../../scripts/numa-vm.sh" "${options[@]}" -- sh /numa/guest_run.sh $program_limit_s |
    tee "$out" || status=$?
counts=$(sed -n 's/^numa \(passed=[0-9]* failed=[0-9]* skipped=[0-9]*\)$/\1/p' "$out" | tail -n 1)
if [ "$status" -eq 77 ] && [[ ${NUMIO_REQUIRE:-} == *numa* ]]; then
    echo "NUMIO_REQUIRE names numa, but there can be no guest"
    exit 1
fi
if [ -n "$counts" ] && [ -n "${NUMIO_TEST_REPORT:-}" ]; then
    echo "${NUMIO_TEST_NAME:-numa_$topology} $counts" >>"$NUMIO_TEST_REPORT"
fi
exit "$status"
