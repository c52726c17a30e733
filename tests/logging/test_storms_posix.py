"""A process that forks while eight threads log: each of the two loses nothing."""

from __future__ import annotations

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


def test_fork_in_the_middle_of_a_storm(book: Logbook) -> None:
    """The parent is complete, and the child from the fork on, though they share the files."""
    done = run(START + FORK, book.folder, measured=False)
    assert len(book.files()) > 2  # of which one is the program
    assert (done.returncode, done.stderr) == (0, "")
    check(book.all_lines(), [*threads("parent", 9), *threads("child", 9)])
