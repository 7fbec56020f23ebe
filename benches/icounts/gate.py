#!/usr/bin/env python3
"""Counts instructions per message with callgrind and holds them against table.txt.

    gate.py             fails if a scenario costs over 2 % more than the table says; a commit that
                        means it updates the table. With another compiler, target or callgrind than
                        the table's there is nothing to compare: the table is written anew.
    gate.py --record    writes the table anew
    gate.py NAME...     only these scenarios
"""
import json, os, re, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
TABLE = os.path.join(HERE, "table.txt")
TARGET_CPU = "x86-64"
RISE = 0.02


def build():
    """The path of the program, built as `cargo bench` builds it for any processor of the family."""
    command = ["cargo", "build", "--release", "--bench", "icounts", "--message-format=json"]
    env = {**os.environ, "RUSTFLAGS": ""}
    done = subprocess.run(command, cwd=TOP, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit("gate: the program does not build")
    for line in done.stdout.splitlines():
        told = json.loads(line)
        if told.get("reason") == "compiler-artifact" and told["target"]["name"] == "icounts":
            return told["executable"]
    sys.exit("gate: cargo did not say where the program is")


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def environment():
    with open("/proc/cpuinfo", encoding="ascii") as text:
        flags = re.search(r"^flags\s*:(.*)$", text.read(), re.M)
    avx2 = "yes" if flags and "avx2" in flags[1].split() else "no"
    return {"toolchain": output("rustc", "--version"), "target-cpu": TARGET_CPU,
            "host-has-avx2": avx2, "callgrind": output("valgrind", "--version")}


def count(program, name):
    """Instructions per unit."""
    with tempfile.TemporaryDirectory() as place:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={place}/out",
                   "--toggle-collect=*icounts*counted*", program, name]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"gate: {name} failed:\n{done.stdout}{done.stderr}")
    total = re.search(r"Collected : (\d+)", done.stderr)
    units = re.search(r"units: (\d+)", done.stdout)
    return int(total[1]) / int(units[1])


def count_all(program, names):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(lambda name: count(program, name), names)))


def read_table():
    header, counts = {}, {}
    if os.path.exists(TABLE):
        with open(TABLE, encoding="ascii") as text:
            for line in text:
                if line.startswith("# ") and ": " in line:
                    key, _, value = line[2:].strip().partition(": ")
                    header[key] = value
                elif line.split():
                    name, value = line.split()
                    counts[name] = float(value)
    return header, counts


def write_table(header, counts):
    with open(TABLE, "w", encoding="ascii") as text:
        text.writelines(f"# {key}: {value}\n" for key, value in header.items())
        text.writelines(f"{name:<20} {value:12.1f}\n" for name, value in counts.items())


def main():
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    program = build()
    names = wanted or output(program).split()
    here, (header, old) = environment(), read_table()
    now = count_all(program, names)
    if "--record" in sys.argv or header != here:
        write_table(here, {**(old if wanted and header == here else {}), **now})
        for name, value in now.items():
            print(f"{name:<20} {value:12.1f}  (was {old.get(name, '-')})")
        print(f"gate: table.txt is written anew, for {here}: commit it")
        return
    risen = [name for name in names if now[name] > old.get(name, 0) * (1 + RISE)]
    # Sockets may hand over a batch in two parts: what is dear once only is not dear.
    for name in risen:
        now[name] = min(now[name], *(count(program, name) for _ in range(2)))
    bad = 0
    for name in names:
        before = old.get(name)
        change = f"{now[name] / before - 1:+8.2%}" if before else "     new"
        is_bad = not before or now[name] > before * (1 + RISE)
        bad += is_bad
        print(f"{name:<20} {now[name]:12.1f} {change}{'  RISEN' if is_bad else ''}")
    if any(old.get(name, 0) * (1 - RISE) > now[name] for name in names):
        print("gate: some cost less now: record them with --record, so that it stays so")
    if bad:
        sys.exit(f"gate: {bad} over the table by more than {RISE:.0%}; if that is meant, gate.py --record and commit")


if __name__ == "__main__":
    main()
