"""Virtual time: exact, instant, in order, and followed by mtaio's clock."""

from __future__ import annotations

import math
import time

import anyio

from mtaio._internal import clock
from mtaio._internal.clock import now

LONG = 1e9
"""Seconds: thirty years, past 2**24 s, where asyncio's own resolution of 1 ns is rounded away."""


async def test_sleeps_add_up_exactly() -> None:
    """A sleep ends at the very moment it was to end, to the last bit."""
    expected = 0.0
    for delay in (0.1, 0.2, 1 / 3, 1e-9, 1e-300, 86401.7, 0.1):
        expected += delay
        await anyio.sleep(delay)
        assert anyio.current_time() == expected


async def test_long_sleep_costs_no_real_time() -> None:
    """A million seconds pass in a moment."""
    before = time.perf_counter()
    await anyio.sleep(1_000_000)  # noqa: ASYNC116 - it is long on purpose
    assert anyio.current_time() == 1_000_000
    assert time.perf_counter() - before < 60


async def test_short_sleeps_after_a_long_one() -> None:
    """Timers still fire, and exactly, where a nanosecond is too little to change the clock."""
    await anyio.sleep(LONG)
    for n in range(1, 4):
        await anyio.sleep(0.25)
        assert anyio.current_time() == LONG + n * 0.25


async def test_close_deadlines_are_kept_apart() -> None:
    """Two deadlines closer than asyncio's resolution of 1 ns are two moments."""
    woken: list[float] = []

    async def sleep(delay: float) -> None:
        await anyio.sleep(delay)
        woken.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        for delay in (3e-10, 1e-10, 2e-10):
            group.start_soon(sleep, delay)
    assert woken == [1e-10, 2e-10, 3e-10]


async def test_deadline_and_sleep_at_one_moment() -> None:
    """A timeout fires at its very moment, and what was to end later does not end."""
    with anyio.move_on_after(2) as scope:
        await anyio.sleep(math.nextafter(2, 3))
    assert scope.cancelled_caught
    assert anyio.current_time() == 2


async def test_past_deadline_does_not_turn_time_back() -> None:
    """A deadline in the past fires now, and time stays where it is."""
    await anyio.sleep(5)
    with anyio.move_on_at(3) as scope:
        await anyio.sleep(1)
    assert scope.cancelled_caught
    await anyio.sleep_until(4)
    assert anyio.current_time() == 5


async def test_all_that_is_due_happens_before_time_moves_on() -> None:
    """Whatever is due at one moment, and all that follows from it, happens at that moment."""
    moments: list[float] = []

    async def chain() -> None:
        await anyio.sleep(1)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        moments.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(chain)
        await anyio.sleep(math.nextafter(1, 2))
        assert moments == [1.0] * 20


async def test_now_follows_the_simulation() -> None:
    """Mtaio's clock says virtual time, also under a name imported before."""
    assert now() == clock.now() == 0.0
    await anyio.sleep(12.5)
    assert now() == clock.now() == anyio.current_time() == 12.5
    assert clock.loop_deadline(now() + 1) == 13.5
