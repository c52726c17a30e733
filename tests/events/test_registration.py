"""Registering and removing: order, once, weak references, and what is refused."""

from __future__ import annotations

import dataclasses
import gc
import sys
import types
import warnings
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.cache import cached
from mtaio.events import Event, EventEmitter, EventKey, EventPriority
from mtaio.testing import settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator


class Log(list[str]):
    """Handlers that write down their names."""

    def handler(self, name: str) -> Callable[[Event[Any]], None]:
        """Return a plain handler."""

        def handle(_: Event[Any]) -> None:
            self.append(name)

        return handle


def nothing(_: Event[Any]) -> None:
    """Handle nothing."""


async def nothing_async(_: Event[Any]) -> None:
    """Handle nothing, but async."""


async def test_on_returns_the_handler_itself() -> None:
    """As a call and as a decorator: the name in the user's module is the function."""
    emitter = EventEmitter()
    assert emitter.on("a", nothing) is nothing
    assert emitter.on("a")(nothing_async) is nothing_async
    assert emitter.once("a", nothing) is nothing
    assert emitter.once("a")(nothing_async) is nothing_async
    assert emitter.listeners("a") == (nothing, nothing_async, nothing, nothing_async)


async def test_same_handler_twice_is_called_twice() -> None:
    """Registrations are counted, not handlers; off takes away the latest."""
    emitter, log = EventEmitter(), Log()
    first, second = log.handler("first"), log.handler("second")
    for handler in (first, second, first):
        emitter.on("a", handler)
    await emitter.emit("a")
    assert log == ["first", "second", "first"]
    assert emitter.off("a", first)
    assert emitter.listeners("a") == (first, second)


async def test_off_of_an_unknown_handler_is_false() -> None:
    """It is an answer, not an error."""
    emitter = EventEmitter()
    assert not emitter.off("a", nothing)
    emitter.on("a", nothing)
    assert not emitter.off("a", nothing_async)
    assert not emitter.off("*", nothing)
    assert emitter.off("a", nothing)
    assert not emitter.off("a", nothing)


async def test_event_names() -> None:
    """Names and patterns with handlers, in the order of the first; streams and waits are none."""
    emitter = EventEmitter()
    assert emitter.event_names() == ()
    emitter.on("b", nothing)
    emitter.on("a.*", nothing)
    emitter.once(EventKey[int]("a"), nothing)
    emitter.on("b", nothing)

    def fleeting(event: Event[int]) -> None:
        """Handle."""

    emitter.on("gone", fleeting, weak=True)
    del fleeting
    gc.collect()
    async with emitter.stream("stream", "*"):
        assert emitter.event_names() == ("b", "a.*", "a")
        await emitter.emit("a", 1)
        assert emitter.off("b", nothing)
        assert emitter.event_names() == ("b", "a.*")


async def test_remove_all_listeners() -> None:
    """Those of one name or pattern, or all of them; streams go on, and so does the emitter."""
    emitter, log = EventEmitter(), Log()
    for name in ("a", "a", "a.*", "b", "*"):
        emitter.on(name, log.handler(name))
    async with emitter.stream("a") as events:
        assert emitter.remove_all_listeners("a") == 2
        assert emitter.remove_all_listeners("a") == 0
        assert emitter.remove_all_listeners("*") == 1
        assert emitter.event_names() == ("a.*", "b")
        assert emitter.remove_all_listeners() == 2
        assert emitter.event_names() == ()
        assert emitter.listener_count() == 0
        await emitter.emit("a", 1)
        assert (await anext(events)).data == 1
    assert log == []
    emitter.on(EventKey[int]("a"), nothing)
    assert emitter.remove_all_listeners(EventKey[int]("a")) == 1
    with pytest.raises(ValueError, match=r"^name='' "):
        emitter.remove_all_listeners("")


async def test_remove_all_listeners_during_an_emit() -> None:
    """What an emit in progress has not called yet, it does not call any more."""
    emitter, log = EventEmitter(), Log()
    emitter.on("a", lambda _: emitter.remove_all_listeners(), priority=1)
    emitter.on("a", log.handler("later"))
    await emitter.emit("a")
    assert log == []


async def test_bound_methods_are_found_again() -> None:
    """``obj.method`` is a new object each time, and equal to the one registered."""

    class Thing:
        def handle(self, event: Event[int]) -> None:
            """Handle."""

    emitter, thing = EventEmitter(), Thing()
    emitter.on("a", thing.handle)
    assert not emitter.off("a", Thing().handle)
    assert emitter.off("a", thing.handle)


async def test_bound_objects_are_found_again() -> None:
    """What looks like a bound method is found by equality, too; so is what a decorator binds."""

    class Bound:
        def __init__(self, owner: object) -> None:
            self.owner = owner

        async def __call__(self, event: Event[int], /) -> None:
            """Handle."""

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Bound) and self.owner is other.owner

        def __hash__(self) -> int:
            return hash(self.owner)

    emitter, owner = EventEmitter(), object()
    emitter.on("a", Bound(owner))
    assert not emitter.off("a", Bound(object()))
    assert emitter.off("a", Bound(owner))
    assert emitter.listener_count() == 0


async def test_wildcards() -> None:
    """``*`` matches every name, ``ns.*`` one or more segments below ns; exact and wild mix."""
    emitter, log = EventEmitter(), Log()
    for pattern in ("a.b", "*", "a.*", "a.b.*", "a"):
        emitter.on(pattern, log.handler(pattern))
    called = {}
    for name in ("a", "a.b", "a.b.c", "a.b.c.d", "ab", "b"):
        log.clear()
        await emitter.emit(name)
        called[name] = list(log)
    assert called == {
        "a": ["*", "a"],
        "a.b": ["a.b", "*", "a.*"],
        "a.b.c": ["*", "a.*", "a.b.*"],
        "a.b.c.d": ["*", "a.*", "a.b.*"],
        "ab": ["*"],
        "b": ["*"],
    }


async def test_registration_is_seen_by_the_next_emit() -> None:
    """Matches are kept for each name, until a registration changes them."""
    emitter, log = EventEmitter(), Log()
    await emitter.emit("a.b")
    emitter.on("a.b", exact := log.handler("exact"))
    await emitter.emit("a.b")
    emitter.on("a.*", below := log.handler("below"))
    await emitter.emit("a.b")
    emitter.off("a.b", exact)
    await emitter.emit("a.b")
    emitter.off("a.*", below)
    await emitter.emit("a.b")
    assert log == ["exact", "exact", "below", "below"]


async def test_listeners_are_those_that_would_run() -> None:
    """In their order, wildcards included; of a pattern, those registered under exactly that."""
    emitter = EventEmitter()
    log = Log()
    low, everything, high, below = map(log.handler, ("low", "everything", "high", "below"))
    emitter.on("a.b", low, priority=-1)
    emitter.on("*", everything)
    emitter.on("a.b", high, priority=EventPriority.HIGH)
    emitter.on("a.*", below)
    assert emitter.listeners("a.b") == (high, everything, below, low)
    assert emitter.listeners("a.c") == (everything, below)
    assert emitter.listeners("*") == (everything,)
    assert emitter.listeners("a.*") == (below,)
    assert emitter.listeners("b.*") == ()
    assert [emitter.listener_count(name) for name in ("a.b", "a.c", "x", "*", None)] == [
        4, 2, 1, 1, 4,
    ]  # fmt: skip


async def test_streams_and_waits_are_not_listeners() -> None:
    """Counted are handlers; the rest is in the statistics."""
    emitter = EventEmitter()
    async with emitter.stream("a"):
        assert emitter.listener_count("a") == 0
        assert emitter.listener_count() == 0
        assert emitter.listeners("a") == ()
        assert emitter.statistics().streams == 1


# ---- once ----------------------------------------------------------------------------------------


async def test_once_is_called_once() -> None:
    """And is gone before it is called, so that it may emit the same event itself."""
    emitter, log = EventEmitter(), Log()

    @emitter.once("a")
    async def handle(event: Event[int]) -> None:
        log.append(f"handle {event.data}")
        assert emitter.listener_count("a") == 0
        await emitter.emit("a", event.data + 1)

    await emitter.emit("a", 1)
    await emitter.emit("a", 5)
    assert log == ["handle 1"]


async def test_once_is_called_once_by_emits_at_the_same_time() -> None:
    """The first to reach it calls it, even if both started before."""
    emitter, log = EventEmitter(), Log()

    @emitter.on("a")
    async def slow(_: Event[int]) -> None:
        await anyio.sleep(1)

    emitter.once("a", log.handler("once"))
    async with anyio.create_task_group() as group:
        group.start_soon(emitter.emit, "a")
        group.start_soon(emitter.emit, "a")
    assert log == ["once"]
    assert emitter.statistics().names["a"].handled == 3


async def test_once_can_be_removed_by_the_original_function() -> None:
    """There is no wrapper around the user's handler."""
    emitter, log = EventEmitter(), Log()
    handler = emitter.once("a", log.handler("once"))
    assert emitter.listeners("a") == (handler,)
    assert emitter.off("a", handler)
    await emitter.emit("a")
    assert log == []


async def test_once_that_is_never_reached_stays() -> None:
    """An emit that ends before its tier leaves it registered."""
    emitter, log = EventEmitter(), Log()
    emitter.on("a", Event.stop, priority=1)
    emitter.once("a", log.handler("once"))
    await emitter.emit("a")
    assert emitter.listener_count("a") == 2
    assert log == []


async def test_once_and_removal_do_not_race(emitter: EventEmitter) -> None:
    """It may be removed while it is being called, by itself or another (pyee#76)."""
    called: list[str] = []

    @emitter.once("a")
    async def once(_: Event[int]) -> None:
        assert not emitter.off("a", once)
        await anyio.sleep(1)
        called.append("once")

    @emitter.on("a")
    def remover(_: Event[int]) -> None:
        assert not emitter.off("a", once)
        assert emitter.off("a", other)

    @emitter.once("a")
    def other(_: Event[int]) -> None:
        called.append("other")

    async with anyio.create_task_group() as group:
        group.start_soon(emitter.emit, "a")
        await settle()
        assert not emitter.off("a", once)
    assert emitter.listeners("a") == (remover,)
    assert called == ["once"]


async def test_once_on_a_pattern() -> None:
    """It is called for one event of all that match."""
    emitter, log = EventEmitter(), Log()
    emitter.once("a.*", log.handler("once"))
    await emitter.emit("a.b")
    await emitter.emit("a.c")
    assert log == ["once"]


# ---- weak references -----------------------------------------------------------------------------


class Receiver:
    """Has a method to be called."""

    def __init__(self, log: list[object]) -> None:
        self.log = log

    def handle(self, event: Event[object]) -> None:
        """Note the data."""
        self.log.append(event.data)

    async def handle_async(self, event: Event[object]) -> None:
        """Note the data."""
        self.log.append(event.data)


@pytest.mark.parametrize("pattern", ["a.b", "a.*", "*"])
async def test_what_is_removed_is_let_go(pattern: str) -> None:
    """At once, and not when the event is emitted again."""
    emitter = EventEmitter()
    receiver = Receiver([])
    emitter.on(pattern, receiver.handle)
    await emitter.emit("a.b")
    assert emitter.off(pattern, receiver.handle)
    left = weakref.ref(receiver)
    del receiver
    gc.collect()
    assert left() is None


@pytest.mark.parametrize("method", ["handle", "handle_async"])
async def test_handlers_are_kept_alive(method: str) -> None:
    """Strong references by default: a receiver without others goes on receiving (pelican#1386)."""
    emitter = EventEmitter()
    log: list[object] = []
    emitter.on("a", getattr(Receiver(log), method))
    gc.collect()
    await emitter.emit("a", 1)
    assert log == [1]


@pytest.mark.parametrize("method", ["handle", "handle_async"])
@pytest.mark.parametrize("once", [False, True])
async def test_weak_method_lives_as_long_as_its_object(method: str, once: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """Of a bound method it is the object that counts."""
    emitter = EventEmitter()
    log: list[object] = []
    receiver = Receiver(log)
    register = emitter.once if once else emitter.on
    register("a", getattr(receiver, method), weak=True)
    gc.collect()
    assert emitter.listeners("a") == (getattr(receiver, method),)
    await emitter.emit("a", 1)
    assert log == [1]
    if once:
        assert emitter.listener_count() == 0
        register("a", getattr(receiver, method), weak=True)
    watch = weakref.ref(receiver)
    del receiver
    gc.collect()
    assert watch() is None
    await emitter.emit("a", 2)
    assert log == [1]
    assert emitter.listeners("a") == ()
    assert emitter.listener_count() == 0
    assert emitter.statistics().listeners == 0


async def test_weak_cached_method_lives_as_long_as_its_object() -> None:
    """It is another object each time, but it is a method."""

    class Shop:
        @cached
        async def price(self, event: Event[int]) -> int:
            prices.append(event.data)
            return event.data

    emitter, shop = EventEmitter(), Shop()
    prices: list[int] = []
    emitter.on("a", shop.price, weak=True)
    gc.collect()
    assert emitter.listeners("a") == (shop.price,)
    await emitter.emit("a", 1)
    assert prices == [1]
    assert emitter.off("a", shop.price)
    emitter.on("a", shop.price, weak=True)
    del shop
    gc.collect()
    await emitter.emit("a", 2)
    assert prices == [1]
    assert emitter.listener_count() == 0


async def test_weak_handler_that_goes_while_it_is_removed() -> None:
    """It is removed once, and its name can be used again."""
    emitter = EventEmitter()
    held: list[Any] = []

    class Fleeting:
        def __call__(self, event: Event[Any]) -> None: ...

        def __eq__(self, other: object) -> bool:
            if other is print:
                held.clear()
            return other is print

        __hash__ = None  # type: ignore[assignment]

    held.append(Fleeting())
    emitter.on("a", held[0], weak=True)
    assert emitter.off("a", print)
    assert emitter.listener_count() == 0
    emitter.on("a", print)
    assert emitter.listener_count() == 1


async def test_weak_handler_can_be_removed() -> None:
    """It is found by off() as long as it lives."""
    emitter, receiver = EventEmitter(), Receiver([])
    emitter.on("a", receiver.handle, weak=True)
    assert emitter.off("a", receiver.handle)
    del receiver
    gc.collect()
    assert emitter.listener_count() == 0


@pytest.mark.parametrize("max_listeners", [100, None])
async def test_dead_handlers_do_not_accumulate(max_listeners: int | None) -> None:
    """Registering removes those that are gone, also under names that are not emitted."""
    emitter = EventEmitter(max_listeners=max_listeners)
    grown: list[int] = []
    gc.disable()
    try:
        for _ in range(3):  # whatever else the process keeps, it does not keep it each time
            before = sys.getallocatedblocks()
            for number in range(500):
                emitter.on(f"connection.{number}", Receiver([]).handle, weak=True)
                if not number % 100:
                    gc.collect(1)
            gc.collect(1)  # of what is this young; a whole one takes long
            grown.append(sys.getallocatedblocks() - before)
    finally:
        gc.enable()
    assert min(grown) < 500  # less than one for each
    assert emitter.statistics().listeners == emitter.listener_count() == 0


async def test_handler_that_dies_during_an_emit_is_skipped() -> None:
    """An emit in progress does not keep its object alive."""
    emitter = EventEmitter()
    log: list[object] = []
    receivers = [Receiver(log)]

    @emitter.on("a", priority=1)
    def drop(_: Event[int]) -> None:
        receivers.clear()
        gc.collect()

    emitter.on("a", receivers[0].handle, weak=True)
    await emitter.emit("a", 1)
    assert log == []
    assert emitter.statistics().handled == 1


async def test_handler_that_dies_while_it_is_listed() -> None:
    """It is in the list or it is not; there is no None in its place."""
    emitter = EventEmitter()
    receivers = [Receiver([])]
    emitter.on("a", receivers[0].handle, weak=True)

    def drop(frame: types.FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code.co_name == "_handlers":
            receivers.clear()

    before = sys.getprofile()
    sys.setprofile(drop)
    try:
        listed = emitter.listeners("a")
    finally:
        sys.setprofile(before)
    assert receivers == []
    assert [each.__name__ for each in listed] == ["handle"]
    del listed
    assert emitter.listeners("a") == ()


async def test_what_cannot_be_held_weakly_is_refused() -> None:
    """And nothing is registered."""
    emitter = EventEmitter()

    class Slotted:
        __slots__ = ()

        def __call__(self, event: Event[Any]) -> None:
            """Be called."""

    with pytest.raises(TypeError, match=r"^handler=.*Slotted.*cannot be referred to weakly"):
        emitter.on("a", Slotted(), weak=True)
    assert emitter.listener_count() == 0


# ---- too many ------------------------------------------------------------------------------------


def test_one_warning_beyond_max_listeners() -> None:
    """One for each name or pattern, when it gets too many, at the caller's line."""
    emitter = EventEmitter(max_listeners=2)
    for _ in range(2):
        emitter.on("a", nothing)
        emitter.on("b.*", nothing)
    with pytest.warns(RuntimeWarning, match=r"^3 handlers of 'a' are registered, more than") as one:
        emitter.on("a", nothing)
    with pytest.warns(RuntimeWarning, match=r"^3 handlers of 'b\.\*' are registered") as two:
        emitter.once("b.*")(nothing)
    assert one[0].filename == two[0].filename == __file__
    emitter.on("a", nothing)
    emitter.on("b.*", nothing)
    assert emitter.listener_count() == 8


async def test_streams_do_not_count_as_too_many() -> None:
    """Only handlers count."""
    emitter = EventEmitter(max_listeners=1)
    async with emitter.stream("a"), emitter.stream("a"):
        emitter.on("a", nothing)  # a warning would be an error
        with pytest.warns(RuntimeWarning, match=r"^2 handlers of 'a' are registered"):
            emitter.on("a", nothing)


def test_no_warning_without_max_listeners() -> None:
    """None means never."""
    emitter = EventEmitter(max_listeners=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(1000):
            emitter.on("a", nothing)
    assert emitter.listener_count("a") == 1000


# ---- bad input -----------------------------------------------------------------------------------


async def agen(_: Event[Any]) -> AsyncIterator[None]:
    """Be an async generator."""
    yield


def gen(_: Event[Any]) -> Iterator[None]:
    """Be a generator."""
    yield


class Generates:
    """Makes a generator when called."""

    def __call__(self, _: Event[Any], /) -> Iterator[None]:
        """Be a generator."""
        yield


@pytest.mark.parametrize("register", ["on", "once"])
@pytest.mark.parametrize(
    "handler", [agen, gen, partial(agen), partial(gen), Generates()], ids=range(5)
)
async def test_generator_functions_are_refused(register: str, handler: Any) -> None:
    """Calling one runs none of it, so registering it is a mistake."""
    emitter = EventEmitter()
    with pytest.raises(TypeError, match=r"^handler=.* is a generator function: calling it would "):
        getattr(emitter, register)("a", handler)
    with pytest.raises(TypeError, match=r"^handler=.* is a generator function"):
        getattr(emitter, register)("a")(handler)
    assert emitter.listener_count() == 0


async def test_generator_based_coroutine_functions_are_fine() -> None:
    """Their result can be awaited."""
    emitter, log = EventEmitter(), Log()

    @types.coroutine
    def handle(_: Event[Any]) -> Generator[Any, Any, None]:
        yield from anyio.sleep(1).__await__()
        log.append("handled")

    emitter.on("a", handle)
    await emitter.emit("a")
    assert log == ["handled"]


async def test_bad_input() -> None:
    """Each mistake is named where it is made, and leaves the emitter as it was."""
    emitter: Any = EventEmitter()
    with pytest.raises(TypeError, match=r"^handler=5 is an int, which is not callable\. Pass a fu"):
        emitter.on("a", 5)
    with pytest.raises(TypeError, match=r"^handler='b' is a str, which is not callable"):
        emitter.on("a")("b")
    with pytest.raises(ValueError, match=r"^name='' is empty"):
        emitter.on("", nothing)
    with pytest.raises(ValueError, match=r"^name='' is empty"):
        emitter.once("")
    with pytest.raises(TypeError, match=r"^name=<function nothing.* is a function, not the name"):
        emitter.on(nothing)
    with pytest.raises(ValueError, match=r"^name='a\*' has a '\*' that is not a segment"):
        emitter.off("a*", nothing)
    with pytest.raises(ValueError, match=r"^name='' is empty"):
        emitter.listeners("")
    with pytest.raises(TypeError, match=r"^name=5 is an int"):
        emitter.listener_count(5)
    for priority in (1.5, "high", True, None):
        with pytest.raises(TypeError, match=r"^priority=.* not an int\. Pass an EventPriority"):
            emitter.on("a", nothing, priority=priority)
    for handler in (lambda: None, lambda _a, _b: None, emitter.event_names):
        with pytest.raises(
            TypeError,
            match=r"^handler=.* cannot be called as .*\(event\): .*\. Pass a function of one arg",
        ):
            emitter.on("a", handler)
    assert emitter.listener_count() == 0
    emitter.on("a", lambda event, priority=1, *_, **__: (event, priority))
    emitter.on("a", [].append)
    emitter.on("a", int)  # has no signature
    assert emitter.listener_count() == 3


def test_bad_construction() -> None:
    """The constructor says what it takes."""
    make: Any = EventEmitter
    with pytest.raises(ValueError, match=r'^errors=\'ignore\' is unknown\. Pass "raise" \(stop'):
        make(errors="ignore")
    with pytest.raises(
        TypeError, match=r"^on_error='log' is a str, which is not callable\. Pass a"
    ):
        make(on_error="log")
    with pytest.raises(TypeError, match=r"^on_error=.* cannot be called as .*\(error, event"):
        make(on_error=nothing)
    for generates in (agen, gen):
        with pytest.raises(TypeError, match=r"^on_error=.* is a generator function: calling it wo"):
            make(on_error=generates)  # errors would go to it and be lost
    with pytest.raises(ValueError, match=r"^max_listeners=0 is less than 1\. Pass how many may be"):
        make(max_listeners=0)
    with pytest.raises(TypeError, match=r"^max_pending=2.5 is a float, not an int"):
        make(max_pending=2.5)
    with pytest.raises(ValueError, match=r"^max_names=0 is less than 1\. Pass how many names to"):
        make(max_names=0)
    assert repr(make(name="bus")) == "<EventEmitter 'bus': 0 handlers>"
    assert repr(make()) == "<EventEmitter: 0 handlers>"
    assert make(name="bus").name == "bus"


def test_off_prefers_the_handler_itself() -> None:
    """Of several that are equal."""

    @dataclasses.dataclass
    class Handler:
        """Equal to any other."""

        def __call__(self, _: Event[Any]) -> None:
            """Do nothing."""

    emitter = EventEmitter()
    first, second = Handler(), Handler()
    emitter.on("a", first)
    emitter.on("a", second)
    assert emitter.off("a", first)
    assert emitter.listeners("a")[0] is second
    assert emitter.off("a", Handler())
    assert emitter.listener_count() == 0


def test_method_of_a_builtin_cannot_be_referred_to_weakly() -> None:
    """It is a new object each time, and would be gone at once."""
    emitter = EventEmitter()
    with pytest.raises(TypeError, match=r"cannot be referred to weakly"):
        emitter.on("a", list[Any]().append, weak=True)
    assert emitter.on("a", print, weak=True) is print
    assert emitter.listener_count() == 1
