#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""layers.py [--self-test]: fails on an include that goes against the order of the layers.

  base < numa < alloc < task, coro, time < driver < sched < blocking, sync, scope, io, net, fs, xdp
    < runtime
  - an include goes to the same layer, to a peer on the same level, or downward;
  - <numio/x.h> is public, "folder/x.h" is private and written from the repository's root;
  - hwloc is included in numa/ only, jemalloc in alloc/ only, liburing in runtime/driver/ only,
    those of libxdp and libbpf in runtime/xdp/ only;
  - a public header includes public and system headers only;
  - the tool, perf and examples use public headers, and quoted ones of their own folder only;
    PRIVATE_ALLOWED lists the exceptions, and each must be used;
  - tests may include everything;
  - a .c that has a header of its own includes it first.
"""
import os
import re
import sys

import repo_files

LEVELS = [
    ["base"],
    ["numa"],
    ["alloc"],
    ["task", "coro", "time"],
    ["driver"],
    ["sched"],
    ["blocking", "sync", "scope", "io", "net", "fs", "xdp"],
    ["runtime"],
]
LEVEL = {layer: level for level, layers in enumerate(LEVELS) for layer in layers}
# The public headers that base may include; it knows nothing else of numio.
BASE_PUBLIC = {"numio/base.h", "numio/error.h"}
THIRD_PARTY = {"hwloc": "numa/", "jemalloc": "alloc/", "liburing": "runtime/driver/",
               "xdp": "runtime/xdp/", "bpf": "runtime/xdp/"}
OUTSIDE = ("runtime/tool/", "perf/", "examples/", "tests/")
# (file outside, private header that it may include): each with its reason.
PRIVATE_ALLOWED = {
    # It measures the bare context switch, which nothing public reaches without a scheduler.
    ("perf/bench/bench_switch.c", "runtime/coro/coro.h"),
    # It simulates what the scheduler decides by the scheduler's own functions.
    ("perf/model/model.c", "runtime/sched/policy.h"),
    ("perf/model/model.c", "runtime/base/rng.h"),
    # Its figures are made as the load generator's: the same histogram and clock.
    ("perf/xdp/trip.h", "perf/load/load_hist.h"),
    ("perf/xdp/trip_numio.c", "perf/load/load_conn.h"),
    ("perf/xdp/trip_plain.c", "perf/load/load_conn.h"),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def layer_of(path):
    """The layer of a source file, None outside the layers."""
    if path.startswith(OUTSIDE) or "/include/" in path:
        return None
    parts = path.split("/")
    if parts[0] in ("numa", "alloc"):
        return parts[0]
    if parts[0] != "runtime":
        return None
    return parts[1] if len(parts) > 2 else "runtime"


def third_party_of(name):
    """The library that a header belongs to, None for others."""
    for library in THIRD_PARTY:
        if name == library + ".h" or name.startswith((library + "/", library + "_")):
            return library
    return None


def includes_of(text):
    """Yields (line number, is quoted, name) of each include."""
    for number, line in enumerate(text.split("\n"), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1) == '"', match.group(2)


def check_private(path, name, files):
    """What is wrong with a quoted include."""
    folder = os.path.dirname(path)
    if "/include/numio/" in path:
        return "a public header includes the private " + name
    if path.startswith(OUTSIDE[:-1]):
        if (path, name) in PRIVATE_ALLOWED and name in files:
            return None
        own = name.startswith(folder + "/") or os.path.join(folder, name) in files
        return None if own else "only public headers may be used here, not " + name
    if name not in files:
        return f"{name} is no file from the repository's root"
    if "/include/numio/" in name:
        return f"{name} is public: include it as <numio/...>"
    if path.startswith("tests/"):
        return None
    mine, its = layer_of(path), layer_of(name)
    if its is None:
        return f"{name} is outside the layers"
    if its not in LEVEL or mine not in LEVEL:
        return f"{its if mine in LEVEL else mine} is no known layer"
    if LEVEL[its] > LEVEL[mine]:
        return f"{mine} is below {its}: it may not include {name}"
    return None


def check_angle(path, name, files):
    """What is wrong with an include in angle brackets."""
    library = third_party_of(name)
    if library:
        if "/include/numio/" in path:
            return f"a public header includes {name}"
        if not path.startswith((THIRD_PARTY[library], "tests/", "perf/")):
            return f"{library} belongs to {THIRD_PARTY[library]} only"
        return None
    if name.startswith("numio/"):
        homes = [m for m in ("runtime", "numa", "alloc") if f"{m}/include/{name}" in files]
        if not homes:
            return f"<{name}> does not exist"
        mine = layer_of(path)
        if mine == "base" and name not in BASE_PUBLIC:
            return f"base may not know <{name}>"
        if mine in LEVEL and homes[0] != "runtime" and LEVEL[homes[0]] > LEVEL[mine]:
            return f"{mine} is below {homes[0]}: it may not include <{name}>"
        return None
    if any(p.endswith("/" + name) for p in files if p.startswith(("runtime/", "numa/", "alloc/"))
           and p.split("/")[-2] == name.split("/")[0] and "/" in name):
        return f"<{name}> is private: write it in quotes, from the repository's root"
    return None


def check_own_first(path, text, files):
    """A .c with a header of its own includes that one first."""
    stem = path[:-2]
    own = [stem + ".h"] if stem + ".h" in files else []
    first = next(((n, q, name) for n, q, name in includes_of(text)), None)
    if not own or first is None or first[2] in own:
        return []
    return [f"{path}:{first[0]}: the first include must be \"{own[0]}\""]


def check_exceptions(files):
    """An exception that nobody needs any more must go."""
    for path, name in sorted(PRIVATE_ALLOWED):
        if path in files and not any(n == name for _, _, n in includes_of(files[path])):
            yield f"{path}:1: PRIVATE_ALLOWED has {name}, which is not included here"


def check(files):
    """Returns the problems of {path: text}."""
    problems = list(check_exceptions(files))
    for path, text in sorted(files.items()):
        if not path.endswith((".c", ".h", ".S")):
            continue
        layer = layer_of(path)
        if layer is not None and layer not in LEVEL:
            problems.append(f"{path}:1: folder {layer} is no known layer")
            continue
        for number, quoted, name in includes_of(text):
            wrong = (check_private if quoted else check_angle)(path, name, files)
            if wrong:
                problems.append(f"{path}:{number}: {wrong}")
        if path.endswith(".c"):
            problems += check_own_first(path, text, files)
    return problems


SELF_TEST_FILES = {
    "runtime/include/numio/base.h": "",
    "runtime/include/numio/task.h": "",
    "alloc/include/numio/arena.h": "",
    "runtime/base/lock.h": "",
    "runtime/task/state.h": "",
    "runtime/coro/coro.h": "",
    "runtime/coro/stack.h": "",
    "runtime/sched/worker.h": "",
    "numa/plan.h": "",
    "runtime/tool/draw.h": "",
}
# (path, text, a part of the expected complaint; None where there must be none)
SELF_TEST_CASES = [
    ("runtime/task/a.c", '#include "runtime/sched/worker.h"', "task is below sched"),
    ("runtime/base/a.c", '#include "numa/plan.h"', "base is below numa"),
    ("runtime/base/a.c", "#include <numio/task.h>", "base may not know"),
    ("numa/a.c", "#include <numio/arena.h>", "numa is below alloc"),
    ("numa/a.c", '#include "alloc/none.h"', "no file from the repository's root"),
    ("runtime/sched/a.c", "#include <hwloc.h>", "hwloc belongs to numa/"),
    ("numa/a.c", "#include <jemalloc/jemalloc.h>", "jemalloc belongs to alloc/"),
    ("runtime/io/a.c", "#include <liburing.h>", "liburing belongs to runtime/driver/"),
    ("runtime/io/a.c", "#include <numio/none.h>", "does not exist"),
    ("runtime/io/a.c", "#include <base/lock.h>", "is private"),
    ("runtime/io/a.c", '#include "runtime/include/numio/task.h"', "is public"),
    ("runtime/include/numio/x.h", "#include <liburing.h>", "public header includes"),
    ("runtime/include/numio/x.h", '#include "numa/plan.h"', "includes the private"),
    ("runtime/odd/a.c", "", "odd is no known layer"),
    ("runtime/tool/a.c", '#include "numa/plan.h"', "only public headers"),
    ("examples/a.c", '#include "runtime/base/lock.h"', "only public headers"),
    ("perf/bench/a.c", '#include "runtime/coro/coro.h"', "only public headers"),
    ("perf/bench/bench_switch.c", '#include "runtime/coro/coro.h"\n#include "numa/plan.h"',
     "only public headers"),
    ("perf/bench/bench_switch.c", "#include <errno.h>", "not included here"),
    ("runtime/sched/worker.c", '#include <errno.h>\n#include "runtime/sched/worker.h"',
     "the first include must be"),
    ("runtime/task/a.c", '#include "runtime/coro/stack.h"', None),
    ("runtime/coro/a.c", '#include "runtime/task/state.h"', None),
    ("runtime/sched/worker.c", '#include "runtime/sched/worker.h"\n#include <errno.h>', None),
    ("numa/a.c", "#include <hwloc.h>\n#include <hwloc/linux.h>", None),
    ("runtime/driver/a.c", "#include <liburing.h>\n#include <numio/task.h>", None),
    ("runtime/runtime.c", '#include "runtime/sched/worker.h"', None),
    ("runtime/tool/a.c", '#include "runtime/tool/draw.h"\n#include <numio/task.h>', None),
    ("perf/bench/bench_switch.c", '#include "runtime/coro/coro.h"', None),
    ("tests/test_a.c", '#include "runtime/sched/worker.h"', None),
]


def self_test():
    """Feeds each rule a bad file and expects its complaint."""
    wrong = []
    for path, text, expected in SELF_TEST_CASES:
        problems = check({**SELF_TEST_FILES, path: text})
        if expected is None and problems:
            wrong.append(f"self-test: {path}: {text!r}: unexpected {problems}")
        elif expected is not None and not any(expected in p for p in problems):
            wrong.append(f"self-test: {path}: {text!r}: no complaint with {expected!r}")
    total = len(SELF_TEST_CASES)
    print(f"layers.py: {total - len(wrong)} of {total} self-tests pass")
    return repo_files.report(wrong)


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test())
    if sys.argv[1:]:
        sys.exit(__doc__)
    sys.exit(repo_files.report(check(repo_files.read_repo())))
