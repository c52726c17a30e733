"""Handlers that fail: the three policies, on_error, and BaseExceptions."""

from __future__ import annotations

import gc
import logging
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.events import Event, EventEmitter
from mtaio.exceptions import StrayCancellationError
from mtaio.testing import run, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def fails(error: BaseException, seconds: float | None = None) -> Callable[..., Awaitable[None]]:
    """Return an async handler that raises, at once or after some time."""

    async def handle(*_: Any) -> None:
        if seconds is not None:
            await anyio.sleep(seconds)
        raise error

    return handle


def fails_plainly(error: BaseException) -> Callable[..., NoReturn]:
    """Return a plain handler that raises."""

    def handle(*_: Any) -> NoReturn:
        raise error

    return handle


async def test_one_error_comes_in_a_group(emitter: EventEmitter) -> None:
    """Always a group, so that callers need one way to catch; the error itself is untouched."""
    makes: tuple[Callable[[BaseException], Callable[..., object]], ...] = (fails_plainly, fails)
    for number, make in enumerate(makes):
        error = ValueError("bad")
        emitter.on(str(number), make(error))
        with pytest.raises(ExceptionGroup, match=rf"^handlers of '{number}' failed") as caught:
            await emitter.emit(str(number))
        assert caught.value.exceptions == (error,)


async def test_error_of_what_a_plain_handler_returns(emitter: EventEmitter) -> None:
    """It counts as the handler's, alone and among others."""
    error = ValueError("bad")
    fail = fails(error, 1)
    emitter.on("a", lambda event: fail(event))  # noqa: PLW0108 - the subject
    for _ in range(2):
        with pytest.raises(ExceptionGroup) as caught:
            await emitter.emit("a")
        assert caught.value.exceptions == (error,)
        emitter.on("a", lambda _: None)
    assert emitter.statistics().failed == 2


async def test_failing_handler_stops_none_of_its_tier(emitter: EventEmitter) -> None:
    """All others run to their end, lower tiers are skipped, all errors are raised in order.

    See blinker#10 and emittery#51; node#27867 for errors that reach others than the caller.
    """
    log: list[str] = []
    first, second, third = ValueError("first"), KeyError("second"), OSError("third")

    @emitter.on("a")
    async def slow(_: Event[int]) -> None:
        await anyio.sleep(5)
        log.append("slow")

    emitter.on("a", fails(first, 3))
    emitter.on("a", fails(second))
    emitter.on("a", fails_plainly(third))
    emitter.on("a", lambda _: log.append("lower"), priority=-1)
    with pytest.raises(ExceptionGroup) as caught:
        await emitter.emit("a")
    assert caught.value.exceptions == (first, second, third)
    assert anyio.current_time() == 5
    assert log == ["slow"]
    assert emitter.statistics().failed == 3
    assert emitter.statistics().handled == 1


async def test_continue_runs_every_tier_first() -> None:
    """Then it raises the errors of all of them."""
    emitter = EventEmitter(errors="continue")
    log: list[str] = []
    high, low = ValueError("high"), ValueError("low")
    emitter.on("a", fails(high), priority=1)
    emitter.on("a", lambda _: log.append("normal"))
    emitter.on("a", fails(low, 1), priority=-1)
    emitter.on("a", lambda _: log.append("last"), priority=-2)
    with pytest.raises(ExceptionGroup) as caught:
        await emitter.emit("a")
    assert caught.value.exceptions == (high, low)
    assert log == ["normal", "last"]


@pytest.mark.parametrize("make", [fails_plainly, fails])
@pytest.mark.parametrize("alone", [True, False])
async def test_log_raises_nothing(
    make: Callable[[BaseException], Callable[[Event[Any]], Any]],
    alone: bool,  # noqa: FBT001 - a parameter of pytest's
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error goes to the logger mtaio.events with its traceback, and lower tiers run."""
    emitter = EventEmitter(errors="log")
    log: list[str] = []
    error = ValueError("bad")
    emitter.on("a", make(error))
    if not alone:
        emitter.on("a", lambda _: log.append("lower"), priority=-1)
    event = await emitter.emit("a", 1)
    assert event.data == 1
    assert log == ([] if alone else ["lower"])
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("mtaio.events", logging.ERROR)
    assert record.getMessage() == f"{make.__name__}.<locals>.handle failed on event 'a'"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


# ---- on_error ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook_is_async", [False, True])
@pytest.mark.parametrize("alone", [True, False])
async def test_on_error_consumes(hook_is_async: bool, alone: bool) -> None:  # noqa: FBT001 - parameters of pytest's
    """It gets the error, the event and the handler, instead of the policy; the emit goes on."""
    seen: list[tuple[Any, ...]] = []
    log: list[str] = []

    def hook(*args: object) -> None:
        seen.append(args)

    async def async_hook(*args: object) -> None:
        await checkpoint()
        seen.append(args)

    emitter = EventEmitter(on_error=async_hook if hook_is_async else hook)
    error = ValueError("bad")
    handler = emitter.on("a", fails(error))
    if not alone:
        emitter.on("a", lambda _: log.append("lower"), priority=-1)
    event = await emitter.emit("a")
    assert seen == [(error, event, handler)]
    assert log == ([] if alone else ["lower"])
    assert emitter.statistics().failed == 1


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("another", [False, True])
async def test_error_is_reported_with_its_handler(plain: bool, another: bool) -> None:  # noqa: FBT001 - parameters of pytest's
    """Even if it was removed before it fails, replaced by another, and the name emitted again."""
    seen: list[tuple[Any, ...]] = []
    emitter = EventEmitter(on_error=lambda *args: seen.append(args))
    error = ValueError("bad")

    async def fail(_: Event[int]) -> None:
        assert emitter.off("a", handler)
        if another:
            emitter.on("a", lambda _: None)
        await emitter.emit("a")
        raise error

    def fail_plainly(event: Event[int]) -> Awaitable[None]:
        return fail(event)

    handler: Callable[[Event[int]], Awaitable[None]] = fail_plainly if plain else fail
    emitter.on("a", handler)
    event = await emitter.emit("a")
    assert seen == [(error, event, handler)]


@pytest.mark.parametrize("make", [fails_plainly, fails])
async def test_on_error_that_fails_joins_the_group(
    make: Callable[[BaseException], Callable[..., Any]],
) -> None:
    """With the error it was called for, which is its context; neither is handed to it again."""
    calls = 0
    own, first, second = RuntimeError("hook"), ValueError("first"), ValueError("second")
    failing = make(own)

    def hook(*args: object) -> object:
        nonlocal calls
        calls += 1
        return failing(*args)

    emitter = EventEmitter(on_error=hook)
    emitter.on("a", fails(first))
    with pytest.raises(ExceptionGroup) as caught:
        await emitter.emit("a")
    assert caught.value.exceptions == (first, own)
    assert own.__context__ is first
    emitter.on("a", fails(second, 1))
    with pytest.raises(ExceptionGroup) as caught:
        await emitter.emit("a")
    assert caught.value.exceptions == (first, own, second, own)
    assert calls == 3


async def test_on_error_that_fails_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    """With errors="log" both go to the log."""
    emitter = EventEmitter(errors="log", on_error=fails(RuntimeError("hook")))
    emitter.on("a", fails(ValueError("bad")))
    await emitter.emit("a")
    errors = [record.exc_info and str(record.exc_info[1]) for record in caplog.records]
    assert errors == ["bad", "hook"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_failing_error_handler_ends_at_once(backend: str, asynchronous: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """
    A handler of "error" that fails is called once: no name is special.

    pyee emits its error as "error" again, which calls it again: a sync one under trio never
    returns, an async one under asyncio is called some 80,000 times a second.
    """
    calls = 0

    def fail(event: Event[Exception]) -> None:
        nonlocal calls
        calls += 1
        assert calls < 10, "it is called again and again"
        msg = f"cannot handle {event.data!r}"
        raise RuntimeError(msg)

    async def fail_async(event: Event[Exception]) -> None:
        await anyio.sleep(0.001)
        fail(event)

    async def main() -> None:
        emitter = EventEmitter()
        handler: Callable[[Event[Exception]], object] = fail_async if asynchronous else fail
        emitter.on("error", handler)

        async def report(error: Exception, event: Event[Any], _: object) -> None:
            if event.name != "error":  # as one would write it after pyee
                await emitter.emit("error", error)
            else:
                raise error

        reporting = EventEmitter(on_error=report)
        reporting.on("error", handler)

        @reporting.on("work")
        async def work(_: Event[int]) -> None:
            raise ValueError("bad")

        with pytest.raises(ExceptionGroup):
            await emitter.emit("error", ValueError("bad"))
        assert calls == 1
        with pytest.raises(ExceptionGroup):
            await reporting.emit("work")
        assert calls == 2
        with pytest.raises(ExceptionGroup):
            await reporting.emit("error", ValueError("bad"))
        assert calls == 3
        await anyio.sleep(10)
        assert calls == 3

    run(main, backend=backend)


# ---- BaseExceptions ------------------------------------------------------------------------------


class Fatal(BaseException):
    """Is not an Exception."""


async def test_base_exception_propagates_bare(emitter: EventEmitter) -> None:
    """From a lone handler, from an inline one and from one in a task; the others are cancelled."""
    log: list[str] = []

    @emitter.on("inline")
    @emitter.on("task")
    async def slow(_: Event[int]) -> None:
        try:
            await anyio.sleep(5)
        finally:
            log.append(f"cancelled at {anyio.current_time():g}")

    emitter.on("alone", fails(Fatal()))
    emitter.on("alone plainly", fails_plainly(Fatal()))
    emitter.on("inline", fails(Fatal()), priority=1)
    emitter.on("task", fails(Fatal(), 1))
    for name in ("alone", "alone plainly", "inline", "task"):
        with pytest.raises(Fatal):
            await emitter.emit(name)
    assert log == ["cancelled at 1"]


async def test_base_exception_of_a_clean_up_overtakes_the_cancellation(
    emitter: EventEmitter,
) -> None:
    """Also from a task of its own."""

    async def slow(_: Event[int]) -> None:
        await anyio.sleep(5)

    async def ends_badly(_: Event[int]) -> None:
        try:
            await anyio.sleep(5)
        finally:
            raise Fatal

    emitter.on("a", slow)
    emitter.on("a", ends_badly)
    with pytest.raises(Fatal), anyio.move_on_after(1):
        await emitter.emit("a")
    assert anyio.current_time() == 1


async def test_several_base_exceptions_come_in_a_group(emitter: EventEmitter) -> None:
    """When there are two at one moment, neither is lost."""

    async def first(_: Event[int]) -> None:
        await anyio.sleep(9)

    async def late(_: Event[int]) -> None:
        try:
            await anyio.sleep(9)
        finally:
            raise Fatal("second")

    emitter.on("a", first)
    emitter.on("a", late)
    emitter.on("a", fails(Fatal("first"), 1))
    with pytest.raises(BaseExceptionGroup, match=r"^handlers of 'a' failed") as caught:
        await emitter.emit("a")
    assert [str(each) for each in caught.value.exceptions] == ["first", "second"]


async def test_errors_that_a_base_exception_overtakes_are_logged(emitter: EventEmitter) -> None:
    """The caller gets the other one."""
    emitter.on("a", fails(ValueError("bad")))
    emitter.on("a", fails(Fatal()))
    with LogOf("mtaio.events") as log, pytest.raises(Fatal):
        await emitter.emit("a")
    assert log == ["bad"]


class LogOf(logging.Handler):
    """Collects the errors that are logged inside the block."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.errors: list[str] = []
        self._logger = logging.getLogger(name)

    def emit(self, record: logging.LogRecord) -> None:
        """Note a record."""
        assert record.exc_info is not None
        self.errors.append(str(record.exc_info[1]))

    def __enter__(self) -> list[str]:
        self._logger.addHandler(self)
        return self.errors

    def __exit__(self, *exc_info: object) -> None:
        self._logger.removeHandler(self)


async def test_stray_cancellation_is_a_failure(emitter: EventEmitter) -> None:
    """In a task of its own it would otherwise end the whole tier in silence."""
    log: list[str] = []

    async def suspends(_: Event[int]) -> None:
        await anyio.sleep(1)
        log.append("ended")

    emitter.on("a", suspends)
    emitter.on("a", cancels_itself)
    emitter.on("a", suspends)
    with pytest.raises(ExceptionGroup) as caught:
        await emitter.emit("a")
    (error,) = caught.value.exceptions
    assert isinstance(error, StrayCancellationError)
    assert str(error).startswith("cancels_itself raised Cancelled")
    assert log == ["ended", "ended"]


async def cancels_itself(_: Event[int]) -> None:
    """Raise the backend's cancellation although nothing was cancelled."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except BaseException as error:  # noqa: BLE001 - to be raised where it does not belong
            stolen = error
    raise stolen


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", [None, ValueError, Fatal], ids=["well", "error", "fatal"])
def test_emit_leaves_no_reference_cycles(
    backend: str,
    kind: type[BaseException] | None,
    count: int,
    late: bool,  # noqa: FBT001 - a parameter of pytest's
) -> None:
    """However it ends, all that it held is freed by counting references alone."""

    class Payload:
        """Can be referred to weakly."""

    async def handle(_: Event[Any]) -> None:
        if late:
            await anyio.sleep(1)
        if kind is not None:
            raise kind

    async def emit(emitter: EventEmitter, timeout: float) -> weakref.ref[Payload]:
        payload = Payload()
        with suppress(BaseExceptionGroup, Fatal), anyio.move_on_after(timeout):
            await emitter.emit("a", payload)
        return weakref.ref(payload)

    async def main() -> None:
        emitter = EventEmitter()
        for _ in range(count):
            emitter.on("a", handle)
        payload = await emit(emitter, 2)
        await settle()
        if not (late and count > 1 and kind is Fatal):  # AnyIO's handles keep what ends their task
            assert payload() is None
        if late and backend == "trio":  # AnyIO's cancelled tasks leave some of their own on asyncio
            payload = await emit(emitter, 0.5)
            await settle()
            assert payload() is None

    gc.disable()
    try:
        run(main, backend=backend)
    finally:
        gc.enable()


async def test_base_exception_comes_with_its_cause(emitter: EventEmitter) -> None:
    """From a task of its own, too."""
    cause = ValueError("why")

    async def suspends(_: Event[int]) -> None:
        await anyio.sleep(2)

    async def end(_: Event[int]) -> None:
        await anyio.sleep(1)
        raise Fatal from cause

    emitter.on("a", suspends)
    emitter.on("a", end)
    with pytest.raises(Fatal) as caught:
        await emitter.emit("a")
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("make", [fails_plainly, fails])
async def test_group_is_not_shown_twice(make: Callable[[BaseException], Any]) -> None:
    """It holds the error of the handler, and does not have it as its context."""
    emitter = EventEmitter()
    emitter.on("a", make(ValueError("bad")))
    with pytest.raises(ExceptionGroup) as caught:
        await emitter.emit("a")
    assert caught.value.__suppress_context__


async def test_stray_cancellation_in_on_error_is_its_failure() -> None:
    """Where it runs in a task of its own, it ends no other."""
    log: list[str] = []

    async def on_error(error: Exception, event: Event[Any], _: object) -> None:
        log.append(f"told {error}")
        await cancels_itself(event)

    async def suspends(_: Event[int]) -> None:
        await anyio.sleep(1)
        log.append("ended")

    emitter = EventEmitter(on_error=on_error)
    emitter.on("a", suspends)
    emitter.on("a", fails(ValueError("bad"), 0.5))
    emitter.on("a", suspends)
    with pytest.raises(ExceptionGroup) as caught:
        await emitter.emit("a")
    error, own = caught.value.exceptions
    assert isinstance(error, ValueError)
    assert isinstance(own, StrayCancellationError)
    assert log == ["told bad", "ended", "ended"]


async def test_handler_that_returns_a_generator_is_told() -> None:
    """Nothing would run it."""

    def plain(_: Event[Any]) -> Any:
        return (number for number in range(3))

    async def asynchronous(_: Event[Any]) -> Any:
        yield 1  # pragma: no cover - not iterated

    def hidden(event: Event[Any]) -> Any:
        return asynchronous(event)

    for returns in (plain, hidden):
        emitter = EventEmitter()
        emitter.on("a", returns)
        for _ in range(2):
            with pytest.raises(ExceptionGroup) as caught:
                await emitter.emit("a")
            (error,) = caught.value.exceptions[-1:]
            assert isinstance(error, TypeError)
            assert str(error).startswith("the handler returned <")
            emitter.on("a", lambda _: None)
