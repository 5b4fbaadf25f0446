"""A WebSocket server of the package `websockets` with the behaviour of websocket.mjs."""

import asyncio
import json
import sys

import modules


def print_line(value):
    print(json.dumps(value), flush=True)


async def fragments():
    # Each part is a frame; the library adds an empty last one.
    for part in ["fr\u00e4g", "", "ments"]:
        yield part


async def serve(connection):
    from websockets.exceptions import ConnectionClosed

    path = connection.request.path
    try:
        if path == "/echo":
            async for message in connection:
                await connection.send(message)
        elif path == "/early":
            await connection.send("early")
        elif path == "/pings":
            pongs = [(data, await connection.ping(data)) for data in ["a", "b", "c"]]
            # A later pong also answers the pings before it.
            await pongs[-1][1]
            await connection.send("pong c")
        elif path == "/fragments":
            await connection.ping("between")
            await connection.send(fragments())
        elif path == "/close":
            await connection.close(4001, "n\u00e4h")
        elif path == "/violation":
            # A text frame with a reserved bit.
            connection.transport.write(b"\xc1\x00")
        else:
            connection.transport.abort()
        await connection.wait_closed()
    except ConnectionClosed:
        pass
    print_line({"code": connection.close_code, "reason": connection.close_reason})


def refuse(connection, request):
    if request.path == "/refused":
        return connection.respond(403, "no")
    return None


async def main():
    from websockets.asyncio.server import serve as listen

    async with listen(serve, "127.0.0.1", 0, compression=None, process_request=refuse,
                      max_size=None) as server:
        print_line({"port": server.sockets[0].getsockname()[1]})
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


modules.load()
asyncio.run(main())
