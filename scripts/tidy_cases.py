# SPDX-License-Identifier: MIT
"""The self-test of tidy.py: for each rule a bad text and the complaint it must bring, and good
texts that must bring none."""
import repo_files

SPDX = "/* SPDX-License-Identifier: MIT */\n"
LOAD = "atomic_load_explicit(&a, memory_order_"
README = {"alloc/README.md": "alloc\n", "tests/README.md": "tests\n", "scripts/README.md": "x\n"}
UNFINISHED_WORD = "TO" + "DO"


def in_function(body):
    """A C file with one function around `body`."""
    return SPDX + "void f(void)\n{\n" + body + "\n}\n"


# ({path: text}, a part of the expected complaint)
BAD = [
    ({"alloc/a.c": SPDX + "int a;\n" * 800}, "file of 801 lines"),
    ({"alloc/a.c": SPDX + "int " + "a" * 97 + ";\n"}, "102 columns"),
    ({"alloc/a.c": SPDX + "\tint a;\n"}, "a tab"),
    ({"alloc/a.c": SPDX + "int a; \n"}, "blanks at the end"),
    ({"alloc/a.c": SPDX + "int a;"}, "no line end"),
    ({"alloc/a.c": "int a;\n"}, "no SPDX line"),
    ({"scripts/a.sh": "#!/bin/sh\n"}, "no SPDX line"),
    ({"alloc/a.c": SPDX + "/* " + UNFINISHED_WORD + " */\n"}, "finish it"),
    ({"alloc/README.md": UNFINISHED_WORD + "\n"}, "finish it"),
    ({"alloc/a.c": SPDX, "tests/a.c": SPDX}, "the basename is taken by alloc/a.c"),
    ({"numa/a.c": SPDX}, "numa:1: no README.md"),
    ({"runtime/task/a.c": SPDX}, "runtime/task:1: no README.md"),
    ({"alloc/README.md": "line\n" * 101}, "README of 101 lines"),
    ({"alloc/a.c": in_function("    g();\n" * 69)}, "function of 72 lines"),
    ({"scripts/a.py": "# " + SPDX + "def f():\n" + "    g()\n" * 70}, "function of 71 lines"),
    ({"scripts/a.sh": "# " + SPDX + "f() {\n" + "    g\n" * 70 + "}\n"}, "function of 72 lines"),
    ({"scripts/a.py": "# " + SPDX + "def f(:\n"}, "does not parse"),
    ({"alloc/a.c": in_function("if (a) {\n" * 5 + "}\n" * 5).replace("if", "    if")
      .replace("\n}\n", "\n    }\n", 5)}, "nested deeper than 4"),
    ({"alloc/a.c": in_function("    atomic_load(&a);")}, "give the memory order"),
    ({"alloc/a.c": in_function("    atomic_store(&a, 1);")}, "give the memory order"),
    ({"alloc/a.c": in_function("    " + LOAD + "acquire);")}, "no [label] in a comment above"),
    ({"alloc/a.c": in_function("    /* [AB1] [AB1] */\n" + "    g();\n" * 6 + LOAD + "acquire);")},
     "no [label] in a comment above"),
    ({"alloc/a.c": in_function("    g(memory_order_release);")}, "no [label] in a comment above"),
    ({"alloc/a.c": in_function("    " + LOAD + "relaxed);")}, "why this is relaxed"),
    ({"alloc/a.c": in_function("    const char *s = \"relaxed\";\n" + LOAD + "relaxed);")},
     "why this is relaxed"),
    ({"alloc/a.c": SPDX + "/* [AB1] acquire */\n"}, "[AB1] has no partner"),
    ({"alloc/a.c": SPDX + "/* [AB1] */\n", "tests/b.c": SPDX + "/* [AB1] */\n"},
     "[AB1] has no partner"),
    ({"tests/PROMISES.md": "`a::b`\n"}, "no test a::b"),
    ({"tests/PROMISES.md": "`a::b`\n", "tests/test_a.c": SPDX + "EACH_PROFILE(a, b)\n"},
     "no test a::b"),
    ({"tests/PROMISES.md": "`a::b_*`\n", "tests/test_a.c": SPDX + "Test(a, b_x)\n"},
     "no test a::b_*"),
    ({"tests/PROMISES.md": "`stress_a`\n"}, "no stress_a"),
] + [
    ({"alloc/a.c": in_function("    " + call)}, "is banned") for call in (
        "sprintf(b, s);", "vsprintf(b, s, v);", "strcpy(a, b);", "strcat(a, b);", "gets(a);",
        "p = alloca(8);", "n = atoi(s);", "s = strtok(a, b);", "n = rand();", "srand(1);",
        "atomic_thread_fence(memory_order_seq_cst); /* [AB1], [AB1] */", "volatile int a;",
        "typedef struct a b;", "__sync_synchronize();", "__atomic_load_n(&a, 0);",
        LOAD + "consume);")
]

GOOD = [
    {"tests/PROMISES.md": "`a::b`, `a::c_*`, `stress_a`, `scripts/a.py`\n",
     "tests/test_a.c": SPDX + "Test(a, b, .timeout = 5)\nFIXTURE_EACH(a, c)\n",
     "tests/stress/stress_a.c": SPDX},
    {"alloc/a.c": in_function("    g();\n" * 67)},
    {"alloc/a.c": in_function("    /* [AB1] acquire, pairs with [AB2] */\n"
                              "    " + LOAD + "acquire);\n"
                              "    /* [AB2] release, pairs with [AB1] */\n"
                              "    atomic_store_explicit(&a, 1,\n"
                              "                          memory_order_release);")},
    {"alloc/a.c": in_function("    /* [AB1] [AB1]\n" + "     * why\n" * 7 + "     */\n    " + LOAD
                              + "acquire);")},
    {"alloc/a.c": in_function("    /* relaxed: a counter */\n    " + LOAD + "relaxed);")},
    {"alloc/a.c": in_function("    " + LOAD + "relaxed); /* relaxed: a counter */")},
    {"alloc/a.c": in_function("    atomic_init(&a, 0);\n    __asm__ volatile(\"\");\n"
                              "    snprintf(b, 1, \"volatile rand() strcpy(\"); /* atoi() */")},
    {"alloc/a.h": SPDX, "alloc/include/numio/a.h": SPDX},
    {"tests/stress/stress_a.c": SPDX,
     "scripts/a.sh": "#!/bin/sh\n# SPDX-License-Identifier: MIT\n"},
    {"alloc/a.c": in_function("    int a[] = {\n        1,\n    };\n    char c = '\"';\n"
                              "    g(\"{\");")},
]


def self_test(check):
    """Runs all cases through `check`; returns the exit status."""
    wrong = []
    for files, expected in BAD:
        problems = check({**README, **files})
        if not any(expected in p for p in problems):
            wrong.append(f"self-test: {files!r}: no complaint with {expected!r} in {problems}")
    for files in GOOD:
        problems = check({**README, **files})
        if problems:
            wrong.append(f"self-test: {files!r}: unexpected {problems}")
    total = len(BAD) + len(GOOD)
    print(f"tidy.py: {total - len(wrong)} of {total} self-tests pass")
    return repo_files.report(wrong)
