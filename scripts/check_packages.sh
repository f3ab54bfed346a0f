#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check_packages.sh: what install_packages of common.sh does where packages are missing, there is
# no network, no root, no sudo or no Debian; with commands of its own in place of apt's.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# A PATH with nothing on it but what common.sh needs, and the fakes.
readonly tools=(bash env grep nproc dirname cat)
for tool in "${tools[@]}"; do
    mkdir -p "$work/tools"
    ln -s "$(type -P "$tool")" "$work/tools/$tool"
done

# fake NAME: its body comes from stdin; every call is noted in $work/calls.
fake() {
    {
        echo '#!/usr/bin/env bash'
        echo "echo \"$1 \$*\" >>'$work/calls'"
        cat
    } >"$work/fakes/$1"
    chmod 755 "$work/fakes/$1"
}

# machine UID PACKAGE...: root or not, with these packages installed, without sudo.
machine() {
    rm -rf "$work/fakes" "$work/calls"
    mkdir "$work/fakes"
    : >"$work/calls"
    fake id <<<"echo $1"
    shift
    # dpkg-query -W -f=... PACKAGE
    fake dpkg-query <<<"case ' $* ' in *\" \$3 \"*) echo 'ii ' ;; *) exit 1 ;; esac"
    fake apt-get <<<'exit 0'
    fake apt-cache <<<'exit 0'
}

# expect STATUS WORD: install_packages one two three ends with STATUS and its output has WORD.
expect() {
    local status=0 output
    output=$(PATH=$work/fakes:$work/tools bash -c "
        source '$root/scripts/common.sh'
        install_packages one two three" 2>&1) || status=$?
    if [ "$status" -ne "$1" ] || [[ $output != *"$2"* ]]; then
        echo "check_packages: $scenario: expected status $1 and '$2', got $status and: $output"
        failures=$((failures + 1))
    fi
}

# called PATTERN, not_called PATTERN: what the last expect ran.
called() {
    grep -q -e "$1" "$work/calls" || {
        echo "check_packages: $scenario: nobody called '$1' but: $(cat "$work/calls")"
        failures=$((failures + 1))
    }
}

not_called() {
    if grep -e "$1" "$work/calls"; then
        echo "check_packages: $scenario: that was not to be called"
        failures=$((failures + 1))
    fi
}

scenario='all there'
machine 0 one two three
expect 0 'all 3 are there'
not_called 'apt-get'

scenario='some missing'
machine 0 two
expect 0 'installing one three'
called '^apt-get .*install .* one three$'

scenario='not in the sources'
machine 0 one two
fake apt-get <<<'case $* in *install*) exit 100 ;; esac'
fake apt-cache <<<'exit 100'
expect 1 "package three is in none of this machine's apt sources"
expect 1 'Debian 12'

scenario='no network'
machine 0 one two
fake apt-get <<<'echo "Temporary failure resolving" >&2; exit 100'
expect 1 'package three could not be installed'
expect 1 'no network?'
expect 1 'Temporary failure resolving'

scenario='no network, but a package in the cache'
machine 0 one two
fake apt-get <<<'case $* in *update*) exit 100 ;; esac'
expect 0 'apt-get update failed'
called '^apt-get .*install .* three$'

scenario='an ordinary user with sudo'
machine 1000 one
fake sudo <<<'exec "$@"'
expect 0 'installing two three'
called '^sudo .*apt-get .*install .* two three$'

scenario='an ordinary user whom sudo refuses'
machine 1000 one
fake sudo <<<'echo "sudo: a password is required" >&2; exit 1'
expect 1 'package two could not be installed'
not_called '^apt-get'

scenario='an ordinary user without sudo'
machine 1000 one
expect 1 "have root run 'apt-get install two three'"
not_called 'apt-get'

scenario='an ordinary user without sudo who needs nothing'
machine 1000 one two three
expect 0 'all 3 are there'

scenario='no Debian'
machine 0
rm "$work/fakes/apt-get" "$work/fakes/dpkg-query"
expect 0 'no Debian'
expect 0 'one two three'

[ "$failures" -eq 0 ] || exit 1
echo "check_packages: all as it should be"
