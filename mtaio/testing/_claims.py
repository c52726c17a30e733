"""
The one simulation of the process: who has claimed it, and whose event loop is running.

Promise: one world turns in a process at a time, because `mtaio._internal.clock.now` follows it,
from the moment its event loop runs until it stops; a second one is refused before it has begun.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mtaio._internal import clock
from mtaio.testing._threads import watched

if TYPE_CHECKING:
    from collections.abc import Generator

    from mtaio.testing._engine import Engine
    from mtaio.testing._world import World

_claim = threading.Lock()
_claimant: World | None = None
_turning: World | None = None


@contextmanager
def claimed(world: World, backend: str) -> Generator[None]:
    """Let ``world`` be the one of the process inside the block, and see its threads."""
    global _claimant  # noqa: PLW0603 - one clock for the process, hence one world
    with _claim:
        refuse_second()
        _claimant = world
    try:
        with watched(world, backend):
            yield
    finally:
        _claimant = None


@contextmanager
def turned(world: World, engine: Engine, backend: str) -> Generator[None]:
    """Let ``world`` turn inside the block: mtaio's clock follows ``engine``."""
    global _turning  # noqa: PLW0603 - ditto
    if _claimant is not world:
        with claimed(world, backend), turned(world, engine, backend):
            yield
        return
    _turning = world
    world.thread = threading.get_ident()
    before = clock.follow(engine.time)
    try:
        yield
    finally:
        clock.follow(before)
        world.thread = None
        _turning = None


def turning() -> World | None:
    """Return the world whose event loop is running, in any thread, if there is one."""
    return _turning


def turning_here() -> World | None:
    """Return the world whose event loop is running in this thread, if there is one."""
    world = _turning
    return world if world is not None and world.thread == threading.get_ident() else None


def refuse_second(world: World | None = None) -> None:
    """Raise ``RuntimeError`` if another world than ``world`` has claimed the process."""
    if _claimant is not None and _claimant is not world:
        msg = (
            f"a simulation is running in this process already (t={_claimant.time()!r}), and "
            f"mtaio's clock can follow only one. Let it end first, or use another process."
        )
        raise RuntimeError(msg)
