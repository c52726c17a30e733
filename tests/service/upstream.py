"""The service that our service asks: slow and flaky by turns, and it measures what it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

PATIENCE: Final = 30.0
"""Seconds that anything may take on a busy machine."""

SLOW: Final = 0.2
"""Seconds for which a slow answer is waited for."""


class Upstream:
    """
    An HTTP server in a thread of its own.

    What it does is decided by the name that is asked for, so that each run sees the same:
    ``flaky-…`` fails at the first try with a 503, ``lost-…`` at the first try without an answer,
    ``stuck-…`` at the first try with nothing at all, ``slow-…`` takes its time, ``broken-…`` fails
    each time, and what ``rising-…`` costs is how often it was asked for. While the upstream is held
    nothing is answered.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._held = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self.url = ""
        self.in_flight = 0
        self.peak = 0
        self.asked: Counter[str] = Counter()
        """How often each name was asked for."""
        self.arrivals: list[float] = []
        """When each request arrived, on the monotonic clock."""

    async def _main(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, backlog=256)
        self.url = "http://{}:{}".format(*server.sockets[0].getsockname())
        self._ready.set()
        await self._over.wait()
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone), contextlib.closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                if path == "/health":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    continue
                answer = await self._answer(path.rpartition("/")[2])
                if answer is None:
                    return
                writer.write(answer)

    async def _answer(self, name: str) -> bytes | None:
        kind, first = name.partition("-")[0], name not in self.asked
        with self._changed:
            self.asked[name] += 1
            self.arrivals.append(time.monotonic())
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            self._changed.notify_all()
        try:
            await asyncio.sleep(SLOW if kind == "slow" else 0.01)
            await self._free.wait()
            if kind == "stuck" and first:
                await self._over.wait()
        finally:
            # Before the answer is written: whoever reads it finds the work done.
            with self._changed:
                self.in_flight -= 1
                self._changed.notify_all()
        if kind == "lost" and first:
            return None
        if kind == "broken" or (kind == "flaky" and first):
            return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        body = json.dumps({"price": self.asked[name] if kind == "rising" else len(name)}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def hold(self) -> None:
        """Answer nothing from now on."""
        self._loop.call_soon_threadsafe(self._free.clear)

    def release(self) -> None:
        """Answer again, first what is waited for."""
        self._loop.call_soon_threadsafe(self._free.set)

    def wait_in_flight(self, number: int) -> None:
        """Wait until so many requests are waiting for an answer."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: self.in_flight >= number, PATIENCE)
        assert arrived, f"{self.in_flight} requests are in flight, not {number}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE)
