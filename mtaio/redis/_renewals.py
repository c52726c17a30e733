"""
The leases of the keys that a process loads, renewed for as long as the loads take.

Promise: a lease ends with its process, and not before its load has ended.
Cost: one task in the store's block while anything is loaded, and a call for each load in every
third of the lease.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from mtaio.exceptions import StoreError

if TYPE_CHECKING:
    from collections.abc import Generator

    from mtaio.redis._far import FarTier
    from mtaio.redis._store import Store

__all__ = ["Renewals"]


class Renewals:
    """
    What is being loaded.

    Args:
        store: In whose block the leases are renewed.
        far: Where they are.
        lease: Seconds for which one lasts.
    """

    # Invariant: _running says whether the task _run has been started and has not ended.
    __slots__ = ("_far", "_keys", "_lease", "_running", "_store")

    def __init__(self, store: Store, far: FarTier, lease: float) -> None:
        self._store = store
        self._far = far
        self._lease = lease
        self._keys: dict[str, str] = {}
        self._running = False

    @contextmanager
    def renewing(self, key: str, token: str) -> Generator[None]:
        """Renew the lease of a key while the block lasts."""
        if not self._running:
            self._store.start(self._run)
            self._running = True
        self._keys[token] = key
        try:
            yield
        finally:
            self._keys.pop(token, None)

    def clear(self) -> None:
        """Forget every lease, and the task: the store's block is over."""
        self._keys.clear()
        self._keys = {}
        self._running = False

    async def _run(self) -> None:
        keys = self._keys
        try:
            while keys:
                await anyio.sleep(self._lease / 3)
                for token, key in [*keys.items()]:
                    with suppress(StoreError):
                        await self._far.renew(key, token)
        finally:
            if keys is self._keys:  # else another task has been started since
                self._running = False
