"""
Results while the work goes on, with backpressure.

Promise: at most ``window`` items are between taken from the source and handed to the consumer;
leaving the block, however it happens, cancels what is in flight and waits for it.

Why a context manager over a class, and no async generator: a generator that holds a task group
across ``yield`` breaks when its consumer stops early (PEP 789).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

from mtaio._internal.coop import FAST_ITEMS, checkpoint
from mtaio.core._bell import Bell
from mtaio.core._failures import conclude

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

    from mtaio.core._pool import Gate, Pool

T = TypeVar("T")


class Stream(Generic[T]):
    """
    An async iterator over results; returned by `TaskExecutor.stream` and `as_completed`.

    Enter it with ``async with``, then iterate, once. Work starts on entering. Taking a result is a
    checkpoint when there is none yet, and for one ready result in 32. Cancelling the consumer
    cancels the work.
    """

    # Invariants:
    # - items `_taken` by the consumer are a prefix of those started (ordered) or any of them;
    # - the pool starts none while started - _taken == _window;
    # - _error is what the pool ended with, until it is raised once.

    def __init__(
        self,
        make_pool: Callable[[Callable[[int, Any], object], Gate], Pool],
        *,
        window: int,
        ordered: bool,
        on_exit: Callable[[], None] | None = None,
    ) -> None:
        self._make_pool = make_pool
        self._window = window
        self._ordered = ordered
        self._on_exit = on_exit
        self._pool: Pool | None = None
        self._group: TaskGroup | None = None
        self._ready: deque[Any] = deque()
        self._early: dict[int, Any] = {}
        self._next = 0
        self._taken = 0
        self._unyielding = 0
        self._room = Bell()
        self._news = Bell()
        self._over = False
        self._error: BaseException | None = None

    async def __aenter__(self) -> Self:
        if self._pool is not None:
            raise RuntimeError(
                "this stream was entered before: its source is used up. Call stream() again."
            )
        self._pool = self._make_pool(self._put, self)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._produce, self._pool)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._pool is None or self._group is None:
            return
        if not self._over:
            self._pool.stop()
        escaped: tuple[BaseException, ...] = ()
        try:
            await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            escaped = group.exceptions
        except BaseException:
            if self._error is None:
                raise
        finally:
            if self._on_exit is not None:
                self._on_exit()
        if self._error is not None or escaped:
            errors = [*escaped] if self._error is None else [self._error, *escaped]
            if exc is not None and exc is not self._error:
                errors.insert(0, exc)
            self._error = None
            conclude([], tuple(errors))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._group is None:
            raise RuntimeError(
                "this stream was not entered. Write: async with executor.stream(...) as results: "
                "async for result in results: ..."
            )
        if self._ready:
            self._unyielding += 1
            if self._unyielding >= FAST_ITEMS:
                self._unyielding = 0
                await checkpoint()
        while not self._ready:
            if self._over:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            self._unyielding = 0
            await self._news.wait()
        value: T = self._ready.popleft()
        self._taken += 1
        self._room.ring()
        return value

    @property
    def shut(self) -> bool:
        """Whether the consumer is so far behind that no further item may be taken."""
        return self._pool is not None and self._pool.started - self._taken >= self._window

    async def wait(self) -> None:
        """Wait until the consumer took a result (the pool's workers do this)."""
        await self._room.wait()

    def _put(self, index: int, value: Any) -> None:
        if not self._ordered:
            self._ready.append(value)
        elif index != self._next:
            self._early[index] = value
            return
        else:
            self._ready.append(value)
            self._next += 1
            while self._next in self._early:
                self._ready.append(self._early.pop(self._next))
                self._next += 1
        self._news.ring()

    async def _produce(self, pool: Pool) -> None:
        try:
            await pool.run()
        except Exception as error:  # noqa: BLE001 - kept for the consumer, or for leaving the block
            self._error = error
        finally:
            self._over = True
            self._news.ring_all()
