"""The relay, on trio's own virtual clock, which jumps when all tasks wait."""

from functools import partial

import relay
import trio
from trio.testing import MockClock, memory_stream_pair


def test_batches_are_sent_when_they_are_full_or_old() -> None:
    """A hundred go at once, fewer after a second, the rest at the end."""
    batches: list[tuple[float, int]] = []

    async def sink(batch: list[str]) -> None:
        batches.append((trio.current_time(), len(batch)))

    async def main() -> None:
        lines, received = trio.open_memory_channel[str](10)
        async with trio.open_nursery() as nursery, lines:
            nursery.start_soon(relay.ship, received, sink)
            for number in range(150):
                await lines.send(str(number))
            await trio.sleep(3)
            await lines.send("the last")

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert batches == [(0, 100), (1, 50), (3, 1)]


def test_noisy_client_waits_alone() -> None:
    """One that sends 400 more than its burst waits two seconds."""
    ended: dict[str, float] = {}

    async def client(
        lines: trio.MemorySendChannel[str], peer: str, number: int
    ) -> None:
        near, far = memory_stream_pair()
        async with near:
            await near.send_all(b"a line\n" * number)
        await relay.take(peer, far, lines)
        ended[peer] = round(trio.current_time(), 6)

    async def main() -> None:
        lines, _ = trio.open_memory_channel[str](10_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client, lines, "noisy", 1400))
            nursery.start_soon(partial(client, lines, "quiet", 10))

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert ended == {"quiet": 0, "noisy": 2}
