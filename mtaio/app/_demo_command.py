"""
The command ``mtaio demo``, from its options to its exit code.

Promise: what cannot be done is refused before anything is read. Digests, the table and JSON go to
stdout, everything else to stderr, as one line for each path, whatever its name contains. Counting
takes the same memory for a thousand files as for a million; digests that are to be printed are kept
until all are there.
"""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from mtaio._internal.clock import now
from mtaio.app._demo import DONE, LINK, Failed, Hashed, Skipped, TreeHasher, kind_of, reason_of
from mtaio.app._usage import Backend, CommandError, UsageError, require_backend
from mtaio.core import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from cyclopts import Token

    from mtaio.app._demo import HasherStatistics, Outcome
    from mtaio.events import Event

    Bar = Callable[[int, int | None, str], object]

__all__ = ["Options", "demo"]

MOST_FAILURES: Final = 1000


def _above_0(kind: Callable[[str], float], tokens: Sequence[Token]) -> float:
    """Return a number above 0; cyclopts itself would take 1.5 for an integer."""
    text = tokens[0].value
    with suppress(ValueError):
        if text.isascii() and "_" not in text and (number := kind(text)) > 0:
            return number
    wanted = "a whole number" if kind is int else "a number"
    msg = f"{text!r} is not {wanted} above 0, in the digits 0 to 9."
    raise ValueError(msg)


def _path(_: object, tokens: Sequence[Token]) -> Path:
    """Return a path; ``Path("")`` would be the current folder."""
    if tokens[0].value:
        return Path(tokens[0].value)
    msg = "'' is not a path. Name a folder or a regular file."
    raise ValueError(msg)


_Flag = Annotated[bool, Parameter(negative="", show_default=False)]
_Above0 = Parameter(converter=_above_0)
_Path = Annotated[Path, Parameter(converter=_path)]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to hash, and what to show. Each field's line is its help on the command line."""

    backend: Backend = "asyncio"
    """The event loop to run on."""
    limit: Annotated[int, _Above0] = 8
    """The number of worker threads."""
    rate: Annotated[float, _Above0] = math.inf
    """Files to start per second, evenly spaced."""
    timeout: Annotated[float, _Above0] = math.inf
    """Seconds for each file."""
    digests: _Flag = False
    """Print a line for each file, as sha256sum does. The table or JSON then goes to stderr."""
    json: _Flag = False
    """Print all figures and the names of failed files as JSON instead of a table."""
    quiet: _Flag = False
    """Show only failures, and neither bar nor table."""


HERE: Final = Path()
DEFAULTS: Final = Options()


def demo(path: _Path = HERE, /, *, options: Options = DEFAULTS) -> int:
    """
    Hash the files under PATH with SHA-256, as an example of a job for mtaio.

    Only regular files are hashed. Symbolic links, FIFOs, sockets and devices are skipped and
    counted. A file that cannot be read (no permission, removed meanwhile, too slow) is reported and
    does not stop the rest.

    Exit status: 0 if everything was read, 1 if something could not be read, 2 for a usage error,
    130 if interrupted.

    Args:
        path: A folder, or a single file.
        options: How to do it.
    """
    require_backend(options.backend)
    _check_path(path)
    hasher = TreeHasher(limit=options.limit, rate=options.rate, timeout=options.timeout)
    tally = Tally()
    screen = Console(stderr=True)
    bar: AbstractContextManager[Bar | None] = (
        nullcontext() if options.quiet else progress.bar("hashing", console=screen)
    )
    with bar as on_progress:
        _listen(hasher, tally, screen, on_progress)
        digests = _digests(hasher) if options.digests else []
        started = now()
        _run(hasher, str(path), options.backend)
        seconds = now() - started
    figures = figures_of(str(path), options, tally, hasher.statistics(), seconds)
    if digests:
        # Only now, below the bar. Names are UTF-8 whatever the locale, as sha256sum reads them.
        sys.stdout.buffer.write("".join(digests).encode())
        sys.stdout.flush()
    console = Console(stderr=options.digests)
    if options.json:
        print(json.dumps(figures, indent=2), file=console.file)
    elif not options.quiet:
        console.print(table_of(figures))
    return CommandError.exit_code if tally.failed else 0


def _check_path(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            return
        reason = f"it is a {kind_of(mode)}"
    except OSError as error:
        reason = reason_of(error)
    msg = f"cannot hash {printable(str(path))}: {reason}. Name a folder or a regular file."
    raise UsageError(msg)


def _run(hasher: TreeHasher, top: str, backend: Backend) -> None:
    """
    Run the application until everything is hashed.

    Raises:
        KeyboardInterrupt: A signal came first.
    """
    app = hasher.app
    ended = False

    @app.service
    async def hash_all() -> None:
        nonlocal ended
        await hasher.emit_all(top)
        ended = True
        app.stop_nowait("everything is hashed")

    app.run(backend)
    if not ended:
        raise KeyboardInterrupt


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


def _listen(hasher: TreeHasher, tally: Tally, screen: Console, bar: Bar | None) -> None:
    """Have each batch counted as it is done, the bar moved, and what was not hashed named."""

    def say(path: str, what: str, style: str) -> None:
        # A path must be copyable from the screen: no wrapping, no markup.
        screen.print(Text(f"{printable(path)}: {what}", style), soft_wrap=True)

    @hasher.app.emitter.on(DONE)
    def show(event: Event[list[Outcome]]) -> None:
        for outcome in event.data:
            tally.add(outcome)
            if isinstance(outcome, Failed):
                say(outcome.path, outcome.reason, "red")
            elif isinstance(outcome, Skipped) and outcome.kind != LINK and bar:
                say(outcome.path, f"skipped, {outcome.kind}", "yellow")
        if bar:
            bar(tally.files, None, f"files, {decimal(tally.bytes)}")


def _digests(hasher: TreeHasher) -> list[str]:
    """Return a list that gets a line for each file, as sha256sum writes it."""
    lines: list[str] = []

    @hasher.app.emitter.on(DONE)
    def keep(event: Event[list[Outcome]]) -> None:
        hashed = [outcome for outcome in event.data if isinstance(outcome, Hashed)]
        lines.extend(f"{one.digest}  {printable(one.path)}\n" for one in hashed)

    return lines


def printable(path: str) -> str:
    """Return a path for people: one line, and nothing in it that a terminal would act upon."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def figures_of(
    path: str, options: Options, tally: Tally, statistics: HasherStatistics, seconds: float
) -> dict[str, Any]:
    """
    Return what was asked for and what was done, as JSON has it.

    Bytes of a path that are not UTF-8 stand as lone surrogates, U+DC80 to U+DCFF, as Python
    represents them: ``os.fsencode(json.loads(text)["path"])`` gives them back.
    """
    return {
        "path": path,
        "backend": options.backend,
        "limit": options.limit,
        "rate": options.rate if options.rate < math.inf else None,  # JSON knows no infinity
        "timeout": options.timeout if options.timeout < math.inf else None,
        "seconds": seconds,
        "files_per_second": tally.files / (seconds or math.inf),
        "bytes_per_second": tally.bytes / (seconds or math.inf),
        **asdict(statistics),
        **asdict(tally),
    }


def table_of(figures: dict[str, Any]) -> Text:
    """Return the closing table, which fits into 80 columns."""
    skipped = [f"{many:,} {kind}{'s' * (many > 1)}" for kind, many in figures["skipped"].items()]
    size, speed = decimal(figures["bytes"]), decimal(round(figures["bytes_per_second"]))
    rows = {
        "files": "{files:,}",
        "bytes": f"{{bytes:,}} ({size})",
        "failures": "{failed:,}",
        "skipped": ", ".join(skipped) or "0",
        "seconds": "{seconds:.2f}, on {backend}",
        "throughput": f"{{files_per_second:,.0f}} files/s, {speed}/s",
        "in flight": "{in_flight_peak} at the peak, {limit} allowed",
        "waits": "for a slot {slot_waits:,} ({slot_wait_seconds:.2f} s)",
    }
    lines = (
        Text.assemble((f"{name:12}", "bold"), row.format(**figures)) for name, row in rows.items()
    )
    return Text("\n").join(lines)
