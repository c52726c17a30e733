"""Programs that log as fast as they can, and what their files are to hold."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

THREADS = 8
RECORDS = 1000

START = """
import logging
import os
import signal
import sys
import threading

import anyio

from mtaio.logging import AsyncFileHandler

block = dict(max_pending=1000, overflow="block") if "block" in sys.argv else {}
options = dict(max_bytes=20_000, backup_count=99, max_pending=1_000_000) | block
handler = AsyncFileHandler("app.log", **options)
logger = logging.getLogger("app")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
storming = threading.Event()

def storm(name, records=1000):
    for number in range(records):
        logger.info("%s %d", name, number)
        if number == 100 and not storming.is_set():  # its lock may be held for ever in a child
            storming.set()

def storms(name, threads=8):
    return [threading.Thread(target=storm, args=(f"{name}-{n}",)) for n in range(threads)]

def start(threads):
    for thread in threads: thread.start()

"""


def check(lines: Iterable[str], names: Iterable[str], records: int = RECORDS) -> None:
    """See that the lines are those of the storms with these names, each one whole and in order."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for line in lines:
        name, _, number = line.partition(" ")
        found[name].append(int(number))
    assert sorted(found) == sorted(names)
    for name, numbers in found.items():
        assert len(numbers) == records, name
        assert numbers == list(range(records)), name


def threads(name: str, number: int = THREADS) -> list[str]:
    """Return the names of the storms of a process."""
    return [f"{name}-{n}" for n in range(number)]
