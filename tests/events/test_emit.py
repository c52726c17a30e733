"""Emitting: in which order handlers run, and what they get."""

from __future__ import annotations

import contextvars
import enum
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.events import Event, EventEmitter, EventPriority
from mtaio.testing import assert_checkpoints, assert_no_checkpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator


class Log(list[str]):
    """What happened, with the time."""

    def note(self, what: str) -> None:
        """Note it."""
        self.append(f"{anyio.current_time():g} {what}")

    def sleeper(self, name: str, seconds: float) -> Callable[[Event[Any]], Awaitable[None]]:
        """Return a handler that takes its time."""

        async def handle(_: Event[Any]) -> None:
            self.note(f"{name} starts")
            await anyio.sleep(seconds)
            self.note(f"{name} ends")

        return handle

    def plain(self, name: str) -> Callable[[Event[Any]], None]:
        """Return a plain handler."""
        return lambda _: self.note(name)


async def test_handlers_get_the_event_and_emit_returns_it(emitter: EventEmitter) -> None:
    """One object for all of them: name, data, metadata, time."""
    seen: list[Event[Any]] = []
    emitter.on("a", seen.append)

    @emitter.on("a")
    async def handle(event: Event[Any]) -> None:
        seen.append(event)

    await anyio.sleep(2.5)
    event = await emitter.emit("a", {"id": 1}, metadata={"source": "test", "attempt": 3})
    assert seen == [event, event]
    assert (event.name, event.data, event.metadata) == (
        "a",
        {"id": 1},
        {"source": "test", "attempt": 3},
    )
    assert not event.stopped
    later = await emitter.emit("b")
    assert later.data is None
    assert later.metadata == {}
    assert later.time - event.time == 0.0


async def test_time_is_when_it_was_emitted(emitter: EventEmitter) -> None:
    """Differences are seconds."""
    first = await emitter.emit("a")
    await anyio.sleep(1.25)
    assert (await emitter.emit("a")).time - first.time == 1.25


async def test_no_listeners(emitter: EventEmitter) -> None:
    """An event without listeners is returned all the same."""
    assert (await emitter.emit("a", 1)).data == 1


async def test_tiers_run_high_to_low(emitter: EventEmitter) -> None:
    """A tier ends before the next starts; any int is a priority."""
    log = Log()
    emitter.on("a", log.sleeper("low", 1), priority=EventPriority.LOW)
    emitter.on("a", log.sleeper("normal", 1))
    emitter.on("a", log.sleeper("normal too", 2))
    emitter.on("a", log.plain("high"), priority=EventPriority.HIGH)
    emitter.on("a", log.sleeper("first", 1), priority=1000)
    await emitter.emit("a")
    assert log == [
        "0 first starts",
        "1 first ends",
        "1 high",
        "1 normal starts",
        "1 normal too starts",
        "2 normal ends",
        "3 normal too ends",
        "3 low starts",
        "4 low ends",
    ]


async def test_plain_handlers_run_in_the_order_of_registration(emitter: EventEmitter) -> None:
    """Exact names and patterns alike."""
    log = Log()
    for number, pattern in enumerate(("a.b", "*", "a.*", "a.b", "*")):
        emitter.on(pattern, log.plain(str(number)))
    await emitter.emit("a.b")
    assert log == ["0 0", "0 1", "0 2", "0 3", "0 4"]


@pytest.mark.parametrize("entered", [False, True], ids=["outside", "inside"])
async def test_several_async_handlers_run_concurrently(entered: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """They start at one moment, the first registered first, and emit waits for all (pyee#63)."""
    emitter, log = EventEmitter(), Log()
    for name, seconds in (("x", 3), ("y", 1), ("z", 2)):
        emitter.on("a", log.sleeper(name, seconds))
    async with emitter if entered else nullcontext():
        await emitter.emit("a")
        assert sorted(log[:3]) == ["0 x starts", "0 y starts", "0 z starts"]
        assert log[0] == "0 x starts"
        assert log[3:] == ["1 y ends", "2 z ends", "3 x ends"]


async def test_plain_handlers_do_not_wait_for_async_ones(emitter: EventEmitter) -> None:
    """Where several are async, a plain one behind them runs at once."""
    log = Log()
    emitter.on("a", log.sleeper("x", 1))
    emitter.on("a", log.plain("p"))
    emitter.on("a", log.sleeper("y", 1))
    emitter.on("a", log.plain("q"))
    await emitter.emit("a")
    assert {"0 p", "0 q", "0 x starts", "0 y starts"} == set(log[:4])
    assert log.index("0 p") < log.index("0 y starts")


async def test_one_async_handler_is_a_plain_await(emitter: EventEmitter) -> None:
    """It runs in the caller's task, and those after it in the tier wait for it."""
    log = Log()
    tasks = []

    @emitter.on("a")
    async def handle(_: Event[int]) -> None:
        tasks.append(anyio.get_current_task().id)
        await anyio.sleep(1)
        tasks.append(anyio.get_current_task().id)

    emitter.on("a", log.plain("after"))
    await emitter.emit("a")
    assert set(tasks) == {anyio.get_current_task().id}
    assert log == ["1 after"]


async def test_handlers_that_do_not_suspend_run_in_the_callers_task(emitter: EventEmitter) -> None:
    """And so does the first that suspends; only then are tasks made for the rest."""
    tasks: dict[str, int] = {}

    def handler(name: str, *, suspends: bool) -> Callable[[Event[Any]], Awaitable[None]]:
        async def handle(_: Event[Any]) -> None:
            tasks[name] = anyio.get_current_task().id
            if suspends:
                await checkpoint()

        return handle

    for name, suspends in (("a", False), ("b", False), ("c", True), ("d", False), ("e", True)):
        emitter.on("x", handler(name, suspends=suspends))
    await emitter.emit("x")
    mine = anyio.get_current_task().id
    assert [name for name, task in tasks.items() if task == mine] == ["a", "b", "c"]
    assert len(set(tasks.values())) == 3


async def test_handlers_that_do_not_suspend_are_called_in_order(emitter: EventEmitter) -> None:
    """Then no task is made."""
    log: list[tuple[int, int]] = []

    def handler(number: int) -> Callable[[Event[Any]], Awaitable[None]]:
        async def handle(_: Event[Any]) -> None:
            log.append((number, anyio.get_current_task().id))

        return handle

    for number in range(4):
        emitter.on("a", handler(number))
    await emitter.emit("a")
    mine = anyio.get_current_task().id
    assert log == [(number, mine) for number in range(4)]


async def test_only_the_last_handler_suspends(emitter: EventEmitter) -> None:
    """Then none is left to get a task."""
    log = Log()

    @emitter.on("a")
    async def quick(_: Event[int]) -> None:
        log.note("quick")

    emitter.on("a", log.sleeper("last", 1))
    await emitter.emit("a")
    assert log == ["0 quick", "0 last starts", "1 last ends"]


async def test_not_concurrent_means_one_after_another() -> None:
    """``concurrent=False`` forces it, entered or not."""
    emitter, log = EventEmitter(concurrent=False), Log()
    emitter.on("a", log.sleeper("x", 1))
    emitter.on("a", log.sleeper("y", 1))
    await emitter.emit("a")
    async with emitter:
        await emitter.emit("a")
    assert log == [
        "0 x starts", "1 x ends", "1 y starts", "2 y ends",
        "2 x starts", "3 x ends", "3 y starts", "4 y ends",
    ]  # fmt: skip


class Awaited:
    """Something that can be awaited and is not a coroutine."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def __await__(self) -> Generator[Any, Any, None]:
        yield from anyio.sleep(1).__await__()
        self.log.note("awaited")


class Called:
    """Async when called."""

    def __init__(self, log: Log) -> None:
        self.log = log

    async def __call__(self, _: Event[Any], /) -> None:
        """Take a second."""
        await anyio.sleep(1)
        self.log.note("called")


async def test_what_a_plain_handler_returns_is_awaited_if_it_can_be(emitter: EventEmitter) -> None:
    """A lambda around an async function works, alone and among others; a value is ignored."""
    log = Log()
    sleep = log.sleeper("x", 1)
    emitter.on("lambda", lambda event: sleep(event))  # noqa: PLW0108 - the subject
    emitter.on("object", lambda _: Awaited(log))
    emitter.on("value", lambda _: 5)
    for name in ("lambda", "object", "value"):
        await emitter.emit(name)
    assert log == ["0 x starts", "1 x ends", "2 awaited"]
    for name in ("lambda", "object", "value"):
        emitter.on(name, log.plain(f"after {name}"))
        await emitter.emit(name)
    assert log[3:] == [
        "2 x starts", "3 x ends", "3 after lambda", "4 awaited", "4 after object", "4 after value",
    ]  # fmt: skip
    assert emitter.statistics().handled == 9


async def test_what_a_plain_handler_returns_has_no_task_of_its_own(emitter: EventEmitter) -> None:
    """The first of a tier runs concurrently with the rest; another delays the next async one."""
    log = Log()
    first, second = log.sleeper("first", 2), log.sleeper("second", 2)
    emitter.on("a", lambda event: first(event))  # noqa: PLW0108 - the subject
    emitter.on("a", log.sleeper("task", 1))
    emitter.on("a", lambda event: second(event))  # noqa: PLW0108 - the subject
    emitter.on("a", log.sleeper("after second", 1))
    await emitter.emit("a")
    assert log[0] == "0 first starts"
    assert sorted(log[1:3]) == ["0 second starts", "0 task starts"]
    assert sorted(log[3:]) == [
        "1 task ends", "2 after second starts", "2 first ends", "2 second ends",
        "3 after second ends",
    ]  # fmt: skip


async def test_async_callables_of_all_kinds_run_concurrently(emitter: EventEmitter) -> None:
    """Partials and objects with an async ``__call__`` are recognized."""
    log = Log()
    emitter.on("a", partial(log.sleeper("x", 1)))
    emitter.on("a", Called(log))
    await emitter.emit("a")
    assert anyio.current_time() == 1
    assert sorted(log) == ["0 x starts", "1 called", "1 x ends"]


async def test_stop_blocks_lower_tiers(emitter: EventEmitter) -> None:
    """The rest of the same tier runs all the same."""
    log = Log()

    @emitter.on("a")
    async def stop(event: Event[int]) -> None:
        await checkpoint()
        event.stop()

    emitter.on("a", log.sleeper("same tier", 1))
    emitter.on("a", log.plain("lower"), priority=-1)
    event = await emitter.emit("a")
    assert event.stopped
    assert log == ["0 same tier starts", "1 same tier ends"]


async def test_emit_inside_a_handler_runs_at_once(emitter: EventEmitter) -> None:
    """There is no lock and no queue: the inner emit is over when it returns."""
    log = Log()

    @emitter.on("outer")
    async def outer(_: Event[int]) -> None:
        log.note("outer starts")
        await emitter.emit("inner")
        log.note("outer ends")

    emitter.on("inner", log.sleeper("inner", 1))
    emitter.on("inner", log.sleeper("inner too", 2))
    await emitter.emit("outer")
    assert (log[0], log[-1]) == ("0 outer starts", "2 outer ends")
    assert len(log) == 6


async def test_emit_in_progress_keeps_its_snapshot(emitter: EventEmitter) -> None:
    """It calls no handler registered later, and none removed meanwhile."""
    log = Log()
    late, gone = log.plain("late"), log.plain("gone")

    @emitter.on("a", priority=1)
    async def change(_: Event[int]) -> None:
        await checkpoint()
        emitter.on("a", late)
        emitter.off("a", gone)

    emitter.on("a", log.plain("stays"))
    emitter.on("a", gone)
    await emitter.emit("a")
    assert log == ["0 stays"]
    emitter.off("a", change)
    await emitter.emit("a")
    assert log == ["0 stays", "0 stays", "0 late"]


async def test_handler_that_removes_itself(emitter: EventEmitter) -> None:
    """It ends, and is not called again."""
    log = Log()

    @emitter.on("a")
    async def handle(_: Event[int]) -> None:
        emitter.off("a", handle)
        await anyio.sleep(1)
        log.note("ended")

    await emitter.emit("a")
    await emitter.emit("a")
    assert log == ["1 ended"]


async def test_removed_and_registered_again_during_an_emit(emitter: EventEmitter) -> None:
    """A new registration is not the old one: this emit skips it."""
    log = Log()
    handler = log.plain("handled")

    @emitter.on("a", priority=1)
    def again(_: Event[int]) -> None:
        emitter.off("a", handler)
        emitter.on("a", handler)

    emitter.on("a", handler)
    await emitter.emit("a")
    assert log == []
    await emitter.emit("a")
    assert log == []
    assert emitter.listener_count("a") == 2


async def test_one_emit_in_64_is_a_checkpoint(emitter: EventEmitter) -> None:
    """A loop over emits whose handlers do not suspend is fair, and can be cancelled."""
    emitter.on("a", lambda _: None)
    for number in range(1, 200):
        if number % 64:
            with assert_no_checkpoints():
                await emitter.emit("a")
        else:
            with assert_checkpoints():
                await emitter.emit("a")
    calls = 0
    with anyio.move_on_after(0) as scope:
        while True:
            calls += 1
            await emitter.emit("a")
    assert scope.cancelled_caught
    assert calls <= 64


async def test_emit_cancelled_at_its_own_checkpoint_has_done_nothing(emitter: EventEmitter) -> None:
    """The checkpoint comes before anything else."""
    log = Log()
    emitter.on("a", log.plain("handled"))
    for _ in range(63):
        await emitter.emit("a")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await emitter.emit("a")
    assert scope.cancelled_caught
    assert len(log) == 63
    assert emitter.statistics().emitted == 63


VALUE: contextvars.ContextVar[str] = contextvars.ContextVar("value", default="unset")


async def test_handlers_in_tasks_see_the_emits_context(emitter: EventEmitter) -> None:
    """And not what the handler that suspended first has set by then."""
    seen: list[str] = []

    @emitter.on("a")
    async def sets(_: Event[int]) -> None:
        VALUE.set("the handler's")
        await checkpoint()

    @emitter.on("a")
    async def looks(_: Event[int]) -> None:
        seen.append(VALUE.get())
        await checkpoint()

    @emitter.on("a")
    def looks_too(_: Event[int]) -> None:
        seen.append(VALUE.get())

    VALUE.set("the emit's")
    await emitter.emit("a")
    assert seen == ["the emit's"] * 2


async def test_handlers_in_tasks_see_what_higher_tiers_have_set(emitter: EventEmitter) -> None:
    """Their context is that in which their tier started."""
    seen: list[str] = []

    @emitter.on("a", priority=1)
    def higher(_: Event[int]) -> None:
        VALUE.set("the higher tier's")

    @emitter.on("a")
    @emitter.on("a")
    async def looks(_: Event[int]) -> None:
        seen.append(VALUE.get())
        VALUE.set("the handler's")
        await checkpoint()

    await emitter.emit("a")
    assert seen == ["the higher tier's"] * 2


async def test_handlers_in_tasks_see_the_emits_deadline(emitter: EventEmitter) -> None:
    """And not the one of a handler that suspended inside a timeout of its own."""
    seen: list[float] = []

    @emitter.on("a")
    async def hurries(_: Event[int]) -> None:
        with anyio.fail_after(1):
            await checkpoint()

    @emitter.on("a")
    async def looks(_: Event[int]) -> None:
        seen.append(anyio.current_effective_deadline())

    with anyio.fail_after(7):
        await emitter.emit("a")
    assert seen == [7]


async def test_emit_refuses_what_is_not_a_name(emitter: EventEmitter) -> None:
    """At once, and counts nothing."""
    bad: Any
    for bad, error, message in (
        ("", ValueError, r"^name='' is empty"),
        ("a.*", ValueError, r"^name='a\.\*' is a pattern: it can be listened to, not emitted"),
        (5, TypeError, r"^name=5 is an int, not the name of an event"),
        (["a"], TypeError, r"^name=\['a'\] is a list, not the name"),
    ):
        with pytest.raises(error, match=message):
            await emitter.emit(bad)
    assert emitter.statistics().emitted == 0


async def test_arguments_and_metadata_are_apart(emitter: EventEmitter) -> None:
    """Metadata may have any names; no other keyword is taken for a part of it."""
    given = {"name": "ada", "data": 7}
    event = await emitter.emit(name="user.renamed", data=5, metadata=given)
    assert (event.name, event.data, event.metadata) == ("user.renamed", 5, given)
    with pytest.raises(TypeError, match="unexpected keyword argument 'source'"):
        await emitter.emit("user.renamed", source="here")  # type: ignore[call-overload] # the subject
    assert emitter.statistics().emitted == 1


async def test_name_is_a_plain_string() -> None:
    """Emitting first under a subclass of str does not name the event for later emits."""

    class Names(str, enum.Enum):  # noqa: UP042 - whose format is another than its value
        A = "a"

    emitter = EventEmitter()
    assert type((await emitter.emit(Names.A)).name) is str
    assert f"{(await emitter.emit('a')).name}" == "a"
    assert list(emitter.statistics().names) == ["a"]


async def test_emit_refuses_several_values(emitter: EventEmitter) -> None:
    """An event has one value, unlike those of pyee."""
    untyped: Any = emitter
    with pytest.raises(TypeError, match=r"takes .* positional arguments but 4 were given"):
        await untyped.emit("a", 1, 2)
    with pytest.raises(TypeError, match=r"takes .* positional arguments but 5 were given"):
        untyped.emit_nowait("a", 1, 2, 3)
    assert emitter.statistics().emitted == 0


async def test_refusal_is_shown_alone() -> None:
    """The dict that was looked into before is not mentioned."""
    with pytest.raises(TypeError) as caught:
        await EventEmitter().emit(5)  # type: ignore[call-overload] # the subject
    assert caught.value.__suppress_context__
