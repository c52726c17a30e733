"""TaskExecutor.run_in_process: what signals, descriptors and forks do to worker processes."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import anyio
import psutil
import pytest

from mtaio.core import TaskExecutor, _processes
from tests.core.processes import CLASSES, program, workers
from tests.core.work import add, close_everything, end, start_another

if TYPE_CHECKING:
    from pathlib import Path

assert sys.platform != "win32"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill no process that ends by itself, however slowly: as it does, it writes its coverage."""
    monkeypatch.setattr(_processes, "_END_SECONDS", 60)


@pytest.fixture(autouse=True)
def no_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the processes the import of pytest, whose main module is that of this program."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGKILL, "SIGKILL"),
        pytest.param(
            *(40, "signal 40"),
            marks=pytest.mark.skipif(sys.platform != "linux", reason="such signals are Linux's"),
        ),
    ],
)
async def test_signal_that_killed_the_process_is_told(number: int, name: str) -> None:
    """A process that is killed is an error, and the next call gets another."""
    executor = TaskExecutor(processes=1)
    with pytest.raises(
        anyio.BrokenWorkerProcess,
        match=rf"^worker process \d+ was killed by {name} before end\(\) returned$",
    ):
        await executor.run_in_process(end, number)
    assert executor.statistics().processes_in_use == 0
    assert (await executor.run_in_process(add, 1, 2))[0] == 3


async def test_process_that_does_not_answer_any_more_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It lives, but there is no way to hear from it."""
    monkeypatch.setattr(_processes, "_END_SECONDS", 0.01)
    children = workers()
    with pytest.raises(
        anyio.BrokenWorkerProcess, match=r"^worker process \d+ had closed its connection and was k"
    ):
        await TaskExecutor().run_in_process(close_everything)
    assert workers() == children


async def test_idle_process_that_was_killed_is_replaced() -> None:
    """The next call does not notice."""
    executor = TaskExecutor(processes=1)
    _, process = await executor.run_in_process(add, 1, 2)
    psutil.Process(process).kill()
    while psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
        await anyio.lowlevel.checkpoint()
    total, other = await executor.run_in_process(add, 1, 2)
    assert total == 3
    assert other != process


async def test_cancelled_call_does_not_wait_for_what_its_process_has_started() -> None:
    """A process that outlives the killed one may hold what that held."""
    executor, children = TaskExecutor(processes=1), workers()
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run_in_process, start_another, 60)
        me, grandchildren = psutil.Process(), list[psutil.Process]()
        while not grandchildren:
            grandchildren = [
                each for each in me.children(recursive=True) if each.ppid() != os.getpid()
            ]
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert workers() == children
    for each in grandchildren:
        each.kill()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(
            "sys.exit()",
            id="unwinds",
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 14), reason="asyncio hangs in a fork whose task ends"
            ),
        ),
        pytest.param("atexit._run_exitfuncs(); os._exit(0)", id="exits"),
    ],
)
def test_forked_program_leaves_the_processes_alone(tmp_path: Path, end: str) -> None:
    """They belong to the program that started them, and go on when the fork ends."""
    fork = f"""
    import atexit, os, sys, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks, from Python 3.12 on
    if os.fork() == 0:
        {end}
    os.wait()
    print(type(await executor.run_in_process(work)) is Result)
"""
    text = CLASSES.format(backend="asyncio").replace("    try:", f"{fork}    try:", 1)
    done = program(tmp_path, text)
    assert (done.stdout, done.stderr) == ("True\nTrue\nOwnError('details')\n", "")
