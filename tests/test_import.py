"""What importing costs."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import mtaio

HEAVY = (
    "asyncio",
    "concurrent",
    "cyclopts",
    "hypothesis",
    "logging",
    "multiprocessing",
    "psutil",
    "pytest",
    "rich",
    "socket",
    "ssl",
    "subprocess",
    "trio",
    "uvloop",
)


def in_fresh_python(program: str) -> str:
    """Run ``program`` in an interpreter of its own, and return what it prints."""
    done = subprocess.run(  # noqa: S603 - this very Python, with a program written here
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def seconds_to_import(module: str) -> float:
    """Return the processor time that importing ``module`` takes in a fresh interpreter."""
    program = (
        "import time; start = time.process_time(); "
        f"import {module}; print(time.process_time() - start)"
    )
    return float(in_fresh_python(program))


def test_import_is_cheap() -> None:
    """Importing mtaio costs at most 1.3 times what importing anyio costs."""
    # Noise only ever adds, so the least of several runs is what to compare. The runs alternate, and
    # go on until the figures say yes or there were enough of them to say no.
    ours: list[float] = []
    theirs: list[float] = []
    for runs in range(1, 31):
        theirs.append(seconds_to_import("anyio"))
        ours.append(seconds_to_import("mtaio"))
        if runs >= 5 and min(ours) <= 1.3 * min(theirs):
            break
    ratio = min(ours) / min(theirs)
    assert ratio <= 1.3, f"{ratio:.2f}: {min(ours):.4f} s against {min(theirs):.4f} s"


def test_import_loads_nothing_heavy() -> None:
    """Importing mtaio imports no backend and none of the modules that only some work needs."""
    program = (
        "import sys, anyio; before = set(sys.modules); import mtaio; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = set(in_fresh_python(program).split())
    assert "mtaio" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_every_name_loads_without_what_only_some_need() -> None:
    """Using every curated name imports no extra and no test tool."""
    program = (
        "import sys, mtaio; [getattr(mtaio, name) for name in mtaio.__all__]; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = set(in_fresh_python(program).split())
    extras = {"cyclopts", "hypothesis", "opentelemetry", "pytest", "rich", "trio", "uvloop"}
    assert loaded.isdisjoint(extras)


@pytest.mark.parametrize("package", ["mtaio", "mtaio.core", "mtaio.resilience"])
def test_retry_loads_no_executor(package: str) -> None:
    """A program that only retries loads neither the executor nor the other parts of a pipeline."""
    program = f"import sys; from {package} import Retry; print(*sys.modules)"
    loaded = {name for name in in_fresh_python(program).split() if name.startswith("mtaio.")}
    rooms = {name for name in loaded if not name.startswith("mtaio._internal")}
    assert rooms - {"mtaio.core"} == {
        "mtaio.exceptions",
        "mtaio.resilience",
        "mtaio.resilience._attempts",
        "mtaio.resilience._budget",
        "mtaio.resilience._events",
        "mtaio.resilience._retry",
        "mtaio.resilience._waits",
    }


@pytest.mark.parametrize(
    ("package", "name", "others"),
    [
        ("resources", "RateLimiter", {"_combined", "_concurrency", "_keyed", "_timeout"}),
        (
            "cache",
            "TTLCache",
            {
                *("_background", "_binding", "_cached", "_calls", "_lfu", "_listeners", "_plain"),
                *("_s3fifo", "_statistics", "_threads"),
            },
        ),
        ("cache", "cached", {"_background", "_listeners", "_plain", "_statistics", "_threads"}),
        ("events", "EventEmitter", {"_statistics"}),
    ],
)
def test_a_name_loads_what_it_needs(package: str, name: str, others: set[str]) -> None:
    """A name of a package loads neither other names of it nor what `statistics()` returns."""
    program = (
        f"import sys; before = set(sys.modules); from mtaio.{package} import {name}; "
        "print(*set(sys.modules) - before)"  # what counts lines may have loaded more before
    )
    loaded = set(in_fresh_python(program).split())
    assert f"mtaio.{package}" in loaded
    assert loaded.isdisjoint({"random", *(f"mtaio.{package}.{other}" for other in others)})


def test_rooms_are_reached_without_an_import_of_their_own() -> None:
    """``mtaio.testing.run`` is there after ``import mtaio``, though nothing was loaded for it."""
    for room in ("core", "events", "exceptions", "redis", "statistics", "testing", "types"):
        assert mtaio.__getattr__(room) is import_module(f"mtaio.{room}")
        assert room in dir(mtaio)
