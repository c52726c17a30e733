"""A real control group with limits, and a process in it that reads itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUPS = Path("/sys/fs/cgroup")
MIB = 1 << 20

MEMORY = {"memory.limit_in_bytes": f"{128 * MIB}", "memory.max": f"{128 * MIB}"}
CPU = {"cpu.cfs_quota_us": "25000", "cpu.max": "25000 100000"}

MEMBER = """
import json, time
from dataclasses import asdict
from mtaio._internal.cgroup import Cgroup
from mtaio.monitoring._system import SystemReader

reader = SystemReader(Cgroup.find())
host = SystemReader()
before = reader.read().memory
block = bytearray(b"x") * (32 << 20)
memory = reader.read().memory
cpu, give_up = [], time.monotonic() + 50
while not (cpu and cpu[-1]["throttled_ratio"]) and time.monotonic() < give_up:
    reader.prime()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    cpu.append(asdict(reader.read().cpu))
print(json.dumps({
    "grown": memory.used - before.used,
    "memory": asdict(memory),
    "cpu": cpu[-1],
    "host": [asdict(host.read().cpu), asdict(host.read().memory)],
}))
"""


@pytest.fixture
def folders() -> Iterator[list[Path]]:
    """Make groups with a limit of 128 MiB and a quota of a quarter of a processor."""
    if not CGROUPS.is_dir():
        pytest.skip("this system has no control groups")
    name = f"mtaio-test-{os.getpid()}"
    version_1 = (CGROUPS / "memory").is_dir()
    homes = [CGROUPS / each for each in ("memory", "cpu", "cpuacct")] if version_1 else [CGROUPS]
    made: list[Path] = []
    try:
        try:
            for home in dict.fromkeys(home.resolve() for home in homes):
                (home / name).mkdir()
                made.append(home / name)
            for file, text in (MEMORY | CPU).items():
                if file.startswith(("memory.limit", "cpu.cfs")) == version_1:
                    limited = [folder for folder in made if (folder / file).exists()]
                    if not limited:
                        pytest.skip(f"no {file} in {made}: the controller is not enabled")
                    limited[0].joinpath(file).write_text(text)
        except OSError as error:
            pytest.skip(f"control groups cannot be made here: {error}")
        yield made
    finally:
        for folder in made:
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a group, of which the last process may not have gone quite."""
    for _ in range(100):
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return
    folder.rmdir()


JOIN = 'for each; do echo $$ > "$each/cgroup.procs" || exit; done; exec $RUN'


@pytest.mark.parametrize("namespace", ["of the host", "its own"])
def test_process_reads_the_limits_of_its_group(
    folders: list[Path], namespace: str, tmp_path: Path
) -> None:
    """In a real group, limits, usage and throttling are those of the group."""
    unshare = shutil.which("unshare") if namespace == "its own" else ""
    if unshare is None:
        pytest.skip("there is no unshare here, to make a namespace with")
    prefix = f"{unshare} --cgroup " if unshare else ""
    program = tmp_path / "member.py"
    program.write_text(MEMBER, encoding="utf-8")
    run = subprocess.run(  # noqa: S603 - this very Python
        ["/bin/sh", "-c", JOIN, "sh", *map(str, folders)],
        env=os.environ | {"RUN": f"{prefix}{sys.executable} {program}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=100,
    )
    seen = json.loads(run.stdout)
    memory, cpu = seen["memory"], seen["cpu"]
    assert (memory["total"], memory["source"]) == (128 * MIB, "cgroup")
    assert 31 * MIB <= seen["grown"] <= 40 * MIB
    assert memory["available"] == 128 * MIB - memory["used"]
    assert memory["percent"] == pytest.approx(100 * memory["used"] / (128 * MIB))
    assert (cpu["limit"], cpu["source"]) == (0.25, "cgroup")
    assert 0 < cpu["throttled_ratio"] <= 1
    assert cpu["usage_percent"] == pytest.approx(min(100.0, 4 * cpu["process_percent"]), rel=0.2)
    assert [each["source"] for each in seen["host"]] == ["host", "host"]
    assert seen["host"][1]["total"] > 128 * MIB
