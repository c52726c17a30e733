"""Hedge: when another attempt is made, which answer counts, and what becomes of the others."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import random
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import Budget
from mtaio.exceptions import (
    BreakerOpenError,
    ConcurrencyLimitError,
    RateLimitError,
    StrayCancellationError,
)
from mtaio.resilience import Call, Hedge
from mtaio.resources import ConcurrencyLimiter
from mtaio.testing import run
from tests.resilience.calls import Sleeper, succeed, through

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def test_under_asyncio_run() -> None:
    """A program that asyncio runs, and not AnyIO, gets its further attempts too."""
    hedge = Hedge(0.001, max_hedges=2)
    fn = Sleeper(5, 5, 0)
    assert asyncio.run(through(hedge)(fn)) == 0  # asyncio's own way leaves AnyIO no mark
    assert hedge.statistics().hedges == 2


async def test_answered_in_time() -> None:
    """A call that is answered in time is made once."""
    hedge = Hedge(1)
    fn = Sleeper(0.9, 0)
    assert await through(hedge)(fn) == 0.9
    await anyio.sleep(5)
    assert fn.begun == [0]
    now = hedge.statistics()
    assert (now.calls, now.hedges, now.wins, now.rejected) == (1, 0, 0, 0)
    assert now.after_seconds == 1


async def test_the_faster_answer_counts() -> None:
    """The second attempt begins on time; its answer cancels the first, which has ended then."""
    hedge = Hedge(1)
    fn = Sleeper(9, 0.5)
    assert await through(hedge)(fn) == 0.5
    assert anyio.current_time() == 1.5
    assert fn.begun == [0, 1]
    assert fn.ended == ["answered", "cancelled"]
    now = hedge.statistics()
    assert (now.hedges, now.wins) == (1, 1)


async def test_the_first_may_still_win() -> None:
    """The first attempt goes on beside the second, and its answer cancels that."""
    hedge = Hedge(1)
    fn = Sleeper(1.2, 9)
    assert await through(hedge)(fn) == 1.2
    assert anyio.current_time() == 1.2
    assert fn.ended == ["answered", "cancelled"]
    now = hedge.statistics()
    assert (now.hedges, now.wins) == (1, 0)


async def test_waits_for_the_loser_to_clean_up() -> None:
    """A loser that takes its time to end is awaited."""
    ended: list[float] = []

    async def fn() -> str:
        if not ended:
            ended.append(0)
            try:
                await anyio.sleep(9)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(3)
                ended.append(anyio.current_time())
        return "second"

    assert await through(Hedge(1))(fn) == "second"
    assert ended == [0, 4]


async def test_a_loser_that_succeeds_is_thrown_away() -> None:
    """The answer of a loser that cannot be cancelled does not count, and is not kept."""

    class Answer:
        pass

    answers: list[weakref.ref[Answer]] = []

    async def fn() -> Answer:
        answer = Answer()
        answers.append(weakref.ref(answer))
        if len(answers) == 1:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
        return answer

    first = await through(Hedge(1))(fn)
    loser, winner = answers
    assert first is winner()
    assert anyio.current_time() == 5
    gc.collect()
    assert loser() is None


@pytest.mark.parametrize("succeeds", [True, False])
async def test_keeps_nothing_of_a_hedged_call(*, succeeds: bool) -> None:
    """Results and errors are let go with the call, without the garbage collector."""

    class Answer(Exception):  # noqa: N818 - a result as well
        pass

    made: list[weakref.ref[Answer]] = []

    async def fn() -> Answer:
        await anyio.sleep(2)
        answer = Answer()
        made.append(weakref.ref(answer))
        if succeeds:
            return answer
        try:
            raise answer
        finally:
            del answer

    gc.collect()
    gc.disable()
    try:
        with suppress(Answer):
            await through(Hedge(1))(fn)
        await checkpoint()
        assert [answer() for answer in made] == [None] * len(made)
    finally:
        gc.enable()
    assert len(made) == 2 - succeeds


async def test_most() -> None:
    """At most so many further attempts are made, each as long after the one before."""
    fn = Sleeper(9, 9, 9, 0.5, 9)
    call = through(Hedge(1, max_hedges=3))
    assert await call(fn) == 0.5
    assert fn.begun == [0, 1, 2, 3]
    fn = Sleeper(9, 9, 9, 9)
    started = anyio.current_time()
    assert await through(Hedge(1, max_hedges=2))(fn) == 9
    assert [begun - started for begun in fn.begun] == [0, 1, 2]
    assert sorted(fn.ended) == ["answered", "cancelled", "cancelled"]


async def test_a_failure_is_not_hedged() -> None:
    """What fails before it is hedged is raised at once, with nothing added."""
    hedge = Hedge(1)
    fn = Sleeper(-0.5)
    with pytest.raises(ConnectionError, match=r"^after 0\.5 s$") as caught:
        await through(hedge)(fn)
    assert anyio.current_time() == 0.5
    assert not hasattr(caught.value, "__notes__")
    assert hedge.statistics().hedges == 0


@pytest.mark.parametrize("seconds", [(-2, 3), (5, -0.5)], ids=["first fails", "second fails"])
async def test_a_failure_is_left_to_the_other(seconds: tuple[float, float]) -> None:
    """With another attempt under way, the failure of one is not that of the call."""
    fn = Sleeper(*seconds)
    assert await through(Hedge(1))(fn) == max(seconds)
    assert sorted(fn.ended) == ["answered", "failed"]


async def test_after_a_failure_no_further_attempt() -> None:
    """The third attempt is not made once one has failed."""
    fn = Sleeper(9, -0.5, 0)
    assert await through(Hedge(1, max_hedges=2))(fn) == 9
    assert fn.begun == [0, 1]


@pytest.mark.parametrize("seconds", [(-5, -1), (-2, -9)], ids=["first is last", "second is last"])
async def test_all_fail(seconds: tuple[float, float]) -> None:
    """If all fail, the last error is raised, with a note that names the others."""
    fn = Sleeper(*seconds)
    with pytest.raises(ConnectionError, match=f"^after {-min(seconds)} s") as caught:
        await through(Hedge(1))(fn)
    assert caught.value.__notes__ == ["the other attempts of the hedged call: ConnectionError"]
    assert caught.value.__context__ is None


async def test_an_answer_that_is_an_error() -> None:
    """What `on` does not accept ends the call, as a result does."""

    async def fn() -> None:
        begun.append(anyio.current_time())
        await anyio.sleep(1.5 if len(begun) == 1 else 9)
        raise LookupError("404")

    for on in (ConnectionError, (OSError,), lambda error: isinstance(error, OSError)):
        begun: list[float] = []
        started = anyio.current_time()
        with pytest.raises(LookupError, match=r"^404$"):
            await through(Hedge(1, on=on))(fn)
        assert [at - started for at in begun] == [0, 1]
        assert anyio.current_time() - started == 1.5


@pytest.mark.parametrize(
    "error", [ConcurrencyLimitError("full"), RateLimitError("full"), BreakerOpenError("full")]
)
async def test_refused_inside(error: Exception) -> None:
    """A further attempt that is refused leaves the call to the first, and is the last."""
    hedge = Hedge(1, max_hedges=3)

    async def fn() -> str:
        begun.append(anyio.current_time())
        if len(begun) == 2:
            raise error
        await anyio.sleep(5)
        return "first"

    begun: list[float] = []
    assert await through(hedge)(fn) == "first"
    assert begun == [0, 1]
    now = hedge.statistics()
    assert (now.hedges, now.rejected, now.wins) == (1, 1, 0)
    begun = [0]
    with pytest.raises(type(error), match=r"^full$"):
        await through(hedge)(fn)


async def test_each_attempt_takes_a_slot() -> None:
    """Every attempt holds a slot of the limiter inside, and gives it back before the call ends."""
    limiter = ConcurrencyLimiter(2)
    fn = Sleeper(9, 9, 9)

    async def innermost(call: Call) -> Any:
        async with limiter:
            return await call.fn()

    most = []

    async def watch() -> None:
        await anyio.sleep(5)
        most.append((limiter.statistics().in_use, limiter.statistics().waiting, fn.running))

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await Hedge(1, max_hedges=2).wrap(innermost)(Call(fn, ()))
        assert limiter.statistics().in_use == 0
    assert most == [(2, 1, 2)]
    assert fn.running == 0


@pytest.mark.parametrize("at", [0.5, 1.5], ids=["before", "while hedged"])
async def test_cancelled(at: float) -> None:
    """Cancelled from outside, all attempts end, and nothing is begun after."""
    hedge = Hedge(1, max_hedges=5)

    async def fn() -> None:
        begun.append(anyio.current_time())
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)

    begun: list[float] = []
    with anyio.move_on_after(at) as scope:
        await through(hedge)(fn)
    assert scope.cancelled_caught
    assert anyio.current_time() == at + 3
    await anyio.sleep(9)
    assert begun == ([0] if at < 1 else [0, 1])
    assert hedge.statistics().hedges == len(begun) - 1


async def test_not_hedged_while_being_cancelled() -> None:
    """An attempt that holds up its cancellation is not hedged."""
    hedge = Hedge(2)
    fn = Sleeper(0)

    async def slow_to_end() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(5)
        await fn()

    with anyio.move_on_after(1):
        await through(hedge)(slow_to_end)
    assert anyio.current_time() == 5
    assert (hedge.statistics().hedges, fn.begun) == (0, [5])


async def test_context() -> None:
    """Every attempt sees the context of the call; what a further one sets there stays with it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen = []

    async def fn() -> str:
        seen.append(variable.get())
        variable.set("changed by the first" if len(seen) == 1 else "changed by the second")
        await anyio.sleep(9 if len(seen) == 1 else 0)
        return variable.get()

    hedge = through(Hedge(1))
    variable.set("of the first call")
    with anyio.move_on_after(0.5):
        await hedge(anyio.sleep_forever)  # which sets the timer
    variable.set("of the second")
    assert await hedge(fn) == "changed by the second"
    assert seen == ["of the second", "of the second"]
    assert variable.get() == "changed by the first"


async def test_what_no_attempt_may_keep() -> None:
    """What is no Exception ends the other attempts, and is raised as it is."""

    class Stop(BaseException):
        pass

    async def fn() -> None:
        begun.append(0)
        mine = len(begun)
        await anyio.sleep(3 if mine == 1 else 1)
        raise Stop(mine)

    for after, number in ((5, 1), (1, 2)):
        begun: list[int] = []
        with pytest.raises(Stop) as caught:
            await through(Hedge(after))(fn)
        assert caught.value.args == (number,)


async def test_two_that_no_attempt_may_keep() -> None:
    """What two attempts raise that is no Exception is raised as a group."""

    class Stop(BaseException):
        pass

    async def fn() -> None:
        begun.append(0)
        try:
            await anyio.sleep(3 if len(begun) == 1 else 9)
        finally:
            raise Stop

    begun: list[int] = []
    with pytest.raises(BaseExceptionGroup) as caught:
        await through(Hedge(1))(fn)
    assert [type(error) for error in caught.value.exceptions] == [Stop, Stop]


async def test_a_loser_whose_clean_up_fails() -> None:
    """What a cancelled attempt raises no longer counts."""

    async def fn() -> str:
        begun.append(0)
        if len(begun) == 2:
            return "second"
        try:
            await anyio.sleep(9)
        finally:
            raise ConnectionError

    begun: list[int] = []
    assert await through(Hedge(1))(fn) == "second"


@pytest.mark.parametrize("seconds", [(-0.5,), (9, -0.5)], ids=["first", "second"])
async def test_a_filter_that_fails(seconds: tuple[float, ...]) -> None:
    """What the function that tells failures from answers raises ends the call."""

    def on(error: Exception) -> bool:
        raise LookupError(type(error))

    fn = Sleeper(*seconds)
    with pytest.raises(LookupError):
        await through(Hedge(1, on=on))(fn)
    assert fn.running == 0


async def test_two_event_loops_at_once() -> None:
    """A second event loop is refused while calls of the first are waiting."""
    call = through(Hedge(1, name="api"))
    async with anyio.create_task_group() as group:
        group.start_soon(call, partial(anyio.sleep, 0.5))
        await anyio.sleep(0.1)
        with pytest.raises(RuntimeError, match=r"^<Hedge 'api': after 1 s, .* another running"):
            await anyio.to_thread.run_sync(anyio.run, call, succeed)
    assert await anyio.to_thread.run_sync(anyio.run, call, succeed) == "answer"
    assert await call(Sleeper(9, 0)) == 0


@pytest.mark.parametrize("backend", ["asyncio"], scope="module")
async def test_cancellation_of_asyncio_itself() -> None:
    """A task cancelled by asyncio's own means ends as one without a hedge would."""
    fn = Sleeper(9, 9)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(through(Hedge(1))(fn), 2)
    assert fn.ended == ["cancelled", "cancelled"]

    async def stray() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await through(Hedge(1))(stray)


async def test_stray_cancellation_is_a_failure() -> None:
    """A cancellation that nobody asked for, in a further attempt, is a failure of that attempt."""

    async def fn() -> str:
        begun.append(0)
        if len(begun) == 2:
            raise strays[0]
        await anyio.sleep(fails if len(begun) == 1 else 0)
        if fails > 2:
            raise ConnectionError
        return "first"

    strays: list[BaseException] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class() as error:
            strays.append(error)  # trio's cannot be made
            raise
    begun: list[int] = []
    fails = 1.5
    assert await through(Hedge(1))(fn) == "first"
    begun = []
    fails = 3
    with pytest.raises(ConnectionError) as caught:
        await through(Hedge(1))(fn)
    assert caught.value.__notes__ == [
        f"the other attempts of the hedged call: {StrayCancellationError.__name__}"
    ]


async def test_budget() -> None:
    """All calls together are hedged as often as the budget allows, and no more."""
    budget = Budget(0.1, min_per_second=0)
    hedge = Hedge(1, budget=budget)
    call = through(hedge)
    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(call, partial(anyio.sleep, 2))
    now = hedge.statistics()
    assert (now.calls, now.hedges, now.rejected) == (30, 3, 27)
    assert str(hedge) == "Hedge(1, budget=Budget(0.1))"


async def test_budget_gets_back_what_is_refused() -> None:
    """A further attempt that is refused inside costs the budget nothing."""
    hedge = Hedge(1, budget=Budget(0.5, min_per_second=0))
    call = through(hedge)

    async def fn() -> None:
        begun.append(0)
        if len(begun) == 2:
            raise ConcurrencyLimitError
        await anyio.sleep(2)

    for _ in range(5):
        begun: list[int] = []
        await call(fn)
    assert hedge.statistics().hedges == 4  # all but the first, when one call did not yet give one


async def test_budget_gets_back_what_is_not_made() -> None:
    """A further attempt that falls due when the call is cancelled already costs nothing."""
    budget = Budget(1, min_per_second=0)
    hedge = Hedge(1, budget=budget)

    async def fn() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(2)

    with anyio.move_on_after(0.5):
        await through(hedge)(fn)
    assert hedge.statistics().hedges == 0
    assert budget.statistics().available == 1


async def test_quantile_of_equal_durations_hedges_none() -> None:
    """What takes as long as every other call is not slow."""
    hedge = Hedge("p95")
    call = through(hedge)
    for _ in range(200):
        await call(partial(anyio.sleep, 0.01))
    assert hedge.statistics().hedges == 0


async def test_quantile_hedges_its_share() -> None:
    """With "p95" about one call in twenty is hedged, and stays so over many calls."""
    hedge = Hedge("p95")
    call = through(hedge)
    rng = random.Random(7)  # noqa: S311 - no secret depends on it

    async def fn() -> None:
        await anyio.sleep(rng.lognormvariate(0, 1))

    for _ in range(40):
        await call(fn)
    assert hedge.statistics().hedges == 0
    for _ in range(2):
        before = hedge.statistics().hedges
        for _ in range(1000):
            await call(fn)
        assert 30 <= hedge.statistics().hedges - before <= 75
        assert hedge.statistics().after_seconds == pytest.approx(5.18, rel=0.4)


async def test_quantile_follows_a_change() -> None:
    """When all calls become slower, hedging ends within a few dozen of them."""
    hedge = Hedge("p90")
    call = through(hedge)
    rng = random.Random(8)  # noqa: S311 - no secret depends on it

    async def fn(factor: float) -> None:
        await anyio.sleep(factor * rng.uniform(0.9, 1.1))

    for _ in range(100):
        await call(partial(fn, 1))
    before = hedge.statistics().hedges
    for _ in range(100):
        await call(partial(fn, 10))
    assert hedge.statistics().hedges - before <= 40
    assert hedge.statistics().after_seconds == pytest.approx(10.8, rel=0.1)


async def test_quantile_takes_no_sample_of_a_cancelled_call() -> None:
    """Calls that are cancelled from outside, or fail, say nothing about the duration."""
    hedge = Hedge("p50")
    call = through(hedge)
    fn = Sleeper(*[-1] * 100)
    for _ in range(100):
        with anyio.move_on_after(0.1):
            await call(anyio.sleep_forever)
        with pytest.raises(ConnectionError):
            await call(fn)
    assert hedge.statistics().after_seconds is None
    assert repr(hedge) == "<Hedge: not yet, 0 of 200 calls>"
    assert str(hedge) == "Hedge('p50')"


async def test_each_call_in_its_time() -> None:
    """Calls that began at different moments are hedged each after its own time."""
    hedge = Hedge(1, name="api")
    call = through(hedge)
    fn = Sleeper(*[9] * 8)
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(call, fn)
            await anyio.sleep(0.3)
    assert fn.begun == pytest.approx([0, 0.3, 0.6, 0.9, 1, 1.3, 1.6, 1.9])
    assert (hedge.name, hedge.after) == ("api", 1)
    assert repr(hedge) == "<Hedge 'api': after 1 s, 4 of 4 calls>"
    assert str(Hedge("p99", max_hedges=2)) == "Hedge('p99', max_hedges=2)"


async def test_infinite_time_starts_nothing() -> None:
    """The call is made once, however long it takes."""
    hedge = Hedge(math.inf)
    assert await hedge.run(Sleeper(9999)) == 9999
    assert (hedge.statistics().calls, hedge.statistics().hedges) == (1, 0)


def test_in_one_loop_after_another(backend: str) -> None:
    """A hedge can be used by another event loop when the one before is over."""
    hedge = Hedge(1)
    call = through(hedge)
    for _ in range(2):
        fn = Sleeper(9, 0)
        assert run(call, fn, backend=backend) == 0
        assert fn.begun == [0, 1]
    with pytest.raises(TimeoutError):
        run(partial(limited, call), backend=backend)
    for _ in range(2):
        assert run(call, succeed, backend=backend) == "answer"


async def limited(call: Callable[..., Awaitable[Any]]) -> None:
    """Leave a timer behind."""
    with anyio.fail_after(0.5):
        await call(anyio.sleep_forever)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"after": 0}, ValueError, "^after=0 would make every call twice"),
        ({"after": -1}, ValueError, "^after=-1 is less than 0"),
        ({"after": None}, TypeError, "^after=None is a NoneType"),
        ({"after": "95%"}, ValueError, "^after='95%' is not a quantile"),
        ({"after": "p100"}, ValueError, "^after='p100' is not a quantile"),
        ({"after": 1, "max_hedges": 0}, ValueError, "^max_hedges=0 is less than 1"),
        ({"after": 1, "on": int}, TypeError, "^on=.* which is not a subclass of Exception"),
        ({"after": 1, "budget": 0.1}, TypeError, r"^budget=0.1 is a float.* Pass Budget\(0.1\)"),
    ],
)
def test_refused_arguments(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    """A value that makes no sense is named, with the way out."""
    with pytest.raises(kind, match=message):
        Hedge(**arguments)


async def test_refusals_in_a_group_leave_the_call_to_the_others() -> None:
    """As those that are raised by themselves."""
    hedge = Hedge(1)
    attempts = 0

    async def ask() -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 2:
            raise ExceptionGroup("", [ConcurrencyLimitError("no slot")])
        await anyio.sleep(3)
        return "first"

    assert await through(hedge)(ask) == "first"
    assert hedge.statistics().rejected == 1
