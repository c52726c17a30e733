"""How a program ends: what was logged before is in the file."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from tests.logging.tools import Logbook, run

if TYPE_CHECKING:
    from collections.abc import Iterable

COUNT = 500

START = """
import atexit
import logging
import signal
import sys
import threading

import anyio

def late():
    for number in range(50):
        logger.info("late %d", number)

if "before" in sys.argv:
    atexit.register(late)  # runs after whatever mtaio.logging registers

from mtaio.logging import AsyncFileHandler

options = dict(max_bytes=5000, backup_count=99)
if "block" in sys.argv:
    options |= dict(max_pending=10, overflow="block")
handler = AsyncFileHandler("app.log", **options)
logger = logging.getLogger("app")
logger.setLevel(logging.INFO)
logger.addHandler(handler)

def storm(name="main", count=500):
    for number in range(count):
        logger.info("%s %d", name, number)

"""

ENDS: dict[str, tuple[str, int]] = {
    "sys.exit": ("storm(); sys.exit(3)", 3),
    "KeyboardInterrupt": (
        """
storm()
signal.raise_signal(signal.SIGINT)
""",
        -2,
    ),
    "SIGTERM raised again": (  # as servers do that catch it while they run
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
before = signal.signal(signal.SIGTERM, lambda *_: storm(count=250))
signal.raise_signal(signal.SIGTERM)
signal.signal(signal.SIGTERM, before)
for number in range(250, 500):
    logger.info("main %d", number)
signal.raise_signal(signal.SIGTERM)
storm("never")
""",
        0,
    ),
    "a thread that goes on": ("threading.Thread(target=storm).start()", 0),
    "no reference to the handler": ("storm(); logger.removeHandler(handler); del handler", 0),
}


def numbered(name: str, count: int = COUNT) -> list[str]:
    """Return the lines that ``storm`` writes."""
    return [f"{name} {number}" for number in range(count)]


@pytest.mark.parametrize("end", ENDS)
def test_program_that_ends_loses_nothing(book: Logbook, end: str) -> None:
    """However a program ends by itself, the files have what was logged."""
    program, code = ENDS[end]
    if sys.platform == "win32" and code == -2:
        code = 0xC000013A
    done = run(START + program, book.folder)
    assert done.returncode == code, done.stderr
    assert book.all_lines() == numbered("main")


@pytest.mark.parametrize("overflow", ["drop_newest", "block"])
def test_callbacks_at_the_very_end_may_log(book: Logbook, overflow: str) -> None:
    """What is logged when no thread can be started any more is written by the caller."""
    done = run(START + "storm()", book.folder, "before", overflow)
    assert (done.returncode, done.stderr) == (0, "")
    assert book.all_lines() == [*numbered("main"), *numbered("late", 50)]


PROCESSES = """
import multiprocessing

import program_child

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    storm("parent")
    children = [context.Process(target=program_child.main, args=(n,)) for n in range(2)]
    for child in children: child.start()
    storm("parent again")
    for child in children: child.join()
    print([child.exitcode for child in children])
"""

CHILD = """
import logging
import sys

from multiprocessing import util

from mtaio.logging import AsyncFileHandler

def last_words(logger, number):
    for each in range(500):
        logger.info("last words %d %d", number, each)

def main(number):
    logger = logging.getLogger("app")
    util.Finalize(None, last_words, args=(logger, number), exitpriority=0)
    if not logger.handlers:  # started without the parent's
        logger.setLevel(logging.INFO)
        logger.addHandler(AsyncFileHandler("app.log"))
    for each in range(500):
        logger.info("child %d %d", number, each)
    if number:
        sys.exit(5)
"""


def methods() -> Iterable[str]:
    """Return the ways in which multiprocessing starts processes here."""
    import multiprocessing  # noqa: PLC0415 - no other test needs it

    return multiprocessing.get_all_start_methods()


@pytest.mark.parametrize("method", methods())
def test_children_of_multiprocessing(book: Logbook, method: str) -> None:
    """Children of multiprocessing, which end without ``atexit``, lose nothing; nor does another."""
    (book.folder / "program_child.py").write_text(CHILD)
    # No rotation: a child that was spawned opens the file under rules of its own.
    start = START.replace("max_bytes=5000, backup_count=99", "")
    done = run(start + PROCESSES, book.folder, method, measured=method != "fork")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[0, 5]\n")
    written = book.lines()
    assert len(written) == 6 * COUNT
    for name in (
        *("parent", "parent again", "child 0", "child 1"),
        *("last words 0", "last words 1"),
    ):
        mine = [line for line in written if line.rpartition(" ")[0] == name]
        assert mine == numbered(name)


def test_first_record_while_another_thread_imports_multiprocessing(
    book: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that is there, and has nothing in it yet, does not fail the caller."""
    monkeypatch.setitem(sys.modules, "multiprocessing.util", ModuleType("multiprocessing.util"))
    handler = book.open()
    book.logger.info("first")
    assert handler.flush()
    assert book.all_lines() == ["first"]
