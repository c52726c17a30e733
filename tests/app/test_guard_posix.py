"""Programs that end by force: what the guard does when the application cannot stop."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from mtaio._internal.gil import has_gil

assert sys.platform != "win32"

if TYPE_CHECKING:
    from pathlib import Path

START = """
import logging
import os
import signal
import sys
import time

import anyio

from mtaio.app import Application
from mtaio.config import Settings

signal.signal(signal.SIGINT, signal.default_int_handler)
app = Application(
    Settings(shutdown_timeout=float(sys.argv[2]), log_file=sys.argv[3], log_console=False),
    probes=False,
)

def kill(number=signal.SIGTERM):
    os.kill(os.getpid(), number)

"""

BLOCKED = """
@app.service
async def service():
    logging.getLogger("shop").info("written all the same")
    kill()
    time.sleep(1000)

app.run(sys.argv[1])
"""

AGAIN = """
@app.service(drains=True)
async def service():
    kill()
    await app.wait_draining()
    await anyio.sleep(0.4)  # what comes before that is the same signal
    kill(signal.SIGINT)
    await anyio.sleep(1000)

app.run(sys.argv[1])
"""

UNSEEN = """
async def main():
    await app.start()
    kill()
    try:
        await anyio.Event().wait()
    finally:
        print("cleaned up", app.state, file=sys.stderr)

anyio.run(main, backend=sys.argv[1])
"""

UNSEEN_FROM_THE_START = """
@app.resource
async def slow():
    kill()
    await anyio.sleep(1000)
    yield

async def main():
    await app.start()
    print("started", file=sys.stderr)

anyio.run(main, backend=sys.argv[1])
"""

BROKEN_AT_THE_END = (
    """
@app.resource
async def broken():
    yield
    raise OSError

"""
    + UNSEEN
)

NO_STDERR = """
os.dup2(os.open(os.devnull, os.O_RDONLY), 2)  # closed, the log might get its number
logging.raiseExceptions = False

@app.service
async def service():
    kill()
    time.sleep(1000)

app.run(sys.argv[1])
"""


LEFT_THREAD = """
import threading

@app.service
async def service():
    threading.Thread(target=time.sleep, args=(1000,), name="mine").start()
    END
    await anyio.sleep_forever()

try:
    app.run(sys.argv[1])
finally:
    assert not logging.getLogger().handlers
"""

AT_EXIT = """
import atexit

def wait_for_ever():
    while True:
        time.sleep(1)

@app.service
async def service():
    atexit.register(wait_for_ever)
    kill()
    await anyio.sleep_forever()

app.run(sys.argv[1])
"""

GOES_ON = """
import threading

def waited():
    for thread in threading.enumerate():
        if thread.name == "mtaio.app guard":
            thread.join()
    assert "mtaio.app last words" not in {each.name for each in threading.enumerate()}

@app.service
async def service():
    kill(NUMBER)
    await anyio.sleep_forever()

app.run(sys.argv[1])
waited()
sys.exit(5)
"""

HOSTED = """
import threading
signal.signal(signal.SIGTERM, lambda *_: None)  # as a server does

async def main():
    async with app:
        kill()
        await app.wait_closed()

anyio.run(main, backend=sys.argv[1])
for thread in threading.enumerate():
    if thread.name == "mtaio.app guard":
        thread.join()
sys.exit(5)
"""

SHOWS_TASKS = """
import anyio.to_thread

def wait_until_shown():
    while (thread := app._run._guard._showing) is None:
        time.sleep(0.01)
    thread.join()

@app.service
async def service():
    kill(signal.SIGUSR1)
    WAIT
    app.stop_nowait()

app.run(sys.argv[1])
kill(signal.SIGUSR1)  # while it ends nothing comes of it
print("left", file=sys.stderr)
"""

TWICE = """
import atexit
import mtaio.app._guard

mtaio.app._guard._AGAIN = 1e9

@app.service
async def service():
    kill()
    await anyio.sleep_forever()

atexit.register(kill)  # after what is registered later
app.run(sys.argv[1])
kill(signal.SIGINT)
"""


def run(program: str, backend: str, folder: Path, *, within: float) -> tuple[int, str, str]:
    """Run a program; return its exit code, its standard error and its log."""
    path, log = folder / "program.py", folder / "app.log"
    path.write_text(START + textwrap.dedent(program), encoding="utf-8")
    ended = subprocess.run(  # noqa: S603 - this very Python, with the program above
        [sys.executable, str(path), backend, str(within), str(log)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=100,
    )
    return ended.returncode, ended.stderr, log.read_text(encoding="utf-8")


def test_blocked_loop(backend: str, tmp_path: Path) -> None:
    """A loop that stands still is ended when the time is over: stacks, logs, and 70."""
    code, printed, log = run(BLOCKED, backend, tmp_path, within=0.5)
    assert code == 70
    assert f'File "{tmp_path / "program.py"}", line 27 in service' in printed
    assert "INFO shop: written all the same\n" in log
    assert (
        "CRITICAL mtaio.app: not stopped 0.5 s after it was told to, with the application "
        "running; requests in flight: 0, services: service. Standard error shows where each "
        "thread is. Raise MTAIO_SHUTDOWN_TIMEOUT if it only needs more time; exit 70\n"
    ) in log
    tasks = printed.rpartition("\ntasks\n")[2]  # after the stacks
    line = f"service at {tmp_path / 'program.py'}:27 in service: running\n"
    assert (line in tasks) is has_gil()  # else a thread may not look at it


@pytest.mark.parametrize(
    "wait", ["wait_until_shown()", "await anyio.to_thread.run_sync(wait_until_shown)"]
)
def test_tasks_on_request(backend: str, tmp_path: Path, wait: str) -> None:
    """SIGUSR1 has the tasks written to the standard error, whether the loop is blocked or not."""
    code, printed, _ = run(SHOWS_TASKS.replace("WAIT", wait), backend, tmp_path, within=60)
    assert code == 0
    assert printed.count(" on " + backend) == 1
    blocked = wait.startswith("wait")
    assert (f"service at {tmp_path / 'program.py'}:" in printed) is (has_gil() or not blocked)
    assert ("read from outside" in printed) is blocked
    assert printed.endswith("left\n")


def test_second_signal(backend: str, tmp_path: Path) -> None:
    """A second signal ends the process at once, with its number; the log is written."""
    code, _, log = run(AGAIN, backend, tmp_path, within=60)
    assert code == 128 + 2
    assert log.endswith(
        "CRITICAL mtaio.app: SIGINT was received again: exiting at once, with the application "
        "draining; requests in flight: 0, services: service; exit 130\n"
    )


def test_end_that_nobody_waits_for(tmp_path: Path) -> None:
    """A program that goes on after its application has stopped is ended, and told what to do."""
    pytest.importorskip("trio")
    code, printed, _ = run(UNSEEN, "trio", tmp_path, within=0.5)
    assert code == 70
    assert (
        "though the application has stopped: the event loop is still running. Leave it when "
        "app.wait_closed() returns; a worker thread or an async generator may keep it running. "
        in printed  # where a log without handlers goes
    )


@pytest.mark.parametrize(("program", "code"), [(UNSEEN, 0), (BROKEN_AT_THE_END, 1)], ids=["0", "1"])
def test_end_that_nobody_waits_for_on_asyncio(program: str, code: int, tmp_path: Path) -> None:
    """There its event loop ends when the application has, as `sys.exit` would end it."""
    ended, printed, log = run(program, "asyncio", tmp_path, within=60)
    assert (ended, printed) == (code, "cleaned up stopped\n")
    assert log.endswith("INFO mtaio.app: stopped\n")


def test_start_that_is_stopped_by_a_signal(backend: str, tmp_path: Path) -> None:
    """What comes behind the start does not begin: the program ends, with 0."""
    code, printed, _ = run(UNSEEN_FROM_THE_START, backend, tmp_path, within=60)
    assert (code, printed) == (0, "")


@pytest.mark.parametrize(
    "end", ["kill()", "kill(signal.SIGINT)", "app.stop_nowait()", "raise OSError"]
)
def test_thread_that_the_exit_waits_for(backend: str, tmp_path: Path, end: str) -> None:
    """A thread that does not end keeps no process, whatever ended the application."""
    code, printed, log = run(LEFT_THREAD.replace("END", end), backend, tmp_path, within=0.5)
    assert code == 70
    assert log.endswith("INFO mtaio.app: stopped\n")
    assert (
        "not stopped 0.5 s after it was told to, though the application has stopped: the exit "
        "waits for threads: mine. Standard error shows where each thread is. Raise "
        "MTAIO_SHUTDOWN_TIMEOUT if it only needs more time; exit 70\n"
    ) in printed  # the log is closed
    assert "[mine] (most recent call first)" in printed


def test_function_that_atexit_waits_for(backend: str, tmp_path: Path) -> None:
    """What is registered with atexit keeps no process either, and is seen in the stacks."""
    code, printed, _ = run(AT_EXIT, backend, tmp_path, within=0.5)
    assert code == 70
    assert "the exit waits for what atexit calls. " in printed
    assert " in wait_for_ever\n" in printed


def test_program_that_goes_on(tmp_path: Path) -> None:
    """After SIGTERM the time is that of the whole program; after Ctrl-C it may go on."""
    program = GOES_ON.replace("NUMBER", "signal.SIGTERM")
    code, printed, _ = run(program, "asyncio", tmp_path, within=0.5)
    assert code == 70
    assert (
        "though the application has stopped: the program is still running. End it when app.run() "
        "or app.wait_closed() returns. "
    ) in printed
    assert " in waited\n" in printed
    program = GOES_ON.replace("NUMBER", "signal.SIGINT")
    assert run(program, "asyncio", tmp_path, within=0.5)[:2] == (5, "")


def test_program_of_somebody_else(backend: str, tmp_path: Path) -> None:
    """A program that handles SIGTERM itself is told what is left, and not ended."""
    code, printed, _ = run(HOSTED, backend, tmp_path, within=0.5)
    assert code == 5
    assert "though the application has stopped: the program is still running. " in printed
    assert "exit 70" not in printed
    assert "[MainThread] (most recent call first)" in printed


def test_output_that_nobody_reads(tmp_path: Path) -> None:
    """What was printed to a pipe that is full keeps no process."""
    program = """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writer, True)
    sys.stdout = os.fdopen(writer, "w")  # which keeps what is printed until it is flushed
    print("never read")

    @app.service
    async def service():
        kill(signal.SIGINT)
        await anyio.sleep_forever()

    app.run(sys.argv[1])
    """
    code, printed, _ = run(program, "asyncio", tmp_path, within=0.5)
    assert code == 70
    assert "though the application has stopped: nobody reads its output. " in printed
    assert " in _flush_streams\n" in printed


def test_signal_that_comes_again_while_the_process_ends(tmp_path: Path) -> None:
    """A terminal and a wrapper both hand on Ctrl-C, and the second comes after the end."""
    code, printed, _ = run(TWICE, "asyncio", tmp_path, within=60)
    assert (code, printed) == (0, "")


def test_standard_error_that_nobody_reads(tmp_path: Path) -> None:
    """A pipe that is full keeps nothing from ending, though the stacks are to be written there."""
    path, log = tmp_path / "program.py", tmp_path / "app.log"
    path.write_text(START + BLOCKED, encoding="utf-8")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    command = [sys.executable, str(path), "asyncio", "0.5", str(log)]
    with subprocess.Popen(command, stderr=writer) as process:  # noqa: S603 - as above
        try:
            assert process.wait(60) == 70
        finally:
            process.kill()
    os.close(reader)
    os.close(writer)


def test_no_standard_error(tmp_path: Path) -> None:
    """What cannot be printed keeps nothing from ending."""
    code, _, log = run(NO_STDERR, "asyncio", tmp_path, within=0.5)
    assert code == 70
    assert log.endswith("exit 70\n")


def test_no_more_threads(tmp_path: Path) -> None:
    """Nor does it matter when there can be no thread for the last words."""
    program = """
    import threading

    @app.service
    async def service():
        def refuse(self):
            raise RuntimeError("can't start new thread")

        threading.Thread.start = refuse
        kill()
        time.sleep(1000)

    app.run(sys.argv[1])
    """
    code, _, _ = run(program, "asyncio", tmp_path, within=0.5)
    assert code == 70
    code, printed, _ = run(
        program.replace("time.sleep(1000)", "") + "time.sleep(1000)",
        "asyncio",
        tmp_path,
        within=0.5,
    )
    assert code == 70
    assert "not down" not in printed
