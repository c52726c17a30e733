"""
What the demo shows and writes: a progress bar, a closing table or JSON, and a file of digests.

Promise: the bar and one line for each path that was not hashed, whatever its name contains, go to
stderr. The file of digests, in the format of ``sha256sum --check``, is complete or absent. Counting
takes the same memory for a thousand files as for a million.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from mtaio.app._files import LINK, Failed, Hashed, Skipped, kind_of, place_of, printable, reason_of
from mtaio.app._usage import CommandError
from mtaio.core import progress

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType
    from typing import Self

    from mtaio.app._demo_command import Options
    from mtaio.app._files import Outcome, Place
    from mtaio.app.demo import HasherStatistics
    from mtaio.core.progress import OnProgress

MOST_FAILURES: Final = 1000
FLUSH_BYTES: Final = 1 << 16


@contextmanager
def open_screen(*, quiet: bool) -> Generator[Screen]:
    """
    Show a progress bar, which stays on the screen, and give what tells it more.

    Args:
        quiet: Whether to show failures alone.
    """
    console = Console(stderr=True)
    if quiet:
        yield Screen(console, None)
    else:
        with progress.bar("hashing", console=console) as on_progress:
            yield Screen(console, on_progress)


class Screen:
    """
    Shows progress, and each path that was not hashed.

    Args:
        console: Where.
        on_progress: The bar; None to show failures alone.
    """

    def __init__(self, console: Console, on_progress: OnProgress | None) -> None:
        self._console = console
        self._on_progress = on_progress

    def show(self, outcome: Outcome) -> None:
        """Say what is unusual about an outcome; symbolic links by the thousand are not."""
        if isinstance(outcome, Failed):
            self._say(f"{printable(outcome.path)}: {outcome.reason}", "red")
        elif isinstance(outcome, Skipped) and outcome.kind != LINK and self._on_progress:
            self._say(f"{printable(outcome.path)}: skipped, {outcome.kind}", "yellow")

    def count(self, files: int, size: int) -> None:
        """Move the bar."""
        if self._on_progress is not None:
            self._on_progress(files, None, f"files, {decimal(size)}")

    def _say(self, line: str, style: str) -> None:
        # A path must be copyable from the screen: no wrapping, no markup.
        self._console.print(Text(line, style), soft_wrap=True)


@dataclass(slots=True)
class Tally:
    """Counts outcomes."""

    files: int = 0
    """Files hashed."""
    bytes: int = 0
    """Bytes in them."""
    failed: int = 0
    """Files and folders that could not be read."""
    skipped: dict[str, int] = field(default_factory=dict[str, int])
    """How many of each other kind of file there were."""
    failures: list[Failed] = field(default_factory=list[Failed])
    """The first of those that failed."""

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        if isinstance(outcome, Hashed):
            self.files += 1
            self.bytes += outcome.size
        elif isinstance(outcome, Skipped):
            self.skipped[outcome.kind] = self.skipped.get(outcome.kind, 0) + 1
        else:
            self.failed += 1
            if len(self.failures) < MOST_FAILURES:
                self.failures.append(outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was asked for, and what was done."""

    path: str
    options: Options
    tally: Tally
    statistics: HasherStatistics
    seconds: float
    """From the start of the application to its end."""

    def as_table(self) -> Table:
        """Return the closing table, which fits into 80 columns."""
        tally, done = self.tally, self.statistics
        rows = {
            "files": f"{tally.files:,}",
            "bytes": f"{tally.bytes:,} ({decimal(tally.bytes)})",
            "failures": f"{tally.failed:,}",
            "skipped": ", ".join(starmap(_so_many, tally.skipped.items())) or "0",
            "seconds": f"{self.seconds:.2f}, on {self.options.backend}",
            "throughput": f"{self._per_second(tally.files):,.0f} files/s, "
            f"{decimal(round(self._per_second(tally.bytes)))}/s",
            "in flight": f"{done.in_flight_peak} at the peak, {self.options.limit} allowed",
            "waits": f"for a slot {done.slot_waits:,} ({done.slot_wait_seconds:.2f} s)",
            "cache": f"for hard links {done.cache_hits:,} hits, {done.cache_misses:,} misses",
        }
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold")
        table.add_column()
        for name, figure in rows.items():
            table.add_row(name, Text(figure))
        return table

    def as_json(self) -> str:
        """
        Return every figure as one JSON object, in ASCII.

        Bytes of a path that are not UTF-8 stand as lone surrogates, U+DC80 to U+DCFF, as Python
        represents them: ``os.fsencode(json.loads(text)["path"])`` gives them back.
        """
        tally, options = self.tally, self.options
        figures: dict[str, Any] = {
            "path": self.path,
            "backend": options.backend,
            "limit": options.limit,
            "rate": _finite(options.rate),
            "timeout": _finite(options.timeout),
            "follow_symlinks": options.follow_symlinks,
            "output": None if options.output is None else str(options.output),
            "files": tally.files,
            "bytes": tally.bytes,
            "failed": tally.failed,
            "skipped": tally.skipped,
            "seconds": self.seconds,
            "files_per_second": self._per_second(tally.files),
            "bytes_per_second": self._per_second(tally.bytes),
            **asdict(self.statistics),
            "failures": [asdict(failure) for failure in tally.failures],
        }
        return json.dumps(figures, indent=2)

    def _per_second(self, amount: int) -> float:
        return amount / self.seconds if self.seconds else 0.0


def _finite(limit: float) -> float | None:
    return None if limit == math.inf else limit  # JSON knows no infinity


def _so_many(kind: str, number: int) -> str:
    return f"{number:,} {kind}{'' if number == 1 else 's'}"


class OutputError(CommandError):
    """The file of digests cannot be written."""


def checksum_line(hashed: Hashed) -> bytes:
    """
    Return a file's line, as coreutils writes it.

    A name is its bytes, whether they are text or not. Backslashes and line breaks in it are
    escaped, and a backslash at the start of the line says so.
    """
    path = hashed.path.replace(os.sep, "/")
    name = os.fsencode("./-" if path == "-" else path)  # a mere "-" would mean standard input
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"" if escaped == name else b"\\"
    return mark + hashed.digest.encode() + b"  " + escaped + b"\n"


class ChecksumFile:
    """
    Writes digests to a temporary file, which replaces ``path`` at the end of the block.

    Enter it with ``with``. Everything in it blocks; only `add` is quick.

    Args:
        path: The file; if it is a symbolic link, what that leads to.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(os.path.realpath(path))  # resolve() raises where links go in a circle
        self._partial = self._path.with_name(f".mtaio-{secrets.token_hex(8)}.tmp")
        self._lines: list[bytes] = []
        self._size = 0
        self._mode: int | None = None

    def __enter__(self) -> Self:
        """
        Open the temporary file.

        Raises:
            OutputError: There is no such folder, it is not writable, or ``path`` is not a regular
                file.
        """
        try:
            with suppress(FileNotFoundError):
                mode = self._path.stat().st_mode
                if not stat.S_ISREG(mode):
                    reason = f"it is a {kind_of(mode)}. Name a regular file."
                    raise self._error(reason)
                self._mode = stat.S_IMODE(mode)
            self._file = self._partial.open("xb")
        except OSError as error:
            raise self._error(reason_of(error)) from error
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """
        Put the file in its place, or remove what there is of it if the block raised.

        Raises:
            OutputError: It could not be written to the end.
        """
        try:
            if exc_type is None:
                self._finish()
        finally:
            with suppress(OSError):  # it is not needed any more, or closed already
                self._file.close()
            with suppress(FileNotFoundError):  # it has its new name
                self._partial.unlink()

    @property
    def places(self) -> tuple[Place, Place]:
        """Where the file and the temporary one stand."""
        return place_of(str(self._path)), place_of(str(self._partial))

    @property
    def full(self) -> bool:
        """Whether so much was added that it should be written."""
        return self._size >= FLUSH_BYTES

    def add(self, hashed: Hashed) -> None:
        """Keep a digest until the next `flush`."""
        line = checksum_line(hashed)
        self._lines.append(line)
        self._size += len(line)

    def flush(self) -> None:
        """
        Write what was added.

        Raises:
            OutputError: There is no room, or the device failed.
        """
        try:
            self._file.write(b"".join(self._lines))
            self._file.flush()
        except OSError as error:
            raise self._error(reason_of(error)) from error
        self._lines.clear()
        self._size = 0

    def _finish(self) -> None:
        self.flush()
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            if self._mode is not None:
                self._partial.chmod(self._mode)
            self._partial.replace(self._path)
        except OSError as error:
            raise self._error(reason_of(error)) from error

    def _error(self, reason: str) -> OutputError:
        return OutputError(f"cannot write {printable(str(self._path))}: {reason}")
