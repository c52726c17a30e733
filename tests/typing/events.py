"""What type checkers say about the emitter: checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import Any, assert_type

from mtaio.events import Event, EventEmitter, EventKey, EventStream

# mypy's strict mode refuses an ignore that hides nothing. This has pyright do the same, so that
# each ignore below is an error in both.
# pyright: reportUnnecessaryTypeIgnoreComment=true

LOGIN = EventKey[int]("user.login")
NAME = EventKey[str]("user.name")
PING = EventKey[None]("ping")
SHAPE = EventKey["int | str"]("shape")

emitter = EventEmitter()


async def on_int(event: Event[int]) -> None:
    """Take an int."""
    assert_type(event.data, int)


def on_str(event: Event[str]) -> str:
    """Take a string."""
    return event.data


def on_anything(event: Event[object]) -> None:
    """Take anything: what takes more is good for less."""
    del event


def on_any(event: Event[Any]) -> None:
    """Take anything, unchecked."""
    del event


async def emitting() -> None:
    """Emit rightly and wrongly."""
    assert_type(await emitter.emit(LOGIN, 5), Event[int])
    assert_type(await emitter.emit(PING), Event[None])
    assert_type(await emitter.emit(SHAPE, "round"), Event[int | str])
    assert_type(await emitter.emit("name", 5.5), Event[float])
    assert_type(await emitter.emit("name"), Event[None])
    assert_type((await emitter.emit(LOGIN, 5, metadata={"source": "here"})).data, int)
    await emitter.emit(LOGIN, 5, source="here")  # type: ignore[call-overload] # metadata has a name
    await emitter.emit(LOGIN, "ada")  # type: ignore[misc] # a wrong payload is an error
    await emitter.emit(LOGIN)  # type: ignore[arg-type] # so is a missing one
    await emitter.emit(LOGIN, None)  # type: ignore[arg-type] # None is a payload, too
    await emitter.emit(PING, 5)  # type: ignore[misc] # where there is to be none
    await emitter.emit(5, 5)  # type: ignore[call-overload] # a number is no name


def emitting_without_waiting() -> None:
    """Emit later, rightly and wrongly."""
    emitter.emit_nowait(LOGIN, 5, metadata={"source": "here"})
    emitter.emit_nowait(PING)
    emitter.emit_nowait("name", object())
    emitter.emit_nowait(LOGIN, "ada")  # type: ignore[misc] # a wrong payload
    emitter.emit_nowait(LOGIN)  # type: ignore[arg-type] # a missing one


def registering() -> None:
    """Register rightly and wrongly."""
    emitter.on(LOGIN, on_int)
    emitter.on(LOGIN, on_anything)
    emitter.on(LOGIN, on_any)
    emitter.once(LOGIN, on_int, priority=5)
    emitter.on("name", on_int)
    emitter.on("name", on_str, weak=True)
    emitter.on(SHAPE, on_anything)
    emitter.on(LOGIN, on_str)  # type: ignore[arg-type] # it takes strings
    emitter.once(LOGIN, on_str)  # type: ignore[arg-type] # it takes strings
    emitter.on(SHAPE, on_int)  # type: ignore[arg-type] # it may get a string
    emitter.on("name", 5)  # type: ignore[call-overload] # a number is no handler
    assert_type(emitter.off(LOGIN, on_int), bool)


@emitter.on(LOGIN)
async def decorated(event: Event[int]) -> None:
    """Take an int."""
    assert_type(event.data, int)


@emitter.on("name")
def decorated_by_name(event: Event[str]) -> int:
    """Keep its own type."""
    return len(event.data)


@emitter.once(PING)
def decorated_once(event: Event[None]) -> None:
    """Take nothing."""
    assert_type(event.data, None)


def both(event: Event[int | str]) -> None:
    """Take what either key has: registered by calls, because a decorated one is narrowed."""
    event.data = 5  # type: ignore[misc] # the other handlers get the same event


emitter.on(LOGIN, both)
emitter.on(NAME, both)


@emitter.on(LOGIN)  # type: ignore[arg-type] # it takes strings
def decorated_wrongly(event: Event[str]) -> None:
    """Take a string."""
    del event


async def decorations_keep_types() -> None:
    """A decorated function can be called as before."""
    assert_type(await decorated(Event("user.login", 5)), None)
    assert_type(decorated_by_name(Event("name", "ada")), int)
    assert_type(await emitter.on(LOGIN, on_int)(Event("user.login", 5)), None)
    assert_type(emitter.once("name", on_str)(Event("name", "ada")), str)


async def waiting() -> None:
    """Wait and stream."""
    assert_type(await emitter.wait_for(LOGIN), Event[int])
    assert_type(await emitter.wait_for(LOGIN, lambda event: event.data > 5), Event[int])
    assert_type(await emitter.wait_for("name", timeout=5), Event[Any])
    await emitter.wait_for(LOGIN, lambda event: event.data.x)  # type: ignore[attr-defined] # an int
    assert_type(emitter.stream(LOGIN), EventStream[int])
    assert_type(emitter.stream("name", LOGIN), EventStream[Any])
    assert_type(emitter.stream(LOGIN, NAME), EventStream[int | str])
    emitter.stream()  # type: ignore[call-overload] # nothing would come
    emitter.stream("name", max_pending="9")  # type: ignore[call-overload] # a number, or None
    async with emitter.stream(LOGIN, LOGIN, overflow="drop_oldest") as events:
        async for event in events:
            assert_type(event, Event[int])
    emitter.stream("name", overflow="drop")  # type: ignore[call-overload] # no such policy


async def report(error: Exception, event: Event[Any], handler: object) -> None:
    """Take an error."""
    del error, event, handler


def constructing() -> None:
    """Make one, rightly and wrongly."""
    EventEmitter(errors="log", on_error=report)
    EventEmitter(on_error=on_any)  # type: ignore[arg-type] # it is called with three arguments
    EventEmitter(errors="ignore")  # type: ignore[arg-type] # no such policy


class Louder(EventEmitter):  # type: ignore[misc] # on, emit and once do not call one another
    """Would be called for some events and not for others."""
