"""The file of digests, where there are modes, links, devices and limits."""

from __future__ import annotations

import os
import resource
import stat
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtaio.app._files import Hashed
from mtaio.app._output import ChecksumFile, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


assert sys.platform != "win32"

HASHED = Hashed("a", 0, "0" * 64)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``size`` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_new_file_has_the_usual_mode(folder: Path) -> None:
    """A new file may be read by whom the umask lets, not by its owner alone."""
    before = os.umask(0o027)
    try:
        with ChecksumFile("sums"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "sums").stat().st_mode) == 0o640


def test_mode_is_kept(folder: Path) -> None:
    """A file that takes another's place takes its permissions too."""
    (folder / "sums").write_bytes(b"of yesterday")
    (folder / "sums").chmod(0o604)
    with ChecksumFile("sums") as sums:
        sums.add(HASHED)
    assert stat.S_IMODE((folder / "sums").stat().st_mode) == 0o604
    assert (folder / "sums").read_bytes().startswith(b"0000")


def test_link_is_kept(folder: Path) -> None:
    """A symbolic link stays, and the file that it leads to is replaced."""
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real/sums")
    with ChecksumFile("link") as sums:
        sums.add(HASHED)
    assert (folder / "link").is_symlink()
    assert (folder / "real" / "sums").read_bytes().startswith(b"0000")


@pytest.mark.parametrize(("path", "kind"), [(os.devnull, "character device"), ("fifo", "FIFO")])
def test_special_files_are_refused(folder: Path, path: str, kind: str) -> None:
    """A device or a FIFO is not replaced by a file."""
    os.mkfifo(folder / "fifo")
    with (
        pytest.raises(OutputError, match=rf"^cannot write .*{path}: it is a {kind}\. Name a"),
        ChecksumFile(path),
    ):
        raise AssertionError
    assert not Path(path).is_file()


def test_circle_of_links_is_refused(folder: Path) -> None:
    """A link that leads to itself is refused."""
    (folder / "sums").symlink_to("sums")
    with pytest.raises(OutputError, match=r"^cannot write .*symbolic links$"), ChecksumFile("sums"):
        raise AssertionError


@pytest.mark.parametrize("in_the_block", [True, False])
def test_full_disk_leaves_nothing(folder: Path, *, in_the_block: bool) -> None:
    """When the disk is full, that is said, and nothing is left behind."""

    def write_too_much() -> None:
        with file_size_limit(100), ChecksumFile("sums") as sums:
            sums.add(HASHED)
            sums.add(HASHED)
            if in_the_block:
                sums.flush()

    (folder / "sums").write_bytes(b"of yesterday")
    with pytest.raises(OutputError, match=r"^cannot write .*sums: File too large$"):
        write_too_much()
    assert [path.read_bytes() for path in folder.iterdir()] == [b"of yesterday"]


def test_folder_that_vanished_is_an_error(folder: Path) -> None:
    """When the folder is gone at the end, there is nowhere to put the file, and that is said."""
    sub = folder / "sub"
    sub.mkdir()

    def write_and_remove() -> None:
        with ChecksumFile("sub/sums"):
            (partial,) = sub.iterdir()
            partial.unlink()
            sub.rmdir()

    with pytest.raises(OutputError, match=r"^cannot write .*sums: No such file or directory$"):
        write_and_remove()
    assert list(folder.iterdir()) == []
