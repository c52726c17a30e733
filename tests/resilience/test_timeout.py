"""Timeout: how long what is inside may take."""

from __future__ import annotations

import asyncio
import math
from itertools import product
from typing import Any

import anyio
import pytest

from mtaio import exceptions
from mtaio.core import Retry
from mtaio.resilience import Pipeline, Timeout
from mtaio.resources import TimeoutManager
from mtaio.testing import run
from tests.resilience.parts import Failing, answer, fail


async def test_it_interrupts_what_takes_longer() -> None:
    """With an error that knows the seconds, the moment and the name."""
    timeout = Timeout(1.5, name="api")
    with pytest.raises(
        exceptions.TimeoutError, match=r"^api: the call timed out after 1\.5 s$"
    ) as (caught):
        await Pipeline(timeout).run(anyio.sleep, 2)
    assert (caught.value.timeout, caught.value.deadline, caught.value.name) == (1.5, 1.5, "api")
    assert caught.value.__cause__ is not None
    assert anyio.current_time() == 1.5
    statistics = timeout.statistics()
    assert (statistics.entered, statistics.timed_out) == (1, 1)
    assert statistics.default_timeout == 1.5


async def test_result_that_comes_late_is_kept() -> None:
    """What met no checkpoint after the deadline has its result."""

    async def late() -> int:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)
        return 7

    timeout = Timeout(1)
    assert await Pipeline(timeout).run(late) == 7
    assert timeout.statistics().timed_out == 0


async def test_other_errors_pass() -> None:
    """Those of the call, a TimeoutError of its own included."""

    async def own() -> None:
        raise TimeoutError("mine")

    api = Pipeline(Timeout(1))
    with pytest.raises(ConnectionError):
        await api.run(fail)
    with pytest.raises(TimeoutError, match=r"^mine$"):
        await api.run(own)
    assert api.statistics().parts["timeout"].timed_out == 0


async def test_cancellation_from_outside_passes() -> None:
    """And is no timeout."""
    api = Pipeline(Timeout(5))
    with anyio.move_on_after(1) as scope:
        await api.run(anyio.sleep_forever)
    assert scope.cancelled_caught
    assert api.statistics().parts["timeout"].timed_out == 0
    assert api.statistics().cancelled == 1


async def test_remaining_time_is_known_inside() -> None:
    """`TimeoutManager.remaining` counts it, and not after the call."""
    timeouts = TimeoutManager()
    seen: list[float] = []

    async def look() -> None:
        seen.append(timeouts.remaining())

    async def look_and_fail() -> None:
        await look()
        raise ConnectionError

    api = Pipeline(Timeout(3))
    await api.run(look)
    with pytest.raises(ConnectionError):
        await api.run(look_and_fail)
    assert (seen, timeouts.remaining()) == ([3, 3], math.inf)


async def test_total_and_each_attempt() -> None:
    """The retry does not wait beyond the total; each attempt has its own time."""
    failing = Failing(0, seconds=9)
    api = Pipeline(
        Timeout(5.5, total=True, name="all"),
        Retry(9, wait_initial=1, wait_exp_base=1, jitter=0),
        Timeout(1),
    )
    with pytest.raises(exceptions.TimeoutError, match=r"^the call timed out after 1 s"):
        await api.run(failing)
    assert failing.calls == [0, 2, 4]
    assert anyio.current_time() == 5

    slow = Pipeline(Timeout(2, total=True), Retry(9))
    with pytest.raises(exceptions.TimeoutError, match=r"^all attempts together timed out after 2"):
        await slow.run(anyio.sleep_forever)


async def test_nothing_waits_for_a_call_that_has_ended() -> None:
    """However it ended: it would be kept until its time is up."""
    timeout = Timeout(1000)
    api = Pipeline(timeout)
    await api.run(answer)
    with pytest.raises(ConnectionError):
        await api.run(fail)
    with anyio.move_on_after(1):
        await api.run(anyio.sleep_forever)
    assert timeout._loop is not None
    assert not timeout._loop.alarm.waiting


async def test_infinite_time_is_no_limit() -> None:
    """As everywhere; the calls are counted."""
    timeout = Timeout(math.inf)
    api = Pipeline(timeout, name="api")
    assert await api.run(answer) == 1
    with pytest.raises(ConnectionError):
        await api.run(fail)
    with anyio.move_on_after(1000) as scope:
        await timeout.run(anyio.sleep_forever)
    assert scope.cancelled_caught
    assert (timeout.statistics().entered, timeout.statistics().timed_out) == (3, 0)
    assert str(timeout) == "Timeout(inf)"


async def test_serves_many_at_once() -> None:
    """One part, and a deadline for each call."""
    api = Pipeline(Timeout(1))
    async with anyio.create_task_group() as group:
        for tenth in range(9):
            group.start_soon(api.run, anyio.sleep, tenth / 10)
    assert api.statistics().succeeded == 9
    assert await api.run(answer) == 1


@pytest.mark.parametrize(
    ("seconds", "error", "message"),
    [
        (0, ValueError, "^seconds=0 leaves no time"),
        (-1, ValueError, "^seconds=-1 is less than 0"),
        ("1", TypeError, "^seconds='1' is a str"),
    ],
)
def test_senseless_times_are_refused(seconds: Any, error: type[Exception], message: str) -> None:
    """With the way out."""
    with pytest.raises(error, match=message):
        Timeout(seconds)


def test_printed() -> None:
    """With what it is."""
    assert repr(Timeout(5, total=True, name="x")) == "<Timeout 'x' of 5 s in all>"
    assert repr(Timeout(1)) == "<Timeout of 1 s>"
    assert (Timeout(1).seconds, Timeout(1).total, Timeout(1).name) == (1, False, None)


@pytest.mark.parametrize("backends", [*product(("asyncio", "trio"), repeat=2)], ids="-".join)
def test_in_one_loop_after_another(backends: tuple[str, str]) -> None:
    """The timer that a loop took with it, and that never rang, is not waited for in the next."""
    api = Pipeline(Timeout(1))

    async def late() -> float:
        await api.run(answer)
        with pytest.raises(TimeoutError):
            await api.run(anyio.sleep, 2)
        await api.run(answer)  # a timer is left
        return anyio.current_time()

    for backend in backends:
        assert run(late, backend=backend) == 1


def test_under_asyncio_run() -> None:
    """Each call is interrupted where asyncio runs the program, and not AnyIO."""
    timeout = Timeout(0.002)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:  # one timer for all: it is set again as it rings
            for delay in (0, 0.001):
                await asyncio.sleep(delay)
                group.create_task(interrupted())

    async def interrupted() -> None:
        with pytest.raises(TimeoutError):
            await timeout.run(anyio.sleep, 30)

    asyncio.run(asyncio.wait_for(main(), 5))  # asyncio's own way leaves AnyIO no mark
