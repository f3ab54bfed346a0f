#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_task_examples.sh BIN: the examples about tasks that wait for each other: chat_server,
# rate_limiter, word_count.
set -u
unset "${!NUMIO_@}"
examples=$1/examples
work=$(mktemp -d "${TMPDIR:-/tmp}/run_tasks.XXXXXX") || exit 1
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null; rm -rf "$work"' EXIT
failures=0

fail() {
    echo "run_task_examples: $*" >&2
    failures=$((failures + 1))
}

# word_count: as wc counts, whatever the files are; what cannot be read is told, the rest counted.
python3 - "$work" <<'PYTHON' || exit 1
import random, sys
random.seed(7)
words = ["a", "longer", "word" * 40, "\t", "\n", "  ", "x"]
for name, count in (("large", 400000), ("small", 100)):
    with open(f"{sys.argv[1]}/{name}", "w") as file:
        for _ in range(count):
            file.write(random.choice(words) + random.choice([" ", "\n", "", "\r\n"]))
with open(f"{sys.argv[1]}/seam", "wb") as file:  # words that end, begin, and lie over a seam
    file.write(b"a" * (1 << 20) + b" " + b"b" * ((1 << 20) - 2) + b" cc" + b"d" * (1 << 20))
open(f"{sys.argv[1]}/empty", "w").close()
PYTHON
names=(large small seam empty)
names=("${names[@]/#/$work/}")
LC_ALL=C wc -w "${names[@]}" | awk '{print $1, $2}' >"$work/expected"
timeout 60 "$examples/word_count" "${names[@]}" | awk '{print $1, $2}' >"$work/got"
cmp "$work/expected" "$work/got" ||
    fail "word_count: $(diff "$work/expected" "$work/got" | head -4)"
timeout 20 "$examples/word_count" "$work/none" "$work/small" >"$work/got" 2>"$work/err" &&
    fail "word_count: a missing file is no error"
grep -q 'none: No such file' "$work/err" || fail "word_count: does not say what is missing"
grep -q "[0-9] $work/small\$" "$work/got" || fail "word_count: a missing file stops it"
timeout 20 "$examples/word_count" "$work" 2>&1 | grep -q 'Is a directory' ||
    fail "word_count: does not say that a folder is none"

# rate_limiter: 300 requests at 1,000 a second after a burst of 10 take 0.29 s, and no less.
timeout 60 "$examples/rate_limiter" 1000 10 50 300 >"$work/got" || fail "rate_limiter: status"
python3 - "$(cat "$work/got")" <<'PYTHON' || fail "rate_limiter: $(cat "$work/got")"
import re, sys
found = re.fullmatch(r"(\d+) requests of 50 clients in ([\d.]+) s: (\d+) a second, after a burst "
                     r"of 10", sys.argv[1])
assert found and found[1] == "300" and float(found[2]) >= 0.289 and int(found[3]) <= 1004
PYTHON
timeout 20 "$examples/rate_limiter" 0 >/dev/null 2>&1 && fail "rate_limiter: 0 is no error"

# chat_server: what one says all others read, in order; who does not read is told what it missed;
# the end is told to all.
port=$((20000 + RANDOM % 12000)) # below the ports that clients get
"$examples/chat_server" "127.0.0.1:$port" >"$work/server" 2>&1 &
server=$!
for _ in $(seq 200); do
    grep -q '^listening' "$work/server" && break
    sleep 0.05
done
timeout 120 python3 - "$port" "$server" <<'PYTHON' || fail "chat_server: see above"
import os, re, signal, socket, sys

port, pid = int(sys.argv[1]), int(sys.argv[2])

class Client:
    def __init__(self, small=False):
        self.sock = socket.socket()
        if small:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.settimeout(30)
        self.sock.connect(("127.0.0.1", port))
        self.file = self.sock.makefile("r")
    def say(self, text):
        self.sock.sendall((text + "\n").encode())
    def read(self):
        return self.file.readline().rstrip("\n")

first = Client()
first.say("nobody hears this")
second = Client()
assert re.fullmatch(r"\* client \d+ has come", first.read())
third = Client()
came = second.read()
assert re.fullmatch(r"\* client \d+ has come", came) and first.read() == came, came
for i in range(200):
    second.say(f"line {i}")
    first_text, third_text = first.read(), third.read()
    assert first_text == third_text and first_text.endswith(f": line {i}"), (first_text, third_text)
first.say("hello")
assert second.read().endswith(": hello"), "what it said itself comes back"
assert third.read().endswith(": hello")
lazy = Client(small=True)
assert all(client.read().endswith("has come") for client in (first, second, third))
for i in range(40000):  # far more than the room and the sockets keep
    second.say("x" * 300)
    if i % 500 == 0:
        second.say(f"mark {i}")
        for client in (first, third):
            while not client.read().endswith(f": mark {i}"):
                pass
missed = 0
lazy.sock.settimeout(3)
try:
    while not missed:
        found = re.search(r"you have missed (\d+) lines", lazy.read())
        missed = int(found[1]) if found else 0
except TimeoutError:
    pass
assert missed > 0, "a client that does not read has missed nothing"
third.sock.shutdown(socket.SHUT_WR)
while not first.read().endswith("has gone"):
    pass
os.kill(pid, signal.SIGTERM)
while (text := first.read()) != "* the server ends":
    assert text, "the end was not told"
assert first.read() == "", "something came after the end"
PYTHON
wait "$server" || fail "chat_server: ended with status $?"
server=
timeout 20 "$examples/chat_server" nonsense >/dev/null 2>&1 &&
    fail "chat_server: an address that does not parse is no error"

[ "$failures" -eq 0 ] || exit 1
echo "run_task_examples: all as it should be"
