"""
The disk of a host: a real directory that a power cut takes back to what was synced.

Promise: after a power cut the disk is in a state that POSIX allows. Nothing is lost that was synced
with ``os.fsync``: what a file held at its last sync, what a directory held at its own.

Programs use real files, so most of what they do is not seen as it happens. This is enough:

1. ``os.fsync`` and ``os.fdatasync`` are replaced while a disk is open. In place of waiting for the
   machine's disk they copy the bytes of the file, or note what the directory holds.
2. An audit hook is called before a file is truncated, renamed or removed, also by C code of Python
   and by names that were imported from `os`, and looks at the disk as it is then. So a rename that
   is lost leaves both names, and a file that was opened with ``"w"`` can turn out empty. Python
   cannot remove an audit hook: this one does nothing while no disk is open.
3. A power cut looks once more, chooses among the states since the last syncs, and builds what has
   survived in a new directory. A file that is open then has no name any more, so that what a dead
   program still writes to it is lost.

What syncs by system calls of its own is not seen, and would be accused of never having synced: C
code such as SQLite's and mmap's, and other processes. SQLite is recognised, and refused.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias, cast

SECTOR: Final = 512
"""This many bytes are overwritten wholly or not at all."""

_SQLITE: Final = b"SQLite format 3\0"

_KINDS: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)

_MOST: Final = 64
"""How many states since the last sync are kept, of the directories and of each file."""


@dataclass(eq=False, slots=True)
class _Node:
    """A file, a directory or a symbolic link, under whatever names."""

    # Invariants:
    # - synced is what a file held at its last sync, b"" since it was truncated; a link's target;
    # - runs has what a file held at the beginning and the end of each stretch of writing since the
    #   last sync that has ended: with a truncation, or with the power cut.
    mode: int
    path: str
    synced: bytes = b""
    runs: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])

    def read(self) -> bytes:
        """Return what a file holds now, or where a link leads."""
        with suppress(OSError):  # a thread has removed it since, or it is something else
            if stat.S_ISREG(self.mode):
                return Path(self.path).read_bytes()
        return self.synced

    def sync(self) -> None:
        """Note that what the file holds is on the disk."""
        self.synced = self.read()
        self.runs.clear()

    def end_run(self) -> None:
        """Note what the file holds; what is written from now on begins at nothing."""
        if stat.S_ISREG(self.mode):
            self.runs.append((self.synced, self.read()))
            del self.runs[1 : 1 - _MOST]
            self.synced = b""

    def survivor(self, random: Random) -> bytes:
        """Choose what the file holds after the power cut: its oldest state, its latest, or torn."""
        runs = self.runs or [(self.synced, self.synced)]
        old, new = random.choice(runs)
        shared = min(len(old), len(new))
        sectors = range(0, shared, SECTOR)
        torn = b"".join(random.choice((old, new))[at : at + SECTOR] for at in sectors)[:shared]
        torn += new[shared : random.randint(shared, max(shared, len(new)))]
        return random.choice((runs[0][0], torn, runs[-1][1]))


_Tree: TypeAlias = dict[_Node, dict[str, _Node]]
"""What each directory holds."""


class Storage:
    """
    What a host's disk holds, and what of it would survive a power cut; `Disk` says which states.

    Args:
        name: The name of the host.
        random: Chooses what survives.
        dead: Says whether the program that acts now was killed.
    """

    # Invariants:
    # - nodes has what was there at the last look, by the number of its inode;
    # - trees has what the directories may hold after a power cut, from the last syncs to the last
    #   look; there is at least one.
    __slots__ = ("_base", "_dead", "_lock", "_nodes", "_random", "_root", "_trees", "lost", "path")

    def __init__(self, name: str, random: Random, dead: Callable[[], bool] = lambda: False) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="mtaio-")).resolve()
        self._lock = threading.RLock()  # programs sync in worker threads too
        self._random, self._dead = random, dead
        self.path: Path = self._base / name
        """A directory, which the `Network` removes at its end."""
        self.lost: tuple[str, ...] = ()
        """The files, as paths below ``path``, that the last power cut has changed."""
        self.path.mkdir()
        self.sync()
        _opened(self)

    def __repr__(self) -> str:
        return f"<Storage {str(self.path)!r}>"

    def close(self) -> None:
        """Remove the disk with all that is on it."""
        _closed(self)
        shutil.rmtree(self._base, ignore_errors=True)

    def sync(self) -> None:
        """Sync all that is on the disk, files and directories."""
        with self._lock:
            self._root = _Node(stat.S_IFDIR | 0o755, str(self.path))
            self._nodes: dict[int, _Node] = {}
            self._trees: list[_Tree] = [self._scan()]
            for node in self._nodes.values():
                node.sync()

    def detach(self) -> None:
        """Keep all that was written, but nothing that goes on in files which are open now."""
        with self._lock:
            self._look()
            self._rebuild(self._trees[-1], _Node.read)

    def crash(self) -> None:
        """
        Cut the power: what was not synced is lost, torn or kept.

        Raises:
            RuntimeError: A file is SQLite's, of which it cannot be known what was synced.
        """
        with self._lock:
            self._look()
            before = self._files()
            unseen = [name for name, content in before.items() if content.startswith(_SQLITE)]
            if unseen:
                msg = (
                    f"cannot cut the power with {unseen} on {self!r}: what SQLite syncs in C code "
                    f"is not seen. Kill the process alone, without silent=True, or keep the "
                    f"database off this disk."
                )
                raise RuntimeError(msg)
            for node in self._nodes.values():
                node.end_run()
            chosen = self._random.choice((0, self._random.randrange(len(self._trees)), -1))
            self._rebuild(self._trees[chosen], lambda node: node.survivor(self._random))
            self.sync()
            after = self._files()
            names = sorted(before | after)
            self.lost = tuple(name for name in names if before.get(name) != after.get(name))

    def _files(self) -> dict[str, bytes]:
        files = (path for path in self.path.rglob("*") if path.is_file())
        return {str(path.relative_to(self.path)): path.read_bytes() for path in files}

    def _scan(self) -> _Tree:
        """Return what each directory holds; what is gone is forgotten, with its inode's number."""
        tree: _Tree = {}
        known, self._nodes = self._nodes, {self.path.stat().st_ino: self._root}
        directories = [self._root]
        for directory in directories:
            names = tree[directory] = {}
            with suppress(FileNotFoundError), os.scandir(directory.path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_IFMT(info.st_mode) not in _KINDS:
                        continue
                    node = known.get(info.st_ino) or _Node(info.st_mode, entry.path)
                    node.mode, node.path = info.st_mode, entry.path
                    names[entry.name] = self._nodes[info.st_ino] = known[info.st_ino] = node
                    if entry.is_symlink():
                        node.synced = os.fsencode(Path(node.path).readlink())
                    elif entry.is_dir():
                        directories.append(node)
        return tree

    def _look(self) -> None:
        tree = self._scan()
        if tree != self._trees[-1]:
            self._trees.append(tree)
            del self._trees[1 : 1 - _MOST]

    def _rebuild(self, tree: _Tree, content: Callable[[_Node], bytes]) -> None:
        """Put what ``tree`` has in the place of what is there, as files of their own."""
        made: dict[_Node, Path] = {}

        def build(node: _Node, path: Path) -> None:
            if node in made:
                if not stat.S_ISDIR(node.mode):  # or else it was moved, and is where it was
                    path.hardlink_to(made[node])
                return
            made[node] = path
            if stat.S_ISLNK(node.mode):
                path.symlink_to(os.fsdecode(node.synced))
                return
            if stat.S_ISREG(node.mode):
                path.write_bytes(content(node))
            else:
                path.mkdir()
            for name, child in tree.get(node, {}).items():
                build(child, path / name)
            path.chmod(stat.S_IMODE(node.mode))

        new, old = self._base / ".new", self._base / ".old"
        build(self._root, new)
        self.path.rename(old)
        new.rename(self.path)
        shutil.rmtree(old)
        self._nodes = {}
        for node, path in made.items():
            node.path = str(self.path / path.relative_to(new))
            self._nodes[os.lstat(node.path).st_ino] = node

    def synced(self, inode: int) -> None:
        """Note that a program has synced a file or a directory."""
        with self._lock:
            self._look()
            now = self._trees[-1]
            node = self._nodes.get(inode)
            if node in now:
                states = [{**tree, node: now[node]} for tree in self._trees]
                self._trees = [tree for tree, after in pairwise(states) if tree != after] + [now]
            elif node is not None:
                node.sync()

    def changing(self, path: str, flags: int) -> None:
        """
        Look at the disk before a program changes it, here or by opening a file with ``flags``.

        Raises:
            OSError: The program is dead, or each write to the file would be synced.
        """
        if self._dead():
            raise OSError(errno.EIO, "the program was killed", path)
        if flags & os.O_DSYNC:
            raise OSError(errno.EINVAL, "what O_DSYNC syncs is not seen: call os.fsync()", path)
        with self._lock, suppress(FileNotFoundError):
            self._look()
            if flags & os.O_TRUNC:
                self._nodes[Path(path).stat().st_ino].end_run()


# ---- how it is noticed ---------------------------------------------------------------------------

_CHANGES: Final = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"}

_disks: list[Storage] = []
_before: list[Callable[[Any], None]] = []


def _opened(disk: Storage) -> None:
    if not _before:
        sys.addaudithook(_audit)
    if not _disks:
        _before[:] = os.fsync, os.fdatasync
        cast("Any", os).fsync = cast("Any", os).fdatasync = _sync
    _disks.append(disk)


def _closed(disk: Storage) -> None:
    if disk in _disks:
        _disks.remove(disk)
    if not _disks:
        cast("Any", os).fsync, cast("Any", os).fdatasync = _before


def _sync(fd: Any) -> None:
    """Sync a file, in the place of ``os.fsync`` and ``os.fdatasync``."""
    number = fd if isinstance(fd, int) else fd.fileno()
    inode = os.fstat(number).st_ino
    path = Path(f"/proc/self/fd/{number}").readlink()
    for disk in _disks:
        if path.is_relative_to(disk.path):
            return disk.synced(inode)
    return _before[0](number)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    flags = args[2] if _disks and event == "open" else 0
    if _disks and (event in _CHANGES or flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC)):
        for name in args[:1] if event == "open" else args:
            path = "" if isinstance(name, int) else os.path.realpath(os.fsdecode(name))
            for disk in _disks:
                if path.startswith(f"{disk.path}/"):
                    disk.changing(path, flags)


# Python looks for this name on a hook: without it, debuggers and coverage see nothing of it.
vars(_audit)["__cantrace__"] = True
