"""
The command ``mtaio demo``, from its options to its exit code.

Promise: what cannot be done is refused before anything is read or written. Digests, tables and JSON
go to stdout, everything else to stderr.
"""

from __future__ import annotations

import math
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from anyio import to_thread
from cyclopts import Parameter
from rich.console import Console

from mtaio._internal.clock import now
from mtaio.app._files import Hashed, kind_of, place_of, printable, reason_of
from mtaio.app._output import ChecksumFile, OutputError, Report, Screen, Tally, open_screen
from mtaio.app._usage import Backend, CommandError, UsageError, require_backend
from mtaio.app.demo import DONE, TreeHasher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cyclopts import Token

    from mtaio.app._files import Outcome
    from mtaio.events import Event

__all__ = ["Options", "demo"]


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


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to hash, and what to show. Each field's line is its help on the command line."""

    backend: Backend = "asyncio"
    """The event loop to run on."""
    limit: Annotated[int, _Above0] = 8
    """Worker threads at once."""
    rate: Annotated[float, _Above0] = math.inf
    """Files to start per second, evenly spaced."""
    timeout: Annotated[float, _Above0] = math.inf
    """Seconds for each file."""
    follow_symlinks: _Flag = False
    """Follow symbolic links; a broken link then counts as a failure."""
    output: Path | None = None
    """Write the digests to this file, for "sha256sum --check". It appears when all is done, or not
    at all."""
    json: _Flag = False
    """Print every figure, and the failures by name, as JSON instead of a table."""
    quiet: _Flag = False
    """Show neither bar nor table, only failures."""


HERE: Final = Path()
DEFAULTS: Final = Options()


def demo(
    path: Annotated[Path, Parameter(converter=_path)] = HERE,
    /,
    *,
    options: Options = DEFAULTS,
) -> int:
    """
    Hash every file under PATH with SHA-256, many at once: a real job for mtaio.

    Regular files are hashed. Symbolic links are not followed; they, FIFOs, sockets and devices are
    skipped and counted. What cannot be read (no permission, removed since, too slow) is
    reported and does not stop the rest.

    Exit status: 0 everything was read, 1 something could not be read, 2 usage, 130 interrupted.

    Args:
        path: A folder, or a single file.
        options: How to do it.
    """
    require_backend(options.backend)
    _check_path(path)
    top = str(path)
    tally = Tally()
    with ExitStack() as stack:
        sums = None if options.output is None else _open_output(stack, str(options.output), top)
        hasher = TreeHasher(
            limit=options.limit,
            rate=options.rate,
            timeout=options.timeout,
            follow_symlinks=options.follow_symlinks,
            leave_out=() if sums is None else sums.places,
        )
        _listen(hasher, tally, stack.enter_context(open_screen(quiet=options.quiet)), sums)
        started = now()
        _run(hasher, top, options.backend)
        seconds = now() - started
    report = Report(
        path=top, options=options, tally=tally, statistics=hasher.statistics(), seconds=seconds
    )
    if options.json:
        print(report.as_json())  # noqa: T201 - this is what the command is asked for
    elif not options.quiet:
        Console().print(report.as_table())
    return CommandError.exit_code if tally.failed else 0


def _listen(hasher: TreeHasher, tally: Tally, screen: Screen, sums: ChecksumFile | None) -> None:
    """Have each batch counted, shown and written as it is done."""

    @hasher.app.emitter.on(DONE)
    def show(event: Event[list[Outcome]]) -> None:
        for outcome in event.data:
            tally.add(outcome)
            screen.show(outcome)
        screen.count(tally.files, tally.bytes)

    if sums is not None:

        @hasher.app.emitter.on(DONE)
        async def write(event: Event[list[Outcome]]) -> None:
            for outcome in event.data:
                if isinstance(outcome, Hashed):
                    sums.add(outcome)
            if sums.full:
                await to_thread.run_sync(sums.flush)


def _run(hasher: TreeHasher, top: str, backend: Backend) -> None:
    """
    Run the application until everything is hashed.

    Raises:
        OutputError: The output could not be written.
        KeyboardInterrupt: A signal came first.
    """
    app = hasher.app
    ended: list[Exception | None] = []

    @app.service
    async def hash_all() -> None:
        try:
            await hasher.emit_all(top)
            ended.append(None)
        except* OutputError as failures:
            ended.extend(failures.exceptions)
        app.request_stop("everything is hashed")

    app.run(backend)
    if not ended:
        raise KeyboardInterrupt
    if ended[0] is not None:
        raise ended[0]


def _check_path(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        reason = reason_of(error)
    else:
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            return
        reason = f"it is a {kind_of(mode)}"
    msg = f"cannot hash {printable(str(path))}: {reason}. Name a folder or a regular file."
    raise UsageError(msg)


def _open_output(stack: ExitStack, output: str, path: str) -> ChecksumFile:
    try:
        sums = stack.enter_context(ChecksumFile(output))
    except OutputError as error:
        raise UsageError(str(error)) from error
    if place_of(path) in sums.places:
        msg = f"cannot write {printable(output)}: it is the file to be hashed. Name another file."
        raise UsageError(msg)
    return sums
