"""Timeout blocks under many schedules, cancelled everywhere."""

from __future__ import annotations

import builtins
import math
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio import exceptions
from mtaio._internal import deadlines
from mtaio.resources import TimeoutManager
from tests.explored.searches import explored, together
from tests.resources.timers import live_timers

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.resources import TimeoutScope
    from mtaio.testing import Simulation, Victim


class Watched:
    """
    A policy, what came of its blocks, and what must hold after every step.

    Args:
        sim: Where it is watched.
        victim: The task that is cancelled.
    """

    def __init__(self, sim: Simulation, victim: Victim) -> None:
        self.timeouts = TimeoutManager(1, name="policy")
        self.scopes: list[TimeoutScope] = []
        self.timed_out: dict[str, float] = {}
        self.left: dict[str, float] = {}
        self._fates: dict[TimeoutScope, tuple[bool, bool]] = {}
        self._sim = sim
        self._victim = victim
        self._timers = live_timers()
        sim.always(self.holds)

    def holds(self) -> bool:
        """Return whether no scope is both expired and cancelled, or takes back that it is one."""
        for scope in self.scopes:
            fate = (scope.expired, scope.cancelled)
            before = self._fates.get(scope, (False, False))
            if fate == (True, True) or (True in before and fate != before):
                return False
            self._fates[scope] = fate
        return True

    def knows(self, scope: TimeoutScope) -> TimeoutScope:
        """Watch a scope, and return it."""
        self.scopes.append(scope)
        return scope

    async def block(self, name: str, *scopes: TimeoutScope) -> None:
        """Sleep in a block, nested if there are several scopes, and note how it ends."""
        scope = self.knows(scopes[0])
        try:
            with scope:
                if scopes[1:]:
                    await self.block(f"{name}'", *scopes[1:])
                await anyio.sleep_forever()
        except exceptions.TimeoutError as error:
            self.times_out(name, scope, error)
        else:
            assert scope.cancelled
            self.left[name] = self._sim.time()
        finally:
            assert deadlines.current.get() is scope._limit.outer

    def times_out(self, name: str, scope: TimeoutScope, error: exceptions.TimeoutError) -> None:
        """Note that a block has ended in a timeout."""
        assert (error.name, error.timeout) == ("policy", scope.timeout)
        assert error.deadline == scope.deadline == self._sim.time()
        assert scope.expired
        self.timed_out[name] = self._sim.time()

    async def struck(self, name: str, *scopes: TimeoutScope) -> None:
        """Do what `block` does as the victim, whose cancellation nothing may swallow."""

        async def part() -> None:
            await self.block(name, *scopes)
            await self.go_on(lambda: self._victim.fired)

        await self._victim(part)

    async def go_on(self, wanted: Callable[[], bool]) -> None:
        """Be cancelled here if that was wanted before."""
        before = wanted()
        await anyio.sleep(0.25)
        assert not before, "a cancellation from outside was swallowed"

    def ends(self) -> None:
        """Make sure that no timer and no limit is left, and that what happened was counted."""
        assert live_timers() == self._timers
        assert deadlines.current.get() is None
        assert self.timeouts.remaining() == math.inf
        statistics = self.timeouts.statistics()
        assert statistics.timed_out == len(self.timed_out)
        assert statistics.entered == len(self._fates)


@explored
async def test_deadline_and_cancel_at_one_moment(victim: Victim, sim: Simulation) -> None:
    """A block that falls due as it is cancelled from inside is one or the other, never both."""
    watched = Watched(sim, victim)
    one, two = watched.timeouts(1), watched.timeouts(1)

    async def canceller() -> None:
        await anyio.sleep(1)
        for scope in (one, two):
            with suppress(RuntimeError):  # the victim may have been struck before it entered
                scope.cancel()

    await together(
        victim=lambda: watched.struck("victim", one),
        canceller=canceller,
        other=lambda: watched.block("other", two),
    )
    watched.ends()
    assert {*watched.timed_out, *watched.left} >= {"other"}
    assert {*watched.timed_out.values(), *watched.left.values()} == {1.0}


@explored
async def test_left_before_the_deadline(victim: Victim, sim: Simulation) -> None:
    """A block that is done, or was cancelled from inside, in time is none that timed out."""
    watched = Watched(sim, victim)
    scope = watched.timeouts(1)
    ends: dict[str, float] = {}

    async def done(name: str) -> None:
        with watched.knows(watched.timeouts(1)):
            await anyio.sleep(0.5)
        ends[name] = sim.time()
        await watched.go_on(lambda: name == "victim" and victim.fired)

    async def cleans_up() -> None:
        with watched.knows(scope):
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
        assert (scope.cancelled, scope.expired) == (True, False)
        ends["cleaned"] = sim.time()

    async def canceller() -> None:
        await anyio.sleep(0.5)
        scope.cancel()

    await together(
        victim=lambda: victim(done, "victim"),
        other=lambda: done("other"),
        cleans_up=cleans_up,
        canceller=canceller,
    )
    watched.ends()
    assert ends.items() >= {"other": 0.5, "cleaned": 1.5}.items()
    assert victim.cancelled or ends["victim"] == 0.5


@explored
async def test_deadline_and_cancellation_from_outside(victim: Victim, sim: Simulation) -> None:
    """A block that falls due as its task is cancelled does not swallow the cancellation."""
    watched = Watched(sim, victim)
    outer = anyio.CancelScope()

    async def cancelled() -> None:
        with outer:
            await watched.block("other", watched.timeouts(1))
            await watched.go_on(lambda: outer.cancel_called)

    async def canceller() -> None:
        await anyio.sleep(1)
        outer.cancel()

    await together(
        canceller=canceller,
        victim=lambda: watched.struck("victim", watched.timeouts(1)),
        other=cancelled,
    )
    watched.ends()
    assert outer.cancelled_caught
    assert victim.cancelled or "victim" in watched.timed_out


@explored
async def test_nested_deadlines(victim: Victim, sim: Simulation) -> None:
    """The nearest deadline ends its own block, then the next one its own."""
    watched = Watched(sim, victim)
    new = watched.timeouts
    await together(
        victim=lambda: watched.struck("v", new(2), new(3), new(1)),
        other=lambda: watched.block("o", new(3), new(1), new(2)),
    )
    watched.ends()
    assert watched.timed_out.items() >= {"o'": 1.0, "o": 3.0}.items()
    assert watched.timed_out.get("v''", 1.0) == 1.0
    assert watched.timed_out.get("v", 2.0) == 2.0
    assert not {"v'", "o''"} & {*watched.timed_out, *watched.left}


@explored
async def test_equal_deadlines(victim: Victim, sim: Simulation) -> None:
    """Of blocks that fall due together each ends at most once, and the outermost does."""
    watched = Watched(sim, victim)
    new = watched.timeouts
    await together(
        victim=lambda: watched.struck("v", new(1), new(1)),
        other=lambda: watched.block("o", new(1), new(1), new(1)),
    )
    watched.ends()
    assert watched.timed_out["o"] == 1.0
    assert {*watched.timed_out.values()} == {1.0}


@explored
async def test_moved_at_the_deadline(victim: Victim, sim: Simulation) -> None:
    """A deadline that is moved as it falls due has passed or has moved, and the block agrees."""
    watched = Watched(sim, victim)
    scope = watched.timeouts(1)
    moved: list[bool] = []

    async def mover() -> None:
        await anyio.sleep(1)
        try:
            scope.reschedule(2)
        except RuntimeError:
            moved.append(False)
        else:
            assert not scope.expired
            assert scope.deadline == 3.0
            moved.append(True)

    await together(
        victim=lambda: victim(mover),
        other=lambda: watched.block("other", scope),
        third=lambda: watched.block("third", watched.timeouts()),
    )
    watched.ends()
    assert watched.timed_out == {"other": 3.0 if moved == [True] else 1.0, "third": 1.0}


@explored
async def test_moved_in_time(victim: Victim, sim: Simulation) -> None:
    """A deadline that others move, away or nearer, holds where it was moved to."""
    watched = Watched(sim, victim)
    away, nearer = watched.timeouts(1), watched.timeouts(1)

    async def mover() -> None:
        await anyio.sleep(0.5)
        away.reschedule(1)
        await checkpoint()
        nearer.reschedule(0.25)

    await together(
        mover=lambda: victim(mover),
        away=lambda: watched.block("away", away),
        nearer=lambda: watched.block("nearer", nearer),
    )
    watched.ends()
    moved = {"away": 1.5, "nearer": 0.75}
    assert all(
        moment in {moved[name], 1.0 if victim.cancelled else moved[name]}
        for name, moment in watched.timed_out.items()
    )
    assert watched.timed_out.keys() == moved.keys()


@explored
async def test_moved_again_and_again(victim: Victim, sim: Simulation) -> None:
    """A watchdog that is fed lives; the victim, which is fed by others, dies of its own."""
    watched = Watched(sim, victim)
    scope = watched.timeouts(1)

    async def feeder() -> None:
        for seconds in (0.5, None, 0.25, 1):
            await checkpoint()
            with suppress(RuntimeError):
                scope.reschedule(seconds)
                assert scope.expired == (seconds == 0)

    await together(victim=lambda: watched.struck("victim", scope), feeder=feeder)
    watched.ends()
    assert victim.cancelled or list(watched.timed_out.values()) == [1.0]


@explored
async def test_shielded_clean_up(victim: Victim, sim: Simulation) -> None:
    """Clean-up within its grace is done, unless by Task.cancel(), and cancellation goes on."""
    watched = Watched(sim, victim)
    timeouts = watched.timeouts
    cleaned: list[str] = []

    async def part(name: str) -> None:
        with watched.knows(timeouts(1)):
            try:
                await anyio.sleep_forever()
            finally:
                with watched.knows(timeouts.shielded(grace=1)) as shield:
                    assert timeouts.remaining() == 1
                    await anyio.sleep(0.5)
                    cleaned.append(name)
                assert not shield.expired

    async def fails(name: str) -> None:
        with pytest.raises(exceptions.TimeoutError, match=r"^policy: timed out after 1 s$"):
            await part(name)
        watched.timed_out[name] = sim.time()

    async def as_victim() -> None:
        await fails("victim")
        await watched.go_on(lambda: victim.fired)

    await together(victim=lambda: victim(as_victim), other=lambda: fails("other"))
    watched.ends()
    assert "other" in cleaned
    # trio does not start what is cancelled before; a victim that got to its block cleans up.
    started = len(watched.scopes) == 4
    assert not started or victim.mode == "native" or "victim" in cleaned


@explored
async def test_grace_runs_out(victim: Victim, sim: Simulation) -> None:
    """Clean-up beyond its grace is cut short: by the cancellation if there is one, or a timeout."""
    watched = Watched(sim, victim)
    timeouts = watched.timeouts
    cut: list[float] = []

    outer = anyio.CancelScope()

    async def part(cancelled: Callable[[bool], bool]) -> None:
        try:
            await anyio.sleep(1)
        finally:
            before = victim.fired
            try:
                with watched.knows(timeouts.shielded(grace=1)):
                    await anyio.sleep_forever()
            except exceptions.TimeoutError:
                assert not cancelled(before), "a cancellation turned into an error"
                cut.append(sim.time())

    async def other() -> None:
        with outer:
            await part(lambda _: outer.cancel_called)
            await watched.go_on(lambda: outer.cancel_called)

    async def canceller() -> None:
        await anyio.sleep(1)
        outer.cancel()

    async def as_victim() -> None:
        # Task.cancel() that comes with the deadline may be too late to be told from it.
        await part(lambda before: before if victim.mode == "native" else victim.fired)
        await watched.go_on(lambda: victim.fired)

    await together(victim=lambda: victim(as_victim), other=other, canceller=canceller)
    assert outer.cancelled_caught
    assert cut == [2.0] or (not cut and victim.cancelled)
    assert timeouts.statistics().timed_out == len(cut)
    assert deadlines.current.get() is None


@explored
async def test_results_are_kept(victim: Victim, sim: Simulation) -> None:
    """A call that has got its result as it falls due returns it."""
    watched = Watched(sim, victim)
    got: list[str] = []
    done: list[str] = []

    async def work(name: str) -> str:
        await anyio.sleep(1)
        done.append(name)
        return name

    async def call(name: str) -> None:
        try:
            got.append(await watched.timeouts.run(work, name))
        except exceptions.TimeoutError:
            watched.timed_out[name] = sim.time()

    limited = watched.timeouts.limit(work)

    async def call_limited(name: str) -> None:
        try:
            got.append(await limited(name))
        except exceptions.TimeoutError:
            watched.timed_out[name] = sim.time()

    await together(
        a=lambda: call("a"), victim=lambda: victim(call, "victim"), b=lambda: call_limited("b")
    )
    assert got == done
    assert {"a", "b"} <= {*got, *watched.timed_out}
    assert not set(got) & set(watched.timed_out)
    assert watched.timeouts.statistics().timed_out == len(watched.timed_out)
    assert deadlines.current.get() is None


@explored
async def test_errors_of_the_body(victim: Victim, sim: Simulation) -> None:
    """A TimeoutError of the body's own, at the moment of the deadline, goes out untouched."""
    watched = Watched(sim, victim)
    own = builtins.TimeoutError("mine")
    foreign: list[Exception] = []

    async def body() -> None:
        await anyio.sleep(1)
        raise own

    async def call(name: str) -> None:
        scope = watched.knows(watched.timeouts(1))
        try:
            with scope:
                await body()
        except exceptions.TimeoutError as error:
            watched.times_out(name, scope, error)
        except builtins.TimeoutError as error:
            watched.left[name] = sim.time()
            foreign.extend([error] if error is not own else [])

    await together(a=lambda: call("a"), victim=lambda: victim(call, "victim"), b=lambda: call("b"))
    watched.ends()
    assert {"a", "b"} <= {*watched.timed_out, *watched.left}
    assert not foreign


@explored
async def test_children(victim: Victim, sim: Simulation) -> None:
    """The children of a group inside a block know how long they have, and end with it."""
    watched = Watched(sim, victim)
    timeouts = watched.timeouts
    ended: list[float] = []

    async def child() -> None:
        try:
            while True:
                assert timeouts.remaining() in {
                    1 - sim.time(),
                    0.0 if victim.fired else 1.0 - sim.time(),
                }
                await anyio.sleep(0.5)
        finally:
            ended.append(sim.time())

    async def parent() -> None:
        scope = watched.knows(timeouts(1))
        try:
            with scope:
                await together(one=child, two=child)
        except exceptions.TimeoutError as error:
            watched.times_out("victim", scope, error)

    async def as_victim() -> None:
        await parent()
        await watched.go_on(lambda: victim.fired)

    await together(
        victim=lambda: victim(as_victim),
        other=lambda: watched.block("other", timeouts(0.5)),
    )
    watched.ends()
    assert watched.timed_out["other"] == 0.5
    assert len(ended) in {0, 2}
    assert victim.cancelled or ended == [1.0, 1.0]


@explored
async def test_misuse(victim: Victim, sim: Simulation) -> None:
    """A scope serves one block, whoever comes first: all else is refused and disturbs no task."""
    watched = Watched(sim, victim)
    scope = watched.timeouts(1)
    refused: list[str] = []

    async def enters(name: str) -> None:
        try:
            await watched.block(name, scope)
        except RuntimeError as error:
            assert str(error).startswith(f"{scope!r} was entered before, ")  # noqa: PT017 - or not
            refused.append(name)

    async def confused() -> None:
        await checkpoint()
        if scope.deadline == math.inf:
            with pytest.raises(RuntimeError, match=r"^cannot cancel .* has not been entered"):
                scope.cancel()
        with pytest.raises(ValueError, match=r"^timeout=-1 is "):
            scope.reschedule(-1)
        with pytest.raises(RuntimeError, match=r"^cannot leave "):
            watched.timeouts(1).__exit__(None, None, None)

    await together(
        victim=lambda: victim(enters, "victim"),
        confused=confused,
        a=lambda: enters("a"),
        b=lambda: enters("b"),
    )
    assert len(refused) + len(watched.timed_out) + victim.cancelled == 3
    assert len(watched.timed_out) <= 1
    assert deadlines.current.get() is None
