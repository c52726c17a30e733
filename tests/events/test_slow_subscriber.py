"""Many events for a slow subscriber: memory stays flat, and each event is accounted for.

The benchmark of events measures the same with a million.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.events import EventEmitter
from mtaio.exceptions import EventOverflowError

MANY = 20_000
BUFFER = 100
LOOK_EVERY = 1_000
FEW = 2_000
"""Blocks of memory: what a buffer of events is made of, several times over; one in 10 events."""


@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest", "raise"])
async def test_many_events_for_a_slow_subscriber(overflow: Any) -> None:
    """Whatever its overflow policy."""
    emitter = EventEmitter()
    taken = refused = most = 0
    blocks: list[int] = []

    async def consume() -> None:
        nonlocal taken
        async for _ in events:
            taken += 1
            if taken % 16 == 0:
                await checkpoint()

    async with emitter.stream("a", max_pending=BUFFER, overflow=overflow) as events:
        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            for number in range(MANY):
                try:
                    await emitter.emit("a", number)
                except* EventOverflowError:
                    refused += 1
                most = max(most, events.pending)
                if not number % LOOK_EVERY:
                    blocks.append(sys.getallocatedblocks())
            await events.aclose()
        dropped = events.dropped

    assert most == BUFFER
    assert max(blocks[1:]) - blocks[1] < FEW
    assert taken + dropped == MANY
    assert (dropped == 0) is (overflow == "block")
    assert refused == (dropped if overflow == "raise" else 0)
    statistics = emitter.statistics()
    assert statistics.dropped == dropped
    assert statistics.emitted == MANY
    # With drop_oldest an event may be kept first, which counts as handled, and dropped later.
    assert statistics.handled == (MANY if overflow == "drop_oldest" else taken)
