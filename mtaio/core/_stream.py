"""
Results while the work goes on.

Promise: leaving the block, however it happens, cancels what is in flight and waits for it; an
error that the consumer has not seen is raised there. Backpressure: `Buffer`.

Why a context manager over a class, and no async generator: a generator that holds a task group
across ``yield`` breaks when its consumer stops early (PEP 789).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

import anyio

from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import is_cancelled, stray_error, without_cancellation
from mtaio.core._failures import conclude
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

    from mtaio.core._buffer import Buffer
    from mtaio.core._pool import Pool

T = TypeVar("T")


class Stream(Generic[T]):
    """
    An async iterator over results; returned by `TaskExecutor.stream` and `as_completed`.

    Enter it with ``async with``, then iterate, once. Work starts on entering. Taking a result is a
    checkpoint when there is none yet, and for one ready result in 32. Cancelling the consumer
    cancels the work. Several tasks may share one stream: each result goes to one of them.

    Example:
        ```python
        import anyio

        from mtaio.core import TaskExecutor


        async def fetch(page: int) -> str:
            await anyio.sleep(0.1)
            return f"page {page}"


        async def main() -> None:
            executor = TaskExecutor(max_workers=4)
            async with executor.stream(fetch, range(1_000_000)) as pages:
                async for page in pages:
                    print(page)
                    if page.endswith("7"):
                        break  # what is in flight is cancelled, and gone after the block


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - _group is there from entering on; _over says that the pool ended, _left that the block did;
    # - _error is what the pool ended with, until it is raised once.
    __slots__ = (
        "__weakref__",
        "_buffer",
        "_error",
        "_group",
        "_left",
        "_on_exit",
        "_over",
        "_pool",
    )

    def __init__(
        self, pool: Pool, buffer: Buffer, *, on_exit: Callable[[], None] | None = None
    ) -> None:
        self._pool = pool
        self._buffer = buffer
        self._on_exit = on_exit
        self._group: TaskGroup | None = None
        self._over = False
        self._left = False
        self._error: Exception | None = None

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise RuntimeError(
                "this stream was entered before: its source is used up. Call stream() again."
            )
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._produce)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if not self._over:
            self._pool.stop()
        errors: list[BaseException] = []
        try:
            # Without the body's exception: it is not this group's to wrap.
            await cast("TaskGroup", self._group).__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            errors.extend(group.exceptions)
        except BaseException:
            # Cancelled. What the body raised goes before, as it does in a task group.
            if _yields_to_cancellation(self._error) and _yields_to_cancellation(exc):
                raise
        finally:
            self._left = True
            self._buffer.clear()
            if self._on_exit is not None:
                self._on_exit()
        error, self._error = self._error, None
        if error is not None and not (_yields_to_cancellation(error) and _is_cancellation(exc)):
            errors.append(error)
        if errors:
            if exc is not None:
                errors.insert(0, exc)
            try:
                conclude([], errors)
            finally:
                del errors, error, exc  # they hold this frame: else all keep each other alive

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._group is None or self._left:
            state = "was not entered" if self._group is None else "was left, and its work stopped"
            msg = (
                f"this stream {state}. Write: async with executor.stream(...) as results: "
                f"async for result in results: ..."
            )
            raise RuntimeError(msg)
        if await self._buffer.more():
            value: T = self._buffer.take()
            return value
        error, self._error = self._error, None
        if error is None:
            raise StopAsyncIteration
        try:
            raise error
        finally:
            del error

    async def _produce(self) -> None:
        try:
            await self._pool.run()
        except Exception as error:  # noqa: BLE001 - kept for the consumer, or for leaving the block
            self._error = error
        except BaseException as error:
            if not _is_cancellation(error) or is_cancelled():
                raise  # the consumer is cancelled: it must not take this for the end
            # Raised, it would end the consumer in silence.
            self._error = stray_error(error, name_of(self._pool))
        finally:
            self._over = True
        self._buffer.close()


def _is_cancellation(error: BaseException | None) -> bool:
    return error is not None and without_cancellation(error) is None


def _yields_to_cancellation(error: BaseException | None) -> bool:
    # asyncio.run cancels each task on its own when its main task ends, the producer's too.
    return error is None or isinstance(error, StrayCancellationError) or _is_cancellation(error)
