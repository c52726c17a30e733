"""
One run of ``mtaio demo``, from its options to its exit code.

Promise: what cannot be done is refused before anything is read or written; digests and figures go
where they were asked for.
"""

from __future__ import annotations

import math
import os
import stat
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio import to_thread
from rich.console import Console

from mtaio._internal.clock import now
from mtaio.app._checksums import ChecksumFile, OutputError
from mtaio.app._outcomes import Hashed, kind_of, printable, reason_of
from mtaio.app._report import Report, Tally
from mtaio.app._screen import Screen
from mtaio.app._walk import place_of
from mtaio.app.demo import TreeHasher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtaio.app._options import Backend, Options

# Else trio raises Ctrl-C between any two bytecodes of ours, also in the midst of entering a scope.
_AT_CHECKPOINTS: Final = {"restrict_keyboard_interrupt_to_checkpoints": True}

_FOR_ANYIO: Final[Mapping[Backend, dict[str, Any]]] = {
    "asyncio": {"backend": "asyncio"},
    "trio": {"backend": "trio", "backend_options": _AT_CHECKPOINTS},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
}


class UsageError(Exception):
    """The options ask for what cannot be done."""


def run(path: str, options: Options) -> int:
    """
    Hash everything under ``path``, and return the exit code: 1 if something could not be read.

    Raises:
        UsageError: It cannot be begun.
        OutputError: The digests could not be written to the end.
    """
    _check_backend(options.backend)
    _check_path(path)
    tally = Tally()
    with ExitStack() as stack:
        sums = None if options.output is None else _open_output(stack, str(options.output), path)
        hasher = _hasher(options, sums)
        screen = stack.enter_context(Screen(quiet=options.quiet))
        began = now()
        anyio.run(_hash, path, hasher, tally, screen, sums, **_FOR_ANYIO[options.backend])
        seconds = now() - began
    report = Report(path, options, tally, hasher.statistics(), seconds)
    if options.json:
        print(report.as_json())  # noqa: T201 - this is what the command is asked for
    elif not options.quiet:
        Console().print(report.as_table())
    return 1 if tally.failed else 0


async def _hash(
    path: str, hasher: TreeHasher, tally: Tally, screen: Screen, sums: ChecksumFile | None
) -> None:
    """Hand each outcome to all who want to know it."""
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


def _check_backend(backend: Backend) -> None:
    if find_spec(backend) is None:
        msg = (
            f"backend={backend!r} needs {backend}, which is not installed. Install it with: "
            f"pip install 'mtaio[{backend}]'"
        )
        raise UsageError(msg)


def _check_path(path: str) -> None:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - to a Path "" is the present folder
    except OSError as error:
        reason = reason_of(error)
    else:
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            return
        reason = f"it is a {kind_of(mode)}"
    name = printable(path) or "''"
    msg = f"cannot hash {name}: {reason}. Name a folder or a regular file."
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
