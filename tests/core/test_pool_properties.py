"""Random work against a plain model: what starts when, how it ends, what the call makes of it."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio.core import TaskExecutor
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

Policy = Literal["raise", "collect", "return"]
End = Literal["value", "error", "timeout", "cancelled"]


@dataclass(frozen=True)
class Item:
    """One item: how long it takes (None: it never suspends), and whether it then fails."""

    index: int
    seconds: float | None
    fails: bool


@dataclass(frozen=True)
class Call:
    """One call of the executor."""

    items: list[Item]
    workers: int
    timeout: float | None
    policy: Policy
    source: Literal["list", "generator", "async", "pair"]
    ordered: bool
    cancel_at: float


@dataclass
class Run:
    """How a call went: the items' ends in the order of the source, and when it was over."""

    ends: list[End]
    moments: list[float]
    over: float
    cancelled: bool


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Draw a call in which no two things happen at the same moment, except at its beginning."""
    policies: list[Policy] = ["raise", "collect", "return"]
    policy = draw(st.sampled_from(policies))
    items = []
    for index in range(draw(st.integers(0, 12))):
        quarters = draw(st.none() | st.integers(1, 8))
        # A fraction of its own, so that no sum of durations is equal to another.
        seconds = None if quarters is None else quarters / 4 + 2 ** -(index + 4)
        fails = seconds is not None and draw(st.integers(0, 3)) == 0
        items.append(Item(index, seconds, fails))
    quarters = draw(st.none() | st.integers(0, 24))
    workers = draw(st.integers(1, 5))
    timeouts = st.none() | st.sampled_from([0.25, 1.0, 1.75])
    # Items that start together time out together: which of them stops the call is open.
    tied = policy == "raise" and workers > 1
    return Call(
        items=items,
        workers=workers,
        timeout=None if tied else draw(timeouts),
        policy=policy,
        source=draw(st.sampled_from(["list", "generator", "async", "pair"])),
        ordered=draw(st.booleans()),
        cancel_at=math.inf if quarters is None else quarters / 4 + 2**-20,
    )


def model(call: Call, window: float) -> Run:
    """Say what happens, by giving each item to the worker that is free first."""
    free = [0.0] * call.workers
    stop = call.cancel_at
    ends: list[End] = []
    moments: list[float] = []
    done_up_to: list[float] = []  # when all items up to this one had ended
    for item in call.items:
        room = done_up_to[item.index - int(window)] if item.index >= window else 0.0
        start = max(heapq.heappop(free), room)
        if start >= stop:
            break
        limit = math.inf if call.timeout is None else call.timeout
        seconds = item.seconds or 0.0
        end: End = "timeout" if seconds > limit else "error" if item.fails else "value"
        moment = start + min(seconds, limit)
        if end != "value" and call.policy == "raise":
            stop = min(stop, moment)
        ends.append(end)
        moments.append(moment)
        done_up_to.append(max(*done_up_to[-1:], moment, 0.0))
        heapq.heappush(free, moment)
    for index, moment in enumerate(moments):
        if moment > stop:
            ends[index], moments[index] = "cancelled", stop
    over = min(max(moments, default=0.0), stop)
    return Run(ends, moments, over, cancelled=bool(moments) and over == call.cancel_at)


class Observed(Exception):  # noqa: N818 - no error: what an item that fails raises
    """Carries the number of the item that raised it."""


async def work(item: Item, _: object = None) -> int:
    """Do what the item says."""
    if item.seconds is not None:
        await anyio.sleep(item.seconds)
    if item.fails:
        raise Observed(item.index)
    return item.index


async def slowly(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield the items, with a checkpoint before each."""
    for item in items:
        await anyio.lowlevel.checkpoint()
        yield item


def sources(call: Call) -> tuple[Any, ...]:
    """Return the sources of the call."""
    match call.source:
        case "list":
            return (call.items,)
        case "generator":
            return (iter(call.items),)
        case "async":
            return (slowly(call.items),)
        case "pair":
            return (slowly(call.items), endless())


def endless() -> Iterator[None]:
    """Yield for ever."""
    while True:
        yield None


def kind(outcome: object) -> End:
    """Say how an item ended that gave this outcome."""
    if isinstance(outcome, MTAIOTimeoutError):
        return "timeout"
    return "error" if isinstance(outcome, Observed) else "value"


def check_statistics(executor: TaskExecutor, expected: Run) -> None:
    """Assert that the executor counted what happened."""
    now = executor.statistics()
    ends = Counter(expected.ends)
    assert now.in_flight == now.waiting == 0
    assert now.started == len(expected.ends)
    assert now.succeeded == ends["value"]
    assert now.failed == ends["error"] + ends["timeout"]
    assert now.cancelled == ends["cancelled"]
    assert now.timed_out == ends["timeout"]


def check_errors(error: BaseException | None, call: Call, expected: Run) -> None:
    """Assert that the right errors came, bare or in one flat group, in the order of the items."""
    failed = [i for i, end in enumerate(expected.ends) if end in {"error", "timeout"}]
    if call.policy == "return" or not failed:
        assert error is None
        return
    errors = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
    assert isinstance(error, ExceptionGroup) == (len(failed) > 1)
    assert [kind(each) for each in errors] == [expected.ends[i] for i in failed]
    for index, each in zip(failed, errors, strict=True):
        assert each is not None
        assert each.__notes__[0].startswith(f"in item {index}: work(")


@settings(max_examples=60)
@given(call=calls())
def test_map(backend: str, call: Call) -> None:
    """A map starts, ends, times out, fails, is cancelled and counts as the model says."""
    expected = model(call, math.inf)
    executor = TaskExecutor(call.workers)

    async def main() -> None:
        results: list[object] | None = None
        error: Exception | None = None
        with anyio.CancelScope(deadline=call.cancel_at) as scope:
            try:
                results = await executor.map(
                    work,
                    *sources(call),
                    ordered=call.ordered,
                    timeout=call.timeout,
                    errors=call.policy,
                )
            except (Observed, MTAIOTimeoutError, ExceptionGroup) as caught:
                error = caught
        assert anyio.current_time() == expected.over
        check_statistics(executor, expected)
        check_errors(error, call, expected)
        assert scope.cancelled_caught == (expected.cancelled and error is None)
        if results is not None:
            order = sorted(range(len(call.items)), key=lambda i: expected.moments[i])
            places = range(len(call.items)) if call.ordered else order
            # Items that never suspend end at one moment, in any order.
            if call.ordered or all(item.seconds for item in call.items):
                assert [kind(r) for r in results] == [expected.ends[i] for i in places]
            values = [r for r in results if isinstance(r, int)]
            assert sorted(values) == [i for i, end in enumerate(expected.ends) if end == "value"]

    run(main, backend=backend)


@settings(max_examples=60)
@given(call=calls())
def test_stream(backend: str, call: Call) -> None:
    """A stream does so too, and hands results over at the moment they are due."""
    expected = model(call, 2 * call.workers if call.ordered else math.inf)
    executor = TaskExecutor(call.workers)
    got: list[tuple[object, float]] = []

    async def consume() -> None:
        stream = executor.stream(
            work, *sources(call), ordered=call.ordered, timeout=call.timeout, errors=call.policy
        )
        async with stream as results:
            async for result in results:
                got.append((result, anyio.current_time()))  # noqa: PERF401 - also before an error

    async def main() -> None:
        error: Exception | None = None
        with anyio.CancelScope(deadline=call.cancel_at) as scope:
            try:
                await consume()
            except (Observed, MTAIOTimeoutError, ExceptionGroup) as caught:
                error = caught
        assert anyio.current_time() == expected.over
        check_statistics(executor, expected)
        check_errors(error, call, expected)
        assert scope.cancelled_caught == (expected.cancelled and error is None)
        assert sorted(got, key=by_moment) == got
        assert Counter((kind(r), t) for r, t in got) == Counter(handed_over(call, expected))

    run(main, backend=backend)


def by_moment(result: tuple[object, float]) -> float:
    """Return when a result was handed over."""
    return result[1]


def handed_over(call: Call, expected: Run) -> list[tuple[End, float]]:
    """Say which results a consumer gets that is always ready, and when."""
    handed: list[tuple[End, float]] = []
    moment = 0.0
    for end, at in zip(expected.ends, expected.moments, strict=True):
        moment = max(moment, at) if call.ordered else at
        lost = end == "cancelled" or (end in {"error", "timeout"} and call.policy == "raise")
        if lost and call.ordered:
            break
        if not lost and (end == "value" or call.policy == "return"):
            handed.append((end, moment))
    return handed
