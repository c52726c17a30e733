"""The loader: an open batch, and the tasks of those that are closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from mtaio import ConcurrencyLimiter, TaskExecutor, TTLCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType
    from typing import Self

    from mtaio.core import TaskHandle

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True, eq=False)
class _Batch(Generic[K]):
    keys: dict[K, None] = field(
        default_factory=dict[K, None]
    )  # a set that keeps the order
    full: anyio.Event = field(default_factory=anyio.Event)
    waiting: int = 0


class Loader(Generic[K, V]):
    """
    Collects keys for a moment, and looks them up together.

    The look-ups run in tasks of the loader, so use it as ``async with``: none
    outlives the block. While ``max_calls`` calls are in progress, the next
    batch keeps growing.

    Args:
        load_many: Called with a list of keys; returns the values of those
            that exist.
        window: Seconds that the first key of a batch waits for others.
        max_batch: The most keys in a batch.
        max_calls: The most calls of ``load_many`` at once.
        ttl: Seconds to keep a value.
        max_size: How many values to keep.

    Example:
        ```python
        async with Loader(fetch_users) as users:
            ada = await users.load("ada")
        ```
    """

    def __init__(
        self,
        load_many: Callable[[list[K]], Awaitable[Mapping[K, V]]],
        *,
        window: float = 0.005,
        max_batch: int = 100,
        max_calls: int = 4,
        ttl: float = 60.0,
        max_size: int = 10_000,
    ) -> None:
        self._load_many = load_many
        self._window = window
        self._max_batch = max_batch
        self._calls = ConcurrencyLimiter(max_calls)
        self._values: TTLCache[V] = TTLCache(ttl, max_size=max_size)
        self._tasks = TaskExecutor()
        self._open: tuple[_Batch[K], TaskHandle[dict[K, V]]] | None = None

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._tasks.__aexit__(exc_type, exc, traceback)

    async def load(self, key: K) -> V:
        """
        Return the value of ``key``, which is looked up together with others.

        A checkpoint, unless the value is kept. Cancelling it harms no other.

        Raises:
            KeyError: There is no such key.
            Exception: What ``load_many`` raised, for all who waited for it.
        """
        kept = self._values.get_many_nowait([key])
        if key in kept:
            return kept[key]
        if self._open is None:
            batch = _Batch[K]()
            self._open = batch, self._tasks.submit_nowait(self._run, batch)
        batch, found = self._open
        batch.keys[key] = None
        if len(batch.keys) == self._max_batch:
            self._close(batch)
        batch.waiting += 1
        try:
            return (await found)[key]
        finally:
            batch.waiting -= 1
            if (
                not batch.waiting
            ):  # if it has not ended, all callers were cancelled
                self._close(batch)
                found.cancel()

    async def _run(self, batch: _Batch[K]) -> dict[K, V]:
        with anyio.move_on_after(self._window):
            await batch.full.wait()
        async with self._calls:
            self._close(batch)
            return await self._values.get_or_set_many(
                batch.keys, self._load_many
            )

    def _close(self, batch: _Batch[K]) -> None:
        batch.full.set()
        if self._open is not None and self._open[0] is batch:
            self._open = None
