"""What the statistics say, and that they are bounded."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import anyio
import pytest

from mtaio.events import Event, EventEmitter, EventStatistics
from mtaio.testing import settle


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
    """They are a picture of one moment, and the emitter cannot be changed by it."""
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
    """They can be sent to another process, and become plain data."""
    emitter = EventEmitter()
    await emitter.emit("a")
    statistics = emitter.statistics()
    assert pickle.loads(pickle.dumps(statistics)) == statistics  # noqa: S301 - our own
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
    assert len(emitter._ready) <= 8
    assert (statistics.emitted, statistics.handled) == (10_010, 10_010)
    emitted = statistics.other.emitted + sum(each.emitted for each in statistics.names.values())
    assert emitted == 10_010


async def test_name_that_emit_soon_has_emitted_is_no_old_one() -> None:
    """Its deliveries count as emits, also where it is decided which names are kept."""
    emitter = EventEmitter(max_names=2)
    for name in ("soon", "now"):
        await emitter.emit(name)
        await anyio.sleep(1)
    async with emitter:
        emitter.emit_soon("soon")
    await emitter.emit("new")
    assert set(emitter.statistics().names) == {"soon", "new"}


async def test_name_forgotten_during_an_emit_goes_on_counting() -> None:
    """Whatever comes of an emit whose name was forgotten is counted among the others."""
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
    """Only its counters and its matches are forgotten; the typed key comes through, too."""
    emitter = EventEmitter(max_names=1)
    seen: list[str] = []
    emitter.on("a", lambda event: seen.append(event.name))
    for _ in range(3):
        await emitter.emit("a")
        await emitter.emit("b")
    assert seen == ["a"] * 3
    assert len(emitter._ready) == 1
