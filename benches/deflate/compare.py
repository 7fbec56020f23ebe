#!/usr/bin/env python3
"""Compares servers that echo with permessage-deflate: CPU time per message, bytes per answer, memory when idle.

    compare.py echo --load PROGRAM --server 'NAME=COMMAND {port} {mode}'... [--bytes 1024] [--rounds 7]
    compare.py idle --load PROGRAM --server 'NAME=COMMAND {port} {mode}'... [--connections 10000]

PROGRAM is the bench `deflate_load`, as `cargo bench --no-run --bench deflate_load` tells its place. `{mode}` becomes
none, shared (no context takeover) or takeover; a server that wants other words for them says
'NAME=COMMAND {port} {none:WORDS;shared:WORDS;takeover:WORDS}'. One run is interleaved: every round measures every
server, in turn from another one on. Medians, with the smallest and the largest. Standard library only.
"""
import argparse, atexit, re, shlex, signal, socket, statistics, subprocess, sys, time

DEADLINE = 30
REQUEST = ("GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate%s\r\n\r\n")


class Server:
    """A running one, on a port of its own."""

    def __init__(self, spec, mode):
        self.name, _, command = spec.partition("=")
        self.port = free_port()
        command = command.replace("{port}", str(self.port)).replace("{mode}", mode)
        words = re.search(r"\{([^}]*:[^}]*)\}", command)
        if words:
            choices = dict(choice.split(":", 1) for choice in words[1].split(";"))
            command = command.replace(words[0], choices[mode])
        self.child = subprocess.Popen(shlex.split(command), stdout=subprocess.DEVNULL)
        atexit.register(self.stop)
        self.url = f"ws://127.0.0.1:{self.port}/"
        self.connect().close()

    def connect(self):
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end and self.child.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", self.port), DEADLINE)
            except ConnectionRefusedError:
                time.sleep(0.02)
        sys.exit(f"{self.name} does not listen")

    def stop(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


def run(args, *words):
    done = subprocess.run([args.load, *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def answer_bytes(server, mode, texts):
    """Mean payload of the answers to the texts; they are sent as they are, which is allowed."""
    alone = "; server_no_context_takeover; client_no_context_takeover" if mode == "shared" else ""
    stream = server.connect()
    reader = stream.makefile("rb")
    stream.sendall((REQUEST % alone).encode())
    while reader.readline().strip():
        pass
    total = 0
    for text in texts:
        frame = bytes([0x81, 0x80 | 126]) + len(text).to_bytes(2, "big") + bytes(4) + text
        stream.sendall(frame)
        length = reader.read(2)[1]
        length = int.from_bytes(reader.read(2), "big") if length == 126 else length
        total += len(reader.read(length))
    stream.close()
    return total / len(texts)


def echo(args):
    texts = run(args, "texts", args.bytes).encode().split()
    print(f"CPU time of the server per message of {args.bytes} bytes, {args.connections or 20} connections, "
          f"{args.rounds} rounds of {args.seconds} s\n")
    print("| mode | server | µs per message: median | smallest | largest | bytes of an answer |\n|---|---|--:|--:|--:|--:|")
    for mode in args.modes.split(","):
        servers = [Server(spec, mode) for spec in args.server]
        times = {server.name: [] for server in servers}
        for turn in range(args.rounds):
            turn %= len(servers)
            for server in servers[turn:] + servers[:turn]:
                words = run(args, "echo", server.url, server.child.pid, args.connections or 20, args.bytes, args.seconds, mode)
                times[server.name].append(float(words.split()[0]))
        for server in servers:
            took = times[server.name]
            size = answer_bytes(server, mode, texts)
            server.stop()
            print(f"| {mode} | {server.name} | {statistics.median(took):.1f} | {min(took):.1f} | {max(took):.1f} | {size:.0f} |",
                  flush=True)


def idle(args):
    connections = args.connections or 10_000
    print(f"Resident memory with {connections} connections that have had one compressed message echoed\n")
    print("| server | mode | before, KiB | after, KiB | bytes per connection | against none |\n|---|---|--:|--:|--:|--:|")
    for spec in args.server:
        base = None
        for mode in args.modes.split(","):
            server = Server(spec, mode)
            before, after = map(int, run(args, "idle", server.url, server.child.pid, connections, mode).split())
            server.stop()
            base = base or after
            print(f"| {server.name} | {mode} | {before} | {after} | {(after - before) * 1024 // connections} | {after / base:.3f} |",
                  flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["echo", "idle"])
    parser.add_argument("--load", required=True)
    parser.add_argument("--server", action="append", required=True)
    parser.add_argument("--connections", type=int)
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--modes", help="default: shared,takeover for echo; none,shared for idle")
    args = parser.parse_args()
    args.modes = args.modes or {"echo": "shared,takeover", "idle": "none,shared"}[args.what]
    {"echo": echo, "idle": idle}[args.what](args)


main()
