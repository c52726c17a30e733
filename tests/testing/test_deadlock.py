"""Deadlocks: told, not waited for, with the place where everybody is."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal import clock
from mtaio.resources import ConcurrencyLimiter
from mtaio.testing import Deadlock, Schedule, run
from mtaio.testing._diagnostics import Suspended, standstill_of
from mtaio.testing.schedules import Stack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

FOR_EVER = r"the run is blocked at t={}\.0 for ever: no timer is set and nothing real is awaited\."


def deadlock_of(scenario: Callable[[], Awaitable[object]], backend: str) -> Deadlock:
    """Run a scenario that must deadlock, and return the failure."""
    with pytest.raises(Deadlock) as caught:
        run(scenario, backend=backend)
    return caught.value


def test_blocked_for_ever(backend: str) -> None:
    """When every task waits and no timer can ever fire, the run fails and says since when."""

    async def scenario() -> None:
        await anyio.sleep(3)
        await anyio.Event().wait()

    for afn, time in ((scenario, 3), (anyio.sleep_forever, 0)):
        assert re.match(FOR_EVER.format(time), deadlock_of(afn, backend).reason)


def test_stacks_name_each_task_and_its_line(backend: str) -> None:
    """The message lists every task, each with the lines it has got to, outermost first."""

    async def wait_for(event: anyio.Event) -> None:
        await event.wait()

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(wait_for, anyio.Event(), name="left hand")
            group.start_soon(wait_for, anyio.Event(), name="right hand")

    failure = deadlock_of(scenario, backend)
    stacks = {stack.name: stack for stack in failure.stacks}
    main = next(name for name in stacks if name.endswith("scenario"))
    assert set(stacks) == {main, "left hand", "right hand"}
    assert {stack.kind for stack in failure.stacks} == {"task"}
    assert "test_deadlock.py" in stacks["left hand"].frames[0]
    assert stacks["left hand"].frames[0].endswith("wait_for: await event.wait()")
    assert "scenario: async with anyio.create_task_group() as group:" in stacks[main].frames[0]
    for stack in failure.stacks:
        assert f"\n  task {stack.name!r} is at\n    {stack.frames[0]}" in str(failure)


def test_stacks_follow_generators_and_awaitables(backend: str) -> None:
    """The way to the waiting line is followed through generators and hand-made awaitables."""

    class Awaitable:
        def __await__(self) -> Generator[object, None, None]:
            yield from anyio.Event().wait().__await__()

    async def generate() -> AsyncGenerator[None]:
        await Awaitable()
        yield

    async def scenario() -> None:
        async for _ in generate():
            pass

    (stack,) = deadlock_of(scenario, backend).stacks
    assert [frame.split(":", 1)[1].split(" in ")[1].split(": ")[0] for frame in stack.frames] == [
        f"test_stacks_follow_generators_and_awaitables.<locals>.{name}"
        for name in ("scenario", "generate", "Awaitable.__await__")
    ]


def test_cycles_are_named(backend: str) -> None:
    """The message says who waits for whom in circles, and what each waits for; it has no ids."""

    async def enter(first: anyio.Lock, second: anyio.Lock) -> None:
        async with first:
            await anyio.sleep(1)
            async with second:
                pass

    async def twice() -> None:
        semaphore = anyio.Semaphore(1)
        async with semaphore, semaphore:
            pass

    async def scenario() -> None:
        one, other = anyio.Lock(), anyio.Lock()
        async with anyio.create_task_group() as group:
            group.start_soon(enter, one, other, name="left")
            group.start_soon(enter, other, one, name="right")
            group.start_soon(twice, name="twice")

    failure = deadlock_of(scenario, backend)
    for_lock = "for Lock, held by"
    assert failure.cycles == (
        f"2 tasks wait for each other: 'left' {for_lock} 'right'; 'right' {for_lock} 'left'",
        "a task waits for itself: 'twice' for slot of Semaphore, held by 'twice'",
    )
    assert str(failure).splitlines()[1:3] == [f"  {cycle}" for cycle in failure.cycles]
    waits = {stack.name: stack.waits_for for stack in failure.stacks if stack.waits_for}
    assert waits == {
        "left": "Lock, held by 'right'",
        "right": "Lock, held by 'left'",
        "twice": "slot of Semaphore, held by 'twice'",
    }
    assert "\n    waits for Lock, held by 'right'\n" in str(failure)


def test_tasks_that_wait_for_the_same_are_shown_together(backend: str) -> None:
    """Many tasks at one place are one stack, with some of their names; each is in the list."""
    limit = ConcurrencyLimiter(2, name="db")

    async def hold() -> None:
        async with limit, anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(wait, name=f"waiter {number}")

    async def wait() -> None:
        async with limit:
            pass

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(hold, name="a")
            group.start_soon(hold, name="b")

    failure = deadlock_of(scenario, backend)
    assert len(failure.stacks) == 11
    text = str(failure)
    assert text.count("test_deadlock.py") == 4
    names = ", ".join(f"'waiter {number}'" for number in range(4))
    assert f"\n  8 tasks {names} are at\n" in text
    assert "\n    waits for slot of ConcurrencyLimiter 'db', held by 'a', 'b'\n" in f"{text}\n"
    (cycle,) = failure.cycles
    assert re.fullmatch(
        r"2 tasks wait for each other: '(.)' for the end of ('waiter \d' #\d+); "
        r"\2 for slot of ConcurrencyLimiter 'db', held by '\1'",
        cycle,
    )


def test_code_under_test_is_cancelled_and_cleans_up(backend: str) -> None:
    """A deadlock cancels the function; its cleanup runs, virtual time included."""
    cleaned: list[float] = []

    async def scenario() -> None:
        try:
            await anyio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
            cleaned.append(clock.now())

    deadlock_of(scenario, backend)
    assert cleaned == [2.0]


def test_function_that_swallows_the_cancellation_fails_all_the_same(backend: str) -> None:
    """A deadlock stays one if the function returns."""

    async def scenario() -> str:
        with suppress(anyio.get_cancelled_exc_class()):
            await anyio.Event().wait()
        return "all is well"

    deadlock_of(scenario, backend)


def test_error_during_cleanup_is_the_cause(backend: str) -> None:
    """An error raised while the deadlocked function was cancelled is kept, or a group of them."""

    async def fail() -> None:
        try:
            await anyio.Event().wait()
        finally:
            raise LookupError("in the cleanup")

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)

    assert repr(deadlock_of(fail, backend).__cause__) == "LookupError('in the cleanup')"
    cause = deadlock_of(scenario, backend).__cause__
    assert isinstance(cause, ExceptionGroup)
    assert [type(error) for error in cause.exceptions] == [LookupError]


def test_cleanup_that_blocks_as_well(backend: str) -> None:
    """A cleanup that waits for ever behind a shield is broken off, and both verdicts are told."""
    left: list[str] = []

    async def wait_in_vain() -> None:
        try:
            with anyio.CancelScope(shield=True):
                await anyio.Event().wait()
        finally:
            left.append("wait_in_vain")

    async def scenario() -> None:
        try:
            await anyio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as group:
                    group.start_soon(wait_in_vain)
            left.append("scenario")

    failure = deadlock_of(scenario, backend)
    assert failure.reason.startswith("the run is still blocked at t=0.0 for ever")
    assert "wait_in_vain" in str(failure)
    first = failure.__cause__
    assert isinstance(first, Deadlock)
    assert first.reason.startswith("the run is blocked at t=0.0 for ever")
    assert "wait_in_vain" not in str(first)
    assert left[0] == "wait_in_vain"


def test_error_in_a_cleanup_that_blocks_as_well(backend: str) -> None:
    """An error raised when the cleanup is broken off is kept behind both verdicts."""

    async def scenario() -> None:
        try:
            await anyio.Event().wait()
        finally:
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.Event().wait()
            except BaseException:  # noqa: BLE001 - which backend throws what is not the subject
                raise LookupError("in the cleanup") from None

    failure = deadlock_of(scenario, backend)
    causes = []
    cause: BaseException | None = failure
    while cause is not None:
        causes.append(type(cause))
        cause = cause.__cause__
    assert causes[:2] == [Deadlock, Deadlock]
    if backend == "trio":
        assert causes == [Deadlock, Deadlock, LookupError]


@pytest.mark.filterwarnings(
    # A coroutine that never lets go cannot be closed either, and Python says so.
    "ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning"
)
def test_code_that_never_lets_go(backend: str) -> None:
    """Even a function that swallows whatever is thrown into it does not hang the test."""

    async def scenario() -> None:
        for _ in range(1000):
            with suppress(BaseException), anyio.CancelScope(shield=True):
                await anyio.Event().wait()

    assert deadlock_of(scenario, backend).reason.startswith("the run is still blocked at t=0.0")
    gc.collect()
    assert run(anyio.sleep, 1, backend=backend) is None


def test_other_exceptions_are_not_replaced(backend: str) -> None:
    """What is no ordinary exception gets through, even out of a deadlocked function."""

    async def scenario() -> None:
        try:
            await anyio.Event().wait()
        finally:
            sys.exit(3)

    with pytest.raises(SystemExit, match=r"^3$"):
        run(scenario, backend=backend)


def test_stack_of_a_coroutine_that_is_over() -> None:
    """A coroutine that ended before it was looked at has no frames, and breaks nothing."""

    async def over() -> None:
        pass

    coroutine = over()
    coroutine.close()
    ((stack,), _) = standstill_of([Suspended("over", coroutine, 1)])
    assert stack == Stack(kind="task", name="over", frames=())


def test_deadlock_is_an_assertion_error_that_pickles() -> None:
    """The failure survives pickling and copying, as test runners in several processes need."""
    stack = Stack(kind="task", name="main", frames=("a.py:1 in f: await g()",))
    failure = Deadlock("stuck", (stack,))
    failure.add_note("seed 7")
    assert isinstance(failure, AssertionError)
    for twin in (pickle.loads(pickle.dumps(failure)), copy.copy(failure)):  # noqa: S301 - our own
        assert type(twin) is Deadlock
        assert (twin.reason, twin.stacks, twin.__notes__) == ("stuck", (stack,), ["seed 7"])
        assert str(twin) == "stuck\n  task 'main' is at\n    a.py:1 in f: await g()"


@pytest.mark.parametrize("schedule", [None, Schedule()], ids=["plain", "scheduled"])
def test_tasks_of_one_name_have_numbers(backend: str, schedule: Schedule | None) -> None:
    """Tasks of one name are told apart by the numbers that they have in the interleaving."""

    async def transfer(take: anyio.Lock, give: anyio.Lock) -> None:
        async with take:
            await anyio.sleep(1)
            async with give:
                pass

    async def scenario() -> None:
        one, other = anyio.Lock(), anyio.Lock()
        async with anyio.create_task_group() as group:
            group.start_soon(transfer, one, other, name="transfer")
            group.start_soon(checkpoint, name="other")
            group.start_soon(transfer, other, one, name="transfer")

    with pytest.raises(Deadlock) as caught:
        run(scenario, backend=backend, schedule=schedule)
    failure = caught.value
    first, second = "'transfer' #2", "'transfer' #4"
    held = "for Lock, held by"
    assert failure.cycles == (
        f"2 tasks wait for each other: {first} {held} {second}; {second} {held} {first}",
    )
    assert sorted((s.number, s.waits_for) for s in failure.stacks if s.waits_for) == [
        (2, f"Lock, held by {second}"),
        (4, f"Lock, held by {first}"),
    ]
    assert f"\n  task {first} is at\n" in str(failure)
