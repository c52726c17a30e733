"""The file of digests: its form, and that it is complete or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mtaio.app._checksums import ChecksumFile, OutputError, checksum_line
from mtaio.app._outcomes import Hashed
from mtaio.app._walk import place_of

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = hashlib.sha256(b"content").hexdigest()
NAMES = [
    b"plain",
    b"with spaces  and *stars",
    b" leading",
    b"-",
    b"#comment",
    "é🐍".encode(),
]
if sys.platform != "win32":
    NAMES += [b"back\\slash", b"new\nline", b"\\n", b"return\rin it", b"return\r", b"\x1b\x7f\t"]
if sys.platform == "linux":
    NAMES += [b"\xff\xfe", b"caf\xe9\\\n\xff"]


def hashed(name: bytes) -> Hashed:
    """Return what a file of this name, which holds "content", comes to."""
    return Hashed(os.fsdecode(name), 7, DIGEST)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (b"plain", b"%s  plain\n"),
        (b"a b", b"%s  a b\n"),
        (b"a\nb", b"\\%s  a\\nb\n"),
        (b"a\rb", b"\\%s  a\\rb\n"),
        (b"-", b"%s  ./-\n"),
    ],
)
def test_lines_have_coreutils_form(name: bytes, line: bytes) -> None:
    """Digest, two spaces, name; a line break in a name is escaped, and the line is marked."""
    assert checksum_line(hashed(name)) == line % DIGEST.encode()


if sys.platform != "win32":

    def test_names_are_their_bytes() -> None:
        """A backslash is escaped; bytes that are no text are written as they are."""
        digest = DIGEST.encode()
        assert checksum_line(hashed(b"a\\b")) == b"\\" + digest + b"  a\\\\b\n"
        assert checksum_line(hashed(b"caf\xe9")) == digest + b"  caf\xe9\n"


if shutil.which("sha256sum"):

    def check(sums: str) -> int:
        """Return the exit code of the real program."""
        command = ["sha256sum", "--check", "--strict", "--status", sums]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - fixed words

    @pytest.mark.parametrize("name", NAMES)
    def test_sha256sum_finds_every_name(folder: Path, name: bytes) -> None:
        """The real ``sha256sum --check`` finds the file, and notices when it has changed."""
        path = folder / os.fsdecode(name)
        path.write_bytes(b"content")
        with ChecksumFile("sums") as sums:
            sums.add(hashed(name))
        assert check("sums") == 0
        path.write_bytes(b"changed")
        assert check("sums") == 1


def test_file_appears_when_it_is_complete(folder: Path) -> None:
    """Until the block ends there is a temporary file and nothing else; then there is the file."""
    with ChecksumFile("sums") as sums:
        sums.add(hashed(b"a"))
        sums.flush()
        sums.add(hashed(b"b"))
        (partial,) = folder.iterdir()
        assert partial.name.startswith(".mtaio-")
    assert [path.name for path in folder.iterdir()] == ["sums"]
    lines = checksum_line(hashed(b"a")) + checksum_line(hashed(b"b"))
    assert (folder / "sums").read_bytes() == lines


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_error(folder: Path, error: type[BaseException]) -> None:
    """A block that raises leaves what was there before it, and no temporary file."""

    def write_and_fail() -> None:
        with ChecksumFile("sums") as sums:
            sums.add(hashed(b"a"))
            sums.flush()
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert list(folder.iterdir()) == []
    (folder / "sums").write_bytes(b"of yesterday")
    with pytest.raises(error):
        write_and_fail()
    assert [path.read_bytes() for path in folder.iterdir()] == [b"of yesterday"]


def test_it_tells_when_to_flush(folder: Path) -> None:
    """After enough lines it is full, and after a flush it is not."""
    with ChecksumFile("sums") as sums:
        added = 0
        while not sums.full:
            sums.add(hashed(b"a"))
            added += 1
        assert 100 < added < 10_000
        sums.flush()
        assert not sums.full
    assert len((folder / "sums").read_bytes().splitlines()) == added


def test_places_are_of_both_files(folder: Path) -> None:
    """The places are those of the file and of the temporary one, to be left out of the hashing."""
    with ChecksumFile("sums") as sums:
        (partial,) = folder.iterdir()
        assert sums.places == (place_of("sums"), place_of(str(partial)))


def test_missing_folder_is_refused(folder: Path) -> None:
    """Where there is no folder for it, nothing can be written, and nothing is made."""
    with (
        pytest.raises(OutputError, match=r"^cannot write .*sums: No such file or directory$"),
        ChecksumFile("none/sums"),
    ):
        raise AssertionError
    assert list(folder.iterdir()) == []


def test_folder_is_refused(folder: Path) -> None:
    """A folder at the path is not replaced."""
    (folder / "sums").mkdir()
    with (
        pytest.raises(OutputError, match=r"^cannot write .*: it is a folder\. Name a regular"),
        ChecksumFile("sums"),
    ):
        raise AssertionError
    assert [path.name for path in folder.iterdir()] == ["sums"]
