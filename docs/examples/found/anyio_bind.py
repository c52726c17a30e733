"""AnyIO 4.16.0, trio: a socket that could not be bound stays open."""

import anyio
from anyio.abc import SocketStream

from mtaio.testing import Network, explore, settle


async def accept(stream: SocketStream) -> None:
    """Hang up."""
    await stream.aclose()


async def serve() -> None:
    await (await anyio.create_tcp_listener(local_port=80)).serve(accept)


# --8<-- [start:test]
@explore(backends=("trio",))
async def test_failed_attempt_leaves_no_socket() -> None:
    """Connecting from a foreign address fails, and leaves nothing open."""
    async with Network(latency=0.05) as net:
        net.host("api").start(serve)
        await settle()
        error: OSError | None = None
        try:
            await anyio.connect_tcp("api", 80, local_host="192.0.2.1")
        except OSError as raised:
            error = raised  # as a log or a retry keeps it for a while
        left = [each for each in net.open if each.host == "main"]
        assert error is not None
        error = None
    assert not left, f"{len(left)} socket is open"


# --8<-- [end:test]
