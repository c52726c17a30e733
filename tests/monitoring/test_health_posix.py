"""Health checks in a forked process, which begins from the start."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import anyio

from mtaio.monitoring import HealthRegistry

if TYPE_CHECKING:
    import pytest

assert sys.platform != "win32"

PROGRAM: Final = """
import os
import sys
import threading
import traceback

import anyio

from mtaio.monitoring import HealthRegistry

backend = sys.argv[1]
parent = os.getpid()
release = threading.Event()
health = HealthRegistry()


@health.check(timeout=60)
async def sleep():
    await anyio.sleep(60 * (os.getpid() == parent))


@health.check(timeout=60)
def block():
    if os.getpid() == parent:
        release.wait(60)


async def report():
    assert (await health.report()).ready


def in_child():
    try:
        assert not health.draining
        assert health.latest is None
        anyio.run(report, backend=backend)
        assert health.statistics().in_flight == 0
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


async def main():
    async with anyio.create_task_group() as group:
        group.start_soon(health.report)
        while health.statistics().in_flight < 2:
            await anyio.sleep(0.01)
        health.set_ready(False)
        child = os.fork()
        if child == 0:
            thread = threading.Thread(target=in_child)
            thread.start()
            thread.join()
        assert os.waitpid(child, 0)[1] == 0
        assert health.draining
        assert health.statistics().in_flight == 2
        release.set()
        group.cancel_scope.cancel()


anyio.run(main, backend=backend)
print("done")
"""


def test_fork(backend: str) -> None:
    """The child forgets what runs in the parent, and runs its checks itself."""
    done = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, backend],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


async def test_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where it can be measured: the process has another number."""
    health = HealthRegistry()

    @health.check(timeout=1)
    async def check() -> None:
        await anyio.sleep(0.5)

    async with anyio.create_task_group() as group:
        group.start_soon(health.report)
        await anyio.sleep(0.25)
        health.set_ready(False)
        assert health.statistics().in_flight == 1
        monkeypatch.setattr(os, "getpid", lambda: 1)
        assert not health.draining
        assert health.statistics().in_flight == 0
        assert (await health.report()).ready
        assert anyio.current_time() == 0.75
