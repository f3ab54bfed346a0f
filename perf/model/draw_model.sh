#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# draw_model.sh [OUT]: runs the model and draws perf/model/model.svg (or OUT) again; some seconds.
# Needs the release build and gnuplot (Debian: gnuplot-nox).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
model=$here/../../build/release/bin/numio-model
out=${1:-$here/model.svg}
[ -x "$model" ] || { echo "no $model: build the release preset" >&2; exit 1; }
command -v gnuplot >/dev/null || { echo "no gnuplot: install the package gnuplot-nox" >&2; exit 1; }
table=$(mktemp)
trap 'rm -f "$table"' EXIT
echo "simulating 63 machines ..." >&2
"$model" >"$table"
gnuplot -e "table='$table'; picture='$out'" "$here/plot.gp"
echo "$out"
