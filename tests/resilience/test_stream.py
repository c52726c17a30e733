"""Streams through a pipeline: what is retried, what lasts until the end, what is closed."""

from __future__ import annotations

import gc
import inspect
import logging
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio import exceptions
from mtaio._internal import backend, deadlines
from mtaio.core import Retry, TaskExecutor
from mtaio.resilience import (
    AdaptiveLimiter,
    Breaker,
    BreakerState,
    Call,
    Fallback,
    Hedge,
    Hedged,
    OpenStream,
    PartEvent,
    Pipeline,
    StandalonePart,
    TimedOut,
    Timeout,
    subscribe,
)
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    Quota,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)
from mtaio.testing import assert_quiescent, run
from tests.resilience.calls import succeed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from mtaio.resilience import CallStream
    from mtaio.types import Next


class Service:
    """
    Streams of three items, of which the first attempts fail, and what became of them.

    Args:
        *failures: For each attempt the number of the item that fails; None for none.
        first: Seconds until the first item.
        between: Seconds until each other one.
    """

    def __init__(
        self, *failures: int | None, first: float = 0, between: float = 0, items: int = 3
    ) -> None:
        self._failures = iter([*failures, *[None] * 9])
        self._first = first
        self._between = between
        self._items = items
        self.opened: list[float] = []
        self.closed: list[float] = []

    async def __call__(self, name: str = "item") -> AsyncGenerator[str]:
        """Yield the items, or fail."""
        failure = next(self._failures)
        self.opened.append(anyio.current_time())
        try:
            await anyio.sleep(self._first)
            for number in range(self._items):
                if number:
                    await anyio.sleep(self._between)
                if number == failure:
                    raise ConnectionError(number)
                yield f"{name} {number}"
        finally:
            self.closed.append(anyio.current_time())


async def listed(stream: CallStream[Any]) -> list[Any]:
    """Return all items of a stream."""
    async with stream as items:
        return [item async for item in items]


ITEMS = ["item 0", "item 1", "item 2"]


# ---- what is opened ------------------------------------------------------------------------------


class Closing:
    """An async iterable with an ``aclose`` that may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed = 0
        self._error = error

    async def __aiter__(self) -> AsyncIterator[str]:
        for item in ITEMS:
            yield item

    async def aclose(self) -> None:
        """Close it."""
        await checkpoint()
        self.closed += 1
        if self._error is not None:
            raise self._error


class Bare:
    """An async iterator that cannot be closed, in a manager that raises what it gets."""

    closed = 1

    def __init__(self) -> None:
        self._items = iter(ITEMS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            raise error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        for item in self._items:
            return item
        raise StopAsyncIteration


class SyncClosing(Closing):
    """The same, whose ``aclose`` needs no await."""

    def aclose(self) -> None:  # type: ignore[override]
        """Close it."""
        self.closed += 1


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("kind", ["iterable", "async iterable", "manager", "async manager", "sync"])
async def test_what_a_function_may_return(kind: str, *, early: bool) -> None:
    """Async iterables and context managers around them, also from an async function."""
    made = SyncClosing() if kind == "sync" else Closing()
    ended: list[type[BaseException] | None] = []

    @asynccontextmanager
    async def manager() -> AsyncGenerator[Closing]:
        try:
            yield made
        except BaseException as error:
            ended.append(type(error))
            raise
        else:
            await made.aclose()
            ended.append(None)

    async def opening() -> Any:
        await checkpoint()
        return manager() if "manager" in kind else made

    fn: Any = opening if "async" in kind else manager if "manager" in kind else lambda: made
    async with Pipeline(Retry(2)).stream(fn) as items:
        got = []
        async for item in items:
            got.append(item)
            if early:
                break
        assert made.closed < 1
    assert got == (ITEMS[:1] if early else ITEMS)
    assert made.closed == 1
    assert ended == ([None] if "manager" in kind else [])
    with pytest.raises(ValueError, match=r"^body$"):
        async with Pipeline(Retry(2)).stream(fn):
            raise ValueError("body")
    assert ended == ([None, ValueError] if "manager" in kind else [])


async def test_iterator_without_aclose() -> None:
    """It need not be closed; a manager that raises again what the block raised is fine."""
    bare = Bare()
    without: Any = type("", (), {"__aiter__": lambda _: bare, "__anext__": Bare.__anext__})
    assert await listed(Pipeline(Retry(2)).stream(without)) == ITEMS
    with pytest.raises(ValueError, match=r"^body$"):
        async with Pipeline(Retry(2)).stream(Bare):
            raise ValueError("body")


async def test_what_is_no_stream_is_refused() -> None:
    """With the way out; a stream through run(), too."""
    api = Pipeline(Timeout(1))
    for fn in (succeed, lambda: 5):
        with pytest.raises(TypeError, match="which cannot be iterated with 'async for'"):
            await listed(api.stream(fn))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="which cannot be iterated"):
        await listed(Pipeline(Fallback(lambda _: "sorry")).stream(Service(0)))
    call: Any = succeed()
    for owner in (api, Timeout(1)):
        with pytest.raises(TypeError, match="which cannot be called"):
            owner.stream(call)
    with pytest.raises(TypeError, match=r"For streams use stream\(\) of"):
        await api.run(Service())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="For a stream, use @Pipeline"):
        Retry(2)(Service().__call__)  # type: ignore[arg-type]


async def test_decorated() -> None:
    """A generator function becomes one that returns a block; keys and keywords are passed on."""
    seen: list[Call] = []

    class Seen(StandalonePart):
        needs_key = True

        def wrap(self, then: Next) -> Next:
            async def run_(call: Call) -> Any:
                seen.append(call)
                return await then(call)

            return run_

    class Client:
        @Pipeline(Seen(), Timeout(1))(key=lambda _, name, **__: name)
        async def tokens(self, name: str, *, times: int) -> AsyncIterator[str]:
            """Yield a name some times."""
            for _ in range(times):
                yield name

    assert await listed(Client().tokens("a", times=2)) == ["a", "a"]
    assert Client.tokens.__doc__ == "Yield a name some times."
    assert list(inspect.signature(Client.tokens).parameters) == ["self", "name", "times"]
    part = Seen()
    alone = part(Service().__call__)
    with pytest.raises(ValueError, match="has no key"):
        alone()
    for owner in (part, Pipeline(part)):
        with pytest.raises(ValueError, match="has no key"):
            owner.stream(Service())
        assert await listed(owner.stream(Service(), "b", key="k")) == ["b 0", "b 1", "b 2"]
    assert [call.key for call in seen] == ["a", "k", "k"]
    assert await listed(Timeout(1)(Service().__call__)("c")) == ["c 0", "c 1", "c 2"]


async def test_block_is_entered_once() -> None:
    """And iterated inside; what is left is closed."""
    api = Pipeline(Timeout(1))
    service = Service()
    stream = api.stream(service)
    assert repr(stream) == "<CallStream of Service, new>"
    with pytest.raises(RuntimeError, match=r"was not entered\. Write: async with"):
        await anext(stream)
    async with stream as items:
        assert items is stream
        assert repr(stream) == "<CallStream of Service, entered>"
        assert await anext(items) == "item 0"
    assert repr(stream) == "<CallStream of Service, left>"
    assert len(service.closed) == 1
    with pytest.raises(RuntimeError, match="was left, and is closed"):
        await anext(stream)
    with pytest.raises(RuntimeError, match=r"was entered before.*Call stream\(\) again"):
        await stream.__aenter__()
    await stream.__aexit__(None, None, None)
    assert len(service.opened) == 1


# ---- what the parts do ---------------------------------------------------------------------------


async def test_retried_until_the_first_item() -> None:
    """Failed attempts are closed first; what fails later is raised as it is, and not retried."""
    service = Service(0, 0, 1)
    api = Pipeline(Retry(3, wait_initial=1, jitter=0))
    async with api.stream(service) as items:
        assert service.closed == [0, 1]
        assert service.opened == [0, 1, 3]
        assert await anext(items) == "item 0"
        with pytest.raises(ConnectionError, match=r"^1$"):
            await anext(items)
        with pytest.raises(StopAsyncIteration):
            await anext(items)
    now = api.statistics()
    assert (now.calls, now.succeeded, now.failed) == (1, 0, 1)
    assert now.parts["retry"].retried == 2
    with pytest.raises(ConnectionError):
        await listed(Pipeline(Retry(2, wait_initial=0)).stream(Service(0, 0)))


async def test_empty_stream_is_a_success() -> None:
    """It has no first item, and nothing is retried."""
    service = Service(items=0)
    api = Pipeline(Fallback(lambda _: 1), Retry(3), Timeout(9, first=5, between=1))
    assert await listed(api.stream(service)) == []
    assert len(service.opened) == 1
    assert api.statistics().succeeded == 1


async def test_fallback_answers_with_a_stream() -> None:
    """Of any kind that a function may return; it is closed as well."""
    answers = Service()
    api = Pipeline(Fallback(lambda _, name: answers(f"old {name}")), Retry(2, wait_initial=0))
    async with api.stream(Service(0, 0), "a") as items:
        assert await anext(items) == "old a 0"
    assert len(answers.closed) == 1


@pytest.mark.parametrize("how", ["to the end", "break", "error", "cancelled", "fails"])
async def test_slots_and_outcomes_last_until_the_block_ends(how: str) -> None:
    """A limiter's slot is held, and a breaker counts, when the stream has been closed."""
    slots, shared, total = ConcurrencyLimiter(1), ConcurrencyLimiter(1), ResourceLimiter(rate=9)
    adaptive, breaker = AdaptiveLimiter(initial=1), Breaker(1, last=1)
    rate = RateLimiter(0.001, burst=1)
    api = Pipeline(
        breaker, slots, ResourceLimiter(concurrency=shared), adaptive, total, rate, Timeout(30)
    )
    service = Service(1 if how == "fails" else None, between=1)
    limiters: list[Any] = [slots, shared, adaptive]

    async def consume() -> None:
        async with api.stream(service) as items:
            async for _ in items:
                assert [each.statistics().in_use for each in limiters] == [1, 1, 1]
                assert (total.statistics().entered, total.statistics().in_flight) == (1, 1)
                assert rate.statistics().tokens < 0.1
                assert api.statistics().in_flight == 1
                if how == "break":
                    break
                if how == "error":
                    raise ValueError

    with anyio.move_on_after(0.5 if how == "cancelled" else 99):
        try:
            await consume()
        except (ValueError, ConnectionError):
            assert how in {"error", "fails"}
    assert len(service.closed) == 1
    assert (total.statistics().entered, total.statistics().in_flight) == (1, 0)
    now = api.statistics()
    assert (now.failed, now.cancelled) == (how == "fails", how == "cancelled")
    assert (breaker.state is BreakerState.OPEN) == (how == "fails")
    breaker.reset()
    assert_quiescent(api)
    assert now.parts["breaker"].undecided == (how == "cancelled")


async def test_outcome_of_what_does_not_open() -> None:
    """As that of a call: slots are given back, failures counted, refusals not."""
    slots, adaptive = ConcurrencyLimiter(1), AdaptiveLimiter(initial=1, on=ConnectionError)
    resource = ResourceLimiter(concurrency=1, timeout=5, timeout_total=9)
    api = Pipeline(
        Breaker(1, last=2, min_calls=2, open_for=1),
        slots,
        adaptive,
        resource,
        ResourceLimiter(timeout_total=4),
        Timeout(3),
    )
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await listed(api.stream(Service(0)))
    assert adaptive.statistics().failed == 2
    assert resource.statistics().in_flight == 0
    with pytest.raises(exceptions.BreakerOpenError):
        await listed(api.stream(Service()))
    await anyio.sleep(1)
    assert await listed(api.stream(Service())) == ITEMS
    assert_quiescent(api)


async def test_waits_for_a_slot() -> None:
    """An adaptive limiter with a queue holds a stream back."""
    api = Pipeline(AdaptiveLimiter(initial=1, max_limit=1, max_waiting=1), Timeout(9))
    first = api.stream(Service())
    await first.__aenter__()

    async def leave() -> None:
        await anyio.sleep(2)
        await first.__aexit__(None, None, None)

    async with anyio.create_task_group() as group:
        group.start_soon(leave)
        assert await listed(api.stream(Service())) == ITEMS
    assert anyio.current_time() == 2


async def test_hedge_closes_the_loser_first() -> None:
    """Its attempts open streams; when one has its first item, the other is closed before."""
    seconds = iter([9, 0.5])
    closed: list[float] = []

    async def tokens() -> AsyncIterator[float]:
        mine = next(seconds)
        try:
            await anyio.sleep(mine)
            yield mine
        finally:
            closed.append(mine)

    hedge = Hedge(1)
    events: list[PartEvent] = []
    unsubscribe = subscribe(events.append)
    async with hedge.stream(tokens) as items:
        assert closed == [9]
        assert [item async for item in items] == [0.5]
    unsubscribe()
    assert [(type(event), event.function) for event in events] == [(Hedged, tokens.__qualname__)]
    assert hedge.statistics().wins == 1
    assert anyio.current_time() == 1.5
    assert await listed(Hedge("p95").stream(Service())) == ITEMS


async def test_part_of_ones_own() -> None:
    """With `wrap` it acts on the opening; with `wrap_stream`, on the end too."""
    seen: list[object] = []

    class Opening(StandalonePart):
        def wrap(self, then: Next) -> Next:
            async def run_(call: Call) -> Any:
                opened = await then(call)
                assert isinstance(opened, OpenStream)
                seen.append((repr(opened), opened.first, opened.is_empty))
                return opened

            return run_

    class Whole(Opening):
        def wrap_stream(self, then: Next) -> Next:
            async def run_(call: Call) -> OpenStream:
                opened: OpenStream = await then(call)
                opened.on_end(seen.append)
                opened.on_end(self.fail)
                opened.on_end(seen.append)
                return opened

            return run_

        def fail(self, error: object) -> None:
            if isinstance(error, ValueError):
                raise TypeError

    assert await listed(Opening().stream(Service())) == ITEMS
    assert seen == [("<OpenStream of Service>", "item 0", False)]
    seen.clear()
    assert await listed(Pipeline(Whole(), Timeout(3)).stream(Service())) == ITEMS
    assert seen == [None, None]
    seen.clear()

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ValueError

    with pytest.raises(TypeError):
        await listed(Whole().stream(broken))
    assert [type(each) for each in seen] == [ValueError, ValueError]


async def test_part_that_drops_a_stream_closes_it(caplog: pytest.LogCaptureFixture) -> None:
    """With `aclose`, which tells the parts inside; what closing raises is logged."""
    made = Closing(OSError("broken"))
    slots = ConcurrencyLimiter(1)

    class Refusing(StandalonePart):
        def wrap(self, then: Next) -> Next:
            async def run_(call: Call) -> Any:
                await (await then(call)).aclose()
                raise LookupError

            return run_

    with pytest.raises(LookupError):
        await listed(Pipeline(Refusing(), slots).stream(lambda: made))
    assert made.closed == 1
    assert slots.statistics().in_use == 0
    assert caplog.messages == ["closing the stream of " + _name + " failed"]


_name = "test_part_that_drops_a_stream_closes_it.<locals>.<lambda>"


async def test_quota_settles_with_the_last_item() -> None:
    """What a service sends at the end of a stream; a stream that is left early keeps the guess."""
    quota = Quota(tokens=1000, per=1000, start=1.0)
    api = Pipeline(quota.part(tokens=100, used=lambda item: {"tokens": len(item)}), Timeout(9))

    def left() -> float:
        return round(quota.statistics().limits["tokens"].tokens)

    assert await listed(api.stream(Service())) == ITEMS
    assert left() == 994
    async with api.stream(Service()) as items:
        await anext(items)
    assert left() == 894
    plain = Pipeline(quota.part(tokens=100, used=lambda item: {"tokens": len(item)}))
    assert await listed(plain.stream(Service())) == ITEMS
    assert left() == 888
    assert await listed(plain.stream(Service(items=0))) == []
    assert left() == 788


async def test_keyed_limiter_is_asked_once() -> None:
    """A stream needs the key, and costs one token."""
    api = Pipeline(KeyedRateLimiter(1, burst=2, max_keys=2))
    assert await listed(api.stream(Service(), key="a")) == ITEMS
    assert await listed(api.stream(Service(), key="a")) == ITEMS
    assert anyio.current_time() == 0
    assert await listed(api.stream(Service(), key="a")) == ITEMS
    assert anyio.current_time() == 1


# ---- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "between", "consumer", "limit", "message", "moment"),
    [
        (2, 0, 0, "first", "api: the stream timed out: no item within 1 s", 1),
        (0.5, 0.5, 0.2, "between", "api: the stream timed out: no further item within 0.4 s", 1.1),
        (0.5, 0.3, 2.1, "call", "api: the call timed out after 5 s", 5),
        (0.5, 0.3, 4.6, "call", "api: the call timed out after 5 s", 5.1),
    ],
)
async def test_time_limits(  # noqa: PLR0917 - the columns of the table
    first: float, between: float, consumer: float, limit: str, message: str, moment: float
) -> None:
    """To the first item, between items without the consumer's time, and the whole."""
    timeout = Timeout(5, first=1, between=0.4, name="api")
    service = Service(first=first, between=between, items=9)

    async def consume() -> None:
        async with Pipeline(timeout).stream(service) as items:
            async for _ in items:
                await anyio.sleep(consumer)

    events: list[PartEvent] = []
    unsubscribe = subscribe(events.append)
    with pytest.raises(exceptions.TimeoutError) as caught:
        await consume()
    unsubscribe()
    assert [event.limit for event in events if isinstance(event, TimedOut)] == [limit]
    assert [(event.name, event.function) for event in events] == [("api", "Service")]
    assert str(caught.value) == message
    assert caught.value.name == "api"
    assert anyio.current_time() == pytest.approx(moment)
    assert len(service.closed) == 1
    assert timeout.statistics().timed_out == 1


async def test_several_time_limits() -> None:
    """The nearest counts, the outer of equal ones; the total includes the attempts."""
    api = Pipeline(
        Timeout(4, total=True, between=2, name="total"),
        Retry(9, wait_initial=1, jitter=0),
        Timeout(3, between=1, name="outer"),
        Timeout(2.5, between=1, name="inner"),
    )
    for between, name, seconds in ((9, "outer", 1.0), (0.9, "inner", 2.5)):
        began = anyio.current_time()
        with pytest.raises(exceptions.TimeoutError) as caught:
            await listed(api.stream(Service(between=between, items=9)))
        assert caught.value.name == name
        assert anyio.current_time() - began == pytest.approx(seconds)
    began = anyio.current_time()
    with pytest.raises(exceptions.TimeoutError, match="total: all attempts together"):
        await listed(api.stream(Service(0, 0, between=0.9, items=9)))
    assert anyio.current_time() - began == pytest.approx(4)


async def test_source_sees_the_time_left() -> None:
    """`remaining` inside the source follows the limits; nothing is left of them outside."""
    left: list[float] = []

    async def tokens() -> AsyncIterator[int]:
        for number in range(3):
            left.append(round(deadlines.remaining(), 3))
            yield number

    async with Pipeline(Timeout(10, first=3, between=2)).stream(tokens) as items:
        async for number in items:
            assert deadlines.remaining() == float("inf")
            if number == 2:
                break
            await anyio.sleep(4.5)
    assert left == [3, 2, 1]
    part = Pipeline(TimeoutManager(3), TimeoutManager(None))
    with pytest.raises(exceptions.TimeoutError):
        await listed(part.stream(Service(between=2)))
    assert await listed(Timeout(float("inf")).stream(Service())) == ITEMS
    assert await listed(Timeout(float("inf"), between=5).stream(Service())) == ITEMS
    for timeout in (Timeout(float("inf"), first=1), Timeout(1)):
        with pytest.raises(exceptions.TimeoutError):
            await listed(timeout.stream(Service(first=2)))


async def test_late_item_is_kept() -> None:
    """One that comes without a checkpoint after its time, and the first one too."""

    async def tokens() -> AsyncIterator[int]:
        for number in range(2):
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
            yield number

    assert await listed(Timeout(9, first=1, between=1).stream(tokens)) == [0, 1]
    async with Timeout(2).stream(tokens) as items:
        assert await anext(items) == 0
        with pytest.raises(exceptions.TimeoutError):
            await anext(items)

    async def late_then_silent() -> AsyncIterator[int]:
        yield 0
        with anyio.CancelScope(shield=True):
            await anyio.sleep(4.5)
        yield 1
        await anyio.sleep_forever()

    with pytest.raises(exceptions.TimeoutError, match="the call timed out after 5 s"):
        await listed(Timeout(5, between=1).stream(late_then_silent))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Timeout(5, first=0), ValueError, "first=0 leaves no time"),
        (lambda: Timeout(5, between=-1), ValueError, "between=-1"),
        (lambda: Timeout(5, first=6), ValueError, "first=6 is more than seconds=5"),
        (lambda: Timeout(5, between="1"), TypeError, "between='1'"),  # type: ignore[arg-type]
        (lambda: Hedge(1, discard=5), TypeError, "discard=5"),  # type: ignore[arg-type]
    ],
)
def test_senseless_options(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    """They are refused with the reason."""
    with pytest.raises(error, match=message):
        make()


def test_printed() -> None:
    """With what is limited."""
    timeout = Timeout(30, first=1, between=0.5, total=True)
    assert str(timeout) == "Timeout(30, first=1, between=0.5, total=True)"
    assert (timeout.first, timeout.between) == (1, 0.5)


# ---- cancellation, closing, tasks ----------------------------------------------------------------


async def test_cancelled_wait_for_an_item_is_no_end() -> None:
    """A generator is over then, and says so; what can go on goes on."""
    async with Pipeline(Retry(2)).stream(Service(between=1)) as items:
        await anext(items)
        with anyio.move_on_after(0.5):
            await anext(items)
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"cancelled while it waited.*Timeout\(between"):
                await anext(items)


async def _after(seconds: float) -> float:
    await anyio.sleep(seconds)
    return seconds


async def test_stream_that_goes_on_after_a_cancelled_wait() -> None:
    """The results of an executor wait for who asks next."""
    async with Pipeline(Retry(2)).stream(TaskExecutor(1).stream, _after, [1, 1.5]) as results:
        assert await anext(results) == 1
        with anyio.move_on_after(0.5):
            await anext(results)
        assert await anext(results) == 1.5
    assert anyio.current_time() == 2.5


async def test_closed_in_a_cancelled_task() -> None:
    """For five seconds, in which clean-up that awaits is not interrupted."""
    closed: list[float] = []

    async def tokens(seconds: float) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(seconds)
            closed.append(anyio.current_time())

    for seconds in (2, 9):
        with anyio.move_on_after(1):
            async with Pipeline(Retry(2)).stream(tokens, seconds):
                await anyio.sleep_forever()
    assert closed == [3]
    assert anyio.current_time() == 9


async def test_clean_up_that_takes_too_long_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With whose it is."""

    async def tokens() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(9)

    async with Pipeline(Retry(2)).stream(tokens):
        pass
    name = "test_clean_up_that_takes_too_long_is_logged.<locals>.tokens"
    assert caplog.messages == [
        f"closing the stream of {name} took more than 5 s, and was interrupted"
    ]


async def test_errors_of_closing(caplog: pytest.LogCaptureFixture) -> None:
    """They are those of the block, unless that has failed by itself; then they are logged."""
    api = Pipeline(Breaker(1, last=1), Timeout(9))
    with pytest.raises(OSError, match=r"^broken$"):
        async with api.stream(lambda: Closing(OSError("broken"))):
            pass
    assert api.statistics().failed == 1
    with pytest.raises(ValueError, match=r"^body$"):
        async with Pipeline(Retry(2)).stream(lambda: Closing(OSError("broken"))):
            raise ValueError("body")

    @asynccontextmanager
    async def manager() -> AsyncGenerator[AsyncIterator[str]]:
        try:
            yield Service(0)()
        except ConnectionError:
            raise OSError("broken") from None

    with pytest.raises(ConnectionError):
        await listed(Retry_(manager))
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 2


def Retry_(fn: Any) -> CallStream[Any]:  # noqa: N802
    """Return the stream of a function through a retry that does nothing."""
    return Pipeline(Retry(1)).stream(fn)


async def test_outcome_is_the_first_error() -> None:
    """The parts hear of the stream's own error, and the block raises that of closing it."""
    ends: list[BaseException | None] = []

    class Outcome(StandalonePart):
        def wrap(self, then: Next) -> Next:
            return then

        def wrap_stream(self, then: Next) -> Next:
            async def run_(call: Call) -> OpenStream:
                opened: OpenStream = await then(call)
                opened.on_end(ends.append)
                return opened

            return run_

    class Failing(Closing):
        async def __aiter__(self) -> AsyncIterator[str]:
            yield "item"
            raise LookupError

    stream = Outcome().stream(lambda: Failing(OSError("broken")))
    await stream.__aenter__()
    assert await anext(stream) == "item"
    with pytest.raises(LookupError):
        await anext(stream)
    with pytest.raises(OSError, match=r"^broken$"):
        await stream.__aexit__(None, None, None)
    assert [type(end) for end in ends] == [LookupError]


async def test_in_an_async_generator() -> None:
    """The block may be used in one: it leaves no scope open while that yields, nor when it ends."""
    service = Service(between=1)
    api = Pipeline(Timeout(9, first=1, between=2), ConcurrencyLimiter(1))

    async def passed_on() -> AsyncGenerator[str]:
        async with api.stream(service) as items:
            async for item in items:
                yield f"data: {item}"

    scope = backend.innermost_scope()
    generator = passed_on()
    async for item in generator:
        assert item == "data: item 0"
        assert backend.innermost_scope() is scope
        break

    async def close() -> None:
        await generator.aclose()

    async with anyio.create_task_group() as group:
        group.start_soon(close)
    assert len(service.closed) == 1
    assert api.statistics().succeeded == 1


async def test_one_task_at_a_time() -> None:
    """A second one that waits at the same time is refused."""
    async with Timeout(9).stream(Service(between=1)) as items:
        await anext(items)
        async with anyio.create_task_group() as group:
            group.start_soon(anext, items)
            await anyio.sleep(0.5)
            with pytest.raises(
                RuntimeError, match="another task is already waiting for the stream"
            ):
                await anext(items)


@pytest.mark.parametrize("part", [Timeout(9), Hedge(1)], ids=str)
async def test_stream_with_an_open_scope_is_refused(part: Any) -> None:
    """Where a scope around its opening would have to be left; what it opened is closed."""
    closed: list[int] = []

    async def tokens() -> AsyncIterator[int]:
        try:
            with anyio.fail_after(30):
                yield 1
        finally:
            closed.append(1)

    with pytest.raises(RuntimeError, match=r"holds a cancel scope or a task group open"):
        await listed(part.stream(tokens))
    assert closed == [1]
    assert await listed(Pipeline(Retry(1)).stream(tokens)) == [1]

    async def later() -> AsyncIterator[int]:
        yield 1
        with anyio.fail_after(30):
            yield 2

    with pytest.raises(RuntimeError, match=r"holds a cancel scope or a task group open"):
        await listed(Timeout(9).stream(later))


async def test_stray_cancellation_is_a_failure() -> None:
    """In opening as between items: the stream has failed, and nobody has cancelled it."""

    async def tokens(number: int) -> AsyncIterator[int]:
        if number:
            yield 1
        raise anyio.get_cancelled_exc_class()

    api = Pipeline(Fallback(lambda *_: Service()(), on=exceptions.StrayCancellationError))
    if backend.is_asyncio(backend.current_loop()):
        assert await listed(api.stream(tokens, 0)) == ITEMS
        with pytest.raises(exceptions.StrayCancellationError):
            await listed(api.stream(tokens, 1))
        assert api.statistics().failed == 1


class _Pause:
    """Suspends a coroutine, without a scope as a sleep has it on trio."""

    def __await__(self) -> Any:
        yield


def test_left_when_its_loop_is_over(backend: str) -> None:
    """A block that is never left gives its slot back when its coroutine is collected."""
    slots = ConcurrencyLimiter(1)
    kept: list[Any] = []

    async def body() -> None:
        async with Pipeline(slots).stream(Closing):
            await _Pause()

    async def main() -> None:
        coroutine = body()
        kept.append(coroutine)
        coroutine.send(None)

    run(main, backend=backend)
    assert slots.statistics().in_use == 1
    kept.pop().close()
    assert slots.statistics().in_use == 0


async def test_keeps_nothing() -> None:
    """Errors and items are let go with the block, without the garbage collector."""

    class Item(Exception):  # noqa: N818 - an item as well
        pass

    made: list[weakref.ref[Item]] = []

    def new() -> Item:
        item = Item()
        made.append(weakref.ref(item))
        return item

    async def tokens() -> AsyncIterator[Item]:
        yield new()
        yield new()
        raise new()

    async def consume() -> None:
        try:
            async with Pipeline(Breaker(1, last=9), Timeout(9, between=1)).stream(tokens) as items:
                async for _ in items:
                    pass
        except Item:
            pass

    gc.collect()
    gc.disable()
    try:
        await consume()
        await checkpoint()
        assert [item() for item in made] == [None] * 3
    finally:
        gc.enable()


# ---- results that have to be closed --------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
async def test_discard(caplog: pytest.LogCaptureFixture, *, is_async: bool) -> None:
    """The result that comes too late is closed before the other is returned; errors are logged."""
    discarded: list[int] = []
    attempts = iter([1, 2])

    def discard(result: int) -> Any:
        discarded.append(result)
        if is_async:
            return anyio.sleep(0.5)
        raise OSError("broken")

    async def fetch() -> int:
        mine = next(attempts)
        with anyio.CancelScope(shield=mine == 1):
            await anyio.sleep(3 if mine == 1 else 1)
        return mine

    assert await Hedge(1, discard=discard).run(fetch) == 2
    assert discarded == [1]
    assert anyio.current_time() == (3.5 if is_async else 3)
    assert len(caplog.records) == (0 if is_async else 1)


async def test_discard_that_ends_the_program() -> None:
    """What is not an Exception is not logged; a function that needs no await is just called."""

    class Stop(BaseException):
        pass

    discarded: list[int] = []

    async def fetch() -> int:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(2)
        return 1

    def stop(_: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        await Hedge(1, discard=stop).run(fetch)
    assert await Hedge(1, discard=discarded.append).run(fetch) == 1
    assert discarded == [1]
