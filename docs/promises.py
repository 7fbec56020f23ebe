#!/usr/bin/env python3
"""Which test shows which case of `docs/promises.tsv`; written to `docs/PROMISES.md`.

    promises.py              writes PROMISES.md; status 1 when a case has no test or a test an unknown id
    promises.py --check      the same without writing; also when PROMISES.md is stale
    promises.py --list ID    the tests of one case, with their lines
    promises.py --self-test  checks the reader of tests

A test shows a case when its name begins with the case's id (`fn fr_03_reserved_opcodes_are_refused`, several ids in
a row, or a range: `hs_06_to_21_..`), or when a comment in it or directly above it begins with the id (`// HS-07`, `/// HS-07:`).
An example in the documentation of an item shows a case when a comment in it names the id.
"""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CASES = "docs/promises.tsv"
FIGURES = "docs/promises-figures.md"
OUT = "docs/PROMISES.md"
SOURCES = ("src", "tests")

PROMISES = [
    ("P1", "Nothing takes the program down",
     "No bytes of a peer, no result of a system call, no limit that is reached and nothing that a callback does makes the "
     "library panic, abort, hang or spin. A panic in a callback leaves `service()` as that panic and ends the one "
     "connection; the next `service()` goes on with all the others."),
    ("P2", "One end each, with its reason",
     "Every attempt and every connection ends in exactly one final event that says why, and hears nothing after it."),
    ("P3", "Memory has a bound that you set",
     "Per connection and per context, before and after the handshake, compressed or not, bookkeeping included. Nothing is "
     "allocated because a peer declared a length."),
    ("P4", "No state lasts for ever",
     "Each has a total deadline on the monotonic clock, which slow bytes do not extend."),
    ("P5", "Strict where readers could differ, lenient where the RFC is",
     "Framing, masks, UTF-8 and the numbers of headers are read in one way only; lists, letter case and cut lines as "
     "freely as the specifications say."),
    ("P6", "How bytes are cut does not matter",
     "Any division of the same bytes into reads, TLS records and wake-ups gives the same callbacks in the same order."),
    ("P7", "Messages are whole",
     "One that arrives is delivered whole, valid and in order, or not at all. One that `send` took goes out whole and in "
     "order, or is counted as not delivered."),
    ("P8", "Ending things is safe everywhere",
     "Oneself, others, the context: in every state, in every callback, with any handle. A name of what has gone is an "
     "error value."),
    ("P9", "TLS does not weaken in silence",
     "Peers are verified, nothing falls back to plaintext, the server name does not choose the policy, who asks for no "
     "certificates sends no request for them, and new settings are taken whole or not at all."),
    ("P10", "Everybody gets a turn",
     "A peer has a budget for each turn, accepting survives the want of descriptors, and work is in proportion to bytes."),
    ("P11", "Misuse is an error value", "It is told where it happens, in words that say what to do instead."),
    ("P12", "What went wrong once stays a test",
     "Each crash that was ever found here, and each published weakness of other implementations that concerns us."),
]

GROUPS = {
    "HS": "Opening handshake of a server", "HC": "Opening handshake of a client", "FR": "Framing", "U8": "UTF-8",
    "CL": "Close", "PM": "Compression", "HT": "HTTP/1", "TL": "TLS", "DP": "One port, two protocols",
    "TM": "Deadlines, slow peers, clocks", "RS": "Limits and errors of the system", "IO": "Schedules of reads and writes",
    "DN": "Names and dialling", "PX": "Proxies", "RE": "Threads, handles, reentrancy, panics",
    "RC": "Reconnecting, pools, shutdown", "H2": "HTTP/2",
}

HEAD = """# Promises

What this library promises when peers are hostile, networks faulty and callers careless, the cases that show it, and the
tests that show these. Written by `docs/promises.py` from `docs/promises.tsv` and the tests; `.ci/check` fails when a case
has no test, when a test names an id that is not here, or when this page is not what the script writes. Do not edit it.

A case holds when all of its tests pass: `cargo test`, with the features in the README. `python3 docs/promises.py --list
HS-01` lists the tests of one with their lines. What stands in brackets: RFCs with their sections, and published weaknesses.
"""


class Bad(Exception):
    """What is wrong with the list of cases."""


# --- the cases ---------------------------------------------------------------------------------

def read_cases(text):
    cases, promises = {}, {p[0] for p in PROMISES}
    for number, row in enumerate(text.splitlines()[1:], 2):
        cells = row.split("\t")
        cells += [""] * (6 - len(cells))
        ident = cells[0]
        if len(cells) != 6 or not re.fullmatch(r"[A-Z][A-Z0-9]-\d\d", ident):
            raise Bad("%s:%d: not a case" % (CASES, number))
        if ident in cases or ident[:2] not in GROUPS:
            raise Bad("%s:%d: %s is here twice or of no group" % (CASES, number, ident))
        unknown = [p for p in cells[1].split() if p not in promises]
        if unknown or not cells[1].strip():
            raise Bad("%s:%d: promises %r" % (CASES, number, cells[1]))
        cases[ident] = dict(promises=cells[1].split(), case=cells[2], expected=cells[3], references=cells[4], waiting=cells[5])
    return cases


# --- the tests ---------------------------------------------------------------------------------

TEST = re.compile(r"^(?P<indent> *)#\[test\]\n", re.M)
NAME = re.compile(r"\bfn (\w+)")
IN_COMMENT = re.compile(r"^\s*(?:///?|// //) ?(?:# )?(?://+ )?((?:[A-Z][A-Z0-9]-\d\d(?:, | and )?)+)\b", re.M)
ID = re.compile(r"[A-Z][A-Z0-9]-\d\d")
EXAMPLE = re.compile(r"^ *(?://[/!]) ?```.*?^ *(?://[/!]) ?```$", re.M | re.S)


def ids_of_name(name):
    """`hs_06_hs_14_other` names HS-06 and HS-14; `hs_06_to_08_x` all that are listed from HS-06 to HS-08."""
    found, at = [], 0
    while True:
        m = re.compile(r"([a-z][a-z0-9])_(\d\d)_(?:to_(\d\d)_)?").match(name, at)
        if not m:
            return found
        group, first, last = m.group(1).upper(), int(m.group(2)), int(m.group(3) or m.group(2))
        found += ["%s-%02d" % (group, n) for n in range(first, last + 1)]
        at = m.end()


def is_range(name):
    return re.match(r"[a-z][a-z0-9]_\d\d_to_\d\d_", name) is not None


def tests_of(text):
    """(line, name, ids, ids that need not be listed) of each test of a file."""
    for m in TEST.finditer(text):
        name = NAME.search(text, m.end())
        close = re.compile(r"^%s\}" % m.group("indent"), re.M).search(text, name.end())
        body = text[comments_above(text, m.start()):close.end() if close else len(text)]
        ids = ids_of_name(name.group(1))
        said = [i for c in IN_COMMENT.finditer(body) for i in ID.findall(c.group(1))]
        spared = set(ids) if is_range(name.group(1)) else set()
        yield text.count("\n", 0, name.start()) + 1, name.group(1), sorted(set(ids + said)), spared
    for m in EXAMPLE.finditer(text):
        said = [i for c in IN_COMMENT.finditer(m.group()) for i in ID.findall(c.group(1))]
        if said:
            item = re.compile(r"^ *(?:pub(?:\(\w+\))? )?(?:const )?(fn|struct|enum|trait|mod) (\w+)", re.M).search(text, m.end())
            name = "the example of `%s`" % item.group(2) if item and "//!" not in m.group() else "the example of the module"
            yield text.count("\n", 0, m.start()) + 1, name, sorted(set(said)), set()


def comments_above(text, start):
    """Where the comments and attributes directly above an offset begin."""
    while start:
        line = text.rfind("\n", 0, start - 1) + 1
        if not re.match(r" *(//(?!!)|#\[)", text[line:start]):
            break
        start = line
    return start


def read_tests(root):
    for source in SOURCES:
        for folder, folders, files in os.walk(os.path.join(root, source)):
            folders.sort()
            for name in sorted(files):
                if name.endswith(".rs"):
                    path = os.path.join(folder, name)
                    with open(path, encoding="utf-8") as f:
                        for line, test, ids, spared in tests_of(f.read()):
                            yield os.path.relpath(path, root).replace(os.sep, "/"), line, test, ids, spared


def shown(cases, tests):
    """The tests of each case, and what is wrong."""
    by_case, wrong = {ident: [] for ident in cases}, []
    for path, line, name, ids, spared in tests:
        for ident in ids:
            if ident in cases:
                by_case[ident].append((path, line, name))
            elif ident not in spared:
                wrong.append("%s:%d: %s names %s, which %s does not list" % (path, line, name, ident, CASES))
    for ident, case in cases.items():
        if not by_case[ident] and not case["waiting"]:
            wrong.append("%s: %s has no test" % (CASES, ident))
    return by_case, wrong


# --- the page ----------------------------------------------------------------------------------

def page(cases, by_case, figures):
    waiting = [i for i, c in cases.items() if c["waiting"] and not by_case[i]]
    tests = {t for found in by_case.values() for t in found}
    out = [HEAD]
    out.append("%d cases: %d shown by %d tests, %d waiting for features that are not here yet.\n"
               % (len(cases), len(cases) - len(waiting), len(tests), len(waiting)))
    out.append("## The promises\n")
    for key, title, words in PROMISES:
        mine = [i for i, c in cases.items() if key in c["promises"]]
        links = ", ".join("[%s](#%s)" % (i, i.lower()) + (" (waiting)" if i in waiting else "") for i in mine)
        out.append("### %s %s\n\n%s\n\n%s.\n" % (key, title, words, links))
    if figures:
        out.append(figures.strip() + "\n")
    out.append("## The cases\n")
    for group, title in GROUPS.items():
        rows = [(i, c) for i, c in cases.items() if i.startswith(group)]
        if rows:
            out.append("### %s\n\n| Case | Given | Expected | Shown by |\n|---|---|---|---|" % title)
            out += [row(i, c, by_case[i]) for i, c in rows]
            out.append("")
    return "\n".join(out).rstrip() + "\n"


def row(ident, case, found):
    given = cell(case["case"]) + (" (%s)" % cell(case["references"]) if case["references"] else "")
    names = []
    for path in sorted({p for p, _, _ in found}):
        here = [n if n.startswith("the ") else "`%s`" % n for p, _, n in found if p == path]
        names.append("[%s](../%s): %s" % (path, path, ", ".join(here)))
    if not names:
        names = [case["waiting"] or "nothing"]
    return '| <a id="%s"></a>%s | %s | %s | %s |' % (ident.lower(), ident, given, cell(case["expected"]), "<br>".join(names))


def cell(text):
    return text.replace("|", "\\|")


# --- the reader checked ------------------------------------------------------------------------

SAMPLES = [  # Rust, the ids of each test in it
    ("#[test]\nfn fr_03_x() {\n}\n", [["FR-03"]]),
    ("fn fr_03_x() {}\n", []),
    ("#[test]\nfn hs_06_hs_14_x() {\n}\n", [["HS-06", "HS-14"]]),
    ("#[test]\nfn hs_06_to_08_x() {\n}\n", [["HS-06", "HS-07", "HS-08"]]),
    ("    /// HS-07: and more.\n    #[cfg(unix)]\n    #[test]\n    fn x() {\n        y();\n    }\n", [["HS-07"]]),
    ("/// Something else.\nfn a() {}\n\n#[test]\nfn x() {\n    // RE-01, RE-02: both\n}\n// HS-01\n", [["RE-01", "RE-02"]]),
    ("#[test]\n#[cfg(unix)]\nfn rs_09_x() {\n    let u = \"UTF-16\";\n}\n", [["RS-09"]]),
    ("#[test]\nfn x_1() {\n    // As in RE-01.\n}\n", [[]]),
    ("/// Words.\n/// ```compile_fail\n/// // RE-12\n/// f();\n/// ```\npub fn f() {}\n", [["RE-12"]]),
    ("/// ```\n/// f();\n/// ```\n/// RE-12 in words\npub fn f() {}\n", []),
]


def self_test():
    for text, want in SAMPLES:
        found = [ids for _, _, ids, _ in tests_of(text)]
        if found != want:
            sys.exit("promises: self-test: %r: wanted %r, found %r" % (text, want, found))
    print("promises: %d samples read as they should be" % len(SAMPLES))


def read(path, missing=None):
    try:
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            return f.read()
    except FileNotFoundError:
        if missing is None:
            raise
        return missing


def main():
    arguments = sys.argv[1:]
    if arguments == ["--self-test"]:
        return self_test()
    try:
        cases = read_cases(read(CASES))
    except Bad as error:
        sys.exit("promises: %s" % error)
    by_case, wrong = shown(cases, list(read_tests(ROOT)))
    if arguments[:1] == ["--list"]:
        for ident in arguments[1:]:
            for found in by_case.get(ident, []):
                print("%s %s:%d: %s" % ((ident,) + found))
        return None
    text = page(cases, by_case, read(FIGURES, ""))
    if arguments == ["--check"]:
        if text != read(OUT, ""):
            wrong.append("%s is stale: python3 docs/promises.py" % OUT)
    elif arguments:
        sys.exit(__doc__)
    else:
        with open(os.path.join(ROOT, OUT), "w", encoding="utf-8") as f:
            f.write(text)
    print("\n".join(wrong + ["promises: %d cases, %d findings" % (len(cases), len(wrong))]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
