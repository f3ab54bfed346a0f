# SPDX-License-Identifier: MIT
"""What layers.py and tidy.py share: the repository's files, and C split into code and comments."""
import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SKIPPED_FOLDERS = {".git", "build", "shared", "__pycache__", "target"}


def listed_paths():
    """Paths that git knows or would add; every file outside SKIPPED_FOLDERS where git is absent."""
    command = ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        paths = done.stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        paths = []
        for folder, folders, names in os.walk(ROOT):
            folders[:] = [f for f in folders if f not in SKIPPED_FOLDERS]
            paths += [os.path.relpath(os.path.join(folder, n), ROOT) for n in names]
    return sorted(p for p in set(paths) if p.split("/")[0] not in SKIPPED_FOLDERS)


def read_repo():
    """Returns {path from the root: text} of all text files."""
    files = {}
    for path in listed_paths():
        full = os.path.join(ROOT, path)
        if not os.path.isfile(full) or os.path.islink(full):
            continue
        try:
            with open(full, encoding="utf-8") as stream:
                files[path] = stream.read()
        except UnicodeDecodeError:
            continue
    return files


def _end_of_literal(text, start):
    """Index after the string or character literal that opens at `start`."""
    quote = text[start]
    i = start + 1
    while i < len(text) and text[i] not in (quote, "\n"):
        i += 2 if text[i] == "\\" else 1
    return min(i + 1, len(text))


def split_c(text):
    """Returns (code lines, comment lines), both as long as the text: what belongs to the other,
    and the inside of literals, is blank, so that line and column numbers stay."""
    code = []
    comment = []
    i = 0

    def emit(upto, keep_code, keep_comment):
        for c in text[i:upto]:
            code.append(c if keep_code or c == "\n" else " ")
            comment.append(c if keep_comment or c == "\n" else " ")

    while i < len(text):
        if text.startswith("/*", i):
            end = text.find("*/", i + 2)
            end = len(text) if end < 0 else end + 2
            emit(end, False, True)
        elif text.startswith("//", i):
            end = text.find("\n", i)
            end = len(text) if end < 0 else end
            emit(end, False, True)
        elif text[i] in "\"'":
            end = _end_of_literal(text, i)
            emit(end, False, False)
            code[len(code) - (end - i)] = text[i]
            code[-1] = text[end - 1]
        else:
            end = i + 1
            emit(end, True, False)
        i = end
    return "".join(code).split("\n"), "".join(comment).split("\n")


def report(problems):
    """Prints the problems; returns the exit status."""
    for problem in problems:
        print(problem)
    return 1 if problems else 0
