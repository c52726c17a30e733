"""
The events of a bridge as the source of an executor: each is begun, or kept, or delivered again.

A stream of an emitter counts as a handler that has finished once it has an event in its buffer.
So the stream is entered first, and what it has kept is read after the bridge has ended.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio._internal import loops
from mtaio._internal.backend import is_asyncio
from mtaio.core import TaskExecutor
from mtaio.events import Event, EventEmitter
from mtaio.redis import bridge
from mtaio.testing import run
from tests.backends import BACKENDS
from tests.redis.streaming import StreamStore

if TYPE_CHECKING:
    from mtaio.core import Stream
    from mtaio.events import EventStream

Method = Literal["map", "for_each", "stream", "ordered"]
Stop = Literal["nothing", "scope", "around", "native", "item", "break"]
EVENTS = 12


@dataclass(frozen=True)
class Case:
    """One call over the events of a bridge, and how it is stopped."""

    method: Method
    stop: Stop
    limit: int | None
    receivers: int
    max_pending: int
    early: bool
    seconds: float
    at: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a call; moments are quarters, so that much happens at the same one."""
    method = draw(st.sampled_from(get_args(Method)))
    every: tuple[Stop, ...] = get_args(Stop)
    streams = {"stream", "ordered"}
    stops: list[Stop] = [stop for stop in every if stop != "break" or method in streams]
    return Case(
        method=method,
        stop=draw(st.sampled_from(stops)),
        limit=draw(st.sampled_from([None, 1, 1, 3])),
        receivers=draw(st.sampled_from([1, 3])),
        max_pending=draw(st.sampled_from([1, 2, 100])),
        early=draw(st.booleans()),
        seconds=draw(st.sampled_from([0, 0.25, 0.25, 1])),
        at=draw(st.integers(0, EVENTS - 1)),
    )


class Play:
    """Runs a case, and notes what begins."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.begun: list[Event[int]] = []
        self.kept: list[Event[int]] = []
        self.again: list[Event[int]] = []

    async def call(self, events: EventStream[int]) -> None:
        """Make the call."""
        case = self.case
        executor = TaskExecutor()

        async def work(event: Event[int]) -> int:
            self.begun.append(event)
            if len(self.begun) == EVENTS:
                await events.aclose()
            await anyio.sleep(case.seconds)
            if case.stop == "item" and event.data == case.at:
                raise OSError(event.data)
            return event.data

        if case.method in {"map", "for_each"}:
            await getattr(executor, case.method)(work, events, limit=case.limit)
            return
        ordered = case.method == "ordered"
        call: Any = executor.stream
        stream: Stream[int] = call(work, events, limit=case.limit, ordered=ordered)
        async with stream as results:
            async for result in results:
                if case.stop == "break" and result >= case.at:
                    break

    async def stopped(self, events: EventStream[int]) -> None:
        """Make the call and stop it."""
        if self.case.stop == "scope":
            with anyio.move_on_after(self.case.at / 4):
                await self.call(events)
        elif self.case.stop == "native" and is_asyncio(loops.current_loop()):
            task = asyncio.ensure_future(self.call(events))
            await asyncio.wait([task], timeout=self.case.at / 4)
            task.cancel()
            await asyncio.wait([task])
        else:
            await self.call(events)

    async def send(self, store: StreamStore) -> None:
        """Send all events."""
        async with bridge(EventEmitter(), store, stream="orders") as sender:
            for number in range(EVENTS):
                await sender.send("order.paid", number)

    async def __call__(self) -> None:
        """Run the case, and see that nothing is lost."""
        case = self.case
        emitter, later = EventEmitter(), EventEmitter()
        later.on("order.*", self.again.append)
        receive: dict[str, Any] = {
            "stream": "orders",
            "group": "ship",
            "limit": case.receivers,
        }
        async with StreamStore() as store:
            async with (
                emitter.stream("order.*", max_pending=case.max_pending) as events,
                anyio.create_task_group() as group,
            ):
                if case.early:
                    await self.send(store)
                else:
                    group.start_soon(self.send, store)
                around = case.at / 4 if case.stop == "around" else math.inf
                try:
                    with anyio.move_on_after(around):
                        async with bridge(emitter, store, **receive):
                            await self.stopped(events)
                except OSError:
                    assert case.stop == "item"
                await events.aclose()
                self.kept.extend([event async for event in events])
            async with bridge(later, store, **receive):
                await anyio.sleep(1)
            assert store.data["mtaio:events:{orders}"].pending == {"ship": {}}
        self.check()

    def check(self) -> None:
        """See that each event was begun once, or kept, or came to the next consumer."""
        had = sorted(event.data for event in self.begun + self.kept)
        came = sorted(event.data for event in self.again)
        assert len({*had}) == len(had)
        assert len({*came}) == len(came)
        assert {*had, *came} == {*range(EVENTS)}
        twice = [event for event in self.again if event.data in had]
        assert len(twice) <= self.case.receivers
        assert all(event.metadata["deliveries"] == 2 for event in twice)
        if self.case.stop == "nothing":
            assert had == [*range(EVENTS)]
            assert not self.kept


@pytest.mark.heavy
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_every_event_is_begun_or_kept_or_comes_again(backend: str, case: Case) -> None:
    """However a call ends, no event of its source is lost; what comes twice says so."""
    run(Play(case), backend=backend)
