"""Where psutil is missing, all works but what measures the machine."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

NEEDED = "ResourceMonitor and 'mtaio check' need psutil to measure the machine."

PROGRAM = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "psutil":
            raise ModuleNotFoundError("No module named 'psutil'", name=name)

sys.meta_path.insert(0, Missing())

import importlib
import anyio

for package in ("", ".app", ".cache", ".config", ".core", ".events", ".exceptions", ".logging",
                ".monitoring", ".redis", ".resilience", ".resources", ".statistics", ".testing",
                ".types"):
    module = importlib.import_module("mtaio" + package)
    for name in getattr(module, "__all__", ()):
        getattr(module, name)

import mtaio
from mtaio.app.check import run_checks
from mtaio.monitoring import HealthRegistry, ResourceMonitor

async def main():
    limiter = mtaio.KeyedConcurrencyLimiter(2)
    cache = mtaio.TTLCache(60)
    pipeline = mtaio.Pipeline(mtaio.Retry(2), limiter, mtaio.Timeout(5))
    assert await pipeline.run(anyio.sleep, 0, key="a") is None
    assert await mtaio.TaskExecutor(2).map(anyio.sleep, [0, 0]) == [None, None]
    assert await cache.get("key") is None
    assert (await HealthRegistry().report()).ready
    async with mtaio.Application(monitor=ResourceMonitor(60)) as app:
        print(app.state)
    await ResourceMonitor(60).tick()
    try:
        run_checks(mtaio.Application())
    except ImportError as error:
        print(error)

anyio.run(main)
"""


def test_all_else_works() -> None:
    """It imports and works; a monitor without figures logs what to install, a check says it."""
    done = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    running, refused = done.stdout.splitlines()
    assert running == "running"
    assert refused.startswith(NEEDED)
    assert done.stderr.count(f"ImportError: {NEEDED}") == 1


def test_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an ``ImportError`` that names what is missing."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.delitem(sys.modules, "mtaio._internal.processes", raising=False)
    with pytest.raises(ImportError, match=f"^{NEEDED}.* pip install psutil") as caught:
        import_module("mtaio._internal.processes")
    assert caught.value.name == "psutil"
