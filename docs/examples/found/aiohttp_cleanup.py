"""aiohttp 3.14.5: a connection is still open after ``AppRunner.cleanup()``."""

import anyio
from aiohttp import web

from mtaio.testing import Network, explore, settle


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer with ten megabytes."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"x" * 100_000)
    return response


# --8<-- [start:test]
@explore(backends=("asyncio",))
async def test_cleanup_closes_connections() -> None:
    """After ``cleanup()`` no connection is open, whatever the clients do."""
    shutdown = anyio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", 80).start()
        await shutdown.wait()
        await runner.cleanup()

    async with Network(latency=0.05) as net:
        net.host("api").start(serve)
        await settle()
        async with await anyio.connect_tcp("api", 80) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n")
            await anyio.sleep(1)
            shutdown.set()
            await anyio.sleep(60)
            left = [each.peer for each in net.open if each.host == "api"]
    assert not left, f"still connected to {left}"


# --8<-- [end:test]
