"""Imports: what a program pays at its start for one room of mtaio, beside rivals."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks._harness import OURS, Contest, Figure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RUNS: Final = 10
"""Noise only ever adds to an import, so the least of several runs is what counts."""

MOST_MILLISECONDS: Final = 8
MOST_MEGABYTES: Final = 1.2

TIME: Final = """
import asyncio, anyio, time
began = time.process_time()
{statement}
print((time.process_time() - began) * 1e3)
"""

MEMORY: Final = """
import asyncio, anyio, tracemalloc
tracemalloc.start()
{statement}
print(tracemalloc.get_traced_memory()[0] / 1e6)
"""

RIVALS: Final = {
    "from mtaio.resilience import Retry": ("import tenacity", "import stamina"),
    "import mtaio.resources": ("import aiolimiter",),
    "import mtaio.cache": ("import cachetools", "import async_lru"),
    "import mtaio.events": ("import pyee.asyncio", "import blinker"),
}
"""Each statement of ours beside those that a program would write in its place."""


def in_fresh_python(program: str, statement: str) -> float:
    """Run a program in an interpreter of its own, and return the number that it prints."""
    command = [sys.executable, "-c", program.format(statement=statement)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - own code
    return float(done.stdout)


def milliseconds(statement: str) -> float:
    return min(in_fresh_python(TIME, statement) for _ in range(RUNS))


def megabytes(statement: str) -> float:
    return in_fresh_python(MEMORY, statement)


def contest(ours: str, rivals: tuple[str, ...]) -> Contest:
    contenders: dict[str, Callable[[], Awaitable[float] | float]] = {
        OURS: partial(milliseconds, ours)
    }
    contenders |= {f"{rival!r}": partial(milliseconds, rival) for rival in rivals}
    title = f"{ours!r}, after asyncio and anyio"
    return Contest(title=title, contenders=contenders, unit="ms", loops=("asyncio",))


def figures(ours: str) -> list[Any]:
    once: dict[str, Any] = {"loops": ("asyncio",)}
    return [
        Figure(
            title=f"{ours!r}: time",
            measure=partial(milliseconds, ours),
            unit="ms",
            most=MOST_MILLISECONDS,
            **once,
        ),
        Figure(
            title=f"{ours!r}: memory",
            measure=partial(megabytes, ours),
            unit="MB",
            most=MOST_MEGABYTES,
            **once,
        ),
    ]


EVENTS = [
    event for ours, rivals in RIVALS.items() for event in (contest(ours, rivals), *figures(ours))
]
