"""
What lies under a path, found step by step.

Promise: entries come in the order of ``LC_ALL=C sort`` over whole paths, whatever the file system's
own order is. Memory holds the names in the folders between the top and the present one, never the
tree. What cannot be looked at is an entry that says so, and the walk goes on.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import from_thread

from mtaio.app._outcomes import (
    BROKEN_LINK,
    FOLDER,
    LINK,
    Failed,
    Found,
    Skipped,
    kind_of,
    reason_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mtaio.app._outcomes import Entry

Place = tuple[int, int, str]
"""Where a file stands, whatever way leads there: its folder's device and number, and its name."""


def place_of(path: str) -> Place:
    """Return where the file at ``path`` stands or would stand; its folder must exist."""
    real = Path(os.path.realpath(path))
    status = real.parent.stat()
    return status.st_dev, status.st_ino, os.path.normcase(real.name)


@dataclass(slots=True)
class _Folder:
    """A folder that the walk is in."""

    prefix: str
    """What stands before each name in it."""
    identity: tuple[int, int]
    keys: Iterator[bytes]
    """The names still to come, in order; that of a folder ends in a slash."""


def walk(
    top: str, *, follow_symlinks: bool = False, leave_out: Collection[Place] = ()
) -> Iterator[Entry]:
    """
    Yield what lies under ``top``, or ``top`` itself if that is no folder.

    It blocks, so it is for a worker thread of anyio's, and before each folder it looks whether the
    call that it serves was cancelled.

    Args:
        top: Where to begin; followed if it is a symbolic link.
        follow_symlinks: Whether links further down are followed too. One that leads back to a
            folder it stands in is a failure.
        leave_out: Files to pass over in silence.
    """
    inside: list[_Folder] = []
    enter = partial(_enter, inside, follow=follow_symlinks, leave_out=leave_out)
    entry: Entry | None = _look(top, follow=True)
    if isinstance(entry, Skipped) and entry.kind == FOLDER:
        entry = enter(top)
    if entry is not None:
        yield entry
    while inside:
        key = next(inside[-1].keys, None)
        if key is None:
            inside.pop()
            continue
        path = inside[-1].prefix + os.fsdecode(key.removesuffix(b"/"))
        entry = enter(path) if key.endswith(b"/") else _look(path, follow=follow_symlinks)
        if entry is not None:
            yield entry


def _enter(
    inside: list[_Folder], path: str, *, follow: bool, leave_out: Collection[Place]
) -> Failed | None:
    """Go into a folder, or return why that cannot be."""
    from_thread.check_cancelled()
    try:
        status = os.stat(path)  # noqa: PTH116 - as below
        identity = (status.st_dev, status.st_ino)
        if follow and any(identity == folder.identity for folder in inside):
            return Failed(path, "symbolic link to a folder that it stands in")
        hidden = {name for *place, name in leave_out if (*place,) == identity}
        with os.scandir(path) as entries:
            keys = sorted(
                _key(entry, follow=follow)
                for entry in entries
                if os.path.normcase(entry.name) not in hidden
            )
    except OSError as error:
        return Failed(path, reason_of(error))
    prefix = os.path.join(path, "")  # noqa: PTH118 - a Path would not keep the last slash
    inside.append(_Folder(prefix, identity, iter(keys)))
    return None


def _key(entry: os.DirEntry[str], *, follow: bool) -> bytes:
    """Return what an entry is sorted by: its name, that of a folder with the slash that follows."""
    name = os.fsencode(entry.name)
    try:
        return name + b"/" if entry.is_dir(follow_symlinks=follow) else name
    except OSError:
        return name  # whoever looks at it next will meet the error too, and say so


def _look(path: str, *, follow: bool) -> Entry:
    """Return what stands at a path."""
    try:
        status = os.stat(path, follow_symlinks=follow)  # noqa: PTH116 - a Path costs more than the call
    except OSError as error:
        broken = follow and isinstance(error, FileNotFoundError) and Path(path).is_symlink()
        return Failed(path, BROKEN_LINK if broken else reason_of(error))
    if stat.S_ISREG(status.st_mode):
        return Found(path, status.st_size)
    kind = kind_of(status.st_mode)
    if kind == LINK and not Path(path).exists():
        kind = BROKEN_LINK
    return Skipped(path, kind)
