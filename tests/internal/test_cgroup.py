"""Which limits a process finds, from trees of files such as the kernel makes."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtaio._internal.cgroup import Cgroup, CPUGroup, CPUUse, MemoryGroup

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="only Linux has such paths: a colon, a backslash, bytes"
)

MIB = 1 << 20
NO_LIMIT = 9223372036854771712  # what version 1 writes: the most pages that it can count


def grow(root: Path, files: Mapping[str, str]) -> None:
    """Write files below ``root``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


def proc(cgroup: str, mountinfo: str) -> dict[str, str]:
    """Return what the kernel says of a process."""
    return {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo}


def v2(folder: str, *, limit: object = "max", used: int = 0, quota: str = "max") -> dict[str, str]:
    """Return the files of a group of version 2."""
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{used + 5}\n",
        f"{folder}/memory.stat": "anon 7\nfile 8\nslab_inactive_file 9\ninactive_file 5\n",
        f"{folder}/cpu.max": f"{quota} 100000\n",
        f"{folder}/cpu.stat": "usage_usec 1500000\nuser_usec 1\nnr_periods 8\nnr_throttled 2\n",
    }


def v1_memory(folder: str, *, limit: int = NO_LIMIT, used: int = 0) -> dict[str, str]:
    """Return the files of a group of version 1's memory controller."""
    return {
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": f"{used + 5}\n",
        f"{folder}/memory.stat": "cache 7\ninactive_file 3\ntotal_inactive_file 5\n",
    }


def v1_cpu(folder: str, *, quota: int = -1) -> dict[str, str]:
    """Return the files of a group of version 1's cpu controller."""
    return {
        f"{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"{folder}/cpu.cfs_period_us": "100000\n",
        f"{folder}/cpu.stat": "nr_periods 8\nnr_throttled 2\nthrottled_time 77\n",
    }


def v1_accounting(folder: str) -> dict[str, str]:
    """Return the files of a group of version 1's cpuacct controller."""
    return {f"{folder}/cpuacct.usage": "1500000000\n"}


V2 = "30 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
USE = CPUUse(1.5, 8, 2)


def memory(root: Path) -> tuple[int, int | None] | None:
    """Return the limit that is found in a tree, and how much of it is used."""
    found = Cgroup.find(root)
    assert found is not None
    limit = found.memory_limit()
    return None if limit is None else (limit[0], limit[1].used())


def cpu(root: Path) -> tuple[float, CPUUse | None] | None:
    """Return the quota that is found in a tree, and how much was used."""
    found = Cgroup.find(root)
    assert found is not None
    quota = found.cpu_quota()
    return None if quota is None else (quota[0], quota[1].use())


def test_version_2_in_a_namespace_of_its_own(tmp_path: Path) -> None:
    """A container that sees itself as the root finds its limits at the mount point."""
    grow(tmp_path, proc("0::/\n", V2))
    grow(tmp_path, v2("sys/fs/cgroup", limit=64 * MIB, used=16 * MIB, quota="150000"))
    assert memory(tmp_path) == (64 * MIB, 16 * MIB)
    assert cpu(tmp_path) == (1.5, USE)


def test_version_2_in_the_namespace_of_the_host(tmp_path: Path) -> None:
    """A process that sees the whole tree finds its own group by its path."""
    grow(tmp_path, proc("0::/system.slice/app.service\n", V2))
    grow(tmp_path, {"sys/fs/cgroup/cgroup.procs": "", "sys/fs/cgroup/cpu.stat": "usage_usec 9\n"})
    grow(tmp_path, v2("sys/fs/cgroup/system.slice"))
    grow(tmp_path, v2("sys/fs/cgroup/system.slice/app.service", limit=9, used=4, quota="50000"))
    assert memory(tmp_path) == (9, 4)
    assert cpu(tmp_path) == (0.5, USE)


def test_limits_of_groups_around_count(tmp_path: Path) -> None:
    """The lowest limit on the way outwards counts, with the usage of the group that has it."""
    grow(tmp_path, proc("0::/a/b/c\n", V2))
    grow(tmp_path, v2("sys/fs/cgroup/a", limit=800, used=700, quota="300000"))
    grow(tmp_path, v2("sys/fs/cgroup/a/b", limit=500, used=400, quota="100000"))
    grow(tmp_path, v2("sys/fs/cgroup/a/b/c", limit=900, used=100, quota="200000"))
    assert memory(tmp_path) == (500, 400)
    assert cpu(tmp_path) == (1.0, USE)


def test_of_equal_limits_the_outermost_counts(tmp_path: Path) -> None:
    """Of two equal limits, that of the outer group counts, which is full first."""
    grow(tmp_path, proc("0::/pod/app\n", V2))
    grow(tmp_path, v2("sys/fs/cgroup/pod", limit=500, used=400))
    grow(tmp_path, v2("sys/fs/cgroup/pod/app", limit=500, used=100))
    assert memory(tmp_path) == (500, 400)


def test_no_limit_in_version_2(tmp_path: Path) -> None:
    """Groups whose limits are "max" have none."""
    grow(tmp_path, proc("0::/a\n", V2))
    grow(tmp_path, v2("sys/fs/cgroup/a"))
    assert memory(tmp_path) is None
    assert cpu(tmp_path) is None


DOCKER = "/docker/0123abc"
V1_DOCKER = f"""\
1 0 0:1 / / rw - overlay overlay rw,lowerdir=/var/lib/docker - x
32 31 0:29 {DOCKER} /sys/fs/cgroup/systemd ro shared:9 - cgroup cgroup rw,xattr,name=systemd
33 31 0:30 {DOCKER} /sys/fs/cgroup/cpu,cpuacct ro master:12 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 {DOCKER} /sys/fs/cgroup/memory ro shared:9 master:13 - cgroup cg rw,memory
"""
V1_GROUPS = f"9:name=systemd:{DOCKER}\n5:cpu,cpuacct:{DOCKER}\n4:memory:{DOCKER}\n0::{DOCKER}\n"


def test_version_1_bind_mounted(tmp_path: Path) -> None:
    """In a container of version 1 the mount points are its own group, under its path outside."""
    grow(tmp_path, proc(V1_GROUPS, V1_DOCKER))
    grow(tmp_path, v1_memory("sys/fs/cgroup/memory", limit=64 * MIB, used=9))
    grow(tmp_path, v1_cpu("sys/fs/cgroup/cpu,cpuacct", quota=25_000))
    grow(tmp_path, v1_accounting("sys/fs/cgroup/cpu,cpuacct"))
    assert memory(tmp_path) == (64 * MIB, 9)
    assert cpu(tmp_path) == (0.25, USE)


def test_version_1_nested_in_a_bind_mount(tmp_path: Path) -> None:
    """A group that was made inside such a container is found below the mount point."""
    grow(tmp_path, proc(V1_GROUPS.replace(DOCKER, f"{DOCKER}/docker/inner"), V1_DOCKER))
    grow(tmp_path, v1_memory("sys/fs/cgroup/memory", limit=64, used=9))
    grow(tmp_path, v1_memory("sys/fs/cgroup/memory/docker/inner", limit=32, used=8))
    assert memory(tmp_path) == (32, 8)


def test_version_1_knows_limits_that_are_not_seen(tmp_path: Path) -> None:
    """The limit of a group around the container counts, though its folder is not mounted."""
    grow(tmp_path, proc(V1_GROUPS, V1_DOCKER))
    grow(tmp_path, v1_memory("sys/fs/cgroup/memory", limit=64 * MIB, used=9))
    stat = tmp_path / "sys/fs/cgroup/memory/memory.stat"
    stat.write_text(f"{stat.read_text()}hierarchical_memory_limit {32 * MIB}\n")
    assert memory(tmp_path) == (32 * MIB, 9)
    stat.write_text(f"hierarchical_memory_limit {NO_LIMIT}\n")
    assert memory(tmp_path) == (64 * MIB, 14)


V1_HOST = """\
41 31 0:38 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
42 31 0:39 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
43 31 0:40 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct
"""


def test_version_1_without_a_limit(tmp_path: Path) -> None:
    """A quota of -1 is none; a limit of memory beyond any memory is left to the reader."""
    grow(tmp_path, proc("4:memory:/a\n2:cpuacct:/\n1:cpu:/\n", V1_HOST))
    grow(tmp_path, v1_memory("sys/fs/cgroup/memory/a", used=3))
    grow(tmp_path, v1_cpu("sys/fs/cgroup/cpu"))
    assert memory(tmp_path) == (NO_LIMIT, 3)
    assert cpu(tmp_path) is None


def test_version_1_accounting_in_a_hierarchy_of_its_own(tmp_path: Path) -> None:
    """Time is counted in the folder of the same path, where cpu and cpuacct are mounted apart."""
    grow(tmp_path, proc("2:cpuacct:/a/b\n1:cpu:/a/b\n", V1_HOST))
    grow(tmp_path, v1_cpu("sys/fs/cgroup/cpu/a", quota=50_000))
    grow(tmp_path, v1_cpu("sys/fs/cgroup/cpu/a/b"))
    grow(tmp_path, v1_accounting("sys/fs/cgroup/cpuacct/a"))
    assert cpu(tmp_path) == (0.5, USE)


@pytest.mark.parametrize(
    ("groups", "mounts"),
    [
        ("2:cpuacct:/other\n1:cpu:/a\n", V1_HOST),
        ("1:cpu:/a\n", V1_HOST),
        ("2:cpuacct:/a\n1:cpu:/a\n", V1_HOST.replace("/ /sys/fs/cgroup/cpuacct", "/a /acct")),
        ("2:cpuacct:/a\n1:cpu:/a\n", V1_HOST.replace("rw,cpuacct", "rw,pids")),
    ],
    ids=["another group", "not counted", "another part of the tree", "not mounted"],
)
def test_version_1_time_of_other_groups_does_not_count(
    tmp_path: Path, groups: str, mounts: str
) -> None:
    """Where time is not counted for the very group with the quota, its use is unknown."""
    grow(tmp_path, proc(groups, mounts))
    grow(tmp_path, v1_cpu("sys/fs/cgroup/cpu/a", quota=50_000))
    for folder in ("sys/fs/cgroup/cpuacct/a", "sys/fs/cgroup/cpuacct/other", "acct"):
        grow(tmp_path, v1_accounting(folder))
    assert cpu(tmp_path) == (0.5, None)


def test_hybrid(tmp_path: Path) -> None:
    """Where both versions are mounted, each controller is read in the one that it belongs to."""
    mounts = """\
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
42 31 0:39 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
"""
    grow(tmp_path, proc("4:memory:/m\n0::/u\n", mounts))
    grow(tmp_path, v1_memory("sys/fs/cgroup/memory/m", limit=70, used=7))
    grow(tmp_path, v2("sys/fs/cgroup/unified/u", limit=9, quota="20000"))
    assert memory(tmp_path) == (70, 7)
    assert cpu(tmp_path) == (0.2, USE)


def test_blanks_and_colons_in_paths(tmp_path: Path) -> None:
    """Paths with blanks, tabs, backslashes, colons and bytes that are no UTF-8 are found."""
    mount = rb"30 23 0:27 /my\040pod /sys/fs/cg\040r\011o\134up\351 rw - cgroup2 none rw" + b"\n"
    folder = b"sys/fs/cg r\to\\up\xe9".decode(errors="surrogateescape")
    grow(tmp_path, v2("spare", limit=55, used=5))
    (tmp_path / folder / "a:b").mkdir(parents=True)
    for file in (tmp_path / "spare").iterdir():
        shutil.copy(file, tmp_path / folder / "a:b")
    grow(tmp_path, proc("0::/my pod/a:b\n", ""))
    (tmp_path / "proc/self/mountinfo").write_bytes(mount)
    assert memory(tmp_path) == (55, 5)


ABOVE = V2.replace("0:27 / ", "0:27 /../.. ")


@pytest.mark.parametrize("inside", ["", "/a [b]/c"])
def test_mount_from_outside_the_namespace(tmp_path: Path, inside: str) -> None:
    """Below a mount of groups around the namespace's root, our own is found by its processes."""
    grow(tmp_path, proc(f"0::{inside or '/'}\n", ABOVE))
    top = "sys/fs/cgroup"
    grow(tmp_path, v2(f"{top}/pod", limit=60, used=50))
    for name, processes in (("mine", f"1\n{os.getpid()}\n9\n"), ("other", "2\n3\n")):
        grow(tmp_path, v2(f"{top}/pod/{name}{inside}", limit=len(name) * 10, used=9))
        grow(tmp_path, {f"{top}/pod/{name}{inside}/cgroup.procs": processes})
    grow(tmp_path, {f"{top}/{os.getpid()}/cgroup.procs": f"{os.getpid()}\n"})
    (tmp_path / top / "pod/empty").mkdir()
    assert memory(tmp_path) == (40, 9)


def test_mount_from_outside_without_ourselves(tmp_path: Path) -> None:
    """Where our own group is not found there, the limits of those around are what is known."""
    grow(tmp_path, proc("0::/\n", ABOVE))
    grow(tmp_path, v2("sys/fs/cgroup", limit=77, used=7))
    assert memory(tmp_path) == (77, 7)


def test_mount_from_outside_that_cannot_be_searched(tmp_path: Path) -> None:
    """A search that fails finds nothing, and does not raise."""
    grow(tmp_path, proc("0::/\n", ABOVE.replace("/sys/fs/cgroup", "/sys\\000")))
    assert Cgroup.find(tmp_path) is None


def test_process_outside_its_namespace(tmp_path: Path) -> None:
    """A process above its namespace's root is found in a mount from there, by the known names."""
    grow(tmp_path, proc("0::/../../x\n", ABOVE))
    grow(tmp_path, v2("sys/fs/cgroup/x", limit=77, used=7))
    assert memory(tmp_path) == (77, 7)


@pytest.mark.parametrize(
    ("path", "mounted"),
    [
        ("/../x", "/"),
        ("/", "/../other"),
        ("/../../x", "/.."),
        ("/docker/ab", "/docker/a"),
        ("/", "/docker/a"),
        ("", "/"),
    ],
)
def test_groups_of_others_do_not_count(tmp_path: Path, path: str, mounted: str) -> None:
    """A mount that does not hold the process's own group says nothing of it."""
    grow(tmp_path, proc(f"0::{path}\n", V2.replace("0:27 / ", f"0:27 {mounted} ")))
    for folder in ("sys/fs/cgroup", "sys/fs/x", "sys/fs/cgroup/x"):
        grow(tmp_path, v2(folder, limit=77))
    assert Cgroup.find(tmp_path) is None


def test_the_mount_that_shows_most(tmp_path: Path) -> None:
    """Of several mounts that hold the group, the one with the most groups around it is read."""
    mounts = [
        V2.replace("0:27 / /sys/fs/cgroup", "0:27 /.. /outer"),
        V2.replace("0:27 / /sys/fs/cgroup", "0:27 /pod/app /inner"),
        V2.replace("0:27 / /sys/fs/cgroup", "0:27 /pod /middle"),
        V2.replace("0:27 / /sys/fs/cgroup", "0:27 / /gone"),
    ]
    grow(tmp_path, proc("0::/pod/app\n", "".join(mounts)))
    for folder, limit in (("outer", 1), ("inner", 60), ("middle", 50), ("middle/app", 60)):
        grow(tmp_path, v2(folder, limit=limit))
    assert memory(tmp_path) == (50, 0)


def test_a_later_mount_hides_an_earlier_one(tmp_path: Path) -> None:
    """Of two mounts at one point, the later is what is there."""
    grow(tmp_path, proc("0::/\n", V2 + V2.replace("0:27 / ", "0:27 /../other ")))
    grow(tmp_path, v2("sys/fs/cgroup", limit=77))
    assert Cgroup.find(tmp_path) is None


def test_deleted_group(tmp_path: Path) -> None:
    """Of a group that was removed under its processes, the groups around are left."""
    grow(tmp_path, proc("0::/a/b (deleted)\n", V2))
    grow(tmp_path, v2("sys/fs/cgroup/a", limit=77, used=7))
    assert memory(tmp_path) == (77, 7)


@pytest.mark.parametrize(
    ("groups", "mounts"),
    [
        ("", ""),
        ("0::/\n", "1 0 0:1 / / rw - overlay overlay rw\n"),
        ("4:memory:/\n", V2),
        ("0::/\n", V1_HOST),
        ("rubbish\n\n0:\n", "rubbish\n - \n1 2 - cgroup2 x y\n30 23 0:27 / /sys - cgroup2\n"),
    ],
    ids=["empty", "not mounted", "only version 1", "only version 2", "rubbish"],
)
def test_nothing_to_find(tmp_path: Path, groups: str, mounts: str) -> None:
    """Where the process is in no group that is mounted, none is found."""
    grow(tmp_path, proc(groups, mounts))
    grow(tmp_path, v2("sys/fs/cgroup", limit=77))
    assert Cgroup.find(tmp_path) is None


def test_no_proc(tmp_path: Path) -> None:
    """Where there is no /proc, as on other systems, there are no groups."""
    assert Cgroup.find(tmp_path) is None
    grow(tmp_path, {"proc/self/cgroup": "0::/\n"})
    assert Cgroup.find(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "max\n", "-1\n", "0\n", "lots\n", "12 13\n", "9" * 5000, "\0"], ids=ascii
)
def test_limit_of_memory_that_makes_no_sense(tmp_path: Path, text: str) -> None:
    """What is no positive number is no limit."""
    grow(tmp_path, {"memory.max": text})
    assert MemoryGroup(tmp_path, version=2).limit() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "max 100000\n",
        "max\n",
        "100000\n",
        "-1 100000\n",
        "0 100000\n",
        "100000 0\n",
        "100000 -1\n",
        "fast 1\n",
        "9" * 400 + " 1\n",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_quota_that_makes_no_sense(tmp_path: Path, text: str) -> None:
    """What is no positive ratio is no quota."""
    grow(tmp_path, {"cpu.max": text})
    assert CPUGroup(tmp_path, version=2).quota() is None


@pytest.mark.parametrize(
    ("stat", "used"),
    [
        ("inactive_file 30\n", 70),
        ("inactive_file 300\n", 0),
        ("inactive_file\n", 100),
        ("inactive_file many\n", 100),
        ("anon 3\n", 100),
        ("", 100),
        (None, 100),
    ],
    ids=ascii,
)
def test_memory_that_can_be_reclaimed(tmp_path: Path, stat: str | None, used: int) -> None:
    """Inactive file pages do not count as used, as far as they are known."""
    grow(tmp_path, {"memory.current": "100\n"} | ({} if stat is None else {"memory.stat": stat}))
    assert MemoryGroup(tmp_path, version=2).used() == used


@pytest.mark.parametrize("text", [None, "", "much\n"], ids=ascii)
def test_usage_of_memory_unknown(tmp_path: Path, text: str | None) -> None:
    """Usage that cannot be read is unknown."""
    grow(tmp_path, {} if text is None else {"memory.current": text})
    assert MemoryGroup(tmp_path, version=2).used() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "usage_usec 5\n",
        "usage_usec x\nnr_periods 1\nnr_throttled 0\n",
        "usage_usec " + "9" * 400 + "\nnr_periods 1\nnr_throttled 0\n",
        "nr_periods 1\nnr_throttled 0\nusage_usec",
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_use_of_processors_unknown(tmp_path: Path, text: str) -> None:
    """Use that cannot be read is unknown."""
    grow(tmp_path, {"cpu.stat": text})
    assert CPUGroup(tmp_path, version=2).use() is None


def test_groups_that_vanish_and_change(tmp_path: Path) -> None:
    """Changed limits show; a group that is removed has none."""
    grow(tmp_path, proc("0::/a\n", V2))
    grow(tmp_path, v2("sys/fs/cgroup/a", limit=50, quota="50000"))
    found = Cgroup.find(tmp_path)
    assert found is not None
    limit, quota = found.memory_limit(), found.cpu_quota()
    assert limit is not None
    assert quota is not None
    grow(tmp_path, v2("sys/fs/cgroup/a", limit=80, quota="80000"))
    assert found.memory_limit() == (80, limit[1])
    assert found.cpu_quota() == (0.8, quota[1])
    shutil.rmtree(tmp_path / "sys/fs/cgroup/a")
    assert found.memory_limit() is None
    assert found.cpu_quota() is None
    assert limit[1].used() is None
    assert quota[1].use() is None


LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                b"0::/",
                b"0::/../a",
                b"4:memory:/a",
                b"1:cpu,cpuacct:/..",
                b"30 23 0:27 / /cg rw - cgroup2 cgroup2 rw",
                b"30 23 0:27 /.. /cg rw x:1 - cgroup cgroup rw,cpu,cpuacct",
                b"30 23 0:27 /../.. /cg\\040\\000 rw - cgroup cgroup rw,memory",
                b"max 100000",
                b"-1",
                b"9223372036854771712",
                b"inactive_file 3 nr_periods 5 nr_throttled 3 usage_usec 4",
            ]
        ),
    ),
    max_size=4,
).map(b"\n".join)
FILES = [
    "proc/self/cgroup",
    "proc/self/mountinfo",
    *(f"cg{folder}/{file}" for folder in ("", "/a") for file in (*v2(""), "cgroup.procs")),
    *(f"cg/{file}" for file in (*v1_memory(""), *v1_cpu(""), *v1_accounting(""))),
]


@given(texts=st.lists(LINES, min_size=len(FILES), max_size=len(FILES)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_nothing_raises(tmp_path: Path, texts: list[bytes]) -> None:
    """Whatever the files say, what is found is a positive limit or none."""
    for name, text in zip(FILES, texts, strict=True):
        path = tmp_path / name.replace("//", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    found = Cgroup.find(tmp_path)
    limit = None if found is None else found.memory_limit()
    quota = None if found is None else found.cpu_quota()
    if limit is not None:
        assert limit[0] > 0
        assert (limit[1].used() or 0) >= 0
    if quota is not None:
        assert quota[0] > 0
        quota[1].use()
