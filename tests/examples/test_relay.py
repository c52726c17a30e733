"""The relay of the guide, a program of trio's, tested as such programs are: by a MockClock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import pytest

from tests.programs import ROOT, load

trio = pytest.importorskip("trio")
trio_testing = pytest.importorskip("trio.testing")

relay = load(ROOT / "docs" / "examples" / "programs" / "relay.py", "example_relay")

Sink: TypeAlias = Callable[[list[str]], Awaitable[None]]


class Upstream:
    """Takes batches, and refuses the first few."""

    def __init__(self, refusals: int = 0) -> None:
        self.batches: list[tuple[float, list[str]]] = []
        self._refusals = refusals

    async def sink(self, batch: list[str]) -> None:
        """Take a batch."""
        if self._refusals:
            self._refusals -= 1
            raise ConnectionRefusedError
        self.batches.append((trio.current_time(), batch))


def run(main: Callable[[Upstream], Awaitable[None]], *, refusals: int = 0) -> Upstream:
    """Run a test in trio, on a clock that stands at 0 and jumps when all wait."""
    upstream = Upstream(refusals)
    clock = trio_testing.MockClock(autojump_threshold=0)
    relay.pace.reset()
    trio.run(partial(main, upstream), clock=clock)
    return upstream


def test_batches_are_sent_when_they_are_full_or_old() -> None:
    """A hundred lines go at once, fewer after a second, and the rest when there will be no more."""

    async def main(upstream: Upstream) -> None:
        lines, received = trio.open_memory_channel(10)
        async with trio.open_nursery() as nursery, lines:
            nursery.start_soon(relay.ship, received, upstream.sink)
            for number in range(150):
                await lines.send(str(number))
            await trio.sleep(3)
            await lines.send("last")

    upstream = run(main)
    assert [(at, len(batch)) for at, batch in upstream.batches] == [(0, 100), (1, 50), (3, 1)]
    assert [line for _, batch in upstream.batches for line in batch] == [
        *map(str, range(150)),
        "last",
    ]


def test_lines_wait_until_the_upstream_is_back() -> None:
    """A batch is sent again, the next lines wait, and none is lost."""

    async def main(upstream: Upstream) -> None:
        lines, received = trio.open_memory_channel(10)
        async with trio.open_nursery() as nursery, lines:
            nursery.start_soon(relay.ship, received, upstream.sink)
            for number in range(120):
                await lines.send(number)

    upstream = run(main, refusals=4)
    assert [len(batch) for _, batch in upstream.batches] == [100, 20]
    assert upstream.batches[0][0] <= 0.5 + 1 + 2 + 4


def test_noisy_client_waits_alone() -> None:
    """A client that sends too much is read at the pace that is allowed; another is read at once."""
    ended: dict[str, float] = {}

    async def main(_: Upstream) -> None:
        lines, received = trio.open_memory_channel(10_000)

        async def client(peer: str, number: int) -> None:
            near, far = trio_testing.memory_stream_pair()
            async with near:
                await near.send_all(b"a line\n" * number + b"its end")
            await relay.take(peer, far, lines)
            ended[peer] = trio.current_time()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client, "noisy", 1400)
            nursery.start_soon(client, "quiet", 10)
        assert received.statistics().current_buffer_used == 1412

    run(main)
    assert ended == {"quiet": 0, "noisy": pytest.approx(2)}


def test_line_without_end_is_cut() -> None:
    """What comes without a line break is passed on in parts, and does not fill the memory."""

    async def main(_: Upstream) -> None:
        lines, received = trio.open_memory_channel(100)
        near, far = trio_testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.take, "a", far, lines)
            async with near:
                for _repeat in range(5):
                    await near.send_all(b"x" * 10_000)
                    await trio.sleep(1)
        used = received.statistics().current_buffer_used
        lengths = [len(received.receive_nowait()) for _ in range(used)]
        assert sum(lengths) == 50_000
        assert max(lengths) < relay.MOST_LINE + 10_001

    run(main)
