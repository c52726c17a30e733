"""What a `SystemReader` makes of counters that are given to it, on a clock that is given too."""

from __future__ import annotations

import errno
import gc
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest

from mtaio._internal.cgroup import Cgroup, CPUGroup, MemoryGroup
from mtaio.monitoring._system import SystemReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GIB = 1 << 30


class Times(NamedTuple):
    """What psutil counts, in seconds."""

    user: float = 0.0
    nice: float = 0.0
    system: float = 0.0
    idle: float = 0.0
    iowait: float = 0.0
    steal: float = 0.0
    guest: float = 0.0
    guest_nice: float = 0.0


class Few(NamedTuple):
    """What psutil counts elsewhere."""

    user: float
    system: float
    idle: float


class Memory(NamedTuple):
    """What psutil says of memory, in bytes."""

    total: int
    available: int


class Machine:
    """A host with four processors and 16 GiB of memory, of which a test sets the counters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1000.0
        self.times: Any = Times(user=200.0, idle=600.0)
        self.process = 3.0
        self.memory = Memory(16 * GIB, 4 * GIB)

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def group(self, *, cpu: int | None = None, memory: int | None = None) -> Cgroup:
        """Return control groups with a quota, in thousandths of a processor, and a limit."""
        (self.folder / "cpu.max").write_text(f"{'max' if cpu is None else cpu} 1000\n")
        (self.folder / "memory.max").write_text(f"{'max' if memory is None else memory}\n")
        return Cgroup((MemoryGroup(self.folder, version=2),), (CPUGroup(self.folder, version=2),))

    def use(self, seconds: float, *, periods: int = 0, throttled: int = 0) -> None:
        """Let the group have used so much since it was made."""
        (self.folder / "cpu.stat").write_text(
            f"usage_usec {round(seconds * 1e6)}\nnr_periods {periods}\nnr_throttled {throttled}\n"
        )

    def hold(self, usage: int, *, inactive: int = 0) -> None:
        """Let the group hold so many bytes."""
        (self.folder / "memory.current").write_text(f"{usage}\n")
        (self.folder / "memory.stat").write_text(f"inactive_file {inactive}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine whose counters psutil reads."""
    machine = Machine(tmp_path)
    monkeypatch.setattr(psutil, "cpu_times", lambda: machine.times)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine.memory)
    monkeypatch.setattr(time, "process_time", lambda: machine.process)
    return machine


def test_processor_time_is_measured_from_read_to_read(machine: Machine) -> None:
    """Shares are of the time since the last read."""
    reader = SystemReader(clock=machine.clock)
    reader.prime()
    machine.now += 2.0
    machine.times = Times(user=205.0, idle=603.0)
    machine.process += 3.0
    cpu = reader.read().cpu
    assert (cpu.usage_percent, cpu.process_percent) == (62.5, 150.0)
    assert (cpu.source, cpu.limit, cpu.throttled_ratio) == ("host", None, None)
    machine.now += 1.0
    machine.times = Times(user=206.0, idle=606.0)
    cpu = reader.read().cpu
    assert (cpu.usage_percent, cpu.process_percent) == (25.0, 0.0)


def test_waiting_for_storage_is_idle_and_guests_count_once(machine: Machine) -> None:
    """What is busy is what psutil says: not iowait, and guests within user and nice."""
    machine.times = Times(idle=100.0)
    reader = SystemReader(clock=machine.clock)
    machine.now += 1.0
    machine.times = Times(1.0, 2.0, 3.0, 100.0 + 4.0, 5.0, 6.0, 0.5, 1.5)
    assert reader.read().cpu.usage_percent == pytest.approx(100 * 12 / 21)


def test_systems_that_count_less(machine: Machine) -> None:
    """A system that has no iowait and no guests needs none."""
    machine.times = Few(1.0, 1.0, 2.0)
    reader = SystemReader(clock=machine.clock)
    machine.now += 1.0
    machine.times = Few(2.0, 2.0, 4.0)
    assert reader.read().cpu.usage_percent == 50.0


def test_before_anything_is_measured(machine: Machine) -> None:
    """Until then, shares are averages since the host and the process were started."""
    reader = SystemReader(clock=machine.clock)
    assert not reader.ready()
    assert reader.read().cpu.usage_percent == 25.0
    uptime = reader.uptime()
    assert reader.read().cpu.process_percent == pytest.approx(300 / max(uptime, 0.05))
    machine.now += 0.049
    assert not reader.ready()
    machine.now += 0.002
    assert reader.ready()


def test_a_read_too_soon_repeats_the_last_figure(machine: Machine) -> None:
    """Within 50 ms no share is measured, and the time is not lost to the next."""
    reader = SystemReader(clock=machine.clock)
    machine.now += 1.0
    machine.times = Times(user=201.0, idle=603.0)
    assert reader.read().cpu.usage_percent == 25.0
    for tick in range(1, 5):
        machine.now += 0.01
        machine.times = Times(user=201.0 + tick / 100, idle=603.0)
        assert reader.read().cpu.usage_percent == 25.0
    assert reader.ready()
    machine.now += 0.02
    machine.times = Times(user=201.06, idle=603.18)
    assert reader.read().cpu.usage_percent == pytest.approx(25.0)
    reader.prime()
    assert not reader.ready()


@pytest.mark.parametrize(
    "times",
    [
        Times(user=201.0, idle=603.0),
        Times(user=3.0, idle=900.0),
        Times(user=900.0, idle=3.0),
        Times(user=1.0, idle=3.0),
    ],
    ids=["no tick", "busy went back", "idle went back", "both went back"],
)
def test_counters_that_say_nothing(machine: Machine, times: Times) -> None:
    """Counters that stood still or went back, as after a migration, leave the last figure."""
    reader = SystemReader(clock=machine.clock)
    machine.now += 1.0
    machine.times = Times(user=201.0, idle=603.0)
    assert reader.read().cpu.usage_percent == 25.0
    machine.now += 1.0
    machine.times = times
    assert reader.read().cpu.usage_percent == 25.0
    machine.now += 1.0
    machine.times = times._replace(user=times.user + 2.0, idle=times.idle + 2.0)
    assert reader.read().cpu.usage_percent == 50.0


def test_idle_time_that_goes_back_by_a_tick(machine: Machine) -> None:
    """Linux counts iowait loosely; a busy host is busy all the same."""
    reader = SystemReader(clock=machine.clock)
    machine.now += 1.0
    machine.times = Times(user=204.0, idle=599.99)
    assert reader.read().cpu.usage_percent == 100.0


def test_a_host_that_counts_nothing(machine: Machine) -> None:
    """A sandbox whose counters are all 0 has a usage of 0."""
    machine.times = Times()
    reader = SystemReader(clock=machine.clock)
    assert reader.read().cpu.usage_percent == 0.0
    machine.now += 1.0
    assert reader.read().cpu.usage_percent == 0.0
    assert reader.ready()


def test_quota_of_the_container(machine: Machine) -> None:
    """With a quota, usage is the group's share of it, with how often it ran out."""
    machine.use(10.0, periods=100, throttled=50)
    reader = SystemReader(machine.group(cpu=500), clock=machine.clock)
    cpu = reader.read().cpu
    assert (cpu.limit, cpu.source, cpu.throttled_ratio) == (0.5, "cgroup", 0.5)
    assert cpu.usage_percent == pytest.approx(min(100.0, 2 * cpu.process_percent))
    machine.now += 2.0
    machine.use(10.25, periods=120, throttled=55)
    cpu = reader.read().cpu
    assert (cpu.usage_percent, cpu.throttled_ratio) == (25.0, 0.25)
    machine.now += 2.0
    machine.use(13.0, periods=120, throttled=55)
    cpu = reader.read().cpu
    assert (cpu.usage_percent, cpu.throttled_ratio) == (100.0, 0.0)


def test_quota_of_more_than_the_host_has(machine: Machine) -> None:
    """A quota that can never be used up is told, while usage is the host's."""
    machine.use(10.0)
    reader = SystemReader(machine.group(cpu=4000), clock=machine.clock)
    machine.now += 1.0
    machine.times = Times(user=201.0, idle=603.0)
    machine.use(11.0, periods=10, throttled=1)
    cpu = reader.read().cpu
    assert (cpu.usage_percent, cpu.limit, cpu.source) == (25.0, 4.0, "host")
    assert cpu.throttled_ratio == 0.1


def test_counters_of_a_group_that_go_back(machine: Machine) -> None:
    """A group that was made again under the same name counts from 0: the last figure stays."""
    machine.use(10.0, periods=100, throttled=50)
    reader = SystemReader(machine.group(cpu=1000), clock=machine.clock)
    machine.now += 1.0
    machine.use(10.5, periods=110, throttled=55)
    assert reader.read().cpu.usage_percent == 50.0
    machine.now += 1.0
    machine.use(0.0)
    cpu = reader.read().cpu
    assert (cpu.usage_percent, cpu.source, cpu.throttled_ratio) == (50.0, "cgroup", 0.0)
    machine.now += 1.0
    machine.use(0.25)
    assert reader.read().cpu.usage_percent == 25.0


def test_quota_that_comes_and_goes(machine: Machine) -> None:
    """A changed quota is noticed within five reads; figures and their source stay together."""
    machine.use(10.0, periods=100, throttled=50)
    group = machine.group()
    reader = SystemReader(group, clock=machine.clock)
    seen: list[tuple[float, float | None, str]] = []

    def read(count: int) -> None:
        for _ in range(count):
            machine.now += 1.0
            machine.times = machine.times._replace(
                user=machine.times.user + 3.0, idle=machine.times.idle + 1.0
            )
            machine.use(machine.now - 900.0, periods=int(machine.now), throttled=0)
            cpu = reader.read().cpu
            seen.append((cpu.usage_percent, cpu.limit, cpu.source))

    read(1)
    machine.group(cpu=2000)
    read(5)
    machine.group()
    read(5)
    host, kept, group_, late = (
        (75.0, None, "host"),
        (75.0, 2.0, "host"),
        (50.0, 2.0, "cgroup"),
        (50.0, None, "cgroup"),
    )
    assert seen == [host] * 4 + [kept] + [group_] * 4 + [late] + [host]


def test_quota_that_moves_to_another_group(machine: Machine, tmp_path: Path) -> None:
    """When another group has the lowest quota, what the two have used is not compared."""
    machine.use(10.0)
    machine.group(cpu=2000)
    (tmp_path / "inner").mkdir()
    inner = Machine(tmp_path / "inner")
    inner.use(3.0)
    inner.group(cpu=1000)
    folders = (inner.folder, machine.folder)
    groups = Cgroup((), tuple(CPUGroup(folder, version=2) for folder in folders))
    reader = SystemReader(groups, clock=machine.clock)
    usage: list[float] = []
    for second in range(1, 7):
        machine.now += 1.0
        machine.use(10.0 + second)
        inner.use(3.0 + second * 0.25)
        inner.group(cpu=3000)
        usage.append(reader.read().cpu.usage_percent)
    assert usage == [25.0] * 5 + [50.0]


def test_group_that_vanishes(machine: Machine) -> None:
    """A group that can no longer be read leaves the host's figures."""
    machine.use(10.0)
    machine.hold(3 * GIB)
    reader = SystemReader(machine.group(cpu=1000, memory=4 * GIB), clock=machine.clock)
    for file in machine.folder.iterdir():
        file.unlink()
    reading = reader.read()
    for _ in range(5):
        machine.now += 1.0
        machine.times = machine.times._replace(idle=machine.times.idle + 4.0)
        reading = reader.read()
    assert (reading.cpu.usage_percent, reading.cpu.source) == (0.0, "host")
    assert (reading.cpu.limit, reading.cpu.throttled_ratio) == (None, None)
    assert (reading.memory.total, reading.memory.source) == (16 * GIB, "host")


def test_memory_of_the_host(machine: Machine) -> None:
    """Without a limit, memory is the host's, and used is all that is not available."""
    memory = SystemReader().read().memory
    assert (memory.total, memory.available, memory.used) == (16 * GIB, 4 * GIB, 12 * GIB)
    assert (memory.percent, memory.source) == (75.0, "host")
    assert machine.memory.total == memory.total


def test_memory_of_the_container(machine: Machine) -> None:
    """With a limit, memory is the container's, without the pages that are easily reclaimed."""
    machine.hold(3 * GIB, inactive=GIB)
    memory = SystemReader(machine.group(memory=8 * GIB)).read().memory
    assert (memory.total, memory.available, memory.used) == (8 * GIB, 6 * GIB, 2 * GIB)
    assert (memory.percent, memory.source) == (25.0, "cgroup")


@pytest.mark.parametrize("limit", [16 * GIB, 9223372036854771712, None])
def test_limit_of_no_less_than_the_host_has(machine: Machine, limit: int | None) -> None:
    """A limit that the host's memory cannot reach is none."""
    machine.hold(3 * GIB)
    memory = SystemReader(machine.group(memory=limit)).read().memory
    assert (memory.total, memory.source) == (16 * GIB, "host")


def test_more_memory_than_the_limit(machine: Machine) -> None:
    """A container over its limit, lowered a moment ago, is full."""
    machine.hold(3 * GIB)
    memory = SystemReader(machine.group(memory=2 * GIB)).read().memory
    assert (memory.available, memory.used, memory.percent) == (0, 3 * GIB, 100.0)


def test_memory_of_a_group_that_does_not_tell(machine: Machine) -> None:
    """A limit without a usage is of no use."""
    memory = SystemReader(machine.group(memory=2 * GIB)).read().memory
    assert (memory.total, memory.source) == (16 * GIB, "host")


LACKING: list[Mapping[str, object]] = [
    {"io_counters": None, "num_fds": None, "cpu_affinity": None},
    {"io_counters": psutil.AccessDenied(), "cpu_affinity": OSError(), "num_fds": OSError()},
]


@pytest.mark.parametrize("lacking", LACKING, ids=["not there", "refused"])
def test_what_a_system_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacking: Mapping[str, object]
) -> None:
    """What psutil has not on this system, or may not read, is None; the rest is there."""

    def refuse(error: Exception) -> Any:
        def method(_: object) -> None:
            raise error

        return method

    for name, error in lacking.items():
        if error is None:
            monkeypatch.delattr(psutil.Process, name, raising=False)
        elif isinstance(error, Exception):
            monkeypatch.setattr(psutil.Process, name, refuse(error), raising=False)
    reader = SystemReader(proc=tmp_path)
    reading = reader.read()
    for _ in range(5):
        reading = reader.read()
    assert (reading.io.read_bytes, reading.io.write_bytes) == (None, None)
    assert reading.process.open_files is None
    assert reading.cpu.count == psutil.cpu_count()
    assert reading.memory.rss > 0


def test_this_process() -> None:
    """Each figure of this process is one that it can have."""
    reader = SystemReader()
    before = reader.read()
    gc.collect()
    after = reader.read()
    assert after.process.gc_collections > before.process.gc_collections
    assert after.process.gc_collected >= before.process.gc_collected
    assert after.process.threads >= 1
    assert after.cpu.count >= 1
    assert reader.uptime() > 0
    if sys.platform != "win32":
        assert after.process.open_files is not None
        assert after.process.open_files > 2


def test_what_was_refused_once_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure that may not be read costs nothing more."""
    asked: list[int] = []

    def refuse(_: object) -> None:
        asked.append(1)
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "io_counters", refuse, raising=False)
    reader = SystemReader()
    assert reader.read().io == reader.read().io
    assert len(asked) <= 1  # psutil has none at all for BSD, and is not asked there


def test_where_psutil_alone_knows(tmp_path: Path) -> None:
    """Without Linux's /proc, the age and the open files of the process are psutil's."""
    ours, theirs = SystemReader(), SystemReader(proc=tmp_path)
    assert theirs.uptime() == pytest.approx(ours.uptime(), abs=2.0)
    if sys.platform != "win32":
        count = psutil.Process().num_fds()
        assert abs(count - (ours.read().process.open_files or 0)) <= 1
        assert abs(count - (theirs.read().process.open_files or 0)) <= 1


def test_where_linux_counts_open_files(tmp_path: Path) -> None:
    """Since Linux 6.2 the size of /proc/self/fd is the number of open files."""
    (tmp_path / "fd").mkdir()
    (tmp_path / "fd" / "0").touch()
    reader = SystemReader(proc=tmp_path)
    size = (tmp_path / "fd").stat().st_size
    assert reader.read().process.open_files == size or size == 0


def test_too_many_open_files(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that could open no file for a while has lost no figure and no limit after it."""
    io = SimpleNamespace(read_bytes=1, write_bytes=2)
    machine.hold(GIB)
    group = machine.group(memory=4 * GIB)
    full = False

    def answer(value: Any) -> Callable[..., Any]:
        def read(*_: object) -> Any:
            if full:
                raise OSError(errno.EMFILE, "Too many open files")
            return value

        return read

    monkeypatch.setattr(psutil.Process, "io_counters", answer(io), raising=False)
    monkeypatch.setattr(psutil.Process, "num_threads", answer(3))
    monkeypatch.setattr("mtaio._internal.cgroup._read", _read_unless(lambda: full))
    reader = SystemReader(group, clock=machine.clock)
    full = True
    for _ in range(4):
        assert reader.read().io.read_bytes is None
    with pytest.raises(OSError, match="Too many open files"):
        reader.read()
    full = False
    reading = reader.read()
    assert (reading.io.read_bytes, reading.io.write_bytes) == (1, 2)
    assert (reading.memory.total, reading.memory.source) == (4 * GIB, "cgroup")


def _read_unless(full: Callable[[], bool]) -> Callable[[str], bytes]:
    def read(path: str) -> bytes:
        if full():
            raise OSError(errno.EMFILE, "Too many open files")
        return Path(path).read_bytes()

    return read
