#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tidy.py [--self-test]: the rules of the house style that a program can check.

  files      800 lines at most, 100 columns, no tabs or trailing blanks, an SPDX line,
             basenames unique (public headers among themselves), no words that mark unfinished work
  folders    a README.md in every folder with sources, 100 lines at most
  functions  70 lines at most, blocks nested 4 deep at most
  atomics    the order is explicit; an order other than relaxed has a label like [LQ1] in a comment
             above it, relaxed has a comment with the word "relaxed"; a label appears twice or more
  calls      none of the banned ones
  promises   tests/PROMISES.md names only tests that exist
Prints `path:line: what is wrong`; exits with 1 if anything was.
"""
import ast
import os
import re
import sys

import repo_files

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100
NESTING_MAX = 4
README_LINES_MAX = 100
LABEL_LINES_ABOVE = 6
RELAXED_LINES_ABOVE = 4

C_FILES = (".c", ".h")
CODE_FILES = (".c", ".h", ".S", ".cpp", ".rs", ".py", ".sh", ".cmake", ".in", "CMakeLists.txt")
SOURCE_FILES = (".c", ".h", ".S", ".cpp", ".rs", ".py", ".sh")
# Their subfolders are described by the folder's own README.
README_COVERS_BELOW = ("tests/", "scripts/", "perf/")
MAKEFILE_LIKE = ("README.md", "CMakeLists.txt")

LABEL = re.compile(r"\[([A-Z]{2}\d+)\]")
ATOMIC_CALL = re.compile(r"\b(atomic_\w+)\s*\(")
MEMORY_ORDER = re.compile(r"\bmemory_order_(\w+)\b")
IMPLICIT_OK = re.compile(r"_explicit$|^atomic_(init|is_lock_free|signal_fence)$")
BANNED = {
    r"\b(v?sprintf|strcpy|stpcpy|strcat|gets|alloca|__builtin_alloca|atoi|atol|atoll|strtok)\s*\(":
        "is banned",
    r"\b(rand|srand|random|srandom|drand48)\s*\(": "is banned: chance comes from base/rng.h",
    r"\b(atomic_thread_fence|atomic_signal_fence|__sync_\w+|__atomic_\w+)\s*\(":
        "is banned: put the order on the operation itself",
    r"\bmemory_order_consume\b": "is banned: use acquire",
    r"\btypedef\s+(struct|union|enum)\b": "is banned: use the tag",
    r"(?<!asm )(?<!asm__ )(?<!\w)(volatile)\b": "is banned: use atomics",
}
# `suite::name` or `suite::name_*` (one that runs once per driver profile), `stress_X`.
PROMISED = re.compile(r"`(\w+)::(\w+?)(_\*)?`|`(stress_\w+)`")
TEST = re.compile(r"^(Test|[A-Z]+_EACH|EACH_[A-Z]+)\((\w+),\s*(\w+)", re.MULTILINE)
PROMISES = "tests/PROMISES.md"
UNFINISHED = re.compile(r"\b(" + "|".join(("FIX" + "ME", "TO" + "DO", "X" * 3)) + r")\b")


def last_line_of_call(code, line, column):
    """Index of the line on which the call whose '(' follows (line, column) is closed."""
    depth = 0
    for number in range(line, len(code)):
        start = column if number == line else 0
        for c in code[number][start:]:
            depth += (c == "(") - (c == ")")
            if depth == 0 and c == ")":
                return number
    return line


def comment_block_start(code, comments, line):
    """First line of the comment lines that stand directly above `line`."""
    while line > 0 and not code[line - 1].strip() and comments[line - 1].strip():
        line -= 1
    return line


def comments_around(code, comments, first, last, lines_above):
    """The comment text of the lines above `first` and of first..last.  A comment block that is
    higher than `lines_above` and ends directly above the expression counts whole."""
    top = min(max(0, first - lines_above), comment_block_start(code, comments, first))
    return " ".join(comments[top:last + 1])


def check_atomics(path, code, comments):
    """Explicit orders, labels, and reasons for relaxed."""
    calls = []
    for number, line in enumerate(code):
        for match in ATOMIC_CALL.finditer(line):
            name = match.group(1)
            if IMPLICIT_OK.search(name):
                last = last_line_of_call(code, number, match.end(1))
                calls.append((number, match.start(1), last))
            else:
                yield f"{path}:{number + 1}: {name}: give the memory order (..._explicit)"
    for number, line in enumerate(code):
        for match in MEMORY_ORDER.finditer(line):
            around = [c for c in calls if c[0] <= number <= c[2] and
                      (c[0] < number or c[1] < match.start())]
            first, _, last = around[0] if around else (number, 0, number)
            if match.group(1) == "relaxed":
                above = comments_around(code, comments, first, last, RELAXED_LINES_ABOVE)
                if "relaxed" not in above:
                    yield f"{path}:{number + 1}: no comment says why this is relaxed"
            elif match.group(1) != "consume":
                above = comments_around(code, comments, first, last, LABEL_LINES_ABOVE)
                if not LABEL.search(above):
                    yield f"{path}:{number + 1}: no [label] in a comment above this memory order"


def check_labels(split):
    """Each label appears twice or more; one that the library uses, twice outside the tests."""
    places = {}
    for path, (_, comments) in split.items():
        for number, line in enumerate(comments):
            for match in LABEL.finditer(line):
                places.setdefault(match.group(1), []).append((path, number + 1))
    for label, found in sorted(places.items()):
        library = [p for p in found if not p[0].startswith("tests/")]
        counted = library or found
        if len(counted) < 2:
            yield f"{counted[0][0]}:{counted[0][1]}: label [{label}] has no partner"


def check_banned(path, code):
    """Banned calls and words of C."""
    for number, line in enumerate(code):
        for pattern, why in BANNED.items():
            match = re.search(pattern, line)
            if match:
                yield f"{path}:{number + 1}: {match.group(0).rstrip('( ')} {why}"


def check_c_functions(path, code):
    """Length and nesting of C functions: a body opens and closes in the first column."""
    start = None
    depth = 0
    for number, line in enumerate(code):
        if start is None:
            if line.startswith("{"):
                start, depth = number, 0
            continue
        if line.startswith("}"):
            lines = number - start + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{path}:{start + 1}: function of {lines} lines (limit {FUNCTION_LINES_MAX})"
            start = None
            continue
        text = line.strip()
        depth -= text.startswith("}")
        depth += text.endswith("{")
        if depth == NESTING_MAX + 1 and text.endswith("{"):
            yield f"{path}:{number + 1}: blocks nested deeper than {NESTING_MAX}"


def check_script_functions(path, text):
    """Length of Python and shell functions."""
    spans = []
    if path.endswith(".py"):
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            yield f"{path}:{error.lineno}: does not parse"
            return
        spans = [(n.lineno, n.end_lineno) for n in ast.walk(tree)
                 if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    else:
        start = None
        for number, line in enumerate(text.split("\n"), 1):
            if re.match(r"\w+\(\)", line):
                start = number
            elif line.startswith("}") and start:
                spans.append((start, number))
                start = None
    for first, last in spans:
        if last - first + 1 > FUNCTION_LINES_MAX:
            yield (f"{path}:{first}: function of {last - first + 1} lines "
                   f"(limit {FUNCTION_LINES_MAX})")


def check_text(path, text):
    """What holds for every line of a code file."""
    lines = text.split("\n")
    if not text.endswith("\n"):
        yield f"{path}:{len(lines)}: no line end at the end of the file"
    if len(lines) - 1 > FILE_LINES_MAX:
        yield f"{path}:1: file of {len(lines) - 1} lines (limit {FILE_LINES_MAX})"
    if not any("SPDX-License-Identifier: MIT" in line for line in lines[:2]):
        yield f"{path}:1: no SPDX line"
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            yield f"{path}:{number}: {len(line)} columns (limit {COLUMNS_MAX})"
        if "\t" in line:
            yield f"{path}:{number}: a tab"
        if line != line.rstrip():
            yield f"{path}:{number}: blanks at the end"


def check_unfinished(path, text):
    """Words that mark unfinished work."""
    for number, line in enumerate(text.split("\n"), 1):
        match = UNFINISHED.search(line)
        if match:
            yield f"{path}:{number}: {match.group(0)}: finish it"


def check_basenames(files):
    """Basenames of sources are unique; public headers are a name space of their own."""
    seen = {}
    for path in sorted(files):
        name = os.path.basename(path)
        if name in MAKEFILE_LIKE or not path.endswith(SOURCE_FILES + (".cmake",)):
            continue
        key = ("/include/numio/" in path, name)
        if key in seen:
            yield f"{path}:1: the basename is taken by {seen[key]}"
        seen.setdefault(key, path)


def check_readmes(files):
    """A short README.md in every folder with sources."""
    folders = {os.path.dirname(p) for p in files if p.endswith(SOURCE_FILES)}
    for folder in sorted(folders):
        covered = "/include/" in folder + "/" or (folder + "/").startswith(README_COVERS_BELOW) \
            and "/" in folder
        if folder and not covered and folder + "/README.md" not in files:
            yield f"{folder}:1: no README.md"
    for path, text in sorted(files.items()):
        lines = text.count("\n")
        if path.endswith("/README.md") and lines > README_LINES_MAX:
            yield f"{path}:1: README of {lines} lines (limit {README_LINES_MAX})"


def check_promises(files):
    """The table of what is proved by which test names tests that exist."""
    known = set()
    for path, text in files.items():
        if path.startswith("tests/") and path.endswith(".c"):
            for kind, suite, name in TEST.findall(text):
                known.add((suite, name, "" if kind == "Test" else "_*"))
    for number, line in enumerate(files.get(PROMISES, "").split("\n"), 1):
        for suite, name, star, program in PROMISED.findall(line):
            if program and f"tests/stress/{program}.c" not in files and program != "stress_X":
                yield f"{PROMISES}:{number}: there is no {program}"
            elif suite and suite != "suite" and (suite, name, star) not in known:
                yield f"{PROMISES}:{number}: there is no test {suite}::{name}{star}"


def check(files):
    """Returns the problems of {path: text}."""
    problems = list(check_basenames(files)) + list(check_readmes(files))
    problems += check_promises(files)
    split = {}
    for path, text in sorted(files.items()):
        problems += check_unfinished(path, text)
        if path.endswith(CODE_FILES):
            problems += check_text(path, text)
        if path.endswith((".py", ".sh")):
            problems += check_script_functions(path, text)
        if path.endswith(C_FILES + (".S",)):
            split[path] = repo_files.split_c(text)
        if path.endswith(C_FILES):
            code, comments = split[path]
            problems += check_atomics(path, code, comments)
            problems += check_banned(path, code)
            problems += check_c_functions(path, code)
    return problems + list(check_labels(split))


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        import tidy_cases
        sys.exit(tidy_cases.self_test(check))
    if sys.argv[1:]:
        sys.exit(__doc__)
    sys.exit(repo_files.report(check(repo_files.read_repo())))
