"""
The command ``mtaio demo``, from its options to its exit code.

Promise: what cannot be done is refused before anything is read or written. Digests, tables and JSON
go to stdout, everything else to stderr.
"""

from __future__ import annotations

import math
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
from anyio import to_thread
from cyclopts import Parameter
from rich.console import Console

from mtaio._internal.clock import now
from mtaio.app._files import Hashed, kind_of, place_of, printable, reason_of
from mtaio.app._output import ChecksumFile, OutputError, Report, Screen, Tally
from mtaio.app._usage import Backend, UsageError, require_backend
from mtaio.app.demo import TreeHasher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cyclopts import Token

__all__ = ["Options", "demo"]

FAILED: Final = 1

# Otherwise trio raises Ctrl-C between any two bytecodes, also while a scope is being entered.
_AT_CHECKPOINTS: Final = {"restrict_keyboard_interrupt_to_checkpoints": True}

_FOR_ANYIO: Final[Mapping[Backend, dict[str, Any]]] = {
    "asyncio": {"backend": "asyncio"},
    "trio": {"backend": "trio", "backend_options": _AT_CHECKPOINTS},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
}


def _integer(_: object, tokens: Sequence[Token]) -> int:
    """Return an integer; cyclopts itself would round "1.5"."""
    try:
        return int(tokens[0].value)
    except ValueError:
        msg = f"{tokens[0].value!r} is not an integer."
        raise ValueError(msg) from None


def _path(_: object, tokens: Sequence[Token]) -> Path:
    """Return a path; ``Path("")`` would be the current folder."""
    if not tokens[0].value:
        msg = "'' is not a path. Name a folder or a regular file."
        raise ValueError(msg)
    return Path(tokens[0].value)


_Path = Annotated[Path, Parameter(converter=_path)]
_Integer = Annotated[int, Parameter(converter=_integer)]
_Flag = Annotated[bool, Parameter(negative="", show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to hash, and what to show. Each field's line is its help on the command line."""

    backend: Backend = "asyncio"
    """The event loop to run on."""
    limit: _Integer = 8
    """Worker threads at once."""
    rate: float | None = None
    """Files to start per second, evenly spaced."""
    timeout: float | None = None
    """Seconds for each file."""
    follow_symlinks: _Flag = False
    """Follow symbolic links; a broken one is then a failure."""
    output: Path | None = None
    """Write the digests to this file, for "sha256sum --check". It appears when all is done, or not
    at all."""
    json: _Flag = False
    """Print every figure, and the failures by name, as JSON instead of a table."""
    quiet: _Flag = False
    """Show neither bar nor table, only failures."""


HERE: Final = Path()
DEFAULTS: Final = Options()


def demo(path: _Path = HERE, /, *, options: Options = DEFAULTS) -> int:
    """
    Hash every file under PATH with SHA-256, many at once: a real job for mtaio.

    Regular files are hashed. Symbolic links are not followed; they, FIFOs, sockets and devices are
    skipped and counted. What cannot be read (no permission, removed meanwhile, too slow) is
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
        hasher = _hasher(options, sums)
        screen = stack.enter_context(Screen(quiet=options.quiet))
        started = now()
        anyio.run(_hash, top, hasher, tally, screen, sums, **_FOR_ANYIO[options.backend])
        seconds = now() - started
    report = Report(
        path=top,
        backend=options.backend,
        limit=options.limit,
        rate=options.rate,
        timeout=options.timeout,
        follow_symlinks=options.follow_symlinks,
        output=None if options.output is None else str(options.output),
        tally=tally,
        statistics=hasher.statistics(),
        seconds=seconds,
    )
    if options.json:
        print(report.as_json())  # noqa: T201 - this is what the command is asked for
    elif not options.quiet:
        Console().print(report.as_table())
    return FAILED if tally.failed else 0


async def _hash(
    path: str, hasher: TreeHasher, tally: Tally, screen: Screen, sums: ChecksumFile | None
) -> None:
    """Hash everything, and hand each outcome on."""
    async with hasher.stream(path) as batches:
        async for batch in batches:
            for outcome in batch:
                tally.add(outcome)
                screen.show(outcome)
                if sums is not None and isinstance(outcome, Hashed):
                    sums.add(outcome)
            screen.count(tally.files, tally.bytes)
            if sums is not None and sums.full:
                await to_thread.run_sync(sums.flush)


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
        msg = f"cannot write {printable(output)}: it is what is to be hashed. Name another file."
        raise UsageError(msg)
    return sums


def _hasher(options: Options, sums: ChecksumFile | None) -> TreeHasher:
    try:
        return TreeHasher(
            limit=options.limit,
            rate=math.inf if options.rate is None else options.rate,
            timeout=options.timeout,
            follow_symlinks=options.follow_symlinks,
            leave_out=() if sums is None else sums.places,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
