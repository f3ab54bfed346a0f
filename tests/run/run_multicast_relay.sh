#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_multicast_relay.sh BIN: the example multicast_relay on loopback, between two programs socat
# and under a flood whose every datagram is accounted for.  Skips where socat is missing, unless
# NUMIO_REQUIRE names tools.
set -u
required=${NUMIO_REQUIRE-}
unset "${!NUMIO_@}"
relay_program=$1/examples/multicast_relay
work=$(mktemp -d "${TMPDIR:-/tmp}/run_relay.XXXXXX") || exit 1
relay=
receiver=
trap '[ -z "$relay$receiver" ] || kill -KILL $relay $receiver 2>/dev/null; rm -rf "$work"' EXIT
failures=0

fail() {
    echo "run_multicast_relay: $*" >&2
    failures=$((failures + 1))
}

if ! command -v socat >/dev/null; then
    echo "run_multicast_relay: socat is missing"
    [[ $required == *tools* ]] && exit 1
    exit 77
fi

# until_true COMMAND...: waits until it succeeds.
until_true() {
    for _ in $(seq 200); do
        "$@" && return
        sleep 0.05
    done
    fail "in vain: $*"
}

start() {
    : >"$work/relay" # the shell that starts it would empty it a moment later
    "$relay_program" "$@" >"$work/relay" 2>&1 &
    relay=$!
    until_true grep -q '^relaying' "$work/relay"
}

stop() {
    kill -TERM "$relay"
    wait "$relay" || fail "exit status $? after SIGTERM: $(cat "$work/relay")"
    relay=
}

# has_bytes FILE COUNT
has_bytes() {
    [ -f "$1" ] && [ "$(stat -c %s "$1")" -ge "$2" ]
}

port=$((20000 + RANDOM % 12000)) # below the ports that clients get
from=239.255.7.1:$port
to=239.255.7.2:$((port + 1))
single=127.0.0.1:$((port + 2))

# socat to socat: 60 datagrams, which any socket's buffer holds.
head -c 60000 /dev/urandom >"$work/sent"
start "$from" lo lo "$to"
socat -u "UDP4-RECV:${to##*:},bind=${to%:*},ip-add-membership=${to%:*}:lo" \
    "CREATE:$work/received" &
receiver=$!
until_true grep -qi "$(printf '%02X%02X%02X%02X' 2 7 255 239)" /proc/net/igmp
socat -u -b 1000 "OPEN:$work/sent" "UDP4-DATAGRAM:$from,ip-multicast-if=127.0.0.1"
until_true has_bytes "$work/received" 60000
cmp "$work/sent" "$work/received" || fail "other bytes"
kill -USR1 "$relay"
until_true grep -q '^60 datagrams, 60000 bytes, 0 dropped by the kernel, 0 not sent$' "$work/relay"
kill "$receiver"
receiver=
stop
grep -c '^60 datagrams, 60000 bytes' "$work/relay" | grep -qx 2 || fail "no counters at the end"

# A flood to two addresses, by segments and one by one, with the end in the middle of it.
start "$from" lo lo "$to" "$single"
timeout 60 python3 - "$from" "$to" "$single" "$relay" "$work/relay" <<'PYTHON' ||
import os, re, signal, socket, struct, sys, threading, time

def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)

source, group, single = map(address, sys.argv[1:4])
relay, log = int(sys.argv[4]), sys.argv[5]
SO_RCVBUFFORCE, SO_MEMINFO, DROPS, UDP_SEGMENT = 33, 55, 8, 103

def bound(at):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
    sock.bind(at)
    return sock

def drops(sock):
    return struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))[DROPS]

def datagram(number):
    return struct.pack("I", number) * (1 + number % 300)

sockets = [bound(group), bound(single)]
loopback = struct.pack("=4s4si", socket.inet_aton(group[0]), bytes(4), socket.if_nametoindex("lo"))
sockets[0].setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, loopback)
got = [[], []]
is_over = threading.Event()

def receive(index):
    sock = sockets[index]
    sock.settimeout(0.1)
    while True:
        try:
            data = sock.recv(65536)
        except TimeoutError:
            if is_over.is_set():
                return
            continue
        number = struct.unpack_from("I", data)[0] if data else None
        if data and data != datagram(number) and data != struct.pack("I", number) * 100:
            raise SystemExit("a datagram of other bytes")
        got[index].append(number)

threads = [threading.Thread(target=receive, args=(i,)) for i in range(2)]
for thread in threads:
    thread.start()

out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
out.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 400)
for number in range(0, 4000, 40):
    out.sendto(b"".join(struct.pack("I", n) * 100 for n in range(number, number + 40)), source)
out.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
out.sendto(b"", source)
for number in range(4000, 24000):
    out.sendto(datagram(number), source)
sent = 24001
os.kill(relay, signal.SIGTERM)  # what has reached its socket by now is still sent on
while os.path.exists("/proc/%d/fd/0" % relay):
    time.sleep(0.02)
time.sleep(0.2)
is_over.set()
for thread in threads:
    thread.join()

counted = re.findall(r"(\d+) datagrams, \d+ bytes, (\d+) dropped by the kernel, (\d+) not sent",
                     open(log).read())[-1]
relayed, dropped, unsent = map(int, counted)
print("sent %d, relayed %d, dropped %d, not sent %d" % (sent, relayed, dropped, unsent))
assert relayed + dropped == sent, "what reached its socket is lost"
assert unsent == 0 and relayed > 1000
for sock, numbers in zip(sockets, got):
    assert len(numbers) + drops(sock) == relayed, (len(numbers), drops(sock), relayed)
    known = [n for n in numbers if n is not None]
    assert known == sorted(known) and len(set(known)) == len(known), "out of order"
PYTHON
    fail "the flood: see above; the relay said $(cat "$work/relay")"
wait "$relay" || fail "exit status $? after the flood"
relay=

# refused WORD ARGS...: exits with an error and says the word.
refused() {
    local word=$1
    shift
    timeout 20 "$relay_program" "$@" >"$work/err" 2>&1 && fail "$*: is no error"
    grep -q "$word" "$work/err" || fail "$*: does not say '$word' but $(cat "$work/err")"
}

refused usage
refused nonsense nonsense lo lo "$to"
refused no-such-if "$from" no-such-if lo "$to"
refused no-such-if "$from" lo no-such-if "$to"
refused nowhere "$from" lo lo nowhere
refused symbolic "$from" lo lo "$from" # ELOOP: it would hear itself
refused '1.2.3.4' 1.2.3.4:7000 lo lo "$to"

[ "$failures" -eq 0 ] || exit 1
echo "run_multicast_relay: all as it should be"
