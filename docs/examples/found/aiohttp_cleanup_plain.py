"""aiohttp 3.14.5: a connection is still open after ``cleanup()``."""

import asyncio
import socket

from aiohttp import web


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer with ten megabytes."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"x" * 100_000)
    return response


async def main() -> None:
    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n")
        await asyncio.sleep(0.2)
        await runner.cleanup()
        await asyncio.sleep(0.5)
        client.settimeout(0.5)
        size = 0
        while data := await asyncio.to_thread(client.recv, 100_000):
            size += len(data)
    print(
        "after cleanup() the client still receives",
        size > 0 and "what was left to send",
    )


if __name__ == "__main__":
    asyncio.run(main())
