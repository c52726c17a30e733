"""What a run shows and writes: the table, the JSON, and the file of digests."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mtaio.app._demo_command import Options
from mtaio.app._files import Failed, Hashed, Skipped, place_of
from mtaio.app._output import MOST_FAILURES, ChecksumFile, OutputError, Report, Tally, checksum_line
from mtaio.app.demo import HasherStatistics

STATISTICS = HasherStatistics(
    in_flight_peak=3,
    slot_waits=1234,
    slot_wait_seconds=5.678,
    timed_out=1,
    cache_hits=1000,
    cache_misses=20,
)


def report(tally: Tally, *, seconds: float = 2.0, **options: Any) -> Report:
    """Return a report on what was counted."""
    return Report(
        path="some/where",
        options=Options(**options),
        tally=tally,
        statistics=STATISTICS,
        seconds=seconds,
    )


def shown(table: Report) -> list[str]:
    """Return the lines of a report's table on a screen 80 columns wide."""
    screen = io.StringIO()
    Console(file=screen, width=80).print(table.as_table())
    return [line.rstrip() for line in screen.getvalue().splitlines()]


def test_table_has_every_figure() -> None:
    """The table says what was done, how fast, and what was waited for."""
    tally = Tally()
    for number in range(1500):
        tally.add(Hashed(str(number), 1000, "0" * 64))
    for kind in ("symbolic link", "FIFO", "symbolic link"):
        tally.add(Skipped("x", kind))
    tally.add(Failed("y", "Permission denied"))
    assert shown(report(tally)) == [
        "files       1,500",
        "bytes       1,500,000 (1.5 MB)",
        "failures    1",
        "skipped     2 symbolic links, 1 FIFO",
        "seconds     2.00, on asyncio",
        "throughput  750 files/s, 750.0 kB/s",
        "in flight   3 at the peak, 8 allowed",
        "waits       for a slot 1,234 (5.68 s)",
        "cache       for hard links 1,000 hits, 20 misses",
    ]


def test_table_of_nothing() -> None:
    """A run in which nothing was done, in no time, does not divide by zero."""
    lines = shown(report(Tally(), seconds=0.0))
    assert lines[0] == "files       0"
    assert lines[3] == "skipped     0"
    assert lines[5] == "throughput  0 files/s, 0 bytes/s"


def test_json_has_every_figure() -> None:
    """All of the table, the options and the failures by name are there for programs to read."""
    tally = Tally()
    tally.add(Hashed("a", 1000, "0" * 64))
    tally.add(Skipped("x", "FIFO"))
    tally.add(Failed("y", "Permission denied"))
    options: dict[str, Any] = {
        "backend": "trio",
        "limit": 3,
        "rate": 2.5,
        "timeout": math.inf,
        "output": Path("sums"),
    }
    assert json.loads(report(tally, **options).as_json()) == {
        "path": "some/where",
        "backend": "trio",
        "limit": 3,
        "rate": 2.5,
        "timeout": None,
        "follow_symlinks": False,
        "output": "sums",
        "files": 1,
        "bytes": 1000,
        "failed": 1,
        "skipped": {"FIFO": 1},
        "seconds": 2.0,
        "files_per_second": 0.5,
        "bytes_per_second": 500.0,
        "in_flight_peak": 3,
        "slot_waits": 1234,
        "slot_wait_seconds": 5.678,
        "timed_out": 1,
        "cache_hits": 1000,
        "cache_misses": 20,
        "failures": [{"path": "y", "reason": "Permission denied"}],
    }


def test_json_keeps_names_that_are_no_text() -> None:
    """The bytes of a path survive the JSON, which is ASCII alone."""
    path = os.fsdecode("né/".encode() + (b"caf\xe9" if os.name == "posix" else b"cafe"))
    tally = Tally()
    tally.add(Failed(path, "gone"))
    text = report(tally).as_json()
    assert text.isascii()
    assert json.loads(text)["failures"] == [{"path": path, "reason": "gone"}]


def test_failures_kept_by_name_are_bounded() -> None:
    """However much fails, memory holds the first thousand; all are counted."""
    tally = Tally()
    for number in range(MOST_FAILURES + 5):
        tally.add(Failed(str(number), "gone"))
    assert tally.failed == MOST_FAILURES + 5
    assert [failure.path for failure in tally.failures] == [
        str(number) for number in range(MOST_FAILURES)
    ]


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
    """Without a folder for it, nothing can be written, and nothing is left behind."""
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
