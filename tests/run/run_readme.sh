#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_readme.sh BIN: the program in the README compiles without a warning and echoes.
set -u
unset "${!NUMIO_@}"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
library=$(dirname "$1")/lib/libnumio.a
work=$(mktemp -d "${TMPDIR:-/tmp}/run_readme.XXXXXX") || exit 1
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT

# The first C program, on a free port instead of its own.
port=$((20000 + RANDOM % 12000)) # below the ports that clients get
awk '$0 == "\140\140\140" { inside = 0 } inside { print }
    $0 == "\140\140\140c" { inside = 1 }' "$root/README.md" |
    sed "s/127\.0\.0\.1:7000/127.0.0.1:$port/" >"$work/program.c"
grep -q "$port" "$work/program.c" || {
    echo "run_readme: there is no program on port 7000" >&2
    exit 1
}
flags=()
if nm "$library" 2>/dev/null | grep -q __asan_init; then
    flags=(-fsanitize=address -fsanitize=undefined)
fi
read -r -a libraries < <(pkg-config --libs hwloc liburing jemalloc)
"${CC:-cc}" -std=c17 -Wall -Wextra -Werror -pthread "${flags[@]}" \
    -I"$root/runtime/include" -I"$root/numa/include" -I"$root/alloc/include" \
    "$work/program.c" "$library" "${libraries[@]}" -o "$work/program" || exit 1

"$work/program" &
server=$!
for _ in $(seq 200); do
    reply=$(exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$port" && echo hello >&3 && head -n 1 <&3)
    [ -z "$reply" ] || break
    sleep 0.05
done
if [ "$reply" != hello ]; then
    echo "run_readme: the reply is '$reply' instead of 'hello'" >&2
    exit 1
fi
echo "run_readme: the program in the README works"
