"""The figures of a `SystemReader`, under a known load, beside psutil's and the kernel's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from mtaio.monitoring._system import SystemReader

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
PAUSE = 0.001


def spin(seconds: float) -> None:
    """Use so much processor time in this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def python(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )


def counted() -> tuple[float, float]:
    """Return the busy and the idle time of the host, as psutil counts them."""
    times: Any = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return sum(times) - idle - guests, idle


def test_processor_agrees_with_psutil() -> None:
    """Usage lies between what psutil counts a moment before and after the reader's own looks."""
    outer = counted()
    reader = SystemReader()
    inner = counted()
    spin(0.3)
    inner_end = counted()
    usage = reader.read().cpu.usage_percent
    outer_end = counted()
    least = inner_end[0] - inner[0], outer_end[1] - outer[1]
    most = outer_end[0] - outer[0], inner_end[1] - inner[1]
    slack = 100 * 0.03 / sum(least)  # iowait may go back by a tick
    assert 100 * least[0] / sum(least) - slack <= usage <= 100 * most[0] / sum(most) + slack
    assert usage > 0


def test_process_agrees_with_the_load() -> None:
    """A process's share is the time that it used, over the time that passed."""
    started, used = time.monotonic(), time.process_time()
    reader = SystemReader()
    started_inner, used_inner = time.monotonic(), time.process_time()
    spin(0.3)
    passed_inner, spent_inner = time.monotonic() - started_inner, time.process_time() - used_inner
    share = reader.read().cpu.process_percent
    passed, spent = time.monotonic() - started, time.process_time() - used
    assert 100 * spent_inner / passed <= share <= 100 * spent / passed_inner
    assert spent_inner >= 0.3


def test_first_read_is_no_noise() -> None:
    """Read at once by hundreds of readers, a share is the average, not 0 or 100."""
    busy, idle = counted()
    mean = 100 * busy / (busy + idle)
    for _ in range(300):
        reader = SystemReader()
        usage = reader.read().cpu.usage_percent
        if not reader.ready():  # else the machine stood still, and there was something to measure
            assert usage == pytest.approx(mean, abs=1.0)


def agrees(ours: Callable[[], float], theirs: Callable[[], float], within: float) -> bool:
    """Return whether two figures are seen to agree once, while others use the machine, too."""
    for _ in range(100):
        before, figure, after = theirs(), ours(), theirs()
        if min(before, after) - within <= figure <= max(before, after) + within:
            return True
        time.sleep(PAUSE)
    return False


def test_memory_agrees_with_psutil() -> None:
    """Memory is what psutil and the kernel say, before and after this process takes some."""
    reader = SystemReader()
    process = psutil.Process()

    def check() -> int:
        memory = reader.read().memory
        assert memory.total == psutil.virtual_memory().total
        assert agrees(
            lambda: reader.read().memory.available,
            lambda: psutil.virtual_memory().available,
            MIB,
        )
        assert agrees(
            lambda: reader.read().memory.percent, lambda: psutil.virtual_memory().percent, 0.06
        )
        assert agrees(lambda: reader.read().memory.rss, lambda: process.memory_info().rss, MIB)
        return memory.rss

    before = check()
    block = bytearray(b"x") * (64 * MIB)
    assert check() >= before + 60 * MIB
    del block


def test_threads_and_files_are_seen_within_five_reads() -> None:
    """What is read every fifth time shows a change by then."""
    reader = SystemReader()
    before = reader.read().process
    done = threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(7)]
    for thread in threads:
        thread.start()
    files = [Path(__file__).open() for _ in range(11)]  # noqa: SIM115 - closed below
    for _ in range(5):
        after = reader.read().process
    done.set()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()
    assert after.threads - before.threads == 7
    if before.open_files is not None and sys.platform != "win32":
        assert after.open_files is not None
        assert after.open_files - before.open_files == 11


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere switches are counted otherwise")
def test_switches_of_every_thread_count() -> None:
    """The waits of all threads are counted, not those of the first alone."""
    reader = SystemReader()
    before = reader.read().process.voluntary_switches

    def nap() -> None:
        for _ in range(200):
            time.sleep(PAUSE)

    thread = threading.Thread(target=nap)
    thread.start()
    thread.join()
    assert reader.read().process.voluntary_switches - before >= 200


UPTIME = """
import time
from mtaio.monitoring._system import SystemReader
print(SystemReader().uptime(), time.monotonic())
"""


def test_uptime_is_the_age_of_the_process() -> None:
    """A process is younger than the moment before it was started."""
    before = time.monotonic()
    run = python(UPTIME)
    uptime, read_at = map(float, run.stdout.split())
    slack = 0.02 if sys.platform == "linux" else 1.5  # a tick; psutil knows seconds
    assert 0 < uptime <= read_at - before + slack


FORK = """
import mmap, os, time
from mtaio._internal.cgroup import Cgroup
from mtaio.monitoring._system import SystemReader
SystemReader(Cgroup.find()).read()
block = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, len(block), mmap.PAGESIZE):
    block[page] = 1
child = os.fork()
if child == 0:
    block.close()  # at once given back to the system, which Python's own memory need not be
    reader = SystemReader(Cgroup.find())
    reading = reader.read()
    assert reading.process.threads == 1
    assert reading.memory.rss < 60 << 20, reading
    assert reader.uptime() < 100
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
raise SystemExit(code)
"""

DROPPED = """
import os
from mtaio.monitoring._system import SystemReader
reader = SystemReader()
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for _ in range(10):
    reading = reader.read()
assert reading.memory.rss > 0
assert reading.process.threads == 1
print(reading.io, flush=True)
os._exit(0)  # without those who measure coverage, who may write no file now
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_child_makes_a_reader_of_its_own() -> None:
    """After a fork, a new reader reads the child."""
    python(FORK)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can give up rights")
def test_rights_given_up_later() -> None:
    """A server that gives up root's rights may no longer read some figures: they turn None."""
    run = python(DROPPED)
    if sys.platform == "linux":
        assert run.stdout == "IOStats(read_bytes=None, write_bytes=None)\n"
