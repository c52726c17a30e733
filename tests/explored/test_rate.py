"""RateLimiter under many schedules, cancelled everywhere."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio import exceptions
from mtaio._internal import clock
from mtaio._internal.checkpoints import FAST_CALLS
from mtaio.resources import RateLimiter
from mtaio.testing import (
    Simulation,
    Victim,
    assert_checkpoints,
    assert_no_checkpoints,
    assert_quiescent,
    settle,
)
from tests.explored.refilled import TICK, Refilled
from tests.explored.searches import Line, explored, together
from tests.resources.timers import live_timers

if TYPE_CHECKING:
    from collections.abc import Generator


class Watched:
    """
    A limiter without slack, its line and its tokens, with what must hold after every step.

    Args:
        sim: Where it is watched.
        rate: Tokens a second.
        burst: What the bucket holds.
    """

    def __init__(self, sim: Simulation, rate: float, burst: float) -> None:
        self.limiter = RateLimiter(rate, burst=burst, slack=0)
        self.bucket = Refilled(rate, burst)
        self.line = Line()
        self.grants: list[tuple[str, float]] = []
        self.timers = live_timers()
        self.sleepers = 0  # tasks of the scenario that have set timers of their own
        self._sim = sim
        self._over = False
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether the limiter keeps its promise at this moment."""
        if self._over:
            return True
        now = self.limiter.statistics()
        right = abs(now.tokens - max(0.0, self.bucket.look())) <= TICK
        timers = live_timers() - self.timers - self.sleepers
        return right and timers <= (now.waiting > 0) and now.waiting <= len(self.line)

    def change(self, *, rate: float | None = None, burst: float | None = None) -> None:
        """Change the limits."""
        self.bucket.change(rate=rate, burst=burst)
        self.limiter.reconfigure(rate=rate, burst=burst)

    @contextmanager
    def asking(self, name: str, tokens: float = 1) -> Generator[None]:
        """Be in the queue inside the block."""
        self.line.asks(name)
        try:
            yield
        except BaseException:
            self.line.leaves(name)
            raise
        # A task that asked before and still waits would have been overtaken.
        assert self.line.gets(name) == 0, self.line.served
        self.bucket.take(tokens)
        self.grants.append((name, self._sim.time()))

    async def work(self, name: str, tokens: float = 1, timeout: float | None = None) -> None:
        """Ask for tokens once."""
        with self.asking(name, tokens):
            self.sleepers += timeout is not None  # it has a timer beside that of the first
            try:
                await self.limiter.acquire(tokens, timeout=timeout)
            finally:
                self.sleepers -= timeout is not None

    def ends(self, *served: str) -> None:
        """Make sure that nothing is left, and that the tasks not cancelled were served."""
        self._over = True  # the clock may be another from here on
        now = self.limiter.statistics()
        assert set(served) <= set(self.line.served)
        assert now.acquired == len(self.line.served)
        assert now.cancelled + now.rejected + now.timed_out == len(self.line.left)
        assert len(self.line) == 0
        assert live_timers() == self.timers
        assert_quiescent(self.limiter)


@explored
async def test_one_token_a_second(victim: Victim, sim: Simulation) -> None:
    """Four want the one token a second: in order, one a second, a cancelled one costs none."""
    watched = Watched(sim, 1, 1)
    await together(
        a=lambda: watched.work("a"),
        victim=lambda: victim(watched.work, "victim"),
        b=lambda: watched.work("b"),
        c=lambda: watched.work("c"),
    )
    watched.ends("a", "b", "c")
    assert [moment for _, moment in watched.grants] == list(range(len(watched.grants)))


@explored
async def test_weights(victim: Victim, sim: Simulation) -> None:
    """Requests of one to three tokens at once: a small one never overtakes a large one."""
    watched = Watched(sim, 2, 3)
    await together(
        a=lambda: watched.work("a", 2),
        victim=lambda: victim(watched.work, "victim", 3),
        b=lambda: watched.work("b", 1),
        c=lambda: watched.work("c", 2.5),
        d=lambda: watched.work("d", 0.5),
    )
    watched.ends("a", "b", "c", "d")
    tokens = {"a": 2, "victim": 3, "b": 1, "c": 2.5, "d": 0.5}
    # Only a head that gives up as its tokens come has let time pass for nothing.
    assert victim.cancelled or sim.time() == (sum(tokens.values()) - 3) / 2


@explored
async def test_waiters_give_up_as_tokens_come(victim: Victim, sim: Simulation) -> None:
    """The head's tokens are there and waiters are cancelled by others, all at one moment."""
    watched = Watched(sim, 1, 1)
    first, second = anyio.CancelScope(), anyio.CancelScope()

    async def quitter(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            await watched.work(name)

    async def other() -> None:
        watched.sleepers += 1
        await anyio.sleep(1)
        watched.sleepers -= 1
        first.cancel()
        await checkpoint()
        second.cancel()

    await together(
        a=lambda: watched.work("a"),
        other=other,
        first=lambda: quitter("first", first),
        victim=lambda: victim(watched.work, "victim"),
        second=lambda: quitter("second", second),
        last=lambda: watched.work("last"),
    )
    watched.ends("a", "last")


@explored
async def test_limits_change_while_tasks_wait(victim: Victim, sim: Simulation) -> None:
    """Slower, faster, a larger and a smaller bucket, while the head sleeps for its tokens."""
    watched = Watched(sim, 1, 1)

    async def operator() -> None:
        watched.change(rate=0.5)
        await checkpoint()
        watched.change(burst=2)
        await checkpoint()
        watched.change(rate=4)
        await checkpoint()
        watched.change(burst=1)

    await together(
        a=lambda: watched.work("a"),
        b=lambda: watched.work("b"),
        victim=lambda: victim(watched.work, "victim"),
        operator=operator,
        c=lambda: watched.work("c"),
    )
    watched.ends("a", "b", "c")


@explored
async def test_pause(victim: Victim, sim: Simulation) -> None:
    """While the rate is 0 no task has a timer; set to something again, it goes on in order."""
    watched = Watched(sim, 1, 1)

    async def operator() -> None:
        watched.change(rate=0)
        watched.sleepers += 1
        await anyio.sleep(10)
        watched.sleepers -= 1
        watched.change(rate=2)

    await together(
        a=lambda: watched.work("a"),
        b=lambda: watched.work("b"),
        victim=lambda: victim(watched.work, "victim"),
        operator=operator,
        c=lambda: watched.work("c"),
    )
    watched.ends("a", "b", "c")


@explored
async def test_the_operator_is_the_victim(victim: Victim, sim: Simulation) -> None:
    """The task that sets the rate may be cancelled after it: the waiters have been told."""
    watched = Watched(sim, 1, 1)

    async def operator() -> None:
        await checkpoint()
        watched.change(rate=0.25)
        await checkpoint()
        watched.change(rate=4)

    await together(
        a=lambda: watched.work("a"),
        b=lambda: watched.work("b"),
        victim=lambda: victim(operator),
        c=lambda: watched.work("c"),
    )
    watched.ends("a", "b", "c")
    assert sim.time() == 8 if watched.limiter.rate == 0.25 else sim.time() in {0.5, 2.0}


@explored
async def test_bucket_becomes_too_small(victim: Victim, sim: Simulation) -> None:
    """A task that asks for more than the new bucket can hold is told so; those behind move up."""
    watched = Watched(sim, 1, 4)
    refused: list[tuple[str, float]] = []

    async def demanding(name: str) -> None:
        try:
            await watched.work(name, 4)
        except (exceptions.RateLimitError, ValueError):  # the latter if asked after the change
            refused.append((name, sim.time()))

    async def operator() -> None:
        await checkpoint()
        watched.change(burst=2)

    await together(
        a=lambda: watched.work("a", 2),
        demanding=lambda: demanding("demanding"),
        victim=lambda: victim(demanding, "victim"),
        operator=operator,
        b=lambda: watched.work("b", 2),
    )
    assert {"a", "b"} <= set(watched.line.served)
    statistics = watched.limiter.statistics()
    assert statistics.acquired == len(watched.line.served)
    assert set(refused) <= {("demanding", 0.0), ("victim", 0.0)}  # at once, not when they are first
    assert set(watched.line.left) - {"victim"} <= {name for name, _ in refused}
    assert_quiescent(watched.limiter)


@explored
async def test_patience(victim: Victim, sim: Simulation) -> None:
    """A wait that cannot fit is refused at once, one that fits is kept, though not by all."""
    watched = Watched(sim, 1, 1)
    late: list[tuple[float, float | None]] = []

    async def patient(name: str, timeout: float) -> None:
        try:
            await watched.work(name, timeout=timeout)
        except exceptions.LimitTimeoutError as error:
            late.append((sim.time(), error.retry_after))

    await together(
        a=lambda: watched.work("a"),
        victim=lambda: victim(patient, "victim", 1),
        b=lambda: patient("b", 1),
        c=lambda: patient("c", 2),
        d=lambda: watched.work("d"),
    )
    watched.ends("a", "d")
    assert all(moment == 0 and wait is not None and wait > 1 for moment, wait in late)


@explored
async def test_who_has_left_is_not_waited_for(victim: Victim, sim: Simulation) -> None:
    """Whether a wait fits is judged by the tasks that still wait."""
    watched = Watched(sim, 1, 5)
    quits = anyio.CancelScope()

    async def quitter() -> None:
        with quits:
            await watched.work("quitter", 5)

    async def patient() -> None:
        await settle()
        quits.cancel()
        await settle()
        ahead = sum(5 if name == "a" else 1 for name in watched.line.names)
        wait = ahead + 1 - watched.bucket.look()
        with pytest.raises(exceptions.RateLimitError) as info:
            watched.limiter.acquire_nowait()
        assert info.value.retry_after == wait
        await watched.work("patient", timeout=wait)

    await together(
        a=lambda: watched.work("a", 5),
        b=lambda: watched.work("b"),
        quitter=quitter,
        victim=lambda: victim(watched.work, "victim"),
        patient=patient,
    )
    assert {"a", "b", "patient"} <= set(watched.line.served)
    assert_quiescent(watched.limiter)


@explored
async def test_patience_ends_when_the_rate_drops(victim: Victim, sim: Simulation) -> None:
    """Admitted, a task whose tokens then come too late gives up at its deadline, first or not."""
    watched = Watched(sim, 1, 1)
    late: list[tuple[str, float]] = []

    async def patient(name: str, timeout: float) -> None:
        try:
            await watched.work(name, timeout=timeout)
        except exceptions.LimitTimeoutError:
            late.append((name, sim.time()))

    async def operator() -> None:
        await checkpoint()
        watched.change(rate=0.125)
        watched.sleepers += 1
        await anyio.sleep(3)
        watched.sleepers -= 1
        watched.change(rate=1)

    await together(
        a=lambda: watched.work("a"),
        victim=lambda: victim(watched.work, "victim"),
        b=lambda: patient("b", 3),
        c=lambda: patient("c", 3.5),
        operator=operator,
    )
    watched.ends("a")
    assert set(late) <= {("b", 3.0), ("c", 3.5), ("b", 0.0), ("c", 0.0)}


@explored
async def test_event_loop_stands_still(victim: Victim, sim: Simulation) -> None:
    """However late all are woken, what they missed is not made up for by a flood."""
    lost = 0.0
    with clock.reading_from(lambda: sim.time() + lost):
        watched = Watched(sim, 1, 1)

        async def blocking() -> None:
            nonlocal lost
            await checkpoint()
            lost += 7.5  # the clock goes on while no task runs

        await together(
            a=lambda: watched.work("a"),
            victim=lambda: victim(watched.work, "victim"),
            b=lambda: watched.work("b"),
            blocking=blocking,
            c=lambda: watched.work("c"),
        )
        watched.ends("a", "b", "c")


@explored
async def test_no_task_barges_in(victim: Victim, sim: Simulation) -> None:
    """acquire_nowait gets tokens only when no task waits for them, and counts what it refuses."""
    watched = Watched(sim, 1, 2)

    async def barger() -> None:
        for name in ("x", "y", "z"):
            try:
                with watched.asking(name):
                    watched.limiter.acquire_nowait()
            except exceptions.RateLimitError as error:
                watched.sleepers += 1
                await anyio.sleep(error.retry_after)
                watched.sleepers -= 1

    await together(
        a=lambda: watched.work("a"),
        victim=lambda: victim(watched.work, "victim", 2),
        barger=barger,
        b=lambda: watched.work("b"),
    )
    watched.ends("a", "b")


@explored
async def test_the_call_that_must_yield(victim: Victim, sim: Simulation) -> None:
    """The 64th call yields before it takes anything: cancelled there, it costs nothing."""
    watched = Watched(sim, 1, 120)
    for _ in range(FAST_CALLS - 1):
        with assert_no_checkpoints():
            watched.limiter.acquire_nowait()
        watched.bucket.take(1)

    async def ask(name: str) -> None:
        first = not (watched.line or watched.line.served or watched.line.left)
        with assert_checkpoints() if first else nullcontext():
            await watched.work(name, 10)

    await together(a=lambda: victim(ask, "victim"), b=lambda: ask("b"), c=lambda: ask("c"))
    assert {"b", "c"} <= set(watched.line.served)
    assert watched.limiter.statistics().acquired == FAST_CALLS - 1 + len(watched.line.served)
    assert_quiescent(watched.limiter)


@explored
async def test_the_calls_that_must_yield_later(victim: Victim, sim: Simulation) -> None:
    """Such a call for one token, once the queue was used: first come, first served, no less."""
    watched = Watched(sim, 1, 2 * FAST_CALLS + 1)
    for number in range(2 * FAST_CALLS - 1):
        with assert_checkpoints() if number == FAST_CALLS - 1 else assert_no_checkpoints():
            await watched.work(f"before {number}")

    async def changes() -> None:
        watched.change(rate=0)
        await checkpoint()
        watched.change(rate=1)

    await together(
        a=lambda: victim(watched.work, "victim"),
        b=lambda: watched.work("b"),
        changes=changes,
        c=lambda: watched.work("c"),
    )
    watched.ends("b", "c")


@explored
async def test_decorated_function(victim: Victim, sim: Simulation) -> None:
    """A limited function starts no more often than it may, and not at all when cancelled before."""
    limiter = RateLimiter(2, burst=1, slack=0)
    bucket = Refilled(2, 1)
    started: dict[int, float] = {}

    @limiter
    async def begin(number: int) -> None:
        bucket.take(1)
        started[number] = sim.time()
        await checkpoint()
        raise LookupError(number)

    async def call(number: int) -> None:
        with pytest.raises(LookupError, match=f"^{number}$"):
            await begin(number)

    await together(one=lambda: call(1), victim=lambda: victim(call, 2), three=lambda: call(3))
    assert list(started.values()) == [number / 2 for number in range(len(started))]
    assert {1, 3} <= started.keys()
    assert_quiescent(limiter)


@explored
async def test_refusals_disturb_no_task(victim: Victim, sim: Simulation) -> None:
    """What is refused, at any moment, leaves the tokens and the queue alone."""
    watched = Watched(sim, 1, 1)

    async def confused() -> None:
        for _ in range(2):
            with pytest.raises(ValueError, match=r"^cannot acquire 2 tokens: "):
                await watched.limiter.acquire(2)
            with pytest.raises(ValueError, match=r"^tokens=-1 is "):
                watched.limiter.acquire_nowait(-1)
            with pytest.raises(ValueError, match=r"^rate=-1 is "):
                watched.limiter.reconfigure(rate=-1, burst=7)
            await watched.limiter.acquire(0)
            await checkpoint()

    await together(
        a=lambda: watched.work("a"),
        victim=lambda: victim(watched.work, "victim"),
        confused=confused,
        b=lambda: watched.work("b"),
    )
    assert {"a", "b"} <= set(watched.line.served)
    assert watched.limiter.statistics().acquired == len(watched.line.served) + 2
    assert_quiescent(watched.limiter)


@explored
async def test_window_that_is_reset(victim: Victim, sim: Simulation) -> None:
    """A window serves in order and is never exceeded, whenever it starts over and who gives up."""
    limiter = RateLimiter.window(2, per=1)
    line = Line()
    grants: list[float] = []
    lives = [0]

    async def work(name: str, tokens: int) -> None:
        line.asks(name)
        try:
            await limiter.acquire(tokens)
        except BaseException:
            line.leaves(name)
            raise
        assert line.gets(name) == 0, line.served
        grants.extend([sim.time()] * tokens)
        recent = [at for at in grants[lives[-1] :] if at > sim.time() - 1]
        assert len(recent) <= 2

    async def reset() -> None:
        await checkpoint()
        limiter.reset()
        lives.append(len(grants))

    await together(
        a=lambda: work("a", 2),
        victim=lambda: victim(work, "victim", 1),
        b=lambda: work("b", 2),
        c=lambda: work("c", 1),
        reset=reset,
    )
    assert {"a", "b", "c"} <= set(line.served)
    assert sim.time() <= 3
    assert_quiescent(limiter)
