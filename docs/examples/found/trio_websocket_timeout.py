"""trio-websocket 0.12.2: ``connect_timeout`` has no effect in the handshake."""

import anyio
import pytest
import trio
import trio_websocket

from mtaio.testing import Network, explore, settle


# --8<-- [start:test]
async def accept(_: trio.SocketStream) -> None:
    """Accept a connection, say nothing for a minute, and hang up."""
    await trio.sleep(60)


async def serve() -> None:
    await trio.serve_tcp(accept, 80)


@explore(backends=("trio",))
async def test_connecting_has_a_timeout() -> None:
    """A server that accepts and says nothing is given up in time."""
    async with Network(latency=0.05) as net:
        net.host("api").start(serve)
        await settle()
        begin = anyio.current_time()
        with pytest.raises(trio_websocket.ConnectionTimeout):
            async with trio_websocket.open_websocket_url(
                "ws://api/", connect_timeout=1
            ):
                pass
        took = anyio.current_time() - begin
    assert took < 2, f"{took:g} seconds"


# --8<-- [end:test]
