"""A slot limiter, in which another thread acts between any two lines, as it may under coverage."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import from_thread, to_thread

from mtaio.resources import ConcurrencyLimiter
from tests.hammer.hammer import HAS_GIL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.skipif(
    not HAS_GIL, reason="there a limiter belongs to the thread of its loop"
)

LINES = 40
"""More than any call here runs; past its last line nothing happens between."""


class Between:
    """Calls ``act`` before the line of the limiter's code that is the given number to be run."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self.left = number
        self.act = act

    def __enter__(self) -> None:
        self.before = sys.gettrace()
        sys.settrace(self.trace)

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self.before)

    def trace(self, frame: Any, event: str, _arg: object) -> Any:
        """Count the lines of the limiter, in all that is called while this is on."""
        if not frame.f_code.co_filename.endswith("_concurrency.py"):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.act()
        return self.trace


def in_a_thread(act: Callable[[], object]) -> None:
    """Do this in another thread, to its end."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


async def gets_in(limiter: ConcurrencyLimiter) -> None:
    """Take a slot; long before the time is up, unless it was forgotten."""
    with anyio.fail_after(20):
        await limiter.acquire()


def attack(backend: str, main: Callable[[ConcurrencyLimiter, int], Awaitable[None]]) -> None:
    """Run ``main`` once for each line, and look whether all slots came back after each."""
    for number in range(1, LINES):
        limiter = ConcurrencyLimiter(1)
        anyio.run(main, limiter, number, backend=backend)
        assert limiter.statistics().in_use == 0
        assert limiter.try_acquire()


def test_a_task_joins_while_a_thread_gives_back(backend: str) -> None:
    """Whenever a task asks while a thread gives the only slot back, it gets it."""

    async def main(limiter: ConcurrencyLimiter, number: int) -> None:
        await limiter.acquire()
        joined = False
        async with anyio.create_task_group() as group:

            async def join() -> None:
                nonlocal joined
                joined = True
                group.start_soon(gets_in, limiter)
                await anyio.wait_all_tasks_blocked()

            def give_back() -> None:
                with Between(number, lambda: from_thread.run(join)):
                    limiter.release()

            await to_thread.run_sync(give_back)
        if joined:  # else the call was over before that line
            limiter.release()

    attack(backend, main)


def test_a_task_joins_while_a_thread_tries(backend: str) -> None:
    """Whenever a slot comes back and a task asks while a thread tries to take it, one has it."""

    async def main(limiter: ConcurrencyLimiter, number: int) -> None:
        await limiter.acquire()
        async with anyio.create_task_group() as group:

            async def join() -> None:
                limiter.release()
                group.start_soon(gets_in, limiter)
                await anyio.wait_all_tasks_blocked()

            def take() -> bool:
                with between:
                    return limiter.try_acquire()

            between = Between(number, lambda: from_thread.run(join))
            if await to_thread.run_sync(take):
                limiter.release()
        limiter.release()

    attack(backend, main)


def test_a_thread_acts_while_a_task_asks(backend: str) -> None:
    """Whenever a thread gives the slot back, or takes and keeps it for a while, a task gets in."""

    async def given_back(limiter: ConcurrencyLimiter, number: int) -> None:
        await limiter.acquire()
        gave = threading.Event()

        def give_back() -> None:
            gave.set()
            limiter.release()

        async with anyio.create_task_group() as group:
            with Between(number, lambda: in_a_thread(give_back)):
                group.start_soon(gets_in, limiter)
                await anyio.sleep(0.001)
            if not gave.is_set():
                limiter.release()
        limiter.release()

    async def taken(limiter: ConcurrencyLimiter, number: int) -> None:
        took: list[bool] = []
        async with anyio.create_task_group() as group:
            with Between(number, lambda: in_a_thread(lambda: took.append(limiter.try_acquire()))):
                group.start_soon(gets_in, limiter)
                await anyio.wait_all_tasks_blocked()
            if True in took:
                limiter.release()
        limiter.release()

    attack(backend, given_back)
    attack(backend, taken)


def test_a_thread_takes_while_the_limit_rises(backend: str) -> None:
    """Whenever a thread takes a slot that was meant for a waiting task, the task gets it next."""

    async def main(limiter: ConcurrencyLimiter, number: int) -> None:
        await limiter.acquire()
        took: list[bool] = []
        async with anyio.create_task_group() as group:
            group.start_soon(gets_in, limiter)
            await anyio.wait_all_tasks_blocked()
            with Between(number, lambda: in_a_thread(lambda: took.append(limiter.try_acquire()))):
                limiter.limit = 2
            if True in took:
                limiter.release()
        limiter.release()
        limiter.release()

    attack(backend, main)
