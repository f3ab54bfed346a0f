#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh [ARGS]: from a fresh machine to a running numio.  Installs the packages that are missing,
# builds the release preset into build/release and runs `numio tour ARGS`.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

install_packages "${BUILD_PACKAGES[@]}"
say "configure: build/release"
configure release --log-level=WARNING || die "cmake could not configure build/release, see above"
say "build: the numio tool"
build release --target numio_tool || die "the build failed, see above"
say "run: build/release/bin/numio tour $*"
exec "$ROOT/build/release/bin/numio" tour "$@"
