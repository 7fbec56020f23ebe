#!/usr/bin/env python3
"""A correct echo server and client by `websockets`, in place of our examples: `run.sh --self-test` judges
the peers with them, so that a failing conversation is known to be ours.

    stand_in.py server HOST:PORT | client URL
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

LIMITS = {"max_size": 64 << 20, "compression": None, "ping_interval": None}


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def server(address):
    host, port = address.rsplit(":", 1)
    async with serve(echo, host, int(port), **LIMITS) as listening:
        await listening.serve_forever()


async def client(url):
    async with connect(url, **LIMITS) as ws:
        try:
            await echo(ws)
        except ConnectionClosed:
            pass
        await ws.wait_closed()
        if not ws.protocol.close_rcvd_then_sent:
            raise ConnectionError("the connection ended unclean: %s" % ws.close_code)


try:
    asyncio.run({"server": server, "client": client}[sys.argv[1]](sys.argv[2]))
except Exception as error:
    print("%s: %s" % (type(error).__name__, error), file=sys.stderr)
    sys.exit(1)
