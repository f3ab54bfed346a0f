#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""count_tests.py JUNIT [REPORT]: what a CTest run came to, as `PASSED FAILED SKIPPED`.

JUNIT is CTest's --output-junit file.  REPORT has the lines that run_criterion.sh appends, so that
a CTest entry counts as the tests inside it.  An entry without a line counts as one.  Names of
skipped entries go to stderr, those of failed ones with the end of what they said.
"""
import re
import sys
import xml.etree.ElementTree as ElementTree

SAID_LINES = 30
NOISE = re.compile(r"^\[(RUN |PASS|SKIP)\]|^NUMIO_TEST_SEED=|^\[----\]\s*$")
LINE = re.compile(r"^(\S+) passed=(\d+) failed=(\d+) skipped=(\d+)$")


def read_report(path):
    """{CTest entry: (passed, failed, skipped)}"""
    counts = {}
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            match = LINE.match(line)
            if match:
                name = re.sub("^test_", "", match.group(1))
                counts[name] = tuple(int(n) for n in match.groups()[1:])
    return counts


def last_words(case):
    """What a failed entry said at its end, without its tests that passed."""
    lines = (case.findtext("system-out") or "").splitlines()
    return [line for line in lines if line.strip() and not NOISE.match(line)][-SAID_LINES:]


def main():
    """Prints the sums."""
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    inside = read_report(sys.argv[2]) if len(sys.argv) == 3 else {}
    sums = [0, 0, 0]
    for case in ElementTree.parse(sys.argv[1]).getroot().iter("testcase"):
        name = case.get("name")
        # CTest also calls an entry skipped whose program it did not find.
        note = case.find("skipped")
        skipped = note is not None and note.get("message", "").startswith("SKIP_")
        failed = not skipped and case.get("status") != "run"
        counts = inside.get(name, (0, 0, 1) if skipped else (int(not failed), int(failed), 0))
        if failed and counts[1] == 0:
            counts = (counts[0], 1, counts[2])
        if failed:
            print(f"failed: {name}", *last_words(case), sep="\n    ", file=sys.stderr)
        if skipped and name not in inside:
            print(f"skipped: {name}", file=sys.stderr)
        sums = [a + b for a, b in zip(sums, counts)]
    print(*sums)


if __name__ == "__main__":
    main()
