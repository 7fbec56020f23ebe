#!/usr/bin/env python3
"""Measures what the project promises about speed and prints it as tables. Standard library only.

    table.py --wsload DIR --turns PROGRAM --cert PEM --key PEM --json FILE
             --server 'wsloop=COMMAND {port} {tls}' --server 'uws@plain=COMMAND {port}'
             --server 'uws-awslc@tls=COMMAND {port} {tls}' --server 'raw@raw,plain=COMMAND {port}'
             --server 'raw-rustls@raw,tls=COMMAND {port} {tls}' --server 'fastwebsockets=...'
             [--parts small,large,...] [--until HH:MM] [--rounds-small 15] [--rounds 7]

Servers are known by these names; any may be missing, and so is then what it is needed for. Rounds are
interleaved and each has a fresh server; server and generator share one processor, unless --generator-cpu
gives the generator another one. What was measured is added to FILE, so that parts can be run one after
another; the tables show all that FILE holds.
--until ends it early: no round begins after that time. `--parts none` only prints.
"""
import argparse, importlib.util, json, os, re, resource, shlex, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))


def module(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


compare = module(os.path.join(HERE, "compare.py"), "compare")

PLAIN = ("wsloop", "uws", "raw")
ALL_PLAIN = ("wsloop", "uws", "raw", "fastwebsockets")
TLS = ("wsloop", "uws-awslc", "raw-rustls")
FAN = ("wsloop", "uws")
OTHERS = ("fastwebsockets", "tungstenite", "lws")
# As many as the descriptors allow, less what a server and a generator have open besides.
MOST = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100
CURVE = [10, 100, 1_000, 10_000] + ([MOST] if MOST > 10_000 else [])


class Work:
    """One workload: who runs it, how often, and what of the generator's report is the figure."""

    def __init__(self, part, tls, arguments, servers, figure):
        self.part, self.tls, self.servers, self.figure = part, tls, servers, figure
        self.arguments = arguments

    def program(self):
        return "turns" if self.part in ("curve", "text", "broadcast") else "wsload"


def echo(part, arguments, servers, tls=False):
    return Work(part, tls, f"echo {arguments}", servers, "cpu_us_per_msg")


# In the order in which they are measured.
WORKS = {
    "20B-d1": echo("small", "--conns 100 --size 20 --depth 1", PLAIN),
    "20B-d16": echo("small", "--conns 100 --size 20 --depth 16", PLAIN),
    "1K-utf8": echo("small", "--conns 100 --size 1024 --depth 1 --utf8", ALL_PLAIN),
    "16K-d4": echo("large", "--conns 50 --size 16384 --depth 4", PLAIN),
    "1M": echo("large", "--conns 4 --size 1048576 --depth 1", ALL_PLAIN),
    "tls-20B-d1": echo("tls", "--conns 100 --size 20 --depth 1", TLS, True),
    "tls-16K-d4": echo("tls", "--conns 50 --size 16384 --depth 4", TLS, True),
    "tls-1M": echo("tls", "--conns 4 --size 1048576 --depth 1", TLS, True),
    "connect": Work("connect", False, "connect", PLAIN, "cpu_us_per_conn"),
    "tls-connect": Work("connect", True, "connect", TLS, "cpu_us_per_conn"),
    "idle-10k": Work("idle", False, "idle --conns 10000 --touch 20 --settle 0.5", FAN, "bytes_per_conn"),
    "tls-idle-2k": Work("idle", True, "idle --conns 2000 --touch 20 --settle 0.5", TLS, "bytes_per_conn"),
    **{f"curve-{ready}-{conns}": Work("curve", False, f"--conns {conns} --ready {ready} --rate {rate}",
                                      PLAIN, "cpu_us")
       for ready, rate in ((10, 10_000), (100, 50_000)) for conns in CURVE if conns >= ready},
    "broadcast": Work("broadcast", False, "--conns 1000 --ready 1 --broadcast", FAN, "cpu_us"),
    "broadcast-1K": Work("broadcast", False, "--conns 1000 --ready 1 --broadcast --size 1024", FAN, "cpu_us"),
    "broadcast-16": Work("broadcast", False, "--conns 1000 --ready 16 --broadcast", FAN, "cpu_us"),
    **{f"text-{kind}": Work("text", False, f"--size 1024 --payload {kind}", FAN, "cpu_us")
       for kind in ("binary", "ascii", "mixed", "utf8-4")},
    "fragments-1K-4": echo("fragments", "--conns 100 --size 1024 --depth 1 --fragments 4", PLAIN),
    "fragments-16K-8": echo("fragments", "--conns 50 --size 16384 --depth 4 --fragments 8", PLAIN),
    "1K-d1": echo("more", "--conns 100 --size 1024 --depth 1", PLAIN),
    "tls-20B-d16": echo("more", "--conns 100 --size 20 --depth 16", TLS, True),
}
# The same workloads once more, beside libraries that nothing is promised about.
WORKS |= {f"all-{name}": Work("others", work.tls, work.arguments,
                              ("wsloop", *(("raw-rustls", "uws-awslc") if work.tls else ("raw", "uws")), *OTHERS),
                              work.figure)
          for name, work in WORKS.items()
          if name in ("20B-d1", "20B-d16", "16K-d4", "1M", "connect", "idle-10k",
                      "tls-20B-d1", "tls-16K-d4", "tls-connect")}
PARTS = ("small", "large", "tls", "connect", "idle", "curve", "broadcast", "text", "fragments", "more",
         "others", "instructions", "syscalls", "allocations", "curve-instructions")
COUNTED = {
    "instructions": ("20B-d1", "20B-d16", "1K-d1", "16K-d4", "tls-20B-d1", "tls-20B-d16"),
    "syscalls": ("20B-d1", "20B-d16", "16K-d4", "1M", "tls-20B-d1", "tls-16K-d4", "tls-1M"),
    "allocations": ("20B-d16", "1K-d1", "16K-d4", "tls-20B-d16", "tls-16K-d4"),
}
# What is asked for: workload, what of it, held against, at most, and the lines that name them.
GOALS = [
    ("20 B, depth 1", "instructions per message", "instructions", "20B-d1", None, 300),
    ("20 B, depth 16", "instructions per message", "instructions", "20B-d16", None, 140),
    ("1 KiB, depth 1", "instructions per message", "instructions", "1K-d1", None, 600),
    ("16 KiB, depth 4", "instructions per message", "instructions", "16K-d4", None, 2000),
    ("20 B, depth 1", "recv + send per message", "syscalls", "20B-d1", None, 2.0),
    ("20 B, depth 16", "recv + send per message", "syscalls", "20B-d16", None, 0.126),
    ("16 KiB, depth 4", "recv + send per message", "syscalls", "16K-d4", None, 0.6),
    ("1 MiB, 4 connections", "recv + send per message", "syscalls", "1M", None, 6),
    ("TLS 20 B, depth 1", "instructions to raw rustls", "instructions", "tls-20B-d1", "raw-rustls", 1.2),
    ("TLS 20 B, depth 16", "instructions to raw rustls", "instructions", "tls-20B-d16", "raw-rustls", 1.2),
    ("20 B, depth 1", "CPU to uWS, us", None, "20B-d1", "uws", 1.00),
    ("20 B, depth 16", "CPU to uWS, us", None, "20B-d16", "uws", 1.00),
    ("1 KiB text, UTF-8 of 1 to 4 bytes", "CPU to uWS, us", None, "1K-utf8", "uws", 0.80),
    ("16 KiB, depth 4", "CPU to uWS, us", None, "16K-d4", "uws", 0.80),
    ("1 MiB, 4 connections", "CPU to uWS, us", None, "1M", "uws", 0.65),
    ("1 MiB, 4 connections", "CPU to fastwebsockets, us", None, "1M", "fastwebsockets", 0.95),
    ("TLS 20 B, depth 1", "CPU to uWS on AWS-LC, us", None, "tls-20B-d1", "uws-awslc", 0.95),
    ("TLS 16 KiB, depth 4", "CPU to uWS on AWS-LC, us", None, "tls-16K-d4", "uws-awslc", 0.70),
    ("TLS 1 MiB, 4 connections", "CPU to uWS on AWS-LC, us", None, "tls-1M", "uws-awslc", 0.72),
    ("connect, upgrade, close", "CPU to uWS, us", None, "connect", "uws", 0.85),
    ("the same with a full TLS handshake", "CPU to uWS on AWS-LC, us", None, "tls-connect", "uws-awslc", 0.97),
    ("idle, 10 000 plain", "bytes per connection", "bytes", "idle-10k", None, 273),
    ("idle, 2 000 TLS", "bytes per connection", "bytes", "tls-idle-2k", None, 4200),
]
PEER = {False: "uws", True: "uws-awslc"}
FLOOR = {False: "raw", True: "raw-rustls"}


# ---------------------------------------------------------------- measuring

def measure(args, servers, found):
    parts = [] if args.parts == "none" else args.parts.split(",")
    for part in parts:
        if part in COUNTED:
            count(args, part, servers, found)
            continue
        if part == "curve-instructions":
            count_curve(args, servers, found)
            continue
        works = {name: work for name, work in WORKS.items() if work.part == part}
        if not works:
            sys.exit(f"no part is called {part}: {', '.join(PARTS)}")
        rounds = {"small": args.rounds_small, "curve": args.rounds_few, "others": args.rounds_few}
        rounds = rounds.get(part, args.rounds)
        for name, work in works.items():
            for turn in range(rounds):
                for server in who(work, servers):
                    if late(args):
                        return
                    once(args, name, work, server, found)
            save(args, found)
            tell(name, found)


def who(work, servers):
    named = [server for server in servers if server.name in work.servers and server.can(work.tls)]
    if work.part == "broadcast":
        each = compare.Server(next(s.spec for s in servers if s.name == "wsloop"))
        each.name, each.command = "each", each.command.replace("{tls}", "--each")
        named.append(each)
    return named


def once(args, name, work, server, found):
    port = compare.free_port()
    prefix = ["chrt", "-b", "0"] if work.program() == "turns" else []
    command = server.command
    if work.part == "broadcast" and server.name != "each":
        server = compare.Server(server.spec)
        server.command = f"{command.replace('{tls}', '')} --broadcast"
    child = server.start(port, work.tls, args, prefix)
    try:
        if work.program() == "turns":
            load = [args.turns, str(port), str(child.pid), *shlex.split(work.arguments),
                    "--seconds", str(args.seconds), "--warmup", "0.3"]
            load += ["--raw"] if "raw" in server.flags else []
        else:
            mode, *rest = shlex.split(work.arguments)
            load = [args.generator, mode, "--url", server.url(port, work.tls), "--pid", str(child.pid), "--json", *rest]
            load += [] if mode == "idle" else ["--seconds", str(args.seconds), "--warmup", "0.3"]
        apart = args.generator_cpu not in (None, args.cpu)
        if apart and work.program() == "turns":
            load.append("--stop")
        pinned = ["taskset", "-c", str(args.generator_cpu if apart else args.cpu), *prefix, *load]
        done = subprocess.run(pinned, capture_output=True, text=True, timeout=180)
        if done.returncode != 0:
            print(f"{name}, {server.name}: {done.stdout}{done.stderr}".strip(), file=sys.stderr, flush=True)
            return
        told = json.loads(done.stdout.strip().splitlines()[-1])
        found.setdefault(name, {}).setdefault(server.name, []).append(told)
    finally:
        child.terminate()
        child.wait()


def count(args, kind, servers, found):
    """Exact figures: one run each, and not again for a server that has one."""
    how = {"instructions": compare.instructions, "allocations": compare.allocations,
           "syscalls": lambda *of: (lambda per: per["recv"] + per["send"])(compare.syscalls(*of))}[kind]
    for line in COUNTED[kind]:
        tls = compare.LINES[line][0]
        for server in servers:
            of = found.setdefault(kind, {}).setdefault(line, {})
            if server.name not in (*(TLS if tls else PLAIN), *OTHERS) or not server.can(tls):
                continue
            if (server.name in of and server.name not in args.again.split(",")) or late(args):
                continue
            of[server.name] = how(args, server, line)
            print(f"{kind} {line} {server.name}: {of[server.name]:.3f}", file=sys.stderr, flush=True)
        save(args, found)


def count_curve(args, servers, found):
    """Instructions per message with a hundred and with ten thousand connections."""
    for server in (server for server in servers if server.name == "wsloop"):
        for name in ("curve-100-100", "curve-100-10000"):
            runs = []
            for seconds in ("0.5", str(args.seconds + 2)):
                if late(args):
                    return
                port = compare.free_port()
                with tempfile.TemporaryDirectory() as place:
                    out = f"{place}/out"
                    prefix = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
                    child = server.start(port, False, args, prefix)
                    load = [args.turns, str(port), str(child.pid), *shlex.split(WORKS[name].arguments),
                            "--rate", "0", "--seconds", seconds, "--warmup", "0"]
                    told = subprocess.run(load, check=True, capture_output=True, text=True).stdout
                    settle(child.pid)  # the end of all connections is in both runs
                    child.terminate()
                    child.wait()
                    with open(out, encoding="utf-8") as text:
                        total = re.search(r"^(?:summary|totals): (\d+)", text.read(), re.M)
                runs.append((int(total[1]), json.loads(told)["total_msgs"]))
            (few, few_messages), (many, many_messages) = runs
            per = (many - few) / (many_messages - few_messages)
            found.setdefault("curve-instructions", {})[name] = {"wsloop": per}
            print(f"{name}: {per:.0f} instructions", file=sys.stderr, flush=True)
        save(args, found)


def settle(pid):
    used = None
    while used != (used := open(f"/proc/{pid}/schedstat", encoding="ascii").read().split()[0]):
        time.sleep(0.5)


def late(args):
    return bool(args.until) and time.strftime("%H:%M") >= args.until


def save(args, found):
    with open(args.json + ".new", "w", encoding="utf-8") as out:
        json.dump(found, out)
    os.replace(args.json + ".new", args.json)


def tell(name, found):
    told = ", ".join(f"{server} {show(values_of(found, name, server))}" for server in found.get(name, {}))
    print(f"[{time.strftime('%H:%M:%S')}, load {os.getloadavg()[0]:.1f}] {name}: {told}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- showing

def values_of(found, name, server, key=None):
    runs = found.get(name, {}).get(server, [])
    return [run[key or WORKS[name].figure] for run in runs]


def number(value):
    value = max(value, 0)  # a difference of two runs may be less
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def show(values):
    if not values:
        return "-"
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}-{number(max(values))})"


def row(*cells):
    print("| " + " | ".join(cells) + " |")


def reach(found):
    print("\n### To reach\n")
    row("workload", "figure", "wsloop", "uWS", "floor", "against", "ratio", "floor's", "to reach", "")
    row("---", "---", *["--:"] * 3, "---", *["--:"] * 3, "---")
    for workload, figure, kind, name, against, most in GOALS:
        tls = name.startswith("tls")

        def values(server):
            if kind in COUNTED:
                one = found.get(kind, {}).get(name, {}).get(server)
                return [] if one is None else [one]
            return values_of(found, name, server)

        ours, floor = values("wsloop"), values(FLOOR[tls])
        theirs = values(against) if against else [1]
        peer = values(PEER[tls]) if against != "fastwebsockets" else theirs
        if not ours or not theirs:
            row(workload, figure, show(ours), show(peer), show(floor), against or "", "-", "-", f"{most:g}", "not measured")
            continue
        value = statistics.median(ours) / statistics.median(theirs)
        of_floor = f"{statistics.median(floor) / statistics.median(theirs):.2f}" if against and floor else ""
        # Ratios are asked for with two decimals; connecting is among the system calls.
        reached = round(value, 2) <= most if against else value <= most * (1.002 if kind == "syscalls" else 1)
        row(workload, figure, show(ours), show(peer), show(floor), against or "", f"{value:.2f}" if against else "",
            of_floor, f"{most:g}" if not against else f"{most:.2f}", "yes" if reached else "**no**")


def curve(found):
    for ready in (10, 100):
        names = {conns: f"curve-{ready}-{conns}" for conns in CURVE if conns >= ready}
        if not any(name in found for name in names.values()):
            continue
        print(f"\n### {ready} ready connections in each turn: CPU per message, us; to that of 100\n")
        servers = [name for name in PLAIN if any(name in found.get(of, {}) for of in names.values())]
        row("connections", *[f"{name}{what}" for name in servers for what in ("", " to 100")],
            "instructions of wsloop")
        row(*["--:"] * (2 * len(servers) + 2))
        for conns, name in names.items():
            cells = []
            for server in servers:
                base, here = (values_of(found, of, server) for of in (f"curve-{ready}-100", name))
                cells += [show(here), f"{statistics.median(here) / statistics.median(base):.2f}" if base and here else "-"]
            counted = found.get("curve-instructions", {}).get(name, {}).get("wsloop")
            row(f"{conns:,}".replace(",", " "), *cells, "-" if counted is None else number(counted))
        slept = [told["per_sleep"] for name in names.values() for runs in found.get(name, {}).values() for told in runs]
        print(f"\nMessages for each sleep of the server: {min(slept):.1f} to {max(slept):.1f}.")


def plain_table(found, title, part, servers):
    names = [name for name, work in WORKS.items() if work.part == part and name in found]
    if not names:
        return
    servers = [server for server in servers if any(server in found[name] for name in names)]
    print(f"\n### {title}\n")
    row("workload", *servers, *[f"{server} to uWS" for server in servers if not server.startswith("uws")])
    row("---", *["--:"] * (2 * len(servers) - sum(server.startswith("uws") for server in servers)))
    for name in names:
        cells = [show(values_of(found, name, server)) for server in servers]
        base = values_of(found, name, PEER[WORKS[name].tls])
        for server in servers:
            here = values_of(found, name, server)
            if not server.startswith("uws"):
                both = base and here
                cells.append(f"{statistics.median(here) / statistics.median(base):.2f}" if both else "-")
        row(name, *cells)


def counts(found):
    for kind in COUNTED:
        if not found.get(kind):
            continue
        print(f"\n### {kind} per message\n")
        servers = [name for name in (*PLAIN, *TLS[1:], *OTHERS) if any(name in of for of in found[kind].values())]
        row("workload", *servers)
        row("---", *["--:"] * len(servers))
        for line, of in found[kind].items():
            row(line, *[number(of[name]) if name in of else "-" for name in servers])


def memory(found):
    names = [name for name in ("idle-10k", "tls-idle-2k") if name in found]
    if not names:
        return
    print("\n### Bytes per connection: open; after an echo; left after closing\n")
    servers = [name for name in (*PLAIN, *TLS[1:]) if any(name in found[of] for of in names)]
    row("workload", *servers)
    row("---", *["--:"] * len(servers))
    keys = ("bytes_per_conn", "bytes_per_conn_touched", "bytes_per_conn_after_close")
    for name in names:
        medians = [[values_of(found, name, server, key) for key in keys] for server in servers]
        row(name, *["; ".join(number(statistics.median(v)) for v in of) if of[0] else "-" for of in medians])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wsload", help="the generator's directory")
    parser.add_argument("--generator", help="the program, if it is not built in that directory")
    parser.add_argument("--turns", help="this package's other generator")
    parser.add_argument("--server", action="append", default=[])
    parser.add_argument("--json", required=True)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--until")
    parser.add_argument("--again", default="wsloop", help="servers whose exact figures are taken anew")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--cpu", type=int, default=0)
    parser.add_argument("--generator-cpu", type=int, help="the generator's processor, if it has one of its own")
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds-small", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rounds-few", type=int, default=3, help="of many connections and of other libraries")
    args = parser.parse_args()
    args.generator = args.generator or f"{args.wsload}/target/release/wsload"
    args.wsload, args.keep = args.generator, None
    found = {}
    if os.path.exists(args.json):
        with open(args.json, encoding="utf-8") as text:
            found = json.load(text)
    measure(args, [compare.Server(spec) for spec in args.server], found)
    reach(found)
    plain_table(found, "CPU per message or connection, us", "small", ALL_PLAIN)
    plain_table(found, "Large", "large", ALL_PLAIN)
    plain_table(found, "TLS", "tls", TLS)
    plain_table(found, "Connections", "connect", (*PLAIN, *TLS[1:]))
    memory(found)
    curve(found)
    plain_table(found, "Broadcast to 1 000: CPU per delivered message, us", "broadcast", ("wsloop", "each", "uws"))
    plain_table(found, "Text of 1 KiB, 100 connections in lockstep: CPU per message, us", "text", PLAIN)
    plain_table(found, "Fragments: CPU per message, us", "fragments", PLAIN)
    plain_table(found, "More", "more", (*PLAIN, *TLS[1:]))
    plain_table(found, "All libraries: CPU per message or connection, us; bytes", "others", (*PLAIN, *TLS[1:], *OTHERS))
    counts(found)


if __name__ == "__main__":
    main()
