from __future__ import annotations
import pytest
from tests.deadlocks import DEADLOCKS, check
@pytest.mark.parametrize("kind", DEADLOCKS)
async def test_deadlock_is_named(kind: str) -> None:
    """x"""
    await check(DEADLOCKS[kind]())
