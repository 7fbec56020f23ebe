#!/usr/bin/env python3
"""Measures echo servers side by side and prints one table per figure. Standard library only.

    compare.py --wsload DIR --server 'NAME[@raw,plain,tls]=COMMAND {port} {tls}'... [--baseline NAME]
               [--figures instructions,syscalls,allocations,cpu,memory] [--lines LINE,...] [--cert PEM --key PEM]

Instructions are those of user space, by callgrind: two runs of different lengths, so that starting
and connecting cancel out; allocations are counted likewise, by memcheck. System calls are counted by perf. CPU time and memory are those of wsload's
own compare.py, rounds interleaved. README.md beside the benchmarks tells how servers are built.
"""
import argparse, json, os, re, shlex, signal, socket, statistics, subprocess, sys, tempfile, time

# name: (tls, arguments for wsload's echo)
LINES = {
    "20B-d1":      (False, "--size 20 --depth 1"),
    "20B-d16":     (False, "--size 20 --depth 16"),
    "1K-d1":       (False, "--size 1024 --depth 1"),
    "1K-utf8":     (False, "--size 1024 --depth 1 --utf8"),
    "16K-d4":      (False, "--size 16384 --depth 4"),
    "1M":          (False, "--size 1048576 --depth 1 --conns 4"),
    "tls-20B-d1":  (True, "--size 20 --depth 1"),
    "tls-20B-d16": (True, "--size 20 --depth 16"),
    "tls-16K-d4":  (True, "--size 16384 --depth 4"),
    "tls-1M":      (True, "--size 1048576 --depth 1 --conns 4"),
}
CONNS = "--conns 20"
SYSCALLS = {"recv": ("recvfrom", "recvmsg", "read", "readv"), "send": ("sendto", "sendmsg", "write", "writev"),
            "wait": ("epoll_wait", "epoll_pwait", "poll"), "ctl": ("epoll_ctl",)}
CPU = "echo-20B-d1,echo-20B-d16,echo-1K-d1,echo-1K-text-utf8,echo-16K-d4,echo-1M,connect-plain"
CPU_TLS = "tls-20B-d1,tls-20B-d16,tls-16K-d4,tls-1M,tls-connect"


class Server:
    """NAME[@flag,flag]=COMMAND, as wsload's compare.py reads it."""

    def __init__(self, spec):
        left, _, self.command = spec.partition("=")
        self.spec = spec
        self.name, _, flags = left.partition("@")
        self.flags = set(filter(None, flags.split(",")))

    def can(self, tls):
        return not ("plain" in self.flags and tls) and not ("tls" in self.flags and not tls)

    def url(self, port, tls):
        scheme = ("tls" if tls else "tcp") if "raw" in self.flags else ("wss" if tls else "ws")
        return f"{scheme}://127.0.0.1:{port}/"

    def start(self, port, tls, args, prefix=()):
        files = f"--tls {shlex.quote(args.cert)} {shlex.quote(args.key)}" if tls else ""
        command = self.command.replace("{port}", str(port))
        command = command.replace("{tls}", files) if "{tls}" in command else f"{command} {files}"
        pinned = ["taskset", "-c", str(args.cpu)]
        child = subprocess.Popen([*pinned, *prefix, *shlex.split(command)],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return child
            except OSError:
                if child.poll() is not None:
                    sys.exit(f"{self.name} has ended: {command}")
                time.sleep(0.02)
        sys.exit(f"{self.name} does not listen")


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


def load(args, server, port, line, seconds, extra=()):
    tls, what = LINES[line]
    conns = "" if "--conns" in what else CONNS
    command = [f"{args.wsload}/target/release/wsload" if os.path.isdir(args.wsload) else args.wsload, "echo",
               "--url", server.url(port, tls), *shlex.split(f"{conns} {what}"), "--seconds", str(seconds), "--json",
               "--timeout", "60", *extra]
    done = subprocess.run(["taskset", "-c", str(args.cpu), *command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{server.name}, {line}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def callgrind(args, server, line, seconds):
    """Instructions of a whole run, and its messages."""
    port = free_port()
    with tempfile.TemporaryDirectory() as place:
        out = f"{place}/out"
        prefix = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        child = server.start(port, LINES[line][0], args, prefix)
        told = load(args, server, port, line, seconds, ("--warmup", "0"))
        child.send_signal(signal.SIGTERM)
        child.wait()
        if args.keep:
            os.makedirs(args.keep, exist_ok=True)
            os.replace(out, f"{args.keep}/{server.name}.{line}.{seconds}")
            out = f"{args.keep}/{server.name}.{line}.{seconds}"
        with open(out) as text:
            total = re.search(r"^(?:summary|totals): (\d+)", text.read(), re.M)
    if args.keep:
        print(f"{server.name} {line}: {total[1]} for {told['total_msgs']} messages", file=sys.stderr)
    return int(total[1]), told["total_msgs"]


def instructions(args, server, line):
    short, long = (callgrind(args, server, line, seconds) for seconds in (0.5, args.seconds))
    return (long[0] - short[0]) / (long[1] - short[1])


def heap(args, server, line, seconds):
    """Allocations of a whole run, and its messages."""
    port = free_port()
    with tempfile.NamedTemporaryFile("r") as out:
        prefix = ["valgrind", "--tool=memcheck", "--leak-check=no", "--undef-value-errors=no",
                  f"--log-file={out.name}"]
        child = server.start(port, LINES[line][0], args, prefix)
        told = load(args, server, port, line, seconds, ("--warmup", "0"))
        child.send_signal(signal.SIGTERM)
        child.wait()
        total = re.search(r"total heap usage: ([\d,]+) allocs", out.read())
    return int(total[1].replace(",", "")), told["total_msgs"]


def allocations(args, server, line):
    short, long = (heap(args, server, line, seconds) for seconds in (0.5, args.seconds))
    return (long[0] - short[0]) / (long[1] - short[1])


def syscalls(args, server, line):
    port = free_port()
    child = server.start(port, LINES[line][0], args)
    events = [name for names in SYSCALLS.values() for name in names]
    with tempfile.NamedTemporaryFile("r") as out:
        wanted = [f"-esyscalls:sys_enter_{name}" for name in events]
        perf = subprocess.Popen(["perf", "stat", "-x,", "-o", out.name, *wanted, "-p", str(child.pid)])
        time.sleep(0.3)
        told = load(args, server, port, line, args.seconds)
        perf.send_signal(signal.SIGINT)
        perf.wait()
        child.terminate()
        child.wait()
        counts = {}
        for row in out.read().splitlines():
            fields = row.split(",")
            if len(fields) > 2 and "sys_enter_" in fields[2] and fields[0].isdigit():
                counts[fields[2].rpartition("sys_enter_")[2]] = int(fields[0])
    messages = told["total_msgs"]
    per = {kind: sum(counts.get(name, 0) for name in names) / messages for kind, names in SYSCALLS.items()}
    return per


def table(title, servers, lines, cell):
    print(f"\n{title}\n")
    print("| workload | " + " | ".join(server.name for server in servers) + " |")
    print("|---|" + "--:|" * len(servers))
    for line in lines:
        cells = [cell(server, line) if server.can(LINES[line][0]) else "-" for server in servers]
        print(f"| {line} | " + " | ".join(cells) + " |", flush=True)


def show_instructions(args, servers, lines):
    def cell(server, line):
        runs = [instructions(args, server, line) for _ in range(args.repeat)]
        return f"{statistics.median(runs):,.0f}"
    table("User-space instructions per message (callgrind)", servers, lines, cell)


def show_syscalls(args, servers, lines):
    def cell(server, line):
        per = syscalls(args, server, line)
        return f"{per['recv'] + per['send']:.3f} ({per['recv']:.3f} + {per['send']:.3f}, wait {per['wait']:.3f})"
    table("System calls per message: recv + send", servers, lines, cell)


def show_allocations(args, servers, lines):
    def cell(server, line):
        return f"{allocations(args, server, line):.3f}"
    table("Allocations per message (memcheck)", servers, lines, cell)


def show_wsload(args, servers, workloads):
    script = f"{args.wsload}/compare.py"
    command = [sys.executable, script, "--workloads", workloads, "--rounds", str(args.rounds),
               "--seconds", str(args.round_seconds), "--same-cpu", str(args.cpu)]
    command += ["--baseline", args.baseline] if args.baseline else []
    command += ["--cert", args.cert, "--key", args.key] if args.cert else []
    command += ["--wsload", args.generator] if args.generator else []
    for server in servers:
        command += ["--server", server.spec]
    sys.stdout.flush()
    subprocess.run(command, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wsload", required=True, help="the generator's directory, or (without cpu and memory) the program")
    parser.add_argument("--generator", help="the program, if it is not built in that directory")
    parser.add_argument("--server", action="append", default=[])
    parser.add_argument("--baseline")
    parser.add_argument("--figures", default="instructions,syscalls,cpu,memory")
    parser.add_argument("--lines", default=",".join(LINES))
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--cpu", type=int, default=0, help="the one for both; default 0")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--repeat", type=int, default=1, help="of instruction counts; the median is shown")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--round-seconds", type=float, default=2)
    parser.add_argument("--keep", help="directory for callgrind's files")
    args = parser.parse_args()
    servers = [Server(spec) for spec in args.server]
    lines = [line for line in args.lines.split(",") if args.cert or not LINES[line][0]]
    figures = args.figures.split(",")
    if "instructions" in figures:
        show_instructions(args, servers, lines)
    if "syscalls" in figures:
        show_syscalls(args, servers, lines)
    if "allocations" in figures:
        show_allocations(args, servers, lines)
    if "cpu" in figures:
        show_wsload(args, servers, CPU + ("," + CPU_TLS if args.cert else ""))
    if "memory" in figures:
        show_wsload(args, servers, "idle-10k" + (",tls-idle-2k" if args.cert else ""))


if __name__ == "__main__":
    main()
