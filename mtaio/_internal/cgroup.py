"""
The limits of the container that this process runs in: Linux control groups, version 1 and 2.

Promise: each limit is the lowest of the process's own group and of those around it that can be
seen from here, and usage is that of the group with that limit, whose members share it. What is
missing, unreadable or makes no sense counts as no limit; nothing raises.
Cost: one small file read for each figure and each group around. No file is kept open.

A controller (memory, cpu) belongs to version 1 if /proc/self/cgroup names it, else to version 2, so
that hosts which mount both are covered. Where the group's folder is, /proc/self/mountinfo tells: it
says which group stands at the root of each mount, seen from the same namespace as the process's own
group. Those two paths need not meet: in a namespace of its own the process may be in ``/`` while
the root of the mount is ``/../..``.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CPUGroup", "CPUUse", "Cgroup", "MemoryGroup"]

_MOST: Final = 1 << 16
"""Bytes to read of a file; memory.stat, the longest, has some 2,000."""

_ESCAPED: Final = re.compile(rb"\\([0-3][0-7]{2})")
"""How mountinfo writes a blank, a tab, a newline or a backslash in a path."""

_WRONG: Final = (ArithmeticError, LookupError, OSError, ValueError)
"""What comes of a file that is missing or says something unexpected."""


class CPUUse(NamedTuple):
    """What a group has used of its quota since it was made."""

    seconds: float
    """Seconds of processor time."""
    periods: int
    """Periods in which it ran."""
    throttled: int
    """Those of them in which the quota ran out."""


class MemoryGroup:
    """One control group, as a limit of memory."""

    __slots__ = ("_around", "_limit", "_reclaimable", "_stat", "_usage")

    def __init__(self, folder: Path, *, version: int, outermost: bool = False) -> None:
        if version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", b"total_inactive_file")
        else:
            names = ("memory.max", "memory.current", b"inactive_file")
        self._limit: Final = str(folder / names[0])
        self._usage: Final = str(folder / names[1])
        self._reclaimable: Final = names[2]
        self._stat: Final = str(folder / "memory.stat")
        self._around: Final = version == 1 and outermost

    def limit(self) -> int | None:
        """
        Return how many bytes the group may hold; None for no limit.

        For the outermost group of version 1 that is the lowest of those around it, if it is lower.
        They cannot be seen from here, but the kernel tells.
        """
        try:
            limit = int(_read(self._limit))
        except _WRONG:  # version 2 writes "max" for none; version 1 a number beyond any memory
            return None
        if self._around:
            with suppress(*_WRONG):
                around = _value(_read(self._stat).split(), b"hierarchical_memory_limit")
                limit = min(limit, around)
        return limit if limit > 0 else None

    def used(self) -> int | None:
        """Return how many bytes the group holds that cannot be reclaimed at once."""
        try:
            usage = int(_read(self._usage))
        except _WRONG:
            return None
        try:
            inactive = _value(_read(self._stat).split(), self._reclaimable)
        except _WRONG:  # some sandboxes have no memory.stat
            inactive = 0
        return max(0, usage - inactive)


class CPUGroup:
    """One control group, as a limit of processor time."""

    __slots__ = ("_accounting", "_period", "_quota", "_stat")

    def __init__(self, folder: Path, *, version: int, accounting: Path | None = None) -> None:
        if version == 1:
            quota, period = "cpu.cfs_quota_us", str(folder / "cpu.cfs_period_us")
        else:
            quota, period = "cpu.max", None
        self._quota: Final = str(folder / quota)
        self._period: Final = period
        self._accounting: Final = str(accounting / "cpuacct.usage") if accounting else None
        self._stat: Final = str(folder / "cpu.stat")

    def quota(self) -> float | None:
        """Return how many processors the group may keep busy; None for no limit."""
        try:
            quota, *rest = _read(self._quota).split()
            if int(quota) < 0:
                return None
            period = rest[0] if self._period is None else _read(self._period)
            processors = int(quota) / int(period)
        except _WRONG:  # version 2 writes "max" for none; version 1 writes -1
            return None
        return processors if processors > 0 else None

    def use(self) -> CPUUse | None:
        """Return what the group has used so far; None if it cannot be known."""
        try:
            fields = _read(self._stat).split()
            if self._period is None:
                seconds = _value(fields, b"usage_usec") / 1e6
            elif self._accounting is None:
                return None
            else:
                seconds = int(_read(self._accounting)) / 1e9
            return CPUUse(seconds, _value(fields, b"nr_periods"), _value(fields, b"nr_throttled"))
        except _WRONG:
            return None


class Cgroup:
    """
    The control groups that this process is in, from its own one outwards.

    It is for the process that found it: after a fork the child may be moved to other groups, and
    finds its own. Changed limits show, a move to another group does not.
    """

    __slots__ = ("_cpu", "_memory")

    def __init__(self, memory: tuple[MemoryGroup, ...], cpu: tuple[CPUGroup, ...]) -> None:
        self._memory: Final = memory
        self._cpu: Final = cpu

    @classmethod
    def find(cls, root: Path = Path("/")) -> Cgroup | None:
        """
        Find the groups of this process.

        Args:
            root: The folder in which ``proc`` and the mount points are.

        Returns:
            None where there are no control groups, as on other systems than Linux.
        """
        try:
            paths = _paths((root / "proc/self/cgroup").read_bytes())
            mounts = _mounts((root / "proc/self/mountinfo").read_bytes())
        except OSError:
            return None
        memory_version, memory = _folders(root, paths, mounts, "memory")
        cpu_version, cpu = _folders(root, paths, mounts, "cpu")
        accounting: Sequence[Path | None] = [None] * len(cpu)
        if cpu_version == 1 and paths["cpu"] == paths.get("cpuacct"):
            counted = _folders(root, paths, mounts, "cpuacct")[1]
            if len(counted) == len(cpu):  # else they are not the same groups
                accounting = counted
        found = cls(
            tuple(
                MemoryGroup(folder, version=memory_version, outermost=folder is memory[-1])
                for folder in memory
            ),
            tuple(
                CPUGroup(folder, version=cpu_version, accounting=counted)
                for folder, counted in zip(cpu, accounting, strict=True)
            ),
        )
        return found if memory or cpu else None

    def memory_limit(self) -> tuple[int, MemoryGroup] | None:
        """Return the lowest limit of memory in bytes, and the group that has it."""
        found = [(limit, group) for group in self._memory if (limit := group.limit()) is not None]
        # Of equals the outermost, which has the most members and hence is full first.
        return min(reversed(found), key=lambda each: each[0], default=None)

    def cpu_quota(self) -> tuple[float, CPUGroup] | None:
        """Return the lowest limit of busy processors, and the group that has it."""
        found = [(quota, group) for group in self._cpu if (quota := group.quota()) is not None]
        return min(reversed(found), key=lambda each: each[0], default=None)


class _Mount(NamedTuple):
    """A mount of control groups."""

    root: PurePosixPath
    """The group that stands at the mount point."""
    point: str
    controllers: frozenset[str]
    """Those of version 1; version 2 has its own under the empty name."""


def _read(path: str) -> bytes:
    """Return what a file of the kernel says now: a quarter of the cost of ``open``."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        return os.read(file, _MOST)
    finally:
        os.close(file)


def _value(fields: list[bytes], name: bytes) -> int:
    """Return the number that follows a name."""
    return int(fields[fields.index(name) + 1])


def _paths(text: bytes) -> dict[str, PurePosixPath]:
    """Return the group of this process for each controller; under "" that of version 2."""
    found: dict[str, PurePosixPath] = {}
    for line in text.split(b"\n"):
        parts = os.fsdecode(line).split(":", 2)
        if len(parts) == 3:  # noqa: PLR2004 - number, controllers, path
            for controller in parts[1].split(","):
                found[controller] = PurePosixPath(parts[2])
    return found


def _mounts(text: bytes) -> list[_Mount]:
    """Return the mounts of control groups that no later one hides."""
    found: dict[str, _Mount] = {}
    for line in text.split(b"\n"):
        left, separator, right = line.partition(b" - ")  # before it, any number of optional fields
        fields, of = left.split(b" "), right.split(b" ")
        if not separator or len(fields) < 5 or len(of) < 3:  # noqa: PLR2004 - as in proc(5)
            continue
        if of[0] == b"cgroup":
            controllers = frozenset(os.fsdecode(of[-1]).split(","))
        elif of[0] == b"cgroup2":
            controllers = frozenset({""})
        else:
            continue
        point = _unescaped(fields[4])
        found[point] = _Mount(PurePosixPath(_unescaped(fields[3])), point, controllers)
    return list(found.values())


def _unescaped(field: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field))


def _folders(
    root: Path, paths: dict[str, PurePosixPath], mounts: list[_Mount], controller: str
) -> tuple[int, list[Path]]:
    """Return the version of a controller, and the process's groups from its own one outwards."""
    version = 1 if controller in paths else 2
    if version == 2:  # noqa: PLR2004 - version 2
        controller = ""
    path = paths.get(controller)
    if path is None:
        return version, []
    candidates = [
        (*way, root / mount.point.lstrip("/"))
        for mount in mounts
        if controller in mount.controllers and (way := _way(path, mount.root)) is not None
    ]
    # First those in which all names are known, and of these the one that shows most groups around.
    candidates.sort(key=lambda each: (each[0], -len(each[1].parts)))
    for unknown, names, top in candidates:
        inside = _search(top, unknown, names) if unknown else names
        folders = [top / inside, *(top / parent for parent in inside.parents)]
        if any(folder.is_dir() for folder in folders):
            return version, folders
    return version, []


def _way(path: PurePosixPath, root: PurePosixPath) -> tuple[int, PurePosixPath] | None:
    """
    Return the way from the root of a mount to a group: the number of unknown names, and the rest.

    None if the group is not in that mount. Both paths start from the root of the namespace, and may
    begin with steps up from there, of which no names are known.
    """
    if path.is_relative_to(root):
        names = path.relative_to(root)
        return None if _steps_up(names) else (0, names)
    unknown = _steps_up(root) - _steps_up(path)
    if unknown > 0 and set(root.parts[1:]) == {".."}:  # the mount is of a group around
        return unknown, PurePosixPath(*path.parts[1 + _steps_up(path) :])
    return None


def _search(top: Path, unknown: int, names: PurePosixPath) -> PurePosixPath:
    """Return the way from a mount point to the group that has this process, or as far as known."""
    process = str(os.getpid()).encode()
    with suppress(*_WRONG):  # of a folder that is removed meanwhile
        for folder in top.glob("/".join("*" * unknown)):
            with suppress(OSError):  # no folder, or not so deep
                if process in (folder / names / "cgroup.procs").read_bytes().split():
                    return PurePosixPath((folder / names).relative_to(top))
    return PurePosixPath()


def _steps_up(path: PurePosixPath) -> int:
    return path.parts.count("..")
