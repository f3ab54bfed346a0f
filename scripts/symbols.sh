#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# symbols.sh STATIC SHARED: checks the symbols of the built libnumio.a and libnumio.so.
# symbols.sh --self-test:   builds two bad libraries and expects the complaints.
#
#   - every global symbol of the static library begins with numio_ or nio_;
#   - the shared library exports numio_* and nothing else;
#   - there is no writable variable, static ones included, except those listed in symbols.allow.
# Thread-local variables and tables that are read-only after relocation are fine.  A library that
# was optimised as a whole is one object, numio_whole.o: there a variable is known by its name.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Prints "FILE.o SYMBOL" of every global symbol in the archive that it defines.
globals_of() {
    nm -A --defined-only --extern-only --quiet "$1" |
        sed -nE 's/^.*:([^:]+\.o):[0-9a-f]+ [A-Za-z] (.+)$/\1 \2/p'
}

# Prints "FILE.o SYMBOL" of every variable in a writable section that is not thread-local.
writables_of() {
    objdump --syms "$1" | awk '
        / file format / { object = $1; sub(/:$/, "", object); next }
        { sub(/ \.hidden /, " ") }
        NF >= 5 && $(NF - 2) ~ /^(\.data|\.bss|\*COM\*)/ && $(NF - 2) !~ /^\.data\.rel\.ro/ \
            && $0 ~ /^[0-9a-f]+ .....[^d]O/ { print object, $NF }'
}

# Prints the lines "FILE.o SYMBOL" from stdin that no pattern of the allow list matches, and
# complains of patterns that match nothing.
not_allowed() {
    awk -v list="$1" '
        BEGIN {
            while ((getline line < list) > 0) {
                if (line ~ /^[ \t]*(#|$)/) continue
                if (split(line, word, /[ \t]+/) < 2) print "no reason in symbols.allow:", line
                pattern[++count] = "^" word[1] "$"
                text[count] = word[1]
                name = word[1]
                sub(/^[^:]*:/, "", name)
                whole[count] = "^(" name ")(\\.lto_priv\\.[0-9]+)?$"
            }
        }
        {
            for (i = 1; i <= count; i++)
                if (($1 ":" $2) ~ pattern[i] || ($1 == "numio_whole.o" && $2 ~ whole[i])) {
                    used[i] = 1
                    next
                }
            print "writable global variable:", $1, $2
        }
        END {
            for (i = 1; i <= count; i++)
                if (!used[i]) print "symbols.allow lists what is not there:", text[i]
        }'
}

check() {
    local static=$1 shared=$2 allow=$3
    globals_of "$static" | awk '$2 !~ /^(numio_|nio_)/ { print "bad global name:", $1, $2 }'
    writables_of "$static" | not_allowed "$allow"
    nm -D --defined-only "$shared" |
        awk '$NF !~ /^numio_/ { print "exported by the shared library:", $NF }'
}

self_test() {
    local dir problems expected missing=0
    dir=$(mktemp -d)
    cat >"$dir/bad.c" <<'C'
int nio_shared_state = 1;
static int hidden_state;
static _Thread_local int fine_per_thread = 2;
static const char *const fine_table[] = { "a", "b" };
__attribute__((visibility("hidden"))) int badly_named(void) { return ++hidden_state; }
int nio_exported(void) { return ++fine_per_thread + fine_table[0][0]; }
C
    gcc -fPIC -c "$dir/bad.c" -o "$dir/bad.o"
    ar rcs "$dir/libbad.a" "$dir/bad.o"
    gcc -shared "$dir/bad.o" -o "$dir/libbad.so"
    echo "bad.o:gone stale entry" >"$dir/allow"
    problems=$(check "$dir/libbad.a" "$dir/libbad.so" "$dir/allow")
    for expected in "bad global name: bad.o badly_named" \
        "exported by the shared library: nio_exported" \
        "writable global variable: bad.o nio_shared_state" "lists what is not there: bad.o:gone" \
        "writable global variable: bad.o hidden_state"; do
        if ! grep -qF "$expected" <<<"$problems"; then
            echo "self-test: no complaint \"$expected\""
            missing=1
        fi
    done
    if grep -F fine_ <<<"$problems"; then
        echo "self-test: complains of what is fine"
        missing=1
    fi
    printf 'bad.o:.*state for the self-test\n' >"$dir/allow"
    if check "$dir/libbad.a" "$dir/libbad.so" "$dir/allow" | grep -E "writable|symbols.allow"; then
        echo "self-test: the allow list does not help"
        missing=1
    fi
    printf 'a\.o:nio_shared.* state\nb\.o:hidden_state state\n' >"$dir/allow"
    mv "$dir/bad.o" "$dir/numio_whole.o"
    ar rcs "$dir/libwhole.a" "$dir/numio_whole.o"
    problems=$(check "$dir/libwhole.a" "$dir/libbad.so" "$dir/allow")
    if grep -E "writable|symbols.allow" <<<"$problems"; then
        echo "self-test: the allow list does not help with a library of one object"
        missing=1
    fi
    problems=$(check "$dir/libwhole.a" "$dir/libbad.so" /dev/null)
    if ! grep -q "writable.*hidden_state" <<<"$problems"; then
        echo "self-test: no complaint about a library of one object"
        missing=1
    fi
    rm -rf "$dir"
    [ "$missing" -eq 0 ] && echo "symbols.sh: self-test passes"
    return "$missing"
}

if [ "${1:-}" = --self-test ]; then
    self_test
    exit
fi
if [ $# -ne 2 ]; then
    echo "usage: symbols.sh STATIC SHARED | --self-test" >&2
    exit 2
fi
problems=$(check "$1" "$2" "$here/symbols.allow")
if [ -n "$problems" ]; then
    echo "$problems"
    exit 1
fi
echo "symbols.sh: $(globals_of "$1" | wc -l) global symbols are well named," \
    "$(nm -D --defined-only "$2" | wc -l) are exported"
