"""Retry: until the result is right, for how long, how often in a time, with which waits."""

from __future__ import annotations

import logging
import math
import pickle
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.core import Budget, Retry, TaskExecutor
from mtaio.exceptions import RateLimitError, StrayCancellationError
from mtaio.monitoring import ResourceMonitor, Source, metrics, to_prometheus
from mtaio.resilience import GaveUp, OrderWarning, PartEvent, Pipeline, Retried, subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVENLY: dict[str, Any] = {"wait_initial": 1, "wait_exp_base": 1, "jitter": 0}


class Answers:
    """
    A function that returns, or raises, one thing after another, half a second after each call.

    Args:
        *answers: What; the last one again and again.
    """

    def __init__(self, *answers: object) -> None:
        self.answers = answers
        self.calls: list[float] = []

    async def __call__(self, *_: object) -> object:
        """Return or raise the next."""
        self.calls.append(anyio.current_time())
        await anyio.sleep(0.5)
        answer = self.answers[min(len(self.calls), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def heard() -> Iterator[list[PartEvent]]:
    """Return what the parts tell during the test."""
    events: list[PartEvent] = []
    unsubscribe = subscribe(events.append)
    yield events
    unsubscribe()


async def run(policy: Retry, fn: Callable[..., Any]) -> object:
    """Call ``fn`` under a policy."""
    return await policy.run(fn)


async def decorated(policy: Retry, fn: Any) -> object:
    """Call ``fn``, decorated."""

    @policy
    async def call() -> object:
        return await fn()

    return await call()


async def through_a_pipeline(policy: Retry, fn: Any) -> object:
    """Call ``fn`` through a pipeline of the policy alone."""
    return await Pipeline(policy).run(fn)


async def in_an_executor(policy: Retry, fn: Any) -> object:
    """Map ``fn`` over one item."""
    return (await TaskExecutor(1).map(fn, [0], retry=policy))[0]


async def with_a_rate(policy: Retry, fn: Any) -> object:
    """Map ``fn`` over one item, which waits its turn."""
    return (await TaskExecutor(1).map(fn, [0], retry=policy, rate=1e6))[0]


WAYS = (run, decorated, through_a_pipeline, in_an_executor, with_a_rate)


# ---- the result ----------------------------------------------------------------------------------


async def is_done(result: object) -> bool:
    """Return whether a job is done, having asked somebody."""
    await anyio.sleep(0.25)
    return result == "done"


@pytest.mark.parametrize("way", WAYS)
async def test_until_the_result_is_right(way: Callable[..., Any], heard: list[PartEvent]) -> None:
    """It is judged by a function, sync or async; errors between are retried, too."""
    job = Answers("queued", OSError("lost"), "running", "done")
    assert await way(Retry(9, until=lambda result: result == "done", **EVENLY), job) == "done"
    assert job.calls == pytest.approx([0, 1.5, 3, 4.5])
    told = [(each.attempt, each.result) for each in heard if isinstance(each, Retried)]
    assert told == [(1, "'queued'"), (2, None), (3, "'running'")]
    job = Answers("queued", "done")
    assert await way(Retry(2, until=is_done, **EVENLY), job) == "done"
    assert job.calls[1] - job.calls[0] == pytest.approx(0.5 + 0.25 + 1)


async def test_right_at_once_is_one_call() -> None:
    """And nothing else."""
    job = Answers("done")
    assert await Retry(until=is_done).run(job) == "done"
    assert job.calls == [0]


async def test_last_result_is_returned_as_it_is(heard: list[PartEvent]) -> None:
    """When the attempts have run out: whoever wants an error raises it in the function."""
    job = Answers("queued")
    policy = Retry(2, until=is_done, name="job", **EVENLY)
    assert await policy.run(job) == "queued"
    assert len(job.calls) == 2
    last = heard[-1]
    assert isinstance(last, GaveUp)
    assert (last.name, last.attempt, last.reason, last.result, last.error) == (
        *("job", 2, "attempts", "'queued'"),
        None,
    )
    assert policy.statistics().errors == {"result": 2}
    assert policy.statistics().failed == 1
    budget = Budget(0, min_per_second=0)
    assert await Retry(2, until=is_done, budget=budget).run(job) == "queued"
    assert heard[-1] == GaveUp(
        function="Answers", attempt=1, reason="budget", error=None, result="'queued'"
    )


async def test_what_the_predicate_raises_ends_the_call() -> None:
    """It is not retried; a stray cancellation in it is an error like any other."""
    job = Answers("queued")
    with pytest.raises(ZeroDivisionError):
        await Retry(until=lambda _: 1 / 0).run(job)

    async def astray(_: object) -> bool:
        raise anyio.get_cancelled_exc_class()

    if anyio.get_cancelled_exc_class().__module__.startswith("asyncio"):
        with pytest.raises(StrayCancellationError):
            await Retry(until=astray).run(job)


# ---- the time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_within_ends_the_attempts(way: Callable[..., Any], heard: list[PartEvent]) -> None:
    """None is begun later, however many there may be, and the error comes at once."""
    error = OSError("down")
    job = Answers(error)
    with pytest.raises(OSError, match="down"):
        await way(Retry(None, within=4, **EVENLY), job)
    assert job.calls == pytest.approx([0, 1.5, 3])
    assert any(
        note.startswith("not tried again: attempt 4 would have to wait 1 s, and")
        for note in error.__notes__
    )
    last = heard[-1]
    assert isinstance(last, GaveUp)
    assert (last.attempt, last.reason) == (3, "within")


async def test_within_is_there_beside_the_attempts_and_the_deadline() -> None:
    """The first of the three that ends counts."""
    job = Answers(OSError("down"))
    with pytest.raises(OSError, match="down"):
        await Retry(2, within=60, **EVENLY).run(job)
    assert len(job.calls) == 2
    with anyio.move_on_after(2), pytest.raises(OSError, match="down"):
        await Retry(None, within=60, **EVENLY).run(job)
    assert len(job.calls) == 4
    assert await Retry(None, within=math.inf, **EVENLY).run(Answers(*[OSError()] * 50, 1)) == 1


async def test_wait_that_is_asked_for_is_spread_but_not_beyond_the_time() -> None:
    """The random part ends where the time does: who can wait for as long as asked is in time."""
    policy = Retry(2, within=2.1)
    for _ in range(50):
        started = anyio.current_time()
        job = Answers(RateLimitError(retry_after=1.5), "done")
        assert await policy.run(job) == "done"
        assert started + 2 <= job.calls[1] < started + 2.1


def test_waits_of_callers_who_were_told_the_same_are_spread() -> None:
    """Over half as long again, or over the policy's own wait, and never less than was asked."""
    error = RateLimitError(retry_after=10)
    waits = sorted(Retry().wait_before(2, error) for _ in range(1000))
    assert 10 <= waits[0] < 10.1
    assert 14.9 < waits[-1] < 15
    assert 12 < waits[500] < 13
    longest = max(Retry(wait_max=60).wait_before(11, RateLimitError(retry_after=1)) for _ in waits)
    assert 50 < longest < 61
    assert Retry().wait_before(2, RateLimitError(retry_after=3600)) < 3600 + 30


@pytest.mark.parametrize("gap", [0, 30])
async def test_attempts_are_counted_over_a_time(gap: float) -> None:
    """``Retry(3, per=10)``: at most three in any ten seconds; those before that are forgotten."""
    begun: list[float] = []

    async def fail() -> None:
        begun.append(anyio.current_time())
        if len(begun) == 3:
            await anyio.sleep(gap)
        raise OSError("down")

    with pytest.raises(OSError, match="down") as caught:
        await Retry(3, per=10, **EVENLY).run(fail)
    assert caught.value.__notes__[0] == "gave up after 3 attempts in 10 s"
    assert begun == ([0, 1, 2, 33, 34, 35] if gap else [0, 1, 2])


async def test_service_is_restarted_so_often_in_a_time() -> None:
    """A service that fails now and then is restarted for ever, one that fails at once is not."""
    begun: list[float] = []

    async def service(*, task_status: Any) -> None:
        task_status.started()
        begun.append(anyio.current_time())
        await anyio.sleep(0 if len(begun) > 5 else 20)
        raise OSError("down")

    async def serve() -> None:
        async with TaskExecutor() as executor:
            await executor.start(service, restart=Retry(3, per=30, **EVENLY))
            await anyio.sleep(1000)

    with pytest.raises(OSError, match="down"):
        await serve()
    assert begun == [0, 21, 42, 63, 84, 105, 106]


async def test_service_is_restarted_for_ever(heard: list[PartEvent]) -> None:
    """Without a number of attempts, and each restart is told, but not logged twice."""
    begun: list[float] = []

    async def service(*, task_status: Any) -> None:
        task_status.started()
        begun.append(anyio.current_time())
        raise OSError("down")

    with anyio.move_on_after(10.5):
        async with TaskExecutor() as executor:
            forever = Retry(None, within=math.inf, **EVENLY)
            await executor.start(service, restart=forever)
            with pytest.raises(
                ValueError, match=r"^restart=Retry\(2, until=is_done\) has until=.*"
            ):
                await executor.start(service, restart=Retry(2, until=is_done))
            await anyio.sleep_forever()
    assert len(begun) == len(heard) == 11
    assert heard[0] == Retried(
        function="test_service_is_restarted_for_ever.<locals>.service",
        attempt=1,
        seconds=1,
        error=heard[0].error,  # type: ignore[attr-defined] # compared by identity
    )


# ---- waits of one's own --------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [[1, 2, 4], lambda attempt: 2 ** (attempt - 1)])
async def test_waits_are_given(waits: Any) -> None:
    """As a list, or by a function of the attempt that failed; without what is random."""
    job = Answers(*[OSError()] * 3, "done")
    assert await Retry(5, waits=waits).run(job) == "done"
    assert job.calls == [0, 1.5, 4, 8.5]


async def test_last_wait_of_a_list_goes_on() -> None:
    """And what a service asks for counts as ever."""
    policy = Retry(9, waits=[1, 3], jitter=0)
    assert [policy.wait_before(attempt) for attempt in (2, 3, 4, 9)] == [1, 3, 3, 3]
    assert policy.wait_before(2, RateLimitError(retry_after=7)) == 7


async def test_function_of_waits_is_held_to_its_word() -> None:
    """What it returns has to be seconds."""
    wrong: Any = lambda _: "soon"  # noqa: E731 - what is refused
    with pytest.raises(TypeError, match=r"^what waits\(1\) returned='soon' is a str, not a number"):
        await Retry(waits=wrong).run(Answers(OSError()))


# ---- what is told --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_hook_is_told_before_each_wait(way: Callable[..., Any]) -> None:
    """With the attempt that failed, its error, the seconds, and the name of the function."""
    told: list[tuple[float, Retried]] = []
    errors = OSError("1"), OSError("2")
    policy = Retry(3, on_retry=lambda event: told.append((anyio.current_time(), event)), **EVENLY)
    assert await way(policy, Answers(*errors, "fine")) == "fine"
    assert [moment for moment, _ in told] == pytest.approx([0.5, 2])
    assert [(event.attempt, event.seconds) for _, event in told] == [(1, 1), (2, 1)]
    assert [event.error for _, event in told] == [*errors]
    assert all("Answers" in (each.function or "") or way is decorated for _, each in told)


async def test_failing_hook_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """And the call goes on."""
    policy = Retry(2, on_retry=lambda _: 1 / 0, wait_initial=0)
    assert await policy.run(Answers(OSError(), "fine")) == "fine"
    assert [each.levelname for each in caplog.records] == ["WARNING", "ERROR"]
    assert "<lambda> failed for Retried(" in caplog.text


async def test_failures_are_counted_by_type() -> None:
    """By the policy, wherever it is used, and by the pipeline; a monitor shows both."""
    policy = Retry(3, wait_initial=0, name="api")
    pipeline = Pipeline(policy, name="all")
    assert await pipeline.run(Answers(OSError(), ValueError(), 1)) == 1
    assert await policy.run(Answers(OSError(), 1)) == 1
    with pytest.raises(KeyError):
        await policy.run(Answers(KeyError()))
    own, part = policy.statistics(), pipeline.statistics().parts["retry"]
    assert (own.retried, own.failed, own.throttled) == (5, 1, 0)
    assert own.errors == {"OSError": 2, "ValueError": 1, "KeyError": 3}
    assert (part.calls, part.retried, part.failed) == (1, 2, 0)
    assert part.errors == {"OSError": 1, "ValueError": 1}
    sources = (
        Source(kind="retry", name=policy.name, statistics=own, mappings=True),
        Source(kind="pipeline", name=pipeline.name, statistics=pipeline.statistics()),
    )
    text = to_prometheus(metrics(sources))
    assert 'mtaio_retry_errors_total{name="api",error="KeyError"} 3\n' in text
    ResourceMonitor().watch(policy)  # it has what a monitor needs
    assert 'mtaio_pipeline_retry_errors_total{name="all"} 2\n' in text


async def test_types_beyond_the_first_are_counted_together() -> None:
    """There may be any number of them."""
    policy = Retry(2, wait_initial=0)
    for number in range(40):
        kind = type(f"Error{number}", (Exception,), {})
        assert await policy.run(Answers(kind(), 1)) == 1
    errors = policy.statistics().errors
    assert (len(errors), errors["other"]) == (33, 8)


async def test_end_of_a_call_that_is_cancelled_is_not_told(heard: list[PartEvent]) -> None:
    """It gave nothing up: nobody waits for it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(OSError, match="down"):
            await Retry(3).run(fail_at_once)
    assert heard == []


async def fail_at_once() -> None:
    """Fail without a checkpoint."""
    raise OSError("down")


def test_policy_is_a_value() -> None:
    """It is compared, copied and printed as what it says; what it has counted is not part of it."""
    policy = Retry(None, within=60, waits=[1, 2], on=OSError, throttled=TimeoutError, name="api")
    assert str(policy) == (
        "Retry(None, on=OSError, within=60, waits=(1, 2), throttled=TimeoutError, name=api)"
    )
    assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301 - ours
    assert hash(policy) == hash(pickle.loads(pickle.dumps(policy)))  # noqa: S301 - ours
    assert policy != Retry(None, within=61)


# ---- one policy inside another -------------------------------------------------------------------


async def test_policy_inside_of_another_is_warned_of_once() -> None:
    """As soon as both retry, in a task started by the outer attempt too, and not before."""
    outer = Retry(3, name="outer", **EVENLY)
    inner = Retry(2, **EVENLY)

    async def ask() -> object:
        return await inner.run(Answers(OSError("1"), OSError("2")))

    with (
        pytest.warns(OrderWarning, match=r"^Retry\(2, .* of Answers runs inside .*ask") as seen,
        pytest.raises(OSError, match="2"),
    ):
        await outer.run(ask)
    assert len(seen) == 1
    with pytest.raises(OSError, match="2"):
        await outer.run(ask)


async def test_policy_after_another_is_not_inside_of_it() -> None:
    """Neither one that the same task runs later, nor in a task that has outlived the attempt."""
    policy, other = Retry(2, **EVENLY), Retry(2, **EVENLY)
    assert await policy.run(Answers(OSError(), 1)) == 1
    assert await other.run(Answers(OSError(), 1)) == 1
    async with anyio.create_task_group() as group:

        async def later() -> None:
            await anyio.sleep(5)
            assert await other.run(Answers(OSError(), 1)) == 1

        async def start() -> None:
            if failures:
                raise failures.pop()
            group.start_soon(later)

        failures = [OSError()]
        await policy.run(start)


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attempts": None}, r"^attempts=None would go on for ever\. Say for how long: within=60"),
        ({"within": 0}, r"^within=0 leaves no time\. Pass the seconds for all attempts"),
        ({"within": "1"}, r"^within='1' is a str, not a number"),
        ({"per": 0}, r"^per=0 is not a finite number greater than 0"),
        (
            {"attempts": None, "within": 60, "per": 5},
            r"^per=5 counts attempts, and attempts=None sets no limit\. Say how many",
        ),
        ({"until": 3}, r"^until=3 is an int, which is not callable"),
        ({"waits": []}, r"^waits=\[\] is empty"),
        ({"waits": "123"}, r"^waits='123' is a str\. Pass seconds >= 0, one for each wait"),
        ({"waits": [1, -1]}, r"^waits=-1 is less than 0"),
        ({"waits": lambda: 1}, r"^waits=<function .* cannot be called as .*\(attempt\)"),
        ({"waits": is_done}, r"^waits=<function is_done .* is an async function and would not"),
        (
            {"waits": [1], "wait_max": 5},
            r"^waits=\(1,\) and wait_max=5 both say how long to wait\. Pass one of them\.",
        ),
        ({"throttled": 429}, r"^throttled=429 is an int, which is not callable"),
        (
            {"hold": object()},
            r"^hold=<object .*> is held after a refusal, but nothing says which",
        ),
        (
            {"hold": object(), "throttled": OSError},
            r"^hold=<object .*> has no plain method hold\(seconds\)\. Pass a limiter",
        ),
        ({"on_retry": is_done}, r"^on_retry=<function is_done .* is an async function and would"),
        ({"on_retry": lambda: 1}, r"^on_retry=<function .* cannot be called as .*\(retried\)"),
        ({"jitter": 2}, r"^jitter=2 is more than 1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    """With the value, the reason and the way out."""
    with pytest.raises((TypeError, ValueError), match=message):
        Retry(**options)


async def test_hook_of_a_call_is_checked_too() -> None:
    """Before the call."""
    job = Answers("done")
    wrong: Any = lambda: None  # noqa: E731 - what is refused
    with pytest.raises(TypeError, match=r"^on_retry=<function .* cannot be called as "):
        await Retry().run(job, on_retry=wrong)
    assert not job.calls


async def test_nothing_is_made_where_nobody_wants_to_know(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for the log, if its level is off, nor for a listener, if there is none."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    for kind in ("Retried", "GaveUp", "Throttled"):
        monkeypatch.setattr(f"mtaio.resilience._attempts.{kind}.__init__", refuse)
    policy = Retry(2, wait_initial=0, throttled=TimeoutError)
    with caplog.at_level(logging.ERROR, "mtaio.resilience"):
        assert await policy.run(Answers(OSError(), TimeoutError(), 1)) == 1
        with pytest.raises(OSError, match="down"):
            await policy.run(Answers(OSError("down")))
