"""Deadlocks of each kind are named on each event loop, in real time."""

from __future__ import annotations

import pytest

from tests.deadlocks import DEADLOCKS, check


@pytest.mark.parametrize("kind", ["children", "executors", "limiter", "load", "lock"])
async def test_deadlock_is_named(kind: str) -> None:
    """The tree names the cycle, and only that."""
    await check(DEADLOCKS[kind]())
