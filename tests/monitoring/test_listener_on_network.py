"""
The HTTP server of the probes on a simulated network: its limits, to the moment.

The server alone is simulated, on the test's event loop. `Probes` runs it in a thread of its own,
and sockets that threads use are not simulated: how it works together is tested in real time.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest

from mtaio.monitoring._endpoints import Request, Response
from mtaio.monitoring._listener import Limits, Listener
from mtaio.testing import Network, assert_quiescent, run, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")

LATENCY = 0.05
GET = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
LIMITS = Limits()


async def serve(size: int = 3) -> None:
    """Be a machine on which the probes are answered, with so many bytes."""

    async def respond(_: Request, send: Callable[[Response], Awaitable[None]]) -> None:
        await send(Response(200, (), b"x" * size, None))

    with socket.socket() as listening:
        listening.setblocking(False)  # noqa: FBT003 - its only argument
        listening.bind(("0.0.0.0", 80))  # noqa: S104 - of its host
        listening.listen(1000)
        listener = Listener(listening, respond, LIMITS)
        try:
            await listener.serve()
        finally:
            assert listener.counts.peak <= LIMITS.connections
            listener.close()


async def lasts(data: bytes) -> float:
    """Return for how many seconds a connection is there on which something was sent."""
    async with await anyio.connect_tcp("api", 80) as stream:
        began = anyio.current_time()
        await stream.send(data)
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
            while True:
                await stream.receive()
        return round(anyio.current_time() - began, 6)


def test_slow_clients_keep_no_probe_out(backend: str) -> None:
    """While 200 clients of five hosts send a byte a second, a probe takes two round trips."""

    async def main() -> None:
        async with Network(latency=LATENCY, segment=1) as net:
            net.host("api").start(serve)
            await settle()
            ended: list[float] = []

            async def slow() -> None:
                with suppress(anyio.BrokenResourceError):
                    async with await anyio.connect_tcp("api", 80) as stream:
                        began = anyio.current_time()
                        for byte in b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 100:
                            await stream.send(bytes([byte]))
                            await anyio.sleep(1)
                ended.append(anyio.current_time() - began)

            async with anyio.create_task_group() as group:
                for number in range(200):
                    with net.host(f"bad-{number % 5}"):
                        group.start_soon(slow)
                for _ in range(5):
                    await anyio.sleep(3)
                    began = anyio.current_time()
                    async with await anyio.connect_tcp("api", 80) as stream:
                        await stream.send(GET)
                        assert (await stream.receive()).startswith(b"H")
                    assert round(anyio.current_time() - began, 6) == 4 * LATENCY
            assert len(ended) == 200
            # Who sends learns of it by the bytes after that.
            assert max(ended) <= LIMITS.head_seconds + LIMITS.linger_seconds + 3
        assert_quiescent(net)

    run(main, backend=backend)


def test_limits_are_exact(backend: str) -> None:
    """A head, a further request and an answer that nobody reads have the time that they have."""

    async def main() -> None:
        async with Network(latency=LATENCY) as net:
            net.host("api").start(serve)
            await settle()
            assert await lasts(b"") == LIMITS.head_seconds + 2 * LATENCY
            assert await lasts(GET[:20]) == LIMITS.head_seconds + 2 * LATENCY
            assert await lasts(GET) == LIMITS.idle_seconds + 2 * LATENCY
        assert_quiescent(net)

    run(main, backend=backend)


@pytest.mark.parametrize("parted", [False, True])
def test_answer_that_is_not_taken(parted: bool, backend: str) -> None:  # noqa: FBT001 - a case
    """It is given up after its time, whether the client does not read or cannot be reached."""

    async def main() -> None:
        size = 3_000_000
        async with Network(latency=LATENCY) as net:
            api = net.host("api")
            api.start(serve, size)
            await settle()
            net.host("main").read_rate = 0
            async with await anyio.connect_tcp("api", 80) as stream:
                await stream.send(GET)
                await anyio.sleep(LATENCY + 0.01)
                if parted:
                    net.partition("main", "api")
                due = LIMITS.answer_seconds + size / LIMITS.slowest
                for moment, connections in ((due - 1, 1), (due + 1, 0)):
                    await anyio.sleep_until(moment + 4 * LATENCY)
                    theirs = [each for each in net.open if each.host == "api" and each.peer]
                    assert len(theirs) == connections

    run(main, backend=backend)
