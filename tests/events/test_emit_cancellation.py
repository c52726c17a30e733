"""Cancelling an emit: its handlers are cancelled and waited for, wherever they run."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.events import Event, EventEmitter
from mtaio.exceptions import StrayCancellationError
from mtaio.testing import Schedule, run
from tests.backends import BACKENDS
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


@pytest.mark.parametrize("entered", [False, True], ids=["outside", "inside"])
async def test_cancelling_emit_cancels_its_handlers_and_waits(entered: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """One alone and several; the longest clean-up is waited for; nothing has failed (pyee#64)."""
    errors: list[Exception] = []
    emitter, witness = EventEmitter(on_error=lambda error, *_: errors.append(error)), Witness()
    emitter.on("one", witness.handler("one"))
    for name, seconds in (("x", 0), ("y", 2), ("z", 1)):
        emitter.on("several", witness.handler(name, seconds))
    emitter.on("several", lambda _: witness.log.append("lower tier"), priority=-1)
    async with emitter if entered else nullcontext():
        with anyio.move_on_after(1):
            await emitter.emit("one")
        with anyio.move_on_after(1):
            await emitter.emit("several")
        assert witness.running == 0
    assert witness.log == ["1 one", "2 x", "3 z", "4 y"]
    statistics = emitter.statistics()
    assert (statistics.handled, statistics.failed, errors) == (0, 0, [])


async def test_no_handler_is_called_after_the_cancellation(emitter: EventEmitter) -> None:
    """Not the rest of the tier, and no lower one; one that was just starting gets nowhere."""
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


async def test_error_of_a_clean_up_takes_the_place_of_the_cancellation(
    emitter: EventEmitter,
) -> None:
    """It is raised, and handlers that do not suspend may still run; no others do."""
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


async def test_errors_that_cancellation_overtakes_are_logged(emitter: EventEmitter) -> None:
    """They are not lost, and the cancellation is not swallowed."""
    witness = Witness()
    emitter.on("a", fails(ValueError("inline")))
    emitter.on("a", witness.handler("slow"))
    emitter.on("a", fails(ValueError("in a task"), 0.5))
    with LogOf("mtaio.events") as log, anyio.move_on_after(1) as scope:
        await emitter.emit("a")
    assert scope.cancelled_caught
    assert log == ["inline", "in a task"]


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


async def test_handlers_may_suspend_inside_their_own_scopes(emitter: EventEmitter) -> None:
    """The rest starts while the first is inside its timeout; no scope is closed out of order."""
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


def test_task_cancel_twice_still_waits_for_the_handlers() -> None:
    """``asyncio.Task.cancel()`` ignores shields; emit waits for its handlers all the same."""
    witness = Witness()

    async def main() -> None:
        emitter = EventEmitter()
        emitter.on("a", witness.handler("x"))
        emitter.on("a", witness.handler("y", clean_up=5))
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


def test_task_cancel_before_a_handlers_task_has_started() -> None:
    """It never starts then, and is not waited for."""
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

        task = asyncio.ensure_future(emitter.emit("a"))
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main, backend="asyncio")
    assert called == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_emit_cancelled_before_the_rest_has_started(backend: str) -> None:
    """Whatever runs next: once the emit is over, no handler is called any more."""
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
        with anyio.CancelScope() as scope:
            await emitter.emit("a")
        assert scope.cancelled_caught
        before = len(called)
        await anyio.sleep(5)
        assert len(called) == before

    for seed in range(8):
        run(main, backend=backend, schedule=Schedule(seed=seed))


def test_coroutine_of_emit_can_be_closed(backend: str) -> None:
    """Its one async handler is closed with it."""
    closed: list[str] = []

    async def main() -> None:
        emitter = EventEmitter()

        @emitter.on("a")
        async def handle(_: Event[int]) -> None:
            try:
                await anyio.sleep(100)
            except GeneratorExit:
                closed.append("closed")
                raise

        call = emitter.emit("a")
        call.send(None)
        call.close()

    run(main, backend=backend)
    assert closed == ["closed"]


@pytest.mark.parametrize("errors", ["raise", "log"])
def test_emit_reports_that_its_tasks_were_cancelled_by_others(errors: Any) -> None:
    """As by "cancel all tasks", before they start: the emit does not return as if all had run."""

    async def main() -> None:
        emitter = EventEmitter(errors=errors)
        witness = Witness()
        for name in ("x", "y", "z"):
            emitter.on("a", witness.handler(name))
        mine = asyncio.all_tasks()

        def cancel_the_others() -> None:
            for task in asyncio.all_tasks() - mine:
                task.cancel()

        asyncio.get_running_loop().call_soon(cancel_the_others)
        message = "handlers of 'a' were cancelled although the emit was not."
        if errors == "log":
            with LogOf("mtaio.events") as log:
                await emitter.emit("a")
            assert [each.startswith(message) for each in log] == [True]
            return
        with pytest.raises(ExceptionGroup) as caught:
            await emitter.emit("a")
        (error,) = caught.value.exceptions
        assert isinstance(error, StrayCancellationError)
        assert str(error).startswith(message)

    run(main, backend="asyncio")


def test_emit_leaves_no_task_in_the_loop() -> None:
    """Whether it is cancelled or not."""

    async def main() -> None:
        emitter, witness = EventEmitter(), Witness()
        for name in ("x", "y", "z"):
            emitter.on("a", witness.handler(name))
        before = asyncio.all_tasks()
        with anyio.move_on_after(1):
            await emitter.emit("a")
        assert asyncio.all_tasks() == before

    run(main, backend="asyncio")


class Nursery:
    """
    A handler that ends with a group, as one that has opened a nursery of trio's does.

    Args:
        own: What its clean-up raises, in the same group.
    """

    def __init__(self, own: BaseException | None = None) -> None:
        self.own = own

    async def __call__(self, _: Event[Any], /) -> None:
        """Run until it is cancelled."""
        try:
            await anyio.sleep(100)
        except anyio.get_cancelled_exc_class() as error:
            errors = [error] if self.own is None else [error, self.own]
            raise BaseExceptionGroup("as of a nursery", errors) from None


async def test_cancellation_in_a_group_is_the_emits_cancellation(emitter: EventEmitter) -> None:
    """As a plain one; what a clean-up raises in the same group is logged."""
    for handler in (Nursery(), Nursery(), Nursery(ValueError("bad"))):
        emitter.on("a", handler)
    with LogOf("mtaio.events") as log, anyio.move_on_after(1) as scope:
        await emitter.emit("a")
    assert scope.cancelled_caught
    assert log == ["as of a nursery (1 sub-exception)"]
    assert emitter.statistics().failed == 1


async def test_cancellation_in_a_group_does_not_hide_a_base_exception(
    emitter: EventEmitter,
) -> None:
    """It is that of the other handlers, and goes no further than they do."""
    emitter.on("a", fails(Fatal(), 1))
    for handler in (Nursery(), Nursery()):
        emitter.on("a", handler)
    with pytest.raises(Fatal):
        await emitter.emit("a")
    assert anyio.current_time() == 1


async def test_cancellation_in_a_group_of_the_first_handler_ends_with_the_tier(
    emitter: EventEmitter,
) -> None:
    """The error in its group is raised, together with the one that has cancelled it."""
    emitter.on("a", Nursery(ValueError("bad")))
    emitter.on("a", fails(Fatal(), 1))
    with pytest.raises(BaseExceptionGroup, match=r"^handlers of 'a' failed") as caught:
        await emitter.emit("a")
    assert caught.value.split(anyio.get_cancelled_exc_class())[0] is None
    assert caught.value.split(ValueError)[0] is not None
    assert caught.value.split(Fatal)[0] is not None


@pytest.mark.parametrize("own", [None, ValueError("bad")], ids=["alone", "bad"])
async def test_cancellation_in_a_group_of_an_error_handler_is_one(
    own: BaseException | None,
) -> None:
    """Of an async on_error too."""
    hook = Nursery(own)
    emitter = EventEmitter(on_error=lambda _error, event, _handler: hook(event))
    emitter.on("a", Witness().handler("slow"))
    emitter.on("a", fails(OSError("bad")))
    expected = ["bad"] if own is None else ["bad", "as of a nursery (1 sub-exception)"]
    with LogOf("mtaio.events") as log, anyio.move_on_after(1) as scope:
        await emitter.emit("a")
    assert scope.cancelled_caught
    assert log == expected
