"""
Growth: what each of a thousand costs, and each of a million.

Each unit (entries, keys, waiters, handlers ...) is measured for 10³, 10⁴, 10⁵ and 10⁶ of it, each
size in a process of its own: the processor time of every step, the garbage collector off, which is
run for the number of objects, whoever has made them; and in another process the bytes that
tracemalloc counts when the first step is over, keys and values left out. The slope is the
least-squares exponent of the time of all to their number: 1 is a time each that stays the same, 2
one that grows as they do. A size that would take more than `PATIENCE`, ten times what the one
before it took, is left out, as is one that needs more memory than `ROOM`.

``python -m benchmarks.growth [units]`` prints the table; ``python -m benchmarks docs --only
growth`` puts it on the page about it.

Targets: n log n from 10³ to 10⁶ has the slope 1.10. The caches of a processor hold a thousand of
anything and not a million, which is 0.15 more where the work is a look into a dict; what is left of
`MOST` is 5 % for the noise. Bytes are the same each, but that a dict is half empty at times: 1.05,
and 5 % more. What is known to grow faster is in `KNOWN`, with whose it is.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import subprocess
import sys
import time
import tracemalloc
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import cache as once
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio

from benchmarks._harness import Figure, expect
from mtaio.cache import TTLCache
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.monitoring import HealthRegistry, ResourceMonitor
from mtaio.resilience import AdaptiveLimiter, Breaker
from mtaio.resources import ConcurrencyLimiter, KeyedRateLimiter, RateLimiter, TimeoutManager

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

__all__ = ["SIZES", "UNITS", "Row", "measure", "slope", "table"]

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
ENOUGH: Final = 20_000
"""Small sizes are repeated until so many were there, and the least of the times counts."""
PATIENCE: Final = 12.0
"""Seconds of processor time that the steps of a unit may take."""
OF_CHECKS: Final = 6.0
"""The same where a target is checked, and not the table made."""
ROOM: Final = 4_000_000_000
"""Bytes that there may be of a unit."""
MOST: Final = 1.31
"""The slope that nothing may pass but what is in `KNOWN`."""
MOST_OF_BYTES: Final = 1.1


class Weighed(Exception):  # noqa: N818 - no error: nothing after the first step is of interest
    """Raised to end a unit once its bytes are known."""


class Steps:
    """Notes what each step of a unit takes; or what memory there is after the first."""

    def __init__(self, *, weighs: bool) -> None:
        self.seconds: dict[str, float] = {}
        self.bytes = 0
        self._weighs = weighs

    @contextmanager
    def __call__(self, name: str) -> Generator[None]:
        gc.collect()
        gc.disable()
        before = tracemalloc.get_traced_memory()[0] if self._weighs else 0
        started = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] = time.process_time() - started
            gc.enable()
        if self._weighs:
            gc.collect()
            self.bytes = tracemalloc.get_traced_memory()[0] - before
            raise Weighed


# ---- keys and entries ----------------------------------------------------------------------------


def named(start: int, count: int) -> list[str]:
    return [f"user:{number}" for number in range(start, start + count)]


async def entries(count: int, step: Steps) -> None:
    keys, new = named(0, count), named(count, count)
    made = TTLCache[str](300, max_size=count)
    put, get, delete = made.set_nowait, made.get_nowait, made.delete_nowait
    with step("store"):
        for key in keys:
            put(key, key)
    with step("hit"):
        for key in keys:
            get(key)
    with step("replace"):
        for key in new:
            put(key, key)
    held = list(made)
    with step("delete"):
        for key in held:
            delete(key)
    expect(not len(made), "deleted all")


async def tags(count: int, step: Steps) -> None:
    """Give each entry a tag of its own and one that all have."""
    keys = named(0, count)
    mine = [("all", number) for number in range(count)]
    made = TTLCache[int](300)
    put = made.set_nowait
    with step("store"):
        for key, both in zip(keys, mine, strict=True):
            put(key, 0, tags=both)
    with step("invalidate"):
        for number in range(0, count, 2):
            made.invalidate_tag_nowait(number)
    with step("all"):
        made.invalidate_tag_nowait("all")
    expect(not len(made), "found all by their tag")


async def limiter_keys(count: int, step: Steps) -> None:
    keys, new = named(0, count), named(count, count)
    made = KeyedRateLimiter(math.inf, burst=10, max_keys=count)
    acquire = made.acquire_nowait
    with step("new"):
        for key in keys:
            acquire(key)
    with step("again"):
        for key in keys:
            acquire(key)
    with step("replace"):
        for key in new:
            acquire(key)
    expect(made.statistics().keys == count, "kept as many keys as it may")


async def breaker_keys(count: int, step: Steps) -> None:
    keys, new = named(0, count), named(count, count)
    made = Breaker(max_keys=count)
    with step("new"):
        for key in keys:
            await made.run(answer, key=key)
    with step("again"):
        for key in keys:
            await made.run(answer, key=key)
    with step("replace"):
        for key in new:
            await made.run(answer, key=key)
    expect(made.statistics().keys == count, "kept as many keys as it may")


async def answer(*_: object) -> None:
    """Stand for work."""


# ---- tasks that wait -----------------------------------------------------------------------------

TURNS: Final = 4
"""In so many turns of the loop every task that was started waits."""


async def crowd(wait: Callable[[], Awaitable[object]], count: int) -> list[asyncio.Task[Any]]:
    """Start tasks as the loop itself starts them, and return them when they all wait."""
    tasks = [asyncio.ensure_future(wait()) for _ in range(count)]
    for _ in range(TURNS):
        await asyncio.sleep(0)
    expect(not any(task.done() for task in tasks[:: max(1, count // 10)]), "let them wait")
    return tasks


async def waiting(
    make: Callable[[], tuple[Callable[[], Awaitable[object]], Callable[[], object]]],
    count: int,
    step: Steps,
) -> None:
    """Let tasks wait, and get what they wait for; then others, that are cancelled."""
    wait, give = make()
    with step("wait"):
        tasks = await crowd(wait, count)
    with step("get"):
        give()
        await asyncio.gather(*tasks)
    wait, give = make()
    tasks = await crowd(wait, count)
    with step("cancel"):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def semaphore(count: int, step: Steps) -> None:
    def make() -> tuple[Callable[[], Awaitable[object]], Callable[[], object]]:
        made = asyncio.Semaphore(0)

        def give() -> None:
            for _ in range(count):
                made.release()

        return made.acquire, give

    await waiting(make, count, step)


async def for_slots(count: int, step: Steps) -> None:
    def make() -> tuple[Callable[[], Awaitable[object]], Callable[[], object]]:
        made = ConcurrencyLimiter(1)
        made.acquire_nowait()

        async def work() -> None:
            async with made:
                pass

        return work, made.release

    await waiting(make, count, step)


async def for_tokens(count: int, step: Steps) -> None:
    def make() -> tuple[Callable[[], Awaitable[object]], Callable[[], object]]:
        made = RateLimiter(1, per=86400)
        made.acquire_nowait()
        return made.acquire, lambda: made.reconfigure(rate=math.inf)

    await waiting(make, count, step)


async def for_keys(count: int, step: Steps) -> None:
    def make() -> tuple[Callable[[], Awaitable[object]], Callable[[], object]]:
        made = KeyedRateLimiter(1, per=86400, max_keys=None)
        numbers = iter(range(count))
        for number in range(count):
            made.acquire_nowait(number)
        return lambda: made.acquire(next(numbers)), lambda: made.reconfigure(rate=1e12)

    await waiting(make, count, step)


async def for_adaptive(count: int, step: Steps) -> None:
    def make() -> tuple[Callable[[], Awaitable[object]], Callable[[], object]]:
        made = AdaptiveLimiter(initial=1, max_limit=1, max_waiting=None)
        over = asyncio.Event()

        async def work() -> None:
            async with made:
                await over.wait()

        return work, over.set

    await waiting(make, count, step)


async def for_executor(count: int, step: Steps) -> None:
    def make() -> tuple[Callable[[], Awaitable[object]], Callable[[], object]]:
        made = TaskExecutor(max_workers=1)
        over = asyncio.Event()
        return lambda: made.run(over.wait), over.set

    await waiting(make, count, step)


async def for_load(count: int, step: Steps) -> None:
    def make() -> tuple[Callable[[], Awaitable[object]], Callable[[], object]]:
        made = TTLCache[int](300)
        over = asyncio.Event()

        async def load() -> int:
            await over.wait()
            return 1

        return lambda: made.get_or_set("key", load), over.set

    await waiting(make, count, step)


async def for_event(count: int, step: Steps) -> None:
    emitter = EventEmitter(max_listeners=None)
    with step("wait"):
        tasks = await crowd(lambda: emitter.wait_for("event"), count)
    with step("get"):
        await emitter.emit("event", 1)
        await asyncio.gather(*tasks)
    tasks = await crowd(lambda: emitter.wait_for("event"), count)
    with step("cancel"):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def deadlines(count: int, step: Steps) -> None:
    timeouts = TimeoutManager(3600)

    def make() -> tuple[Callable[[], Awaitable[object]], Callable[[], object]]:
        over = asyncio.Event()

        async def work() -> None:
            async with timeouts():
                await over.wait()

        return work, over.set

    await waiting(make, count, step)


# ---- tasks and items -----------------------------------------------------------------------------


async def group(count: int, step: Steps) -> None:
    """Do what an executor does with submitted tasks in a task group of AnyIO's: see `submitted`."""
    over = anyio.Event()
    async with anyio.create_task_group() as tasks:
        with step("start"):
            for _ in range(count):
                tasks.start_soon(over.wait)
            await asyncio.sleep(0)
        with step("end"):
            over.set()
            for _ in range(TURNS):
                await asyncio.sleep(0)
    with step("cancel"):
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(anyio.sleep_forever)
            await asyncio.sleep(0)
            tasks.cancel_scope.cancel()


async def submitted(count: int, step: Steps) -> None:
    over = anyio.Event()
    async with TaskExecutor() as executor:
        with step("start"):
            handles = [await executor.submit(over.wait) for _ in range(count)]
            await asyncio.sleep(0)
        with step("end"):
            over.set()
            for handle in handles:
                await handle
    with step("cancel"):
        async with TaskExecutor() as executor:
            for _ in range(count):
                await executor.submit(anyio.sleep_forever)
            await asyncio.sleep(0)
            executor.cancel()


async def number_of(item: int) -> int:
    await asyncio.sleep(0)
    return item


async def mapped(count: int, step: Steps) -> None:
    executor = TaskExecutor()
    with step("map"):
        results = await executor.map(number_of, range(count), limit=100)
    expect(len(results) == count, "kept all results")
    with step("timeout"):
        await executor.for_each(number_of, range(count), limit=100, timeout=60)
    with step("stream"):
        async with executor.stream(number_of, range(count), limit=100) as stream:
            async for _ in stream:
                pass


async def gathered(count: int, step: Steps) -> None:
    executor = TaskExecutor()
    calls = [partial(number_of, number) for number in range(count)]
    with step("gather"):
        results = await executor.gather(*calls)
    expect(len(results) == count, "kept all results")
    with step("as_completed"):
        async with executor.as_completed(*calls) as outcomes:
            async for _ in outcomes:
                pass

    async def loser() -> int:
        await anyio.sleep_forever()
        return 0

    with step("race"):
        await executor.race(*[loser] * (count - 1), partial(number_of, 1))


# ---- names and handlers --------------------------------------------------------------------------


def handlers(count: int) -> list[Any]:
    """Return plain handlers, each another one."""
    return [Handler().handle for _ in range(count)]


class Handler:
    """Has a handler."""

    __slots__ = ()

    def handle(self, event: object) -> None:
        """Do nothing."""


async def event_names(count: int, step: Steps) -> None:
    names, all_handlers = named(0, count), handlers(count)
    emitter = EventEmitter(max_names=None)
    with step("on"):
        for name, handler in zip(names, all_handlers, strict=True):
            emitter.on(name, handler)
    with step("emit"):
        for name in names:
            await emitter.emit(name, 1)
    with step("off"):
        for name, handler in zip(names, all_handlers, strict=True):
            emitter.off(name, handler)
    emitter = EventEmitter(max_names=max(1, count // 2))
    with step("replace"):
        for name in names:
            await emitter.emit(name, 1)


async def event_handlers(count: int, step: Steps) -> None:
    all_handlers = handlers(count)
    emitter = EventEmitter(max_listeners=None)
    with step("on"):
        for handler in all_handlers:
            emitter.on("event", handler)
    with step("emit"):
        await emitter.emit("event", 1)
    with step("off"):
        for handler in reversed(all_handlers):
            emitter.off("event", handler)
    for handler in all_handlers:
        emitter.once("event", handler)
    with step("once"):
        await emitter.emit("event", 1)
    expect(emitter.listener_count() == 0, "removed all")


async def event_streams(count: int, step: Steps) -> None:
    emitter = EventEmitter(max_listeners=None)
    async with AsyncExitStack() as stack:
        with step("open"):
            for _ in range(count):
                await stack.enter_async_context(emitter.stream("event"))
        with step("emit"):
            await emitter.emit("event", 1)
        rest = stack.pop_all()
        with step("close"):
            await rest.aclose()


# ---- what is watched -----------------------------------------------------------------------------


async def watched(count: int, step: Steps) -> None:
    objects = [RateLimiter(5, name=f"limiter-{number}") for number in range(count)]
    monitor = ResourceMonitor(history_size=2)
    with step("watch"):
        for each in objects:
            monitor.watch(each)
    with step("sample"):
        await monitor.tick()
    with step("unwatch"):
        for each in objects:
            monitor.unwatch(each)


async def gauges(count: int, step: Steps) -> None:
    names = named(0, count)
    monitor = ResourceMonitor(history_size=2)
    with step("watch"):
        for name in names:
            monitor.gauge(name, float)
    with step("sample"):
        await monitor.tick()
    with step("unwatch"):
        for name in names:
            monitor.unwatch(name)


async def health_checks(count: int, step: Steps) -> None:
    names = named(0, count)
    registry = HealthRegistry()
    with step("watch"):
        for name in names:
            registry.add(name, answer, timeout=math.inf)
    with step("report"):
        report = await registry.report()
    expect(report.healthy, "passed")
    with step("unwatch"):
        for name in names:
            registry.remove(name)


# ---- a table of them -----------------------------------------------------------------------------

UNITS: Final[dict[str, Callable[[int, Steps], Awaitable[None]]]] = {
    each.__name__: each
    for each in (
        entries,
        tags,
        limiter_keys,
        breaker_keys,
        for_slots,
        for_tokens,
        for_keys,
        for_adaptive,
        for_executor,
        for_load,
        for_event,
        deadlines,
        semaphore,
        submitted,
        group,
        mapped,
        gathered,
        event_names,
        event_handlers,
        event_streams,
        watched,
        gauges,
        health_checks,
    )
}

KNOWN: Final = {
    ("semaphore", "get"): "asyncio: release() passes those it has woken before",
    ("event_handlers", "off"): "EventEmitter.off() says so",
    ("watched", "unwatch"): "ResourceMonitor.unwatch() says so",
    ("gauges", "unwatch"): "ResourceMonitor.unwatch() says so",
}
"""What may pass `MOST`, and whose that is."""


@dataclass(frozen=True)
class Row:
    """One step of a unit: microseconds each, by size, and the bytes each where it is the first."""

    unit: str
    step: str
    times: dict[int, float]
    bytes: dict[int, float]

    @property
    def slope(self) -> float:
        return slope({size: each * size for size, each in self.times.items()})


def slope(totals: dict[int, float]) -> float:
    """Return the least-squares exponent of totals to their sizes; NaN for a single size."""
    xs = [math.log(size) for size in totals]
    ys = [math.log(max(total, 1e-9)) for total in totals.values()]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    square = sum((x - mean_x) ** 2 for x in xs)
    if not square:
        return math.nan
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / square


def alone(unit: str, size: int, *, weighs: bool) -> tuple[dict[str, float], int]:
    """Measure in a new process: return the seconds of each step, and the bytes."""
    command = [sys.executable, "-m", "benchmarks.growth", "--work", unit, str(size)]
    answer = subprocess.run(  # noqa: S603 - ourselves
        command + ["weigh"] * weighs, check=True, capture_output=True, text=True
    )
    told = json.loads(answer.stdout)
    return told["seconds"], told["bytes"]


def work(unit: str, size: int, *, weighs: bool) -> None:
    """Be the process that measures."""
    least: dict[str, float] = {}
    step = Steps(weighs=weighs)

    async def main() -> None:
        try:
            await UNITS[unit](size, step)
        except* Weighed:
            tracemalloc.stop()
            # What still waits would complain of being left.
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    for _ in range(1 if weighs else max(1, ENOUGH // size)):
        if weighs:
            tracemalloc.start()
        anyio.run(main)
        for name, seconds in step.seconds.items():
            least[name] = min(seconds, least.get(name, math.inf))
    print(json.dumps({"seconds": least, "bytes": step.bytes}))


@once
def measure(unit: str, patience: float = PATIENCE) -> tuple[Row, ...]:
    """Measure a unit in all sizes that fit."""
    times: dict[str, dict[int, float]] = {}
    weights: dict[int, float] = {}
    for size in SIZES:
        seconds, _ = alone(unit, size, weighs=False)
        for name, each in seconds.items():
            times.setdefault(name, {})[size] = each / size * 1e6
        weighing, weight = alone(unit, size, weighs=True)
        weights[size] = weight / size
        taken = max(sum(seconds.values()), *weighing.values())
        if 10 * taken > patience or 10 * weight > ROOM:
            break
    first = next(iter(times))
    return tuple(
        Row(unit, name, each, weights if name == first else {}) for name, each in times.items()
    )


def table(units: Sequence[str]) -> None:
    """Print the table."""
    print(f"{'':32}" + "".join(f"{size:>11,}" for size in SIZES) + "   slope   bytes each")
    for unit in units:
        for row in measure(unit):
            cells = "".join(
                f"{row.times[size]:11.3g}" if size in row.times else " " * 11 for size in SIZES
            )
            weights = " ".join(f"{each:.0f}" for each in row.bytes.values())
            print(f"{unit:18} {row.step:13}{cells}   {row.slope:5.2f}   {weights}", flush=True)


def steepest(unit: str) -> float:
    """Return the greatest slope of the steps that are not `KNOWN`."""
    rows = measure(unit, OF_CHECKS)
    return max(row.slope for row in rows if (unit, row.step) not in KNOWN)


def swelling(unit: str) -> float:
    """Return the slope of the bytes."""
    weights = measure(unit, OF_CHECKS)[0].bytes
    return slope({size: each * size for size, each in weights.items()})


EVENTS = [
    figure
    for unit in UNITS
    for figure in (
        Figure(
            title=f"{unit}: time",
            measure=partial(steepest, unit),
            unit="slope",
            most=MOST,
            loops=("asyncio",),
        ),
        Figure(
            title=f"{unit}: bytes",
            measure=partial(swelling, unit),
            unit="slope",
            most=MOST_OF_BYTES,
            loops=("asyncio",),
        ),
    )
    if unit not in {"semaphore", "group"}  # which are not ours
]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], int(sys.argv[3]), weighs=sys.argv[4:] == ["weigh"])
    else:
        table(sys.argv[1:] or list(UNITS))
