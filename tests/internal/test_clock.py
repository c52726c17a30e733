"""The one source of time."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, TypeVarTuple

import anyio
import pytest
from anyio import from_thread, to_thread

from mtaio._internal import clock
from mtaio._internal.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

Args = TypeVarTuple("Args")


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


# ---- loops that keep another time than monotonic's -----------------------------------------------


@pytest.fixture
def own_time() -> Iterator[None]:
    """Give the clock back after a loop that keeps another time, which the process remembers."""
    before = clock.read
    yield
    clock.follow(before)


class OwnLoop(asyncio.SelectorEventLoop):
    """A loop of a user's own: it jumps where asyncio's would sleep, as looptime's does."""

    offset = 0.0

    def time(self) -> float:
        """Count from 5000."""
        return 5000 + self.offset

    def call_at(
        self,
        when: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Jump to the moment."""
        self.offset = max(self.offset, when - 5000)
        return super().call_at(when, callback, *args, context=context)


def patched_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of asyncio's with its method replaced, as some plugins do."""
    loop = asyncio.new_event_loop()
    setattr(loop, "time", lambda: 7000.0)  # noqa: B010 - as mypy allows it
    return loop


async def test_loop_s_time_is_seen_in_tasks() -> None:
    """Under virtual time every task sees the same clock as its loop."""
    await anyio.sleep(3)
    assert now() == anyio.current_time() == 3.0


@pytest.mark.usefixtures("own_time")
def test_mock_clock_of_trio() -> None:
    """Under trio's MockClock time is what its tasks sleep by."""
    trio = pytest.importorskip("trio")
    testing = pytest.importorskip("trio.testing")

    async def scenario() -> None:
        start = now()
        for second in range(1, 4):
            await anyio.sleep(1)
            assert now() - start == second
        with anyio.fail_at(clock.loop_deadline(now() + 2.5)):
            await anyio.sleep(2)

    before = time.monotonic()
    for _ in range(2):
        trio.run(scenario, clock=testing.MockClock(autojump_threshold=0))
        assert before <= now() <= time.monotonic()


@pytest.mark.usefixtures("own_time")
@pytest.mark.parametrize("factory", [OwnLoop, patched_loop])
def test_loop_with_a_time_of_its_own(factory: Any) -> None:
    """On a loop whose ``time`` is not asyncio's own, in a class or on one object, that counts."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert now() == loop.time() >= 5000
        if isinstance(loop, OwnLoop):
            await anyio.sleep(100)
            assert now() == loop.time() == 5100

    for _ in range(2):
        anyio.run(scenario, backend_options={"loop_factory": factory})
    assert now() <= time.monotonic()


@pytest.mark.usefixtures("own_time")
def test_plain_loop_after_one_with_a_time_of_its_own() -> None:
    """A loop that keeps monotonic time does so also after another has not."""

    async def scenario() -> None:
        before = time.monotonic()
        assert before <= now() <= time.monotonic()
        await anyio.lowlevel.checkpoint()
        assert before <= now() <= time.monotonic()

    anyio.run(now_and_again, backend_options={"loop_factory": OwnLoop})
    for _ in range(2):
        anyio.run(scenario)


async def now_and_again() -> None:
    """Ask for the time, so that the loop is looked at."""
    assert now() == now()


@pytest.mark.usefixtures("own_time")
def test_uvloop_keeps_monotonic_time() -> None:
    """On uvloop the clock is the fast one, without a question to the loop."""
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> None:
        assert abs(now() - asyncio.get_running_loop().time()) < 1
        assert clock.read is time.monotonic

    anyio.run(scenario, backend_options={"loop_factory": uvloop.new_event_loop})


async def in_worker_thread() -> None:
    """Compare the clock of a worker thread with that of the loop that waits for it."""
    await anyio.sleep(100)
    first = now()
    seen = await to_thread.run_sync(now)
    assert first <= seen <= now()
    assert await to_thread.run_sync(from_thread.run_sync, now) >= seen


@pytest.mark.usefixtures("own_time")
def test_worker_thread_of_a_loop_with_a_time_of_its_own() -> None:
    """A worker thread sees the time of the loop that waits for it."""
    anyio.run(in_worker_thread, backend_options={"loop_factory": OwnLoop})


@pytest.mark.usefixtures("own_time")
def test_worker_thread_under_mock_clock() -> None:
    """The same under trio's MockClock."""
    trio = pytest.importorskip("trio")
    testing = pytest.importorskip("trio.testing")

    trio.run(in_worker_thread, clock=testing.MockClock(rate=1000, autojump_threshold=0))


async def test_worker_thread_under_virtual_time() -> None:
    """The same under a simulation."""
    await in_worker_thread()


@pytest.mark.usefixtures("own_time")
def test_loop_in_a_worker_thread_of_another() -> None:
    """A loop that runs in a worker thread of a loop with another clock has its own time."""

    async def inner() -> None:
        assert abs(now() - time.monotonic()) < 1

    async def outer() -> None:
        assert now() >= 5000
        await to_thread.run_sync(anyio.run, inner)
        assert now() == asyncio.get_running_loop().time()

    anyio.run(outer, backend_options={"loop_factory": OwnLoop})
