#!/usr/bin/env python3
"""Reads what .ci/coverage measures.

    coverage.py programs              cargo's messages on stdin; prints the programs with tests in them
    coverage.py report LCOV           the shares, room by room, and every line that no test reaches
    coverage.py document LCOV FILE    writes both into FILE between its markers, the lines by the reasons below;
                                      status 1 when a line has none
"""

import json
import os
import re
import sys
import textwrap

from lint import WIRE, code_only, functions, group_end, scan_flat

# --- why a line may stay without a test --------------------------------------------------------------
# (heading, reason, paths, text of the line, text of the line before it, name of the function); the first that
# fits counts. What is not given fits everything.

ANY = r""
WIDTH = 119
REASONS = [
    ("Other platforms",
     "Linux on x86-64 never comes here.",
     r"net/", r"windows|solaris|of\.(bsd|linux)|target_(os|arch)|NO_SIGNAL|set_nodelay|bufs\.iter|stream\.write\(first",
     ANY, ANY),
    ("Other platforms", "", r"net/(mod|stream|listen)\.rs", ANY, ANY, r"^(by_family|set_nodelay)$"),
    ("Other platforms", "", r"net/listen\.rs", r"already shows", ANY, ANY),
    ("How a type is shown, copied or made by default",
     "`Debug` of what stands in for an object that has none, `Clone` of handles that are `Copy`, `source` and `From` of "
     "errors, `Default` beside a `new`: each is one line, and the compiler says what is wrong with it.",
     ANY, ANY, ANY, r"^(fmt|clone|source|from|default)$"),
    ("Defaults of callbacks", "They do nothing, and nothing is what they are tested for elsewhere.",
     r"(protocol|handler|hook)\.rs", ANY, ANY, r"^on_"),
    ("Only a failing system comes here",
     "An error that the kernel, the file system, the allocator or the source of randomness would have to return at a "
     "call at which no test lets it: a poll or a registration that fails, `write` of nothing, a thread that cannot "
     "begin, a file from before 1970 or that loses its permission between two calls.",
     r"net/|mount/|service(/accept)?\.rs|vhost\.rs|tls/(pem|der|identity)\.rs|lift\.rs|exchange\.rs",
     r"Err\(|WriteZero|Fate::Drop|live -= 1|per_ip|\*count|before\.duration|PermissionDenied|may not be read"
     r"|cannot be read now|set_outcome\(ExchangeOutcome::Aborted\)|self\.end_now\(\)|source,|Ok\(0\) =>|^\}\)\?;$"
     r"|ReadyFlags::WRITABLE|VhostError::TooMany|detach\(|self\.disown|shutdown_write|^\),$|Ok\(\(\)\) => \{\}",
     ANY, ANY),
    ("Only a failing system comes here", "", r"(net|mount)/|service(/accept)?\.rs", ANY, ANY, r"^(to_io_error|disown|bind|poll)$"),
    ("Only a failing system comes here", "", r"dial\.rs", r"ResolveRefused|ConnectFailure::Resolve\(", ANY, ANY),
    ("Only a failing system comes here", "", r"lift\.rs|tls/mod\.rs", r"return true|Library", r"shutdown_write|library", ANY),
    ("Only a failing system comes here", "", r"ws/", r"MemError|DeflateMemory", ANY, ANY),
    ("What rustls or the compressor would have to do",
     "States that their types allow, and that the versions used here do not show: they are handled so that a new "
     "version cannot surprise. Among them the refusal of a full window by the compressor, keys that are used up after "
     "2^24 records or more, and errors of rustls that no peer has been found to cause.",
     r"tls/(unbuffered|failure|session(/calm)?|last_alert|info|mod|tap|hello|error|trace|verify|server|client|identity)\.rs"
     r"|secure(/\w+)?\.rs|rotation\.rs|ws/deflate/|ws/recv/inflated\.rs|ws/recv\.rs",
     ANY, ANY, ANY),
    ("A variant of a list", "One line for each variant of a `match` that has to name all: others of the list are tested.",
     ANY, r"^\|? ?\(?(Self|Some\(CloseKind|ConnectStage|ConnectFailure|FetchFailure|HookPurpose|TimerKind|CloseKind"
     r"|SendError)\b.*(=>|\|)|^'|^\(?\w+, Some|^0 => write", ANY, ANY),
    ("A guard against what the caller has ruled out",
     "The types allow it and the code around it does not: a role, a phase or a stage that was looked at just before, an "
     "identifier that was found, an `if let` that always fits (then the closing brace counts as its other way). They "
     "return and do nothing, in place of a panic.",
     ANY, r"^\}$|^\}?\)\?;$", ANY, ANY),
    ("A guard against what the caller has ruled out", "", ANY, r"^(\w.*=> )?(return|break|continue)\b.*[;,]$", ANY, ANY),
    ("A guard against what the caller has ruled out", "", ANY,
     r"^(Role|Phase|State|Stage|Link|Client|Entry|Owner|_|None|NO_PROTOCOL|\(|Validity|Ok\(\(\)\)|Err\(_\))", ANY, ANY),
    ("A guard against what the caller has ruled out", "", r"lift\.rs|ws/send\.rs",
     r"read_end\(\)\.unwrap_or|self\.flat = pool\.take_roomy", ANY, ANY),
    ("A guard against what the caller has ruled out", "", r"lift/run\.rs", r"self\.put_back\(", ANY, ANY),
    ("A guard against what the caller has ruled out", "", r"secure_none\.rs", ANY, ANY, r"^visit_records_calmly$"),
    ("Two things at once",
     "A connection that an HTTP client has taken from its pool ends, is shut down or times out in the same turn, before "
     "the request is on it; a limit of identifiers is reached. Random scripts may come here (the fuzz target `api`); no test asks for it.",
     r"fetch/", ANY, ANY, ANY),
    ("Corners",
     "Each could be reached, by a test that says more about itself than about the library: the vhost of a webhook that "
     "cannot be made, its question that cannot be asked again, a paused connection whose message is overdue, "
     "a response head that the scanner has let pass, two simulated listeners on one port.",
     r"dial\.rs|webhook/engine\.rs|lift\.rs|upgrade\.rs|answers\.rs|vhost\.rs|net/sim",
     r"ConnectFailure::Response|\.finish\(|deadlines\.message|forget_clients|WakeHandle::Os|pick\(&mut|bind\b",
     ANY, ANY),
    ("Small readers", "They return a field.", ANY, ANY, ANY, r"^(vhost|value|reason|url|headers|header_str|is_foreign"
     r"|received_records|compressed_bound|local_addr)$"),
]

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

    def row(self):
        percent = lambda part, whole: f"{100 * part / whole:.2f} %" if whole else ""
        return (f" {percent(self.hit, self.all)} | {self.hit} of {self.all} "
                f"| {percent(self.taken, self.ways)} | {self.taken} of {self.ways} |")

    def __str__(self):
        percent = lambda part, whole: f"{100 * part / whole:6.2f} %" if whole else "       -"
        return (f"{percent(self.hit, self.all)} {self.hit:6}/{self.all:<6}"
                f"{percent(self.taken, self.ways)} {self.taken:5}/{self.ways}")


class Missed:
    """A line that no test reaches."""

    def __init__(self, path, number, texts, names):
        self.path, self.number = path, number
        self.text, self.before = texts[number - 1].strip(), texts[number - 2].strip()
        self.name = names.get(number, "")

    def reason(self):
        for at, (_, _, path, text, before, name) in enumerate(REASONS):
            tests = ((path, self.path), (text, self.text), (before, self.before), (name, self.name))
            if all(re.search(pattern, what) for pattern, what in tests):
                return REASONS[at][0]
        return None


def names_of(text):
    """line -> the innermost function that it is part of."""
    names = {}
    for name, first, length in functions(code_only(text)):
        names.update((number, name) for number in range(first, first + length))
    return names


def measure(lcov):
    """[(room, share)] and the lines that were missed."""
    files = measured(lcov)
    rooms, whole, wire, missed = {}, Share(), Share(), []
    for path, (texts, wanted) in sorted(sources().items()):
        counts = files.get(path, Counts())
        lines = {n: times for n, times in counts.lines.items() if n in wanted}
        branches = {key: times for key, times in counts.branches.items() if key[0] in wanted}
        shares = [whole, rooms.setdefault(room(path), Share())] + ([wire] if path.startswith(WIRE) else [])
        for share in shares:
            share.add(lines, branches)
        names = names_of("\n".join(texts))
        missed += [Missed(path, n, texts, names) for n in sorted(lines) if not lines[n]]
    known = [(name, share) for name, share in sorted(rooms.items()) if share.all]
    return known + [("the wire rooms", wire), ("src/", whole)], missed


def report(lcov):
    shares, missed = measure(lcov)
    print(f"{'':24}{'lines':>9}{'':17}{'branches':>9}")
    for name, share in shares:
        print(f"{name:24}{share}")
    print(f"\n{len(missed)} lines that no test reaches:")
    for line in missed:
        print(f"{line.path}:{line.number}: {line.text}")


def document(lcov, path):
    shares, missed = measure(lcov)
    table = ["| | lines | | branches | |", "|---|---:|---:|---:|---:|"]
    table += [f"| `{name}` |{share.row()}" for name, share in shares]
    groups = {}
    for line in missed:
        groups.setdefault(line.reason(), {}).setdefault(line.path, []).append(line)
    out = []
    for heading, reason in {heading: why for heading, why, *_ in reversed(REASONS) if why}.items():
        if heading in groups:
            out = listed(heading, reason, groups[heading]) + out
    text = read(path)
    for marker, lines in (("shares", table), ("lines", [f"{len(missed)} lines.", ""] + out)):
        between = f"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
        text = re.sub(between, lambda m: m[1] + "\n".join(lines).rstrip() + "\n" + m[2], text, flags=re.S)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    for lines in groups.get(None, {}).values():
        for line in lines:
            print(f"no reason: {line.path}:{line.number}: {line.text}  ({line.name})")
    sys.exit(1 if None in groups else 0)


def listed(heading, reason, by_path):
    count = sum(len(lines) for lines in by_path.values())
    out = [f"### {heading}: {count}", "", textwrap.fill(reason, WIDTH), ""]
    for path, lines in by_path.items():
        item = f"* `{path}`: {ranges([line.number for line in lines])}"
        out.append(textwrap.fill(item, WIDTH, subsequent_indent="  "))
    return out + [""]


def ranges(numbers):
    runs = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


if __name__ == "__main__":
    if sys.argv[1:] == ["programs"]:
        programs()
    elif len(sys.argv) == 3 and sys.argv[1] == "report":
        report(sys.argv[2])
    elif len(sys.argv) == 4 and sys.argv[1] == "document":
        document(*sys.argv[2:])
    else:
        sys.exit(__doc__)
