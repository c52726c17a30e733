"""
The files under a path: found step by step, and hashed in worker threads.

Promise: entries come in the order of ``LC_ALL=C sort`` over whole paths, in any file
system. A file with several hard links is read once, as long as there is room to remember it. Memory
holds the names in the folders between the top and the current one, and one chunk of one file. What
cannot be looked at or read is a value that says so, not an error, and the rest goes on.

A path is text as the operating system gives it: bytes that are not text stand in it as lone
surrogates, which ``os.fsencode`` undoes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from anyio import from_thread

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from mtaio.cache import TTLCache

CHUNK: Final = 256 * 1024

# Of these, Windows has only O_BINARY; other systems have all the others.
_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO without a writer would block in open()
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)

FOLDER: Final = "folder"
LINK: Final = "symbolic link"
BROKEN_LINK: Final = "broken symbolic link"

_KINDS: Final = {
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "FIFO",
    stat.S_IFLNK: LINK,
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file that is to be hashed."""

    path: str
    size: int
    """Bytes, when it was looked at."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """A regular file, and what was read in it from its beginning to its end."""

    path: str
    size: int
    """Bytes in it."""
    digest: str
    """SHA-256, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something other than a regular file, which was not read."""

    path: str
    kind: str
    """What it is."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that should have been hashed, or a folder that should have been looked through."""

    path: str
    reason: str
    """Why that could not be done."""


Entry = Found | Skipped | Failed
Outcome = Hashed | Skipped | Failed


def kind_of(mode: int) -> str:
    """Return the name of a kind of file, from its ``st_mode``."""
    return _KINDS.get(stat.S_IFMT(mode), "special file")


def reason_of(error: OSError) -> str:
    """Return the operating system's words for what went wrong, without number and path."""
    return error.strerror or str(error)


def printable(path: str) -> str:
    """Return a path for people: one line, and nothing in it that a terminal would act upon."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


Place = tuple[int, int, str]
"""Where a file is, by any path: its folder's device and inode, and its name."""


def place_of(path: str) -> Place:
    """Return where the file at ``path`` is or would be; its folder must exist."""
    real = Path(os.path.realpath(path))
    status = real.parent.stat()
    return status.st_dev, status.st_ino, os.path.normcase(real.name)


@dataclass(slots=True)
class _Folder:
    """A folder that the walk is in."""

    prefix: str
    """What comes before each name in it."""
    identity: tuple[int, int]
    keys: Iterator[bytes]
    """The remaining names, in order; that of a folder ends in a slash."""


def walk(
    top: str, *, follow_symlinks: bool = False, leave_out: Collection[Place] = ()
) -> Iterator[Entry]:
    """
    Yield what lies under ``top``, or ``top`` itself if that is not a folder.

    It blocks, so it belongs in one of anyio's worker threads; before each folder it checks
    whether its call was cancelled.

    Args:
        top: Where to start; followed if it is a symbolic link.
        follow_symlinks: Whether links further down are followed too. One that leads back to a
            folder above it is a failure.
        leave_out: Files to pass over.
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
    """Enter a folder, or return why that failed."""
    from_thread.check_cancelled()
    try:
        status = os.stat(path)  # noqa: PTH116 - as below
        identity = (status.st_dev, status.st_ino)
        if follow and any(identity == folder.identity for folder in inside):
            return Failed(path, "symbolic link to a folder above it")
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
    """Return what an entry is sorted by: its name, with a slash if it is a folder."""
    name = os.fsencode(entry.name)
    try:
        return name + b"/" if entry.is_dir(follow_symlinks=follow) else name
    except OSError:
        return name  # _look will meet the error too, and report it


def _look(path: str, *, follow: bool) -> Entry:
    """Return what is at a path."""
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


Digests: TypeAlias = "TTLCache[tuple[int, str]]"
"""The size and digest of files with hard links, by device, inode, size and time of change."""


def hash_files(entries: Iterable[Entry], digests: Digests) -> list[Outcome]:
    """
    Hash each file that was found; what was skipped or failed before is passed on as it is.

    It belongs in one of anyio's worker threads; after each chunk it checks whether its call was
    cancelled.

    Args:
        entries: What was found.
        digests: What is known of files with hard links.
    """
    return [
        hash_file(entry.path, digests) if isinstance(entry, Found) else entry for entry in entries
    ]


def hash_file(path: str, digests: Digests) -> Outcome:
    """Read one file to its end, as `hash_files` does."""
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):  # it was a regular file when it was found
                return Skipped(path, kind_of(status.st_mode))
            if status.st_nlink == 1:
                return Hashed(path, *_read(descriptor))
            identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            known = digests.get_nowait(identity)
            if known is None:
                known = _read(descriptor)
                digests.set_nowait(identity, known)
            return Hashed(path, *known)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Failed(path, reason_of(error))


def _read(descriptor: int) -> tuple[int, str]:
    """Return the size and the digest of an open file."""
    sha256 = hashlib.sha256()
    size = 0
    while chunk := os.read(descriptor, CHUNK):
        from_thread.check_cancelled()
        sha256.update(chunk)
        size += len(chunk)
    return size, sha256.hexdigest()
