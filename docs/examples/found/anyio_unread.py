"""AnyIO 4.16.0, asyncio: data is read without limit before it is received."""

import anyio
from anyio.abc import SocketStream

from mtaio.testing import Network, explore, settle


# --8<-- [start:test]
async def accept(stream: SocketStream) -> None:
    """Wait for something else first, and receive nothing."""
    async with stream:
        await anyio.sleep(60)


async def serve() -> None:
    await (await anyio.create_tcp_listener(local_port=80)).serve(accept)


@explore(backends=("asyncio",))
async def test_sender_waits_for_its_reader() -> None:
    """Unread data fills the buffers, some 300 kB; then the sender waits."""
    async with Network(latency=0.05) as net:
        net.host("api").start(serve)
        await settle()
        async with await anyio.connect_tcp("api", 80) as stream:
            with anyio.move_on_after(10) as scope:
                await stream.send(bytes(10_000_000))
    assert scope.cancelled_caught, "the server's process has taken 10 MB"


# --8<-- [end:test]
