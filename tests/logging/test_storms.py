"""A program that ends while eight threads log: nothing is lost."""

from __future__ import annotations

import pytest

from mtaio._internal.gil import has_gil
from tests.backends import BACKENDS
from tests.logging.storms import START, check, threads
from tests.logging.tools import Logbook, run

STORM = """
start(storms("main"))
storming.wait()
"""

ENDS: dict[str, tuple[str, int]] = {
    "returning": ("", 0),
    "an error": ("raise RuntimeError('unhandled')", 1),
    "SIGTERM": (
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
signal.raise_signal(signal.SIGTERM)
storm("never")
""",
        143,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_end_in_the_middle_of_a_storm(book: Logbook, end: str) -> None:
    """The main thread ends while eight others log; the files have every record, in order."""
    program, code = ENDS[end]
    done = run(START + STORM + program, book.folder, measured=False)
    assert done.returncode == code, done.stderr
    check(book.all_lines(), threads("main"))


def test_end_while_the_queue_is_full(book: Logbook) -> None:
    """Nine threads that wait for room, one of them at the end, lose nothing."""
    done = run(START + STORM + "storm('last')", book.folder, "block", measured=False)
    assert (done.returncode, done.stderr) == (0, "")
    check(book.all_lines(), [*threads("main"), "last"])


EXIT_IN_TASK = """
async def child():
    start(storms("main"))
    storm("task")
    sys.exit(7)

async def main():
    async with anyio.create_task_group() as group:
        group.start_soon(child)

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_exit_in_a_task_in_the_middle_of_a_storm(book: Logbook, backend: str) -> None:
    """A task that logs as much as eight threads do meanwhile, and exits, loses nothing."""
    done = run(START + EXIT_IN_TASK, book.folder, backend, measured=False)
    assert done.returncode != 0
    assert "Exit" in done.stderr or done.returncode == 7
    check(book.all_lines(), [*threads("main"), "task"])


LAST_DESTRUCTOR = """
class Last:
    def __del__(self):
        logger.info("destructor 0")

last = Last()
"""

LAST_CALLBACK = """
import atexit
atexit.register(logger.info, "callback 0")
start(storms("main"))
"""


def test_interpreters_end_after_a_storm(book: Logbook) -> None:
    """Callbacks of ``atexit`` and destructors of modules log behind the storm, and are written."""
    # Without the GIL nothing is left of the module logging when destructors of modules run.
    last = LAST_DESTRUCTOR if has_gil() else ""
    done = run(START + last + LAST_CALLBACK, book.folder, measured=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = book.all_lines()
    if last:
        assert lines.pop() == "destructor 0"
    assert lines.pop() == "callback 0"
    check(lines, threads("main"))
