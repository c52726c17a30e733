"""Sinks that can stand still, which only POSIX has."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.logging.tools import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BIG = "#" * 300_000
"""A message longer than any pipe holds."""


class Fifo:
    """A sink that takes what a pipe holds, and no more until it is read."""

    reader: int

    def __init__(self, path: Path) -> None:
        if sys.platform == "win32":
            raise NotImplementedError("Windows has no FIFOs")
        os.mkfifo(path)
        self.path = path
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self) -> bytes:
        """Return what is there."""
        try:
            return os.read(self.reader, 1 << 20)
        except BlockingIOError:
            return b""

    def read_until(self, met: Callable[[], object]) -> bytes:
        """Read until a condition holds and nothing is left; return it all."""
        read: list[bytes] = []

        def through() -> bool:
            read.append(self.read())
            return bool(met()) and not read[-1]

        until(through)
        return b"".join(read)

    def close(self) -> None:
        """Close the reading end."""
        os.close(self.reader)
