"""A WebSocket server of the package `websockets` with the behaviour of deflate.mjs.

The query has options of the package's extension, such as `server_max_window_bits=10`.
"""

import asyncio
import json
import sys
from urllib.parse import parse_qsl, urlsplit

import modules


async def fragments(connection, data):
    cut = len(data) // 3
    yield data[:cut]
    await connection.ping()
    yield data[cut : 2 * cut]
    await connection.ping()
    yield data[2 * cut :]


async def serve(connection):
    from websockets.exceptions import ConnectionClosed

    try:
        async for message in connection:
            if connection.request.path.startswith("/fragments"):
                message = fragments(connection, message)
            await connection.send(message)
    except ConnectionClosed:
        pass


def configure(connection, request):
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

    options = {name: json.loads(value) for name, value in parse_qsl(urlsplit(request.path).query)}
    connection.protocol.available_extensions = [ServerPerMessageDeflateFactory(**options)]


async def main():
    from websockets.asyncio.server import serve as listen

    async with listen(serve, "127.0.0.1", 0, process_request=configure, max_size=None) as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


modules.load()
asyncio.run(main())
