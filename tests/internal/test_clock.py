"""The one source of time."""

from __future__ import annotations

import math
import time

import anyio
import pytest

from mtaio._internal import clock
from mtaio._internal.clock import now


def test_now_is_monotonic_time() -> None:
    """Outside a simulation the clock is the monotonic one."""
    before = time.monotonic()
    assert before <= now() <= time.monotonic()


def test_reading_from_another_source() -> None:
    """Inside the block the clock is another one, under names imported before as well."""
    with clock.reading_from(lambda: 7.0):
        assert now() == clock.now() == 7.0
        with clock.reading_from(lambda: 8.0):
            assert now() == 8.0
        assert now() == 7.0
    assert now() >= time.monotonic() - 60


def test_source_is_given_back_after_an_error() -> None:
    """An error in the block does not leave the other clock behind."""
    with pytest.raises(LookupError), clock.reading_from(lambda: -math.inf):
        raise LookupError
    assert now() > -math.inf


async def test_loop_deadline_converts_to_the_loop_s_clock() -> None:
    """A moment of `now` is moved to the clock of the event loop, which may count from elsewhere."""
    await anyio.sleep(5)
    assert clock.loop_deadline(now() + 2.5) == 7.5
    with clock.reading_from(lambda: 1000.0):
        assert clock.loop_deadline(1002.5) == 7.5


async def test_endless_deadline_stays_endless() -> None:
    """No limit stays no limit, on any clock, without a look at one."""
    with clock.reading_from(lambda: math.inf):
        assert clock.loop_deadline(math.inf) == math.inf


def test_endless_deadline_needs_no_loop() -> None:
    """``inf`` is converted without an event loop; a real moment needs one."""
    assert clock.loop_deadline(math.inf) == math.inf
    with pytest.raises(anyio.NoEventLoopError):
        clock.loop_deadline(1.0)
