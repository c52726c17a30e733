"""What only POSIX has under a path: FIFOs, devices, permissions, names that are not text."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import from_thread, to_thread

from mtaio.app._demo import Failed, Found, Outcome, Skipped, hash_file, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtaio.app._demo import Entry


assert sys.platform != "win32"


async def found_under(top: str) -> list[Entry]:
    """Walk in a worker thread."""
    return await to_thread.run_sync(list, walk(top))


def make_special(folder: Path) -> None:
    """Make one of each kind that an ordinary user can make."""
    (folder / "broken").symlink_to("nowhere")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("real")
    (folder / "real").write_bytes(b"12345")
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind("sock")  # short: the path of a socket may not be long


async def test_what_is_no_regular_file_is_skipped(folder: Path) -> None:
    """Links are not followed; each special file is named for what it is."""
    make_special(folder)
    assert await found_under(".") == [
        Skipped("./broken", "symbolic link"),
        Skipped("./circle", "symbolic link"),
        Skipped("./fifo", "FIFO"),
        Skipped("./link", "symbolic link"),
        Found("./real", 5),
        Skipped("./sock", "socket"),
    ]


async def test_top_is_followed_always(folder: Path) -> None:
    """The path that was asked for may be a link to a folder or to a file."""
    (folder / "real").mkdir()
    (folder / "real" / "x").write_bytes(b"1")
    (folder / "to_folder").symlink_to("real")
    (folder / "to_file").symlink_to("real/x")
    assert await found_under("to_folder") == [Found("to_folder/x", 1)]
    assert await found_under("to_file") == [Found("to_file", 1)]


async def test_path_that_is_too_long_is_a_failure(folder: Path) -> None:
    """A folder and a file beyond the longest path are reported, for root too."""
    here = os.open(folder, os.O_RDONLY)
    depth = 0
    try:
        while depth < 20:  # 20 * 251 characters: longer than any system's longest path
            os.mkdir("d" * 250, dir_fd=here)
            below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
            depth += 1
    finally:
        os.close(here)
    (failure,) = await found_under(".")
    assert isinstance(failure, Failed)
    assert failure.reason == "File name too long"


async def test_missing_path_is_a_failure(folder: Path) -> None:
    """A path at which nothing stands is reported, not raised."""
    assert not (folder / "none").exists()
    assert await found_under("none") == [Failed("none", "No such file or directory")]


async def test_folder_that_vanished_is_a_failure(folder: Path) -> None:
    """A folder that is gone when its turn comes is reported, and the rest is found all the same."""
    (folder / "a").write_bytes(b"1")
    (folder / "b").mkdir()
    (folder / "c").write_bytes(b"1")

    def walk_and_remove() -> list[Entry]:
        entries = walk(str(folder))
        found = [next(entries)]
        (folder / "b").rmdir()
        return [*found, *entries]

    assert await to_thread.run_sync(walk_and_remove) == [
        Found(str(folder / "a"), 1),
        Failed(str(folder / "b"), "No such file or directory"),
        Found(str(folder / "c"), 1),
    ]


@pytest.fixture
def deep_file(folder: Path) -> Iterator[str]:
    """Return a file that lies deeper than functions may call each other, where paths allow it."""
    depth = 1200 if sys.platform == "linux" else 400
    for level in range(1, depth + 1):
        os.mkdir("d/" * level)  # noqa: PTH102 - a Path of so many parts takes its time
    path = "d/" * depth + "x"
    (folder / path).write_bytes(b"")
    yield path
    top = folder / "d"
    for part in range(depth // 200):  # what clears test folders away calls itself too
        top = (top / ("d/" * 199)).rename(folder / f"part{part}")


def test_depth_is_no_limit(backend: str, deep_file: str) -> None:
    """A tree deeper than Python's recursion limit is walked to its end."""
    # In real time, since that takes some: a thread must not hold virtual time up for long.
    assert anyio.run(found_under, ".", backend=backend) == [Found(f"./{deep_file}", 0)]


async def test_names_that_are_no_text_are_kept(folder: Path) -> None:
    """A name is its bytes, and sorts by them."""
    names = [b"\xff", b"\xc3\xa9", b"a\nb", b"\x7f", b"\xed\xa0\x80", "\U0001f40d".encode()]
    if sys.platform == "darwin":  # its file systems take no names but UTF-8
        names = [name for name in names if name.decode("utf-8", "replace").isascii()]
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(name)
    paths = [os.fsencode(entry.path) for entry in await found_under(".")]
    assert paths == [b"./" + name for name in sorted(names)]


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
