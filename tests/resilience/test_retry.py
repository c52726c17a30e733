"""Retry: when to try again, after how long, and when to leave it."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio.core import Retry, TaskExecutor
from mtaio.exceptions import (
    BreakerOpenError,
    LimitError,
    LimitTimeoutError,
    MTAIOError,
    RateLimitError,
)
from mtaio.resilience import Pipeline, Retried, Timeout
from mtaio.resources import TimeoutManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

EXACT = Retry(attempts=5, wait_initial=1, wait_max=5, wait_exp_base=2, jitter=0)


class Flaky:
    """Fails with the given errors, one for each call, then returns the number of the call."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = errors
        self.calls: list[float] = []

    async def __call__(self, _: object = None) -> int:
        """Fail or return, after half a second."""
        self.calls.append(anyio.current_time())
        await anyio.sleep(0.5)
        if len(self.calls) <= len(self.errors):
            raise self.errors[len(self.calls) - 1]
        return len(self.calls)


async def attempt(flaky: Flaky, retry: int | Retry, **options: Any) -> list[int]:
    """Run one item with retries."""
    results: list[int] = await TaskExecutor(1).map(flaky, [0], retry=retry, **options)
    return results


async def tries_again(policy: Retry, error: Exception) -> bool:
    """Return whether the policy makes another attempt after ``error``."""
    flaky = Flaky(error)
    with suppress(type(error)):
        await policy.run(flaky)
    return len(flaky.calls) == 2


# ---- delays --------------------------------------------------------------------------------------


async def test_delays_grow_exponentially_up_to_the_cap() -> None:
    """Without jitter the waits are exactly 1, 2, 4 and 5 seconds, from failure to next attempt."""
    flaky = Flaky(*[OSError()] * 4)
    assert await attempt(flaky, EXACT) == [5]
    assert flaky.calls == [0, 1.5, 4, 8.5, 14]


def test_delay_is_told_for_each_attempt() -> None:
    """``wait_before(2)`` is the wait before the first retry."""
    assert [EXACT.wait_before(attempt) for attempt in (2, 3, 4, 5, 99)] == [1, 2, 4, 5, 5]
    assert Retry(wait_exp_base=1, jitter=0).wait_before(9) == 0.1


def test_delay_of_a_late_attempt_does_not_overflow() -> None:
    """However many attempts there were, the cap is the cap."""
    assert Retry(jitter=0).wait_before(10**6) == 30
    assert Retry(wait_exp_base=10, wait_initial=1, jitter=0).wait_before(10**4) == 30


@given(st.floats(0, 1), st.integers(2, 40))
def test_jitter_spreads_the_wait_below_the_longest(jitter: float, attempt: int) -> None:
    """The wait lies between ``1 - jitter`` of the longest and the longest."""
    policy = Retry(wait_initial=0.1, wait_max=7, jitter=jitter)
    longest = min(7, 0.1 * 2 ** (attempt - 2))
    assert (1 - jitter) * longest <= policy.wait_before(attempt) <= longest


def test_full_jitter_reaches_the_whole_range() -> None:
    """With jitter=1, waits are spread from nearly nothing to nearly the longest."""
    waits = sorted(Retry(wait_initial=1).wait_before(2) for _ in range(1000))
    assert waits[0] < 0.1
    assert waits[-1] > 0.9
    assert 0.4 < waits[500] < 0.6
    assert waits[0] > 0  # the attempt after a failure never comes at once by chance


async def test_asked_for_delay_is_honoured() -> None:
    """An error with ``retry_after`` is waited for at least that long, cap or not."""
    flaky = Flaky(RateLimitError(retry_after=9), RateLimitError(retry_after=0.25))
    assert await attempt(flaky, EXACT) == [3]
    assert flaky.calls == [0, 0.5 + 9, 10 + 2]


async def test_endless_delay_is_not_started() -> None:
    """A limiter that is paused says ``inf``, so the error comes at once."""
    error = RateLimitError("paused", retry_after=math.inf)
    with pytest.raises(RateLimitError, match=r"^paused\n"):
        await attempt(Flaky(error), EXACT)
    assert error.__notes__[0] == ("not tried again: attempt 2 would have to wait inf s")
    assert anyio.current_time() == 0.5


@pytest.mark.parametrize("asked", [math.nan, "soon", None, -1])
async def test_senseless_delay_is_ignored(asked: object) -> None:
    """Anything else in the attribute is not a number of seconds."""
    error = OSError()
    error.retry_after = asked  # type: ignore[attr-defined] # a foreign error may have any
    flaky = Flaky(error)
    assert await attempt(flaky, EXACT) == [2]
    assert flaky.calls == [0, 1.5]


@pytest.mark.parametrize("asked", ["3", "3.0", 3, 3.0])
def test_delay_in_the_attribute_may_be_a_header(asked: object) -> None:
    """Seconds as text, as clients keep them, count as those that the argument returns."""
    error = OSError()
    error.retry_after = asked  # type: ignore[attr-defined] # as above
    assert EXACT.wait_before(2, error) == 3


@pytest.mark.parametrize("where", ["attribute", "function"])
async def test_delay_too_large_for_a_float_is_endless(where: str) -> None:
    """An absurd answer of a server leaves the caller's own error as it is."""
    error = OSError("busy")
    policy = EXACT
    if where == "attribute":
        error.retry_after = 10**400  # type: ignore[attr-defined] # as above
    else:
        policy = Retry(retry_after=lambda _: 10**400)
    with pytest.raises(OSError, match=r"^busy\n") as caught:
        await policy.run(Flaky(error))
    assert caught.value.__notes__ == ["not tried again: attempt 2 would have to wait inf s"]
    error.retry_after = -(10**400)  # type: ignore[attr-defined] # as above
    assert EXACT.wait_before(2, error) == 1


async def test_group_waits_for_the_longest_delay_in_it() -> None:
    """Each error in it is asked, however deep."""
    inner = ExceptionGroup("", [RateLimitError(retry_after=9), OSError()])
    error = ExceptionGroup("", [RateLimitError(retry_after=3), inner])
    assert EXACT.wait_before(2, error) == 9
    policy = Retry(jitter=0, retry_after=lambda each: 20 if isinstance(each, OSError) else None)
    assert policy.wait_before(2, error) == 20


# ---- how often -----------------------------------------------------------------------------------


async def test_group_is_tried_again_if_all_in_it_may_be() -> None:
    """The group of a function's task group, that is; what a breaker refused is not, as ever."""
    lost, wrong = ConnectionError(), ValueError()
    policy = Retry(2, on=ConnectionError, wait_initial=0)
    flaky = Flaky(ExceptionGroup("", [lost, ExceptionGroup("", [lost])]))
    assert await policy.run(flaky) == 2
    with pytest.raises(ExceptionGroup):
        await policy.run(Flaky(ExceptionGroup("", [lost, wrong])))
    refused = ExceptionGroup("", [BreakerOpenError(retry_after=1), lost])
    assert not await tries_again(Retry(2), refused)
    assert not await tries_again(Retry(2, on=OSError), refused)
    assert await tries_again(Retry(2, on=(BreakerOpenError, OSError)), refused)
    assert await tries_again(Retry(2, on=lambda _: True), refused)


async def test_attempt_that_never_began_is_not_counted() -> None:
    """Cancelled while it waits for a token or a thread, it was not made."""
    executor = TaskExecutor(1)
    with anyio.move_on_after(1):
        await executor.map(Flaky(OSError()), [1], retry=Retry(2, wait_initial=0), rate=0.5)
    assert executor.statistics().retried == 0
    with anyio.move_on_after(3):
        await executor.map(Flaky(OSError()), [1], retry=Retry(2, wait_initial=0), rate=0.5)
    assert executor.statistics().retried == 1

    limiter = anyio.CapacityLimiter(1)
    executor = TaskExecutor(1, threads=limiter)

    def fail(_: int) -> None:
        raise OSError

    async def occupy() -> None:
        await anyio.sleep(0.25)
        async with limiter:
            await anyio.sleep_forever()

    with anyio.move_on_after(1):
        async with anyio.create_task_group() as group:
            group.start_soon(occupy)
            await executor.map(fail, [1], retry=Retry(2, wait_initial=0.5, jitter=0))
    assert executor.statistics().retried == 0


async def test_decorator() -> None:
    """``@Retry(3)`` above a function or method is a call of `run`."""

    @Retry(3, wait_initial=0)
    async def ask(flaky: Flaky, *, times: int = 1) -> int:
        """Ask."""
        return await flaky() * times

    assert await ask(Flaky(OSError(), OSError()), times=2) == 6
    assert (ask.__name__, ask.__doc__) == ("ask", "Ask.")
    with pytest.raises(OSError, match="last"):
        await ask(Flaky(OSError(), OSError(), OSError("last")))
    plain: Any = lambda: None  # noqa: E731 - what is refused
    with pytest.raises(TypeError, match=r"^@Retry cannot decorate <function .*: it is not an asy"):
        Retry(3)(plain)


async def test_last_error_is_raised_with_the_number_of_attempts() -> None:
    """The error of the last attempt comes out, with a note; the statistics count the retries."""
    executor = TaskExecutor(1)
    errors = [OSError(number) for number in range(3)]
    with pytest.raises(OSError, match=r"^2\n") as caught:
        await executor.map(Flaky(*errors), [0], retry=Retry(attempts=3, jitter=0))
    assert caught.value is errors[2]
    assert caught.value.__notes__[0] == "gave up after 3 attempts"
    statistics = executor.statistics()
    assert (statistics.retried, statistics.failed, statistics.started) == (2, 1, 1)


async def test_number_of_attempts_is_a_policy() -> None:
    """``retry=3`` means three attempts in all with the default waits; 1 means no retry."""
    flaky = Flaky(OSError(), OSError())
    assert await attempt(flaky, 3) == [3]
    assert 0.5 < flaky.calls[1] <= 0.6
    with pytest.raises(OSError, match=r"^only\n") as caught:
        await attempt(Flaky(OSError("only")), 1)
    assert not any("attempts" in note for note in caught.value.__notes__)


# ---- what is tried again -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "on",
    [
        ConnectionError,
        (ConnectionError, LookupError),
        lambda error: isinstance(error, ConnectionError),
        lambda error: "refused" in str(error),
    ],
)
async def test_filter_decides(on: Any) -> None:
    """A class, a tuple of classes or a function tells which errors to try again after."""
    policy = Retry(on=on, jitter=0)
    flaky = Flaky(ConnectionRefusedError("refused"), ValueError("mine"))
    with pytest.raises(ValueError, match=r"^mine\n") as caught:
        await attempt(flaky, policy)
    assert len(flaky.calls) == 2
    assert caught.value.__notes__[0] == "gave up after 2 attempts"


async def test_first_error_that_is_not_accepted_is_raised_as_it_is() -> None:
    """Without a note on attempts: there was but one."""
    with pytest.raises(ValueError, match=r"^mine\n") as caught:
        await attempt(Flaky(ValueError("mine")), Retry(on=OSError))
    assert caught.value.__notes__ == ["in item 0: Flaky(0)"]


async def test_error_of_the_filter_is_raised() -> None:
    """A filter that fails is not asked again; its error has the first one as context."""

    def broken(_: Exception) -> bool:
        raise RuntimeError("filter")

    first = OSError()
    with pytest.raises(RuntimeError, match=r"^filter\n") as caught:
        await attempt(Flaky(first), Retry(on=broken))
    assert caught.value.__context__ is first


async def test_group_can_be_filtered() -> None:
    """An ``ExceptionGroup`` is an ``Exception``, and may be named like any."""
    flaky = Flaky(ExceptionGroup("two", [OSError(), OSError()]))
    assert await attempt(flaky, Retry(on=ExceptionGroup)) == [2]


async def test_base_exception_is_never_retried() -> None:
    """``KeyboardInterrupt`` and the like pass, whatever the filter says."""

    class Stop(BaseException):
        pass

    flaky = Flaky(Stop())
    with pytest.raises(Stop):
        await attempt(flaky, Retry(on=lambda _: True))
    assert len(flaky.calls) == 1


async def test_open_breaker_is_not_waited_for_unless_it_is_named() -> None:
    """Its refusal is there to fail at once, though it says how long it will be open."""
    error = BreakerOpenError(retry_after=30)
    assert not await tries_again(Retry(), error)
    assert not await tries_again(Retry(on=(OSError, MTAIOError)), error)
    assert not await tries_again(Retry(on=LimitError), error)
    assert await tries_again(Retry(on=LimitError), RateLimitError(retry_after=30))
    assert await tries_again(Retry(on=BreakerOpenError), error)
    assert await tries_again(Retry(on=(OSError, BreakerOpenError)), error)
    assert await tries_again(Retry(on=lambda _: True), error)


# ---- deadlines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [anyio.move_on_after, anyio.fail_after, TimeoutManager()])
async def test_wait_that_would_outlast_the_deadline_is_not_started(
    limit: Callable[[float], Any],
) -> None:
    """The error comes at once, while the caller can see it, with a note of the reason."""
    error = OSError("mine")
    flaky = Flaky(error, error)
    with limit(3), pytest.raises(OSError, match=r"^mine\n"):
        await attempt(flaky, EXACT)
    assert flaky.calls == [0, 1.5]
    assert anyio.current_time() == 2
    assert error.__notes__[0] == (
        "not tried again: attempt 3 would have to wait 2 s, and the deadline is in 1 s"
    )


async def test_deadline_that_a_shield_hides_counts_too() -> None:
    """A limit of mtaio's is known inside a shield, where anyio's deadlines cannot be seen."""
    flaky = Flaky(OSError("mine"))
    with TimeoutManager()(1), anyio.CancelScope(shield=True), pytest.raises(OSError, match="mine"):
        await attempt(flaky, EXACT)
    assert flaky.calls == [0]


async def test_endless_retry_goes_on_until_a_scope_cancels_it() -> None:
    """A deadline of a scope ends it in silence, at its time; one of mtaio's with the error."""
    endless = Retry(None, within=math.inf, wait_initial=0.4, jitter=0)
    with anyio.move_on_after(1) as scope:
        await endless.run(Flaky(*[OSError("mine")] * 9))
    assert scope.cancelled_caught
    assert anyio.current_time() == 1
    with TimeoutManager()(2), pytest.raises(OSError, match=r"^mine\nnot tried again: attempt 3"):
        await endless.run(Flaky(*[OSError("mine")] * 9))
    assert anyio.current_time() == 2.4


async def test_timeout_holds_for_each_attempt() -> None:
    """With retries the item's timeout is that of an attempt, and waits do not count."""
    executor, flaky = TaskExecutor(1), Flaky()

    async def slow_at_first(_: int) -> int:
        if not flaky.calls:
            flaky.calls.append(0)
            await anyio.sleep(9)
        return await flaky()

    assert await executor.map(slow_at_first, [0], retry=EXACT, timeout=0.75) == [2]
    assert anyio.current_time() == 0.75 + 1 + 0.5
    statistics = executor.statistics()
    assert (statistics.timed_out, statistics.retried, statistics.failed) == (1, 1, 0)


async def test_limiters_own_error_can_be_retried() -> None:
    """``LimitTimeoutError`` says when the tokens are there."""
    flaky = Flaky(LimitTimeoutError(retry_after=3, timeout=1))
    assert await attempt(flaky, Retry(on=LimitTimeoutError, jitter=0)) == [2]
    assert flaky.calls == [0, 3.5]


# ---- what the exception asks for -----------------------------------------------------------------


class RefusedError(OSError):
    """An error of a client, which keeps the headers of the answer."""

    def __init__(self, retry_after: str | None) -> None:
        super().__init__(retry_after)
        self.headers = {} if retry_after is None else {"Retry-After": retry_after}


def header(error: Exception) -> str | None:
    """Return what the header says."""
    return error.headers.get("Retry-After") if isinstance(error, RefusedError) else None


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        ("7", 7),
        (" 120 ", 120),
        ("1.5", 1.5),
        ("2.", 2),
        ("9" * 400, math.inf),
        ("1_0", 1),
        ("\u0663", 1),  # a digit, but not one of HTTP's
        ("0", 1),
        (None, 1),
        ("soon", 1),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 1),
        ("Sun, 06 Nov 1994 08:49:37 +99999999999999", 1),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 1),
    ],
)
def test_header_is_read_where_the_exception_keeps_it(asked: str | None, waited: float) -> None:
    """A function finds what a client's exception holds: seconds, or a date, that may be past."""
    policy = Retry(jitter=0, wait_initial=1, retry_after=header)
    assert policy.wait_before(2, RefusedError(asked)) == waited


def test_header_with_a_date_to_come() -> None:
    """The wait is until then, by the machine's calendar."""
    later = datetime.now(UTC) + timedelta(hours=1)
    wait = Retry(jitter=0, retry_after=header).wait_before(2, RefusedError(format_datetime(later)))
    assert 3500 < wait < 3601


def test_function_may_return_seconds() -> None:
    """Or None, and then the exception's own attribute counts."""
    policy = Retry(jitter=0, retry_after=lambda error: 3 if isinstance(error, OSError) else None)
    assert policy.wait_before(2, OSError()) == 3
    assert policy.wait_before(2, RateLimitError(retry_after=9)) == 9


# ---- a call of one's own -------------------------------------------------------------------------


async def test_run_makes_one_call_under_the_policy() -> None:
    """``await policy.run(fn, *args)`` does what ``map(retry=)`` does with one item."""
    flaky = Flaky(OSError(), OSError())
    retried: list[tuple[float, int, float]] = []

    def note(event: Retried) -> None:
        retried.append((anyio.current_time(), event.attempt, event.seconds))

    assert await EXACT.run(flaky, 1, on_retry=note) == 3
    assert flaky.calls == [0, 1.5, 4]
    assert retried == [(0.5, 1, 1), (2, 2, 2)]
    assert await Retry(1).run(Flaky(), 1) == 1
    assert await EXACT.run(Flaky(OSError())) == 2


async def test_run_refuses_what_cannot_be_awaited() -> None:
    """A sync function is called once, and a coroutine cannot be: each error says what to pass."""
    calls: list[int] = []
    run: Any = EXACT.run
    with pytest.raises(
        TypeError, match=r"^<.*> returned None, which cannot be awaited\. Pass an a"
    ):
        await run(calls.append, 1)
    assert calls == [1]
    message = (
        r"^fn=<coroutine .*> is a coroutine, which is not callable\. Pass an async function an"
    )
    with pytest.raises(TypeError, match=message):
        await run(anyio.sleep(1))

    async def tokens() -> AsyncIterator[str]:
        yield "a"  # pragma: no cover - not iterated

    message = (
        r"^<.*> returned <async_generator .*>, which cannot be awaited\. It runs in the loop that "
        r"consumes it: pass an async function that has this loop in it\. For streams use "
        r"stream\(\) of a pipeline\.$"
    )
    others: tuple[Any, ...] = (Pipeline(Timeout(1)).run, TimeoutManager(1).run)
    for refuse in (run, *others):
        with pytest.raises(TypeError, match=message):
            await refuse(tokens)


async def test_run_can_be_cancelled_while_it_waits() -> None:
    """Then there is no further attempt."""
    flaky = Flaky(OSError())
    async with anyio.create_task_group() as group:
        group.start_soon(partial(EXACT.run, flaky))
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    assert flaky.calls == [0]


def test_number_of_attempts_needs_no_name() -> None:
    """``Retry(5)`` is ``Retry(attempts=5)``; all else has its name."""
    assert Retry(5) == Retry(attempts=5)
    with pytest.raises(TypeError):
        Retry(5, OSError)  # type: ignore[call-arg] # as the test says


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"budget": 0.1}, r"^budget=0\.1 is a float, not a Budget"),
        ({"retry_after": 3}, "^retry_after=3 is an int, which is not callable"),
    ],
)
def test_wrong_options_are_refused(option: dict[str, Any], message: str) -> None:
    """With the way out."""
    with pytest.raises(TypeError, match=message):
        Retry(**option)
