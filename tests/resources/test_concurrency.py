"""What ConcurrencyLimiter promises, one case at a time."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio import exceptions
from mtaio._internal.checkpoints import FAST_CALLS
from mtaio._internal.wait_queue import WaitQueue
from mtaio.resources import ConcurrencyLimiter
from mtaio.testing import run, settle
from tests.backends import BACKENDS
from tests.injection import struck, suspensions
from tests.resources.moments import cancel_everywhere, modes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mtaio._internal.backend import Waiter
    from mtaio.testing import Victim
    from tests.resources.moments import Mode


def state(limiter: ConcurrencyLimiter) -> tuple[int, int]:
    """Return how many slots are in use, and how many tasks wait."""
    statistics = limiter.statistics()
    return statistics.in_use, statistics.waiting


# --- Slots ------------------------------------------------------------------------------------


async def test_no_more_than_limit_at_once() -> None:
    """However many tasks come, no more than ``limit`` are inside, and all get their turn."""
    limiter = ConcurrencyLimiter(3)
    inside = most = 0
    served = []

    async def work(number: int) -> None:
        nonlocal inside, most
        async with limiter:
            inside += 1
            most = max(most, inside)
            await anyio.sleep(1)
            inside -= 1
        served.append(number)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(work, number)
    assert most == 3
    assert sorted(served) == list(range(10))
    assert anyio.current_time() == 4.0
    assert state(limiter) == (0, 0)


async def test_acquire_and_release() -> None:
    """Slots taken one by one are given back one by one, by any task."""
    limiter = ConcurrencyLimiter(2)
    await limiter.acquire()
    limiter.acquire_nowait()
    assert state(limiter) == (2, 0)
    async with anyio.create_task_group() as group:

        async def give_back() -> None:
            limiter.release()

        group.start_soon(give_back)
    limiter.release()
    assert state(limiter) == (0, 0)


async def test_one_task_may_hold_several_slots() -> None:
    """A slot does not belong to a task, so that a task can nest entries (prefect#10632)."""
    limiter = ConcurrencyLimiter(3)
    async with limiter, limiter:
        await limiter.acquire()
        assert state(limiter) == (3, 0)
        limiter.release()
    assert state(limiter) == (0, 0)


async def test_an_error_inside_gives_the_slot_back() -> None:
    """The body's error goes on, and the slot is free."""
    limiter = ConcurrencyLimiter(1)
    with pytest.raises(LookupError, match=r"^mine$"):
        async with limiter:
            raise LookupError("mine")
    assert state(limiter) == (0, 0)


async def test_acquire_nowait_refuses_at_once() -> None:
    """Without a free slot acquire_nowait raises, is counted, and takes nothing."""
    limiter = ConcurrencyLimiter(1, name="db")
    limiter.acquire_nowait()
    with pytest.raises(
        exceptions.ConcurrencyLimitError,
        match=r"^<ConcurrencyLimiter 'db': 1 of 1 slots in use, 0 waiting> has no free slot now\.",
    ) as info:
        limiter.acquire_nowait()
    assert info.value.name == "db"
    assert limiter.statistics().rejected == 1
    assert state(limiter) == (1, 0)


async def test_release_without_acquire() -> None:
    """A slot that was not taken cannot be given back."""
    limiter = ConcurrencyLimiter(2)
    message = (
        r"^cannot release a slot of <ConcurrencyLimiter: 0 of 2 .*>\. Call release\(\) once for"
    )
    with pytest.raises(RuntimeError, match=message):
        limiter.release()
    with pytest.raises(RuntimeError, match=message):
        async with limiter:
            limiter.release()
    assert state(limiter) == (0, 0)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, None, "3"])
def test_constructor_refuses(wrong: Any) -> None:
    """A limit is an int of at least 1."""
    kind = ValueError if type(wrong) is int else TypeError
    with pytest.raises(kind, match=rf"^limit={wrong!r} is .*\. Pass how much may run at once, at"):
        ConcurrencyLimiter(wrong)


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "3"])
def test_constructor_refuses_max_waiting(wrong: Any) -> None:
    """A bound of the queue is an int of at least 0, or None."""
    kind = ValueError if type(wrong) is int else TypeError
    with pytest.raises(
        kind, match=rf"^max_waiting={wrong!r} is .*\. Pass how many tasks may wait, "
    ):
        ConcurrencyLimiter(1, max_waiting=wrong)


def test_limiter_says_what_it_is() -> None:
    """Name and bounds can be read, and the state stands in the representation."""
    limiter = ConcurrencyLimiter(2, max_waiting=5, name="db")
    assert (limiter.name, limiter.limit, limiter.max_waiting) == ("db", 2, 5)
    assert repr(limiter) == "<ConcurrencyLimiter 'db': 0 of 2 slots in use, 0 waiting>"


# --- Order ------------------------------------------------------------------------------------


async def test_slots_are_handed_over_in_the_order_of_asking() -> None:
    """Tasks are served in the order of asking."""
    limiter = ConcurrencyLimiter(1)
    served = []

    async def work(number: int) -> None:
        async with limiter:
            served.append((number, anyio.current_time()))
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(work, number)
            await settle()
    assert served == [(number, float(number)) for number in range(5)]


async def test_waiter_that_was_woken_is_not_overtaken() -> None:
    """A slot that was handed over is taken, although the waiter has not resumed (anyio#1170)."""
    limiter = ConcurrencyLimiter(1)
    limiter.acquire_nowait()
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire)
        await settle()
        limiter.release()
        assert state(limiter) == (1, 0)
        with pytest.raises(exceptions.ConcurrencyLimitError):
            limiter.acquire_nowait()
    limiter.release()
    assert limiter.statistics().peak == 1


# --- Time and bounds --------------------------------------------------------------------------


async def test_day_one_4_wait_up_to_x() -> None:
    """Day one, item 4: "wait up to X" is a timeout of acquire, exact and counted."""
    limiter = ConcurrencyLimiter(1, name="db")
    await limiter.acquire()
    await anyio.sleep(1)
    message = r"^<ConcurrencyLimiter 'db': .*> had no free slot within 2\.5 s$"
    with pytest.raises(exceptions.TimeoutError, match=message) as info:
        await limiter.acquire(timeout=2.5)
    assert anyio.current_time() == 3.5
    assert (info.value.timeout, info.value.deadline, info.value.name) == (2.5, 3.5, "db")
    with pytest.raises(
        exceptions.TimeoutError, match=r"^<.*> had no free slot within 0 s$"
    ) as info:
        await limiter.acquire(timeout=0)
    assert info.value.deadline == anyio.current_time() == 3.5
    statistics = limiter.statistics()
    assert (statistics.timed_out, statistics.cancelled, statistics.rejected) == (2, 0, 0)
    assert state(limiter) == (1, 0)
    limiter.release()
    for seconds in (0, 1.0, None):
        await limiter.acquire(timeout=seconds)
        limiter.release()


async def test_timed_out_waiter_leaves_the_queue() -> None:
    """A task that has waited long enough makes room for those behind."""
    limiter = ConcurrencyLimiter(1)
    await limiter.acquire()
    got = []

    async def wait(number: int, seconds: float | None) -> None:
        try:
            await limiter.acquire(timeout=seconds)
        except exceptions.TimeoutError:
            got.append((number, "late"))
        else:
            got.append((number, "served"))

    async with anyio.create_task_group() as group:
        for number, seconds in enumerate((1.0, 5.0, None)):
            group.start_soon(wait, number, seconds)
            await settle()
        await anyio.sleep(2)
        assert state(limiter) == (1, 2)
        limiter.release()
        await anyio.sleep(1)
        limiter.release()
    assert got == [(0, "late"), (1, "served"), (2, "served")]


@pytest.mark.parametrize("order", [1, -1])
async def test_slot_that_comes_with_the_deadline(order: int) -> None:
    """A slot handed over in the very moment of the deadline is kept or passed on, never lost."""
    limiter = ConcurrencyLimiter(1)
    await limiter.acquire()
    outcomes = []

    async def wait() -> None:
        try:
            await limiter.acquire(timeout=1.0)
        except exceptions.TimeoutError:
            outcomes.append("late")
        else:
            outcomes.append("served")
            limiter.release()

    async def give_back() -> None:
        await anyio.sleep(1)
        limiter.release()

    async with anyio.create_task_group() as group:
        for task in (give_back, wait)[::order]:
            group.start_soon(task)
            await settle()
    assert len(outcomes) == 1
    assert state(limiter) == (0, 0)
    statistics = limiter.statistics()
    assert statistics.timed_out == outcomes.count("late")
    assert statistics.acquired == 1 + outcomes.count("served")


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), "1", True])
async def test_timeout_is_checked_even_with_slots_free(wrong: Any) -> None:
    """A timeout that is none is refused before anything happens."""
    limiter = ConcurrencyLimiter(1)
    with pytest.raises((ValueError, TypeError), match=r"^timeout=.* Pass seconds >= 0, or None"):
        await limiter.acquire(timeout=wrong)
    with pytest.raises((ValueError, TypeError), match=r"^timeout=.* Pass seconds >= 0, or None"):
        limiter(timeout=wrong)
    assert state(limiter) == (0, 0)


async def test_full_queue_refuses_at_once() -> None:
    """With max_waiting in the queue the next is refused at once, and counted."""
    limiter = ConcurrencyLimiter(1, max_waiting=2, name="db")
    await limiter.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire)
        group.start_soon(limiter.acquire)
        await settle()
        message = (
            r"^<ConcurrencyLimiter 'db': 1 of 1 .*, 2 waiting> lets at most max_waiting=2 wait\. T"
        )
        for seconds in (None, 0, 5.0):
            with pytest.raises(exceptions.ConcurrencyLimitError, match=message):
                await limiter.acquire(timeout=seconds)
        with pytest.raises(exceptions.ConcurrencyLimitError, match=message) as info:
            async with limiter:
                pytest.fail("entered")
        assert info.value.name == "db"
        assert anyio.current_time() == 0.0
        assert limiter.statistics().rejected == 4
        limiter.release()
        limiter.release()
    assert state(limiter) == (1, 0)


async def test_no_task_may_wait() -> None:
    """With max_waiting=0 every call is answered at once."""
    limiter = ConcurrencyLimiter(1, max_waiting=0)
    async with limiter:
        with pytest.raises(exceptions.ConcurrencyLimitError, match=r"^<.*> lets at most max_wait"):
            await limiter.acquire()
    async with limiter:
        assert state(limiter) == (1, 0)


# --- Capacity at run time ---------------------------------------------------------------------


async def test_raised_limit_lets_waiters_in_in_order() -> None:
    """Raising the limit wakes as many waiters as there are new slots, in their order."""
    limiter = ConcurrencyLimiter(1)
    await limiter.acquire()
    served: list[int] = []

    async def work(number: int) -> None:
        await limiter.acquire()
        served.append(number)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(work, number)
            await settle()
        limiter.limit = 3
        assert state(limiter) == (3, 3)
        await settle()
        assert sorted(served) == [0, 1]
        limiter.limit = 4
        await settle()
        assert served[2:] == [2]
        limiter.limit = 10
        await settle()
        assert sorted(served) == [0, 1, 2, 3, 4]
    assert state(limiter) == (6, 0)
    assert limiter.statistics().peak == 6


async def test_lowered_limit_takes_effect_as_slots_come_back() -> None:
    """Lowering interrupts no task; slots that come back are not given out until it fits."""
    limiter = ConcurrencyLimiter(3)
    for _ in range(3):
        await limiter.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire)
        await settle()
        limiter.limit = 1
        for in_use in (2, 1):
            limiter.release()
            assert state(limiter) == (in_use, 1)
        with pytest.raises(exceptions.ConcurrencyLimitError):
            limiter.acquire_nowait()
        limiter.release()
        assert state(limiter) == (1, 0)
    assert limiter.statistics().limit == limiter.limit == 1


async def test_raising_a_lowered_limit_counts_what_is_in_use() -> None:
    """Raised again while too much is in use, it gives out what is really free (anyio#1223)."""
    limiter = ConcurrencyLimiter(3)
    for _ in range(3):
        await limiter.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire)
        await settle()
        limiter.limit = 1
        limiter.limit = 3
        assert state(limiter) == (3, 1)
        limiter.limit = 4
        assert state(limiter) == (4, 0)


async def test_limit_zero_pauses() -> None:
    """0 lets no task in until it is raised."""
    limiter = ConcurrencyLimiter(1)
    limiter.limit = 0
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire)
        await anyio.sleep(5)
        assert state(limiter) == (0, 1)
        limiter.limit = 1
    assert state(limiter) == (1, 0)
    assert limiter.statistics().max_wait_seconds == 5.0


@pytest.mark.parametrize("wrong", [-1, 1.0, False, None])
def test_limit_refuses(wrong: Any) -> None:
    """A limit is an int of at least 0; a refused one changes nothing."""
    limiter = ConcurrencyLimiter(2)
    kind = ValueError if type(wrong) is int else TypeError
    with pytest.raises(kind, match=rf"^limit={wrong!r} is .*\. Pass how much may run at once, or"):
        limiter.limit = wrong
    assert limiter.limit == 2


# --- Statistics -------------------------------------------------------------------------------


async def test_statistics() -> None:
    """All that happened is counted, waits in seconds of the tasks that got a slot."""
    limiter = ConcurrencyLimiter(2, max_waiting=2)
    limiter.acquire_nowait()
    await limiter.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.acquire)
        await settle()
        with anyio.move_on_after(1.0):
            await limiter.acquire()
        with suppress(exceptions.ConcurrencyLimitError):
            limiter.acquire_nowait()
        with suppress(exceptions.TimeoutError):
            await limiter.acquire(timeout=2.0)
        limiter.release()
    group = anyio.create_task_group()
    async with group:
        group.start_soon(limiter.acquire)
        await anyio.sleep(1.5)
        limiter.release()
    statistics = limiter.statistics()
    assert statistics.limit == 2
    assert (statistics.in_use, statistics.waiting, statistics.peak) == (2, 0, 2)
    assert (statistics.acquired, statistics.rejected) == (4, 1)
    assert (statistics.timed_out, statistics.cancelled) == (1, 1)
    assert (statistics.wait_seconds, statistics.max_wait_seconds) == (4.5, 3.0)


# --- Checkpoints ------------------------------------------------------------------------------


async def enter(limiter: ConcurrencyLimiter) -> None:
    """Enter and leave."""
    async with limiter:
        pass


async def take(limiter: ConcurrencyLimiter) -> None:
    """Take a slot and give it back."""
    await limiter.acquire()
    limiter.release()


@pytest.mark.parametrize("call", [enter, take])
async def test_one_call_in_64_is_a_checkpoint(
    call: Callable[[ConcurrencyLimiter], Coroutine[Any, Any, None]],
) -> None:
    """Calls that need not wait return at once, but one in 64 lets others run (law 5)."""
    limiter = ConcurrencyLimiter(1)
    for _ in range(3):
        assert sum([await suspensions(call(limiter)) for _ in range(FAST_CALLS)]) == 1
    for _ in range(FAST_CALLS - 1):
        limiter.acquire_nowait()  # counts, too
        limiter.release()
    assert await suspensions(call(limiter)) == 1
    assert limiter.statistics().acquired == 4 * FAST_CALLS


async def test_a_loop_over_refusals_is_fair_too() -> None:
    """Calls that are refused at once let others run as often (law 5)."""
    limiter = ConcurrencyLimiter(1, max_waiting=1)
    limiter.acquire_nowait()

    async def refused(seconds: float | None) -> None:
        with suppress(exceptions.TimeoutError, exceptions.ConcurrencyLimitError):
            await limiter.acquire(timeout=seconds)

    async with anyio.create_task_group() as group:
        assert sum([await suspensions(refused(0)) for _ in range(FAST_CALLS)]) == 1
        group.start_soon(limiter.acquire)
        await settle()
        assert sum([await suspensions(refused(None)) for _ in range(FAST_CALLS)]) == 1
        limiter.release()
    statistics = limiter.statistics()
    assert (statistics.timed_out, statistics.rejected) == (FAST_CALLS, FAST_CALLS)
    assert statistics.acquired == 2


@pytest.mark.parametrize("call", [enter, take])
async def test_a_loop_of_calls_can_be_cancelled(
    call: Callable[[ConcurrencyLimiter], Coroutine[Any, Any, None]],
) -> None:
    """A loop of calls that never wait ends when it is cancelled, and holds nothing."""
    limiter = ConcurrencyLimiter(1)
    calls = 0
    with anyio.CancelScope() as scope:
        scope.cancel()
        for _ in range(10 * FAST_CALLS):
            calls += 1
            await call(limiter)
    assert scope.cancelled_caught
    assert calls == FAST_CALLS
    assert limiter.statistics().acquired == FAST_CALLS - 1
    assert state(limiter) == (0, 0)


async def test_a_call_that_yields_is_not_overtaken() -> None:
    """The call whose turn it is to yield has its slot already."""
    limiter = ConcurrencyLimiter(1)
    for _ in range(FAST_CALLS - 1):
        await enter(limiter)

    def overtake() -> None:
        with pytest.raises(exceptions.ConcurrencyLimitError):
            limiter.acquire_nowait()

    assert await struck(limiter.acquire(), 1, overtake) == 1


# --- Cancellation -----------------------------------------------------------------------------


async def test_day_one_2_a_cancelled_waiter_takes_nothing() -> None:
    """Day one, item 2: a task cancelled in the queue leaves it as if it had never asked."""
    limiter = ConcurrencyLimiter(1)
    await limiter.acquire()
    served = []
    scopes = [anyio.CancelScope() for _ in range(5)]

    async def work(number: int) -> None:
        with scopes[number]:
            async with limiter:
                served.append(number)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(work, number)
            await settle()
        for number in (0, 2, 4):
            scopes[number].cancel()
        await settle()
        assert state(limiter) == (1, 2)
        limiter.release()
    assert served == [1, 3]
    assert state(limiter) == (0, 0)
    statistics = limiter.statistics()
    assert (statistics.cancelled, statistics.acquired, statistics.peak) == (3, 3, 1)


@pytest.mark.parametrize("order", [1, -1])
async def test_day_one_2_cancelled_in_the_moment_of_the_grant(order: int) -> None:
    """Day one, item 2: a slot that crosses with a cancellation reaches the next (anyio#947)."""
    limiter = ConcurrencyLimiter(1)
    await limiter.acquire()
    served = []
    scope = anyio.CancelScope()

    async def victim() -> None:
        with scope:
            async with limiter:
                await anyio.sleep_forever()

    async def successor() -> None:
        async with limiter:
            served.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        for task in (victim, successor):
            group.start_soon(task)
            await settle()
        for action in (limiter.release, scope.cancel)[::order]:
            action()
    assert scope.cancelled_caught
    assert served == [0.0]
    assert state(limiter) == (0, 0)


async def with_block(limiter: ConcurrencyLimiter) -> None:
    """Hold a slot for a second."""
    async with limiter:
        await anyio.sleep(1)


async def with_timeout(limiter: ConcurrencyLimiter) -> None:
    """Hold a slot for a second, if it comes early enough."""
    await limiter.acquire(timeout=50)
    try:
        await anyio.sleep(1)
    finally:
        limiter.release()


async def with_decorator(limiter: ConcurrencyLimiter) -> None:
    """Hold a slot for a second, in a function that was decorated."""
    await limiter(anyio.sleep)(1)


@modes
@pytest.mark.parametrize("ask", [with_block, with_timeout, with_decorator])
@pytest.mark.parametrize(
    ("before", "ahead"), [(0, 0), (FAST_CALLS - 1, 0), (FAST_CALLS - 2, 1), (0, 2), (0, 3)]
)
def test_cancelled_at_any_moment(
    mode: Mode,
    ask: Callable[[ConcurrencyLimiter], Coroutine[Any, Any, None]],
    before: int,
    ahead: int,
) -> None:
    """anyio#947, cpython#90155: at once, yielding or after a wait: no slot is lost or doubled."""

    async def scenario(victim: Victim) -> None:
        limiter = ConcurrencyLimiter(2)
        for _ in range(before):
            await enter(limiter)
        async with anyio.create_task_group() as group:
            for _ in range(ahead):
                group.start_soon(with_block, limiter)
                await settle()
            group.start_soon(victim, ask, limiter)
            await settle()
            for _ in range(3):
                group.start_soon(with_block, limiter)
        assert state(limiter) == (0, 0)
        statistics = limiter.statistics()
        assert statistics.peak <= 2
        others = before + ahead + 3
        assert statistics.acquired + statistics.cancelled in {others, others + 1}

    cancel_everywhere(mode, scenario)


# --- Loops ------------------------------------------------------------------------------------


def test_day_one_3_slots_outlive_a_loop() -> None:
    """Day one, item 3: state lives in the object: a slot taken in one loop is taken in the next."""
    limiter = ConcurrencyLimiter(1)
    run(limiter.acquire, backend="asyncio")

    async def scenario() -> None:
        with pytest.raises(exceptions.TimeoutError):
            await limiter.acquire(timeout=1.0)
        limiter.release()
        async with limiter:
            pass

    run(scenario, backend=BACKENDS[-1])


def test_release_from_a_callback() -> None:
    """A callback of asyncio's loop, in which no task runs, may give a slot to a task."""
    limiter = ConcurrencyLimiter(1)

    async def main() -> None:
        await limiter.acquire()
        holder = asyncio.create_task(asyncio.sleep(0))
        holder.add_done_callback(lambda _task: limiter.release())
        await limiter.acquire(timeout=30)

    asyncio.run(main())  # asyncio's own way, which leaves anyio no mark in the callback's context
    assert state(limiter) == (1, 0)
    assert limiter.statistics().acquired == 2


@pytest.mark.parametrize("wait", [False, True])
def test_loop_that_ends_before_it_hands_a_slot_on(backend: str, *, wait: bool) -> None:
    """A slot given back for a task whose loop is then closed goes to whoever comes next."""
    limiter = ConcurrencyLimiter(1)
    limiter.acquire_nowait()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    waiter = loop.create_task(limiter.acquire())
    loop.run_until_complete(asyncio.sleep(0))
    thread = threading.Thread(target=limiter.release)
    thread.start()
    thread.join()
    with pytest.raises(exceptions.ConcurrencyLimitError):
        limiter.acquire_nowait()  # the task may still get it
    with pytest.raises(RuntimeError, match=r"^cannot release a slot"):
        limiter.release()
    loop.close()
    if wait:
        run(limiter.acquire, backend=backend)
    else:
        limiter.acquire_nowait()
    assert state(limiter) == (1, 0)
    assert not waiter.done()
    del waiter
    gc.collect()
    assert state(limiter) == (1, 0)


@pytest.mark.parametrize("timeout", [None, 1e-30])
async def test_slot_given_back_as_a_task_joins(
    timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that sees nobody wait gives nothing to the task that is about to: it has a look."""
    limiter = ConcurrencyLimiter(1)
    limiter.acquire_nowait()
    join = WaitQueue[None].join

    def join_late(queue: WaitQueue[None], payload: None) -> Waiter:
        thread = threading.Thread(target=limiter.release)
        thread.start()
        thread.join()
        return join(queue, payload)

    monkeypatch.setattr(WaitQueue, "join", join_late)
    await anyio.sleep(1)  # so the short timeout has run out as soon as it begins
    await limiter.acquire(timeout=timeout)
    statistics = limiter.statistics()
    assert (statistics.in_use, statistics.waiting, statistics.acquired) == (1, 0, 2)
    assert (statistics.timed_out, statistics.cancelled) == (0, 0)


def test_used_without_a_loop() -> None:
    """Taking what is free and giving it back needs no event loop."""
    limiter = ConcurrencyLimiter(2)
    limiter.acquire_nowait()
    thread = threading.Thread(target=limiter.release)
    thread.start()
    thread.join()
    limiter.limit = 1
    assert state(limiter) == (0, 0)


# --- Decorator --------------------------------------------------------------------------------


async def test_limit_decorates_functions_and_methods() -> None:
    """Decorated functions keep name, signature and result, and hold a slot while they run."""
    limiter = ConcurrencyLimiter(1)

    class Service:
        @limiter
        async def plain(self, seconds: float, *, result: int = 0) -> int:
            """Say something."""
            assert state(limiter) == (1, 0)
            await anyio.sleep(seconds)
            return result

        @limiter()
        async def called(self) -> int:
            return limiter.statistics().in_use

        @limiter(timeout=1.0)
        async def impatient(self) -> int:
            return limiter.statistics().in_use

    service = Service()
    assert await service.plain(1, result=3) == 3
    assert await service.called() == 1
    assert await service.impatient() == 1
    assert (service.plain.__name__, service.plain.__doc__) == ("plain", "Say something.")
    assert list(inspect.signature(service.plain).parameters) == ["seconds", "result"]
    async with limiter:
        with pytest.raises(exceptions.TimeoutError, match=r"^<.*> had no free slot within 1\.0 s$"):
            await service.impatient()
    assert anyio.current_time() == 2.0
    assert state(limiter) == (0, 0)


def test_limit_refuses_sync_functions() -> None:
    """A function that cannot wait for a slot is refused when it is decorated."""
    untyped: Any = ConcurrencyLimiter(1)
    with pytest.raises(TypeError, match=r"^@ConcurrencyLimiter cannot decorate <built-in funct"):
        untyped(len)
