"""AnyIO 4.16.0: leaving a TLS stream raises an SSLError if data is coming."""

import ssl

import anyio
import trustme
from anyio.abc import AnyByteStream
from anyio.streams.tls import TLSListener

from mtaio.testing import Network, explore, settle

ca = trustme.CA()
server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
ca.issue_cert("api").configure_cert(server_side)
client_side = ssl.create_default_context()
ca.configure_trust(client_side)


# --8<-- [start:test]
async def accept(stream: AnyByteStream) -> None:
    """Send something twice, of which the client reads the first."""
    await stream.send(b"one")
    await anyio.sleep(0.1)
    await stream.send(b"two")
    await anyio.sleep(1)
    await anyio.aclose_forcefully(stream)


async def serve() -> None:
    listener = await anyio.create_tcp_listener(local_port=443)
    await TLSListener(listener, server_side).serve(accept)


@explore()
async def test_stream_can_be_left() -> None:
    """Leaving ``async with`` raises nothing, whatever the peer is sending."""
    error: ssl.SSLError | None = None
    async with Network(latency=0.05) as net:
        net.host("api").start(serve)
        await settle()
        try:
            async with await anyio.connect_tcp(
                "api", 443, ssl_context=client_side
            ) as stream:
                assert await stream.receive() == b"one"
        except ssl.SSLError as raised:
            error = raised
    assert error is None, error.reason


# --8<-- [end:test]
