"""Imports: what a program pays at its start for one room of mtaio, beside rivals."""

from __future__ import annotations

import os
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

# The table of interned strings grows by 0.4 MB at once, at one import or another: it has room here.
MEMORY: Final = """
import asyncio, anyio, sys, tracemalloc
spare = [sys.intern(str(number)) for number in range(50_000)]
del spare
tracemalloc.start()
{statement}
print(tracemalloc.get_traced_memory()[0] / 1e6)
"""

RIVALS: Final = {
    "from mtaio.resilience import Retry": ("import tenacity", "import stamina"),
    "from mtaio.resources import RateLimiter": ("import aiolimiter",),
    "from mtaio.cache import TTLCache": ("import cachetools", "import async_lru"),
    "from mtaio.events import EventEmitter": ("import pyee.asyncio", "import blinker"),
}
"""Each statement of ours beside those that a program would write in its place."""


def in_fresh_python(program: str, statement: str) -> float:
    """Run a program in an interpreter of its own, and return the number that it prints."""
    command = [sys.executable, "-c", program.format(statement=statement)]
    compiled = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as where it is installed
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=compiled)  # noqa: S603 - own code
    return float(done.stdout)


def milliseconds(statement: str) -> float:
    return min(in_fresh_python(TIME, statement) for _ in range(RUNS))


def megabytes(statement: str) -> float:
    in_fresh_python(MEMORY, statement)  # compiles what has changed
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
