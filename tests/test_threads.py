"""
Every public method of every primitive, called from where its event loop does not run.

How, and what is to happen: `tests.threads`. Those of mtaio.redis and of mtaio.app are in
tests/redis/test_threads.py and tests/app/test_threads.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from mtaio import cache, core, events, monitoring, resilience, resources
from mtaio.cache import Cached, PlainCached, TTLCache, cached
from mtaio.core import Budget, Intake, PeriodicTask, Retry, TaskExecutor, TaskHandle
from mtaio.events import EventEmitter
from mtaio.monitoring import HealthMonitor, HealthRegistry, Probes, ProbesRelay, ResourceMonitor
from mtaio.resilience import AdaptiveLimiter, Breaker, Fallback, Hedge, Keyed, Pipeline, Timeout
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedQuota,
    KeyedRateLimiter,
    Quota,
    RateLimiter,
    ResourceLimiter,
    TimeoutManager,
)
from tests.threads import PLACES, Case, check_elsewhere, check_without_a_loop, public

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


async def second(*_: object) -> int:
    """Take a second."""
    await anyio.sleep(1)
    return 1


async def items(*_: object) -> AsyncGenerator[int]:
    """Yield two items, a second apart."""
    yield 1
    await anyio.sleep(1)
    yield 2


async def streamed(part: Any, key: object = None) -> list[int]:
    """Return the items of a stream through a part."""
    async with part.stream(items, key=key) as stream:
        return [item async for item in stream]


async def each_of(timeouts: TimeoutManager) -> list[int]:
    """Return the items of a generator, each in its time."""
    async with timeouts.each(items(), first=1, between=2) as stream:
        return [item async for item in stream]


async def everything(keys: list[str]) -> dict[str, int]:
    """Load a value for each key."""
    return dict.fromkeys(keys, await second())


def plain(*_: object) -> int:
    """Take no time."""
    return 1


async def hold(limiter: Any) -> None:
    """Hold a slot for a second."""
    await limiter.acquire()
    await anyio.sleep(1)
    if limiter.statistics().in_use:  # else the other thread has given it back
        limiter.release()


async def hold_key(limiter: KeyedConcurrencyLimiter) -> None:
    """Hold a slot of a key for a second."""
    await limiter.acquire("key")
    await anyio.sleep(1)
    if limiter.statistics().in_use:  # else the other thread has given it back
        limiter.release("key")


async def block(limiter: Any) -> None:
    """Be in the block of a limiter for a second."""
    async with limiter:
        await anyio.sleep(1)


async def slot(limiter: AdaptiveLimiter) -> None:
    """Hold a slot for a second."""
    async with limiter:
        await anyio.sleep(1)


async def limited(manager: TimeoutManager) -> None:
    """Be in a block with a limit."""
    with manager(5):
        await anyio.sleep(1)


async def emit(emitter: EventEmitter) -> None:
    """Emit an event, and wait for one."""
    emitter.on("event", second)
    await emitter.emit("event")


async def submit(executor: TaskExecutor) -> None:
    """Wait for a task."""
    handle = await executor.submit(second)
    await handle.wait()


async def periodic(executor: TaskExecutor) -> PeriodicTask:
    """Return a task that runs again and again."""
    return executor.every(1, second)


def registry() -> HealthRegistry:
    """Return a registry with a check."""
    made = HealthRegistry()
    made.add("check", second)
    return made


def function() -> Any:
    """Return a function whose results are cached."""
    return cached(ttl=100)(second)


def breaker() -> Breaker:
    """Return an open breaker."""
    made = Breaker()
    made.force_open()
    return made


def second_breaker(_: object) -> Breaker:
    """Return a breaker for a key."""
    return Breaker()


CASES: Final[dict[type, Case]] = {
    ConcurrencyLimiter: Case(lambda: ConcurrencyLimiter(1), hold),
    RateLimiter: Case(lambda: RateLimiter(1), lambda it: it.acquire()),
    KeyedQuota: Case(lambda: KeyedQuota(a=1), lambda it: it.acquire("key")),
    Quota: Case(lambda: Quota(a=1), lambda it: it.acquire()),
    KeyedRateLimiter: Case(lambda: KeyedRateLimiter(1), lambda it: it.acquire("key")),
    KeyedConcurrencyLimiter: Case(lambda: KeyedConcurrencyLimiter(1), hold_key),
    ResourceLimiter: Case(lambda: ResourceLimiter(concurrency=1, rate=9, timeout=9), block),
    TimeoutManager: Case(lambda: TimeoutManager(9), limited),
    TTLCache: Case(lambda: TTLCache(100), lambda it: it.get_or_set("key", second), entered=True),
    Cached: Case(function, lambda it: it(1)),
    PlainCached: Case(lambda: cached(ttl=100)(plain), lambda it: second(it(1))),
    EventEmitter: Case(EventEmitter, emit, entered=True),
    HealthRegistry: Case(registry, lambda it: it.report()),
    HealthMonitor: Case(HealthMonitor, lambda it: it.get_health_status()),
    Probes: Case(lambda: Probes(ResourceMonitor(1), bind="127.0.0.1:0"), second),
    ProbesRelay: Case(lambda: ProbesRelay(dict, bind="127.0.0.1:0"), second),
    ResourceMonitor: Case(lambda: ResourceMonitor(1), lambda it: it.tick(), entered=True),
    TaskExecutor: Case(lambda: TaskExecutor(1), submit, entered=True),
    TaskHandle: Case(
        lambda: TaskExecutor(2),
        lambda it: it.run(second),
        entered=True,
        wanted=lambda it: it.submit(second),
    ),
    PeriodicTask: Case(
        lambda: TaskExecutor(2), lambda it: it.run(second), entered=True, wanted=periodic
    ),
    Intake: Case(lambda: Intake(second, ack=second, nack=second), lambda it: it.ack(1)),
    Budget: Case(lambda: Budget(0.1), second),
    Retry: Case(lambda: Retry(3), lambda it: it.run(second)),
    AdaptiveLimiter: Case(lambda: AdaptiveLimiter(initial=1, max_waiting=9), slot),
    Breaker: Case(breaker, second),
    Keyed: Case(lambda: Keyed(second_breaker), lambda it: it.run(second, key="key")),
    Fallback: Case(lambda: Fallback(plain), second),
    Hedge: Case(lambda: Hedge(after=0.5), second),
    Timeout: Case(lambda: Timeout(5), second),
    Pipeline: Case(lambda: Pipeline(Retry(2), Timeout(5)), lambda it: it.run(second)),
}

# What has a row of no use: values, results, and what is used within one task or by one call.
OTHERS: Final = frozenset(
    {
        "AdaptiveSlot",
        "Alert",
        "Attempt",
        "BoundCached",
        "BoundPlainCached",
        "BreakerBlock",
        "BreakerChange",
        "BreakerState",
        "Call",
        "CallStream",
        "CheckResult",
        "Cron",
        "Event",
        "EventKey",
        "EventPriority",
        "EventStream",
        "ExternalPool",
        "FellBack",
        "GaveUp",
        "GroupNode",
        "HealthReport",
        "Hedged",
        "Journal",
        "LimitedItems",
        "Metric",
        "OpenStream",
        "Outcome",
        "Part",
        "PartEvent",
        "QuotaPart",
        "Refused",
        "RemovalCause",
        "Retried",
        "Source",
        "Stall",
        "StandalonePart",
        "Stream",
        "Taken",
        "TaskNode",
        "TaskStatus",
        "TaskTree",
        "Threshold",
        "Throttled",
        "TimedOut",
        "TimeoutScope",
        "Wait",
    }
)

CALLS: Final[dict[type, dict[str, Callable[[Any], Any]]]] = {
    ConcurrencyLimiter: {
        "acquire": lambda it: it.acquire(),
        "acquire_nowait": lambda it: it.acquire_nowait(),
        "try_acquire": lambda it: it.try_acquire(),
        "close": lambda it: it.close(),
        "limit": lambda it: setattr(it, "limit", 2),
        "release": lambda it: it.release(),
        "run": lambda it: it.run(second),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
    },
    RateLimiter: {
        "acquire": lambda it: it.acquire(),
        "acquire_nowait": lambda it: it.acquire_nowait(),
        "try_acquire": lambda it: it.try_acquire(),
        "close": lambda it: it.close(),
        "burst": lambda it: setattr(it, "burst", 9),
        "hold": lambda it: it.hold(0),
        "rate": lambda it: setattr(it, "rate", 9),
        "reconfigure": lambda it: it.reconfigure(rate=9, burst=9),
        "reset": lambda it: it.reset(),
        "run": lambda it: it.run(second),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "window": lambda it: it.window(1),
    },
    Quota: {
        "acquire": lambda it: it.acquire(),
        "acquire_nowait": lambda it: it.acquire_nowait(),
        "close": lambda it: it.close(),
        "hold": lambda it: it.hold(1),
        "observe": lambda it: it.observe(limit={"a": 2}, remaining={"a": 1}, reset={"a": 1}),
        "part": lambda it: it.part(),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "take": lambda it: it.take(),
        "together": lambda it: it.together([1]),
        "try_acquire": lambda it: it.try_acquire(),
    },
    KeyedQuota: {
        "acquire": lambda it: it.acquire("key"),
        "acquire_nowait": lambda it: it.acquire_nowait("key"),
        "close": lambda it: it.close(),
        "hold": lambda it: it.hold("key", 1),
        "observe": lambda it: it.observe("key", remaining={"a": 1}),
        "part": lambda it: it.part(),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "statistics_for": lambda it: it.statistics_for("key"),
        "take": lambda it: it.take("key"),
        "try_acquire": lambda it: it.try_acquire("key"),
    },
    KeyedRateLimiter: {
        "acquire": lambda it: it.acquire("key"),
        "acquire_nowait": lambda it: it.acquire_nowait("key"),
        "try_acquire": lambda it: it.try_acquire("key"),
        "close": lambda it: it.close(),
        "burst": lambda it: setattr(it, "burst", 9),
        "hold": lambda it: it.hold("key", 0),
        "rate": lambda it: setattr(it, "rate", 9),
        "reconfigure": lambda it: it.reconfigure(rate=9, burst=9),
        "reset": lambda it: it.reset(),
        "run": lambda it: it.run(second, key="key"),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "statistics_for": lambda it: it.statistics_for("key"),
        "window": lambda it: it.window(1),
    },
    KeyedConcurrencyLimiter: {
        "acquire": lambda it: it.acquire("key"),
        "acquire_nowait": lambda it: it.acquire_nowait("key"),
        "try_acquire": lambda it: it.try_acquire("key"),
        "close": lambda it: it.close(),
        "limit": lambda it: setattr(it, "limit", 2),
        "release": lambda it: it.release("key"),
        "run": lambda it: it.run(second, key="key"),
        "slot": lambda it: it.slot("key"),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "statistics_for": lambda it: it.statistics_for("key"),
    },
    ResourceLimiter: {
        "run": lambda it: it.run(second),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
    },
    TimeoutManager: {
        "each": each_of,
        "limit": lambda it: it.limit(second),
        "remaining": lambda it: it.remaining(),
        "run": lambda it: it.run(second),
        "shielded": lambda it: it.shielded(),
        "statistics": lambda it: it.statistics(),
    },
    TTLCache: {
        "clear": lambda it: it.clear(),
        "clear_nowait": lambda it: it.clear_nowait(),
        "contains": lambda it: it.contains("key"),
        "contains_nowait": lambda it: it.contains_nowait("key"),
        "delete": lambda it: it.delete("key"),
        "delete_many": lambda it: it.delete_many(["key"]),
        "delete_many_nowait": lambda it: it.delete_many_nowait(["key"]),
        "delete_nowait": lambda it: it.delete_nowait("key"),
        "get": lambda it: it.get("key"),
        "get_many": lambda it: it.get_many(["key"]),
        "get_many_nowait": lambda it: it.get_many_nowait(["key"]),
        "get_nowait": lambda it: it.get_nowait("key"),
        "get_or_set": lambda it: it.get_or_set("key", second),
        "get_or_set_many": lambda it: it.get_or_set_many(["key"], everything),
        "increment": lambda it: it.increment("number"),
        "increment_nowait": lambda it: it.increment_nowait("number"),
        "invalidate_tag": lambda it: it.invalidate_tag("tag"),
        "invalidate_tag_nowait": lambda it: it.invalidate_tag_nowait("tag"),
        "is_loading": lambda it: it.is_loading("key"),
        "items": lambda it: it.items(),
        "refresh": lambda it: it.refresh("key", second),
        "set": lambda it: it.set("key", 2),
        "set_many": lambda it: it.set_many({"key": 2}),
        "set_many_nowait": lambda it: it.set_many_nowait({"key": 2}),
        "set_nowait": lambda it: it.set_nowait("key", 2),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "touch": lambda it: it.touch("key"),
        "touch_nowait": lambda it: it.touch_nowait("key"),
    },
    Cached: {
        "contains": lambda it: it.contains(1),
        "contains_nowait": lambda it: it.contains_nowait(1),
        "invalidate": lambda it: it.invalidate(1),
        "invalidate_nowait": lambda it: it.invalidate_nowait(1),
        "is_loading": lambda it: it.is_loading(1),
        "refresh": lambda it: it.refresh(1),
    },
    PlainCached: {
        "contains": lambda it: it.contains(1),
        "invalidate": lambda it: it.invalidate(1),
        "is_loading": lambda it: it.is_loading(1),
        "refresh": lambda it: it.refresh(1),
    },
    EventEmitter: {
        "emit": lambda it: it.emit("event"),
        "emit_nowait": lambda it: it.emit_nowait("event"),
        "event_names": lambda it: it.event_names(),
        "listener_count": lambda it: it.listener_count(),
        "listeners": lambda it: it.listeners("event"),
        "off": lambda it: it.off("event", plain),
        "on": lambda it: it.on("other", plain),
        "once": lambda it: it.once("other", plain),
        "remove_all_listeners": lambda it: it.remove_all_listeners(),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "stream": lambda it: it.stream("other"),
        "wait_for": lambda it: it.wait_for("other", timeout=0),
    },
    HealthRegistry: {
        "add": lambda it: it.add("other", plain),
        "check": lambda it: it.check("third")(plain),
        "remove": lambda it: it.remove("check"),
        "report": lambda it: it.report(),
        "set_ready": lambda it: it.set_ready(False),
        "statistics": lambda it: it.statistics(),
    },
    HealthMonitor: {
        "get_health_status": lambda it: it.get_health_status(),
        "start": lambda it: it.start(),
        "stop": lambda it: it.stop(),
    },
    Probes: {
        "start": lambda it: it.start(),
        "statistics": lambda it: it.statistics(),
        "stop": lambda it: it.stop(),
    },
    ProbesRelay: {
        "serve": lambda it: it.serve(),
    },
    ResourceMonitor: {
        "answering": lambda it: it.answering(1),
        "current_stall": lambda it: it.current_stall(),
        "forward_to": lambda it: it.forward_to(EventEmitter()),
        "gauge": lambda it: it.gauge("gauge", plain),
        "get_current_stats": lambda it: it.get_current_stats(),
        "history": lambda it: it.history("cpu_usage"),
        "metric_names": lambda it: it.metric_names(),
        "on_loop_blocked": lambda it: it.on_loop_blocked(plain),
        "on_recovered": lambda it: it.on_recovered(plain),
        "on_threshold_exceeded": lambda it: it.on_threshold_exceeded(plain),
        "remove_threshold": lambda it: it.remove_threshold("cpu_usage"),
        "set_threshold": lambda it: it.set_threshold("cpu_usage", 50),
        "sources": lambda it: it.sources(),
        "start": lambda it: it.start(),
        "statistics": lambda it: it.statistics(),
        "stop": lambda it: it.stop(),
        "tick": lambda it: it.tick(),
        "unwatch": lambda it: it.unwatch(plain),
        "values": lambda it: it.values(),
        "watch": lambda it: it.watch(Budget(0.1, name="budget")),
    },
    TaskExecutor: {
        "as_completed": lambda it: it.as_completed(second),
        "cancel": lambda it: it.cancel(),
        "drain": lambda it: it.drain(),
        "every": lambda it: it.every(1, second),
        "for_each": lambda it: it.for_each(second, [1]),
        "gather": lambda it: it.gather(second),
        "map": lambda it: it.map(second, [1]),
        "race": lambda it: it.race(second),
        "run": lambda it: it.run(second),
        "run_in_process": lambda it: it.run_in_process(plain),
        "run_in_thread": lambda it: it.run_in_thread(plain),
        "start": lambda it: it.start(second),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "stream": lambda it: it.stream(second, [1]),
        "submit": lambda it: it.submit(second),
        "submit_nowait": lambda it: it.submit_nowait(second),
    },
    TaskHandle: {
        "cancel": lambda it: it.cancel(),
        "result": lambda it: it.result(),
        "wait": lambda it: it.wait(),
    },
    PeriodicTask: {
        "cancel": lambda it: it.cancel(),
        "check_health": lambda it: it.check_health(),
        "statistics": lambda it: it.statistics(),
        "stop": lambda it: it.stop(),
        "wait": lambda it: it.wait(),
    },
    Intake: {"ack": lambda it: it.ack(1), "nack": lambda it: it.nack(1, None)},
    Budget: {
        "statistics": lambda it: it.statistics(),
    },
    Retry: {
        "run": lambda it: it.run(second),
        "statistics": lambda it: it.statistics(),
        "wait_before": lambda it: it.wait_before(2),
    },
    AdaptiveLimiter: {
        "run": lambda it: it.run(second),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "stream": streamed,
        "wrap": lambda it: it.wrap(second),
        "wrap_stream": lambda it: it.wrap_stream(second),
    },
    Breaker: {
        "block": lambda it: it.block(),
        "disable": lambda it: it.disable(),
        "force_open": lambda it: it.force_open(),
        "reset": lambda it: it.reset(),
        "run": lambda it: it.run(second),
        "state_of": lambda it: it.state_of("key"),
        "statistics": lambda it: it.statistics(),
        "stream": streamed,
        "wrap": lambda it: it.wrap(second),
        "wrap_stream": lambda it: it.wrap_stream(second),
    },
    Keyed: {
        "held_keys": lambda it: it.held_keys(),
        "hold": lambda it: it.hold("key", 1),
        "part": lambda it: it.part("key"),
        "run": lambda it: it.run(second, key="key"),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "statistics_for": lambda it: it.statistics_for("key"),
        "stream": lambda it: streamed(it, key="key"),
        "wrap": lambda it: it.wrap(second),
        "wrap_stream": lambda it: it.wrap_stream(second),
    },
    Fallback: {
        "run": lambda it: it.run(second),
        "statistics": lambda it: it.statistics(),
        "stream": streamed,
        "wrap": lambda it: it.wrap(second),
    },
    Hedge: {
        "run": lambda it: it.run(second),
        "statistics": lambda it: it.statistics(),
        "stream": streamed,
        "wrap": lambda it: it.wrap(second),
        "wrap_stream": lambda it: it.wrap_stream(second),
    },
    Timeout: {
        "run": lambda it: it.run(second),
        "statistics": lambda it: it.statistics(),
        "stream": streamed,
        "wrap": lambda it: it.wrap(second),
        "wrap_stream": lambda it: it.wrap_stream(second),
    },
    Pipeline: {
        "run": lambda it: it.run(second),
        "record_durations": lambda it: it.record_durations(),
        "statistics": lambda it: it.statistics(),
        "stream": streamed,
    },
}

ROWS: Final = [(kind, name) for kind, names in CALLS.items() for name in names]


def test_every_method_has_its_row() -> None:
    """A new method is a new row, and a new class its rows: this says which are missing."""
    assert {kind: public(kind) for kind in CASES} == {
        kind: set(names) for kind, names in CALLS.items()
    }
    for package in (cache, core, events, monitoring, resilience, resources):
        for name in package.__all__:
            made = getattr(package, name)
            if not isinstance(made, type) or issubclass(made, BaseException):
                continue
            if name.endswith(("Statistics", "Stats", "Info")) or name in OTHERS:
                continue
            assert made in CASES, f"{made} has no rows"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("kind", "name"), ROWS, ids=lambda part: getattr(part, "__name__", part))
def test_elsewhere(kind: type, name: str, place: str, backend: str) -> None:
    """Beside the loop in which tasks wait, it works, or refuses and has changed nothing."""
    check_elsewhere(CASES[kind], CALLS[kind][name], place, backend)


@pytest.mark.parametrize(("kind", "name"), ROWS, ids=lambda part: getattr(part, "__name__", part))
def test_without_a_loop(kind: type, name: str, backend: str) -> None:
    """Where no loop runs, before any did and after, it works, or refuses with a text."""
    check_without_a_loop(CASES[kind], CALLS[kind][name], backend)
