"""`TaskExecutor.every`: runs begin at ticks, whatever runs, clocks and leaders do."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal import clock
from mtaio._internal.ticks import CronTicks, Interval
from mtaio.core import Cron, PeriodicTask, Retry, TaskExecutor
from mtaio.exceptions import LeaseLostError
from mtaio.monitoring import ResourceMonitor
from mtaio.testing import assert_no_checkpoints, run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from mtaio.statistics import PeriodicStatistics

every: Any = TaskExecutor.every


class Work:
    """What is run: it takes some seconds, and notes when it began and ended."""

    def __init__(self, *seconds: float, errors: bool = False) -> None:
        self.seconds = seconds or (0.0,)
        self.errors = errors
        self.began: list[float] = []
        self.cancelled: list[float] = []
        self.running = 0

    async def __call__(self) -> None:
        """Make a run; there is never another one at the time."""
        assert not self.running
        number = len(self.began)
        self.began.append(time())
        self.running += 1
        try:
            await anyio.sleep(self.seconds[min(number, len(self.seconds) - 1)])
        except BaseException:
            self.cancelled.append(time())
            raise
        finally:
            self.running -= 1
        if self.errors:
            msg = f"run {number}"
            raise OSError(msg)


def time() -> float:
    """Return the time of the event loop, without what rounding adds."""
    return round(anyio.current_time(), 6)


def check(task: PeriodicTask) -> PeriodicStatistics:
    """Return the statistics of a task that has ended, in which each run has ended once."""
    found = task.statistics()
    assert found.runs == found.succeeded + found.failed + found.cancelled
    assert not found.running
    assert not found.leading
    assert found.next_start is None
    return found


# ---- ticks ---------------------------------------------------------------------------------------


async def test_runs_begin_at_multiples_of_the_period() -> None:
    """However long they take, and without drift over many."""
    work = Work(0.05, 0.02, 0.09)
    async with TaskExecutor() as executor:
        with assert_no_checkpoints():
            task = executor.every(0.1, work)
        await anyio.sleep(100.01)
        assert task.statistics().leading
        assert task.statistics().next_start == pytest.approx(clock.wall() + 0.09)
    assert work.began == [round(0.1 * number, 6) for number in range(1001)]
    found = check(task)
    assert (found.runs, found.skipped, found.runs_since_success, found.last_error) == (
        1001,
        0,
        0,
        "",
    )
    assert found.last_duration_seconds == pytest.approx(0.09)


@pytest.mark.parametrize(
    ("overlap", "seconds", "began", "skipped"),
    [
        ("skip", 1.5, [0, 2, 4, 6], 4),
        ("skip", 1.0, [0, 1, 2, 3, 4, 5, 6], 0),
        ("skip", 3.2, [0, 4], 6),
        ("queue", 1.5, [0, 1.5, 3, 4.5, 6], 2),
        ("queue", 3.2, [0, 3.2], 2),
        ("cancel", 1.5, [0, 1, 2, 3, 4, 5, 6], 0),
        ("cancel", 0.5, [0, 1, 2, 3, 4, 5, 6], 0),
    ],
)
async def test_overlap(overlap: str, seconds: float, began: list[float], skipped: int) -> None:
    """A tick at which the run before goes on is left out, waits, or cancels that run."""
    work = Work(seconds)
    async with TaskExecutor(1) as executor:
        task = every(executor, 1, work, overlap=overlap)
        await anyio.sleep(6.01)
    assert work.began == began
    found = check(task)
    assert found.skipped == skipped
    cancelled = 7 if (overlap, seconds) == ("cancel", 1.5) else 0
    assert (found.cancelled, found.runs_since_success) == (cancelled, cancelled)


async def test_run_that_does_not_end_when_cancelled() -> None:
    """Is waited for: two never run at once; the ticks meanwhile count as skipped."""
    work = Work()

    async def stubborn() -> None:
        try:
            await anyio.sleep(5)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2.5)
            await work()

    async with TaskExecutor() as executor:
        task = executor.every(1, stubborn, overlap="cancel")
        await anyio.sleep(7.3)
        task.cancel()
        await task.wait()
    assert work.began == [3.5, 6.5, 9.5]
    assert check(task).skipped == 4


async def test_ticks_that_passed_while_the_loop_was_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One run follows, and the others are counted; the ticks stay where they were."""
    work, late = Work(), 0.0
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + late)
    async with TaskExecutor() as executor:
        task = executor.every(10, work)
        await anyio.sleep(15)
        late = 37.0  # at 20 it is 57: the run is that of 50, and the next is due at 60
        await anyio.sleep(9)
    assert work.began == [0, 10, 20, 23]
    assert check(task).skipped == 3


async def test_first_run_and_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once or a period later; each is late by a random part of the jitter, and no more."""
    draws = iter([0.5, 0.0, 0.75, 0.25])
    monkeypatch.setattr(random, "random", lambda: next(draws))
    plain, later = Work(), Work()
    async with TaskExecutor() as executor:
        executor.every(10, plain, first="now", jitter=4)
        executor.every(10, later, first="later")
        await anyio.sleep(25)
    assert plain.began == [2, 10, 23]
    assert later.began == [10, 20]


@pytest.mark.parametrize("start", [0.0, 0.1, 946_684_800.0, 12_345.678])
def test_interval_arithmetic(start: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tick is after the one before, none is left out, and rounding moves none."""
    monkeypatch.setattr(clock, "now", lambda: start)
    for seconds in (0.1, 0.3, 1 / 3, 0.7, 1.1, 49.0):
        ticks = Interval(seconds, on_wall=False)
        for number in range(1, 2000):
            tick = start + number * seconds
            before = start + (number - 1) * seconds
            assert ticks.after(before) == tick
            assert ticks.pass_to(before, tick) == (tick, 1)
            just_before = tick - abs(tick) * 2**-53
            if before < just_before < tick:
                assert ticks.pass_to(before, just_before) == (before, 0)


# ---- runs ----------------------------------------------------------------------------------------


async def test_failures_are_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """And the schedule goes on; a timeout and the attempts of a retry are each run's own."""
    work = Work(errors=True)
    slow = Work(5)
    async with TaskExecutor() as executor:
        failing = executor.every(10, work, retry=Retry(3, wait_initial=1, jitter=0), name="job")
        late = executor.every(10, slow, timeout=2)
        await anyio.sleep(15)
    assert work.began == [0, 1, 3, 10, 11, 13]
    assert slow.cancelled == [2, 12]
    assert (check(failing).failed, check(failing).last_error) == (2, "OSError")
    assert (check(late).failed, check(late).last_error) == (2, "TimeoutError")
    assert executor.statistics().retried == 4
    errors = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert [each.name for each in errors] == ["mtaio.core"] * 4
    assert "job failed" in caplog.text


async def test_health() -> None:
    """Fails when three ticks brought no success and the next is due, and is well after one."""
    states: list[str | None] = []
    work = Work(errors=True)
    async with TaskExecutor() as executor:
        task = executor.every(10, work, jitter=1)
        await anyio.sleep(41)
        assert task.check_health() is None
        await anyio.sleep(0.5)
        states.append(task.check_health())
        work.errors = False
        await anyio.sleep(10)
        assert task.check_health() is None
        work.errors = True
        await anyio.sleep(50)
        states.append(task.check_health())
        work.seconds = (1000.0,)  # a run that hangs does not succeed either
        work.errors = False
        await checkpoint()
        task.cancel()
    assert states[0] == "no run has succeeded, in 5 attempts; the last raised OSError"
    assert states[1] is not None
    assert states[1].startswith("no run has succeeded for 5")
    assert task.check_health() is None


async def test_a_run_is_an_item() -> None:
    """It takes a slot of the executor, and the ticks that pass while it waits are skipped."""
    work = Work(1)
    async with TaskExecutor(1) as executor:
        holder = await executor.submit(anyio.sleep, 4.5)
        task = executor.every(1, work)
        await anyio.sleep(4)
        assert (task.statistics().running, work.began) == (True, [])
        await holder
        await anyio.sleep(3)
    assert work.began == [4.5, 6, 7]
    assert check(task).skipped == 5


async def test_runs_share_no_context() -> None:
    """What a run sets in its context is not there in the next."""
    seen: list[int] = []
    variable = ContextVar("variable", default=0)

    async def work() -> None:
        seen.append(variable.get())
        variable.set(1)
        await checkpoint()
        seen.append(variable.get())

    async with TaskExecutor() as executor:
        executor.every(1, work)
        await anyio.sleep(1.5)
    assert seen == [0, 1, 0, 1]
    assert variable.get() == 0


async def test_plain_functions_and_arguments() -> None:
    """Run in worker threads, with the arguments that were given."""
    got: list[tuple[int, str]] = []
    async with TaskExecutor() as executor:
        task = executor.every(1, lambda x, y: got.append((x, y)), 1, "a", name="plain")
        await anyio.sleep(1.5)
    assert got == [(1, "a"), (1, "a")]
    assert repr(task) == "<PeriodicTask 'plain'>"


async def test_a_monitor_watches_it() -> None:
    """Its figures are metrics."""
    monitor = ResourceMonitor()
    async with TaskExecutor() as executor:
        task = monitor.watch(executor.every(1, Work(), name="clean"))
        await anyio.sleep(2.5)
        await monitor.tick()
        values = monitor.values()
    assert values["periodic_task.clean.runs"] == check(task).runs == 3
    assert values["periodic_task.clean.last_success"] == clock.wall() - 0.5
    assert values["periodic_task.clean.leading"] == 1


# ---- its end -------------------------------------------------------------------------------------


async def test_leaving_the_block_lets_a_run_end() -> None:
    """None begins any more, or a block might never end; what the last submits is drained too."""
    work, more = Work(0.4), Work(0.9)

    async def submit() -> None:
        await work()
        await executor.submit(more)

    async with TaskExecutor() as executor:
        task = executor.every(1, submit)
        await executor.submit(anyio.sleep, 5)
        await anyio.sleep(2.2)
    assert work.began == [0, 1, 2]
    assert more.began == [0.4, 1.4, 2.4]
    assert time() == 5
    assert check(task).succeeded == 3


async def test_stop_and_cancel() -> None:
    """Stopped, the run ends by itself; cancelled, at once; twice is once."""
    work, other = Work(0.5), Work(0.5)
    async with TaskExecutor() as executor:
        first = executor.every(1, work)
        second = executor.every(1, other)
        third = executor.every(1, Work(), first="later")
        third.stop()
        await anyio.sleep(1.25)
        for task in (first, second):
            task.stop()
            task.stop()
        second.cancel()
        second.cancel()
        await second.wait()
        assert (time(), other.cancelled) == (1.25, [1.25])
        await first.wait()
        assert (time(), work.cancelled) == (1.5, [])
        assert executor.statistics().services == 0
        fourth = executor.every(1, work)
        executor.cancel()
        await fourth.wait()
    assert check(second).cancelled == 1
    assert check(third).runs == 0


async def test_more_than_an_error_ends_the_block() -> None:
    """What is no ``Exception`` is not for the log alone."""

    class Exit(BaseException):
        pass

    async def leave() -> None:
        raise Exit

    with pytest.raises(Exit):  # noqa: PT012 - the block is what fails
        async with TaskExecutor() as executor:
            task = executor.every(1, leave)
            await anyio.sleep_forever()
    assert check(task).failed == 1


async def test_cancelled_before_its_first_step() -> None:
    """It has ended, and who waits for it goes on."""
    with anyio.CancelScope() as scope:
        async with TaskExecutor() as executor:
            task = executor.every(1, Work())
            scope.cancel()
    await task.wait()
    task.stop()
    task.cancel()
    assert task.statistics().runs == 0


def test_natively_cancelled_before_its_first_step() -> None:
    """Likewise; and where the event loop refuses its task, there is none."""

    async def main(tasks: list[PeriodicTask], this: object) -> None:
        async with TaskExecutor() as executor:
            tasks.append(executor.every(1, Work()))
            for each in asyncio.all_tasks() - {this}:
                each.cancel()
            await anyio.sleep(1)

    async def scenario() -> None:
        tasks: list[PeriodicTask] = []
        this = asyncio.current_task()
        alone = asyncio.create_task(main(tasks, this))
        await asyncio.wait([alone])
        assert alone.cancelled()
        await tasks[0].wait()
        assert check(tasks[0]).runs == 0

        def refuse(_: object, coroutine: Any, **__: object) -> Any:
            coroutine.close()
            msg = "no more tasks"
            raise RuntimeError(msg)

        loop = asyncio.get_running_loop()
        async with TaskExecutor() as executor:
            loop.set_task_factory(refuse)
            with pytest.raises(RuntimeError, match=r"^no more tasks$"):
                executor.every(1, Work())
            loop.set_task_factory(None)
            assert executor.statistics().services == 0

    run(scenario, backend="asyncio")


# ---- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "options", "error", "message"),
    [
        (0, {}, ValueError, "^period=0 is not a finite number greater than 0. Pass the seconds"),
        ("60", {}, TypeError, r"such as 60 or delta\.total_seconds\(\), or Cron"),
        (1, {"first": "soon"}, ValueError, "^first='soon' is unknown"),
        (1, {"overlap": "both"}, ValueError, "^overlap='both' is unknown"),
        (1, {"jitter": -1}, ValueError, "^jitter=-1 is less than 0"),
        (1, {"jitter": 1}, ValueError, "^jitter=1 is not less than the period, 1"),
        (1, {"timeout": -1}, ValueError, "^timeout=-1 is less than 0"),
        (1, {"retry": 0}, ValueError, "^retry=0 is less than 1"),
        (1, {"leader": "me"}, TypeError, r"^leader='me' is a str, which has no wait_leader\(\)"),
        (1, {"name": 3}, TypeError, "^name=3 is an int, not a str"),
    ],
)
async def test_refused_options(
    period: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Name the value, the reason and the way out."""
    async with TaskExecutor() as executor:
        with pytest.raises(error, match=message):
            every(executor, period, Work(), **options)


async def test_refused_calls() -> None:
    """Outside of a block, in one that closes, and of what is no function."""
    executor = TaskExecutor()
    with pytest.raises(RuntimeError, match=r"is not entered, and every\(\) works only inside"):
        executor.every(1, Work())
    async with executor:
        coroutine = Work()()
        with pytest.raises(TypeError, match=r"arguments: every\(period, fn, \*args\)\.$"):
            every(executor, 1, coroutine)
        coroutine.close()
        for args, call in (((), r"sleep\(\)"), ((1, "b"), r"sleep\(1, 'b'\)")):
            message = (
                rf"^fn=.* cannot be called as {call}: .*after it: every\(period, fn, \*args\)\."
            )
            with pytest.raises(TypeError, match=message):
                every(executor, 1, anyio.sleep, *args)
        handle = await executor.submit(anyio.sleep, 1)
        async with anyio.create_task_group() as group:
            group.start_soon(executor.drain)
            await anyio.sleep(0.5)
            with pytest.raises(RuntimeError, match="is draining and takes no new work"):
                executor.every(1, Work())
        assert handle.done


# ---- cron ----------------------------------------------------------------------------------------


def at(text: str, zone: str = "UTC") -> datetime:
    """Return a moment."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def ticks_of(cron: Cron, moment: datetime, count: int) -> list[str]:
    """Return the ticks after a moment, in the time zone of the expression."""
    found: list[str] = []
    for _ in range(count):
        moment = cron.after(moment)
        found.append(moment.strftime("%d %H:%M %z"))
    return found


def test_cron_in_the_hour_that_is_missing_and_the_one_that_comes_twice() -> None:
    """Each tick comes once, and none is left out."""
    night = Cron("30 2 * * *", tz="Europe/Berlin")
    assert ticks_of(night, at("2026-03-28T12:00", "Europe/Berlin"), 2) == [
        "29 03:00 +0200",
        "30 02:30 +0200",
    ]
    assert ticks_of(night, at("2026-10-24T12:00", "Europe/Berlin"), 2) == [
        "25 02:30 +0200",
        "26 02:30 +0100",
    ]
    second = at("2026-10-25T02:10", "Europe/Berlin").replace(fold=1)
    assert ticks_of(night, second, 1) == ["26 02:30 +0100"]  # not the first 02:30, which is over
    half_hours = Cron("*/30 * * * *", tz="Europe/Berlin")
    assert ticks_of(half_hours, at("2026-10-25T01:45", "Europe/Berlin"), 5) == [
        "25 02:00 +0200",
        "25 02:30 +0200",
        "25 02:00 +0100",
        "25 02:30 +0100",
        "25 03:00 +0100",
    ]
    assert ticks_of(half_hours, at("2026-03-29T01:45", "Europe/Berlin"), 2) == [
        "29 03:00 +0200",
        "29 03:30 +0200",
    ]


async def test_cron_by_the_time_of_day() -> None:
    """The first run is at a tick; in virtual time it is always the same day."""
    work = Work()
    async with TaskExecutor() as executor:
        executor.every(Cron("*/5 * * * *"), work)
        now = executor.every(Cron("0 6 * * *", tz=UTC), Work(), first="now")
        await anyio.sleep(1000)
        assert now.statistics().runs == 1
        assert now.statistics().next_start == at("2000-01-01T06:00").timestamp()
    assert work.began == [300, 600, 900]


async def test_cron_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward: one run follows within a minute. Back: no tick twice, unless it is by far."""
    work, shift = Work(), 0.0
    wall = clock.wall
    monkeypatch.setattr(clock, "wall", lambda: wall() + shift)
    async with TaskExecutor() as executor:
        task = executor.every(Cron("*/10 * * * *"), work)
        await anyio.sleep(650)
        assert work.began == [600]
        shift = 3600  # 1:10:50, and ticks from 0:20 to 1:10 have passed
        await anyio.sleep(70)
        assert work.began == [600, 660]
        assert task.statistics().skipped == 5
        shift = 0  # 0:12:00
        await anyio.sleep(4200)
        assert work.began == [600, 660, 4800]  # 1:20, after the one at 1:10
        shift = -86_400
        await anyio.sleep(1200)
        assert work.began == [600, 660, 4800, 5400, 6000]
        shift = 365 * 86_400
        await anyio.sleep(90)
        assert task.statistics().skipped >= 1000


async def test_cron_when_the_clock_is_set_back_during_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By far: it does not wait until the time has come again that it was."""
    work, shift = Work(100), 0.0
    wall = clock.wall
    monkeypatch.setattr(clock, "wall", lambda: wall() + shift)
    async with TaskExecutor() as executor:
        executor.every(Cron("*/10 * * * *"), work)
        await anyio.sleep(650)
        shift = -86_400
        await anyio.sleep(1250)
    assert work.began == [600, 1200, 1800]


def test_cron_that_was_far_off_is_not_counted() -> None:
    """A year of seconds is no reason to stand still."""
    ticks = CronTicks(Cron("* * * * * *"))
    assert ticks.pass_to(0.0, 31_536_000.5) == (31_536_000.5, 1000)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("* * *",), ValueError, r"^expression='\* \* \*' cannot be read: Wrong number of fields"),
        (("61 * * * *",), ValueError, r"^expression='61 .*' cannot be read: Bad minute"),
        (("0 0 */31 * MON#2",), ValueError, "^expression=.* is never due"),
        ((5,), TypeError, "^expression=5 is an int, not a str"),
        (("* * * * *", "Mars/Olympus"), ValueError, "^tz='Mars/Olympus' is not known here"),
        (("* * * * *", 9), TypeError, "^tz=9 is an int"),
    ],
)
def test_refused_cron(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    """Names the value, the reason and the way out."""
    make: Callable[..., Cron] = Cron
    expression, *zone = arguments
    with pytest.raises(error, match=message):
        make(expression, **({"tz": zone[0]} if zone else {}))


def test_cron_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says how to get it; and a moment needs its time zone."""
    cron = Cron("* * * * *", tz="Asia/Tokyo")
    assert repr(cron) == "Cron('* * * * *', tz='Asia/Tokyo')"
    with pytest.raises(ValueError, match="has no time zone"):
        cron.after(datetime(2026, 1, 1))  # noqa: DTZ001 - what is tested
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ImportError, match=r"^Cron needs cronsim. Install it with: pip install"):
        Cron("* * * * *")


# ---- leaders -------------------------------------------------------------------------------------


class Election:
    """Several processes, of which one leads at a time, and what all of them have claimed."""

    def __init__(self) -> None:
        self.ticks: dict[str, float] = {}
        self.fails = 0

    def claim(self, schedule: str, tick: float) -> bool:
        """Claim a tick, unless that is refused."""
        if self.fails:
            self.fails -= 1
            msg = "no server"
            raise OSError(msg)
        if tick <= self.ticks.get(schedule, 0.0):
            return False
        self.ticks[schedule] = tick
        return True


class Candidate:
    """One process of them."""

    def __init__(self, election: Election) -> None:
        self._election = election
        self._leads = anyio.Event()
        self._scope = anyio.CancelScope()

    async def wait_leader(self) -> None:
        """Wait to be elected."""
        await self._leads.wait()

    @contextmanager
    def hold(self) -> Generator[Candidate]:
        """Lead."""
        with anyio.CancelScope() as self._scope:
            yield self
        if self._scope.cancelled_caught:
            msg = "voted out"
            raise LeaseLostError(msg)

    async def last_tick(self, schedule: str) -> float | None:
        """Return the last tick."""
        return self._election.ticks.get(schedule)

    async def claim_tick(self, schedule: str, tick: float) -> bool:
        """Claim a tick."""
        return self._election.claim(schedule, tick)

    def elect(self) -> None:
        """Lead from now on."""
        self._leads.set()

    def vote_out(self) -> None:
        """Lead no more."""
        self._leads = anyio.Event()
        self._scope.cancel()


async def test_leader_alone_makes_runs() -> None:
    """Each tick is run once; when another leads, it goes on where the first was interrupted."""
    election = Election()
    first, second = Candidate(election), Candidate(election)
    works = Work(4), Work(4)
    await anyio.sleep(3)
    async with TaskExecutor() as executor:
        tasks = [
            executor.every(10, work, name="work", leader=leader, overlap="queue")
            for work, leader in zip(works, (first, second), strict=True)
        ]
        first.elect()
        await anyio.sleep(19)  # 22: the run that began at 20 goes on
        assert [each.statistics().leading for each in tasks] == [True, False]
        first.vote_out()
        await anyio.sleep(20.5)
        second.elect()  # 42.5: the ticks at 30 and 40 have passed
        await anyio.sleep(10)
        election.ticks["work"] += 10  # somebody has claimed the one at 60
        await anyio.sleep(10)
    assert works[0].began == [3, 10, 20]
    assert works[0].cancelled == [22]
    assert works[1].began == [42.5, 50]
    assert [check(each).skipped for each in tasks] == [0, 2]
    assert check(tasks[0]).cancelled == 1


async def test_leader_that_is_voted_out_when_it_is_to_stop() -> None:
    """It does not stand for election again: leaving the block would never end."""
    leader, work = Candidate(Election()), Work(50)
    leader.elect()
    async with anyio.create_task_group() as group, TaskExecutor() as executor:
        task = executor.every(100, work, leader=leader)
        await anyio.sleep(1)

        async def vote_out() -> None:
            await anyio.sleep(5)
            leader.vote_out()

        group.start_soon(vote_out)
    assert work.cancelled == [6]
    assert check(task).cancelled == 1


async def test_leader_that_fails_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """After a pause; the tick that it could not claim is made up for."""
    election = Election()
    election.fails = 1
    leader, work = Candidate(election), Work()
    leader.elect()
    async with TaskExecutor() as executor:
        executor.every(10, work, leader=leader, first="later")
        idle = executor.every(10, Work(), leader=Candidate(election))
        await anyio.sleep(25)
    assert work.began == [20]
    assert "its leader failed" in caplog.text
    assert check(idle).runs == 0


async def test_ticks_of_a_leader_are_those_of_the_day() -> None:
    """As processes have no other clock in common; those of a cron expression are anyway."""
    election = Election()
    election.ticks["cron"] = at("1999-12-31T23:55").timestamp()
    leader, work, cron = Candidate(election), Work(), Work()
    leader.elect()
    await anyio.sleep(42)
    async with TaskExecutor() as executor:
        executor.every(60, work, leader=leader, first="later")
        executor.every(Cron("*/5 * * * *"), cron, name="cron", leader=leader)
        await anyio.sleep(300)
    assert work.began == [60, 120, 180, 240, 300]
    assert cron.began == [42, 300]  # the one at 0:00 was made up for
    assert timedelta(seconds=election.ticks["cron"]) % timedelta(minutes=5) == timedelta()
