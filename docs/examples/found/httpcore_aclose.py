"""httpcore 1.0.9, asyncio: a cancelled aclose() leaves connections open."""

import anyio
import httpcore
from anyio.abc import SocketStream

from mtaio.testing import Network, Victim, explore, settle

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def accept(stream: SocketStream) -> None:
    """Answer each request after a moment."""
    async with stream:
        async for _ in stream:
            await anyio.sleep(0.1)
            await stream.send(ANSWER)


async def serve() -> None:
    await (await anyio.create_tcp_listener(local_port=80)).serve(accept)


# --8<-- [start:test]
@explore(seeds=10, exhaustive=1)
async def test_closed_pool_has_no_connection(victim: Victim) -> None:
    """If closing a pool is cancelled, its idle connections are closed."""
    async with Network(latency=0.05) as net:
        net.host("api").start(serve)
        await settle()
        pool = httpcore.AsyncConnectionPool()
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(pool.request, "GET", "http://api/")
        await victim(pool.aclose)
        await anyio.sleep(1)
        left = [each for each in net.open if each.host == "main"]
    assert not left, f"{len(left)} connections are open"


# --8<-- [end:test]
