"""The statistics of every limiter: what they declare, and asked for from another thread."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio import statistics
from mtaio._internal.gil import has_gil
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)
from mtaio.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

CLASSES = [
    each
    for each in [getattr(statistics, name) for name in statistics.__all__]
    if each.__module__.startswith("mtaio.resources.") or each is statistics.TimeoutStatistics
]


@pytest.mark.parametrize("kind", CLASSES)
def test_fields_say_how_they_move(kind: Any) -> None:
    """Each number declares whether it grows, goes up and down, or is a limit."""
    assert kind.__slots__ == tuple(field.name for field in fields(kind))
    for field in fields(kind):
        if "Statistics" not in str(field.type):  # the statistics of a part
            assert field.metadata["kind"] in {"counter", "gauge", "limit"}
            assert field.kw_only


def counters(snapshot: Any, path: str = "") -> Generator[tuple[str, float]]:
    """Yield the numbers that only grow, those of the parts included."""
    for field in fields(snapshot):
        value = getattr(snapshot, field.name)
        if is_dataclass(value):
            yield from counters(value, f"{path}{field.name}.")
        elif field.metadata["kind"] == "counter":
            yield path + field.name, value


async def use_rate(limiter: RateLimiter) -> None:
    """Wait, be refused and be cancelled."""
    for number in range(30):
        with anyio.move_on_after(0.5 if number % 3 else None):
            await limiter.acquire()
        with suppress(TimeoutError):
            await limiter.acquire(timeout=0)
        limiter.reconfigure(rate=1 + number % 2, burst=1 + number % 3)


async def use_window(limiter: RateLimiter) -> None:
    """Wait, and start over."""
    for number in range(150):
        await limiter.acquire()
        limiter.rate = 1 + number % 3
        if not number % 7:
            limiter.reset()


async def use_keys(limiter: KeyedRateLimiter) -> None:
    """Take in and forget keys, and wait for some."""
    for number in range(60):
        with anyio.move_on_after(0.5):
            await limiter.acquire(number % 7)
            await limiter.acquire(number % 7)


async def use_slots(limiter: ConcurrencyLimiter) -> None:
    """Wait, give up and be cancelled."""
    for number in range(80):
        with anyio.move_on_after(number % 4):
            async with limiter:
                await anyio.sleep(1)


async def use_all(limiter: ResourceLimiter) -> None:
    """Wait for a slot and a token."""
    for _ in range(80):
        async with limiter:
            await anyio.sleep(0.01)


async def use_timeouts(manager: TimeoutManager) -> None:
    """Run out of time."""
    for _ in range(100):
        with pytest.raises(TimeoutError):
            await manager.run(anyio.sleep_forever)


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (lambda: RateLimiter(2), use_rate),
        (lambda: RateLimiter.window(2, per=1), use_window),
        (lambda: KeyedRateLimiter(2, max_keys=10, idle_ttl=0), use_keys),
        (lambda: ConcurrencyLimiter(2), use_slots),
        (lambda: ResourceLimiter(rate=100, concurrency=2, timeout=9, timeout_total=99), use_all),
        (lambda: TimeoutManager(0.5), use_timeouts),
    ],
    ids=["rate", "window", "keyed", "concurrency", "combined", "timeouts"],
)
def test_from_another_thread(
    backend: str, make: Callable[[], Any], use: Callable[[Any], Coroutine[Any, Any, None]]
) -> None:
    """At any time a thread gets a picture; no counter goes back, and no limit is exceeded."""
    limiter = make()
    looked = threading.Event()
    over = threading.Event()
    problems: list[object] = []
    looks = 0
    asking = not has_gil()  # the slot that a task is asking for may be seen

    def watch() -> None:
        nonlocal looks
        before = dict(counters(limiter.statistics()))
        while not over.is_set():
            try:
                now = limiter.statistics()
                if isinstance(limiter, KeyedRateLimiter):
                    limiter.statistics_for(3)
            except Exception as error:  # noqa: BLE001 - to be shown by the test
                problems.append(error)
                return
            after = dict(counters(now))
            problems.extend(name for name in after if after[name] < before[name])
            slots = getattr(now, "concurrency", now)
            if (
                slots is not None
                and hasattr(slots, "limit")
                and slots.in_use > slots.limit + asking
            ):
                problems.append(slots)
            before = after
            looks += 1
            looked.set()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(use, limiter)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        looked.wait(20)  # short as the use is, the thread is at work by then
        run(main, backend=backend)
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert problems == []
    assert looks
