"""Cancelling an emit: its handlers are cancelled and waited for, wherever they run."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.events import Event, EventEmitter
from mtaio.exceptions import StrayCancellationError, TaskCancelledError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.testing import Schedule, run, settle
from tests.backends import BACKENDS
from tests.events.inside import inside_and_outside
from tests.events.test_errors import Fatal, LogOf, fails

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Witness:
    """Handlers that sleep, and tell how they ended."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.running = 0

    def handler(self, name: str, clean_up: float = 0) -> Callable[[Event[Any]], Awaitable[None]]:
        """Return a handler that sleeps for long, and then for ``clean_up`` seconds cleans up."""

        async def handle(_: Event[Any]) -> None:
            self.running += 1
            try:
                await anyio.sleep(100)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(clean_up)
                self.log.append(f"{anyio.current_time():g} {name}")
                self.running -= 1

        return handle


@inside_and_outside
async def test_cancelling_emit_cancels_its_handlers_and_waits(emitter: EventEmitter) -> None:
    """Alone, one after another and beside each other; the longest clean-up is waited for."""
    witness = Witness()
    emitter.on("one", witness.handler("one"))
    for name, seconds in (("x", 0), ("y", 2), ("z", 1)):
        emitter.on("several", witness.handler(name, seconds))
    emitter.on("several", lambda _: witness.log.append("lower tier"), priority=-1)
    with anyio.move_on_after(1):
        await emitter.emit("one")
    with anyio.move_on_after(1):
        await emitter.emit("several")
    assert witness.running == 0
    assert witness.log == ["1 one", "2 x", "3 z", "4 y"]
    statistics = emitter.statistics()
    assert (statistics.handled, statistics.failed) == (0, 0)


@inside_and_outside
async def test_nobody_is_called_after_the_cancellation(emitter: EventEmitter) -> None:
    """Not the rest of the tier, and no lower one; who was just being started gets nowhere."""
    log: list[str] = []

    @emitter.on("a")
    async def cancels(_: Event[int]) -> None:
        scope.cancel()
        await checkpoint()

    @emitter.on("a")
    async def rest(_: Event[int]) -> None:
        await anyio.sleep(1)
        log.append("rest")

    emitter.on("a", lambda _: log.append("lower"), priority=-1)
    with anyio.CancelScope() as scope:
        await emitter.emit("a")
    assert scope.cancelled_caught
    await anyio.sleep(5)
    assert log == []


@inside_and_outside
async def test_error_of_a_clean_up_takes_the_place_of_the_cancellation(
    emitter: EventEmitter,
) -> None:
    """It is raised, and handlers that do not suspend may still run; nobody waits any more."""
    log: list[str] = []

    @emitter.on("a")
    async def cleans_up_badly(_: Event[int]) -> None:
        try:
            await anyio.sleep(100)
        finally:
            raise OSError("clean-up")

    emitter.on("a", lambda _: log.append("plain"))
    with pytest.raises(ExceptionGroup) as caught, anyio.move_on_after(1):
        await emitter.emit("a")
    assert caught.group_contains(OSError, match=r"^clean-up$")
    assert log == ["plain"]
    emitter.on("a", lambda _: anyio.sleep(100))
    with LogOf("mtaio.events") as errors, anyio.move_on_after(1) as scope:
        await emitter.emit("a")
    assert scope.cancelled_caught
    assert errors == ["clean-up"]
    assert anyio.current_time() == 2


@inside_and_outside
async def test_errors_that_cancellation_overtakes_are_logged(emitter: EventEmitter) -> None:
    """Cancellation is not swallowed for them, and they are not lost."""
    witness = Witness()
    emitter.on("a", fails(ValueError("inline")))
    emitter.on("a", witness.handler("slow"))
    emitter.on("a", fails(ValueError("apart"), 0.5))
    with LogOf("mtaio.events") as log, anyio.move_on_after(1) as scope:
        await emitter.emit("a")
    assert scope.cancelled_caught
    assert log == ["inline", "apart"]


@inside_and_outside
async def test_errors_are_logged_in_the_order_of_registration(emitter: EventEmitter) -> None:
    """As they would stand in the group."""
    emitter.on("a", fails(ValueError("first"), 0.8))
    emitter.on("a", fails(ValueError("second"), 0.3))
    emitter.on("a", Witness().handler("slow"))
    with LogOf("mtaio.events") as log, anyio.move_on_after(1) as scope:
        await emitter.emit("a")
    assert scope.cancelled_caught
    assert log == ["first", "second"]


async def test_error_being_handled_when_cancelled_is_logged() -> None:
    """An async on_error that is cancelled has not consumed it."""

    async def hook(*_: object) -> None:
        await anyio.sleep(100)

    emitter = EventEmitter(on_error=hook)
    emitter.on("a", fails(ValueError("bad")))
    with LogOf("mtaio.events") as log, anyio.move_on_after(1) as scope:
        await emitter.emit("a")
    assert scope.cancelled_caught
    assert log == ["bad"]
    emitter.on("a", lambda _: None)
    with LogOf("mtaio.events") as log, anyio.move_on_after(1) as scope:
        await emitter.emit("a")
    assert log == ["bad"]


@inside_and_outside
async def test_handler_with_scopes_of_its_own_may_be_half_way(emitter: EventEmitter) -> None:
    """The rest is started while it is inside its timeout, and no scope is closed out of order."""
    log: list[str] = []

    async def hurries(_: Event[int]) -> None:
        with anyio.move_on_after(1):
            await anyio.sleep(5)
        log.append("gave up")
        with anyio.fail_after(5):
            await anyio.sleep(1)
        log.append("ended")

    for _ in range(3):
        emitter.on("a", hurries)
    await emitter.emit("a")
    assert anyio.current_time() == 2
    assert log == ["gave up"] * 3 + ["ended"] * 3


@inside_and_outside
async def test_emit_inside_a_shield_is_not_cancelled_from_outside(emitter: EventEmitter) -> None:
    """Clean-up may emit."""
    log: list[str] = []

    async def handle(_: Event[int]) -> None:
        await anyio.sleep(1)
        log.append("handled")

    emitter.on("a", handle)
    emitter.on("a", handle)
    with anyio.CancelScope() as outer:
        outer.cancel()
        with anyio.CancelScope(shield=True):
            await emitter.emit("a")
    assert log == ["handled"] * 2


async def test_emit_inside_a_shield_survives_the_blocks_cancellation() -> None:
    """Also where the block itself is being cancelled, as long as it is not left."""
    emitter = EventEmitter()
    log: list[str] = []

    async def handle(_: Event[int]) -> None:
        await anyio.sleep(1)
        log.append("handled")

    emitter.on("a", handle)
    emitter.on("a", handle)
    with anyio.move_on_after(1):
        async with emitter:
            try:
                await anyio.sleep(100)
            finally:
                with anyio.CancelScope(shield=True):
                    await emitter.emit("a")
    assert log == ["handled"] * 2
    assert anyio.current_time() == 2


async def test_deadline_that_moves_away_cuts_handlers_in_tasks_off() -> None:
    """They had it copied; the emit says so instead of returning as if nothing had happened."""
    emitter = EventEmitter()
    witness = Witness()

    async def lasts(_: Event[int]) -> None:
        await anyio.sleep(5)

    emitter.on("a", lasts)
    emitter.on("a", witness.handler("cut off"))
    async with emitter:
        with anyio.fail_after(2) as scope:
            async with anyio.create_task_group() as group:

                async def extend() -> None:
                    await anyio.sleep(1)
                    scope.deadline += 100

                group.start_soon(extend)
                with pytest.raises(ExceptionGroup) as caught:
                    await emitter.emit("a")
    (error,) = caught.value.exceptions
    assert isinstance(error, MTAIOTimeoutError)
    assert str(error).startswith("handlers were cut off at the deadline that the emit had when")
    assert error.deadline == 2
    assert witness.log == ["2 cut off"]


async def test_deadline_of_the_emit_is_a_cancellation_of_the_emit() -> None:
    """When it ends both at the same moment, the emit is cancelled, and nothing fails."""
    emitter = EventEmitter()
    witness = Witness()
    for name in ("x", "y"):
        emitter.on("a", witness.handler(name))
    async with emitter:
        with anyio.move_on_after(2) as scope:
            await emitter.emit("a")
        assert scope.cancelled_caught
    assert sorted(witness.log) == ["2 x", "2 y"]


async def test_cancelled_emit_has_not_failed_where_it_hears_of_it_last() -> None:
    """Its first handler is shielded, and those in tasks are cut off at its deadline long before."""
    emitter = EventEmitter()
    witness = Witness()

    async def shielded(_: Event[int]) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)

    emitter.on("a", shielded)
    emitter.on("a", witness.handler("in a task"))
    async with emitter:
        with anyio.move_on_after(1) as scope:
            await emitter.emit("a")
        assert scope.cancelled_caught
    assert witness.log == ["1 in a task"]
    assert anyio.current_time() == 3


async def test_emit_cancelled_after_the_block_was_left_has_not_failed() -> None:
    """Its first handler is shielded; by the time it hears of either, it is cancelled."""
    emitter = EventEmitter()
    witness = Witness()
    ended: list[str] = []

    async def shielded(_: Event[int]) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)

    emitter.on("a", shielded)
    emitter.on("a", witness.handler("in a task"))

    async def outside() -> None:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel, scope)
            await emitter.emit("a")
        assert scope.cancelled_caught
        ended.append(f"{anyio.current_time():g} cancelled")

    async def cancel(scope: anyio.CancelScope) -> None:
        await anyio.sleep(2)
        scope.cancel()

    async with anyio.create_task_group() as group:
        with suppress(OSError):
            async with emitter:
                group.start_soon(outside)
                await anyio.sleep(1)
                raise OSError("body")
    assert witness.log == ["1 in a task"]
    assert ended == ["3 cancelled"]


async def test_block_that_is_being_left_takes_no_more_handlers() -> None:
    """An emit then runs them itself, and the block does not wait for them."""
    emitter = EventEmitter()

    async def lasts(_: Event[int]) -> None:
        await anyio.sleep(100)

    async def cleans_up(_: Event[int]) -> None:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)

    emitter.on("a", lasts)
    emitter.on("a", cleans_up)
    emitter.on("b", lasts)
    emitter.on("b", lasts)

    async def outside() -> None:
        with pytest.raises(ExceptionGroup):
            await emitter.emit("a")

    async def late() -> None:
        await anyio.sleep(2)
        await emitter.emit("b")

    async with anyio.create_task_group() as group:
        group.start_soon(late)
        with pytest.raises(ValueError, match=r"^the body fails$"):  # noqa: PT012 - the block is left
            async with emitter:
                group.start_soon(outside)
                await anyio.sleep(1)
                raise ValueError("the body fails")
        assert anyio.current_time() == 6
    assert anyio.current_time() == 102


async def test_block_left_by_an_error_cancels_the_handlers_of_other_tasks() -> None:
    """Their emits are told: nothing outlives the block."""
    emitter = EventEmitter()
    witness = Witness()
    caught: list[BaseException] = []

    async def short(_: Event[int]) -> None:
        await anyio.sleep(1.5)

    emitter.on("a", short)
    emitter.on("a", witness.handler("of another task"))

    async def outside() -> None:
        try:
            await emitter.emit("a")
        except ExceptionGroup as group:
            caught.extend(group.exceptions)

    async with anyio.create_task_group() as group:
        with pytest.raises(ValueError, match=r"^the body fails$"):  # noqa: PT012 - the block is left
            async with emitter:
                group.start_soon(outside)
                await anyio.sleep(1)
                raise ValueError("the body fails")
        assert witness.log == ["1 of another task"]
        assert caught == []
    (error,) = caught
    assert isinstance(error, TaskCancelledError)
    assert str(error).startswith("handlers were cancelled: the block of the emitter was left by")
    assert anyio.current_time() == 1.5


async def test_block_left_normally_waits_for_the_handlers_of_other_tasks() -> None:
    """They are in its group."""
    emitter = EventEmitter()
    log: list[str] = []

    async def handle(_: Event[int]) -> None:
        await anyio.sleep(1)
        log.append("handled")

    emitter.on("a", handle)
    emitter.on("a", handle)
    async with anyio.create_task_group() as group:
        async with emitter:
            group.start_soon(emitter.emit, "a")
            await anyio.sleep(0.5)
        assert "handled" in log
    assert log == ["handled"] * 2


async def test_leaving_that_is_cancelled_cancels_the_handlers_of_other_tasks() -> None:
    """It waits for them no longer, and their emit is told."""
    emitter = EventEmitter()
    witness = Witness()
    caught: list[BaseException] = []

    async def short(_: Event[int]) -> None:
        await anyio.sleep(3)

    emitter.on("a", short)
    emitter.on("a", witness.handler("of another task"))

    async def outside() -> None:
        try:
            await emitter.emit("a")
        except ExceptionGroup as group:
            caught.extend(group.exceptions)

    async with anyio.create_task_group() as group:
        with anyio.move_on_after(2) as scope:
            async with emitter:
                group.start_soon(outside)
                await anyio.sleep(1)
        assert scope.cancelled_caught
        assert anyio.current_time() == 2
        assert witness.log == ["2 of another task"]
    (error,) = caught
    assert isinstance(error, TaskCancelledError)
    assert anyio.current_time() == 3


def test_task_cancel_twice_still_waits_for_the_handlers() -> None:
    """``asyncio.Task.cancel()`` minds no shield; emit ends what it has begun all the same."""
    witness = Witness()

    async def main() -> None:
        emitter = EventEmitter()
        emitter.on("a", witness.handler("x"))
        emitter.on("a", witness.handler("y", clean_up=5))
        async with emitter:
            task = asyncio.ensure_future(emitter.emit("a"))
            await anyio.sleep(1)
            task.cancel()
            await anyio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert witness.running == 0

    run(main, backend="asyncio")
    assert witness.log == ["1 x", "6 y"]


def test_task_cancel_before_a_handlers_task_has_begun() -> None:
    """It may never begin then, and nobody waits for it."""
    called: list[str] = []

    async def main() -> None:
        emitter = EventEmitter()

        async def first(_: Event[int]) -> None:
            asyncio.get_running_loop().call_soon(cancel_all)
            await anyio.sleep(100)

        async def second(_: Event[int]) -> None:
            called.append("second")

        emitter.on("a", first)
        emitter.on("a", second)
        mine = asyncio.current_task()

        def cancel_all() -> None:
            for task in asyncio.all_tasks():
                if task is not mine:
                    task.cancel()

        async with emitter:
            task = asyncio.ensure_future(emitter.emit("a"))
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main, backend="asyncio")
    assert called == []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(8))
def test_emit_cancelled_before_the_rest_has_begun(backend: str, seed: int) -> None:
    """Whoever runs next: the rest may find the emit gone, and then nobody is called any more."""
    called: list[float] = []

    async def main() -> None:
        emitter = EventEmitter()

        @emitter.on("a")
        async def first(_: Event[int]) -> None:
            scope.cancel()
            await anyio.sleep(1)

        @emitter.on("a")
        async def rest(_: Event[int]) -> None:
            called.append(anyio.current_time())
            await anyio.sleep(1)

        for _ in range(3):
            emitter.on("a", rest)
        async with emitter:
            with anyio.CancelScope() as scope:
                await emitter.emit("a")
            assert scope.cancelled_caught
            before = len(called)
            await anyio.sleep(5)
            assert len(called) == before
            assert not cast("Any", emitter._rules.home).late

    run(main, backend=backend, schedule=Schedule(seed=seed))


async def test_coroutine_of_emit_can_be_closed() -> None:
    """What is thrown away is closed, handler and all."""
    emitter = EventEmitter()
    closed: list[str] = []

    async def handle(event: Event[int]) -> None:
        try:
            await anyio.sleep(event.data)
        except GeneratorExit:
            closed.append("closed")
            raise

    emitter.on("a", handle)
    async with emitter:
        call = emitter.emit("a", 100)
        call.send(None)
        call.close()
        assert closed == ["closed"]
        emitter.on("a", handle)
        call = emitter.emit("a", 100)
        call.send(None)
        call.close()
        assert closed == ["closed", "closed"]
        call = emitter.emit("a", 100)
        call.send(None)
        await settle()  # the handler in a task of its own has begun, and is cancelled
        call.close()
        assert closed == ["closed"] * 3
    assert anyio.current_time() == 0  # the block had nobody left to wait for


def test_tasks_of_an_emit_that_somebody_else_cancels_are_missed() -> None:
    """As by "cancel all tasks", before they have begun: the emit does not return as if all ran."""

    async def main() -> None:
        emitter = EventEmitter()
        witness = Witness()
        for name in ("x", "y", "z"):
            emitter.on("a", witness.handler(name))
        mine = asyncio.all_tasks()

        def cancel_the_others() -> None:
            for task in asyncio.all_tasks() - mine:
                task.cancel()

        asyncio.get_running_loop().call_soon(cancel_the_others)
        with pytest.raises(ExceptionGroup) as caught:
            await emitter.emit("a")
        (error,) = caught.value.exceptions
        assert isinstance(error, StrayCancellationError)
        assert str(error).startswith("handlers of 'a' were cancelled although the emit was not.")

    run(main, backend="asyncio")


class Nursery:
    """
    A handler that ends as one does that has opened a nursery of trio's: by a group.

    Args:
        beside: What its clean-up raises, in the same group.
    """

    def __init__(self, beside: BaseException | None = None) -> None:
        self.beside = beside

    async def __call__(self, _: Event[Any], /) -> None:
        """Run until it is cancelled."""
        try:
            await anyio.sleep(100)
        except anyio.get_cancelled_exc_class() as error:
            errors = [error] if self.beside is None else [error, self.beside]
            raise BaseExceptionGroup("as of a nursery", errors) from None


KINDS: tuple[type[Exception], ...] = (ValueError, TaskCancelledError, MTAIOTimeoutError)


async def lasts_two_seconds(_: Event[Any]) -> None:
    """Take its time."""
    await anyio.sleep(2)


@inside_and_outside
async def test_cancellation_in_a_group_is_the_emits_cancellation(emitter: EventEmitter) -> None:
    """As plain as any; what a clean-up raises beside it is an error that it overtakes."""
    for handler in (Nursery(), Nursery(), Nursery(ValueError("bad"))):
        emitter.on("a", handler)
    with LogOf("mtaio.events") as log, anyio.move_on_after(1) as scope:
        await emitter.emit("a")
    assert scope.cancelled_caught
    assert log == ["as of a nursery (1 sub-exception)"]
    assert emitter.statistics().failed == 1


@inside_and_outside
async def test_cancellation_in_a_group_does_not_hide_what_ends_the_emit(
    emitter: EventEmitter,
) -> None:
    """It is that of the handlers beside, and no further than they."""
    emitter.on("a", fails(Fatal(), 1))
    for handler in (Nursery(), Nursery()):
        emitter.on("a", handler)
    with pytest.raises(Fatal):
        await emitter.emit("a")
    assert anyio.current_time() == 1


async def test_cancellation_in_a_group_of_the_first_handler_ends_with_its_group() -> None:
    """Where the first can be cancelled, because its emit has a group of its own."""
    emitter = EventEmitter()
    emitter.on("a", Nursery(ValueError("bad")))
    emitter.on("a", fails(Fatal(), 1))
    with pytest.raises(BaseExceptionGroup, match=r"^handlers of 'a' ended for good") as caught:
        await emitter.emit("a")
    assert caught.value.split(anyio.get_cancelled_exc_class())[0] is None
    assert caught.value.split(ValueError)[0] is not None
    assert caught.value.split(Fatal)[0] is not None


@pytest.mark.parametrize(
    "beside", [None, ValueError("bad"), Fatal()], ids=["alone", "bad", "fatal"]
)
@pytest.mark.parametrize("why", ["left", "moved"])
async def test_cancellation_in_a_group_does_not_leave_the_block(
    why: str, beside: BaseException | None
) -> None:
    """It was the block's or the deadline's, and the emit, which goes on, hears it as such."""
    emitter = EventEmitter()
    emitter.on("a", lasts_two_seconds)
    emitter.on("a", Nursery(beside))
    caught: list[BaseException] = []

    async def emit() -> None:
        with anyio.move_on_after(1 if why == "moved" else 100) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(extend, scope)
                try:
                    await emitter.emit("a")
                except BaseException as error:  # noqa: BLE001 - looked at below
                    caught.append(error)
        assert anyio.current_time() == 2

    async def extend(scope: anyio.CancelScope) -> None:
        await anyio.sleep(0.5)
        scope.deadline += 100

    async with anyio.create_task_group() as group:
        with suppress(OSError):
            async with emitter:
                group.start_soon(emit)
                await anyio.sleep(1)
                if why == "left":
                    raise OSError("body")
    (error,) = caught
    assert isinstance(error, BaseExceptionGroup)
    if isinstance(beside, Fatal):
        assert error.exceptions == (beside,)
        return
    kinds: set[type[Exception]] = {ValueError} if beside is not None else set()
    if why == "left":
        kinds.add(TaskCancelledError)
    elif beside is None:
        kinds.add(MTAIOTimeoutError)
    assert {kind for kind in KINDS if error.split(kind)[0] is not None} == kinds
    assert error.split(anyio.get_cancelled_exc_class())[0] is None


@pytest.mark.parametrize("beside", [None, ValueError("bad")], ids=["alone", "bad"])
async def test_cancellation_in_a_group_of_an_error_handler_is_one(
    beside: BaseException | None,
) -> None:
    """Of an async on_error too."""
    hook = Nursery(beside)
    emitter = EventEmitter(on_error=lambda _error, event, _handler: hook(event))
    emitter.on("a", lasts_two_seconds)
    emitter.on("a", fails(OSError("bad")))
    expected = ["bad"] if beside is None else ["bad", "as of a nursery (1 sub-exception)"]
    for block in (nullcontext(), emitter):
        async with block:
            with LogOf("mtaio.events") as log, anyio.move_on_after(1) as scope:
                await emitter.emit("a")
            assert scope.cancelled_caught
            assert log == expected
