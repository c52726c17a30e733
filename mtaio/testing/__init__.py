"""
Tests that wait for nothing: virtual time on asyncio and on trio, with deadlocks as failures.

Promise: a test under virtual time sleeps for a year in microseconds and wakes up at the exact
moment; worker threads, sockets and subprocesses stay real; a test in which nobody can ever wake up
fails with the stacks of its tasks. Needs neither pytest nor, for asyncio, trio.

Everything here is imported when it is first used, so that pytest, which loads the plugin before a
coverage measurement begins, does not import the library under test for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtaio.testing._deadlock import Deadlock, Stack
    from mtaio.testing._run import run, virtual_backend
    from mtaio.testing._simulation import Simulation, current_simulation, settle

__all__ = [
    "Deadlock",
    "Simulation",
    "Stack",
    "current_simulation",
    "run",
    "settle",
    "virtual_backend",
]

_HOMES = {
    "Deadlock": "_deadlock",
    "Simulation": "_simulation",
    "Stack": "_deadlock",
    "current_simulation": "_simulation",
    "run": "_run",
    "settle": "_simulation",
    "virtual_backend": "_run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
