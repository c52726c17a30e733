"""A server that fails as it is told to, and counts its requests."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketAttribute

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import SocketStream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
DOWN = b"HTTP/1.1 503 Down\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"


class Server:
    """
    The path says what happens to the requests for it, one after another.

    ``/down,ok/7`` is a 503 and then an answer, ``/reset`` a connection that
    breaks off, ``/hang`` no answer at all, ``/0.5,ok`` one that takes half a
    second and then one at once. What follows the second slash only makes
    paths differ.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_down = False
        self.requests = 0
        self._asked: Counter[str] = Counter()

    async def serve(self, stream: SocketStream) -> None:
        """Answer the requests that come through one connection."""
        async with stream:
            while request := await self._receive(stream):
                answer = await self._answer(request.split(" ")[1])
                if answer is None:
                    return
                try:
                    await stream.send(answer)
                except anyio.BrokenResourceError:  # nobody waits any more
                    return

    async def _receive(self, stream: SocketStream) -> str:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            try:
                head += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return ""
        return head.decode()

    # --8<-- [start:answer]
    async def _answer(self, path: str) -> bytes | None:
        steps = path.split("/")[1].split(",")
        step = steps[min(self._asked[path], len(steps) - 1)]
        self._asked[path] += 1
        self.requests += 1
        if self.is_down or step == "down":
            return DOWN
        if step == "reset":
            return None
        if step == "hang":
            await anyio.sleep_forever()
        if step != "ok":
            await anyio.sleep(float(step))
        return OK

    # --8<-- [end:answer]


@asynccontextmanager
async def unreliable() -> AsyncGenerator[Server]:
    """Serve on a free port inside the block."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    server = Server(f"http://127.0.0.1:{port}")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, server.serve)
        yield server
        group.cancel_scope.cancel()
