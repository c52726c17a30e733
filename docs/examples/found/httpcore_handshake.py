"""httpcore 1.0.9: cancelled in the TLS handshake, a request leaves a socket."""

from contextlib import suppress

import anyio
import httpcore
from anyio.abc import SocketStream

from mtaio.testing import Network, Victim, explore, settle


async def accept(stream: SocketStream) -> None:
    """Say nothing for a second, as an overloaded server does, and hang up."""
    async with stream:
        await anyio.sleep(1)


async def serve() -> None:
    await (await anyio.create_tcp_listener(local_port=443)).serve(accept)


# --8<-- [start:test]
@explore(seeds=10, exhaustive=1)
async def test_cancelled_request_closes_its_socket(victim: Victim) -> None:
    """A request is cancelled, the pool closed: no socket is left open."""
    async with Network(latency=0.05) as net:
        net.host("api").start(serve)
        await settle()

        async def request() -> None:
            async with httpcore.AsyncConnectionPool() as pool:
                with suppress(httpcore.ConnectError):
                    await pool.request("GET", "https://api/")

        await victim(request)
        left = [each.peer for each in net.open if each.host == "main"]
    assert not left, f"still connected to {left}"


# --8<-- [end:test]
