"""
Calls in somebody else's pool: any ``concurrent.futures.Executor``.

Promise: a call that has begun cannot be stopped, goes on by itself, and keeps its place under the
pool's ``limit`` until it ends. One that is cancelled, or out of time, before that is never made,
unless there is a limit and a pool that does not tell what it has begun. A worker that dies takes
with it the calls that it had, and no others of ours.
Cost: for each call what the pool asks; with ``chunksize``, that of one call for each chunk, and for
each item the wait for it.

A chunk is filled by items that run, each of them in its slot, with its timeout and its place among
the results: chunks change when calls are sent, and nothing else. Why: docs/en/design/executor.md.
"""

from __future__ import annotations

import copy
import traceback
from collections import deque
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, final

import anyio

from mtaio._internal import backend, checks, clock, loops
from mtaio._internal.callables import is_async
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.notes import note
from mtaio._internal.statistics import GAUGE, LIMIT
from mtaio.core._errors import RemoteTraceback, shorten
from mtaio.core._threads import WorkerLimiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from mtaio._internal.backend import Waiter
    from mtaio.core._slots import Slot
    from mtaio.core._timeouts import Timing

__all__ = ["ExternalPool", "ExternalPoolStatistics", "Via", "calls_via"]

_LINGER_SECONDS: Final = 0.002
"""How long the first call of a chunk waits for others: little compared with a pool's own cost."""

_A_POOL: Final = "Pass a concurrent.futures.Executor"
_WAY_OUT: Final = f'{_A_POOL}, a mtaio.core.ExternalPool around one, or "processes".'

_PICKLE: Final = (
    "A pool gets functions, arguments and results pickled: pass a function from the top level of a "
    "module, and plain data."
)
_CANNOT_PICKLE: Final = (
    "pickle",
    "local object",
    "Could not serialize object",  # dask
    "failed to un-serialize",  # loky
)
"""What pools say of what cannot be pickled."""


AsyncCall: TypeAlias = "Callable[..., Awaitable[Any]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalPoolStatistics:
    """A snapshot of an `ExternalPool`."""

    limit: int | None = field(metadata=LIMIT)
    """The limit on calls at once; None if there is none."""
    in_use: int = field(metadata=GAUGE)
    """
    Calls in the pool that have not ended, including those that nobody waits for.

    Without a limit, those that dask runs and that were cancelled are missing: it says they ended.
    """
    waiting: int = field(metadata=GAUGE)
    """Calls that wait for a place under the limit."""


@final
class ExternalPool:
    """
    A pool of workers created elsewhere, with a limit on how many calls it has at once.

    Pass it to an executor's call as ``via=``. A call that was cancelled or timed out keeps its
    place under ``limit`` until its worker has finished. (If you pass the pool itself as ``via=``,
    there is no such limit.) An external pool can be created outside an event loop, shared by
    executors, and used by one event loop after another. It never shuts down the pool.

    dask does not tell which calls are running, so with a limit its calls are not cancelled: a call
    that waits in dask's queue is made, and its result is dropped.

    Args:
        pool: A ``concurrent.futures.Executor`` or an object with the same ``submit`` method: a
            ``ProcessPoolExecutor``, loky, mpi4py, or dask's ``client.get_executor()``.
        limit: Maximum number of calls in the pool at once; None for no limit.

    Raises:
        ValueError, TypeError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        from concurrent.futures import ThreadPoolExecutor
        from math import factorial

        import anyio

        from mtaio import TaskExecutor
        from mtaio.core import ExternalPool

        executor = TaskExecutor()


        async def main() -> None:
            with ThreadPoolExecutor(4) as threads:
                pool = ExternalPool(threads, limit=2)
                print(await executor.map(factorial, [3, 4, 5], via=pool))


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    def __init__(self, pool: Executor, *, limit: int | None = None) -> None:
        _check_pool("pool", pool, f"{_A_POOL}.")
        if limit is not None:
            way_out = "Pass how many calls the pool may have at once, or None for no limit."
            checks.count("limit", limit, way_out=way_out)
        self._pool = pool
        self._limit = limit
        self._limiter = WorkerLimiter("limit", limit, self)
        self._backlog = _Backlog(marks=limit is None)

    def __repr__(self) -> str:
        return f"<ExternalPool {type(self._pool).__name__} limit={self._limit}>"

    def statistics(self) -> ExternalPoolStatistics:
        """
        Return a snapshot of the pool.

        Not a checkpoint. It can be called from any thread.
        """
        return ExternalPoolStatistics(
            limit=self._limit, in_use=self._limiter.busy, waiting=self._limiter.waiting
        )


Via: TypeAlias = Executor | ExternalPool | Literal["processes"]
"""Where plain functions are called, instead of worker threads."""


def calls_via(
    fn: Callable[..., Any],
    via: Via,
    processes: WorkerLimiter,
    timing: Timing,
    chunksize: int = 1,
) -> AsyncCall:
    """Return what calls ``fn`` where ``via`` says, within its timeout."""
    _check_fn(fn)
    if via == "processes":
        return _in_processes(fn, processes, timing, chunksize)
    return _in_pool(fn, via, timing, chunksize)


def _in_pool(fn: Callable[..., Any], via: Via, timing: Timing, chunksize: int) -> AsyncCall:
    """Return what calls ``fn`` in a pool, within its timeout."""
    checks.count("chunksize", chunksize, way_out="Pass how many calls are sent to the pool as one.")
    if isinstance(via, str):
        msg = f"via={via!r} is unknown. {_WAY_OUT}"
        raise ValueError(msg)  # noqa: TRY004 - one string is allowed
    if not isinstance(via, ExternalPool):
        _check_pool("via", via, _WAY_OUT)
        via = ExternalPool(via)
    return _PoolCalls(via, fn, timing, chunksize).call


def _in_processes(
    fn: Callable[..., Any], limiter: WorkerLimiter, timing: Timing, chunksize: int
) -> AsyncCall:
    """Return what calls ``fn`` in a worker process of the executor, within its timeout."""
    if chunksize != 1:
        msg = (
            f'chunksize={chunksize!r} is for pools: via="processes" makes each call by itself, and '
            f"kills its process if it is cancelled. Leave it out, or pass a pool."
        )
        raise ValueError(msg)
    from mtaio.core._processes import run_in_process  # noqa: PLC0415 - few programs use them

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await run_in_process(limiter, partial(fn, *args, **kwargs), timing)

    return call


def _check_fn(fn: Callable[..., Any]) -> None:
    checks.callable_("fn", fn, way_out="Pass a plain function; what is awaited needs no via=.")
    if is_async(fn):
        msg = (
            f"fn={fn!r} is an async function: a worker elsewhere has no event loop to run it in. "
            f"Leave out via=, or pass a plain function."
        )
        raise TypeError(msg)


def _check_pool(name: str, pool: object, way_out: str) -> None:
    if callable(getattr(pool, "get_executor", None)):
        msg = f"{name}={pool!r} is a dask client. Pass its client.get_executor()."
        raise TypeError(msg)
    submit = getattr(pool, "submit", None)
    if isinstance(pool, type) or not callable(submit) or is_async(submit):
        kind = checks.type_of(pool)
        msg = f"{name}={pool!r} is {kind} and has no submit() that returns a Future. {way_out}"
        raise TypeError(msg)


class _PoolCalls:
    """
    Calls of one function in a pool, several of them sent as one if ``chunksize`` says so.

    Invariants:
    - ``_open`` is the chunk that has not been sent and has space, if there is one;
    - the pool's threads append to ``_arrived`` what has ended, and then have the event loop look,
      unless ``_called`` says that it is going to: it clears that before it looks. So several that
      end before it runs wake it once.
    """

    def __init__(
        self, pool: ExternalPool, fn: Callable[..., Any], timing: Timing, chunksize: int
    ) -> None:
        self._pool = pool._pool  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
        self._limiter = pool._limiter  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
        self._backlog = pool._backlog  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
        self._fn = fn
        self._timing = timing
        self._size = chunksize
        self._open: _Chunk | None = None
        self._loop: object = None
        self._new_waiter: Callable[[object], Waiter]
        self._arrived: deque[_Chunk] = deque()
        self._called = False

    async def call(self, *args: Any, **kwargs: Any) -> Any:
        """
        Make one call, and return what it returned. A checkpoint.

        The timeout begins when the pool's limit lets it in.
        """
        if self._loop is None:  # all calls are made in one loop
            self._loop = loop = loops.current_loop()
            self._new_waiter = backend.of(loop).new_waiter
        slot = self._limiter.enter_nowait() or await self._limiter.enter()
        chunk = self._open
        if chunk is None:
            chunk = self._open = _Chunk(self._size)
        place = chunk.add((args, kwargs), self._new_waiter(self._loop))
        try:
            with self._timing.limit(self._fn):
                if chunk.is_full():
                    self._send(chunk)
                elif place == 0:
                    with anyio.move_on_after(_LINGER_SECONDS):
                        await chunk.wait(0)
                    self._send(chunk)
                if chunk.ended:  # the pool took none of it
                    await checkpoint()
                while not chunk.ended:
                    await chunk.wait(place)
        finally:
            chunk.leave(place)
            self._release(slot, chunk)
            if place == 0 and not chunk.sent:
                # The others rely on it; but first let those leave that are cancelled with it.
                loops.call_in(self._loop, partial(self._send, chunk))
        return chunk.result(place)

    def _send(self, chunk: _Chunk) -> None:
        """Send a chunk, if that has not been done: till then it is the open one."""
        if chunk.sent:
            return
        self._open = None
        chunk.send(self._pool, self._fn, self._arrive)
        if chunk.future is not None:
            self._backlog.add(chunk.future)

    def _arrive(self, chunk: _Chunk) -> None:
        """Have the event loop look at a chunk that has ended (in a thread of the pool's)."""
        self._arrived.append(chunk)
        if not self._called:
            self._called = True
            loops.call_in(self._loop, self._take_in)

    def _take_in(self) -> None:
        """Let those go on whose calls have ended (in the event loop)."""
        self._called = False
        while self._arrived:
            self._arrived.popleft().finish()

    def _release(self, slot: Slot, chunk: _Chunk) -> None:
        """Give a slot back now, or when its call has ended; cancel what nobody waits for."""
        limiter, future = self._limiter, chunk.future
        if future is not None and not chunk.is_awaited() and self._backlog.may_cancel():
            future.cancel()
        if future is None or future.done():
            limiter.leave(slot)
        else:
            future.add_done_callback(lambda _: limiter.leave_late(slot))


class _Backlog:
    """
    The calls that a pool has, and whether it tells which of them run.

    Most pools mark a call that runs, and then refuse to cancel it: what they cancel is never made.
    dask marks none and cancels any, and from then on nobody learns when that call ends.

    Args:
        marks: Whether to take it for granted, since nobody counts its calls.
    """

    # Invariants:
    # - _marks says whether a call was seen to run;
    # - until then, _futures has the calls that have not ended, the oldest first, since pools begin
    #   them in that order. The event loop adds them; the threads that end them take them out.

    def __init__(self, *, marks: bool) -> None:
        self._marks = marks
        self._futures: dict[Future[Any], None] = {}

    def add(self, future: Future[Any]) -> None:
        """Add a call that was handed to the pool."""
        if not self._marks:
            self._futures[future] = None
            future.add_done_callback(self._futures.pop)

    def may_cancel(self) -> bool:
        """Return whether a call that lets itself be cancelled has not begun."""
        if not self._marks:
            self._marks = any(oldest.running() for oldest in list(self._futures)[:1])
        return self._marks


_Call: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"


class _Chunk:
    """
    Calls that are sent to a pool as one.

    Invariants:
    - until it is sent, ``_calls`` has them by their places, without those that have left;
    - as long as one of ``_present`` is there, a place with its waiter, it is waited for; without
      any, nothing is sent;
    - ``future`` is there while the pool has it: the future holds this object, and its result;
    - while the pool has it and it is waited for, a virtual clock is held.
    """

    __slots__ = (
        "_added",
        "_calls",
        "_holding",
        "_outcomes",
        "_present",
        "_size",
        "ended",
        "future",
        "sent",
    )

    def __init__(self, size: int) -> None:
        self.sent: bool = False
        self.ended: bool = False
        self.future: Future[Any] | None = None
        self._size = size
        self._added = 0
        self._present: dict[int, Waiter] = {}
        self._calls: dict[int, _Call] = {}
        self._outcomes: dict[int, Any] = {}
        self._holding: AbstractContextManager[object] | None = None

    def add(self, call: _Call, waiter: Waiter) -> int:
        """Add a call, and return its place."""
        place = self._added
        self._added += 1
        self._present[place] = waiter
        self._calls[place] = call
        return place

    def is_full(self) -> bool:
        """Return whether no more may be added."""
        return self._added >= self._size

    async def wait(self, place: int) -> None:
        """Wait until it is sent, or has ended."""
        await self._present[place]

    def send(
        self, pool: Executor, fn: Callable[..., Any], arrive: Callable[[_Chunk], object]
    ) -> None:
        """Hand the calls to the pool, once; ``arrive`` is called when they have ended."""
        self.sent = True
        calls, self._calls = self._calls, {}
        if not calls:
            return
        try:
            if self._size == 1:
                ((args, kwargs),) = calls.values()
                future = pool.submit(fn, *args, **kwargs)
            else:
                future = pool.submit(call_all, fn, calls)
            future.add_done_callback(lambda _: arrive(self))
        except Exception as error:  # noqa: BLE001 - each call raises it: the pool is shut down, or broken
            self._end(self._failed(error))
        else:
            self.future = future
            self._holding = clock.held()
            self._holding.__enter__()

    def leave(self, place: int) -> None:
        """Note that a call is not waited for any more."""
        self._calls.pop(place, None)
        self._present.pop(place, None)
        if not self._present:
            self._release_clock()

    def is_awaited(self) -> bool:
        """Return whether anybody waits for it."""
        return bool(self._present)

    def result(self, place: int) -> Any:
        """Return what a call returned, or raise what it raised, once; the chunk has ended."""
        outcome = self._outcomes.pop(place)
        if not isinstance(outcome, _Raised):
            return outcome
        try:
            raise outcome.error
        finally:
            del outcome  # the error holds this frame: else they keep each other alive

    def finish(self) -> None:
        """Take what the pool has made of it (in the event loop)."""
        future, self.future = cast("Future[Any]", self.future), None
        try:
            error = future.exception()
        except CancelledError:
            msg = "the pool dropped the call: it was cancelled by others, or the pool was shut down"
            error = RuntimeError(msg)
        if error is not None:
            self._end(self._failed(error))
        else:
            self._end({0: future.result()} if self._size == 1 else future.result())

    def _failed(self, error: BaseException) -> dict[int, Any]:
        """Return the outcomes if all calls failed with one error."""
        with suppress(Exception):  # what the user's errors do if asked for their text
            text = str(error)
            if any(words in text for words in _CANNOT_PICKLE):
                note(error, _PICKLE)
        if len(self._present) > 1 or isinstance(error, BrokenExecutor):
            # Pools give one error to all that they had when they broke.
            return {place: _Raised(_copy_of(error)) for place in self._present}
        return {place: _Raised(error) for place in self._present}

    def _end(self, outcomes: dict[int, Any]) -> None:
        self._outcomes = outcomes
        self._release_clock()
        self.ended = True
        for waiter in self._present.values():
            waiter.wake()

    def _release_clock(self) -> None:
        holding, self._holding = self._holding, None
        if holding is not None:
            holding.__exit__(None, None, None)


class _Raised:
    """The outcome of a call that failed: an error that may be raised here."""

    def __init__(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # of a worker: here it would end the program
            cause, error = error, RuntimeError(f"the call raised {shorten(error)} in its worker")
            error.__cause__ = cause
        self.error: BaseException = error

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled, an error has no traceback.
        text = "".join(traceback.format_exception(self.error))
        return _raised_there, (self.error, text)


def _raised_there(error: BaseException, text: str) -> _Raised:
    error.__cause__ = RemoteTraceback(text)
    return _Raised(error)


def call_all(fn: Callable[..., Any], calls: dict[int, _Call]) -> dict[int, Any]:
    """Make calls one after another (in the worker); return what each returned or raised."""
    outcomes: dict[int, Any] = {}
    try:
        for place, (args, kwargs) in calls.items():
            try:
                outcomes[place] = fn(*args, **kwargs)
            except KeyboardInterrupt:
                raise  # the user wants an end of them all
            except BaseException as error:  # noqa: BLE001 - its caller raises it
                outcomes[place] = _Raised(error)
        return outcomes
    finally:
        del outcomes  # errors hold this frame: else they keep each other alive


def _copy_of(error: BaseException) -> BaseException:
    """Return another like ``error``: several callers raise it, each with notes of its own."""
    try:
        another = copy.copy(error)
        # A copy may share them: dask changes how errors are pickled.
        another.__dict__ = vars(error) | {"__notes__": [*getattr(error, "__notes__", ())]}
    except Exception:  # noqa: BLE001 - some cannot be made of their arguments
        another = RuntimeError(f"the chunk of this call failed: {shorten(error)}")
    another.__cause__ = error
    return another
