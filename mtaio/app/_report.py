"""
What a run of the demo comes to: counted as it goes, and shown as a table or as JSON.

Promise: counting takes the same memory for a thousand files as for a million; of the failures the
first `MOST_FAILURES` are kept by name.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from mtaio.app._outcomes import Failed, Hashed, Skipped

if TYPE_CHECKING:
    from mtaio.app._options import Options
    from mtaio.app._outcomes import Outcome
    from mtaio.app.demo import HasherStatistics

MOST_FAILURES: Final = 1000


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
    """How many of each kind were no regular files."""
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


@dataclass(frozen=True, slots=True)
class Report:
    """A run that came to its end."""

    path: str
    options: Options
    tally: Tally
    statistics: HasherStatistics
    seconds: float
    """From the start of the event loop to its end."""

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
            "waits": f"for a slot {done.slot_waits:,} ({done.slot_wait_seconds:.2f} s), "
            f"for a token {done.token_waits:,} ({done.token_wait_seconds:.2f} s)",
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
        options, tally = self.options, self.tally
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


def _finite(limit: float | None) -> float | None:
    return None if limit == math.inf else limit  # JSON knows no infinity


def _so_many(kind: str, number: int) -> str:
    return f"{number:,} {kind}{'' if number == 1 else 's'}"
