#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""report.py: what scripts/bench.sh collected, paired and laid out as a table.

  report.py tag --round R --workers W --driver D [--variant SCENARIO:WORD] IN OUT
      appends the lines of IN to OUT with `round`, `asked_workers` and `asked_driver` added: what
      they were asked for, which pairs them, whatever they then report; with a variant WORD is put
      behind SCENARIO at the head of their names (tcp_echo_1_p50 becomes tcp_echo_1_spin_p50)
  report.py table FILE [--targets FILE] [--notes FILE] [--check] [--io]
      the table; with --check, status 1 if a target was missed or could not be judged; with --io,
      medians have their MAD over the rounds behind them, ratios are to the best peer of all, and
      the rows of p999 are left out
  report.py --self-test

A ratio is made within a round, where both sides ran next to each other, and says how many times
better numio is (above 1 is better, for times, bytes and rates alike).  Shown are the median of the
rounds' ratios to the peer whose own median is best, and their smallest and largest.
"""
import argparse
import json
import math
import os
import re
import statistics
import sys
import tempfile

OURS = "numio"
NEEDED = ("scenario", "runtime", "workers", "driver", "unit", "median")
MORE_IS_BETTER = ("req/s",)
# The same operations by bare system calls; its scenarios have names of their own.
RAW_SUFFIX = "_raw"
# A stackful variant of ours is compared with the peers' one kind of task.
COROUTINE_SUFFIX = "_co"
FIRST_PEERS = ("tokio", "tokio-mimalloc", "tokio-ct", "tokio-mimalloc-ct", "libuv", "go", "epoll",
               "floor", "liburing")
IO_LEAVES_OUT = re.compile("_p999$")
DEFAULT_TARGETS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "targets.tsv")


class BadInput(Exception):
    """A line that this program cannot use; says where and why."""


def parse_line(where, text):
    """One result, checked."""
    try:
        result = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{where}: no JSON: {error}") from None
    if not isinstance(result, dict):
        raise BadInput(f"{where}: no object")
    for key in NEEDED:
        if key not in result:
            raise BadInput(f"{where}: no {key}")
    median = result["median"]
    is_number = isinstance(median, (int, float)) and not isinstance(median, bool)
    if not is_number or not math.isfinite(median):
        raise BadInput(f"{where}: the median is no number: {median!r}")
    return result


def read_lines(path):
    """Yields each result of a file of JSON lines."""
    with open(path, encoding="utf-8") as stream:
        for number, text in enumerate(stream, 1):
            if text.strip():
                yield parse_line(f"{path}:{number}", text)


def varied(name, variant):
    """The name of a variant's scenario, SCENARIO:WORD; itself if it is not of that scenario."""
    base, _, word = variant.partition(":")
    return f"{base}_{word}{name[len(base):]}" if word and name.startswith(base) else name


def tag(source, target, round_number, workers, driver, variant=""):
    """Appends the results of `source` to `target`; returns how many."""
    results = list(read_lines(source))
    with open(target, "a", encoding="utf-8") as stream:
        for result in results:
            result["scenario"] = varied(result["scenario"], variant)
            result.update(round=round_number, asked_workers=workers, asked_driver=driver)
            stream.write(json.dumps(result) + "\n")
    return len(results)


class Target:
    """A line of targets.tsv."""

    def __init__(self, where, words):
        if len(words) != 5 or words[2] not in ("ratio", "max"):
            raise BadInput(f"{where}: expected: scenario workers ratio|max value against")
        self.scenario, self.workers, self.what = words[:3]
        try:
            self.value = float(words[3])
            self.against = re.compile(words[4])
        except (ValueError, re.error) as error:
            raise BadInput(f"{where}: {error}") from None

    def applies(self, row):
        """Whether it is about this row."""
        is_for_workers = self.workers in ("*", str(row.workers))
        return is_for_workers and row.scenario == self.scenario

    def judge(self, row):
        """(text, True met / False missed / None unknown)."""
        if self.what == "max":
            ours = row.median_of(OURS)
            return f"<={self.value:g}", None if ours is None else ours <= self.value
        peers = [p for p in row.peers() if self.against.search(p)]
        # Across all chosen peers: as good as the factor demands against every one of them.
        best = row.best_of(peers)
        against = "" if self.against.pattern == "." else " " + self.against.pattern
        text = f">={self.value:g}x{against}"
        ratios = row.ratios(best) if best else []
        return text, statistics.median(ratios) >= self.value if ratios else None


def read_targets(path):
    """The targets of a file."""
    targets = []
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            words = line.split("#")[0].split()
            if words:
                targets.append(Target(f"{path}:{number}", words))
    return targets


class Row:
    """A scenario at a number of workers: {runtime: {round: median}}."""

    def __init__(self, scenario, workers, driver, unit):
        self.scenario = scenario
        self.workers = workers
        self.driver = driver
        self.unit = unit
        self.values = {}

    def add(self, runtime, round_number, value):
        """Keeps one round's median of one runtime."""
        self.values.setdefault(runtime, {})[round_number] = value

    def peers(self):
        """Runtimes that are not ours, the usual ones first."""
        others = [r for r in self.values if r != OURS]
        order = {name: i for i, name in enumerate(FIRST_PEERS)}
        return sorted(others, key=lambda r: (order.get(r, len(order)), r))

    def median_of(self, runtime):
        """Median over the rounds, or None."""
        rounds = self.values.get(runtime)
        return statistics.median(rounds.values()) if rounds else None

    def mad_of(self, runtime):
        """Median absolute deviation over the rounds, or None."""
        middle = self.median_of(runtime)
        if middle is None:
            return None
        return statistics.median(abs(value - middle) for value in self.values[runtime].values())

    def best_of(self, peers):
        """The peer with the best median, or None."""
        if not peers:
            return None
        pick = max if self.unit in MORE_IS_BETTER else min
        return pick(peers, key=self.median_of)

    def ratios(self, peer):
        """Ours to the peer's, one for each round that has both."""
        ours, theirs = self.values.get(OURS, {}), self.values.get(peer, {})
        ratios = []
        for number in sorted(set(ours) & set(theirs)):
            over, under = theirs[number], ours[number]
            if self.unit in MORE_IS_BETTER:
                over, under = under, over
            if under > 0:
                ratios.append(over / under)
        return ratios


def plain_name(result):
    """The scenario that a raw floor stands beside."""
    name = result["scenario"]
    if result["runtime"] != OURS and name.endswith(RAW_SUFFIX):
        return name[:-len(RAW_SUFFIX)]
    return name


def collect(results):
    """Rows in order of first appearance.  Peers are shared by all of our drivers and kinds."""
    rows = {}
    order = []
    peers = {}
    for result in results:
        name, workers = plain_name(result), result.get("asked_workers", result["workers"])
        round_number = result.get("round", 0)
        if (name, workers) not in order:
            order.append((name, workers))
        if result["runtime"] != OURS:
            key = (name, workers)
            peers.setdefault(key, []).append((result, round_number))
            continue
        driver = result.get("asked_driver", result["driver"])
        by_driver = rows.setdefault((name, workers), {})
        row = by_driver.setdefault(driver, Row(name, workers, driver, result["unit"]))
        row.add(OURS, round_number, result["median"])
    return place_peers(rows, order, peers)


def stands_beside(result, row):
    """Bare system calls are made as a driver of ours makes them, and compared with that one."""
    is_raw = result["scenario"].endswith(RAW_SUFFIX)
    return not is_raw or row.driver in ("", result.get("asked_driver", row.driver))


def place_peers(rows, order, peers):
    """Gives every row of ours its peers' values; peers without one get a row of their own."""
    placed = []
    for name, workers in order:
        base = name[:-len(COROUTINE_SUFFIX)] if name.endswith(COROUTINE_SUFFIX) else name
        theirs = peers.get((base, workers), [])
        mine = list(rows.get((name, workers), {}).values())
        if not mine and theirs:
            mine = [Row(name, workers, "", theirs[0][0]["unit"])]
        for row in mine:
            for result, round_number in theirs:
                if not stands_beside(result, row):
                    continue
                if result["unit"] != row.unit:
                    raise BadInput(f"{name}: {result['runtime']} measures {result['unit']}, "
                                   f"others {row.unit}")
                row.add(result["runtime"], round_number, result["median"])
            placed.append(row)
    return placed


def figure(value):
    """A number with about three digits."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def spread_figure(row, runtime):
    """The median over the rounds, and its MAD."""
    middle = row.median_of(runtime)
    return "-" if middle is None else f"{figure(middle)} ±{figure(row.mad_of(runtime))}"


def cells_of(row, runtimes, targets, shows_driver, is_io):
    """The row's cells, and the verdicts on its targets."""
    cells = [row.scenario, str(row.workers)] + ([row.driver or "-"] if shows_driver else [])
    cells += [spread_figure(row, runtime) if is_io else figure(row.median_of(runtime))
              for runtime in runtimes] + [row.unit]
    tokios = [] if is_io else [p for p in row.peers() if p.startswith("tokio")]
    best = row.best_of(tokios or row.peers())
    ratios = row.ratios(best) if best else []
    if ratios:
        cells.append(f"{statistics.median(ratios):.2f}x")
        cells += [f"{min(ratios):.2f}..{max(ratios):.2f}", best]
    else:
        cells += ["-", "-", "-"]
    words = {True: "met", False: "MISSED", None: "not judged"}
    judged = [target.judge(row) for target in targets if target.applies(row)]
    if OURS not in row.values:
        judged = []
    cells.append("; ".join(f"{text} {words[verdict]}" for text, verdict in judged))
    return cells, [verdict for _, verdict in judged]


def layout(header, lines):
    """Aligned text: names to the left, figures to the right."""
    widths = [max(len(line[i]) for line in [header] + lines) for i in range(len(header))]
    left = {"scenario", "driver", "unit", "to", "target"}
    out = []
    for line in [header] + lines:
        cells = (c.ljust(w) if h in left else c.rjust(w) for h, c, w in zip(header, line, widths))
        out.append("  ".join(cells).rstrip())
    out.insert(1, "  ".join("-" * width for width in widths))
    return out


def table(results, targets, is_io=False):
    """(lines of text, verdicts)."""
    rows = [row for row in collect(results)
            if not (is_io and IO_LEAVES_OUT.search(row.scenario))]
    present = {runtime for row in rows for runtime in row.values}
    order = {name: i for i, name in enumerate((OURS,) + FIRST_PEERS)}
    runtimes = sorted(present, key=lambda r: (order.get(r, len(order)), r))
    shows_driver = len({row.driver for row in rows if row.driver}) > 1
    header = ["scenario", "w"] + (["driver"] if shows_driver else []) + runtimes
    header += ["unit", "ratio", "spread", "to", "target"]
    lines, verdicts = [], []
    for row in rows:
        cells, judged = cells_of(row, runtimes, targets, shows_driver, is_io)
        lines.append(cells)
        verdicts += judged
    return layout(header, lines), verdicts


def read_notes(path):
    """Distinct lines of a file of remarks, in order."""
    with open(path, encoding="utf-8") as stream:
        return list(dict.fromkeys(line.strip() for line in stream if line.strip()))


def print_table(arguments):
    """The subcommand `table`."""
    results = list(read_lines(arguments.file))
    if not results:
        raise BadInput(f"{arguments.file}: no results")
    lines, verdicts = table(results, read_targets(arguments.targets), arguments.io)
    print("\n".join(lines))
    rounds = len({result.get("round", 0) for result in results})
    middles = f"Medians{' ±MAD' if arguments.io else ''} of {rounds} round(s)."
    against = "the best peer" if arguments.io else "the better Tokio (else the best there is)"
    print(f"\n{middles} ratio: how many times better numio is, median over the rounds,\nagainst "
          f"{against}; spread: smallest..largest of the rounds.")
    if verdicts:
        print(f"Targets: {verdicts.count(True)} met, {verdicts.count(False)} missed, "
              f"{verdicts.count(None)} not judged for want of a figure.")
    for note in read_notes(arguments.notes) if arguments.notes else []:
        print(f"Note: {note}")
    return 1 if arguments.check and not all(verdicts) else 0


# --- self-test ------------------------------------------------------------------------------

def made(scenario, runtime, round_number, median, unit="ns/op", **more):
    """A result as bench.sh would have collected it."""
    return {"scenario": scenario, "runtime": runtime, "version": "1", "workers": 2, "driver": "d",
            "unit": unit, "median": median, "mad": 0, "min": median, "max": median, "n": 3,
            "round": round_number, **more}


def expect(what, got, want):
    """Ends the self-test with a message unless both are equal."""
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, expected {want!r}")


def expect_refusal(what, action):
    """Ends the self-test unless the action raises BadInput."""
    try:
        action()
    except BadInput:
        return
    raise AssertionError(f"{what}: was accepted")


def test_ratios():
    """Pairs are made within rounds, against the better peer, whichever way better is."""
    results = [made("s", OURS, r, v) for r, v in ((1, 10.0), (2, 20.0), (3, 10.0))]
    results += [made("s", "tokio", r, v) for r, v in ((1, 90.0), (2, 90.0), (3, 90.0))]
    results += [made("s", "tokio-mimalloc", r, v) for r, v in ((1, 30.0), (2, 50.0), (4, 30.0))]
    row = collect(results)[0]
    expect("best", row.best_of(row.peers()), "tokio-mimalloc")
    expect("only common rounds", row.ratios("tokio-mimalloc"), [3.0, 2.5])
    rate = [made("e", OURS, 1, 300.0, "req/s"), made("e", "tokio", 1, 200.0, "req/s"),
            made("e", "epoll", 1, 100.0, "req/s")]
    row = collect(rate)[0]
    expect("best rate", row.best_of(row.peers()), "tokio")
    expect("rate", row.ratios("tokio"), [1.5])


def test_rows():
    """Coroutines and raw floors stand beside the right peers; asked workers pair, not reported."""
    results = [made("s_co", OURS, 1, 5.0), made("s", "tokio", 1, 10.0)]
    rows = {row.scenario: row for row in collect(results)}
    expect("coroutine", rows["s_co"].ratios("tokio"), [2.0])
    expect("peer alone", rows["s"].median_of(OURS), None)
    raw = [made("f", OURS, 1, 4.0), made("f_raw", "liburing", 1, 2.0)]
    expect("raw", [row.ratios("liburing") for row in collect(raw)][0], [0.5])
    asked = [made("w", OURS, 1, 4.0, workers=1, asked_workers=2),
             made("w", "tokio", 1, 8.0, asked_workers=2)]
    expect("asked workers", collect(asked)[0].ratios("tokio"), [2.0])
    drivers = [made("s", OURS, 1, 4.0, asked_driver="sqpoll"),
               made("s", OURS, 1, 2.0, asked_driver="defer"), made("s", "tokio", 1, 8.0)]
    expect("drivers", [row.ratios("tokio") for row in collect(drivers)], [[2.0], [4.0]])
    raw = [made("f", OURS, 1, 4.0, asked_driver="a"), made("f", OURS, 1, 4.0, asked_driver="b"),
           made("f_raw", "liburing", 1, 2.0, asked_driver="a"),
           made("f_raw", "liburing", 1, 8.0, asked_driver="b")]
    expect("raw by driver", [row.ratios("liburing") for row in collect(raw)], [[0.5], [2.0]])
    expect_refusal("two units", lambda: collect([made("s", OURS, 1, 1.0),
                                                 made("s", "tokio", 1, 1.0, "us")]))


def test_targets():
    """Met, missed and unknown are told apart, and a table shows them."""
    targets = [Target("t", words.split()) for words in (
        "s * ratio 2 tokio", "s 2 max 5 -", "s 1 max 5 -", "s * ratio 1 liburing")]
    results = [made("s", OURS, 1, 10.0), made("s", "tokio", 1, 20.0)]
    lines, verdicts = table(results, targets)
    expect("verdicts", verdicts, [True, False, None])
    shown = lines[2]
    for piece in ("2.00x", ">=2x tokio met", "<=5 MISSED", ">=1x liburing not judged"):
        expect(f"shows {piece}", piece in shown, True)
    expect("widths", len({line.index("unit" if i == 0 else "ns/op") for i, line in enumerate(lines)
                          if i != 1}), 1)
    expect_refusal("short target", lambda: Target("t", ["s", "*", "ratio", "2"]))
    expect_refusal("odd target", lambda: Target("t", ["s", "*", "ratio", "two", "."]))


def test_io():
    """Medians with their MAD, ratios to the best of all peers, no p999."""
    results = [made("e", OURS, r, v, "req/s") for r, v in ((1, 10.0), (2, 20.0), (3, 40.0))]
    results += [made("e", "tokio", r, 10.0, "req/s") for r in (1, 2, 3)]
    results += [made("e", "go", r, 20.0, "req/s") for r in (1, 2, 3)]
    results += [made("e_p999", OURS, 1, 5.0, "us")]
    lines, _ = table(results, [], True)
    expect("rows", len(lines), 3)
    for piece in ("20.00 ±10.00", "20.00 ±0.00", "1.00x", "  go"):
        expect(f"shows {piece}", piece in lines[2], True)
    usual, _ = table(results, [])
    expect("usual rows", len(usual), 4)
    expect("usual ratio", "2.00x" in usual[2] and "±" not in usual[2], True)


def test_files():
    """tag keeps what it was given and adds the pairing; broken lines are refused."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "in"), os.path.join(folder, "out")
        with open(source, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(made("s", OURS, 0, 3.5)) + "\n\n")
        expect("tagged", [tag(source, target, r, 2, "auto") for r in (1, 2)], [1, 1])
        tags = [(line["round"], line["asked_driver"], line["median"])
                for line in read_lines(target)]
        expect("tags", tags, [(1, "auto", 3.5), (2, "auto", 3.5)])
    expect("variants", [varied(n, "s_1:spin") for n in ("s_1", "s_1_p50", "t")],
           ["s_1_spin", "s_1_spin_p50", "t"])
    expect("no variant", varied("s_1", ""), "s_1")
    for text in ("{", "[]", "{}", json.dumps(made("s", OURS, 1, None)),
                 json.dumps(made("s", OURS, 1, float("nan")))):
        expect_refusal(text, lambda text=text: parse_line("x", text))
    expect("own targets are readable", len(read_targets(DEFAULT_TARGETS)) > 0, True)
    expect("figures", [figure(v) for v in (None, 0.123, 45.67, 456.7, 45678.9)],
           ["-", "0.12", "45.67", "456.7", "45,679"])


def self_test():
    """Runs all of the above."""
    for test in (test_ratios, test_rows, test_targets, test_io, test_files):
        test()
    print("report.py: self-test passed")
    return 0


def parse_arguments():
    """The command line."""
    if sys.argv[1:] == ["--self-test"]:
        return None
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    tagging = commands.add_parser("tag")
    tagging.add_argument("--round", type=int, required=True)
    tagging.add_argument("--workers", type=int, required=True)
    tagging.add_argument("--driver", required=True)
    tagging.add_argument("--variant", default="")
    tagging.add_argument("source")
    tagging.add_argument("target")
    printing = commands.add_parser("table")
    printing.add_argument("file")
    printing.add_argument("--targets", default=DEFAULT_TARGETS)
    printing.add_argument("--notes")
    printing.add_argument("--check", action="store_true")
    printing.add_argument("--io", action="store_true")
    return parser.parse_args()


def main():
    """The status to exit with."""
    arguments = parse_arguments()
    if arguments is None:
        return self_test()
    try:
        if arguments.command == "table":
            return print_table(arguments)
        tag(arguments.source, arguments.target, arguments.round, arguments.workers,
            arguments.driver, arguments.variant)
        return 0
    except (BadInput, OSError) as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
