"""Pipeline: one call through several parts."""

from __future__ import annotations

import contextlib
import copy
import gc
import inspect
import pickle
import sys
import warnings
import weakref
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import Budget, Retry
from mtaio.exceptions import ConcurrencyLimitError, RateLimitError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.monitoring import ResourceMonitor, to_prometheus
from mtaio.monitoring._metrics import metrics
from mtaio.resilience import (
    AdaptiveLimiter,
    Breaker,
    Call,
    Fallback,
    Hedge,
    OrderWarning,
    Part,
    Pipeline,
    Timeout,
)
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)
from mtaio.statistics import PipelineStatistics
from mtaio.testing import assert_no_checkpoints
from tests.resilience.parts import Bare, Failing, Marked, answer, fail

if TYPE_CHECKING:
    from mtaio._internal.decorators import Decorator

QUICK = Retry(3, wait_initial=1, wait_exp_base=1, jitter=0)


# ---- the parts and their order -------------------------------------------------------------------


async def test_parts_act_in_their_order() -> None:
    """The first is outermost, and the last is around the function."""
    marks: list[str] = []

    async def work(*numbers: int) -> int:
        marks.append("work")
        return sum(numbers)

    api = Pipeline(Marked("a", marks), Marked("b", marks))
    assert await api.run(work, 2, 3) == 5
    assert marks == ["a in", "b in", "work", "b out", "a out"]


def test_printed_it_shows_its_parts() -> None:
    """A line for each, as one would write it, outermost first."""
    pipeline = Pipeline(
        Fallback(answer),
        Timeout(5, total=True),
        Retry(3, on=(OSError, LookupError), wait_max=2.0, budget=Budget(0.1)),
        KeyedRateLimiter(3, burst=2),
        RateLimiter(10),
        ResourceLimiter(concurrency=1),
        ResourceLimiter(concurrency=1, name="db"),
        ConcurrencyLimiter(4),
        Marked("x", []),
        TimeoutManager(2),
        Timeout(1),
        name="api",
    )
    assert str(pipeline).splitlines() == [
        "Pipeline 'api'",
        "  Fallback(answer)",
        "    Timeout(5, total=True)",
        "      Retry(3, on=(OSError, LookupError), wait_max=2.0, budget=Budget(0.1))",
        "        KeyedRateLimiter(3, burst=2)",
        "          RateLimiter(10, burst=1)",
        "            ResourceLimiter()",
        "              ResourceLimiter(name='db')",
        "                ConcurrencyLimiter(4)",
        "                  Marked('x')",
        "                    TimeoutManager(2)",
        "                      Timeout(1)",
    ]
    assert repr(pipeline) == "<Pipeline 'api' of 11 parts: 0 calls in flight>"
    assert str(Pipeline(Retry())) == "Pipeline\n  Retry(3)"
    assert repr(Pipeline(Retry())) == "<Pipeline of 1 parts: 0 calls in flight>"


def test_parts_are_those_that_were_given() -> None:
    """The limiters themselves, which may be used elsewhere too."""
    limiter, timeout = ConcurrencyLimiter(1), Timeout(1)
    assert Pipeline(limiter, timeout).parts == (limiter, timeout)
    assert isinstance(timeout, Part)


@pytest.mark.parametrize("given", [3, Timeout, answer, None])
def test_what_is_no_part_is_refused(given: Any) -> None:
    """With what could be meant."""
    in_a_list: Any = [Retry(3), Timeout(1)]
    with pytest.raises(TypeError, match=r"^a list of parts .* one by one: Pipeline\(\*parts\)"):
        Pipeline(in_a_list)
    with pytest.raises(TypeError, match=r"^.* is an? \w+, which cannot be part of a pipeline"):
        Pipeline(given)


def test_pipeline_without_parts_is_refused() -> None:
    """It would do nothing."""
    with pytest.raises(ValueError, match=r"^a Pipeline without parts does nothing"):
        Pipeline()


# ---- calls ---------------------------------------------------------------------------------------


async def test_result_and_error_come_through() -> None:
    """As they are; the statistics count them."""
    api = Pipeline(Timeout(1), name="api")
    assert await api.run(answer, 7) == 7
    error = ValueError("mine")

    async def broken() -> None:
        raise error

    with pytest.raises(ValueError, match=r"^mine$") as caught:
        await api.run(broken)
    assert caught.value is error
    statistics = api.statistics()
    assert (statistics.calls, statistics.succeeded, statistics.failed) == (2, 1, 1)
    assert (statistics.cancelled, statistics.in_flight) == (0, 0)
    assert api.name == "api"


async def test_cancelled_call_is_counted_as_cancelled() -> None:
    """And one that has not ended is in flight."""
    api = Pipeline(QUICK)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(api.run, anyio.sleep, 5))
        await anyio.sleep(1)
        assert api.statistics().in_flight == 1
        group.cancel_scope.cancel()
    statistics = api.statistics()
    assert (statistics.calls, statistics.cancelled, statistics.in_flight) == (1, 1, 0)
    retry = statistics.parts["retry"]
    assert (retry.calls, retry.retried, retry.failed) == (1, 0, 0)


async def test_other_base_exceptions_are_failures() -> None:
    """Also a group that holds an error besides a cancellation."""

    async def leave() -> None:
        raise SystemExit

    async def both() -> None:
        try:
            await anyio.sleep_forever()
        except BaseException as cancelled:  # noqa: BLE001 - raised on, in a group
            raise BaseExceptionGroup("both", [cancelled, OSError()]) from None

    api = Pipeline(QUICK)
    with pytest.raises(SystemExit):
        await api.run(leave)
    with pytest.raises(ExceptionGroup), anyio.move_on_after(1):
        await api.run(both)
    statistics = api.statistics()
    assert (statistics.failed, statistics.cancelled) == (2, 0)
    assert statistics.parts["retry"].retried == 0


async def test_happy_path_has_no_checkpoint() -> None:
    """A call of memory alone is as quick as one."""
    api = Pipeline(Fallback(answer), QUICK, ConcurrencyLimiter(1))
    with assert_no_checkpoints():
        await api.run(answer, 1)


@pytest.mark.parametrize("fn", [3, "fetch"])
async def test_what_cannot_be_called_is_refused(fn: Any) -> None:
    """Before any part sees it."""
    api = Pipeline(QUICK)
    with pytest.raises(TypeError, match=r"^fn=.* which cannot be called, and a call may have"):
        await api.run(fn)
    assert api.statistics().calls == 0


async def test_coroutine_is_refused_and_closed() -> None:
    """It could be awaited only once."""
    coroutine: Any = answer()
    with pytest.raises(TypeError, match=r"^fn=<coroutine object answer .* is a coroutine"):
        await Pipeline(QUICK).run(coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def test_sync_function_is_refused() -> None:
    """Its result cannot be awaited; other awaitables can."""
    sync: Any = int
    with pytest.raises(TypeError, match=r"^<class 'int'> returned 0, which cannot be awaited"):
        await Pipeline(Timeout(1)).run(sync)

    class Later:
        def __await__(self) -> Any:
            return answer(3).__await__()

    assert await Pipeline(Timeout(1)).run(Later) == 3


def test_call_says_what_it_is() -> None:
    """For those who write a part."""
    assert repr(Call(fail, (1, 2))).endswith("with 2 arguments>")


# ---- decorated functions -------------------------------------------------------------------------


async def test_decorated_function_keeps_its_signature() -> None:
    """Name, documentation and parameters; keywords are passed on."""
    failing = Failing(1)
    api = Pipeline(QUICK)

    @api
    async def fetch(url: str, *, page: int = 0) -> str:
        """Fetch."""
        await failing()
        return f"{url} {page}"

    assert await fetch("a", page=2) == "a 2"
    assert failing.calls == [0, 1]
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch.")
    assert str(inspect.signature(fetch)) == "(url: 'str', *, page: 'int' = 0) -> 'str'"


async def test_methods_may_be_decorated() -> None:
    """Also static ones and class methods."""
    api = Pipeline(QUICK)

    class Client:
        @api
        async def one(self, value: int) -> int:
            return value

        @api
        @staticmethod
        async def two(value: int) -> int:
            return value

    assert (await Client().one(1), await Client.two(2)) == (1, 2)


async def test_fallback_has_by_position_what_is_given_by_name() -> None:
    """However the caller of a decorated function writes its arguments, the fallback has them."""
    answers: list[tuple[object, ...]] = []
    api = Pipeline(Fallback(lambda _, *args: answers.append(args)))

    @api
    async def fetch(host: str, path: str = "/", *, port: int = 80) -> None:
        raise ConnectionError(host, path, port)

    await fetch(host="a", path="/b", port=1)
    await fetch("a", path="/b")
    await fetch(port=1, host="a")
    assert answers == [("a", "/b"), ("a", "/b"), ("a",)]
    untyped: Any = fetch
    with pytest.raises(TypeError, match="missing a required argument: 'host'"):
        await untyped(path="/b")


def test_sync_function_is_not_decorated() -> None:
    """It is refused when it is decorated."""
    sync: Any = int
    with pytest.raises(TypeError, match=r"^@Pipeline cannot decorate <class 'int'>"):
        Pipeline(QUICK)(sync)
    with pytest.raises(TypeError, match=r"^key=3 is an int, which is not callable"):
        Pipeline(QUICK)(key=3)  # type: ignore[call-overload] # as the test says


async def test_statistics_are_plain() -> None:
    """They can be made a dict, copied and pickled."""
    api = Pipeline(Timeout(9, total=True), Retry(budget=Budget(0.1)), Breaker(), Timeout(1))
    await api.run(answer)
    statistics = api.statistics()
    assert pickle.loads(pickle.dumps(statistics)) == copy.deepcopy(statistics) == statistics  # noqa: S301 - our own
    as_dict = asdict(statistics)
    assert list(as_dict["parts"]) == ["total_timeout", "retry", "breaker", "timeout"]
    assert as_dict["parts"]["retry"]["budget"]["calls"] == 1


# ---- limiters, timeouts and retry ----------------------------------------------------------------


async def test_retry_passes_what_is_inside_again() -> None:
    """Each attempt takes a token of its own, and its statistics tell."""
    failing = Failing(2)
    limiter = RateLimiter(1, burst=1, slack=0)
    api = Pipeline(Retry(3, wait_initial=0, budget=Budget(1, min_per_second=9)), limiter)
    assert await api.run(failing, 4) == 4
    assert failing.calls == [0, 1, 2]
    parts = api.statistics().parts
    assert (parts["retry"].calls, parts["retry"].retried, parts["retry"].failed) == (1, 2, 0)
    assert parts["retry"].budget.retried == 2
    assert parts["rate_limiter"].acquired == 3
    with pytest.raises(ConnectionError):
        await api.run(fail)
    assert api.statistics().parts["retry"].failed == 1


class Ticks:
    """A rate limiter of one's own."""

    rate = 2.0

    async def acquire(self) -> None:
        """Wait for half a second."""
        await anyio.sleep(0.5)


class CountedTicks(Ticks):
    """One that counts."""

    def statistics(self) -> str:
        """Return what it has counted."""
        return "much"


async def test_rate_of_ones_own_is_a_part() -> None:
    """As it is one for ``map(rate=)``: it needs ``rate`` and ``acquire()``."""
    api = Pipeline(Retry(2), Ticks(), CountedTicks())
    assert await api.run(answer) == 1
    assert anyio.current_time() == 1
    assert str(api).splitlines()[2:] == ["    Ticks(2)", "      CountedTicks(2)"]
    assert api.statistics().parts.keys() == {"retry", "counted_ticks"}
    with pytest.raises(TypeError, match=r"^<class .*Ticks'> is a type, which cannot be part"):
        Pipeline(Ticks)  # type: ignore[arg-type] # a class
    with pytest.warns(OrderWarning, match=r"^Ticks\(2\) stands outside of Retry"):
        Pipeline(Ticks(), Retry(2))


async def test_slot_is_held_and_given_back() -> None:
    """Whether the call returns or fails; a limiter that refuses is asked once."""
    slots = ConcurrencyLimiter(1, max_waiting=0)
    api = Pipeline(slots)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(api.run, anyio.sleep, 1))
        await anyio.sleep(0.5)
        assert slots.statistics().in_use == 1
        with pytest.raises(ConcurrencyLimitError):
            await api.run(answer)
    with pytest.raises(ConnectionError):
        await api.run(fail)
    assert slots.statistics().in_use == 0


async def test_each_key_has_its_rate() -> None:
    """The key of the call, or what the decorator's function makes of its arguments."""
    limiter = KeyedRateLimiter(1, burst=1, slack=0)
    api = Pipeline(limiter, name="api")

    @api(key=lambda host: host)
    async def fetch(host: str) -> str:
        return f"{host} at {anyio.current_time():g}"

    assert await fetch("a") == "a at 0"
    assert await fetch("b") == "b at 0"
    assert await fetch("a") == "a at 1"
    await api.run(answer, key="a")
    assert anyio.current_time() == 2
    with pytest.raises(ValueError, match=r"^the call of answer has no key, and <Keyed"):
        await api.run(answer)
    with pytest.raises(RateLimitError):
        limiter.acquire_nowait("a")


async def test_breaker_of_each_key_needs_one() -> None:
    """Without, one host that is down would be all of them."""
    breaker = Breaker(max_keys=2)
    assert await Pipeline(breaker).run(answer, key="a") == 1
    with pytest.raises(ValueError, match=r"^the call of answer has no key, and <Breaker: 1 keys"):
        await Pipeline(breaker).run(answer)
    assert await Pipeline(Breaker()).run(answer) == 1


async def test_resource_limiter_limits_all_three() -> None:
    """Slots, tokens and time, as around a block."""
    limiter = ResourceLimiter(concurrency=1, timeout=1)
    api = Pipeline(limiter)
    with pytest.raises(MTAIOTimeoutError):
        await api.run(anyio.sleep, 2)
    assert anyio.current_time() == 1
    assert limiter.statistics().entered == api.statistics().parts["resource_limiter"].entered == 1


async def test_timeout_manager_limits_where_it_stands() -> None:
    """Outside a retry it limits all attempts, inside each one."""
    outside, inside = TimeoutManager(5.5, name="all"), TimeoutManager(1)
    api = Pipeline(outside, Retry(9, wait_initial=1, wait_exp_base=1, jitter=0), inside)
    with pytest.raises(MTAIOTimeoutError, match=r"^timed out after 1 s") as caught:
        await api.run(anyio.sleep_forever)
    # Attempts at 0, 2 and 4 s; the next would have to wait until 6 s.
    assert anyio.current_time() == 5
    assert caught.value.timeout == 1
    parts = api.statistics().parts
    assert (parts["timeout_manager_2"].timed_out, parts["timeout_manager"].timed_out) == (3, 0)


# ---- statistics ----------------------------------------------------------------------------------


async def test_monitor_exports_all_parts() -> None:
    """``watch(pipeline)`` is enough: each part has its own names."""
    monitor = ResourceMonitor()
    api = Pipeline(
        Timeout(5, total=True),
        QUICK,
        Breaker(1, last=9),
        Hedge(0.5),
        Bare(),
        AdaptiveLimiter(),
        Timeout(1),
        name="api",
    )
    monitor.watch(api)
    await api.run(Failing(1))
    stats = api.statistics()
    assert isinstance(stats, PipelineStatistics)
    kinds_of_parts = ("total_timeout", "retry", "breaker", "hedge", "bare", "adaptive_limiter")
    assert tuple(stats.parts) == (*kinds_of_parts, "timeout")
    await monitor.tick()
    values = monitor.values()
    assert values["pipeline.api.succeeded"] == 1
    assert values["pipeline.api.retry.retried"] == 1
    assert values["pipeline.api.total_timeout.entered"] == 1
    assert values["pipeline.api.timeout.entered"] == 2
    assert values["pipeline.api.breaker.failed"] == 1
    assert values["pipeline.api.hedge.calls"] == 2
    assert values["pipeline.api.adaptive_limiter.limit"] == 10
    text = to_prometheus(metrics(monitor.sources()))
    assert 'mtaio_pipeline_retry_retried_total{name="api"} 1' in text
    assert "# TYPE mtaio_pipeline_in_flight gauge" in text
    assert "mtaio_pipeline_timeout_default_timeout" in text


def test_second_of_a_kind_has_a_number() -> None:
    """Two fallbacks, for two kinds of errors."""
    own = Marked("own", [])  # which has no statistics
    api = Pipeline(Fallback(answer, on=OSError), own, Fallback(answer, on=LookupError))
    assert list(api.statistics().parts) == ["fallback", "fallback_2"]


# ---- the short way -------------------------------------------------------------------------------

HELD = Retry(3, on=ConnectionError, wait_initial=1, wait_exp_base=1, jitter=0)


class Interrupt(BaseException):
    """An error that is no failure of the service."""


class Scripted:
    """
    A function whose attempts end as it is told, each after half a second; the last way repeats.

    Args:
        *ends: An error, or a result, for each attempt.
    """

    def __init__(self, *ends: object) -> None:
        self._ends = list(ends)

    async def __call__(self, number: int = 0) -> object:
        """End as the next attempt is to end."""
        await anyio.sleep(0.5)
        end = self._ends.pop(0) if len(self._ends) > 1 else self._ends[0]
        if isinstance(end, BaseException):
            raise copy.copy(end)  # with no note of an earlier call
        return end, number


def stacks() -> dict[str, tuple[Any, ...]]:
    """Return parts that leave a call alone which succeeds, new each time."""
    last = Fallback(lambda error, number=0: (str(error), number), on=LookupError)
    return {
        "a retry": (HELD,),
        "a fallback": (last,),
        "a limiter": (RateLimiter(1, burst=2),),
        "a retry and a limiter": (HELD, RateLimiter(1, burst=2)),
        "all": (last, HELD, RateLimiter(1, burst=2)),
    }


async def seen(
    parts: tuple[Any, ...], how: str, ends: tuple[object, ...]
) -> list[tuple[object, float, dict[str, Any], str]]:
    """Return what can be seen of a few calls through some parts."""
    api = Pipeline(*parts)
    fn = Scripted(*ends)
    found: list[tuple[object, float, dict[str, Any], str]] = []
    for number in range(3):
        end: object
        try:
            with anyio.move_on_after(1.75) as scope:
                if how == "run":
                    end = await api.run(fn, number)
                elif how == "decorated":
                    end = await api(fn.__call__)(number)
                else:
                    end = await api(fn.__call__)(number=number)
            if scope.cancelled_caught:
                end = "cancelled"
        except (Exception, Interrupt) as error:  # noqa: BLE001 - whatever it is
            context = error.__context__
            end = type(error), str(error), [*getattr(error, "__notes__", ())], context
        figures = asdict(api.statistics())
        figures["parts"].get("rate_limiter", {}).pop("next_grant_seconds", None)
        found.append((end, anyio.current_time(), figures, repr(api).split(": ")[1]))
    return found


ENDS: tuple[tuple[object, ...], ...] = (
    (7,),
    (ConnectionError("one"), 7),
    (ConnectionError("always"),),
    (LookupError("not here"),),
    (7, Interrupt("now"), 8),
    (ConnectionError("one"), LookupError("two"), 7),
)


@pytest.mark.parametrize("how", ["run", "decorated", "by name"])
@pytest.mark.parametrize("which", list(stacks()))
async def test_no_part_can_tell_the_short_way(how: str, which: str) -> None:
    """What comes out, when, and what is counted are as if each call went through each part."""
    for ends in ENDS:
        begun = anyio.current_time()
        short = await seen(stacks()[which], how, ends)
        later = anyio.current_time() - begun
        # A part of one's own sees each call, so that all of them go the long way.
        long = await seen((Marked("own", []), *stacks()[which]), how, ends)
        assert [(end, figures, text) for end, _, figures, text in short] == [
            (end, figures, text) for end, _, figures, text in long
        ]
        moments = [moment + later for _, moment, *_ in short]
        assert moments == pytest.approx([moment for _, moment, *_ in long])


async def test_calls_on_the_short_way_are_in_flight() -> None:
    """They are counted from when they begin."""
    api = Pipeline(QUICK, RateLimiter(1))
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(api(anyio.sleep), 0.5)
        await checkpoint()
        await checkpoint()
        assert (api.statistics().calls, api.statistics().in_flight) == (2, 2)
        assert api.statistics().parts["retry"].calls == 2
        assert repr(api).endswith(" 2 calls in flight>")
    assert (api.statistics().succeeded, api.statistics().in_flight) == (2, 0)


@pytest.mark.parametrize("how", ["run", "decorated"])
async def test_error_of_the_short_way_is_freed_at_once(how: str) -> None:
    """Nothing that the call leaves behind holds its error."""
    refs: list[weakref.ref[BaseException]] = []

    class LostError(ConnectionError):
        pass  # to which there may be weak references

    async def work() -> None:
        error = LostError()
        refs.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    api = Pipeline(Retry(2, wait_initial=0))
    call = api(work) if how == "decorated" else partial(api.run, work)
    gc.disable()
    try:
        with contextlib.suppress(ConnectionError):
            await call()
        await checkpoint()
        assert [each() for each in refs] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["run", "decorated"])
async def test_error_of_the_short_way_keeps_its_context(how: str) -> None:
    """It shows what was being handled when it came, also if the caller handles something."""

    async def work() -> int:
        try:
            return int("x")
        except ValueError:
            return await fail()

    api = Pipeline(Retry(1))
    call = api(work) if how == "decorated" else partial(api.run, work)

    async def call_later() -> None:
        try:
            await fail()
        except ConnectionError:
            await call()

    with pytest.raises(ConnectionError) as caught:
        await call_later()
    kinds: list[type[BaseException]] = []
    error: BaseException | None = caught.value
    while error is not None:
        kinds.append(type(error))
        error = error.__context__
    assert kinds == [ConnectionError, ValueError, ConnectionError]


@pytest.mark.parametrize("how", ["run", "decorated"])
async def test_counts_never_fall_on_the_way(how: str) -> None:
    """Whenever another thread reads them: what falls looks like the counter of a new process."""
    fn = Failing(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OrderWarning)
        api = Pipeline(Retry(2, wait_initial=0), Retry(2, wait_initial=0, on=LookupError))
    call = api(fn.__call__) if how == "decorated" else partial(api.run, fn)
    seen: list[tuple[int, int, int]] = []

    def look(*_: object) -> None:
        figures = asdict(api.statistics())
        parts = figures["parts"]
        seen.append((figures["calls"], parts["retry"]["calls"], parts["retry_2"]["calls"]))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        with contextlib.suppress(ConnectionError):
            await call()
        await call()
    finally:
        sys.setprofile(before)
    for counts in zip(*seen, strict=True):
        assert [*counts] == sorted(counts)
    assert seen[-1] == (2, 2, 3)


async def test_wrong_arguments_end_a_call_on_the_short_way() -> None:
    """Found out when they are put in their places for a fallback, they leave nothing in flight."""
    api = Pipeline(Fallback(lambda *_: 7))
    with pytest.raises(TypeError, match=r"unexpected keyword argument"):
        await api(answer)(number=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    assert (api.statistics().failed, api.statistics().in_flight) == (1, 0)


async def test_sync_function_is_refused_on_the_short_way() -> None:
    """The error names it, and counts as that of the call."""
    api = Pipeline(Retry(1))
    with pytest.raises(TypeError, match=r"returned 1, which cannot be awaited"):
        await api.run(cast("Any", lambda: 1))
    assert api.statistics().failed == 1


async def test_key_is_asked_for_on_the_short_way() -> None:
    """A function that finds the key is called for each call, though no part needs one."""
    keys: list[int] = []

    @Pipeline(QUICK)(key=keys.append)
    async def work(number: int) -> int:
        return number

    assert await work(3) == 3
    assert keys == [3]


@pytest.mark.parametrize(
    "part",
    [
        Timeout(1),
        Breaker(),
        Hedge(1),
        AdaptiveLimiter(),
        Fallback(lambda error, *_: error),
        Breaker(max_keys=3),
        RateLimiter(100),
        RateLimiter.window(100, per=1),
        ConcurrencyLimiter(1),
        ResourceLimiter(concurrency=1),
        KeyedRateLimiter(100),
    ],
    ids=[
        *("Timeout", "Breaker", "Hedge", "AdaptiveLimiter", "Fallback", "Breaker with keys"),
        *("RateLimiter", "window", "ConcurrencyLimiter", "ResourceLimiter", "KeyedRateLimiter"),
    ],
)
async def test_a_part_is_a_decorator_by_itself(part: Any) -> None:
    """``@Timeout(1)``, ``@limiter``: calls go through that part, whose state they share."""
    keyed = getattr(part, "needs_key", False) or isinstance(part, KeyedRateLimiter)
    decorate: Decorator = part(key=lambda number, *_: number) if keyed else part

    class Service:
        @decorate
        async def method(self, number: int) -> int:
            """Return a number."""
            return number

    @decorate
    async def double(number: int) -> int:
        """Return twice the number."""
        await checkpoint()
        return 2 * number

    before = part.statistics()
    assert await double(3) == 6
    assert double.__doc__ == "Return twice the number."
    assert await Service().method(7) == 7
    if not isinstance(part, Fallback):
        assert part.statistics() != before
    with pytest.raises(TypeError, match=r"^@\w+(\.limit)? cannot decorate 3: it is of type 'int'"):
        decorate(cast("Any", 3))


async def test_a_timeout_above_a_function() -> None:
    """It limits each of its calls."""
    timeout = Timeout(1, name="api")
    hang = timeout(anyio.sleep)
    with pytest.raises(MTAIOTimeoutError, match=r"^api: the call timed out after 1 s"):
        await hang(2)
    assert timeout.statistics().timed_out == 1
