"""What the parts tell: to listeners from anywhere, to an emitter, and to the log."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, final
from unittest.mock import AsyncMock

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from mtaio.events import EventEmitter
from mtaio.exceptions import LimitError, RateLimitError
from mtaio.resilience import (
    Breaker,
    Fallback,
    FellBack,
    GaveUp,
    Hedge,
    Hedged,
    PartEvent,
    Pipeline,
    Refused,
    Retried,
    Retry,
    Throttled,
    TimedOut,
    Timeout,
    forward_to,
    subscribe,
)
from mtaio.resilience._events import emit, is_wanted, text_of
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from mtaio.events import Event

RETRIED = Retried(name="api", function="fetch", attempt=2, seconds=0.25, error=OSError("lost"))


@pytest.fixture
def listen() -> Iterator[Callable[[Any], Callable[[], None]]]:
    """Return `subscribe`, whose subscriptions end with the test."""
    ends: list[Callable[[], None]] = []

    def add(listener: Any) -> Callable[[], None]:
        ends.append(subscribe(listener))
        return ends[-1]

    yield add
    for end in ends:
        end()


def test_listeners_hear_until_they_unsubscribe(listen: Any) -> None:
    """Each in its turn, a function twice if it was added twice; what one raises is logged."""
    heard: list[object] = []

    def fail(_: PartEvent) -> None:
        raise ValueError("mine")

    assert not is_wanted(TimedOut)
    ends = [listen(heard.append), listen(fail), listen(heard.append)]
    assert is_wanted(TimedOut)
    emit(RETRIED)
    assert heard == [RETRIED, RETRIED]
    ends[0]()
    ends[0]()
    emit(RETRIED)
    assert heard == [RETRIED] * 3


def test_what_a_listener_raises_is_logged(listen: Any, caplog: pytest.LogCaptureFixture) -> None:
    """With its name and the event, and the call goes on."""
    listen(lambda _: 1 / 0)
    emit(TimedOut(seconds=1))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("mtaio.resilience", "ERROR")
    assert "<lambda> failed for TimedOut(" in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        (None, r"^listener=None is a NoneType, which is not callable\. Pass a plain function of"),
        (anyio.sleep, r"^listener=<function sleep .* is an async function and would not be aw"),
    ],
)
def test_wrong_listener_is_refused(listener: Any, message: str) -> None:
    """With the way out."""
    with pytest.raises(TypeError, match=message):
        subscribe(listener)
    with pytest.raises(TypeError, match=r"^cannot forward to .*: it has no emit_nowait\(\)\. Pass"):
        forward_to(listener)


# ---- the log -------------------------------------------------------------------------------------


class Unreadable(Exception):  # noqa: N818 - its name is in the line
    """An error without a text."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (RETRIED, "api: fetch: attempt 2 ended with OSError: lost; the next one is in 0.25 s"),
        (
            Retried(attempt=1, seconds=1, error=None, result="[]"),
            "a call: attempt 1 ended with the result []; the next one is in 1 s",
        ),
        (
            GaveUp(function="fetch", attempt=3, reason="budget", error=Unreadable()),
            "fetch: gave up after attempt 3, which ended with Unreadable (budget)",
        ),
        (
            Throttled(name="api", seconds=2, error=OSError()),
            "api: the service asked for a pause with OSError; it lasts 2 s",
        ),
    ],
)
def test_line_of_the_log(event: PartEvent, line: str, caplog: pytest.LogCaptureFixture) -> None:
    """At WARNING, by default, with the fields under names that no record has."""
    emit(event)
    (record,) = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == (
        "mtaio.resilience",
        "WARNING",
        line,
    )
    own = {name: value for name, value in vars(record).items() if name.startswith("mtaio_")}
    if event is RETRIED:
        assert own == {
            "mtaio_event": "retried",
            "mtaio_name": "api",
            "mtaio_function": "fetch",
            "mtaio_attempt": 2,
            "mtaio_seconds": 0.25,
            "mtaio_error": "OSError: lost",
        }


def test_nothing_is_logged_below_the_level(caplog: pytest.LogCaptureFixture) -> None:
    """Nor for kinds that are not news by themselves; and nothing is made then."""

    @final
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Silent(PartEvent):
        is_logged = True

    emit(Hedged(attempt=2, seconds=0.1))
    emit(Silent())
    with caplog.at_level(logging.ERROR, "mtaio.resilience"):
        assert not is_wanted(Retried)
        emit(RETRIED)
    assert is_wanted(Retried)
    assert not caplog.records


def test_text_is_shortened() -> None:
    """Of an error, and of a result: lines of the log stay lines."""
    assert text_of(OSError("x" * 300)) == f"OSError: {'x' * 188}..."
    assert text_of(list(range(1000))) == "[0, 1, 2, 3, 4, 5, ...]"


# ---- from anywhere -------------------------------------------------------------------------------


async def test_events_of_a_thread_are_heard(listen: Any) -> None:
    """In that thread, at once."""
    heard: list[PartEvent] = []
    listen(heard.append)
    await anyio.to_thread.run_sync(partial(emit, RETRIED))
    assert heard == [RETRIED]


async def test_emitter_emits_the_events() -> None:
    """In its own loop, those of threads too, until its block is left."""
    emitter = EventEmitter(max_pending=2)
    heard: list[tuple[str, object]] = []

    @emitter.on("resilience.*")
    async def note(event: Event[Any]) -> None:
        await anyio.sleep(1)
        heard.append((event.name, event.data))

    fell = FellBack(error=OSError())
    async with emitter:
        end = forward_to(emitter)
        await anyio.to_thread.run_sync(partial(emit, RETRIED))
        await anyio.sleep(0.5)
        emit(fell)
        for _ in range(9):
            emit(fell)
        await anyio.sleep(9)
        assert heard[:2] == [("resilience.retried", RETRIED), ("resilience.fell_back", fell)]
        assert emitter.statistics().rejected
        end()
        assert not is_wanted(Hedged)
        forward_to(emitter)
        assert is_wanted(Hedged)
    emit(fell)
    assert not is_wanted(Hedged)


def test_forwarded_from_a_thread_under_asyncio_run() -> None:
    """Events of threads arrive where asyncio runs the program, and not AnyIO."""
    emitter = EventEmitter()
    heard = emitter.on("resilience.retried")(AsyncMock())

    async def main() -> None:
        async with emitter:
            end = forward_to(emitter)
            await asyncio.to_thread(emit, RETRIED)
            await asyncio.sleep(0)  # asyncio's own way leaves AnyIO no mark
            end()

    asyncio.run(main())
    assert heard.await_count == 1


def test_subscription_ends_with_the_loop(backend: str) -> None:
    """An event that comes later has nobody to go to."""
    emitter = EventEmitter()

    async def main() -> None:
        async with emitter:
            forward_to(emitter)

    anyio.run(main, backend=backend)
    assert is_wanted(Hedged)
    emit(RETRIED)
    assert not is_wanted(Hedged)


# ---- what the parts tell -------------------------------------------------------------------------


async def slow() -> None:
    """Take a second."""
    await anyio.sleep(1)


async def refuse() -> None:
    """Raise what a limiter inside of the function would."""
    raise RateLimitError


@pytest.mark.parametrize(
    ("parts", "event"),
    [
        ([Timeout(0.5, name="t")], TimedOut(name="t", function="slow", seconds=0.5)),
        ([Timeout(0.5, total=True)], TimedOut(function="slow", seconds=0.5, limit="total")),
        ([Hedge(0.3)], Hedged(function="slow", attempt=2, seconds=0.3)),
    ],
)
async def test_parts_tell(listen: Any, parts: list[Any], event: PartEvent) -> None:
    """Each what it did, of which function."""
    heard: list[PartEvent] = []
    listen(heard.append)
    with suppress(TimeoutError):
        await Pipeline(*parts).run(slow)
    assert heard[:1] == [event]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(
    "kind", ["rate", "keyed", "keyed slots", "slots", "resource", "stream", "key stream"]
)
async def test_limiters_tell_whom_they_refuse(listen: Any, kind: str, direct: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """In a pipeline, and where they are only asked; what is raised inside of them is not theirs."""
    heard: list[PartEvent] = []
    slots = ConcurrencyLimiter(1)
    limiters: dict[str, Any] = {
        "rate": RateLimiter(9),
        "keyed": KeyedRateLimiter(9),
        "keyed slots": KeyedConcurrencyLimiter(9),
        "key stream": KeyedConcurrencyLimiter(9),
        "slots": slots,
        "stream": slots,
        "resource": ResourceLimiter(concurrency=slots),
    }
    limiter = limiters[kind]
    api = Pipeline(*([] if direct else [Breaker()]), limiter)
    listen(heard.append)
    with pytest.raises(RateLimitError):
        await api.run(refuse, key="k")
    assert [each for each in heard if isinstance(each, Refused)] == []
    (slots if kind == "resource" else limiter).close()

    async def call() -> None:
        if kind.endswith("stream"):
            async with api.stream(items, key="k"):
                pass
        else:
            await api.run(slow, key="k")

    with pytest.raises(LimitError) as caught:
        await call()
    function = "items" if kind.endswith("stream") else "slow"
    refused = [each for each in heard if isinstance(each, Refused)]
    assert refused == [Refused(function=function, error=caught.value)]


async def items() -> AsyncIterator[int]:
    """Yield something."""
    yield 1  # pragma: no cover - not begun


async def test_limiter_inside_of_the_function_is_no_part(listen: Any) -> None:
    """What it refuses is not told as a refusal of the pipeline's, which has no limiter."""
    heard: list[PartEvent] = []
    listen(heard.append)
    with pytest.raises(RateLimitError):
        await Pipeline(Fallback(str, on=OSError)).run(refuse)
    with pytest.raises(RateLimitError):
        await Pipeline(Retry(2, on=OSError)).run(refuse)
    assert heard == []
