"""websockets 17.4: ``close()`` outlasts its timeout if nobody reads."""

import anyio
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as listen

from mtaio.testing import Network, explore, settle


# --8<-- [start:test]
async def handler(_: ServerConnection) -> None:
    """Read nothing."""
    await anyio.sleep_forever()


async def serve() -> None:
    async with listen(handler, "0.0.0.0", 80):
        await anyio.sleep_forever()


@explore(backends=("asyncio",))
async def test_close_has_a_timeout() -> None:
    """``close()`` returns within its timeout, whether the peer reads or not."""
    async with Network(latency=0.05) as net:
        net.host("api").start(serve)
        await settle()
        client = await connect(
            "ws://api/", close_timeout=1, ping_interval=None, compression=None
        )
        with anyio.move_on_after(1):
            while True:
                await client.send(b"x" * 100_000)
        begin = anyio.current_time()
        with anyio.move_on_after(60):
            await client.close()
        took = anyio.current_time() - begin
    assert took < 2, f"{took:g} seconds"


# --8<-- [end:test]
