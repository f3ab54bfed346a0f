#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_examples.sh BIN: each example does what it is for.
set -u
unset "${!NUMIO_@}"
examples=$1/examples
work=$(mktemp -d "${TMPDIR:-/tmp}/run_examples.XXXXXX") || exit 1
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
failures=0

fail() {
    echo "run_examples: $*" >&2
    failures=$((failures + 1))
}

# hello: four greetings and their sum.
timeout 20 "$examples/hello" >"$work/hello" || fail "hello: exit status not 0"
[ "$(grep -c '^hello from task [1-4] on worker [0-9]*$' "$work/hello")" -eq 4 ] ||
    fail "hello: not four greetings"
grep -qx 'their sum is 10' "$work/hello" || fail "hello: another sum"

# cat: files, standard input, a pipe; what is missing is said and the rest still copied.
head -c 3000001 /dev/urandom >"$work/a"
head -c 777 /dev/urandom >"$work/b"
: >"$work/empty"
cp "$work/a" "$work/copy"
cat "$work/a" "$work/b" >"$work/expected"
timeout 20 "$examples/cat" "$work/a" "$work/empty" "$work/b" >"$work/got" ||
    fail "cat: exit status not 0"
cmp "$work/expected" "$work/got" || fail "cat: other bytes into a file"
timeout 20 "$examples/cat" "$work/a" - <"$work/b" | cmp - "$work/expected" ||
    fail "cat: other bytes from standard input into a pipe"
timeout 20 "$examples/cat" <"$work/a" | cmp - "$work/copy" ||
    fail "cat: other bytes without arguments"
timeout 20 "$examples/cat" "$work/none" "$work/b" >"$work/got" 2>"$work/err" &&
    fail "cat: a missing file is no error"
cmp "$work/b" "$work/got" || fail "cat: a missing file stops it"
grep -q "none: No such file" "$work/err" || fail "cat: does not say what is missing"

# direct_read: times of reads past the page cache, where the file system has that.
dd if="$work/a" of="$work/direct" bs=4096 count=100 oflag=direct status=none 2>"$work/err"
if [ -s "$work/direct" ]; then
    timeout 60 "$examples/direct_read" "$work/direct" >"$work/got" 2>&1 ||
        fail "direct_read: $(cat "$work/got")"
    grep -qE '^driver [a-z]+: p50 [0-9.]+ us, p99 [0-9.]+ us, p99.9 [0-9.]+ us$' "$work/got" ||
        fail "direct_read: printed $(cat "$work/got")"
fi
timeout 20 "$examples/direct_read" "$work/none" >"$work/got" 2>&1 &&
    fail "direct_read: a missing file is no error"
grep -q "none: No such file" "$work/got" || fail "direct_read: does not say what is missing"

# echo_server: many clients at once get back what they sent; a reset and a silent one do no harm.
port=$((20000 + RANDOM % 12000)) # below the ports that clients get
"$examples/echo_server" "127.0.0.1:$port" >"$work/server" 2>&1 &
server=$!
for _ in $(seq 200); do
    grep -q '^listening' "$work/server" && break
    sleep 0.05
done
timeout 60 python3 - "$port" <<'PYTHON' || fail "echo_server: see above"
import os, socket, struct, sys, threading

port = int(sys.argv[1])
wrong = []

def connect():
    return socket.create_connection(("127.0.0.1", port), timeout=20)

def client(number):
    data = os.urandom(200000 + number)
    with connect() as sock:
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        got = bytearray()
        while len(got) < len(data):
            part = sock.recv(65536)
            if not part:
                break
            got += part
        sender.join()
        sock.shutdown(socket.SHUT_WR)
        if bytes(got) != data or sock.recv(1) != b"":
            wrong.append(number)

silent = connect()
reset = connect()
reset.sendall(b"x" * 1000)
reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
reset.close()
threads = [threading.Thread(target=client, args=(i,)) for i in range(50)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
silent.sendall(b"still here")
assert silent.recv(100) == b"still here"
assert not wrong, wrong
PYTHON
kill -0 "$server" 2>/dev/null || fail "echo_server: it has ended: $(cat "$work/server")"
timeout 20 "$examples/echo_server" "127.0.0.1:$port" >"$work/out" 2>&1 &&
    fail "echo_server: a port in use is no error"
grep -q 'in use' "$work/out" || fail "echo_server: does not say that the port is in use"
timeout 20 "$examples/echo_server" nonsense >/dev/null 2>&1 &&
    fail "echo_server: an address that does not parse is no error"

[ "$failures" -eq 0 ] || exit 1
echo "run_examples: all as it should be"
