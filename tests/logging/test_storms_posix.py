"""A process that forks while eight threads log: each of the two loses nothing."""

from __future__ import annotations

import pytest

from tests.logging.storms import START, check, threads
from tests.logging.tools import Logbook, run

FORK = """
import warnings

warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads: what this is about
start(storms("parent"))
storming.wait()
pid = os.fork()
if not pid:
    start(storms("child"))
    storm("child-8")
    sys.exit(0)
storm("parent-8")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("files", ["one", "rotated"])
def test_fork_in_the_middle_of_a_storm(book: Logbook, files: str) -> None:
    """The parent is complete, and the child from the fork on, though they share the files."""
    done = run(START + FORK, book.folder, files, measured=False)
    assert (len(book.files()) > 2) == (files == "rotated")
    assert (done.returncode, done.stderr) == (0, "")
    check(book.all_lines(), [*threads("parent", 9), *threads("child", 9)])


PROCESSES = """
import multiprocessing
import warnings

warnings.simplefilter("ignore", DeprecationWarning)  # as above
context = multiprocessing.get_context("fork")
start(storms("parent"))
storming.wait()
children = [context.Process(target=storm, args=(f"child-{n}",)) for n in range(4)]
for child in children: child.start()
for child in children: child.join()
print([child.exitcode for child in children])
"""


def test_multiprocessing_in_the_middle_of_a_storm(book: Logbook) -> None:
    """Forked children of multiprocessing, which end without ``atexit``, lose nothing."""
    done = run(START + PROCESSES, book.folder, measured=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[0, 0, 0, 0]\n")
    check(book.all_lines(), [*threads("parent"), *threads("child", 4)])
