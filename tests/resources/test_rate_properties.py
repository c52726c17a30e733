"""RateLimiter against exact arithmetic, over random histories."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from mtaio._internal import clock
from mtaio.exceptions import LimitTimeoutError, RateLimitError
from mtaio.resources import RateLimiter
from mtaio.resources._window import Window
from mtaio.testing import run, settle
from tests.clocks import by_hand
from tests.resources.timers import live_timers

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.heavy

EXAMPLES = 200
"""For each backend; each runs a whole history of up to 35 steps."""

INFINITE = Fraction(10**9)
"""Stands for a time that never comes."""

# Every time, rate and size below is a sum of few powers of 2, so that floats are exact and the
# limiter can be held to the model's answers to the last bit. The steps of a history are a little
# apart from any multiple of 1/16, each by another amount, so that no two things of different cause
# happen at one moment, where either could come first.


@dataclass(frozen=True)
class Step:
    """Something that happens to the limiter."""

    pause: int
    """Sixteenths of a second after the step before."""


@dataclass(frozen=True)
class Ask(Step):
    """A task calls ``acquire``."""

    tokens: float
    timeout: int | None
    """Eighths of a second."""


@dataclass(frozen=True)
class AskNow(Step):
    """A call of ``acquire_nowait``."""

    tokens: float


@dataclass(frozen=True)
class GiveUp(Step):
    """One of the tasks that asked is cancelled, if it still waits."""

    who: int


@dataclass(frozen=True)
class Change(Step):
    """The limits change."""

    rate: float
    burst: float


@dataclass(frozen=True)
class NewLimit(Step):
    """The limit of a window changes."""

    limit: int


@dataclass(frozen=True)
class Stall(Step):
    """The event loop stands still for some sixteenths of a second."""

    lost: int


SHORT = st.sampled_from([0, 0, 0, 1, 2, 5])
PAUSES = st.sampled_from([0, 1, 4, 9, 16, 40])
TOKENS = st.sampled_from([1, 1, 1, 1, 1, 0.5, 1.5, 2, 3])
RATES = st.sampled_from([0.5, 1, 1, 2, 4])
BURSTS = st.sampled_from([1, 2, 2, 3, 4, 1.5])
TIMEOUTS = st.one_of(st.none(), st.integers(0, 40))
ASKS = st.builds(Ask, SHORT, TOKENS, TIMEOUTS)
CROWDS = st.lists(ASKS, min_size=1, max_size=6)
GIVE_UPS = st.builds(GiveUp, PAUSES, st.integers(0, 7))
OTHERS = st.one_of(
    GIVE_UPS,
    st.builds(AskNow, PAUSES, TOKENS),
    st.builds(Change, PAUSES, st.one_of(RATES, st.just(0)), BURSTS),
    st.builds(Change, PAUSES, st.just(0.5), st.just(3)),
)
STALLS = st.one_of(GIVE_UPS, st.builds(Stall, PAUSES, st.integers(1, 48)))


def histories(others: st.SearchStrategy[Step]) -> st.SearchStrategy[list[Step]]:
    """Make histories in which crowds of tasks ask and something else happens after each crowd."""
    chapters = st.lists(st.tuples(CROWDS, others), min_size=1, max_size=5)
    return chapters.map(lambda parts: [step for crowd, other in parts for step in (*crowd, other)])


def times(steps: Sequence[Step]) -> list[Fraction]:
    """Return the moment of each step."""
    moments = []
    moment = Fraction(0)
    for number, step in enumerate(steps):
        moment += Fraction(step.pause, 16)
        moments.append(moment + Fraction(number + 1, 2**12))
    return moments


@dataclass
class Waiting:
    """A request in the model's queue."""

    number: int
    tokens: Fraction
    deadline: Fraction


@dataclass
class Model:
    """A counter of tokens that is refilled, in fractions, and a queue: the plainest there is."""

    rate: Fraction
    burst: Fraction
    tokens: Fraction = field(init=False)
    now: Fraction = Fraction(0)
    queue: deque[Waiting] = field(default_factory=deque)
    answers: dict[int, tuple[str, Fraction]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def in_how_long(self, tokens: Fraction) -> Fraction:
        """Return how long it takes until so many tokens have flowed in."""
        if tokens <= self.tokens:
            return Fraction(0)
        return (tokens - self.tokens) / self.rate if self.rate else INFINITE

    def flow(self, until: Fraction) -> None:
        """Let time pass."""
        self.tokens = min(self.burst, self.tokens + self.rate * (until - self.now))
        self.now = until

    def advance(self, until: Fraction) -> None:
        """Let time pass, and serve and turn away whom it concerns."""
        while self.queue:
            head = self.queue[0]
            due = self.now + self.in_how_long(head.tokens)
            end = min(waiting.deadline for waiting in self.queue)
            if min(due, end) > until:
                break
            if due <= end:
                self.flow(due)
                self.queue.popleft()
                self.tokens -= head.tokens
                self.answers[head.number] = "granted", due
            else:
                self.flow(end)
                for waiting in [waiting for waiting in self.queue if waiting.deadline == end]:
                    self.queue.remove(waiting)
                    self.answers[waiting.number] = "late", end
        self.flow(until)

    def ask(self, number: int, step: Ask | AskNow) -> None:
        """Answer a request, or put it in the queue."""
        tokens = Fraction(step.tokens)
        if tokens > self.burst:
            self.answers[number] = "impossible", self.now
            return
        wait = self.in_how_long(tokens + sum(waiting.tokens for waiting in self.queue))
        if isinstance(step, AskNow):
            answer = "refused" if wait else "granted"
        elif step.timeout is not None and wait > Fraction(step.timeout, 8):
            answer = "late"
        else:
            answer = "waits" if wait else "granted"
        if answer == "waits":
            assert isinstance(step, Ask)
            timeout = INFINITE if step.timeout is None else Fraction(step.timeout, 8)
            self.queue.append(Waiting(number, tokens, self.now + timeout))
            return
        self.answers[number] = answer, self.now
        if answer == "granted":
            self.tokens -= tokens

    def give_up(self, who: int) -> None:
        """Let a waiter give up."""
        self.queue = deque(waiting for waiting in self.queue if waiting.number != who)
        self.answers.setdefault(who, ("cancelled", self.now))

    def change(self, rate: float, burst: float) -> None:
        """Take over new limits."""
        self.rate, self.burst = Fraction(rate), Fraction(burst)
        self.tokens = min(self.tokens, self.burst)
        for waiting in [waiting for waiting in self.queue if waiting.tokens > self.burst]:
            self.queue.remove(waiting)
            self.answers[waiting.number] = "refused", self.now


@dataclass
class Trial:
    """A history, played to a limiter under virtual time."""

    limiter: RateLimiter
    steps: Sequence[Step]
    answers: dict[int, tuple[str, Fraction]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    granted: list[tuple[Fraction, Fraction]] = field(default_factory=list)
    bursts: list[float] = field(default_factory=list)
    """What ``burst`` was at each grant."""
    asked: list[int] = field(default_factory=list)
    scopes: dict[int, anyio.CancelScope] = field(default_factory=dict)
    lost: float = 0.0
    native: bool = False
    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    with_timeout: int = 0
    """Tasks in ``acquire`` with a timeout."""

    def clock(self) -> float:
        """Return the time that the limiter sees."""
        return anyio.current_time() + self.lost

    async def ask(self, number: int, step: Ask) -> None:
        """Be one of the tasks."""
        answer = "cancelled"
        self.asked.append(number)
        try:
            with anyio.CancelScope() as self.scopes[number]:
                timeout = None if step.timeout is None else step.timeout / 8
                self.with_timeout += timeout is not None
                try:
                    await self.limiter.acquire(step.tokens, timeout=timeout)
                except ValueError:
                    answer = "impossible"
                except LimitTimeoutError:
                    answer = "late"
                except RateLimitError:
                    answer = "refused"
                else:
                    answer = "granted"
                    self.order.append(number)
                    self.granted.append((Fraction(self.clock()), Fraction(step.tokens)))
                    self.bursts.append(self.limiter.burst)
        finally:
            self.with_timeout -= step.timeout is not None
            self.answers[number] = answer, Fraction(self.clock())

    async def ask_alone(self, number: int, step: Ask) -> None:
        """Ask in a task that can be cancelled without its group."""
        self.tasks[number] = asyncio.ensure_future(self.ask(number, step))
        await asyncio.wait([self.tasks[number]])

    def ask_now(self, number: int, step: AskNow) -> None:
        """Ask without waiting."""
        answer = "granted"
        try:
            self.limiter.acquire_nowait(step.tokens)
        except ValueError:
            answer = "impossible"
        except RateLimitError:
            answer = "refused"
        else:
            self.granted.append((Fraction(self.clock()), Fraction(step.tokens)))
            self.bursts.append(self.limiter.burst)
        self.answers[number] = answer, Fraction(self.clock())

    async def play(self, *, to_the_end: bool = False) -> None:
        """Let everything happen, then cancel who still waits, or serve all of them."""
        with clock.reading_from(self.clock):
            async with anyio.create_task_group() as group:
                for number, (step, at) in enumerate(
                    zip(self.steps, times(self.steps), strict=True)
                ):
                    await anyio.sleep_until(float(at))
                    assert live_timers() <= 1 + self.with_timeout
                    match step:
                        case Ask():
                            ask = self.ask_alone if self.native else self.ask
                            group.start_soon(ask, number, step)
                        case AskNow():
                            self.ask_now(number, step)
                        case GiveUp(who=who):
                            self.give_up(number - 1 - who)
                        case Change(rate=rate, burst=burst):
                            self.limiter.reconfigure(rate=rate, burst=burst)
                        case NewLimit(limit=limit):
                            self.limiter.rate = limit
                        case Stall(lost=lost):
                            self.lost += lost / 16
                    await settle()
                    assert live_timers() <= 1 + self.with_timeout
                if not to_the_end:
                    await self.stop()
            assert live_timers() == 0
            assert self.limiter.statistics().waiting == 0

    def give_up(self, who: int) -> None:
        """Cancel a task, if it asked at all."""
        if who in self.tasks:
            self.tasks[who].cancel()
        elif who in self.scopes:
            self.scopes[who].cancel()

    async def stop(self) -> None:
        """Cancel every task that waits."""
        for who in self.scopes:
            self.give_up(who)
        await settle()


def predicted(rate: float, burst: float, steps: Sequence[Step]) -> Model:
    """Return what the model makes of a history."""
    model = Model(Fraction(rate), Fraction(burst))
    for number, (step, at) in enumerate(zip(steps, times(steps), strict=True)):
        model.advance(at)
        match step:
            case Ask() | AskNow():
                model.ask(number, step)
            case GiveUp(who=who) if number > who and isinstance(steps[number - 1 - who], Ask):
                model.give_up(number - 1 - who)
            case Change():
                model.change(step.rate, step.burst)
        model.advance(at)  # now that one is gone or more is there, the next may be served
    return model


def compare(rate: float, burst: float, steps: Sequence[Step], trial: Trial, backend: str) -> None:
    """Play a history, and hold every answer, the order and what is left against the model."""
    model = predicted(rate, burst, steps)

    async def scenario() -> float:
        await trial.play()
        return trial.limiter.statistics().tokens

    left = run(scenario, backend=backend)
    for waiting in model.queue:
        model.answers[waiting.number] = "cancelled", model.now
    assert trial.answers == model.answers
    assert trial.order == sorted(trial.order)
    assert left == model.tokens
    statistics = trial.limiter.statistics()
    answers = [answer for answer, _ in model.answers.values()]
    assert statistics.acquired == answers.count("granted")
    assert statistics.rejected == answers.count("refused")
    assert statistics.timed_out == answers.count("late")
    assert statistics.cancelled == answers.count("cancelled")
    for number, (answer, moment) in model.answers.items():
        waited = moment != times(steps)[number]
        event(f"{answer} after a wait" if waited else answer)


@given(RATES, BURSTS, histories(OTHERS))
@settings(max_examples=EXAMPLES)
def test_answers_are_those_of_exact_arithmetic(
    backend: str, rate: float, burst: float, steps: list[Step]
) -> None:
    """Weighted, cancelled, timed out, reconfigured: each answer and its time are the model's."""
    trial = Trial(RateLimiter(rate, burst=burst), steps)
    compare(rate, burst, steps, trial, backend)


@given(RATES, BURSTS, histories(OTHERS))
@settings(max_examples=EXAMPLES // 2)
def test_native_cancellation_changes_no_answer(
    rate: float, burst: float, steps: list[Step]
) -> None:
    """cpython#90155: the same when tasks are cancelled with Task.cancel()."""
    trial = Trial(RateLimiter(rate, burst=burst), steps, native=True)
    compare(rate, burst, steps, trial, "asyncio")


@given(
    st.integers(1, 1000),
    st.integers(1, 20),
    st.sampled_from([0, 0.125, 1.0]),
    histories(STALLS),
)
@settings(max_examples=EXAMPLES // 2)
def test_bound_holds_in_every_window(
    backend: str, rate: int, burst: int, slack: float, steps: list[Step]
) -> None:
    """In any span at most ``burst + rate * (t + slack)``, also when the loop is late; in order."""
    limiter = RateLimiter(rate, burst=burst, per=60, slack=slack)
    trial = Trial(limiter, steps)

    async def scenario() -> None:
        await trial.play(to_the_end=True)

    run(scenario, backend=backend)
    assert trial.order == sorted(trial.order)
    assert trial.order == [
        number for number in trial.asked if trial.answers[number][0] == "granted"
    ]
    tick = Fraction(1, 10**9)  # floats do not add up exactly, and timers are as early as that
    for first, (since, _) in enumerate(trial.granted):
        total = Fraction(0)
        for until, tokens in trial.granted[first:]:
            total += tokens
            span = until - since + Fraction(slack) + tick
            assert total <= burst + rate * span / 60


WHOLE_ASKS = st.builds(Ask, PAUSES, st.sampled_from([1, 1, 1, 2, 3, 0.5]), TIMEOUTS)
WINDOW_STEPS = st.one_of(
    WHOLE_ASKS,
    WHOLE_ASKS,
    st.builds(AskNow, PAUSES, st.integers(1, 3)),
    STALLS,
    st.builds(NewLimit, PAUSES, st.integers(0, 5)),
)


@given(st.integers(1, 5), st.sampled_from([0.3, 1, 2.5]), st.lists(WINDOW_STEPS, max_size=25))
@settings(max_examples=EXAMPLES // 2)
def test_window_is_never_exceeded(backend: str, limit: int, per: float, steps: list[Step]) -> None:
    """Counted by hand, no span holds more than the limit; late, cancelled, changed; in order."""
    trial = Trial(RateLimiter.window(limit, per=per), steps)
    run(trial.play, backend=backend)
    assert trial.order == sorted(trial.order)
    tick = Fraction(1, 10**9)
    for last, (until, _) in enumerate(trial.granted):
        inside = sum(
            tokens for since, tokens in trial.granted[: last + 1] if until - since < per - tick
        )
        assert inside <= trial.bursts[last]


@given(
    st.integers(1, 5),
    st.sampled_from([0.5, 1, 2]),
    st.lists(st.builds(Ask, PAUSES, st.integers(1, 3), st.none()), max_size=20),
)
@settings(max_examples=EXAMPLES // 4)
def test_window_grants_as_soon_as_there_is_room(
    backend: str, limit: int, per: float, steps: list[Step]
) -> None:
    """Each is served when the token that was ``limit`` places ahead leaves the window."""
    trial = Trial(RateLimiter.window(limit, per=per), steps)

    async def scenario() -> None:
        await trial.play(to_the_end=True)

    run(scenario, backend=backend)
    grants: list[Fraction] = []
    for number, (step, asked) in enumerate(zip(steps, times(steps), strict=True)):
        assert isinstance(step, Ask)
        if step.tokens > limit:
            assert trial.answers[number] == ("impossible", asked)
            continue
        moment = max([asked, *grants[-1:]])
        place = len(grants) + int(step.tokens) - 1 - limit
        if place >= 0:
            moment = max(moment, grants[place] + Fraction(per))
        grants.extend([moment] * int(step.tokens))
        assert trial.answers[number] == ("granted", moment)


class Grants:
    """A window that remembers each token by itself, for good."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.moments: list[float] = []

    def due(self, tokens: int, moment: float) -> float:
        """Return when tokens may be granted."""
        place = len(self.moments) - self.limit + max(tokens, 1) - 1
        return max(moment, self.moments[place] + 1) if place >= 0 else moment


@given(
    st.sampled_from([1, 2, 5, 9, 1000]),
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, 1 / 256, 1 / 8, 3 / 8, 2]),
            st.integers(0, 9),
            st.sampled_from([None] * 20 + [1, 2, 5, 9, 1000]),
        ),
        max_size=150,
    ),
)
@settings(max_examples=EXAMPLES // 4)
def test_window_remembers_what_matters(
    limit: int, steps: list[tuple[float, int, int | None]]
) -> None:
    """It forgets without a difference to one that never does, also when its limit changes."""
    window, model = Window(limit, 1), Grants(limit)
    moment = 0.0
    for pause, tokens, another in steps:
        moment += pause
        if another is not None:
            window = window.reshaped(another, None, moment)
            model.limit = another
        recent = sum(at > moment - 1 for at in model.moments)
        assert window.tokens(moment) == max(0, model.limit - recent)
        wanted = min(tokens, model.limit)
        due = window.due(wanted, moment)
        assert due == model.due(wanted, moment)
        if due == moment:
            window.take(wanted, moment)
            model.moments += [moment] * wanted


@given(st.floats(0.01, 1000), st.floats(1, 50), st.lists(st.floats(0, 3), max_size=40))
@settings(max_examples=EXAMPLES // 2)
def test_any_rate_is_reached_and_not_exceeded(
    backend: str, rate: float, burst: float, sizes: list[float]
) -> None:
    """Any floats will do: a waiter is served when the tokens are there, to a few ticks."""
    limiter = RateLimiter(rate, burst=burst)
    moments: list[float] = []

    async def scenario() -> None:
        for size in sizes:
            await limiter.acquire(min(size, burst))
            moments.append(anyio.current_time())

    run(scenario, backend=backend)
    total = 0.0
    for size, moment in zip(sizes, moments, strict=True):
        total += min(size, burst)
        expected = max(0.0, (total - burst) / rate)
        if size:
            assert abs(moment - expected) <= 2e-9 + 1e-12 * expected
    assert all(before <= after for before, after in pairwise(moments))


@given(
    st.lists(st.tuples(st.sampled_from(["grant", "other", "on"]), st.integers(0, 40)), max_size=30)
)
@settings(max_examples=EXAMPLES // 2)
def test_clocks_that_jump_grant_no_more_than_time_went_by(steps: list[tuple[str, int]]) -> None:
    """However often one clock takes over from another, tokens flow only while a clock goes on."""
    with by_hand() as hands:
        limiter: Any = RateLimiter(2, burst=3)
        tokens = Fraction(3)
        for what, amount in steps:
            limiter.acquire_nowait(0)  # what is not used does not know of a change
            if what == "other":
                hands.take_over(float(Fraction(amount, 8)))
            elif what == "on":
                hands.now += float(Fraction(amount, 8))
                tokens = min(Fraction(3), tokens + 2 * Fraction(amount, 8))
            elif tokens >= 1:
                limiter.acquire_nowait()
                tokens -= 1
            assert limiter.statistics().tokens == tokens
