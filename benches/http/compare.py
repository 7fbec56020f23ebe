#!/usr/bin/env python3
"""Requests for a 200-byte response, over connections that are kept: ours, hyper on one thread, nginx with a file.

    compare.py [--rounds 7] [--seconds 3] [--connections 32]

Wants wrk, nginx and openssl, and builds the two servers first. All servers run at the same time and are asked in
turn, so that what disturbs one round disturbs all. For each the table has the medians of the CPU time that the
server process spent per request (all its threads, user and system), with the smallest and the largest, and of the
requests per second that one wrk thread got on a machine that it shares.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def accepting(port):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("compare: nobody listens on port %d" % port)


def children(pid):
    out = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(p) for p in out.split()]


def cpu_seconds(pid):
    """User and system time of a process and its children that live."""
    total = 0.0
    for one in [pid] + children(pid):
        try:
            with open("/proc/%d/schedstat" % one) as f:
                total += int(f.read().split()[0]) / 1e9 if threads(one) == 1 else ticks(one)
        except OSError:
            pass
    return total


def threads(pid):
    return len(os.listdir("/proc/%d/task" % pid))


def ticks(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def certificate(work):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", work + "/key.pem",
         "-out", work + "/cert.pem"], check=True, stderr=subprocess.DEVNULL)
    return work + "/cert.pem", work + "/key.pem"


def nginx(work, plain, tls, cert, key):
    os.mkdir(work + "/site")
    with open(work + "/site/index.txt", "w") as f:
        f.write("x" * 200)
    os.chmod(work, 0o755)
    conf = work + "/nginx.conf"
    with open(conf, "w") as f:
        f.write("""worker_processes 1; daemon off; pid %(w)s/pid; error_log %(w)s/error.log; %(user)s
events { worker_connections 1024; }
http { access_log off; keepalive_requests 1000000000; default_type "text/plain; charset=utf-8"; root %(w)s/site;
  client_body_temp_path %(w)s/a; proxy_temp_path %(w)s/b; fastcgi_temp_path %(w)s/c; uwsgi_temp_path %(w)s/d;
  scgi_temp_path %(w)s/e; open_file_cache max=10;
  server { listen 127.0.0.1:%(plain)d; index index.txt; }
  server { listen 127.0.0.1:%(tls)d ssl; ssl_certificate %(cert)s; ssl_certificate_key %(key)s; index index.txt; } }
""" % {"w": work, "plain": plain, "tls": tls, "cert": cert, "key": key,
       "user": "user root;" if os.getuid() == 0 else ""})
    return subprocess.Popen(["nginx", "-c", conf, "-p", work], stderr=subprocess.DEVNULL)


def ask(url, seconds, connections):
    """Requests that were answered in one run; any error is the end."""
    out = subprocess.run(["wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds, url], capture_output=True, text=True)
    count = re.search(r"(\d+) requests in", out.stdout)
    if not count or "Non-2xx" in out.stdout or "Socket errors" in out.stdout:
        sys.exit("compare: %s\n%s%s" % (url, out.stdout, out.stderr))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out.stdout).group(1))
    return int(count.group(1)), rate


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    args = parser.parse_args()
    for program in ("wrk", "nginx", "openssl"):
        if not shutil.which(program):
            sys.exit("compare: no %s" % program)
    subprocess.run(["cargo", "build", "--release", "--quiet", "--manifest-path", HERE + "/Cargo.toml"], check=True)
    target = os.environ.get("CARGO_TARGET_DIR", HERE + "/target") + "/release/"
    work = tempfile.mkdtemp()
    cert, key = certificate(work)
    servers, processes = [], []
    for name in ("ours", "hyper"):
        for scheme, words in (("http", []), ("https", [cert, key])):
            port = free_port()
            process = subprocess.Popen([target + name, str(port)] + words)
            processes.append(process)
            servers.append((scheme, name, port, process.pid))
    plain, tls = free_port(), free_port()
    processes.append(nginx(work, plain, tls, cert, key))
    servers += [("http", "nginx", plain, processes[-1].pid), ("https", "nginx", tls, processes[-1].pid)]
    try:
        for server in servers:
            accepting(server[2])
        table = {server[:2]: [] for server in servers}
        for _ in range(args.rounds):
            for scheme, name, port, pid in servers:
                before = cpu_seconds(pid)
                count, rate = ask("%s://127.0.0.1:%d/" % (scheme, port), args.seconds, args.connections)
                table[scheme, name].append(((cpu_seconds(pid) - before) / count * 1e6, rate))
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
        shutil.rmtree(work)
    print("| | server | us of CPU per request (min, max) | to hyper | requests/s |\n|---|---|--:|--:|--:|")
    for scheme in ("http", "https"):
        base = statistics.median(cpu for cpu, _ in table[scheme, "hyper"])
        for name in ("ours", "hyper", "nginx"):
            cpus = [cpu for cpu, _ in table[scheme, name]]
            rate = statistics.median(rate for _, rate in table[scheme, name])
            cpu = statistics.median(cpus)
            print("| %s | %s | %.2f (%.2f, %.2f) | %.2f | %d |" % (scheme, name, cpu, min(cpus), max(cpus), cpu / base, rate))


if __name__ == "__main__":
    main()
