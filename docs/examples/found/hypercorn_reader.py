"""hypercorn 0.18.0: a client that does not read stops the shutdown."""

from typing import Any

import anyio
import sniffio
from hypercorn.asyncio import serve as serve_asyncio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_trio

from mtaio.testing import Network, explore, settle


async def app(scope: Any, _receive: Any, send: Any) -> None:
    """Answer with ten megabytes."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(100):
        await send(
            {
                "type": "http.response.body",
                "body": b"x" * 100_000,
                "more_body": True,
            }
        )
    await send({"type": "http.response.body", "body": b""})


# --8<-- [start:test]
@explore()
async def test_server_shuts_down() -> None:
    """A server that is asked to ends in time, whatever its clients do."""
    shutdown, ended = anyio.Event(), anyio.Event()
    config = Config()
    config.bind = ["0.0.0.0:80"]
    config.errorlog = None
    config.graceful_timeout = config.shutdown_timeout = 1

    async def serve() -> None:
        serve = (
            serve_trio
            if sniffio.current_async_library() == "trio"
            else serve_asyncio
        )
        await serve(app, config, shutdown_trigger=shutdown.wait, mode="asgi")
        ended.set()

    async with Network(latency=0.05) as net:
        net.host("api").start(serve)
        await settle()
        async with await anyio.connect_tcp("api", 80) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n")
            await anyio.sleep(1)
            shutdown.set()
            with anyio.move_on_after(60):
                await ended.wait()
            in_time = ended.is_set()
    assert in_time, "it is still running after 60 seconds"


# --8<-- [end:test]
