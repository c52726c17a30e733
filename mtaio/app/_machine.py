"""
What the machine allows this process: processors, memory, open files; and what supervises it.

Promise: in a container these are the container's limits, where it has any; nothing raises.
Cost: a few small files are read once.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from mtaio._internal.cgroup import Cgroup

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

__all__ = ["Machine", "Supervisor"]

Supervisor: TypeAlias = Literal["kubernetes", "docker", "systemd"]
"""What starts and stops the service, and kills it if it does not stop in time."""

_MARKS: Final = (".dockerenv", "run/.containerenv")
"""Files that Docker and Podman put into each container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a process may use here, and under whom it runs."""

    processors: float
    """How many it may keep busy; a fraction under a quota."""
    memory: int
    """Bytes of memory that it shares with what else is in its container, or on the machine."""
    open_files: int | None
    """How many files and connections may be open at once; None for no limit."""
    container: bool
    """Whether it runs in a container, and so in a network of its own."""
    supervisor: Supervisor | None
    """Who stops the service; None if unknown."""
    root: bool
    """Whether it may do everything."""
    umask: int
    """The permissions that new files do not get."""

    @classmethod
    def read(cls, environ: Mapping[str, str], *, root: Path = Path("/")) -> Self:
        """
        Return what this machine allows this process.

        Args:
            environ: The environment variables, some of which say who started the process.
            root: The folder in which ``proc`` and the marks of containers are.
        """
        kubernetes = "KUBERNETES_SERVICE_HOST" in environ
        docker = any((root / mark).exists() for mark in _MARKS)
        cgroup = Cgroup.find(root)
        quota = None if cgroup is None else cgroup.cpu_quota()
        limit = None if cgroup is None else cgroup.memory_limit()
        from mtaio._internal.processes import psutil  # noqa: PLC0415 - it may not be there

        processors, memory = float(_processors()), psutil.virtual_memory().total
        return cls(
            processors=processors if quota is None else min(processors, quota[0]),
            memory=memory if limit is None else min(memory, limit[0]),
            open_files=_most_files(),
            container=kubernetes or docker or "container" in environ,
            supervisor=_supervisor(environ, kubernetes=kubernetes, docker=docker),
            root=_is_root(),
            umask=_umask(root),
        )


def _supervisor(environ: Mapping[str, str], *, kubernetes: bool, docker: bool) -> Supervisor | None:
    """Return who started this process, and will stop it."""
    if kubernetes:
        return "kubernetes"
    if docker:
        return "docker"
    return "systemd" if "INVOCATION_ID" in environ else None


def _processors() -> int:
    """Return on how many processors this process may run."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _umask(root: Path) -> int:
    """Return the permissions that new files do not get; os.umask would change them."""
    try:
        text = (root / "proc/self/status").read_text(encoding="utf-8", errors="replace")
        return int(text.partition("\nUmask:")[2].split(maxsplit=1)[0], 8)
    except (OSError, LookupError, ValueError):  # not Linux, or older than 4.7
        return 0o022


if sys.platform != "win32":  # pragma: no branch - coverage is not measured on Windows
    import resource

    def _is_root() -> bool:
        return os.geteuid() == 0

    def _most_files() -> int | None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return None if limit == resource.RLIM_INFINITY else limit

else:  # pragma: no cover - Windows

    def _is_root() -> bool:
        return False

    def _most_files() -> int | None:
        return None
