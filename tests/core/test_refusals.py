"""What the package refuses: the value, the reason and the way out, before anything is started."""

from __future__ import annotations

import math
import queue
import re
from functools import partial
from inspect import CORO_CLOSED, getcoroutinestate
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.core import Retry, TaskExecutor
from mtaio.resources import ConcurrencyLimiter, KeyedRateLimiter, RateLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


async def same(x: int) -> int:
    """Return ``x``."""
    return x


async def agen(x: int = 0) -> AsyncIterator[int]:
    """Be an async generator function, which has no one result."""
    yield x


def gen(x: int = 0) -> Iterator[int]:
    """Be a generator function, of which a call runs nothing."""
    yield x


class AsyncGenCall:
    """Is called like one."""

    async def __call__(self, x: int) -> AsyncIterator[int]:
        """Yield instead of returning."""
        yield x


async def async_progress(done: int, total: int | None) -> None:
    """Be a callback that would have to be awaited."""


COROUTINE = same(1)
COROUTINE.close()  # it is only looked at

NOT_CALLABLE = r"TypeError: fn=5 is an int, which is not callable\. Pass an async function, or a p"
GENERATOR = r" is an async generator function: it has no single result to wait f"
PLAIN_GENERATOR = r" is a generator function: it has no single result to wait f"
TIMEOUT = r"ValueError: timeout=-1 is less than 0\. Pass seconds >= 0, or None for no limit\.$"

CALLS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda ex: ex.map(5, [1]), NOT_CALLABLE),
    (lambda ex: ex.run(5), NOT_CALLABLE),
    (lambda ex: ex.run_in_thread(5), NOT_CALLABLE),
    (lambda ex: ex.submit(5), NOT_CALLABLE),
    (lambda ex: ex.submit_nowait(5), NOT_CALLABLE),
    *[
        (call, rf"TypeError: fn=<cor.*Pass the function itself and its arguments: {way_out}\(")
        for call, way_out in (
            (lambda ex: ex.submit(COROUTINE), "submit"),
            (lambda ex: ex.submit_nowait(COROUTINE), "submit"),
            (lambda ex: ex.start(COROUTINE), "start"),
            (lambda ex: ex.run_in_thread(COROUTINE), "run_in_thread"),
            (lambda ex: ex.run_in_process(COROUTINE), "run_in_process"),
        )
    ],
    (lambda ex: ex.map(agen, [1]), rf"TypeError: fn=<function agen at .*>{GENERATOR}"),
    (
        lambda ex: ex.map(gen, [1]),
        (
            rf"TypeError: fn=<function gen at .*>{PLAIN_GENERATOR}.* use "
            r"stream\(fn, items, flatten=True\)\.$"
        ),
    ),
    (lambda ex: ex.gather(gen), rf"TypeError: fn=<function gen at .*>{PLAIN_GENERATOR}"),
    (lambda ex: ex.run_in_thread(gen), rf"TypeError: fn=<function gen at .*>{PLAIN_GENERATOR}"),
    (lambda ex: ex.run(agen), rf"TypeError: fn=<function agen at .*>{GENERATOR}"),
    (lambda ex: ex.map(partial(agen), [1]), rf"TypeError: fn=functools\.partial\(.*\){GENERATOR}"),
    (
        lambda ex: ex.map(AsyncGenCall(), [1]),
        rf"TypeError: fn=<.*AsyncGenCall object.*>{GENERATOR}",
    ),
    (
        lambda ex: ex.map(same),
        (
            r"ValueError: no source given: there is nothing to apply fn to\. "
            r"Pass at least one iterable\.$"
        ),
    ),
    (lambda ex: ex.stream(same), r"ValueError: no source given: "),
    (
        lambda ex: ex.map(same, 5),
        r"TypeError: 5 is an int, which is neither an iterable nor an async iterable\. Pass one; a",
    ),
    (
        lambda ex: ex.for_each(same, queue.Queue[int]()),
        r"TypeError: <queue\.Queue object at .*> is a queue, which cannot be iterated\. Pass an as",
    ),
    (
        lambda ex: ex.map(same, "text"),
        r"TypeError: 'text' is a str, and each character or byte would be an item\. Pass it in a ",
    ),
    (
        lambda ex: ex.stream(same, [1], b"bytes"),
        r"TypeError: b'bytes' is a bytes, and each character or byte would be an item\. ",
    ),
    (
        lambda ex: ex.map(same, bytearray(b"12")),
        r"TypeError: bytearray\(b'12'\) is a bytearray, and each character or byte would be an it",
    ),
    (
        lambda ex: ex.for_each(same, memoryview(b"12")),
        r"TypeError: <memory at .*> is a memoryview, and each character or byte would be an item",
    ),
    (
        lambda ex: ex.for_each(same, {"a": 1}),
        r"TypeError: \{'a': 1\} is a mapping, and only its keys would be items\. Pass its ke",
    ),
    (
        lambda ex: ex.map(same, [COROUTINE]),
        (
            r"TypeError: the first item is <coroutine object .*>, a coroutine\. To await "
            r"coroutines use gather\(\*coroutines\); otherwise pass the function and what "
            r"to call it with"
        ),
    ),
    (lambda ex: ex.map([1], [1]), r"TypeError: fn=\[1\] is a list, .* Coroutines go to gather\("),
    (lambda ex: ex.stream(same, (COROUTINE, 1)), r"TypeError: the first item is <coroutine object"),
    (
        lambda ex: ex.map(same, agen),
        r"TypeError: <function agen .*> is a function, not an iterable\. Call it: pass a",
    ),
    (
        lambda ex: ex.map(same, [1], limit=0),
        (
            r"ValueError: limit=0 is less than 1\. Pass the number of items this call may run at "
            r"once, or None\.$"
        ),
    ),
    (lambda ex: ex.stream(same, [1], limit=0), r"ValueError: limit=0 is less than 1\. "),
    (
        lambda ex: ex.map(same, [1], limit=True),
        r"TypeError: limit=True is a bool, not an int\. Pass the number of items",
    ),
    (
        lambda ex: ex.stream(same, [1], max_pending=-1),
        r"ValueError: max_pending=-1 is less than 0\. Pass how many results may",
    ),
    (lambda ex: ex.map(same, [1], timeout=-1), TIMEOUT),
    (lambda ex: ex.run_in_thread(divmod, 7, 2, timeout=-1), TIMEOUT),
    (lambda ex: ex.drain(-1), r"ValueError: timeout=-1 is less than 0"),
    (lambda ex: ex.drain("1"), r"TypeError: timeout='1' is a str"),
    (
        lambda ex: ex.map(same, [1], timeout=math.nan),
        r"ValueError: timeout=nan is not a number\. Pass seconds >= 0, or None for no limit\.$",
    ),
    (
        lambda ex: ex.map(same, [1], rate=0),
        r"ValueError: rate=0 would never start an item\. Pass items per second, or a ",
    ),
    (
        lambda ex: ex.map(same, [1], rate="5"),
        r"TypeError: rate='5' is a str, not a number\. Pass items per second, or a ",
    ),
    (
        lambda ex: ex.map(same, [1], rate=ConcurrencyLimiter(1)),
        r"TypeError: rate=<ConcurrencyLimiter: .* is a ConcurrencyLimiter, not a number\. Pass ",
    ),
    (
        lambda ex: ex.map(same, [1], rate=KeyedRateLimiter(1)),
        r"TypeError: rate=<KeyedRateLimiter .* is a KeyedRateLimiter, not a number\. Pass items ",
    ),
    (
        lambda ex: ex.map(same, [1], rate=RateLimiter),
        r"TypeError: rate=<class .* is a type, not a number\. Pass items per second, or a ",
    ),
    *[
        (
            lambda ex, retry=retry: ex.map(same, [1], retry=retry),
            (
                rf"ValueError: retry={retry} is less than 1\. Pass the number of attempts, or a "
                r"mtaio\.Retry\.$"
            ),
        )
        for retry in (0, -1)
    ],
    (
        lambda ex: ex.map(same, [1], errors="ignore"),
        (
            r"ValueError: errors='ignore' is unknown\. Pass \"raise\" \(stop at the first\), "
            r"\"collect\" \(run"
        ),
    ),
    (
        lambda ex: ex.stream(same, [1], outcomes=True, errors="collect"),
        r"ValueError: outcomes=True gives every error with its item, which leaves none for erro",
    ),
    (lambda ex: ex.stream(same, [1], errors="no"), r"ValueError: errors='no' is unknown\. "),
    (
        lambda ex: ex.for_each(same, [1], errors="return"),
        r"ValueError: for_each\(\) returns nothing, so errors=\"return\" would lose them\. Pass \"",
    ),
    (
        lambda ex: ex.map(same, [1], on_progress=5),
        r"TypeError: on_progress=5 is an int, which is not callable\. Pass a plain function of two",
    ),
    (
        lambda ex: ex.map(same, [1], on_progress=async_progress),
        r"TypeError: on_progress=<function .*> is an async function and would not be awaited\. Pas",
    ),
    (
        lambda ex: ex.race(),
        r"ValueError: race\(\) of no calls has no winner\. Pass at least",
    ),
    (
        lambda ex: ex.run_in_process(anyio.sleep),
        r"TypeError: fn=.*sleep.* is an async function: a worker process",
    ),
    (lambda ex: ex.start(len), r"TypeError: fn=.*len.* is not an async function: a service"),
    (
        lambda ex: ex.run(same, x=7),
        r"TypeError: TaskExecutor\.run\(\) got an unexpected keyword argument 'x'",
    ),
    (
        lambda ex: ex.start(same, restart="often"),
        r"TypeError: restart='often' is a str, not an int",
    ),
]


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[message[:60] for _, message in CALLS])
async def test_call_is_refused(call: Callable[[Any], Any], message: str) -> None:
    """A bad argument is named before anything is started, and the executor works as before."""
    async with TaskExecutor(2) as executor:
        with pytest.raises((TypeError, ValueError)) as caught:
            await call(executor)
        assert re.match(message, f"{type(caught.value).__name__}: {caught.value}")
        statistics = executor.statistics()
        assert (statistics.started, statistics.submitted, statistics.services) == (0, 0, 0)
        assert await (await executor.submit(same, 7)) == 7


CLOSED: list[tuple[Callable[[Any, Any], Any], str]] = [
    (
        lambda ex, call: ex.run(call, 1),
        r"TypeError: run\(\) got the awaitable <coroutine .* alone\.$",
    ),
    (
        lambda ex, call: ex.run(call, retry=2),
        r"TypeError: run\(\) got the awaitable <coroutine .* retry=2: it can be awaited once\. P",
    ),
    (
        lambda ex, call: ex.run(call, rate=10),
        r"TypeError: rate=10 would apply to this one call only, .* a mtaio\.RateLimiter",
    ),
    (lambda ex, call: ex.run(call, rate="10"), r"TypeError: rate='10' is a str"),
    (lambda ex, call: ex.run(call, via="processes"), r"TypeError: fn=<coroutine .* not callable"),
    (lambda ex, call: ex.run(call, timeout=-1), r"ValueError: timeout="),
    (lambda ex, call: ex.run(call, timeout="1"), r"TypeError: timeout="),
    *[
        (
            lambda ex, call, method=method, option=option: getattr(ex, method)(call, **option),
            message,
        )
        for method in ("gather", "race", "as_completed")
        for option, message in (
            ({"limit": 0}, r"ValueError: limit=0 is less than 1\. "),
            ({"rate": 0}, r"ValueError: rate=0 would never start an item\. "),
        )
    ],
    *[
        (
            lambda ex, call, method=method, odd=odd: getattr(ex, method)(call, odd),
            message,
        )
        for method in ("gather", "race", "as_completed")
        for odd, message in (
            (
                5,
                r"TypeError: call 1 is 5, an int, which can be neither awaited nor called\. Pas",
            ),
            ([agen], r"TypeError: call 1 is \[.*\], a list, .* a list of them as \*calls"),
            (agen, r"TypeError: fn=<function agen at .*> is an async generator func"),
        )
    ],
]


@pytest.mark.parametrize(("call", "message"), CLOSED)
async def test_coroutine_of_a_refused_call_is_closed(
    call: Callable[[Any, Any], Any], message: str
) -> None:
    """It will not be awaited, and Python must not warn of that."""
    coroutine = same(1)
    with pytest.raises((TypeError, ValueError)) as caught:
        await call(TaskExecutor(3), coroutine)
    assert re.match(message, f"{type(caught.value).__name__}: {caught.value}")
    assert getcoroutinestate(coroutine) == CORO_CLOSED


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        (TaskExecutor, {"max_workers": 0}, ValueError, r"0 is less than 1\. Pass the number"),
        (TaskExecutor, {"max_workers": True}, TypeError, "True is a bool, not an int"),
        (TaskExecutor, {"max_workers": 2.0}, TypeError, r"2\.0 is a float, not an int"),
        (TaskExecutor, {"max_pending": -1}, ValueError, "-1 is less than 0"),
        (TaskExecutor, {"timeout": -1}, ValueError, "-1 is less than 0"),
        (TaskExecutor, {"threads": 0}, ValueError, "0 is less than 1"),
        (TaskExecutor, {"processes": "4"}, TypeError, "'4' is a str, not an int"),
        (Retry, {"attempts": 0}, ValueError, r"0 is less than 1\. 1 means a single call"),
        (Retry, {"attempts": 2.0}, TypeError, r"2\.0 is a float, not an int"),
        (Retry, {"wait_initial": -1}, ValueError, r"-1 is less than 0"),
        (Retry, {"wait_max": math.nan}, ValueError, r"nan is not a number"),
        (Retry, {"wait_exp_base": 0.5}, ValueError, r"0\.5 is less than 1"),
        (Retry, {"jitter": 1.5}, ValueError, r"1\.5 is more than 1\. Pass a fraction from 0 to 1"),
        (Retry, {"jitter": "1"}, TypeError, r"'1' is a str, not a number"),
        (
            Retry,
            {"on": 5},
            TypeError,
            r"5 is an int, which is not callable\. Pass an exception class",
        ),
        (
            Retry,
            {"on": BaseException},
            TypeError,
            r"<class 'BaseException'> holds .* not a subclass",
        ),
        (
            Retry,
            {"on": (OSError, KeyboardInterrupt)},
            TypeError,
            r"\(.*KeyboardInterrupt'>, which is",
        ),
        (Retry, {"on": (OSError, "x")}, TypeError, r"\(.* holds 'x', which is not a subclass of"),
    ],
)
def test_option_is_refused(
    kind: type[object], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A value that makes no sense is named when the executor or the policy is made."""
    (name,) = options
    with pytest.raises(error, match=f"^{name}={message}"):
        kind(**options)
