"""How a program forks, and how it ends while a file takes nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from mtaio.logging import _shutdown
from tests.logging.tools import Logbook, environment, run
from tests.logging.tools_posix import Fifo

assert sys.platform != "win32"

FORK_WHILE_STALLED = """
import logging
import os
import select
import sys
import time
import warnings

warnings.simplefilter("ignore", DeprecationWarning)  # as above

from mtaio.logging import AsyncFileHandler

handler = AsyncFileHandler("fifo")
logger = logging.getLogger("app")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
logger.info("#" * 300_000)
select.select([reader], [], [])
start = time.monotonic()
pid = os.fork()
took = time.monotonic() - start
if not pid:
    os._exit(0 if handler.statistics().pending == 0 and handler.flush() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), took < 4)
sys.stdout.flush()
os._exit(0)
"""


def test_fork_does_not_wait_for_a_stalled_file(book: Logbook) -> None:
    """A fork while the writer stands still is not held up, and the child owes nothing."""
    fifo = Fifo(book.folder / "fifo")
    done = run(FORK_WHILE_STALLED, book.folder, measured=False)
    fifo.close()
    assert (done.stdout, done.stderr) == ("0 True\n", "")


FORK_IN_A_THREAD = """
import logging
import os
import sys
import threading
import time
import warnings

warnings.simplefilter("ignore", DeprecationWarning)  # as above

def configured():
    global _shutdown
    from mtaio.logging import AsyncFileHandler, _shutdown
    logger = logging.getLogger("app")
    logger.setLevel(logging.INFO)
    logger.addHandler(AsyncFileHandler("app.log"))
    return logger

def later():
    while _shutdown.process.ends_by is None:  # from Python 3.14 on nobody can join that thread
        time.sleep(0.001)
    logger.info("later")

def work():
    global logger
    if os.fork():
        return os.wait()
    logger = configured() if "import" in sys.argv else logging.getLogger("app")
    for number in range(1000):
        logger.info("%d", number)
    if "thread" in sys.argv:
        threading.Thread(target=later).start()
    if "exit" in sys.argv:
        sys.exit(3)

if "import" not in sys.argv:
    logger = configured()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("mode", ["return", "exit", "thread", "import"])
def test_child_that_was_forked_in_a_thread(book: Logbook, mode: str) -> None:
    """It ends when that thread does, or the last that it has started, and has written all."""
    done = run(FORK_IN_A_THREAD, book.folder, mode, measured=False)
    assert (done.returncode, done.stderr) == (0, "")
    expected = [str(number) for number in range(1000)]
    assert book.lines() == ([*expected, "later"] if mode == "thread" else expected)


def test_end_of_the_thread_is_the_exit(book: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is the main one, but not as the first of a process, was forked."""
    monkeypatch.setattr(_shutdown, "process", _shutdown._Process())
    book.open()

    def work() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading, "main_thread", threading.current_thread)
            _shutdown._end_with_thread()
        book.logger.info("the last")
        assert _shutdown.process.ends_by is None
        # As its end would, in which Python takes the thread for a foreign one, and complains later.
        del _shutdown._locals.end

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert _shutdown.process.ends_by is not None
    assert not book.threads()
    assert book.lines() == ["the last"]


DEAD = """
import logging
import sys

from mtaio.logging import AsyncFileHandler, _shutdown

_shutdown.PATIENCE = 1.0
logger = logging.getLogger("app")
logger.setLevel(logging.INFO)
for name in ("one", "two", "three"):
    logger.addHandler(AsyncFileHandler(name))
logger.info("#" * 300_000)
for number in range(1000):
    logger.info("%d", number)
print("end", flush=True)
"""


def seconds_to_end(book: Logbook) -> float:
    """Return how long a program whose files take nothing goes on after its last line."""
    fifos = [Fifo(book.folder / name) for name in ("one", "two", "three")]
    (book.folder / "program.py").write_text(DEAD)
    with subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=book.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "end\n"
        start = time.monotonic()
        printed = process.stderr.read()
        assert process.wait(60) == 0
        took = time.monotonic() - start
    for fifo in fifos:
        fifo.close()
        fifo.path.unlink()
    assert printed == ""
    return took


def test_dead_files_hold_the_end_up_once(book: Logbook) -> None:
    """A program whose files take nothing ends after one patience, however many there are."""
    assert _shutdown.PATIENCE == 5
    for _ in range(5):  # a busy machine only ever adds, so one time that is short enough will do
        took = seconds_to_end(book)
        assert took > 0.8
        if took < 1.8:
            break
    assert took < 1.8


LAST_WORDS = """
import logging, os, resource, signal, sys

from mtaio.logging import AsyncFileHandler, _shutdown

_shutdown.PATIENCE = 50.0
handler = AsyncFileHandler("app.log")
logger = logging.getLogger("app")
logger.addHandler(handler)

import atexit
def late():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    logger.warning("nowhere to go")
    assert not handler.flush(50)
    assert handler.statistics().pending == 1
    if "room" in sys.argv:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        logger.warning("room again")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
atexit._run_exitfuncs()  # as at the end: no thread is started any more
late()
"""


@pytest.mark.parametrize("room", ["room", "none"])
def test_full_disk_at_the_very_end(book: Logbook, room: str) -> None:
    """When the caller writes himself, a full disk neither stops him nor loses what it need not."""
    start = time.monotonic()
    done = run(LAST_WORDS, book.folder, room)
    assert time.monotonic() - start < 40
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("mtaio.logging: trouble with ")
    assert done.stderr.count("\n") == 1
    assert book.lines() == (["nowhere to go", "room again"] if room == "room" else [])


def test_signal_handler_may_log(book: Logbook) -> None:
    """A signal handler may log at any moment, also while the program itself is logging."""
    # Past the logger, because some versions of Python drop what a thread logs while it is logging
    # (gh-91555).
    program = """
import logging, signal, time

from mtaio.logging import AsyncFileHandler

logger = logging.getLogger("app")
logger.setLevel(logging.INFO)
handler = AsyncFileHandler("app.log", max_pending=1_000_000)
logger.addHandler(handler)
count = 0
def on_alarm(*_):  # which may be interrupted by the next alarm
    global count
    count += 1
    handler.handle(logging.makeLogRecord({"msg": f"alarm {count}"}))
signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for number in range(4000):
    logger.info("main %d", number)
    if number % 200 == 0:
        handler.close()
signal.setitimer(signal.ITIMER_REAL, 0)
print(count)
"""
    done = run(program, book.folder)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, list[str]] = {"main": [], "alarm": []}
    for line in book.lines():
        name, _, number = line.partition(" ")
        found[name].append(number)
    assert found["main"] == [str(number) for number in range(4000)]
    alarms = int(done.stdout)
    assert alarms
    assert sorted(map(int, found["alarm"])) == list(range(1, alarms + 1))


THREAD_THAT_WAITS = """
import logging, threading

from mtaio.logging import AsyncFileHandler, _shutdown

_shutdown.PATIENCE = 1.0
handler = AsyncFileHandler("fifo", overflow="block", max_pending=10)
logger = logging.getLogger("app")
logger.addHandler(handler)
threading.Thread(target=lambda: [logger.warning("#" * 9000) for _ in range(100)]).start()
"""


def test_thread_that_waits_for_room_does_not_hold_the_end_up(book: Logbook) -> None:
    """Where no room comes, a thread that waits for some gives up once the main one has ended."""
    fifo = Fifo(book.folder / "fifo")
    start = time.monotonic()
    done = run(THREAD_THAT_WAITS, book.folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert 1 < time.monotonic() - start < 25
    fifo.close()
