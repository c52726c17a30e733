"""AnyIO 4.16.0, asyncio: a server takes 100 MB that nobody has received."""

import asyncio

import anyio
from anyio.abc import SocketAttribute, SocketStream


async def accept(stream: SocketStream) -> None:
    """Receive nothing yet."""
    async with stream:
        await anyio.sleep_forever()


async def main() -> None:
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, accept)
        port = listener.extra(SocketAttribute.local_port)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            sent = 0
            with anyio.move_on_after(20):
                while sent < 100:
                    await stream.send(bytes(1_000_000))
                    sent += 1
            print("taken and not received:", sent, "MB")
        group.cancel_scope.cancel()


if __name__ == "__main__":
    asyncio.run(main())
