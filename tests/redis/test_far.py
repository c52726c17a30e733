"""The task that renews the leases of what is loaded."""

from __future__ import annotations

from typing import Any

import anyio

from mtaio.redis._far import Renewals
from tests.redis.memory import MemoryStore


async def test_a_task_that_ends_late() -> None:
    """What was forgotten is renewed no more, and what is loaded since has one task, not two."""
    renewed: list[tuple[str, float]] = []

    class Far:
        async def renew(self, key: str, token: str) -> None:
            """Note when."""
            del token
            renewed.append((key, anyio.current_time()))

    far: Any = Far()
    async with MemoryStore() as store:
        renewals = Renewals(store, far, 3)
        with renewals.renewing("a", "1"):
            await anyio.sleep(0.5)
            renewals.clear()
            with renewals.renewing("b", "2"):
                await anyio.sleep(1.2)
                with renewals.renewing("c", "3"):
                    await anyio.sleep(1.2)
    assert renewed == [("b", 1.5), ("b", 2.5), ("c", 2.5)]
