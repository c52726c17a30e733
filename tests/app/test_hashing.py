"""The digest of one file; what can happen to it only on POSIX is in test_hashing_posix.py."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from mtaio.app._hashing import CHUNK, hash_file, hash_files
from mtaio.app._outcomes import Failed, Found, Hashed, Skipped

if TYPE_CHECKING:
    from pathlib import Path

    from mtaio.app._outcomes import Entry


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
async def test_digest_is_hashlibs(folder: Path, size: int) -> None:
    """A file of any size, around those of the chunks too, has the digest of its bytes."""
    content = bytes(range(251)) * (size // 251 + 1)
    (folder / "file").write_bytes(content[:size])
    expected = hashlib.sha256(content[:size]).hexdigest()
    assert await to_thread.run_sync(hash_file, "file") == Hashed("file", size, expected)


async def test_file_that_vanished_is_a_failure(folder: Path) -> None:
    """A file that is gone when its turn comes is reported, not raised."""
    assert not (folder / "none").exists()
    outcome = await to_thread.run_sync(hash_file, "none")
    assert outcome == Failed("none", "No such file or directory")


async def test_what_was_no_file_is_passed_on(folder: Path) -> None:
    """Only what was found is read; the order stays."""
    (folder / "empty").write_bytes(b"")
    skipped, failed = Skipped("fifo", "FIFO"), Failed("secret", "Permission denied")
    entries: list[Entry] = [skipped, Found("empty", 0), failed]
    outcomes = await to_thread.run_sync(hash_files, entries)
    assert outcomes == [skipped, Hashed("empty", 0, hashlib.sha256().hexdigest()), failed]
