"""AnyIO 4.16.0: leaving a TLS stream raises an SSLError."""

import asyncio
import ssl

import anyio
import trustme

ca = trustme.CA()
server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
ca.issue_cert("localhost").configure_cert(server_side)
client_side = ssl.create_default_context()
ca.configure_trust(client_side)


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send something twice, of which the client reads the first."""
    writer.write(b"one")
    await asyncio.sleep(0.1)
    writer.write(b"two")
    await reader.read()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    try:
        async with await anyio.connect_tcp(
            "127.0.0.1", port, ssl_context=client_side, tls_hostname="localhost"
        ) as stream:
            print("received:", await stream.receive())
            await asyncio.sleep(0.3)  # works on it
    except ssl.SSLError as error:
        print("leaving the block raises", type(error).__name__, error.reason)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
