"""A state machine against a plain list: registered, removed and emitted in any order."""

from __future__ import annotations

import fnmatch
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from mtaio.events import Event, EventEmitter
from mtaio.testing import assert_quiescent, run

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("a", "a.b", "a.b.c", "b")
PATTERNS = (*NAMES, "*", "a.*", "a.b.*")
KINDS = ("plain", "lambda", "quick", "suspends", "sleeps", "fails", "fails late", "stops")
ASYNC = {"quick", "suspends", "sleeps", "fails late", "stops"}
FAILS = {"fails", "fails late"}
POLICIES = ("raise", "continue", "log")


def matches(pattern: str, name: str) -> bool:
    """Return what the model thinks, in another way than the library."""
    if pattern.endswith(".*"):
        return name.startswith(pattern[:-1]) and len(name) > len(pattern) - 1
    return fnmatch.fnmatchcase(name, pattern)


@dataclass(eq=False)
class Registered:
    """A registration in the model: a plain list of these is all it has."""

    pattern: str
    number: int
    kind: str
    priority: int
    once: bool
    handler: Callable[[Event[Any]], Any]


class EmitterMachine(RuleBasedStateMachine):
    """The emitter, and the list that it is held to; each emit has an event loop of its own."""

    backend: str

    def __init__(self) -> None:
        super().__init__()
        self.emitter = EventEmitter()
        self.errors = ""
        self.entered = False
        self.model: list[Registered] = []
        self.log: list[tuple[int, str, int]] = []
        self.tally: Counter[tuple[str, str]] = Counter()
        self.count = 0

    @initialize(errors=st.sampled_from(POLICIES), concurrent=st.booleans(), entered=st.booleans())
    def make(self, errors: Any, *, concurrent: bool, entered: bool) -> None:
        """Choose the emitter."""
        self.emitter = EventEmitter(errors=errors, concurrent=concurrent, max_listeners=None)
        self.errors = errors
        self.entered = entered

    def handler(self, kind: str) -> tuple[int, Callable[[Event[Any]], Any]]:  # noqa: C901 - all kinds at a glance
        """Make a handler that notes when it starts and ends."""
        self.count += 1
        number = self.count

        def note(what: str, event: Event[Any]) -> None:
            self.log.append((number, what, event.data))

        async def asynchronous(event: Event[Any]) -> None:
            note("start", event)
            if kind == "suspends":
                await checkpoint()
            elif kind in {"sleeps", "fails late"}:
                await anyio.sleep(number)
            elif kind == "stops":
                event.stop()
            if kind == "fails late":
                raise ValueError(number)
            note("end", event)

        def plain(event: Event[Any]) -> None:
            note("start", event)
            if kind == "fails":
                raise ValueError(number)
            note("end", event)

        if kind in ASYNC:
            return number, asynchronous
        if kind == "lambda":
            return number, lambda event: asynchronous(event)  # noqa: PLW0108 - the subject
        return number, plain

    @rule(
        pattern=st.sampled_from(PATTERNS),
        kind=st.sampled_from(KINDS),
        priority=st.integers(-2, 2),
        once=st.booleans(),
    )
    def on(self, pattern: str, kind: str, priority: int, *, once: bool) -> None:
        """Register."""
        number, handler = self.handler(kind)
        register = self.emitter.once if once else self.emitter.on
        assert register(pattern, handler, priority=priority) is handler
        self.model.append(Registered(pattern, number, kind, priority, once, handler))

    @rule(at=st.integers(0, 50))
    def off(self, at: int) -> None:
        """Remove one, twice."""
        if self.model:
            gone = self.model.pop(at % len(self.model))
            assert self.emitter.off(gone.pattern, gone.handler)
            assert not self.emitter.off(gone.pattern, gone.handler)

    @rule(name=st.sampled_from(NAMES))
    def emit(self, name: str) -> None:
        """Emit, and compare who was called, in which tier, and what was raised."""
        expected: list[list[int]] = []
        failed: list[int] = []
        stopped = False
        tiers: dict[int, list[Registered]] = {}
        for each in self.would_run(name):
            tiers.setdefault(each.priority, []).append(each)
        for tier in tiers.values():
            expected.append([each.number for each in tier])
            failed += [each.number for each in tier if each.kind in FAILS]
            for each in tier:
                self.tally[name, "failed" if each.kind in FAILS else "handled"] += 1
                if each.once:
                    self.model.remove(each)
            stopped = stopped or any(each.kind == "stops" for each in tier)
            if stopped or (failed and self.errors == "raise"):
                break
        self.tally[name, "emitted"] += 1
        self.log.clear()
        raised: list[int] = []
        try:
            run(partial(self.emit_once, name, stopped=stopped), backend=self.backend)
        except ExceptionGroup as group:
            raised = [error.args[0] for error in group.exceptions]
        assert raised == ([] if self.errors == "log" else failed)
        self.compare_log(expected, set(failed))

    async def emit_once(self, name: str, *, stopped: bool) -> None:
        """Emit, inside the block or without one."""
        async with self.emitter if self.entered else nullcontext():
            event = await self.emitter.emit(name, self.count)
            assert event.stopped == stopped

    def would_run(self, name: str) -> list[Registered]:
        """Return what the model has for a name, in order."""
        found = [each for each in self.model if matches(each.pattern, name)]
        return sorted(found, key=lambda each: -each.priority)

    def compare_log(self, expected: list[list[int]], failed: set[int]) -> None:
        """Every handler of a tier started and ended, once, before any of the next started."""
        at = 0
        for tier in expected:
            part = self.log[at : at + 2 * len(tier) - len(failed & set(tier))]
            at += len(part)
            started = [number for number, what, _ in part if what == "start"]
            ended = [number for number, what, _ in part if what == "end"]
            assert sorted(started) == sorted(tier)
            assert sorted(ended) == sorted(set(tier) - failed)
            assert started[0] == tier[0]
        assert at == len(self.log)

    @invariant()
    def same_listeners(self) -> None:
        """Compare who would be called."""
        for name in NAMES:
            handlers = tuple(each.handler for each in self.would_run(name))
            assert self.emitter.listeners(name) == handlers
            assert self.emitter.listener_count(name) == len(handlers)
        assert self.emitter.listener_count() == len(self.model)

    @invariant()
    def same_statistics(self) -> None:
        """Compare what was counted, for each name."""
        seen: Counter[tuple[str, str]] = Counter()
        for name, each in self.emitter.statistics().names.items():
            seen[name, "emitted"] = each.emitted
            seen[name, "handled"] = each.handled
            seen[name, "failed"] = each.failed
        assert +seen == +self.tally

    def teardown(self) -> None:
        """Look at what is left."""
        assert_quiescent(self.emitter)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_emitter_equals_a_plain_list(backend: str) -> None:
    """Who is called, in which tier, what is raised and what is counted."""
    machine = type("Machine", (EmitterMachine,), {"backend": backend})
    run_state_machine_as_test(machine, settings=settings(max_examples=50, stateful_step_count=25))


OVERFLOWS = ("block", "drop_oldest", "drop_newest", "raise")


@given(
    overflow=st.sampled_from(OVERFLOWS),
    size=st.integers(1, 4),
    steps=st.lists(st.sampled_from(["emit", "emit", "take", "cancel"]), max_size=40),
)
@settings(max_examples=100)
def test_stream_equals_a_plain_list(  # noqa: C901 - the steps of a machine at a glance
    backend: str, overflow: Any, size: int, steps: list[str]
) -> None:
    """What is taken, in which order, and how much was dropped."""

    async def steps_in_a_loop() -> None:
        emitter = EventEmitter(errors="log")
        kept: list[int] = []
        waiting: list[tuple[int, anyio.CancelScope]] = []
        dropped = number = 0

        async def emit(number: int, scope: anyio.CancelScope) -> None:
            with scope:
                await emitter.emit("a", number)

        async with (
            anyio.create_task_group() as group,
            emitter.stream("a", max_pending=size, overflow=overflow) as events,
        ):
            for step in steps:
                if step == "emit":
                    number += 1
                    scope = anyio.CancelScope()
                    if len(kept) < size:
                        kept.append(number)
                    elif overflow == "block":
                        waiting.append((number, scope))
                    else:
                        dropped += 1
                        if overflow == "drop_oldest":
                            kept = [*kept[1:], number]
                    group.start_soon(emit, number, scope)
                elif step == "take" and kept:
                    assert (await anext(events)).data == kept.pop(0)
                    if waiting:
                        kept.append(waiting.pop(0)[0])
                elif step == "cancel" and waiting:
                    waiting.pop(len(waiting) // 2)[1].cancel()
                await anyio.wait_all_tasks_blocked()
                assert events.pending == len(kept)
                assert events.dropped == emitter.statistics().dropped == dropped
                assert emitter.statistics().waiting == len(waiting)
        assert_quiescent(emitter)

    run(steps_in_a_loop, backend=backend)
