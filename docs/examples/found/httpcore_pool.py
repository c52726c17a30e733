"""httpcore 1.0.9: a cancelled request keeps its place in the pool."""

import anyio
import httpcore
from anyio.lowlevel import checkpoint

from mtaio.testing import Victim, explore


# --8<-- [start:test]
@explore()
async def test_pool_serves_who_is_left(victim: Victim) -> None:
    """If the first of two requests is cancelled, the second is answered."""
    answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"]
    network = httpcore.AsyncMockBackend(answer * 9)
    async with httpcore.AsyncConnectionPool(
        max_connections=1, network_backend=network
    ) as pool:

        async def request() -> None:
            await pool.request("GET", "http://example.com/")

        async def impatient() -> None:
            await victim(request)

        async with anyio.create_task_group() as group:
            group.start_soon(impatient)
            await checkpoint()
            group.start_soon(request)


# --8<-- [end:test]
