"""
Real threads that do the same thing at the same time, round after round.

After each round no thread runs, and what the object says has to add up. Rounds are few, so that all
of it takes about a second; ``MTAIO_HAMMER=20`` in the environment makes twenty times as many.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from mtaio._internal.gil import has_gil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HAS_GIL: Final = has_gil()

PATIENCE: Final = 60.0
"""Seconds after which a thread that has not ended counts as hanging."""


def rounds(number: int) -> range:
    """Return so many rounds, times what the environment says."""
    return range(number * int(os.environ.get("MTAIO_HAMMER", "1")))


def at_once(works: Iterable[Callable[[], object]]) -> None:
    """Do all of these at the same time, each in a thread; raise the first error of any."""
    todo = [*works]
    together = threading.Barrier(len(todo), timeout=PATIENCE)
    errors: list[BaseException] = []

    def do(work: Callable[[], object]) -> None:
        try:
            together.wait()
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=do, args=(work,), daemon=True) for work in todo]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]


def watched(look: Callable[[], object], work: Callable[[], object]) -> None:
    """Do ``work`` in one thread, while another looks again and again."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1e-4):
            look()

    def run() -> None:
        try:
            work()
        finally:
            done.set()

    at_once([watch, run])
