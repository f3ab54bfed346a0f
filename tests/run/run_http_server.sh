#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_http_server.sh BIN: the example http_server with curl, with wrk, with clients that do what
# they should not, and its end.  Skips where curl or wrk are missing, unless NUMIO_REQUIRE names
# tools.
set -u
required=${NUMIO_REQUIRE-}
unset "${!NUMIO_@}"
server_program=$1/examples/http_server
work=$(mktemp -d "${TMPDIR:-/tmp}/run_http.XXXXXX") || exit 1
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null; rm -rf "$work"' EXIT
failures=0

fail() {
    echo "run_http_server: $*" >&2
    failures=$((failures + 1))
}

for tool in curl wrk; do
    if ! command -v "$tool" >/dev/null; then
        echo "run_http_server: $tool is missing"
        [[ $required == *tools* ]] && exit 1
        exit 77
    fi
done

site=$work/site
mkdir -p "$site/sub" "$work/outside"
head -c 5000003 /dev/urandom >"$site/big.bin"
head -c 777 /dev/urandom >"$site/a b.txt"
head -c 200000 /dev/urandom >"$site/page.css"
echo '<p>home</p>' >"$site/index.html"
echo '<p>sub</p>' >"$site/sub/index.html"
: >"$site/empty.js"
truncate -s 256M "$site/huge.bin"
echo secret >"$work/outside/secret"
ln -s ../outside/secret "$site/way_out"
ln -s "$work/outside/secret" "$site/absolute_way_out"
ln -s index.html "$site/way_in"
mkfifo "$site/fifo"

# start [VARIABLE=VALUE...]: sets url and port.
start() {
    port=$((20000 + RANDOM % 12000)) # below the ports that clients get
    url=http://127.0.0.1:$port
    : >"$work/server" # the shell that starts it would empty it a moment later
    env "$@" "$server_program" "127.0.0.1:$port" "$site" 2>"$work/server" &
    server=$!
    for _ in $(seq 200); do
        grep -q '^listening' "$work/server" && return
        sleep 0.05
    done
    fail "it does not start: $(cat "$work/server")"
}

# stop: SIGTERM, and all is well.
stop() {
    kill -TERM "$server"
    wait "$server" || fail "exit status $? after SIGTERM: $(cat "$work/server")"
    server=
}

get() {
    curl --silent --show-error --max-time 60 "$@"
}

# same PATH FILE [TYPE]: the body is that of the file, by HEAD its length and type.
same() {
    local head
    get "$url$1" | cmp - "$site/$2" || fail "$1: another body than $2"
    head=$(get --head "$url$1" | tr -d '\r')
    grep -qx "Content-Length: $(stat -Lc %s "$site/$2")" <<<"$head" || fail "$1: HEAD says $head"
    grep -qx "Content-Type: ${3:-application/octet-stream}" <<<"$head" || fail "$1: HEAD says $head"
}

# status CODE ARGS...: what curl is told.
status() {
    local expected=$1 code
    shift
    code=$(get --output /dev/null --write-out '%{http_code}' "$@")
    [ "$code" = "$expected" ] || fail "$*: status $code instead of $expected"
}

check_files() {
    same / index.html text/html
    same /sub/ sub/index.html text/html
    same /big.bin big.bin
    same /a%20b.txt 'a b.txt' text/plain
    same /%61%20b%2Etxt 'a b.txt' text/plain
    same '/page.css?version=3' page.css text/css
    same /empty.js empty.js text/javascript
    same /way_in index.html
    for path in /none /sub/none /index.html/x /sub /fifo; do
        status 404 "$url$path"
    done
    for path in /../outside/secret /sub/../../outside/secret /%2e%2e/outside/secret /way_out \
        /..%2foutside/secret //etc/passwd /%2fetc/passwd /absolute_way_out; do
        status 403 --path-as-is "$url$path"
    done
    for path in /%00 /index.html%00.txt /%zz /%4 /%; do
        status 400 "$url$path"
    done
    status 405 --data x "$url/"
    status 405 --request DELETE "$url/"
    get --request DELETE --include "$url/" | grep -q '^Allow: GET, HEAD' ||
        fail "405 does not say what is allowed"
    # two requests, one connection
    [ "$(get --write-out '%{num_connects}' --output /dev/null "$url/" --next \
        --write-out '%{num_connects}' --output /dev/null "$url/none")" = 10 ] ||
        fail "a connection is not kept"
}

# part RANGE FIRST LAST: a 206 with the bytes FIRST to LAST of big.bin.
part() {
    local head length=$(($3 - $2 + 1))
    get --range "$1" --dump-header "$work/head" "$url/big.bin" |
        cmp - <(tail -c +$(($2 + 1)) "$site/big.bin" | head -c "$length") || fail "$1: other bytes"
    head=$(tr -d '\r' <"$work/head")
    grep -qx 'HTTP/1.1 206 Partial Content' <<<"$head" || fail "$1: $head"
    grep -qx "Content-Range: bytes $2-$3/5000003" <<<"$head" || fail "$1: $head"
    grep -qx "Content-Length: $length" <<<"$head" || fail "$1: $head"
}

check_ranges() {
    local size=5000003 range head
    part 0-0 0 0
    part 1000-70000 1000 70000
    part 16383-16384 16383 16384
    part "4000000-" 4000000 $((size - 1))
    part 0- 0 $((size - 1))
    part "$((size - 1))-" $((size - 1)) $((size - 1))
    part 5-99999999999999999999999 5 $((size - 1))
    part "5000000-$size" 5000000 $((size - 1))
    part -1 $((size - 1)) $((size - 1))
    part -100000 $((size - 100000)) $((size - 1))
    part "-$size" 0 $((size - 1))
    part -99999999999999999999999 0 $((size - 1))
    for range in "$size-" "$size-$((size + 5))" 99999999999999999999999- -0; do
        status 416 --range "$range" "$url/big.bin"
        head=$(get --range "$range" --include "$url/big.bin" | tr -d '\r')
        grep -qx "Content-Range: bytes \*/$size" <<<"$head" || fail "416 does not say the size"
        grep -qx 'Content-Length: 0' <<<"$head" || fail "416 has a length: $head"
    done
    status 416 --range 0- "$url/empty.js"
    status 404 --range 0-5 "$url/none"
    # a download that was broken off goes on
    head -c 1234567 "$site/big.bin" >"$work/resumed"
    get --continue-at - --output "$work/resumed" "$url/big.bin" || fail "--continue-at: status $?"
    cmp "$work/resumed" "$site/big.bin" || fail "--continue-at: other bytes"
    get --head "$url/" | tr -d '\r' | grep -qx 'Accept-Ranges: bytes' || fail "no Accept-Ranges"
}

# A hundred at a time, each body by its sum.
check_crowd() {
    local i arguments=()
    for i in $(seq 100); do
        arguments+=(--output "$work/got.$i" "$url/page.css")
    done
    get --parallel --parallel-immediate --parallel-max 100 "${arguments[@]}" 2>"$work/err" ||
        fail "100 requests: $(cat "$work/err")"
    [ "$(sha256sum "$work"/got.* | cut -d ' ' -f 1 | sort -u)" = \
        "$(sha256sum "$site/page.css" | cut -d ' ' -f 1)" ] || fail "100 requests: other bodies"
    [ "$(find "$work" -name 'got.*' | wc -l)" -eq 100 ] || fail "100 requests: not 100 bodies"
    rm -f "$work"/got.*
}

check_wrk() {
    local path
    for path in / /page.css; do
        wrk --threads 1 --connections 16 --duration 1s "$url$path" >"$work/wrk" ||
            fail "wrk: exit status $?"
        grep -Eq 'Socket errors|Non-2xx' "$work/wrk" && fail "wrk: $(cat "$work/wrk")"
        grep -Eq '^ +[1-9][0-9]* requests in' "$work/wrk" || fail "wrk: $(cat "$work/wrk")"
    done
}

for driver in epoll defer sqpoll; do
    start NUMIO_DRIVER=$driver
    check_files
    check_ranges
    check_crowd
    check_wrk
    stop
done

start
timeout 120 python3 - "$port" <<'PYTHON' || fail "clients that do what they should not: see above"
import socket, struct, sys, threading, time

port = int(sys.argv[1])
HOST = b"Host: h\r\n"

def connect():
    return socket.create_connection(("127.0.0.1", port), timeout=40)

def all_of(sock):
    got = b""
    while True:
        part = sock.recv(65536)
        if not part:
            return got
        got += part

def ask(data):
    """Sends it all and reads to the end, as a client that goes on sending whatever is said."""
    errors = []

    def send():
        try:
            sock.sendall(data)
        except OSError as error:
            errors.append(error)

    with connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sender = threading.Thread(target=send)
        sender.start()
        got = all_of(sock)
        sender.join()
    assert not errors, ("what it still sends is not read", data[:80], errors)
    return got

def expect(status, data):
    got = ask(data)
    assert got.startswith(b"HTTP/1.1 %d " % status), (status, data[:80], got[:200])
    assert got.count(b"HTTP/1.1 ") == 1, (data[:80], got[:200])
    assert b"Connection: close" in got, got[:200]

end = b"Connection: close\r\n\r\n"
expect(200, b"GET / HTTP/1.1\r\n" + HOST + end)
expect(200, b"GET / HTTP/1.1\nhost: h\nconnection: close\n\n")
for line in (b"GET /", b"GET / HTTP/2.0", b"GET / HTTP/1.0", b"GET / HTTP/1.1 x",
             b"GET  / HTTP/1.1", b"GET http://h/ HTTP/1.1", b"GET", b"", b"GET /\0 HTTP/1.1",
             b"\x16\x03\x01\x02\x00", b"get / HTTP/1.1x", b"/ / /"):
    expect(400, line + b"\r\n" + HOST + b"\r\n")
expect(400, b"GET / HTTP/1.1\r\n\r\n")
expect(400, b"GET / HTTP/1.1\r\n" + HOST + b"A: \0\r\n\r\n")
expect(400, b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nGET ")
expect(400, b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
expect(405, b"BREW / HTTP/1.1\r\n" + HOST + end)
expect(405, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nbody")
expect(431, b"GET /" + b"a" * 300000 + b" HTTP/1.1\r\n" + HOST + b"\r\n")
expect(431, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50000)

# Pipelined: as many answers, in order.
many = b"".join(b"GET %s HTTP/1.1\r\n" % path + HOST + b"\r\n"
                for path in [b"/", b"/none", b"/sub/"] * 40)
got = ask(many + b"HEAD /big.bin HTTP/1.1\r\n" + HOST + end)
codes = [part[:3] for part in got.split(b"HTTP/1.1 ")[1:]]
assert codes == [b"200", b"404", b"200"] * 40 + [b"200"], codes
assert got.endswith(b"\r\n\r\n") and b"Content-Length: 5000003" in got, got[-200:]

# What is no range, or several, gets all of the file; so does who has one version of it, and HEAD
# has no parts.  The first field lies where the path of "/" is completed.
home = b"<p>home</p>\n"
for field in (b"bytes=5", b"bytes=", b"bytes=-", b"bytes=5-2", b"bytes=1-2,4-5", b"bytes=a-2",
              b"bytes=1-b", b"bytes=1-2 ", b"bytes=--2", b"bytes=-2-4", b"bytes= 1-2",
              b"bytes=+1-2", b"lines=1-2", b"1-2", b"bytes=1-2\r\nIf-Range: \"x\"", b"bytes=1-2-"):
    got = ask(b"GET / HTTP/1.1\r\nRange: " + field + b"\r\n" + HOST + end)
    assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"\r\n\r\n" + home), (field, got)
got = ask(b"HEAD / HTTP/1.1\r\nRange: bytes=1-2\r\n" + HOST + end)
assert got.startswith(b"HTTP/1.1 200 ") and b"Content-Length: %d" % len(home) in got, got
got = ask(b"".join(b"GET / HTTP/1.1\r\nrange: bytes=%s\r\n" % field + HOST + b"\r\n"
                   for field in (b"3-6", b"99-", b"-3")) + b"GET / HTTP/1.1\r\n" + HOST + end)
parts = [part.partition(b"\r\n\r\n") for part in got.split(b"HTTP/1.1 ")[1:]]
assert [(head[:3], body) for head, _, body in parts] == \
    [(b"206", b"home"), (b"416", b""), (b"206", b"p>\n"), (b"200", home)], parts

# Byte by byte is slow, but not too slow.
with connect() as sock:
    for byte in b"GET / HTTP/1.1\r\n" + HOST + end:
        sock.sendall(bytes([byte]))
        time.sleep(0.002)
    assert all_of(sock).endswith(b"<p>home</p>\n")

# Halves: closed by the client, reset, and left alone.
for data in (b"", b"GE", b"GET / HTTP/1.1\r\nHo"):
    with connect() as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert b"200" not in all_of(sock), data
    sock = connect()
    sock.sendall(data)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
sock = connect()
sock.sendall(b"GET /huge.bin HTTP/1.1\r\n" + HOST + b"\r\n")
sock.recv(1000)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
sock.close()

stalled, silent, deaf = connect(), connect(), connect()
begin = time.monotonic()
stalled.sendall(b"GET / HTTP/1.1\r\nHo")
deaf.sendall(b"GET /huge.bin HTTP/1.1\r\n" + HOST + b"\r\n")
trickle = connect()
trickle.sendall(b"GET / HTTP/1.1\r\nA: ")
try:  # a byte now and then does not help
    while time.monotonic() - begin < 30:
        trickle.sendall(b"x")
        time.sleep(0.5)
except OSError:
    pass
assert 9 < time.monotonic() - begin < 30, time.monotonic() - begin
for late in (stalled, trickle):  # is told so; the answer is one packet, which a reset may follow
    got = late.recv(65536)
    assert got.startswith(b"HTTP/1.1 408 ") and got.count(b"HTTP/1.1 ") == 1, got
    assert b"\r\nConnection: close\r\n" in got and b"\r\nContent-Length: 0\r\n" in got, got
assert all_of(stalled) == b"" and all_of(silent) == b""  # who has asked nothing is told nothing
time.sleep(max(0, begin + 16 - time.monotonic()))
try:
    length = len(all_of(deaf))
except ConnectionResetError:
    length = 0
assert length < 256 << 20, "who does not read is waited for"
expect(200, b"GET / HTTP/1.1\r\n" + HOST + end)
PYTHON
kill -0 "$server" 2>/dev/null || fail "it has ended: $(cat "$work/server")"

# The end: what has begun is sent whole, nothing new is accepted, idle connections do not hinder.
head -c 40000007 /dev/urandom >"$site/last.bin" # more than the sockets hold
get --limit-rate 15M --output "$work/last" "$url/last.bin" &
client=$!
exec 3<>"/dev/tcp/127.0.0.1/$port"
sleep 0.7
kill -TERM "$server"
sleep 0.3
kill -0 "$client" 2>/dev/null || fail "the last download was too fast to say anything"
curl --silent --max-time 5 --output /dev/null "$url/" && fail "a connection after the end"
wait "$client" || fail "the last download: exit status $?"
cmp "$work/last" "$site/last.bin" || fail "the last download: other bytes"
wait "$server" || fail "exit status $? at the end: $(cat "$work/server")"
server=
exec 3>&-

# An idle connection holds the end up for a look only, not for its ten seconds.
start
exec 3<>"/dev/tcp/127.0.0.1/$port"
get --output /dev/null "$url/" || fail "curl: exit status $?"
begin=$SECONDS
stop
[ $((SECONDS - begin)) -le 5 ] || fail "the end has taken $((SECONDS - begin)) seconds"
exec 3>&-

timeout 20 "$server_program" nonsense "$site" 2>"$work/err" &&
    fail "an address that does not parse is no error"
grep -q 'nonsense' "$work/err" || fail "it does not say which address: $(cat "$work/err")"
timeout 20 "$server_program" 127.0.0.1:0 "$work/none" 2>"$work/err" &&
    fail "a missing folder is no error"
grep -q 'No such file' "$work/err" || fail "it does not say that the folder is missing"

[ "$failures" -eq 0 ] || exit 1
echo "run_http_server: all as it should be"
