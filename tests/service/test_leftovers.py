"""What is left when an application has stopped does not keep its process, on any event loop."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.service.harness import LATE, Service
from tests.service.leftovers import LEFTOVERS

if TYPE_CHECKING:
    from collections.abc import Iterator

TOTAL = 2
"""The seconds from the signal to the exit."""

THREADS = "the exit waits for threads: "
NO_LOG = "mtaio: not all of the log could be written"

ENDS = {
    "sync_check": (70, THREADS + "AnyIO worker thread"),
    "abandoned_thread": (70, THREADS + "AnyIO worker thread"),
    "other_thread": (70, THREADS + "mine"),
    "at_exit": (70, "the exit waits for what atexit calls"),
    "process": (0, "stopped"),
    "log_pipe": (0, NO_LOG),
    "printed": (70, "nobody reads its output"),
    "resource": (70, "database' does not close, though it was cancelled: it is left open"),
    "generator": (70, "though the application has stopped: the event loop is still running"),
}
"""The exit code, and what is said."""

ENDS_ON_TRIO = {
    # The threads that trio starts are daemons, and it cancels what a generator waits for.
    "sync_check": (0, "stopped"),
    "abandoned_thread": (0, "stopped"),
}


@pytest.fixture(scope="module")
def ended(
    loop: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[int, Service]]]:
    """Start all of them together, send each the signal when it is ready, and see them end."""
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(
                Service(
                    name,
                    loop,
                    tmp_path_factory.mktemp(name),
                    {"MTAIO_SHUTDOWN_TIMEOUT": str(TOTAL), "MTAIO_LOG_FILE": ""},
                    command=["-m", "tests.service.leftovers", name, loop],
                )
            )
            for name in ENDS
        }
        for service in services.values():
            service.err.wait("ready")
            service.send()
        yield {name: (service.wait(), service) for name, service in services.items()}


@pytest.mark.parametrize("name", ENDS)
def test_process_ends(ended: dict[str, tuple[int, Service]], loop: str, name: str) -> None:
    """It ends within the total, with 70 if it has to be ended, and says what it waited for."""
    code, service = ended[name]
    expected, text = (loop == "trio" and ENDS_ON_TRIO.get(name)) or ENDS[name]
    assert code == expected
    assert text in service.err.text
    assert service.seconds < TOTAL + LATE
    assert (f"not stopped {TOTAL} s after it was told to" in service.err.text) == (code == 70)
    if code == 70:
        assert "(most recent call first)" in service.err.text
        assert service.seconds > TOTAL - 0.1


def test_all_are_tried() -> None:
    """The table is complete."""
    assert [each.__name__ for each in LEFTOVERS] == [*ENDS]
