"""Whole programs with a monitor, in real time: how they end, and what they print."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from typing import Final

import pytest

from tests.backends import BACKENDS

LOOPS: Final = (*BACKENDS, *(["uvloop"] if find_spec("uvloop") else []))

START: Final = """
import asyncio, logging, os, sys, threading, time
import anyio
from mtaio.monitoring import ResourceMonitor

LOOP = {loop!r}
BACKEND, OPTIONS = ("asyncio", {{"use_uvloop": True}}) if LOOP == "uvloop" else (LOOP, {{}})

def run(main):
    return anyio.run(main, backend=BACKEND, backend_options=OPTIONS)

async def until(met, seconds=20):
    give_up = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < give_up, "it never happened"
        await anyio.sleep(0.005)

monitor = ResourceMonitor(0.02, loop_interval=0.01, blocked_after=20)
monitor.gauge("level", lambda: 2)
monitor.set_threshold("level", 1)
"""


def program(loop: str, text: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-W", "default", "-c", START.format(loop=loop) + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


ENDS: dict[str, tuple[str, int, str]] = {
    "returns while a handler works": (
        """
        begun = []
        @monitor.on_threshold_exceeded
        async def handler(*_):
            begun.append(1)
            await anyio.sleep_forever()
        @monitor.on_threshold_exceeded
        async def other(*_):
            await anyio.sleep_forever()
        async def main():
            await monitor.start()
            await until(lambda: begun)
        run(main)
        assert monitor.statistics().handlers_failed == 0
        """,
        0,
        "",
    ),
    "returns while a handler works and others wait": (
        """
        begun = []
        monitor.gauge("other level", lambda: 2)
        monitor.set_threshold("other level", 1)
        @monitor.on_threshold_exceeded
        async def handler(*_):
            begun.append(1)
            await anyio.sleep_forever()
        async def main():
            await monitor.start()
            await until(lambda: len(monitor.alerts) == 2)
            await until(lambda: begun)
        run(main)
        assert len(begun) == 1
        """,
        0,
        "",
    ),
    "exits in the loop": (
        """
        async def main():
            await monitor.start()
            await until(lambda: monitor.statistics().samples > 2)
            sys.exit(3)
        run(main)
        """,
        3,
        "",
    ),
    "exits at once": (
        """
        async def main():
            await monitor.start()
            os.write(1, b"started")
        run(main)
        """,
        0,
        "",
    ),
    "fails": (
        """
        async def main():
            await monitor.start()
            await until(lambda: monitor.statistics().samples > 2)
            raise ValueError("the program's own")
        run(main)
        """,
        1,
        "ValueError: the program's own\n",
    ),
}

FORK = """
def look():
    assert not monitor.running
    assert monitor.history("cpu_usage") == []
    assert monitor.latest is None
    assert monitor.values() == {}
    seen = monitor.statistics().samples
    async def use():
        async with monitor:
            await until(lambda: monitor.statistics().samples > seen + 2)
            assert (await monitor.get_current_stats()).process.threads
    thread = threading.Thread(target=run, args=[use])
    thread.start()
    thread.join()
    assert monitor.statistics().samples > seen + 2

def wait_for(child):
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    assert monitor.running

async def in_the_loop():
    for _ in range(10):
        async with monitor:
            await monitor.get_current_stats()
            child = os.fork()
            if child == 0:
                try:
                    look()
                except BaseException:
                    os._exit(1)
                os._exit(0)
            wait_for(child)

run(in_the_loop)
started, stop = threading.Event(), threading.Event()

async def in_a_thread():
    async with monitor:
        started.set()
        await until(stop.is_set)

thread = threading.Thread(target=run, args=[in_a_thread])
thread.start()
started.wait(20)
child = os.fork()
if child == 0:
    look()
else:
    wait_for(child)
    stop.set()
    thread.join()
"""


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ENDS)
def test_end_of_a_program(loop: str, end: str) -> None:
    """A program ends as it would without a monitor, and nothing is printed."""
    text, code, last = ENDS[end]
    done = program(loop, text)
    assert (done.returncode, done.stderr[-len(last) :] if last else done.stderr) == (code, last)
    assert done.stdout in {"", "started"}
    assert "mtaio.monitoring" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork() -> None:
    """In a forked child the monitor does not run, and may be started, whatever was going on."""
    done = program("asyncio", "import warnings; warnings.simplefilter('ignore')\n" + FORK)
    assert (done.returncode, done.stderr) == (0, "")
