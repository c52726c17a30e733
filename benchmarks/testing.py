"""
mtaio.testing: sleeps under virtual time, and runs under chosen schedules, compared with plain ones.

Nothing real is waited for here, so what counts is the time of the processor, which other work
on the machine disturbs less.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import trio.testing
from anyio.lowlevel import checkpoint

from benchmarks._harness import OURS, Contest, expect, maybe
from mtaio.testing import explore, run

if TYPE_CHECKING:
    from collections.abc import Callable

SLEEPS: Final = 30_000
LOOPTIMES_SLEEPS: Final = 3_000
RUNS: Final = 300

LOOPTIME: Final = "looptime"
MOCK_CLOCK: Final = "trio's MockClock"
PLAIN: Final = "anyio.run"


async def sleeps(number: int) -> None:
    """Sleep for a tenth of a second again and again."""
    started = anyio.current_time()
    for _ in range(number):
        await anyio.sleep(0.1)
    expect(round(anyio.current_time() - started, 3) == number / 10, "slept as long as it says")


def per_sleep(sleeper: Callable[[], object], number: int) -> float:
    """Return the microseconds for each of ``number`` sleeps."""
    started = time.thread_time()
    sleeper()
    return (time.thread_time() - started) / number * 1e6


def sleeps_ours(backend: str) -> float:
    return per_sleep(lambda: run(sleeps, SLEEPS, backend=backend), SLEEPS)


def sleeps_looptime() -> float:
    looptime = maybe("looptime")  # here, as its pytest plugin would be in the way elsewhere
    options = {"loop_factory": lambda: looptime.new_event_loop(start=0)}
    return per_sleep(
        lambda: anyio.run(sleeps, LOOPTIMES_SLEEPS, backend_options=options), LOOPTIMES_SLEEPS
    )


def sleeps_mock_clock() -> float:
    clock = trio.testing.MockClock(autojump_threshold=0)
    return per_sleep(
        lambda: anyio.run(sleeps, SLEEPS, backend="trio", backend_options={"clock": clock}), SLEEPS
    )


async def ten_steps() -> None:
    """Two tasks that share a lock, while the one that made them waits: ten steps."""
    lock = anyio.Lock()
    entered: list[str] = []

    async def enter(name: str) -> None:
        for _ in range(2):
            async with lock:
                await checkpoint()
                entered.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(enter, "a")
        group.start_soon(enter, "b")
    expect(len(entered) == 4, "entered")  # noqa: PLR2004 - twice each


def per_run(runner: Callable[[], object]) -> float:
    """Return the microseconds for each run of the scenario."""
    started = time.thread_time()
    for _ in range(RUNS):
        runner()
    return (time.thread_time() - started) / RUNS * 1e6


def runs_explored(backend: str) -> float:
    """Return the microseconds for each run of a search, one of them on the empty tape."""
    explored = explore(seeds=RUNS - 1, exhaustive=None, backends=(backend,))(ten_steps)
    started = time.thread_time()
    explored()
    return (time.thread_time() - started) / RUNS * 1e6


def runs_virtual(backend: str) -> float:
    return per_run(lambda: run(ten_steps, backend=backend))


def runs_plain(backend: str) -> float:
    return per_run(lambda: anyio.run(ten_steps, backend=backend))


def of_runs(title: str, ours: Callable[[str], float], *, most: float | None) -> list[Contest]:
    """Return the contests beside plain runs, one for each backend."""
    return [
        Contest(
            title=title,
            contenders={OURS: partial(ours, backend), PLAIN: partial(runs_plain, backend)},
            targets={} if most is None else {PLAIN: most},
            loops=(backend,),
        )
        for backend in ("asyncio", "trio")
    ]


EVENTS = [
    Contest(
        title="a sleep under virtual time",
        contenders={OURS: partial(sleeps_ours, "asyncio"), LOOPTIME: sleeps_looptime},
        targets={LOOPTIME: 0.1},
        loops=("asyncio",),
    ),
    Contest(
        title="a sleep under virtual time",
        contenders={OURS: partial(sleeps_ours, "trio"), MOCK_CLOCK: sleeps_mock_clock},
        targets={MOCK_CLOCK: 1.0},
        loops=("trio",),
    ),
    *of_runs("a run of ten steps under a chosen schedule", runs_explored, most=1.6),
    *of_runs("the same under virtual time alone", runs_virtual, most=None),
]
