"""What the statistics say, and that they are bounded."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.events import Event, EventEmitter
from mtaio.statistics import EmitterStatistics, EventStatistics
from mtaio.testing import run, settle

if TYPE_CHECKING:
    from types import FrameType


async def fail(_: Event[Any]) -> None:
    """Fail."""
    raise ValueError("bad")


async def test_each_name_is_counted() -> None:
    """Emitted, handled, failed, dropped; and the sums."""
    emitter = EventEmitter(errors="log")
    emitter.on("a", lambda _: None)
    emitter.on("*", fail)
    for name in ("a", "a", "b"):
        await emitter.emit(name)
    statistics = emitter.statistics()
    assert statistics.names == {
        "a": EventStatistics(emitted=2, handled=2, failed=2, dropped=0),
        "b": EventStatistics(emitted=1, handled=0, failed=1, dropped=0),
    }
    assert (statistics.emitted, statistics.handled, statistics.failed) == (3, 2, 3)
    assert statistics.listeners == 2
    assert statistics.other == EventStatistics(emitted=0, handled=0, failed=0, dropped=0)


async def test_statistics_are_frozen() -> None:
    """They are a snapshot, and the emitter cannot be changed through it."""
    emitter = EventEmitter()
    await emitter.emit("a")
    before: Any = emitter.statistics()
    await emitter.emit("a")
    assert before.emitted == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.emitted = 5
    before.names["b"] = 5
    assert list(emitter.statistics().names) == ["a"]


async def test_statistics_can_be_copied() -> None:
    """They can be pickled, and turned into plain data."""
    emitter = EventEmitter()
    await emitter.emit("a")
    statistics = emitter.statistics()
    assert pickle.loads(pickle.dumps(statistics)) == statistics  # noqa: S301 - our own
    assert copy.deepcopy(statistics) == statistics
    assert dataclasses.asdict(statistics)["names"]["a"]["emitted"] == 1


async def test_names_are_bounded() -> None:
    """Beyond max_names those emitted longest ago are counted together; the sums stay exact."""
    emitter = EventEmitter(max_names=8)
    emitter.on("*", lambda _: None)
    for number in range(8):
        await emitter.emit(str(number))
    await anyio.sleep(1)
    await emitter.emit("0")
    await emitter.emit("new")
    statistics = emitter.statistics()
    assert set(statistics.names) == {"0", "2", "3", "4", "5", "6", "7", "new"}
    assert statistics.other.emitted == 1
    for number in range(10_000):
        await emitter.emit(f"connection.{number}")
    statistics = emitter.statistics()
    assert len(statistics.names) <= 8
    assert (statistics.emitted, statistics.handled) == (10_010, 10_010)
    emitted = statistics.other.emitted + sum(each.emitted for each in statistics.names.values())
    assert emitted == 10_010


async def test_what_a_forgotten_name_has_counted_is_kept() -> None:
    """What was handled, failed and was dropped is added to the counts of the others."""
    emitter = EventEmitter(max_names=1, errors="log")

    def fail(_: Event[Any]) -> None:
        raise ValueError("bad")

    emitter.on("*", fail)
    for name in ("a", "a", "b", "c"):
        await emitter.emit(name)
    statistics = emitter.statistics()
    assert statistics.other == EventStatistics(emitted=3, handled=0, failed=3, dropped=0)
    assert (statistics.failed, statistics.names["c"].failed) == (4, 1)


async def test_name_that_emit_nowait_has_emitted_is_recent() -> None:
    """Its deliveries count as emits when it is decided which names are kept."""
    emitter = EventEmitter(max_names=2)
    for name in ("soon", "now"):
        await emitter.emit(name)
        await anyio.sleep(1)
    async with emitter:
        emitter.emit_nowait("soon")
    await emitter.emit("new")
    assert set(emitter.statistics().names) == {"soon", "new"}


async def test_name_forgotten_during_an_emit_goes_on_counting() -> None:
    """Among the others."""
    emitter = EventEmitter(max_names=1, errors="log")

    async def slow(_: Event[Any]) -> None:
        await anyio.sleep(1)

    async def slow_fail(_: Event[Any]) -> None:
        await anyio.sleep(1)
        raise ValueError("bad")

    emitter.on("a", slow)
    emitter.on("a", slow_fail)
    emitter.on("b", slow)
    async with anyio.create_task_group() as group:
        group.start_soon(emitter.emit, "a")
        await settle()
        group.start_soon(emitter.emit, "b")
        await settle()
        assert set(emitter.statistics().names) == {"b"}
        await emitter.emit("c")
    statistics = emitter.statistics()
    assert set(statistics.names) == {"c"}
    assert statistics.other == EventStatistics(emitted=2, handled=2, failed=1, dropped=0)


async def test_forgotten_name_still_has_its_handlers() -> None:
    """Only its counters and its matches are forgotten."""
    emitter = EventEmitter(max_names=1)
    seen: list[str] = []
    emitter.on("a", lambda event: seen.append(event.name))
    for _ in range(3):
        await emitter.emit("a")
        await emitter.emit("b")
    assert seen == ["a"] * 3
    assert list(emitter.statistics().names) == ["b"]


async def test_names_without_a_limit() -> None:
    """With None no name is ever forgotten."""
    emitter = EventEmitter(max_names=None)
    for number in range(1500):
        await emitter.emit(f"a.{number}")
    statistics = emitter.statistics()
    assert (len(statistics.names), statistics.max_names) == (1500, None)
    assert statistics.other.emitted == 0


def test_every_field_says_how_it_moves() -> None:
    """For the monitor, which exports them without knowing the class."""
    kinds = {
        each.name: each.metadata.get("kind")
        for each in (*dataclasses.fields(EmitterStatistics), *dataclasses.fields(EventStatistics))
    }
    gauges = {"listeners", "streams", "wait_fors", "waiting", "pending"}
    assert {name for name, kind in kinds.items() if kind == "gauge"} == gauges
    assert {name for name, kind in kinds.items() if kind == "limit"} == {"max_pending", "max_names"}
    assert set(kinds.values()) == {"gauge", "limit", "counter", "histogram"}


@pytest.mark.parametrize("max_names", [8, 200])
def test_statistics_from_another_thread_under_load(max_names: int) -> None:
    """They never raise, and no counter goes back, while names come, go and are forgotten."""
    emitter = EventEmitter(max_names=max_names, max_listeners=None)
    emitter.on("*", lambda _: None)
    done = threading.Event()
    failures: list[BaseException] = []
    counts = [0, 0]

    def watch() -> None:
        emitted = handled = 0
        try:
            while not done.is_set():
                statistics = emitter.statistics()
                assert emitted <= statistics.emitted, "emitted goes back"
                assert handled <= statistics.handled, "handled goes back"
                assert 1 <= statistics.listeners <= 2  # one may be in use still
                emitted, handled = statistics.emitted, statistics.handled
                counts[0] += 1
        except BaseException as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    async def main() -> None:
        class Receiver:
            def handle(self, _: Event[Any]) -> None:
                """Handle nothing."""

        while counts[0] < 1500 and not failures:
            for _ in range(100):
                counts[1] += 1
                name = f"connection.{counts[1]}"
                emitter.on(name, Receiver().handle, weak=True)
                await emitter.emit(name)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=watch)
    try:
        thread.start()
        anyio.run(main)
    finally:
        done.set()
        thread.join(10)
        sys.setswitchinterval(interval)
    assert failures == []
    assert emitter.statistics().emitted == counts[1]


def test_snapshot_taken_while_names_are_forgotten_is_the_last_one() -> None:
    """A signal handler may ask in the middle of it: nothing is counted twice."""
    emitter = EventEmitter(max_names=1)
    seen: list[int] = []

    def ask(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "_outdate":
            sys.setprofile(None)
            seen.append(emitter.statistics().emitted)

    async def main() -> None:
        await emitter.emit("a")
        await emitter.emit("a")
        assert emitter.statistics().emitted == 2
        before = sys.getprofile()
        sys.setprofile(ask)
        try:
            await emitter.emit("b")
        finally:
            sys.setprofile(before)

    run(main)
    assert seen == [2]
    assert emitter.statistics().emitted == 3
