#!/usr/bin/env python3
"""Conversations with Python's `websockets`, as client against our echo_server and as server against our echo_client.

    SERVER_URL=ws://127.0.0.1:PORT ECHO_CLIENT='PROGRAM WORDS' peer_websockets.py
    SERVER_URL='wss://localhost:PORT ws://localhost:PORT' PKI=DIR REQUIRED_URL=... peer_websockets.py

With DEFLATE, shared or takeover, both of ours are to agree on permessage-deflate so.
With several URLs each conversation is had with one after the other. With PKI (see pki.sh) our client is served
over TLS, and the conversations about TLS are had too; REQUIRED_URL is a server that demands certificates.
One line per conversation, `ok - ...` or `not ok - ...`; status 1 when one is not ok.
To add one: a coroutine with @as_client (gets a connection to our server) or @as_server (gets our client's
connection); it returns when all was as it should be and raises otherwise.
"""

import asyncio
import logging
import os
import random
import socket
import ssl
import sys
from functools import partial
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.protocol import State

SERVER_URLS = os.environ["SERVER_URL"].split()
PKI = os.environ.get("PKI")
DEFLATE = os.environ.get("DEFLATE")
ECHO_CLIENT = os.environ["ECHO_CLIENT"].split()
SECONDS_MAX = 30
MIB = 1 << 20
OPEN = {"max_size": 64 * MIB, "ping_interval": None, "open_timeout": 10, "close_timeout": 10}

# Handshakes that fail are what some conversations are about.
logging.getLogger("websockets.server").setLevel(logging.CRITICAL)

client_side, server_side, tls_only = [], [], []


def server_context(**settings):
    """For serving our client: over TLS where there are certificates."""
    if not PKI:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(PKI + "/server.pem", PKI + "/server.key")
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def client_context(url, identity=None, **settings):
    if not url.startswith("wss:"):
        return None
    context = ssl.create_default_context(cafile=PKI + "/ca.pem")
    if identity:
        context.load_cert_chain("%s/%s.pem" % (PKI, identity), "%s/%s.key" % (PKI, identity))
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def dial(url, **options):
    return connect(url, ssl=client_context(url), **OPEN, **options)


def dialled(ws):
    """The URL of a connection to our server."""
    uri = ws.protocol.uri
    return "%s://%s:%d/" % ("wss" if uri.secure else "ws", uri.host, uri.port)


def as_client(title, **options):
    def add(conversation):
        client_side.append((title, conversation, options))
        return conversation
    return add


def as_server(title, exits=0, **options):
    def add(conversation):
        server_side.append((title, conversation, exits, options))
        return conversation
    return add


def both(title, **options):
    def add(conversation):
        as_client(title, **options)(conversation)
        return as_server(title, **options)(conversation)
    return add


def equal(got, wanted, what="value"):
    if got != wanted:
        short = lambda v: repr(v) if len(repr(v)) < 80 else "%s of %d" % (type(v).__name__, len(v))
        raise AssertionError("%s: wanted %s, got %s" % (what, short(wanted), short(got)))


async def echoed(ws, message, **how):
    """Sends `message` (a list or tuple: in fragments) and wants it back whole, with its type."""
    await ws.send(message, **how)
    whole = message if isinstance(message, (str, bytes)) else message[0][:0].join(message)
    if how.get("text"):
        whole = whole.decode()
    equal(await ws.recv(), whole, "echo")


async def finished(ws, code, reason=""):
    """Wants our side's close frame with the code that was sent (RFC 6455 5.5.1), and its reason."""
    await ws.wait_closed()
    if ws.protocol.close_rcvd is None:
        raise AssertionError("no close frame came, wanted %d" % code)
    equal(ws.protocol.close_rcvd.code, code, "close code")
    equal(ws.protocol.close_rcvd.reason, reason, "close reason")


# --- conversations: ours echoes, whichever side it is -------------------------------------------

@both("text and binary")
async def _(ws):
    await echoed(ws, "hello")
    await echoed(ws, "h\u00e9llo w\u00f6rld \u20ac \U0001f600")
    await echoed(ws, bytes(range(256)))


@both("empty messages")
async def _(ws):
    await echoed(ws, "")
    await echoed(ws, b"")
    await echoed(ws, "still here")


@both("lengths around the steps of the frame header")
async def _(ws):
    for n in (1, 124, 125, 126, 127, 65534, 65535, 65536, 65537):
        await echoed(ws, random.Random(n).randbytes(n))
        await echoed(ws, "x" * n)


@both("16 MiB binary")
async def _(ws):
    await echoed(ws, random.Random(1).randbytes(16 * MIB))


@both("16 MiB text, four-byte code points")
async def _(ws):
    await echoed(ws, "\U0001f600" * (4 * MIB))


@both("fragments: text, binary, empty ones, a code point cut in two")
async def _(ws):
    await echoed(ws, ["Hel", "", "lo"])
    await echoed(ws, [b"", b"\x00\xff", b"", b"x" * 70000])
    await echoed(ws, ["", ""])
    await echoed(ws, [b"\xe2\x82", b"\xac", b"\xf0\x9f", b"\x98\x80"], text=True)


@both("1000 fragments")
async def _(ws):
    await echoed(ws, [bytes([i % 256]) * 100 for i in range(1000)])


@both("a ping between two fragments")
async def _(ws):
    between = asyncio.Event()

    async def pieces():
        yield "before "
        await asyncio.wait_for(await ws.ping(b"between"), 10)
        between.set()
        yield "after"

    await ws.send(pieces())
    equal(between.is_set(), True, "pong before the message's end")
    equal(await ws.recv(), "before after", "echo")


@both("pings: empty, 125 bytes, many")
async def _(ws):
    for payload in (b"", b"p" * 125, b"\x00\xff"):
        await asyncio.wait_for(await ws.ping(payload), 10)
    await asyncio.gather(*[await ws.ping(b"%d" % i) for i in range(100)])


@both("an unsolicited pong is ignored")
async def _(ws):
    await ws.pong(b"nobody asked")
    await echoed(ws, "still here")


@both("5000 small messages, in order")
async def _(ws):
    async def send():
        for i in range(5000):
            await ws.send("message %d" % i)
    sending = asyncio.create_task(send())
    for i in range(5000):
        equal(await ws.recv(), "message %d" % i, "echo")
    await sending


@both("random messages against a copy", compression=None)
async def _(ws):
    dice = random.Random(7)
    for _ in range(200):
        n = dice.choice((0, 1, 125, 126, 1000, 65536, 200000))
        await echoed(ws, dice.choice((dice.randbytes(n), "\u00e9" * n)))


def closes(code, reason):
    async def conversation(ws):
        await echoed(ws, "goodbye")
        await ws.close(code, reason)
        await finished(ws, code, reason)
    return conversation


for code, reason in ((1000, ""), (1000, "done"), (1001, "going away"), (3000, "library"), (4999, "r\u00e9ason " + "x" * 110)):
    both("they close with %d and a reason of %d bytes" % (code, len(reason.encode())))(closes(code, reason))


async def bad_text(ws):
    await ws.send(b"fine \xed\xa0\x80", text=True)
    await ws.wait_closed()
    equal(ws.protocol.close_rcvd and ws.protocol.close_rcvd.code, 1007, "close code")


as_client("ours closes with 1007 on text that is not UTF-8")(bad_text)
as_server("ours closes with 1007 on text that is not UTF-8, and says so by its exit status", exits=1)(bad_text)


@as_client("16 connections at once, one server")
async def _(first):
    async def one(n):
        async with dial(dialled(first)) as ws:
            for i in range(20):
                await echoed(ws, "connection %d message %d" % (n, i))
    await asyncio.gather(*[one(n) for n in range(16)])


@as_client("the other end vanishes without a close, the server serves on")
async def _(ws):
    await echoed(ws, "still here")
    ws.transport.abort()
    async with dial(dialled(ws)) as again:
        await echoed(again, "back")


@as_server("the server vanishes without a close: exit status 1", exits=1)
async def _(ws):
    await echoed(ws, "still here")
    ws.transport.abort()
    await ws.wait_closed()


# --- conversations about TLS --------------------------------------------------------------------

def about_tls(title):
    def add(conversation):
        tls_only.append((title, conversation))
        return conversation
    return add


VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def only(version):
    return {"minimum_version": VERSIONS[version], "maximum_version": VERSIONS[version]}


def version_spoken(ws):
    return ws.transport.get_extra_info("ssl_object").version()


def refusal(url, context):
    """The alert that ends a handshake, in TLS 1.3 only once the client believes that it is over."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as tcp:
        try:
            with context.wrap_socket(tcp, server_hostname=address.hostname) as tls:
                return "no alert but %r" % tls.recv(1)
        except ssl.SSLError as error:
            return error.reason


def speaks(version):
    async def as_client():
        async with connect(SERVER_URLS[0], ssl=client_context(SERVER_URLS[0], **only(version)), **OPEN) as ws:
            equal(version_spoken(ws), version, "version")
            await echoed(ws, "hello")

    async def as_server():
        async def conversation(ws):
            equal(version_spoken(ws), version, "version")
            await echoed(ws, random.Random(3).randbytes(MIB))
        await run_as_server(conversation, 0, {"ssl": server_context(**only(version))})

    async def with_certificate():
        url = os.environ["REQUIRED_URL"]
        async with connect(url, ssl=client_context(url, "client", **only(version)), **OPEN) as ws:
            await echoed(ws, "it is me")

    async def without_certificate():
        url = os.environ["REQUIRED_URL"]
        context = client_context(url, **only(version))
        equal(await asyncio.to_thread(refusal, url, context), "TLSV13_ALERT_CERTIFICATE_REQUIRED", "alert")

    about_tls("client: %s" % version)(as_client)
    about_tls("server: %s" % version)(as_server)
    about_tls("client: %s, a certificate where it is demanded" % version)(with_certificate)
    about_tls("client: %s, no certificate where it is demanded" % version)(without_certificate)


for version in VERSIONS:
    speaks(version)


@about_tls("client: ws and wss in turn, 100 times on one port")
async def _():
    for i in range(100):
        for url in SERVER_URLS:
            async with dial(url) as ws:
                await echoed(ws, "%s %d" % (url, i))


@about_tls("server: its certificate is of another authority: exit status 1")
async def _():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(PKI + "/impostor.pem", PKI + "/impostor.key")
    async with serve(lambda ws: None, "127.0.0.1", 0, ssl=context) as server:
        await judge_client(server_url(server), 1)


@about_tls("server: its certificate has another name: exit status 1")
async def _():
    async with serve(lambda ws: None, "127.0.0.2", 0, ssl=server_context()) as server:
        await judge_client("wss://127.0.0.2:%d/" % server.sockets[0].getsockname()[1], 1)


@about_tls("server: speaks no TLS: exit status 1")
async def _():
    async with serve(lambda ws: None, "127.0.0.1", 0) as server:
        await judge_client(server_url(server), 1)


@about_tls("server: demands a certificate, which our client has")
async def _():
    async def conversation(ws):
        subject = ws.transport.get_extra_info("peercert")["subject"]
        equal(subject, ((("commonName", "throw-away client"),),), "subject")
        await echoed(ws, "hello")
    words = ("--cert", PKI + "/client.pem", "--key", PKI + "/client.key")
    await run_as_server(conversation, 0, {"ssl": demanding()}, words)


@about_tls("server: demands a certificate, which our client has not: exit status 1")
async def _():
    async with serve(lambda ws: None, "127.0.0.1", 0, ssl=demanding()) as server:
        await judge_client(server_url(server), 1)


def demanding():
    context = server_context(verify_mode=ssl.CERT_REQUIRED)
    context.load_verify_locations(PKI + "/ca.pem")
    return context


# --- running them -----------------------------------------------------------------------------

def agreed(ws, options):
    """What was agreed about compression is what was asked for."""
    wanted = [] if DEFLATE is None or options.get("compression", "deflate") is None else ["permessage-deflate"]
    equal([extension.name for extension in ws.protocol.extensions], wanted, "extensions")
    for extension in ws.protocol.extensions:
        forgets = [extension.remote_no_context_takeover, extension.local_no_context_takeover]
        equal(forgets, [DEFLATE == "shared"] * 2, "no context takeover")


async def run_as_client(url, conversation, options):
    async with dial(url, **options) as ws:
        agreed(ws, options)
        await conversation(ws)


def server_url(server):
    return "%s:%d/" % ("wss://localhost" if PKI else "ws://127.0.0.1", server.sockets[0].getsockname()[1])


async def run_as_server(conversation, exits, options, words=()):
    verdict = asyncio.get_running_loop().create_future()

    async def handler(ws):
        try:
            agreed(ws, options)
            await conversation(ws)
            if ws.state is State.OPEN:
                await ws.close()
                await finished(ws, 1000)
            verdict.done() or verdict.set_result(None)
        except BaseException as error:
            verdict.done() or verdict.set_exception(error if isinstance(error, Exception) else AssertionError(repr(error)))

    async with serve(handler, "127.0.0.1", 0, **{"ssl": server_context(), **OPEN, **options}) as server:
        await judge_client(server_url(server), exits, verdict, words)


async def judge_client(url, exits, verdict=None, words=()):
    """Runs our client to its end; wants this exit status, and words on stderr where it is not 0."""
    process = await asyncio.create_subprocess_exec(*ECHO_CLIENT, *words, url, stderr=asyncio.subprocess.PIPE)
    ended = asyncio.create_task(process.communicate())
    try:
        if verdict is not None:
            await asyncio.wait({verdict, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not verdict.done():
                await asyncio.wait({verdict}, timeout=1)
            if not verdict.done():
                raise AssertionError("the client ended early, status %s: %s" % (process.returncode, ended.result()[1].decode()))
            verdict.result()
        _, stderr = await asyncio.wait_for(ended, 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    equal(process.returncode, exits, "exit status")
    if exits and not stderr.strip():
        raise AssertionError("nothing on stderr says why")


async def refused_by_http():
    """A server that answers 403 instead of 101."""
    refuse = {"process_request": lambda ws, _: ws.respond(403, "not you\n")}
    async with serve(lambda ws: None, "127.0.0.1", 0, ssl=server_context(), **refuse) as server:
        await judge_client(server_url(server), 1)


async def nobody_listens():
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    await judge_client("ws://127.0.0.1:%d/" % port, 1)


def conversations():
    for title, conversation, options in client_side:
        for url in SERVER_URLS:
            over = " over " + url.split(":")[0] if PKI else ""
            yield "client: " + title + over, partial(run_as_client, url, conversation, options)
    for title, conversation, exits, options in server_side:
        yield "server: " + title, partial(run_as_server, conversation, exits, options)
    yield "server: 403 to the handshake: exit status 1", refused_by_http
    yield "server: nobody listens: exit status 1", nobody_listens
    if PKI:
        yield from tls_only


async def main():
    passed = failed = 0
    for title, run in conversations():
        try:
            await asyncio.wait_for(run(), SECONDS_MAX)
            print("ok - websockets %s" % title, flush=True)
            passed += 1
        except Exception as error:
            said = "took more than %d s" % SECONDS_MAX if isinstance(error, TimeoutError) else "%s: %s" % (type(error).__name__, error)
            print("not ok - websockets %s\n  # %s" % (title, said.replace("\n", "\n  # ")), flush=True)
            failed += 1
    print("# websockets %s: %d passed, %d failed" % (websockets.__version__, passed, failed), flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
