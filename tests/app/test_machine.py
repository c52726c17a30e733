"""What a machine allows, read from folders that stand for machines."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from mtaio.app._machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

MOUNT = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"


def machine(root: Path, files: dict[str, str]) -> Path:
    """Return a root with these files in it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def container(root: Path, *, cpu: str, memory: str) -> Path:
    """Return the root of a container with limits."""
    return machine(
        root,
        {
            ".dockerenv": "",
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": MOUNT,
            "proc/self/status": "Name:\tpython\nUmask:\t0077\nState:\tR (running)\n",
            "sys/fs/cgroup/cpu.max": f"{cpu}\n",
            "sys/fs/cgroup/memory.max": f"{memory}\n",
        },
    )


def test_limits_of_a_container(tmp_path: Path) -> None:
    """In a container its limits count, where they are lower than the machine's."""
    found = Machine.read({}, root=container(tmp_path, cpu="50000 100000", memory="268435456"))
    assert (found.processors, found.memory, found.umask) == (0.5, 268_435_456, 0o077)
    assert (found.container, found.supervisor) == (True, "docker")


def test_container_without_limits(tmp_path: Path) -> None:
    """Without limits, or with ones that the machine does not have, the machine's figures count."""
    total = psutil.virtual_memory().total
    found = Machine.read({}, root=container(tmp_path, cpu="max 100000", memory=str(total * 2)))
    assert found.processors >= 1
    assert found.memory == total


@pytest.mark.parametrize("status", [None, "Name:\tpython\n", "Umask:\n", "\nUmask:\tx\n"])
def test_machine_that_says_little(status: str | None, tmp_path: Path) -> None:
    """Where there are neither control groups nor a umask to read, the usual counts."""
    files = {} if status is None else {"proc/self/status": status}
    found = Machine.read({}, root=machine(tmp_path, files))
    assert (found.umask, found.container, found.supervisor) == (0o022, False, None)


@pytest.mark.parametrize(
    ("environ", "container", "supervisor"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True, "kubernetes"),
        ({"INVOCATION_ID": "0" * 32}, False, "systemd"),
        ({"container": "lxc"}, True, None),
    ],
)
def test_who_stops_the_service(
    environ: dict[str, str], *, container: bool, supervisor: str | None, tmp_path: Path
) -> None:
    """Variables say who started the process."""
    found = Machine.read(environ, root=tmp_path)
    assert (found.container, found.supervisor) == (container, supervisor)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither root nor this limit")
def test_limits_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of open files is the one in force, if there is one; root is user 0."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on Windows

    limit, infinity = resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.RLIM_INFINITY
    found = Machine.read({})
    assert found.open_files == (None if limit == infinity else limit)
    assert found.root == (os.geteuid() == 0)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (infinity, infinity))
    assert Machine.read({}).open_files is None


def test_processors_where_they_cannot_be_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an affinity, as on macOS, all processors count, or one if they are unknown."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert Machine.read({}).processors == 1
