#!/usr/bin/env python3
"""Conversations of our https_client with nginx, Python's http.server (plain and over TLS) or node's https.

    HTTPS_CLIENT='COMMAND...' PKI=DIR FILES=DIR peer_fetch.py nginx|python|node

The server runs here, on a free port of 127.0.0.1, and where it speaks TLS it demands a client certificate. FILES has
digits.txt and big.bin.
"""

import filecmp
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

PEER = sys.argv[1]
PKI, FILES = os.environ["PKI"], os.environ["FILES"]
CLIENT = os.environ["HTTPS_CLIENT"].split()
BIG = FILES + "/big.bin"
BIG_BYTES = os.path.getsize(BIG)
HERE = os.path.dirname(os.path.abspath(__file__))
WORK = tempfile.mkdtemp()
SECONDS_MAX = 30
TRUST = ("--ca", PKI + "/ca.pem")
MINE = TRUST + ("--cert", PKI + "/client.pem", "--key", PKI + "/client.key")
STRANGER = TRUST + ("--cert", PKI + "/stranger.pem", "--key", PKI + "/stranger.key")

rows = []


def conversation(title, *peers):
    def add(run):
        if not peers or PEER in peers:
            rows.append((title, run))
        return run
    return add


def equal(got, wanted, what="value"):
    if got != wanted:
        raise AssertionError("%s: wanted %.300r, got %.300r" % (what, wanted, got))


def fetch(url, *words, exits=0):
    """What our client says of a request, and of its pool; or on stderr, without ports, where it ends with 1."""
    words = (MINE if url.startswith("https:") and "--ca" not in words else ()) + words
    done = subprocess.run([*CLIENT, *words, url], capture_output=True, timeout=SECONDS_MAX, text=True)
    equal((done.returncode, done.stderr if exits == 0 else ""), (exits, ""), "exit status and stderr (%s)" % done.stderr)
    if exits:
        return re.sub(r":\d+", ":PORT", done.stderr).removeprefix("https_client: ").strip()
    said, pool = done.stdout.rstrip("\n").rsplit("\n", 1) if "\n" in done.stdout.rstrip("\n") else ("", done.stdout)
    opened, reused = re.match(r"(\d+) connections opened, used again (\d+) times", pool).groups()
    return said, (int(opened), int(reused))


# --- the servers --------------------------------------------------------------------------------

def nginx():
    """A private instance. Its second port gives a connection 10 requests, its third one speaks no TLS."""
    ports = [free_port() for _ in range(3)]
    shutil.copytree(FILES, WORK + "/html")
    os.makedirs(WORK + "/html/put")
    with open(WORK + "/html/chunked", "w") as file:
        file.write('one <!--# echo var="none" default="two" -->\n')
    with open(WORK + "/nginx.conf", "w") as file:
        file.write(NGINX % {"work": WORK, "pki": PKI, "tls": ports[0], "ten": ports[1], "plain": ports[2]})
    if os.geteuid() == 0:
        subprocess.run(["chmod", "-R", "a+rwX", WORK], check=True)
    command = ["nginx", "-p", WORK, "-e", WORK + "/error.log", "-c", WORK + "/nginx.conf"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(ports[0], process)
    return process, "https://localhost:%d" % ports[0], {"ten": "https://localhost:%d" % ports[1], "plain": "http://localhost:%d" % ports[2]}


NGINX = """
daemon off;
worker_processes 1;
pid %(work)s/nginx.pid;
events { worker_connections 200; }
http {
    access_log off;
    default_type text/plain;
    root %(work)s/html;
    client_max_body_size 100m;
    client_body_temp_path %(work)s/body;
    proxy_temp_path %(work)s/proxy;
    fastcgi_temp_path %(work)s/fastcgi;
    uwsgi_temp_path %(work)s/uwsgi;
    scgi_temp_path %(work)s/scgi;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate %(pki)s/server.pem;
    ssl_certificate_key %(pki)s/server.key;
    ssl_client_certificate %(pki)s/ca.pem;
    server {
        listen 127.0.0.1:%(tls)d ssl;
        ssl_verify_client on;
        ssi_types *;
        location = /chunked { ssi on; }
        location = /moved { return 302 /digits.txt; }
        location = /loop { return 302 /loop; }
        location = /nothing { return 204; }
        location = /who { return 200 "$ssl_client_s_dn, $ssl_protocol\\n"; }
        location /put/ { dav_methods PUT; }
    }
    server {
        listen 127.0.0.1:%(ten)d ssl;
        ssl_verify_client on;
        keepalive_requests 10;
    }
    server { listen 127.0.0.1:%(plain)d; }
}
"""


class Handler(SimpleHTTPRequestHandler):
    """Python's own for files, and what the conversations need besides."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        answers = {
            "/moved": (302, {"Location": "digits.txt"}, b""),
            "/loop": (302, {"Location": "/loop"}, b""),
            "/nothing": (204, {}, None),
            "/chunked": (200, {"Transfer-Encoding": "chunked"}, b"4;x=y\r\none \r\n4\r\ntwo\n\r\n0\r\nX-Sum: 1\r\n\r\n"),
            "/short": (200, {"Content-Length": "100"}, b"short"),
        }
        if self.path not in answers:
            return super().do_GET()
        status, headers, body = answers[self.path]
        if body is not None and not headers.keys() & {"Content-Length", "Transfer-Encoding"}:
            headers["Content-Length"] = str(len(body))
        self.answer(status, headers, body or b"")
        self.close_connection = self.path == "/short"

    def do_POST(self):
        if self.headers["Transfer-Encoding"]:
            seen = 0
            while size := int(self.rfile.readline(), 16):
                seen += len(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            how = self.headers["Transfer-Encoding"]
        else:
            seen, how = len(self.rfile.read(int(self.headers["Content-Length"]))), "with a length"
        body = b"%d bytes, %s\n" % (seen, how.encode())
        self.answer(200, {"Content-Length": str(len(body))}, body)

    do_PUT = do_POST

    def answer(self, status, headers, body):
        self.send_response(status)
        for header in headers.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    context = None

    def finish_request(self, request, address):
        """The handshake is made here, in the connection's own thread."""
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, address)

    def handle_error(self, *_):
        """What goes wrong is what some conversations are about."""


def python():
    bases = {}
    for name, version in (("tls", "HTTP/1.1"), ("plain", "HTTP/1.1"), ("old", "HTTP/1.0")):
        handler = type(name, (Handler,), {"protocol_version": version})
        server = Quiet(("127.0.0.1", 0), partial(handler, directory=FILES))
        if name == "tls":
            server.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=PKI + "/ca.pem")
            server.context.load_cert_chain(PKI + "/server.pem", PKI + "/server.key")
            server.context.verify_mode = ssl.CERT_REQUIRED
        threading.Thread(target=server.serve_forever, daemon=True).start()
        scheme = "https" if name == "tls" else "http"
        bases[name] = "%s://localhost:%d" % (scheme, server.server_address[1])
    return None, bases["tls"], bases


def node():
    process = subprocess.Popen(["node", HERE + "/server_https.mjs", PKI, FILES], stdout=subprocess.PIPE, text=True)
    return process, "https://localhost:%s" % process.stdout.readline().strip(), {}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit("fetch: no server on port %d: %s" % (port, process.stderr.read() if process.poll() is not None else ""))


# --- conversations ------------------------------------------------------------------------------

@conversation("a file")
def _(base, _):
    equal(fetch(base + "/digits.txt"), ("200 %s/digits.txt\n0123456789" % base, (1, 0)))


@conversation("not there")
def _(base, _):
    equal(fetch(base + "/absent")[0].split("\n")[0], "404 %s/absent" % base)


@conversation("100 requests on one connection")
def _(base, _):
    equal(fetch(base + "/digits.txt", "--times", "100", "--quiet"), ("", (1, 99)))


@conversation("100 requests over 4 connections")
def _(base, _):
    equal(fetch(base + "/digits.txt", "--times", "100", "--connections", "4", "--quiet"), ("", (4, 96)))


@conversation("chunks, again and again on one connection")
def _(base, _):
    equal(fetch(base + "/chunked", "--times", "3"), ("\n".join(["200 %s/chunked\none two" % base] * 3), (1, 2)))


@conversation("HEAD, again and again on one connection")
def _(base, _):
    equal(fetch(base + "/big.bin", "--method", "HEAD", "--times", "3"), ("\n".join(["200 %s/big.bin" % base] * 3), (1, 2)))


@conversation("204, again and again on one connection")
def _(base, _):
    equal(fetch(base + "/nothing", "--times", "3"), ("\n".join(["204 %s/nothing" % base] * 3), (1, 2)))


@conversation("103 before the response", "node")
def _(base, _):
    equal(fetch(base + "/hints", "--times", "2"), ("\n".join(["200 %s/hints\nhinted" % base] * 2), (1, 1)))


@conversation("a redirect, not followed")
def _(base, _):
    equal(fetch(base + "/moved")[0].split("\n")[0], "302 %s/moved" % base)


@conversation("a redirect, followed")
def _(base, _):
    equal(fetch(base + "/moved", "--follow"), ("200 %s/digits.txt\n0123456789" % base, (1, 1)))


@conversation("redirects in a circle")
def _(base, _):
    equal(fetch(base + "/loop", "--follow", exits=1), LOOP)


@conversation("a big body")
def _(base, _):
    fetch(base + "/big.bin", "--output", WORK + "/out")
    equal(filecmp.cmp(WORK + "/out", BIG, shallow=False), True, "same bytes")


@conversation("a big body where no big one is wanted")
def _(base, _):
    equal(fetch(base + "/big.bin", exits=1), TOO_BIG)


@conversation("big uploads, with a length and chunked", "python", "node")
def _(base, _):
    for words, how in (((), "with a length"), (("--chunked",), "chunked")):
        said = fetch(base + "/upload", "--method", "PUT", "--body-file", BIG, "--times", "2", *words)
        equal(said, ("\n".join(["200 %s/upload\n%d bytes, %s" % (base, BIG_BYTES, how)] * 2), (1, 1)))


@conversation("small and empty uploads, with a length and chunked", "python", "node")
def _(base, _):
    for words, how in (((), "with a length"), (("--chunked",), "chunked")):
        for body in ("x", "") if words else ("x",):
            said = fetch(base + "/upload", "--method", "POST", "--body", body, *words)
            equal(said, ("200 %s/upload\n%d bytes, %s" % (base, len(body), how), (1, 0)))


@conversation("big uploads, with a length and chunked, are kept as they are", "nginx")
def _(base, _):
    for name, words in (("length", ()), ("chunked", ("--chunked",))):
        equal(fetch(base + "/put/" + name, "--method", "PUT", "--body-file", BIG, *words), ("201 %s/put/%s" % (base, name), (1, 0)))
        equal(filecmp.cmp("%s/html/put/%s" % (WORK, name), BIG, shallow=False), True, "same bytes")


@conversation("a body that ends early", "python", "node")
def _(base, _):
    equal(fetch(base + "/short", exits=1), SHORT)


@conversation("the certificate arrives", "nginx")
def _(base, _):
    equal(fetch(base + "/who")[0], "200 %s/who\nCN=throw-away client, TLSv1.3" % base)


@conversation("a server that takes 10 requests per connection", "nginx")
def _(_, more):
    equal(fetch(more["ten"] + "/digits.txt", "--times", "100", "--quiet"), ("", (10, 90)))


@conversation("without TLS", "nginx", "python")
def _(_, more):
    equal(fetch(more["plain"] + "/digits.txt", "--times", "100", "--quiet"), ("", (1, 99)))


@conversation("HTTP/1.0: a connection for each request", "python")
def _(_, more):
    equal(fetch(more["old"] + "/digits.txt", "--times", "3", "--quiet"), ("", (3, 0)))
    fetch(more["old"] + "/big.bin", "--output", WORK + "/out")
    equal(filecmp.cmp(WORK + "/out", BIG, shallow=False), True, "same bytes")


@conversation("https where there is no TLS", "nginx", "python")
def _(_, more):
    equal(fetch(more["plain"].replace("http:", "https:") + "/", exits=1), NO_TLS)


@conversation("another authority than the server's")
def _(base, _):
    equal(fetch(base + "/", "--ca", PKI + "/other.pem", exits=1), WRONG_CA)


@conversation("no certificate where it is demanded", "python", "node")
def _(base, _):
    equal(fetch(base + "/", *TRUST, exits=1), NO_CERTIFICATE)


@conversation("a certificate of another authority", "python", "node")
def _(base, _):
    equal(fetch(base + "/", *STRANGER, exits=1), STRANGE_CERTIFICATE)


@conversation("no certificate, and one of another authority: 400 says which", "nginx")
def _(base, _):
    for words, title in ((TRUST, "No required SSL certificate was sent"), (STRANGER, "The SSL certificate error")):
        said, _ = fetch(base + "/digits.txt", *words)
        equal(said.split("\n")[0], "400 %s/digits.txt" % base)
        equal(re.search("<title>400 (.*)</title>", said)[1], title, "title")


@conversation("nobody listens")
def _(_, __):
    equal(fetch("https://localhost:%d/" % free_port(), exits=1), NOBODY)


AT = "https://localhost:PORT/"
LOOP = AT + "loop: redirect stage: the redirects lead in a circle"
TOO_BIG = AT + "big.bin: response stage: the response body is longer than the limit of 1048576 bytes"
SHORT = AT + "short: body stage: the response body is bad: the connection ended before the body did"
# What Python answers to what it cannot read has no status line.
NO_TLS = AT + ": tls stage: the peer does not speak TLS, but " + {
    "nginx": "HTTP without TLS; use wss:// or https:// with a port that"
        " speaks TLS, and ws:// or http:// with one that does not",
    "python": "some protocol in plain text, as SMTP is; is it the right port?",
}.get(PEER, "")
WRONG_CA = AT + (": tls stage: the peer's certificate is not accepted: no trusted root has issued it, or an intermediate"
    " certificate is missing; add its authority to the vhost's Roots, or have the server send its whole chain")
NO_CERTIFICATE = AT + ": tls stage: the peer refused with certificate_required (116): it requires a certificate and we gave none"
# Node looks at it after the handshake, and hangs up without an alert.
STRANGE_CERTIFICATE = AT + {
    "python": ": tls stage: the peer refused with unknown_ca (48): it does not trust the issuer of our certificate",
    "node": ": response stage: the peer closed the connection before its response was complete",
}.get(PEER, "")
NOBODY = AT + (": tcp stage: no address answered: Connection refused (os error 111); is the server running, and is the"
    " port right?")

process, base, more = {"nginx": nginx, "python": python, "node": node}[PEER]()
passed = failed = 0
try:
    for title, run in rows:
        try:
            run(base, more)
            print("ok - fetch-%s %s" % (PEER, title), flush=True)
            passed += 1
        except Exception as error:
            print("not ok - fetch-%s %s\n  # %s: %s" % (PEER, title, type(error).__name__, error), flush=True)
            failed += 1
finally:
    if process:
        process.terminate()
        process.wait(10)
    shutil.rmtree(WORK, ignore_errors=True)
print("# fetch-%s: %d passed, %d failed" % (PEER, passed, failed))
sys.exit(1 if failed or not passed else 0)
