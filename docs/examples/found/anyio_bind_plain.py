"""AnyIO 4.16.0 and trio: failed attempts to connect leave sockets open."""

import gc
import socket
from typing import TYPE_CHECKING

import anyio
import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


def sockets() -> "Iterator[socket.socket]":
    """Yield the sockets that this program has open."""
    for each in gc.get_objects():
        if isinstance(each, socket.socket) and each.fileno() != -1:
            yield each


async def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        before = len([*sockets()])
        errors: list[OSError] = []
        for _ in range(5):
            try:
                await anyio.connect_tcp(
                    "127.0.0.1", port, local_host="192.0.2.1"
                )
            except OSError as error:
                errors.append(error)  # as a log or a retry keeps it for a while
        print(len(errors), "attempts have failed:", errors[0].__cause__)
        print("sockets left open:", len([*sockets()]) - before)


if __name__ == "__main__":
    trio.run(main)
