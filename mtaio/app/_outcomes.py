"""
What lies under a path, and what became of it.

Promise: plain values that say all there is to say about one path. A path is text as the operating
system gives it: bytes that are no text stand in it as lone surrogates (`os.fsencode` undoes that).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Final

FOLDER: Final = "folder"
LINK: Final = "symbolic link"
BROKEN_LINK: Final = "broken symbolic link"

_KINDS: Final = {
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "FIFO",
    stat.S_IFLNK: LINK,
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file, still to be hashed."""

    path: str
    size: int
    """Bytes, when it was looked at."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """A regular file that was read to its end."""

    path: str
    size: int
    """Bytes read."""
    digest: str
    """SHA-256, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """What is no regular file, and was not opened or not read."""

    path: str
    kind: str
    """What it is instead."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that should have been hashed, or a folder that should have been looked through."""

    path: str
    reason: str
    """Why that could not be done."""


Entry = Found | Skipped | Failed
Outcome = Hashed | Skipped | Failed


def kind_of(mode: int) -> str:
    """Return the name of a kind of file, from its ``st_mode``."""
    return _KINDS.get(stat.S_IFMT(mode), "special file")


def reason_of(error: OSError) -> str:
    """Return the operating system's words for what went wrong, without number and path."""
    return error.strerror or str(error)


def printable(path: str) -> str:
    """Return a path for people: one line, and nothing in it that a terminal would act upon."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
