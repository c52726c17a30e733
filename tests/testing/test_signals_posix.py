"""Signals of POSIX: a process that is stopped for a while is not stuck, and receivers are woken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from mtaio.testing import Simulation

assert sys.platform != "win32"

PROGRAM = """
import sys, time

from anyio import to_thread

from mtaio.testing import run


def work():
    print("at work", flush=True)
    time.sleep(0.25)
    return "done"


print(run(to_thread.run_sync, work, backend=sys.argv[1], grace=0.5))
"""


def test_stopped_process_is_not_hung(backend: str) -> None:
    """Its threads get most of the grace when it goes on, though all of it went by meanwhile."""
    with subprocess.Popen(  # noqa: S603 - this very Python, with the program above
        [sys.executable, "-c", PROGRAM, backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.7)  # which is what is tested
        process.send_signal(signal.SIGCONT)
        out, told = process.communicate(timeout=60)
    assert (out, told, process.returncode) == ("done\n", "", 0)


async def test_signal_wakes_a_loop_that_sleeps(sim: Simulation) -> None:
    """A task that waits for a signal, with the clock held, gets it."""
    with sim.hold(), anyio.open_signal_receiver(signal.SIGUSR1) as signals:
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert await anext(signals) == signal.SIGUSR1
    assert sim.time() == 0


async def test_signal_reaches_a_loop_that_is_busy() -> None:
    """A signal gets through while tasks keep the loop turning."""
    got: list[int] = []

    async def receive() -> None:
        with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            got.append(await anext(signals))

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
    assert got == [signal.SIGUSR1]
