"""
Block the event loop in each way, at random phases, and see what `ResourceMonitor` makes of it.

Run it as ``python -m tests.blocked --runs 50``. It prints a line for each event loop and cause: how
many stalls were told once, with their line, cause and length; how late they were noticed; and what
else was told, such as a machine that stood still. It exits with 1 if a stall was missed.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal.gil import has_gil
from mtaio.monitoring import ResourceMonitor, Stall

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.streams.memory import MemoryObjectReceiveStream

LOOPS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
LOOP_INTERVAL: Final = 0.1
HAS_GIL: Final = has_gil()
NOISE: Final = 0.2
"""Seconds by which a busy machine may falsify the length of a stall."""
STARVED: Final = 0.7
"""A busy block says nothing that had less of a processor than that: the machine was too busy."""

STOPPER: Final = """
import os, signal, sys, time
for line in sys.stdin:
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(float(line))
    os.kill(os.getppid(), signal.SIGCONT)
"""


def sleeping(seconds: float) -> None:
    """Block in a system call, without the interpreter lock."""
    time.sleep(seconds)


def computing(seconds: float) -> None:
    """Block in Python code."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def holding(count: int) -> None:
    """Block in C code that holds the interpreter lock."""
    sum(range(count))


def calibrated(seconds: float) -> int:
    """Return for which count `holding` takes about so long."""
    count = 2_000_000
    times = []
    for _ in range(5):
        before = time.process_time()
        holding(count)
        times.append(time.process_time() - before)
    return int(count * seconds / min(times))


@dataclass
class Outcome:
    """What came of the runs of one cause on one loop."""

    right: int = 0
    """Stalls that were told once, with the line and the cause, and as long as they were."""
    wrong: list[str] = field(default_factory=list)
    """What was told of the others."""
    late: list[float] = field(default_factory=list)
    """By how many seconds after they began the right ones were noticed."""
    others: int = 0
    """Other stalls that were told: of a machine that stood still."""


class Blocker:
    """
    Blocks the loop of the running task, and looks for the stall among what a monitor tells.

    Args:
        seconds: For how long to block.
        stalls: What the monitor tells.
    """

    def __init__(self, seconds: float, stalls: MemoryObjectReceiveStream[Stall]) -> None:
        count = calibrated(seconds)
        self.seconds = seconds
        self.stalls = stalls
        self.stopper = subprocess.Popen(  # noqa: S603 - this very Python
            [sys.executable, "-c", STOPPER], stdin=subprocess.PIPE, text=True
        )
        self.blocks: dict[str, tuple[Callable[[], object], str]] = {
            "sleep": (lambda: sleeping(seconds), "loop"),
            "python": (lambda: computing(seconds), "loop"),
            "gil": (lambda: holding(count), "gil" if HAS_GIL else "loop"),
            "stopped": (self._stop, "not_running"),
        }
        self._functions = {"sleep": sleeping, "python": computing, "gil": holding}

    def close(self) -> None:
        """End the process that stops this one."""
        self.stopper.communicate()

    async def block(self, kind: str, outcome: Outcome) -> None:
        """Block once, and add what is told of it to ``outcome``."""
        block, cause = self.blocks[kind]
        await anyio.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - no secret
        while self.stalls.statistics().current_buffer_used:
            self.stalls.receive_nowait()
            outcome.others += 1
        wall, began, used = time.time(), time.monotonic(), time.process_time()
        block()
        used = time.process_time() - used
        if kind == "stopped":
            await anyio.sleep(self.seconds)  # in which it is stopped
        lasted = time.monotonic() - began
        told: list[Stall] = []
        right: list[Stall] = []
        with anyio.move_on_after(5):
            async for stall in self.stalls:
                told.append(stall)
                if stall.cause == cause and self._fits(kind, stall, lasted):
                    right.append(stall)
                    break
        if not right and kind in {"python", "gil"} and used < STARVED * lasted:
            outcome.others += len(told)
            await self.block(kind, outcome)
        elif right:
            outcome.right += 1
            outcome.late.append(right[0].timestamp - wall)
            outcome.others += len(told) - 1
        else:
            lines = [f"{each.seconds:.2f} s, {each.cause}, {each.place}" for each in told]
            outcome.wrong.append(f"{lasted:.2f} s: {'; '.join(lines) or 'nothing'}")

    def _fits(self, kind: str, stall: Stall, lasted: float) -> bool:
        if kind == "stopped":
            return abs(stall.seconds - self.seconds) <= LOOP_INTERVAL + NOISE
        function: Any = self._functions[kind]
        code = function.__code__
        lines = {line for _, _, line in code.co_lines()}
        file, _, rest = stall.place.rpartition(":")
        line, _, name = rest.partition(" in ")
        if (file, name) != (code.co_filename, code.co_name) or int(line) not in lines:
            return False
        return -LOOP_INTERVAL - NOISE <= stall.seconds - lasted <= NOISE

    def _stop(self) -> None:
        assert self.stopper.stdin is not None
        self.stopper.stdin.write(f"{self.seconds}\n")
        self.stopper.stdin.flush()


async def try_all(
    runs: int, kinds: list[str], blocked_after: float, seconds: float
) -> dict[str, Outcome]:
    """Block the running loop so many times in each way."""
    monitor = ResourceMonitor(1.0, loop_interval=LOOP_INTERVAL, blocked_after=blocked_after)
    send, receive = anyio.create_memory_object_stream[Stall](1000)
    monitor.on_loop_blocked(send.send_nowait)
    outcomes = {kind: Outcome() for kind in kinds}
    with send, receive:
        blocker = Blocker(seconds, receive)
        try:
            async with monitor:
                for kind, outcome in outcomes.items():
                    for _ in range(runs):
                        await blocker.block(kind, outcome)
        finally:
            blocker.close()
    return outcomes


def main() -> int:
    """Run as a program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--loops", default=",".join(LOOPS))
    parser.add_argument("--causes", default="sleep,python,gil,stopped")
    parser.add_argument("--blocked-after", type=float, default=0.2)
    parser.add_argument("--seconds", type=float, default=0.5)
    given = parser.parse_args()
    print(f"{'loop':8} {'cause':8} {'right':>8} {'median':>8} {'latest':>8} {'others':>7}")  # noqa: T201 - a program
    failed = False
    for loop in given.loops.split(","):
        backend, options = LOOPS[loop]
        arguments = (given.runs, given.causes.split(","), given.blocked_after, given.seconds)
        outcomes = anyio.run(partial(try_all, *arguments), backend=backend, backend_options=options)
        for kind, outcome in outcomes.items():
            late = sorted(outcome.late) or [float("nan")]
            print(  # noqa: T201 - a program
                f"{loop:8} {kind:8} {outcome.right:4}/{given.runs:<3}"
                f" {late[len(late) // 2]:7.3f}s {late[-1]:7.3f}s {outcome.others:7}",
                *outcome.wrong,
                sep="\n    ",
                flush=True,
            )
            failed = failed or bool(outcome.wrong)
    return int(failed)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import logging

    logging.getLogger("mtaio.monitoring").setLevel(logging.ERROR)
    sys.exit(main())
