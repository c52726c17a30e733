"""What can happen to a file between being found and being read, and what stops a long read."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import from_thread, to_thread

from mtaio.app._hashing import hash_file
from mtaio.app._outcomes import Failed, Outcome, Skipped

if TYPE_CHECKING:
    from pathlib import Path

assert sys.platform != "win32"


async def test_fifo_does_not_hold_up(folder: Path) -> None:
    """A file that turned into a FIFO nobody writes to is skipped at once."""
    os.mkfifo(folder / "file")
    assert await to_thread.run_sync(hash_file, "file") == Skipped("file", "FIFO")


@pytest.mark.parametrize(("path", "kind"), [(".", "folder"), (os.devnull, "character device")])
async def test_other_kinds_are_skipped(path: str, kind: str) -> None:
    """A file that turned into something else is skipped, and what it is now is said."""
    assert await to_thread.run_sync(hash_file, path) == Skipped(path, kind)


async def test_what_cannot_be_opened_is_a_failure(folder: Path) -> None:
    """A file that turned into a socket cannot be opened, which is reported, not raised."""
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind("file")
    assert (folder / "file").is_socket()
    assert isinstance(await to_thread.run_sync(hash_file, "file"), Failed)


async def test_cancelled_read_ends_with_its_chunk(folder: Path) -> None:
    """A file that would take hours to read is let go as soon as its call is cancelled."""
    with (folder / "huge").open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room, but hours to hash
    outcomes: list[Outcome] = []

    def cancel_and_hash(scope: anyio.CancelScope) -> None:
        from_thread.run_sync(scope.cancel)
        outcomes.append(hash_file("huge"))

    with anyio.CancelScope() as scope:
        await to_thread.run_sync(cancel_and_hash, scope)
    assert scope.cancelled_caught
    assert outcomes == []
