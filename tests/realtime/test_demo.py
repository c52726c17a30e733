"""``mtaio demo`` in real time, on every event loop: worker threads that are too slow."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import TYPE_CHECKING

import anyio

from mtaio.app._cli import main
from mtaio.app._demo import Failed, Hashed, TreeHasher

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_digests_are_hashlibs(tmp_path: Path) -> None:
    """Files are hashed in worker threads, in order, whichever loop waits for them."""
    expected = []
    for number in range(100, 400):
        path = tmp_path / str(number)
        path.write_bytes(str(number).encode())
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        expected.append(Hashed(str(path), 3, digest))
    async with TreeHasher(limit=4).stream(str(tmp_path)) as batches:
        assert [outcome async for batch in batches for outcome in batch] == expected


if sys.platform != "win32":  # where a hole in a file takes no room

    async def test_file_that_takes_too_long(tmp_path: Path) -> None:
        """A file beyond its time fails and lets its thread go; those after it are hashed."""
        (tmp_path / "a").touch()
        with (tmp_path / "huge").open("wb") as file:
            file.truncate(1 << 40)
        (tmp_path / "z").touch()
        hasher = TreeHasher(limit=1, timeout=1)
        with anyio.fail_after(30):
            async with hasher.stream(str(tmp_path)) as batches:
                outcomes = [outcome async for batch in batches for outcome in batch]
        empty = hashlib.sha256().hexdigest()
        assert outcomes == [
            Hashed(str(tmp_path / "a"), 0, empty),
            Failed(str(tmp_path / "huge"), "not read within 1 s"),
            Hashed(str(tmp_path / "z"), 0, empty),
        ]
        assert hasher.statistics().timed_out == 1


if sys.platform != "win32" and sys.implementation.name == "cpython":

    def test_command_on_uvloop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The command runs on uvloop when it is told to."""
        (tmp_path / "a").write_bytes(b"content")
        assert main(["demo", str(tmp_path), "--backend", "uvloop", "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert (figures["backend"], figures["files"], figures["bytes"]) == ("uvloop", 1, 7)
