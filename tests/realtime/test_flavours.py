"""The event loops are the ones that their names say, and their clock is the real one."""

from __future__ import annotations

import asyncio
import time

import anyio
from anyio.lowlevel import current_token

from mtaio._internal import clock


async def test_loop_is_what_its_name_says(flavour: str) -> None:
    """A test that says "uvloop", "eager" or "trio" runs on that and on nothing else."""
    loop = current_token().native_token
    home, _, _ = type(loop).__module__.partition(".")
    eager = False
    if home != "trio":
        started: list[bool] = []

        async def start() -> None:
            started.append(True)

        task = asyncio.ensure_future(start())
        eager = bool(started)
        await task
    expected = {
        "asyncio": ("asyncio", False),
        "asyncio+eager": ("asyncio", True),
        "asyncio+uvloop": ("uvloop", False),
        "trio": ("trio", False),
    }
    assert (home, eager) == expected[flavour]


async def test_clock_is_real() -> None:
    """Outside a simulation mtaio's clock is the machine's, and a sleep takes its time."""
    start = clock.now()
    await anyio.sleep(0.05)
    before, ours, after = time.monotonic(), clock.now(), time.monotonic()
    assert before <= ours <= after
    assert ours - start >= 0.048  # uvloop counts whole milliseconds
