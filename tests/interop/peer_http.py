#!/usr/bin/env python3
"""Conversations of Python's `requests` or `httpx` with our http_server, in the clear and over TLS.

    HTTP_URLS='http://localhost:PORT https://localhost:PORT' MUTUAL_URL=https://localhost:PORT PKI=DIR FILES=DIR
    peer_http.py requests|httpx

FILES is what the server has below /files/: digits.txt and big.bin.
"""

import hashlib
import io
import os
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

PEER = sys.argv[1]
PKI, FILES, MUTUAL_URL = (os.environ[name] for name in ("PKI", "FILES", "MUTUAL_URL"))
CA, MINE = PKI + "/ca.pem", (PKI + "/client.pem", PKI + "/client.key")
PIECE = 60_001
with open(FILES + "/big.bin", "rb") as file:
    BIG = file.read()


class Requests:
    """What the conversations need, by `requests`."""

    def __init__(self, cert=None):
        self.session = requests.Session()
        # Neither proxies nor authorities of the surroundings.
        self.session.trust_env = False
        self.session.verify, self.session.cert = CA, cert
        self.failures = requests.RequestException

    def ask(self, method, url, **how):
        how["data"] = how.pop("content", None)
        return self.session.request(method, url, timeout=20, **how)

    @contextmanager
    def streamed(self, url):
        with self.session.get(url, stream=True, timeout=20) as response:
            yield response, response.iter_content(PIECE), response.iter_lines(chunk_size=1, decode_unicode=True)

    def connections(self, url):
        pools = self.session.get_adapter(url).poolmanager.pools
        return sum(pools[key].num_connections for key in pools.keys())


class Httpx:
    """The same by `httpx`."""

    def __init__(self, cert=None):
        context = ssl.create_default_context(cafile=CA)
        if cert:
            context.load_cert_chain(*cert)
        self.session = httpx.Client(verify=context, timeout=20, trust_env=False)
        self.failures = httpx.HTTPError
        self.opened = 0

    def ask(self, method, url, **how):
        return self.session.request(method, url, extensions={"trace": self.trace}, **how)

    def trace(self, event, _):
        self.opened += event == "connection.connect_tcp.complete"

    @contextmanager
    def streamed(self, url):
        with self.session.stream("GET", url) as response:
            yield response, response.iter_bytes(PIECE), response.iter_lines()

    def connections(self, _):
        return self.opened


if PEER == "requests":
    import requests
    Client, version = Requests, requests.__version__
else:
    import httpx
    Client, version = Httpx, httpx.__version__

each_url, once = [], []


def conversation(title, rows=each_url):
    def add(run):
        rows.append((title, run))
        return run
    return add


def equal(got, wanted, what="value"):
    if got != wanted:
        short = lambda v: repr(v) if len(repr(v)) < 120 else "%s of %d" % (type(v).__name__, len(v))
        raise AssertionError("%s: wanted %s, got %s" % (what, short(wanted), short(got)))


def pieces(data):
    """An iterator: its length is unknown, which makes a request chunked."""
    for at in range(0, len(data), PIECE):
        yield data[at:at + PIECE]


@conversation("a page, JSON, and what is not there")
def _(client, url):
    page = client.ask("GET", url + "/")
    equal((page.status_code, page.headers["content-type"]), (200, "text/html; charset=utf-8"), "page")
    equal(client.ask("GET", url + "/api/connections").json(), {"open": 0}, "JSON")
    equal(client.ask("GET", url + "/nothing").status_code, 404, "status")


@conversation("100 requests on one connection")
def _(client, url):
    for i in range(100):
        equal(client.ask("GET", "%s/files/digits.txt?%d" % (url, i)).content, b"0123456789", "body")
    equal(client.connections(url), 1, "connections")


@conversation("all methods on one connection")
def _(client, url):
    file = url + "/files/digits.txt"
    for method, status in (("GET", 200), ("HEAD", 200), ("DELETE", 405), ("OPTIONS", 204), ("PATCH", 405), ("GET", 200)):
        equal((method, client.ask(method, file).status_code), (method, status), "status")
    equal(client.connections(url), 1, "connections")


@conversation("uploads: empty, small, big, in turn on one connection")
def _(client, url):
    for data in (b"", b"x", BIG, b"y" * 65536):
        equal(client.ask("POST", url + "/upload", content=data).json(), {"bytes": len(data)}, "answer")
    equal(client.connections(url), 1, "connections")


@conversation("chunked uploads: empty, small, big, in turn on one connection")
def _(client, url):
    for data in (b"", b"x", BIG, b"y" * 65536):
        equal(client.ask("PUT", url + "/upload", content=pieces(data)).json(), {"bytes": len(data)}, "answer")
    equal(client.connections(url), 1, "connections")


@conversation("a form with a file, and JSON")
def _(client, url):
    form = client.ask("POST", url + "/upload", files={"file": ("big.bin", io.BytesIO(BIG))})
    equal((form.status_code, form.json()["bytes"] > len(BIG)), (200, True), "form")
    equal(client.ask("POST", url + "/upload", json=[1, 2, 3]).status_code, 200, "JSON")


@conversation("a big download, whole and in pieces")
def _(client, url):
    equal(client.ask("GET", url + "/files/big.bin").content, BIG, "body")
    digest = hashlib.sha256()
    with client.streamed(url + "/files/big.bin") as (_, bytes_of, _):
        for piece in bytes_of:
            digest.update(piece)
    equal(digest.digest(), hashlib.sha256(BIG).digest(), "digest")


@conversation("HEAD has the length and no body")
def _(client, url):
    head = client.ask("HEAD", url + "/files/big.bin")
    equal((head.headers["content-length"], head.content), (str(len(BIG)), b""), "head")
    equal(client.ask("GET", url + "/files/digits.txt").content, b"0123456789", "next body")
    equal(client.connections(url), 1, "connections")


@conversation("ranges and conditions")
def _(client, url):
    file = url + "/files/digits.txt"
    part = client.ask("GET", file, headers={"Range": "bytes=2-4"})
    equal((part.status_code, part.content, part.headers["content-range"]), (206, b"234", "bytes 2-4/10"), "part")
    beyond = client.ask("GET", file, headers={"Range": "bytes=10-"})
    equal((beyond.status_code, beyond.headers["content-range"]), (416, "bytes */10"), "beyond")
    whole = client.ask("GET", file)
    for name, validator in (("If-None-Match", "etag"), ("If-Modified-Since", "last-modified")):
        same = client.ask("GET", file, headers={name: whole.headers[validator]})
        equal((name, same.status_code, same.content), (name, 304, b""), "same")
    other = client.ask("GET", file, headers={"If-Match": '"other"'})
    equal(other.status_code, 412, "If-Match")


@conversation("server-sent events, given up after two")
def _(client, url):
    with client.streamed(url + "/events") as (response, _, lines):
        equal(response.headers["content-type"].split(";")[0], "text/event-stream", "type")
        seen = []
        for line in lines:
            if line:
                seen.append(line)
            if len(seen) == 2:
                break
    equal(seen, ["data: tick 1", "data: tick 2"], "events")
    equal(client.ask("GET", url + "/api/connections").status_code, 200, "next status")


@conversation("10 threads, 20 requests each")
def _(client, url):
    def one(n):
        for i in range(20):
            answer = client.ask("POST", url + "/upload", content=b"x" * (n * 1000 + i))
            equal(answer.json(), {"bytes": n * 1000 + i}, "answer")
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(one, range(10)))


@conversation("a certificate where it is demanded", once)
def _():
    client = Client(MINE)
    for _ in range(20):
        equal(client.ask("GET", MUTUAL_URL + "/files/digits.txt").content, b"0123456789", "body")
    equal(client.connections(MUTUAL_URL), 1, "connections")
    equal(client.ask("POST", MUTUAL_URL + "/upload", content=pieces(BIG)).json(), {"bytes": len(BIG)}, "answer")


@conversation("no certificate where it is demanded", once)
def _():
    client = Client()
    try:
        client.ask("GET", MUTUAL_URL + "/")
    except client.failures as failure:
        equal("certificate required" in str(failure).lower().replace("_", " "), True, str(failure))
    else:
        raise AssertionError("it was served")


def rows():
    for url in os.environ["HTTP_URLS"].split():
        for title, run in each_url:
            yield "%s: %s" % (url.split(":")[0], title), lambda: run(Client(), url)
    yield from once


passed = failed = 0
for title, run in rows():
    try:
        run()
        print("ok - %s %s" % (PEER, title), flush=True)
        passed += 1
    except Exception as error:
        print("not ok - %s %s\n  # %s: %s" % (PEER, title, type(error).__name__, error), flush=True)
        failed += 1
print("# %s %s: %d passed, %d failed" % (PEER, version, passed, failed))
sys.exit(1 if failed or not passed else 0)
