#!/usr/bin/env python3
"""Reads what .ci/coverage measures.

    coverage.py programs              cargo's messages on stdin; prints the programs with tests in them
    coverage.py report LCOV           the shares, room by room, and every line that no test reaches
"""

import json
import os
import re
import sys

from lint import WIRE, code_only, group_end, scan_flat

TESTS = re.compile(r"#\[cfg\((?:test|fuzzing|(?:all|any)\([^\]]*\btest\b[^\]]*)\)\]")
MODULE = re.compile(r"\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;")


def programs():
    for line in sys.stdin:
        message = json.loads(line) if line.startswith("{") else {}
        target = message.get("target", {})
        if message.get("executable") and set(target.get("kind", ())) & {"lib", "test", "bin", "example"}:
            print(message["executable"])


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def sources(root="src"):
    """path -> the lines that are not test code, 1-based; files of tests only are left out."""
    texts = {}
    for folder, _, files in os.walk(root):
        for name in files:
            if name.endswith(".rs"):
                path = os.path.join(folder, name)
                texts[path] = read(path)
    hidden, kept = [], {}
    for path, text in texts.items():
        code = code_only(text)
        lines = set(range(1, code.count("\n") + 2))
        for m in TESTS.finditer(code):
            module = MODULE.match(code, m.end())
            if module:
                base = os.path.dirname(path)
                if os.path.basename(path) not in ("mod.rs", "lib.rs"):
                    base = path[:-len(".rs")]
                hidden.append(os.path.join(base, module.group(1)))
            stop = scan_flat(code, m.end(), ("{", ";"))
            end = group_end(code, stop) if code[stop:stop + 1] == "{" else stop + 1
            first = code.count("\n", 0, m.start()) + 1
            lines -= set(range(first, code.count("\n", 0, end) + 2))
        kept[path] = lines
    is_hidden = lambda path: any(path == h + ".rs" or path.startswith(h + "/") for h in hidden)
    return {path: (texts[path].split("\n"), lines) for path, lines in kept.items() if not is_hidden(path)}


class Counts:
    """Of one file: how often each line ran, and each way of each branch."""

    def __init__(self):
        self.lines = {}
        self.branches = {}


def measured(lcov):
    files, counts = {}, Counts()
    top = os.getcwd() + "/"
    for line in read(lcov).split("\n"):
        kind, _, rest = line.partition(":")
        if kind == "SF":
            counts = files.setdefault(rest.removeprefix(top), Counts())
        elif kind == "DA":
            number, times = map(int, rest.split(",")[:2])
            counts.lines[number] = counts.lines.get(number, 0) + times
        elif kind == "BRDA":
            number, block, branch, times = rest.split(",")
            key = (int(number), block, branch)
            counts.branches[key] = counts.branches.get(key, 0) + (0 if times == "-" else int(times))
    return files


def room(path):
    parts = path.split("/")
    return "/".join(parts[:2]) + ("/" if len(parts) > 2 else "")


class Share:
    def __init__(self):
        self.hit = self.all = self.taken = self.ways = 0

    def add(self, lines, branches):
        self.hit += sum(1 for times in lines.values() if times)
        self.all += len(lines)
        self.taken += sum(1 for times in branches.values() if times)
        self.ways += len(branches)

    def __str__(self):
        percent = lambda part, whole: f"{100 * part / whole:6.2f} %" if whole else "       -"
        return (f"{percent(self.hit, self.all)} {self.hit:6}/{self.all:<6}"
                f"{percent(self.taken, self.ways)} {self.taken:5}/{self.ways}")


def report(lcov):
    files = measured(lcov)
    rooms, whole, wire, missed = {}, Share(), Share(), []
    for path, (texts, wanted) in sorted(sources().items()):
        counts = files.get(path, Counts())
        lines = {n: times for n, times in counts.lines.items() if n in wanted}
        branches = {key: times for key, times in counts.branches.items() if key[0] in wanted}
        shares = [whole, rooms.setdefault(room(path), Share())] + ([wire] if path.startswith(WIRE) else [])
        for share in shares:
            share.add(lines, branches)
        for n in sorted(lines):
            if not lines[n]:
                missed.append((path, n, texts[n - 1]))
    print(f"{'':24}{'lines':>9}{'':17}{'branches':>9}")
    for name, share in sorted(rooms.items()) + [("the wire rooms", wire), ("src/", whole)]:
        print(f"{name:24}{share}")
    print(f"\n{len(missed)} lines that no test reaches:")
    for path, n, text in missed:
        print(f"{path}:{n}: {text.strip()}")


if __name__ == "__main__":
    if sys.argv[1:] == ["programs"]:
        programs()
    elif len(sys.argv) == 3 and sys.argv[1] == "report":
        report(sys.argv[2])
    else:
        sys.exit(__doc__)
