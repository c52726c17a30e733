"""websockets 17.4: ``close(close_timeout=0.1)`` waits for the peer."""

import asyncio

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

done = asyncio.Event()


async def handler(_: ServerConnection) -> None:
    """Read nothing."""
    await done.wait()


async def flood(client: ClientConnection) -> None:
    while True:
        await client.send(b"x" * 100_000)


async def main() -> None:
    async with serve(handler, "127.0.0.1", close_timeout=0.1) as server:
        port = server.sockets[0].getsockname()[1]
        client = await connect(
            f"ws://127.0.0.1:{port}/",
            close_timeout=0.1,
            ping_interval=None,
            compression=None,
        )
        try:
            async with asyncio.timeout(0.5):
                await flood(client)
        except TimeoutError:
            print("the peer does not read")
        closing = asyncio.create_task(client.close())
        await asyncio.wait([closing], timeout=3)
        print("after 3 seconds close() has returned:", closing.done())
        print("the connection is", client.state.name)
        client.transport.abort()
        await closing
        done.set()


if __name__ == "__main__":
    asyncio.run(main())
