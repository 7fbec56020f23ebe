#!/usr/bin/env python3
"""What the compiler and clippy do not check: layers, sizes, the promised compiler, left-overs.

    lint.py [ROOT]        check the tree; one line per finding; status 1 when there is any
    lint.py --self-test   check the checker

Rust is read with comments and literals blanked out, so a rule about names never trips over prose.
"""

import os
import re
import subprocess
import sys

# --- the rules, in one place -------------------------------------------------------------------

FILE_LINES_MAX = 800      # before the first `#[cfg(test)]`
FUNCTION_LINES_MAX = 70   # from `fn` to its closing brace
TABLE_LINES_MAX = 100     # the same in tests, where a function may hold a table of cases

WIRE = ("src/ws/", "src/ws.rs", "src/http/", "src/http.rs", "src/proxy.rs", "src/timer.rs",
        "src/retry.rs", "src/pool.rs", "src/client.rs")
NET_ADDRESSES = ("src/client.rs",)
MIO = ("src/net/", "src/net.rs", "src/context.rs", "src/context/", "src/service.rs", "src/service/", "src/waker.rs")
TLS = ("src/tls/", "src/tls.rs")
CLOCK = ("src/net/clock.rs",)

SOCKETS = r"\b(?:Tcp(?:Stream|Listener)|UdpSocket|Unix(?:Stream|Listener|Datagram)|socket2|ToSocketAddrs)\b"
# rustls, rustls_pemfile, rustls_native_certs, webpki, webpki_roots.
RUSTLS = r"\b(?:rustls|webpki)\w*\b"
LEFT_OVERS = r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|\b(?:to" r"do|unimplemen" r"ted)!"
MACHINE_PATHS = r"(?<![\w.$}*~-])/(?:t" r"mp|wo" r"rk|ro" r"ot|ho" r"me|fa" r"rm|Us" r"ers)/\w"
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"

# (finding, expression, paths it concerns, paths it spares, does it hold in test code too)
NAMES = [
    ("a wire room names mio", r"\bmio\b", WIRE, (), True),
    ("a wire room names rustls", RUSTLS, WIRE, (), True),
    ("a wire room names threads", r"\bstd::thread\b|\bthread::\w", WIRE, (), True),
    ("a wire room names files", r"\b(?:std::fs|rustix)\b", WIRE, (), True),
    ("a file beside mount/open.rs and net/stream.rs names rustix", r"\brustix\b", ("src/",),
     ("src/mount/open.rs", "src/net/stream.rs"), True),
    ("a wire room names sockets", SOCKETS, WIRE, (), True),
    ("a wire room names std::net", r"\b(?:std|core)::net\b", WIRE, NET_ADDRESSES, True),
    ("a wire room reads the clock", r"\bInstant::now\b", WIRE, (), False),
    ("a wire room names SystemTime", r"\bSystemTime\b", WIRE, (), True),
    ("only src/tls names rustls", RUSTLS, ("src/",), TLS, True),
    ("only net, context, service and waker name mio", r"\bmio\b", ("src/",), MIO, True),
    ("only src/net/clock.rs reads the clock", r"\b(?:Instant|SystemTime)::now\b", ("src/",), CLOCK, False),
    ("unwrap() outside tests", r"\.unwrap\(\s*\)", ("src/",), (), False),
    ("unsafe", r"\bunsafe\b", ("",), (), True),
    ("an ignored test", r"#\[\s*ignore\b", ("",), (), True),
    ("a sleep in a test", r"\bsleep\s*\(", ("tests/",), (), True),
]

# --- reading Rust ------------------------------------------------------------------------------

TOKEN = re.compile(
    r"""//[^\n]*
      | /\*
      | (?:(?<!\w)(?:br?|cr?|r))?(?P<raw>\#*)"
      | b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'\n])'
    """, re.X | re.S)


def blank(text):
    """`text` with line breaks kept and everything else made a space."""
    return re.sub(r"[^\n]", " ", text)


def comment_end(text, start):
    depth = 0
    for m in re.compile(r"/\*|\*/").finditer(text, start):
        depth += 1 if m.group() == "/*" else -1
        if depth == 0:
            return m.end()
    return len(text)


def string_end(text, m):
    if "r" in m.group():
        close = text.find('"' + m.group("raw"), m.end())
        return len(text) if close < 0 else close + 1 + len(m.group("raw"))
    end = re.compile(r'(?:[^"\\]|\\.)*"', re.S).match(text, m.end())
    return end.end() if end else len(text)


def code_only(text):
    out, at = [], 0
    while True:
        m = TOKEN.search(text, at)
        if not m:
            out.append(text[at:])
            return "".join(out)
        end = m.end()
        if m.group() == "/*":
            end = comment_end(text, m.start())
        elif m.group("raw") is not None:
            end = string_end(text, m)
        out.append(text[at:m.start()])
        out.append(blank(text[m.start():end]))
        at = end


PAIRS = {"(": ")", "[": "]", "{": "}"}


def group_end(code, start):
    """The offset behind the bracket that closes the one at `start`."""
    depth = 0
    for at in range(start, len(code)):
        if code[at] in PAIRS:
            depth += 1
        elif code[at] in ")]}":
            depth -= 1
            if depth == 0:
                return at + 1
    return len(code)


def scan_flat(code, start, stops):
    """The offset of the first of `stops` outside brackets, stepping over (..) and [..]."""
    at = start
    while at < len(code):
        for stop in stops:
            if code.startswith(stop, at):
                return at
        at = group_end(code, at) if code[at] in PAIRS else at + 1
    return len(code)


def without_tests(code):
    """`code` with every item under a `#[cfg(test)]` blanked out."""
    for m in re.finditer(r"#\[cfg\((?:test|all\([^\]]*\btest\b[^\]]*)\)\]", code):
        stop = scan_flat(code, m.end(), ("{", ";"))
        end = group_end(code, stop) if code[stop:stop + 1] == "{" else stop + 1
        code = code[:m.start()] + blank(code[m.start():end]) + code[end:]
    return code


def functions(code):
    """(name, first line, lines) of every function with a body."""
    for m in re.finditer(r"\bfn\s+(\w+)", code):
        stop = scan_flat(code, m.end(), ("{", ";"))
        if code[stop:stop + 1] == "{":
            body = code[m.start():group_end(code, stop)]
            yield m.group(1), line_of(code, m.start()), body.count("\n") + 1


def let_chains(code):
    """Offsets of conditions that chain `let` with `&&`, which the promised compiler does not know."""
    for m in re.finditer(r"\b(?:if|while)\b", code):
        condition = code[m.end():scan_flat(code, m.end(), ("{", "=>", ";"))]
        parts, at = [], 0
        while True:
            cut = scan_flat(condition, at, ("&&",))
            parts.append(condition[at:cut].strip())
            if cut >= len(condition):
                break
            at = cut + 2
        if len(parts) > 1 and any(re.match(r"let\b", p) for p in parts):
            yield m.start()


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


# --- checks ------------------------------------------------------------------------------------

def is_test_file(path):
    return not path.startswith("src/") or path.endswith(("/tests.rs", "/test_support.rs")) or "/tests/" in path


def check_rust(path, text):
    code = code_only(text)
    shipped = "" if is_test_file(path) else without_tests(code)
    for what, expression, concerns, spares, in_tests in NAMES:
        if not path.startswith(concerns) or (spares and path.startswith(spares)):
            continue
        subject = code if in_tests else shipped
        for m in re.finditer(expression, subject):
            yield line_of(subject, m.start()), "%s: %s" % (what, m.group().strip())
    for offset in let_chains(code):
        yield line_of(code, offset), "a let-chain; Rust 1.85 does not know them"
    for name, line, lines in functions(code):
        most = TABLE_LINES_MAX if path.startswith("tests/") or is_test_file(path) else FUNCTION_LINES_MAX
        if lines > most:
            yield line, "fn %s has %d lines, at most %d" % (name, lines, most)
    if path.startswith("src/") and not is_test_file(path):
        lines = text.split("#[cfg(test)]\nmod ")[0].count("\n")
        if lines > FILE_LINES_MAX:
            yield 1, "%d lines before the tests, at most %d" % (lines, FILE_LINES_MAX)
        yield from allows_without_reason(text, code)


def allows_without_reason(text, code):
    rows = text.split("\n")
    for m in re.finditer(r"#!?\[\s*(?:allow|expect)\s*\(", code):
        end = group_end(code, m.end() - 1)
        row = line_of(code, m.start()) - 1
        said = "reason" in code[m.start():end] or "//" in rows[row] or (row and "//" in rows[row - 1])
        if not said:
            yield row + 1, "an allow or expect without its reason"


def check_text(path, text):
    for expression, what in ((LEFT_OVERS, "left-over"), (MACHINE_PATHS, "path of a machine")):
        for m in re.finditer(expression, text):
            yield line_of(text, m.start()), "%s: %s" % (what, m.group())


def check_lock(path, text):
    if path.endswith("Cargo.lock"):
        for m in re.finditer(r'^source = "(.*)"', text, re.M):
            if m.group(1) != CRATES_IO:
                yield line_of(text, m.start()), "a source other than crates.io"
    if path.endswith("package-lock.json"):
        for m in re.finditer(r'"resolved"', text):
            yield line_of(text, m.start()), "a registry host; leave `resolved` out"


def tracked(root):
    """Tracked and new files, what .gitignore names left out."""
    out = subprocess.run(["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                         check=True, capture_output=True).stdout.decode()
    return sorted({p for p in out.split("\0") if p and os.path.isfile(os.path.join(root, p))})


def check_tree(root):
    findings, seen = [], 0
    for path in tracked(root):
        with open(os.path.join(root, path), "rb") as f:
            data = f.read()
        if b"\0" in data[:8000] or path.startswith("fuzz/seeds/"):
            continue
        text, seen = data.decode("utf-8", "replace"), seen + 1
        checks = [check_lock] if path.endswith((".lock", "-lock.json")) else [check_text]
        if path.endswith(".rs"):
            checks.append(check_rust)
        for check in checks:
            findings += ["%s:%d: %s" % (path, line, what) for line, what in check(path, text)]
    return findings, seen


# --- the checker checked -----------------------------------------------------------------------

LONG = "fn long() {\n" + "    x();\n" * 70 + "}\n"
SAMPLES = [  # path, text, what must be found (None: nothing)
    ("src/ws/a.rs", "use mio::Token;\n", "names mio"),
    ("src/ws/a.rs", "// use mio::Token;\n/* mio /* mio */ mio */ fn f() { g(\"mio\", r#\"\"mio\"#, 'm', b\"\\\"mio\") }\n", None),
    ("src/ws/a.rs", "// a \"\nuse mio::Token; // \"r\"\n", "names mio"),
    ("src/ws/a.rs", "fn f<'a>(x: &'a str) { mio::x(); }\n", "names mio"),
    ("src/http/a.rs", "fn f() { std::thread::spawn(g); }\n", "names threads"),
    ("src/http/a.rs", "use std::net::TcpStream;\n", "names sockets"),
    ("src/http/a.rs", "use std::fs::File;\n", "names files"),
    ("src/mount/files.rs", "use rustix::io::Errno;\n", "names rustix"),
    ("src/client.rs", "use std::net::SocketAddr;\n", None),
    ("src/timer.rs", "use std::net::SocketAddr;\n", "std::net"),
    ("src/timer.rs", "fn f() { Instant::now(); }\n", "reads the clock"),
    ("src/timer.rs", "#[cfg(test)]\nmod tests {\n fn f() { Instant::now().unwrap(); }\n}\n", None),
    ("src/timer.rs", "#[cfg(test)]\nuse a;\nfn f() { x.unwrap() }\n", "unwrap()"),
    ("src/net/clock.rs", "fn f() { Instant::now(); }\n", None),
    ("src/context.rs", "fn f() { Instant::now(); mio::Poll::new(); }\n", "reads the clock"),
    ("src/conn.rs", "use mio::Token;\n", "name mio"),
    ("src/conn.rs", "use rustls::X;\n", "names rustls"),
    ("src/conn.rs", "use rustls_pemfile::X;\n", "names rustls"),
    ("src/conn.rs", "use webpki_roots::X;\n", "names rustls"),
    ("src/conn.rs", "fn f() { x.from_rustls() }\n", None),
    ("src/tls/a.rs", "use rustls::X;\n", None),
    ("src/tls/test_support.rs", "fn f() { Instant::now().unwrap(); }\n", None),
    ("src/ws/test_support.rs", "use mio::Token;\n", "names mio"),
    ("tests/a.rs", "unsafe fn f() {}\n", "unsafe"),
    ("src/lib.rs", "#![forbid(unsafe_code)]\n", None),
    ("tests/a.rs", "fn f() { x.unwrap(); Instant::now(); }\n", None),
    ("tests/a.rs", "fn f() { thread::sleep(d); }\n", "sleep"),
    ("src/a.rs", "fn f() { if let Some(x) = a && x > 1 { g() } }\n", "let-chain"),
    ("src/a.rs", "fn f() { while a && let Some(x) = b { g() } }\n", "let-chain"),
    ("src/a.rs", "fn f() { if let Some(x) = (a && b) { g() } if a && b { let x = 1; } }\n", None),
    ("src/a.rs", "fn f() { match a { x if x && y => { let z = 1; } _ => {} } }\n", None),
    ("src/a.rs", "fn f() { if let Some(x) = s.find(|&&y| y && z) { g() } }\n", None),
    ("src/a.rs", LONG, "72 lines"),
    ("tests/a.rs", LONG, None),
    ("tests/a.rs", LONG + LONG.replace("x();", "x();\n    y();"), "142 lines"),
    ("src/a.rs", LONG.replace("    x();\n", "", 2), None),
    ("src/a.rs", "fn f(a: [u8; 4]) -> [u8; 2] {\n" + "    x();\n" * 70 + "}\n", "72 lines"),
    ("src/a.rs", "use a;\n" * 801, "801 lines"),
    ("src/a.rs", "use a;\n" * 700 + "#[cfg(test)]\nmod tests {\n" + "use a;\n" * 700 + "}\n", None),
    ("src/a.rs", "#[allow(dead_code)]\nfn f() {}\n", "without its reason"),
    ("src/a.rs", "#[expect(dead_code, reason = \"later\")]\nfn f() {}\n", None),
    ("README.md", "see /" + "tmp/x\n", "path of a machine"),
    ("README.md", "see https://example.com/" + "home/x and ../" + "work/x\n", None),
    ("src/a.rs", "// TO" + "DO: later\n", "left-over"),
]


def self_test():
    for path, text, want in SAMPLES:
        found = [w for _, w in check_text(path, text)]
        found += [w for _, w in check_rust(path, text)] if path.endswith(".rs") else []
        good = not found if want is None else any(want in w for w in found)
        if not good:
            sys.exit("lint: self-test: %s %r: wanted %r, found %r" % (path, text[:80], want, found))
    print("lint: %d samples judged as they should be" % len(SAMPLES))


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    findings, seen = check_tree(sys.argv[1] if len(sys.argv) > 1 else ".")
    print("\n".join(findings + ["lint: %d files, %d findings" % (seen, len(findings))]))
    if findings or not seen:
        sys.exit(1)


if __name__ == "__main__":
    main()
