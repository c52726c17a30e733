"""
Results while the work goes on.

Promise: leaving the block, however it happens, cancels what runs and waits for it; an error that
the consumer has not seen is raised there. At most ``window`` items have been taken from the source
and not yet handed over, so a consumer that falls behind holds the work back.

Why a context manager over a class, not an async generator: a generator that holds a task group
across ``yield`` breaks when its consumer stops early (PEP 789).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, cast, final

import anyio

from mtaio._internal import loops
from mtaio._internal.block import another_loop_error, entered_before_error
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import Stray, classify, stray_error, without_cancellation
from mtaio._internal.checkpoints import FAST_ITEMS, checkpoint
from mtaio._internal.wait_queue import WaitQueue
from mtaio.core._errors import conclude, loud
from mtaio.core._merge import unmerged
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import TaskGroup

    from mtaio.core._pool import Pool

__all__ = ["Buffer", "Stream", "closing_sources", "discard", "results_of"]

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")

_FAILED: Final = object()
"""Stands for the result of an item that failed."""

_NONE: Final = object()
"""Stands for the element after the last."""


class Buffer:
    """
    Results between the workers that make them and the consumer.

    Ordered, a result waits for those before it, and counts until it is handed over. ``flat``, that
    is done element by element, and it counts until the last one.

    Invariants:
    - flat, ``_ready`` holds for each result its next element and an iterator over the others;
    - ``until`` is how many items may have been taken by now: ``window`` more than those whose
      results were handed over or dropped;
    - ``_early`` holds results that wait for one before them, by number; ``_next`` is that one's;
    - nothing is put any more once it is closed.
    """

    __slots__ = (
        "_closed",
        "_early",
        "_flat",
        "_next",
        "_ordered",
        "_readers",
        "_ready",
        "_unyielding",
        "_workers",
        "until",
    )

    def __init__(self, window: int, *, ordered: bool, flat: bool = False) -> None:
        self.until: int = window
        self._ordered = ordered
        self._flat = flat
        self._ready: deque[Any] = deque()
        self._early: dict[int, Any] = {}
        self._next = 0
        self._unyielding = 0
        self._workers = WaitQueue[None]()
        self._readers = WaitQueue[None]()
        self._closed = False

    # ---- for the workers ----

    async def wait_for_space(self) -> None:
        """Wait until ``until`` may have grown."""
        self._workers.attach(self)
        await self._workers.wait(None)

    def wake_workers(self) -> None:
        """Wake every worker that waits for space."""
        self._workers.wake_all()

    def put(self, index: int, value: Any) -> None:
        """Put the result of item number ``index``."""
        if not self._ordered:
            self._pass_on(value)
            return
        self._early[index] = value
        while self._next in self._early:
            self._pass_on(self._early.pop(self._next))
            self._next += 1

    def put_elements(self, index: int, values: Iterable[Any]) -> None:
        """Put the elements of a sequence, or what else does not fail, for item number ``index``."""
        elements = iter(values)
        first = next(elements, _NONE)
        self.put(index, _FAILED if first is _NONE else [first, elements])

    def skip(self, index: int) -> None:
        """Note that item number ``index`` failed, so that it has no result."""
        self.put(index, _FAILED)

    def close(self) -> None:
        """Note that all results were put."""
        self._closed = True
        self._readers.wake_all()

    # ---- for the consumer ----

    async def wait(self) -> bool:
        """Wait until there is a result to `take`; return False if there never will be."""
        if self._ready:
            self._unyielding += 1
            if self._unyielding >= FAST_ITEMS:
                self._unyielding = 0
                await checkpoint()
        while not self._ready:
            if self._closed:
                return False
            self._unyielding = 0
            self._readers.attach(self)
            await self._readers.wait(None)
        return True

    def take(self) -> Any:
        """Return the next result, or element of one, which must be there."""
        if self._flat:
            following = self._ready[0]
            value, elements = following
            following[0] = next(elements, _NONE)
            if following[0] is not _NONE:
                self._readers.wake_next()
                return value
            self._ready.popleft()
        else:
            value = self._ready.popleft()
        self._make_space()
        return value

    def clear(self) -> None:
        """Drop the results that were not taken."""
        self._ready.clear()
        self._early.clear()

    def _pass_on(self, value: Any) -> None:
        if value is _FAILED:
            self._make_space()
        else:
            self._ready.append(value)
            self._readers.wake_next()

    def _make_space(self) -> None:
        self.until += 1
        self._workers.wake_next()


@final
class Stream(Generic[T]):
    """
    An async iterator over results, as returned by `TaskExecutor.stream` and `as_completed`.

    Enter it with ``async with``, which starts the work, then iterate over it once. Several tasks
    may share a stream; each result goes to one of them.

    Taking a result is a checkpoint if none is ready, and for one ready result in 32. Cancelling the
    consumer cancels the work.

    A stream that was not entered may be passed as the source of one other call, which enters it and
    leaves it when it ends. That call closes the stream even if it refuses or never reads it.

    Example:
        ```python
        import anyio

        from mtaio import TaskExecutor


        async def fetch(page: int) -> str:
            await anyio.sleep(0.1)
            return f"page {page}"


        async def main() -> None:
            executor = TaskExecutor(max_workers=4)
            async with executor.stream(fetch, range(1_000_000)) as pages:
                async for page in pages:
                    print(page)
                    if page.endswith("7"):
                        break  # the running fetches are cancelled


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - _group, _ended and _loop are there from entering on; _ended is set when the pool has ended,
    #   _left when the block has, or when nothing will start any more;
    # - _error is what the pool ended with, until it is raised once.
    __slots__ = (
        "__weakref__",
        "_buffer",
        "_ended",
        "_error",
        "_group",
        "_is_source",
        "_left",
        "_loop",
        "_on_exit",
        "_pool",
    )

    def __init__(self, pool: Pool, buffer: Buffer, *, on_exit: Callable[[], None]) -> None:
        self._pool = pool
        self._buffer = buffer
        self._on_exit = on_exit
        self._group: TaskGroup | None = None
        self._ended: anyio.Event
        self._loop: object
        self._left = False
        self._is_source = False
        self._error: Exception | None = None

    def __repr__(self) -> str:
        subject = self._pool.subject
        of = "calls" if subject is None else repr(name_of(subject))
        state = "left" if self._left else "new" if self._group is None else "entered"
        return f"<Stream of {of}, {state}>"

    def _method(self) -> str:
        return "as_completed" if self._pool.subject is None else "stream"

    async def __aenter__(self) -> Self:
        if self._group is not None or self._left:
            raise entered_before_error(self, f"Call {self._method()}() again.")
        self._loop = loops.current_loop()
        self._ended = anyio.Event()
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
        if not self._ended.is_set():
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
            self._leave()
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

    async def aclose(self) -> None:
        """
        Stop the work and wait for it to end; the stream yields no more results.

        For consumers that cannot leave the block. Any task of the block may call it, and more than
        once. Results that were not taken are dropped; an error that the consumer has not received
        is raised where the next result would be, or when the block is left. A stream that was not
        entered cannot be entered any more, and coroutines that were passed to it are closed.

        A checkpoint if there is work to wait for.

        Raises:
            RuntimeError: The stream was entered in another event loop that is still running.
        """
        if self._group is None or self._left or loops.is_over(self._loop):
            self._leave()
        elif not loops.is_current(self._loop):
            raise another_loop_error(self, "aclose()")
        elif not self._ended.is_set():
            self._pool.stop()
            await self._ended.wait()
        self._buffer.clear()

    def _leave(self) -> None:
        """Note that nothing runs, and nothing will; drop what is left."""
        self._left = True
        self._buffer.clear()
        self._on_exit()

    def _discard(self) -> None:
        if self._group is None:
            self._leave()

    async def _give_results(self) -> AsyncGenerator[T, None]:
        """
        Yield the results to the call of which the stream is the source.

        Unless the user has entered it by now, it is entered here, and left when this generator
        ends. That may hold the task group of a stream, as the call reads and closes it in one task.
        """
        if self._is_source:
            msg = (
                f"{self!r} is already the source of a call, which closes it at its end. To share "
                f"its results, enter it with 'async with' before any call does."
            )
            raise RuntimeError(msg)
        if self._group is not None:
            async for result in self:
                yield result
            return
        self._is_source = True
        async with self:
            async for result in self:
                try:
                    yield result
                except GeneratorExit:
                    return  # the block is left without it: no error that might come in a group

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._group is None or self._left:
            state = "was not entered" if self._group is None else "was left, and its work stopped"
            msg = (
                f"this stream {state}. Write: async with executor.{self._method()}(...) as "
                f"results: async for result in results: ..."
            )
            raise RuntimeError(msg)
        if await self._buffer.wait():
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
            await self._pool.run_recorded()
        except Exception as error:  # noqa: BLE001 - kept for the consumer, or for leaving the block
            what = "an item, or the source, of this stream"
            self._error = cast("Exception", loud(error, StopAsyncIteration, what))
        except BaseException as error:
            if not isinstance(classify(error), Stray):
                raise  # the consumer is cancelled: it must not take this for the end
            # Raised, it would end the consumer silently.
            self._error = stray_error(error, "this stream")
        finally:
            self._ended.set()
        self._buffer.close()


def results_of(stream: Stream[T]) -> AsyncGenerator[T, None]:
    """Return what the call reads that ``stream`` is the source of."""
    return stream._give_results()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of the class above


def discard(sources: Iterable[object]) -> None:
    """Close the streams among the sources of a call that were not entered, and now will not be."""
    for each in unmerged(sources):
        if isinstance(each, Stream):
            each._discard()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above


def closing_sources(method: F) -> F:
    """Let the method that makes a stream close those among its sources if it refuses to."""

    @wraps(method)
    def make(executor: object, fn: object, /, *iterables: object, **options: object) -> object:
        try:
            return method(executor, fn, *iterables, **options)
        except BaseException:
            discard(iterables)
            raise

    return cast("F", make)


def _is_cancellation(error: BaseException | None) -> bool:
    return error is not None and without_cancellation(error) is None


def _yields_to_cancellation(error: BaseException | None) -> bool:
    # asyncio.run cancels each task on its own when its main task ends, the producer's too.
    return error is None or isinstance(error, StrayCancellationError) or _is_cancellation(error)
