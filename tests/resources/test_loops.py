"""What all limiters promise of event loops: one after another, and never two at once."""

from __future__ import annotations

import asyncio
import gc
import math
from itertools import product
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread

from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
)
from mtaio.testing import run, settle
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Rate:
    """A rate limiter on which all have to wait, made with no event loop running."""

    shown = r"<RateLimiter 0/s burst=1>"

    def __init__(self) -> None:
        self.limiter: Any = RateLimiter(0)
        self.limiter.acquire_nowait()

    def wait(self) -> Coroutine[Any, Any, None]:
        """Wait until woken."""
        waiting: Coroutine[Any, Any, None] = self.limiter.acquire()
        return waiting

    def wake(self) -> None:
        """Let a waiter in, and have the next wait again."""
        self.limiter.rate = math.inf

    def again(self) -> None:
        """Have the next call wait."""
        self.limiter.rate = 0
        self.limiter.acquire_nowait()


class Keyed(Rate):
    """The same for a key."""

    shown = r"<KeyedRateLimiter 0/s burst=1 key='key'>"

    def __init__(self) -> None:
        self.limiter = KeyedRateLimiter(0)
        self.limiter.acquire_nowait("key")

    def wait(self) -> Coroutine[Any, Any, None]:
        """Wait until woken."""
        waiting: Coroutine[Any, Any, None] = self.limiter.acquire("key")
        return waiting

    def again(self) -> None:
        """Have the next call wait."""
        self.limiter.rate = 0
        self.limiter.acquire_nowait("key")


class Slots(Rate):
    """A limiter of concurrency whose one slot is taken; it comes back."""

    shown = r"<ConcurrencyLimiter: 1 of 1 slots in use, 1 waiting>"

    def __init__(self) -> None:
        self.limiter = ConcurrencyLimiter(1, max_waiting=1)
        self.limiter.acquire_nowait()

    def wake(self) -> None:
        """Give the slot back."""
        self.limiter.release()

    def again(self) -> None:
        """Have the next call wait, as it does while the slot is taken."""
        if not self.limiter.statistics().in_use:
            self.limiter.acquire_nowait()


class KeyedSlots(Slots):
    """The same for a key."""

    shown = r"<KeyedConcurrencyLimiter key='key': 1 of 1 slots in use, 1 waiting>"

    def __init__(self) -> None:
        self.limiter = KeyedConcurrencyLimiter(1, max_waiting=1)
        self.limiter.acquire_nowait("key")

    def wait(self) -> Coroutine[Any, Any, None]:
        """Wait until woken."""
        waiting: Coroutine[Any, Any, None] = self.limiter.acquire("key")
        return waiting

    def wake(self) -> None:
        """Give the slot back."""
        self.limiter.release("key")

    def again(self) -> None:
        """Have the next call wait, as it does while the slot is taken."""
        if not self.limiter.statistics().in_use:
            self.limiter.acquire_nowait("key")


class Capacity(Slots):
    """The same; another slot is added."""

    def wake(self) -> None:
        """Add a slot."""
        self.limiter.limit += 1

    def again(self) -> None:
        """Have the next call wait, as it does while no slot is free."""
        if self.limiter.statistics().in_use < self.limiter.limit:
            self.limiter.acquire_nowait()


subjects = pytest.mark.parametrize("make", [Rate, Keyed, Slots, KeyedSlots, Capacity])


def waiting(subject: Rate) -> int:
    """Return how many tasks wait."""
    count: int = subject.limiter.statistics().waiting
    return count


async def wait_and_wake(subject: Rate) -> None:
    """Have a task wait, and wake it."""
    async with anyio.create_task_group() as group:
        group.start_soon(subject.wait)
        await settle()
        assert waiting(subject) == 1
        subject.wake()
    assert waiting(subject) == 0
    subject.again()


class OtherLoop:
    """An asyncio loop in which a task waits, left standing or closed."""

    def __init__(self, subject: Rate) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _loop, _context: None)
        self.waiter = self.loop.create_task(subject.wait())
        self.loop.run_until_complete(asyncio.sleep(0))
        assert waiting(subject) >= 1


@subjects
@pytest.mark.parametrize("backends", list(product(BACKENDS, repeat=2)))
def test_day_one_3_one_loop_after_another(make: type[Rate], backends: tuple[str, str]) -> None:
    """aiolimiter#292: made outside of loops, a limiter serves one after another, on any backend."""
    subject = make()
    for backend in backends:
        run(wait_and_wake, subject, backend=backend)


@subjects
def test_day_one_3_waiters_of_a_finished_loop_are_forgotten(make: type[Rate], backend: str) -> None:
    """aiolimiter#292: tasks that waited in a finished loop are in the way of none."""
    subject = make()
    past = [OtherLoop(subject)]
    past[0].loop.close()
    run(wait_and_wake, subject, backend=backend)
    past.clear()
    gc.collect()
    assert waiting(subject) == 0


@subjects
def test_day_one_3_finished_loop_is_noticed_outside_any(make: type[Rate]) -> None:
    """What is to be woken in a finished loop is forgotten, also where no loop runs."""
    subject = make()
    past = [OtherLoop(subject)]
    past[0].loop.close()
    subject.wake()
    assert waiting(subject) == 0
    past.clear()
    gc.collect()
    assert waiting(subject) == 0


@subjects
def test_day_one_3_two_loops_at_once(make: type[Rate], backend: str) -> None:
    """While tasks wait in one loop, a task of another may not wait; whom it wakes wakes there."""
    subject = make()
    other = OtherLoop(subject)
    message = f"^{subject.shown} is in use by tasks of another running event loop"
    before = repr(subject.limiter)

    async def scenario() -> None:
        with pytest.raises(RuntimeError, match=message):
            await subject.wait()
        assert repr(subject.limiter) == before
        subject.wake()

    run(scenario, backend=backend)
    assert waiting(subject) == 1
    other.loop.run_until_complete(other.waiter)
    other.loop.close()
    assert waiting(subject) == 0


@subjects
def test_two_loops_in_turn(make: type[Rate], backend: str) -> None:
    """Two loops that have not finished may use a limiter as long as only one of them waits."""
    subject = make()
    other = OtherLoop(subject)

    async def resume() -> None:
        subject.wake()
        await other.waiter
        subject.again()

    other.loop.run_until_complete(resume())
    run(wait_and_wake, subject, backend=backend)
    other.loop.close()


@subjects
async def test_woken_from_a_thread(make: type[Rate]) -> None:
    """A thread may wake a task, which goes on in its loop."""
    subject = make()
    async with anyio.create_task_group() as group:
        group.start_soon(subject.wait)
        await settle()
        await to_thread.run_sync(subject.wake)
    assert waiting(subject) == 0


def test_waiter_closed_after_its_loop() -> None:
    """The first waiter of a finished loop is closed in peace: there is no task left to wake."""
    subject = Rate()
    past = OtherLoop(subject)
    second = past.loop.create_task(subject.wait())
    past.loop.run_until_complete(asyncio.sleep(0))
    assert waiting(subject) == 2
    past.loop.close()
    first: Any = past.waiter.get_coro()
    first.close()
    assert waiting(subject) == 0
    assert subject.limiter.statistics().cancelled == 1
    assert not second.done()
    del past, second, first
    gc.collect()


def test_key_waited_for_in_a_finished_loop_makes_room(backend: str) -> None:
    """A key is idle once its bucket is full and its waiters are those of a finished loop."""
    subject = Keyed()
    subject.limiter = limiter = KeyedRateLimiter(0, max_keys=1)
    limiter.acquire_nowait("key")
    past = [OtherLoop(subject)]
    past[0].loop.close()

    async def main() -> None:
        limiter.rate = 1
        await anyio.sleep(1)
        await limiter.acquire("another key")

    run(main, backend=backend)
    assert (limiter.statistics().keys, limiter.statistics().forgotten) == (1, 1)
    past.clear()
    gc.collect()
