"""
What the page "Compared with other libraries" measures: ours beside those that it names, in one run.

It is a selection from the contests of the rooms, with as few items as the ratios need to be steady,
and the few calls of `_few`. Each line is measured in so many rounds; what is kept of a rival is the
median of the ratios, and between which two ratios the middle half of them lies. Bytes, and what
takes seconds, are measured in fewer. What is written is of the Python that runs this, beside what
was measured on others.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import (
    _few,
    cache,
    concurrency_limiter,
    events,
    executor,
    logging,
    rate_limiter,
    resilience,
    timeouts,
)
from benchmarks._figures import FIGURES, LIBRARIES, code_here, count, read
from benchmarks._harness import OURS, Contest, turns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

__all__ = ["measure"]

ITEMS: Final = 20_000


@dataclass(frozen=True)
class Line:
    """One thing to measure: its name in `_figures.WHATS`, the event loop, who takes part."""

    what: str
    contest: Contest
    loop: str = "asyncio"
    rounds: int | None = None
    """At most so many, for what is the same each time or takes seconds."""


def of(room: ModuleType, title: str, *rivals: str) -> Contest:
    """Return a contest of a room, with ours and these rivals alone."""
    contest: Contest = next(each for each in room.EVENTS if each.title == title)
    contenders = {name: contest.contenders[name] for name in (OURS, *rivals)}
    return replace(contest, contenders=contenders)


def mapping(*rivals: str) -> Contest:
    """Return the executor's first contest with fewer items."""
    ways: dict[str, Any] = {OURS: executor.ours, **executor.RIVALS}
    return Contest(
        title="map",
        contenders={
            name: executor.per_item(ways[name], executor.suspends, ITEMS)
            for name in (OURS, *rivals)
        },
    )


def lines() -> list[Line]:
    pool, gather, aiometer = executor.RAW, executor.GATHER, executor.AIOMETER
    return [
        Line("gather", _few.GATHER),
        Line("race", _few.RACE),
        Line("submit", _few.SUBMIT),
        Line("map", mapping(aiometer, executor.AMAP, gather, pool)),
        Line("map-trio", mapping(aiometer, executor.AMAP), "trio"),
        Line(
            "thread",
            of(
                executor,
                "a call in a worker thread",
                "anyio.to_thread",
                "asyncio.to_thread",
                executor.AIOMISC,
            ),
        ),
        Line("thread-map", _few.THREADS, rounds=3),
        Line(
            "rate",
            of(rate_limiter, "RateLimiter.acquire without a wait", rate_limiter.AIOLIMITER),
        ),
        Line(
            "slot",
            of(
                concurrency_limiter,
                "async with ConcurrencyLimiter without a wait",
                concurrency_limiter.SEMAPHORE,
                concurrency_limiter.CAPACITY,
            ),
        ),
        Line(
            "queue",
            of(
                concurrency_limiter,
                "10,000 tasks, each through a queue for 10 slots",
                concurrency_limiter.SEMAPHORE,
                concurrency_limiter.CAPACITY,
            ),
        ),
        Line(
            "block",
            of(
                timeouts,
                "async with timeouts(5.0)",
                timeouts.FAIL_AFTER,
                timeouts.ASYNCIO_TIMEOUT,
            ),
        ),
        *(Line(what, contest, rounds=3) for what, contest in _few.WAITING.items()),
        Line(
            "retry",
            of(resilience, "@pipeline with a Retry", "tenacity", "stamina", "hyx"),
        ),
        Line(
            "breaker",
            of(resilience, "@pipeline with a Breaker", "purgatory", "aiobreaker", "hyx"),
        ),
        Line(
            "timeout",
            of(
                resilience,
                "@pipeline with a Timeout",
                resilience.FAIL_AFTER,
                resilience.ASYNCIO_TIMEOUT,
                "hyx",
            ),
        ),
        *(Line(what, contest, rounds=1) for what, contest in _few.MEMORY.items()),
        *(Line(what, contest, rounds=3) for what, contest in _few.GROWTH.items()),
        Line(
            "hit",
            of(
                cache,
                "hit, get_nowait",
                cache.CACHETOOLS,
                cache.BARE,
                cache.THEINE,
                cache.CACHEBOX,
                cache.DICT,
            ),
        ),
        Line(
            "decorated",
            of(cache, "hit, @cached function", cache.ASYNC_LRU, cache.ANYIO_LRU, cache.MEMOIZE),
        ),
        Line(
            "store",
            of(
                cache,
                "a new key in the place of another",
                cache.CACHETOOLS,
                cache.THEINE,
                cache.CACHEBOX,
            ),
        ),
        Line(
            "load",
            of(
                cache,
                "miss with load, not entered",
                cache.ASYNC_LRU,
                cache.ANYIO_LRU,
                cache.MEMOIZE,
            ),
        ),
        Line(
            "load-entered",
            of(
                cache,
                "miss with load, entered: a task for each",
                cache.ASYNC_LRU,
                cache.ANYIO_LRU,
                cache.MEMOIZE,
            ),
        ),
        Line(
            "plain",
            of(events, "emit, one plain handler", events.PYEE_SYNC, events.BLINKER_SYNC),
        ),
        Line(
            "async",
            of(events, "emit, one async handler", events.PYEE, events.BLINKER, events.BARE),
        ),
        Line(
            "tasks",
            of(
                events,
                "emit, ten async handlers that all suspend, not entered",
                events.TASK_GROUP,
            ),
        ),
        Line(
            "stream",
            of(events, "stream, each event from emit to consumer", events.MEMORY_STREAM),
        ),
        Line(
            "record",
            of(logging, "a record, to its caller", logging.QUEUED, logging.ROTATING),
        ),
        Line(
            "written",
            of(logging, "a record, until it is written", logging.QUEUED, logging.ROTATING),
        ),
    ]


def measured(line: Line, rounds: int) -> Iterable[dict[str, Any]]:
    """Return a row for each rival of a line."""
    times = turns(line.contest, line.loop, min(rounds, line.rounds or rounds))
    ours = times.pop(OURS)
    for name, theirs in times.items():
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        # Of a single one there are no quantiles.
        low, middle, high = statistics.quantiles(ratios * 2, n=4, method="inclusive")
        yield {
            "what": line.what,
            "rival": name,
            "ours": rounded(statistics.median(ours)),
            "theirs": rounded(statistics.median(theirs)),
            "unit": line.contest.unit,
            "ratio": rounded(middle),
            "low": rounded(low),
            "high": rounded(high),
        }


def rounded(figure: float) -> float:
    return float(f"{figure:.3g}")


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    return {
        "cores": str(os.cpu_count()),
        "processor": processor(),
        "system": system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        described = ""
    names = [
        line.partition(":")[2].strip()
        for line in described.splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.processor() or platform.machine()


def system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def is_here(library: str) -> bool:
    """Return whether a library is installed: not every one has a wheel for every Python."""
    try:
        version(library)
    except PackageNotFoundError:
        return False
    return True


def code(library: str) -> int:
    """Return how many lines of Python a library installs; of ours, how many there are here."""
    if library == OURS:
        return code_here()
    installed = files(library) or []
    return sum(count(Path(str(each.locate()))) for each in installed if each.suffix == ".py")


def measure(rounds: int, only: Sequence[str] = ()) -> None:
    """Measure everything, or these lines ``only`` beside what is there, and write `FIGURES`."""
    measured_with = {
        "rounds": rounds,
        "machine": machine(),
        "versions": {name: version(name) for name in LIBRARIES if is_here(name)},
    }
    figures = read()
    python = ".".join(platform.python_version_tuple()[:2])
    before = figures.get(python, {})
    if only and measured_with != {name: before.get(name) for name in measured_with}:
        msg = (
            f"{FIGURES.name} is of {before.get('machine')}, {before.get('versions')}, "
            f"{before.get('rounds')} rounds. Measure everything."
        )
        raise SystemExit(msg)
    rows: list[dict[str, Any]] = []
    for line in lines():
        if only and line.what not in only:
            rows += [row for row in before["rows"] if row["what"] == line.what]
            continue
        for row in measured(line, rounds):
            rows.append(row)
            print(
                f"  {row['what']:12} {row['rival']:34} {row['ratio']:8.3g} x"
                f"   {row['low']:.3g} to {row['high']:.3g}",
                flush=True,
            )
    written = {
        **measured_with,
        "code": {name: code(name) for name in LIBRARIES if is_here(name)},
        "rows": rows,
    }
    figures = dict(sorted((read() | {python: written}).items()))
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
