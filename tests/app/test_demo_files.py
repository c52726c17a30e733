"""The files under a path: found in order, and hashed."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import from_thread, to_thread
from hypothesis import given, settings
from hypothesis import strategies as st

import mtaio.testing
from mtaio.app._demo import (
    CHUNK,
    Failed,
    Found,
    Hashed,
    Skipped,
    hash_file,
    hash_files,
    kind_of,
    reason_of,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtaio.app._demo import Entry


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        (stat.S_IFBLK, "device"),
        (stat.S_IFCHR, "device"),
        (stat.S_IFIFO, "FIFO"),
        (stat.S_IFLNK, "symbolic link"),
        (stat.S_IFSOCK, "socket"),
    ],
)
def test_kinds_have_names(mode: int, kind: str) -> None:
    """Each kind of file has a name, whatever its permissions."""
    assert kind_of(mode | 0o644) == kind


def test_reason_is_the_systems() -> None:
    """An error of the system is given in the system's words, any other as it is."""
    assert reason_of(FileNotFoundError(2, "No such file", "x")) == "No such file"
    assert reason_of(OSError("odd")) == "odd"


async def found_under(top: str) -> list[Entry]:
    """Walk in a worker thread."""
    return await to_thread.run_sync(list, walk(top))


def make(root: Path, files: Iterable[str]) -> None:
    """Make files with their own names as contents, and the folders they stand in."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


async def test_files_come_with_their_sizes(folder: Path) -> None:
    """Each regular file is found once, by the path under the one that was given, with its size."""
    make(folder, ["a", "deep/er/b", "deep/c"])
    assert await found_under(".") == [
        Found(os.path.join(".", "a"), 1),  # noqa: PTH118 - a Path would drop the "."
        Found(os.path.join(".", "deep", "c"), 6),  # noqa: PTH118 - as above
        Found(os.path.join(".", "deep", "er", "b"), 9),  # noqa: PTH118 - as above
    ]


async def test_order_is_that_of_whole_paths(folder: Path) -> None:
    """A folder stands where its path and the slash after it sort, between its neighbours."""
    make(folder, ["a/x", "a-b", "a.b", "a0", "ab/c/d", "ab/c.d", "Z"])
    names = [Path(entry.path).as_posix() for entry in await found_under(".")]
    assert names == ["Z", "a-b", "a.b", "a/x", "a0", "ab/c.d", "ab/c/d"]


NAMES = st.text("ab.-0é", min_size=1, max_size=3).filter(lambda name: name.strip(".") != "")
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=8)


@settings(max_examples=50)
@given(paths=PATHS)
def test_order_is_that_of_bytes(backend: str, paths: list[str]) -> None:
    """Any names: the paths come as ``LC_ALL=C sort`` would put them."""
    with TemporaryDirectory() as top:
        for path in paths:
            try:
                make(Path(top), [path])
            except OSError:  # a name that is taken by a folder, or a folder's that a file has
                continue
        found = mtaio.testing.run(found_under, top, backend=backend)
        expected = [path.as_posix() for path in Path(top).rglob("*") if path.is_file()]
        paths = [Path(entry.path).as_posix() for entry in found]
        assert paths == sorted(expected, key=str.encode)


async def test_empty_folder_has_nothing(folder: Path) -> None:
    """Where there is nothing, nothing is found."""
    (folder / "sub").mkdir()
    assert await found_under(".") == []


async def test_single_file_is_found_itself(folder: Path) -> None:
    """A path to a file yields that file."""
    make(folder, ["one"])
    assert await found_under("one") == [Found("one", 3)]


async def test_cancelled_walk_goes_no_further(folder: Path) -> None:
    """A walk whose call was cancelled stops before it enters another folder."""
    make(folder, ["a", "b/c"])
    seen: list[Entry] = []

    def look(entries: Iterator[Entry], scope: anyio.CancelScope) -> None:
        seen.append(next(entries))
        from_thread.run_sync(scope.cancel)
        seen.extend(entries)

    with anyio.CancelScope() as scope:
        await to_thread.run_sync(look, walk(str(folder)), scope)
    assert scope.cancelled_caught
    assert seen == [Found(str(folder / "a"), 1)]


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
