"""
Real work that virtual time must not overtake: anyio's worker threads and worker processes.

Promise: from the moment its limiter admits it until the event loop has its result, a worker thread
freezes the clock, even if its caller has given it up, except while it waits in
``anyio.from_thread.run``. A call of ``anyio.to_process.run_sync`` holds the clock likewise, and so
does what mtaio marks with ``clock.held``.

anyio offers no hook for this, so its entry points are replaced while a world runs. Calls from
threads outside that world go through unchanged.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from anyio import RunFinishedError, to_process
from anyio._core._eventloop import get_async_backend
from anyio.lowlevel import current_token

from mtaio._internal import clock
from mtaio.testing._diagnostics import thread_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from mtaio.testing._diagnostics import Stack
    from mtaio.testing._world import World

    CoroutineFunction = Callable[..., Coroutine[Any, Any, Any]]

TO_THREAD: Final = "run_sync_in_worker_thread"
FROM_THREAD: Final = "run_async_from_thread"
"""The methods of anyio's backend classes through which every such call goes."""

_here = threading.local()
_watching: World | None = None
_replacing: Counter[str] = Counter()


class Limiter(Protocol):
    """What anyio asks of the limiter of a call: a context on asyncio, the pair on trio."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *exc_info: object) -> bool | None: ...

    async def acquire_on_behalf_of(self, borrower: object) -> None: ...

    def release_on_behalf_of(self, borrower: object) -> None: ...


class WorkerCall:
    """
    One call in a worker thread; it stands in for the limiter as well as for the function.

    As the limiter it learns when the call is admitted and when the loop has its result, as the
    function whether the thread is still at it. Both are needed: on asyncio, anyio gives the limiter
    back when the caller gives up, while the thread goes on.
    """

    # Invariants, _lock held:
    # - _thread is the ident of the thread from its first to its last step, None otherwise;
    # - _over is set once the loop has the result, or no longer waits for it;
    # - the call is in world.calls from its admission until _over and the thread is through, but for
    #   the time that it spends in from_thread.run().
    __slots__ = ("_function", "_limiter", "_lock", "_name", "_over", "_thread", "_token", "_world")

    def __init__(self, world: World, function: Callable[..., Any], limiter: Limiter) -> None:
        self._world = world
        self._function = function
        self._limiter = limiter
        self._lock = threading.Lock()
        self._name = ""
        self._over = False
        self._thread: int | None = None
        self._token = current_token()

    # ---- the limiter, in the event loop's thread -------------------------------------------------

    async def __aenter__(self) -> None:
        await self._limiter.__aenter__()
        self._begin()

    async def __aexit__(self, *exc_info: object) -> bool | None:
        self._end()
        return await self._limiter.__aexit__(*exc_info)

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self._limiter.acquire_on_behalf_of(borrower)
        self._begin()

    def release_on_behalf_of(self, borrower: object) -> None:
        self._end()
        self._limiter.release_on_behalf_of(borrower)

    def _begin(self) -> None:
        self._world.calls.add(self)
        self._world.hosts.add(self)

    def _end(self) -> None:
        self._world.turns = 0  # something real has come
        with self._lock:
            self._over = True
            given_up = self._thread is not None
        if not given_up:
            self._world.calls.discard(self)

    # ---- the function, in the worker thread ------------------------------------------------------

    def __call__(self, *args: Any) -> Any:
        with self._lock:
            self._thread = threading.get_ident()
        self._name = threading.current_thread().name
        _here.call = self
        try:
            return self._function(*args)
        finally:
            del _here.call
            with self._lock:
                self._thread = None
                given_up = self._over
            if given_up:
                self._report_late()

    def _report_late(self) -> None:
        """Release the clock in the loop's thread, which wakes the loop so that it sees that."""
        loop = self._token
        with suppress(RunFinishedError):  # then no task waits for the clock any more
            loop.backend_class.run_sync_soon(self._world.calls.discard, (self,), loop.native_token)

    def unfrozen(self, function: CoroutineFunction) -> CoroutineFunction:
        """Return ``function`` made to run in the event loop while the thread waits for it."""
        calls = self._world.calls

        @wraps(function)
        async def inside(*args: Any) -> Any:
            calls.discard(self)
            try:
                return await function(*args)
            finally:
                calls.add(self)

        return inside

    def belongs_to(self, token: object) -> bool:
        """Return whether ``token``, None for the thread's own, is the loop that waits for this."""
        return token is None or token is self._token.native_token

    def stack(self) -> Stack | None:
        """Return where the thread is, None if it is not in the function."""
        thread = self._thread
        return None if thread is None else thread_stack(thread, self._name)


class _ProcessCall:
    """The limiter of one call in a worker process, which holds the clock while it is admitted."""

    __slots__ = ("_limiter", "_world")

    def __init__(self, world: World, limiter: Limiter) -> None:
        self._world = world
        self._limiter = limiter

    async def __aenter__(self) -> None:
        await self._limiter.__aenter__()
        self._world.holds += 1

    async def __aexit__(self, *exc_info: object) -> bool | None:
        self._world.holds -= 1
        return await self._limiter.__aexit__(*exc_info)


@contextmanager
def watched(world: World, backend: str) -> Generator[None]:
    """Tell ``world`` of its threads and processes inside the block."""
    global _watching  # noqa: PLW0603 - one world runs in a process at a time
    with replaced(backend), clock.holding_by(partial(_hold, world)):
        _watching = world
        try:
            yield
        finally:
            _watching = None


@contextmanager
def _hold(world: World) -> Generator[None]:
    """Hold the clock of ``world`` inside the block, if that is in its event loop."""
    held = int(threading.get_ident() == world.thread)
    world.holds += held
    try:
        yield
    finally:
        world.holds -= held


@contextmanager
def replaced(backend: str) -> Generator[None]:
    """
    Have our own entry points in the place of anyio's inside the block, which may be nested.

    They do nothing of their own while no world runs. A search holds them across its runs: what
    CPython has cached of a class is lost whenever the class changes.
    """
    _replacing[backend] += 1
    try:
        if _replacing[backend] > 1:
            yield
            return
        before = entries(backend)
        run_in_process = to_process.run_sync
        try:
            _replace(get_async_backend(backend), to_process)
            yield
        finally:
            cast("Any", to_process).run_sync = run_in_process
            for name, entry in before.items():
                setattr(get_async_backend(backend), name, entry)
    finally:
        _replacing[backend] -= 1


def _replace(owner: Any, processes: Any) -> None:
    to_thread = getattr(owner, TO_THREAD)
    from_thread = getattr(owner, FROM_THREAD)
    run_in_process = processes.run_sync

    async def watched_to_thread(
        cls: Any,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        abandon_on_cancel: bool = False,  # noqa: FBT001, FBT002 - anyio's signature
        limiter: Any = None,
    ) -> Any:
        world = _watching
        if world is None or threading.get_ident() != world.thread:
            return await to_thread(func, args, abandon_on_cancel, limiter)
        if limiter is None:
            limiter = cls.current_default_thread_limiter()
        call = WorkerCall(world, func, limiter)
        try:
            return await to_thread(call, args, abandon_on_cancel, call)
        finally:
            world.hosts.discard(call)

    def watched_from_thread(
        _cls: Any, func: CoroutineFunction, args: tuple[Any, ...], token: object
    ) -> Any:
        call: WorkerCall | None = getattr(_here, "call", None)
        if call is not None and call.belongs_to(token):
            func = call.unfrozen(func)
        return from_thread(func, args, token)

    @wraps(run_in_process)
    async def watched_in_process(
        func: Callable[..., Any], *args: Any, limiter: Any = None, **options: Any
    ) -> Any:
        world = _watching
        if world is not None and threading.get_ident() == world.thread:
            if limiter is None:
                limiter = to_process.current_default_process_limiter()
            limiter = _ProcessCall(world, limiter)
        return await run_in_process(func, *args, limiter=limiter, **options)

    setattr(owner, TO_THREAD, classmethod(watched_to_thread))
    setattr(owner, FROM_THREAD, classmethod(watched_from_thread))
    processes.run_sync = watched_in_process


def entries(backend: str) -> dict[str, Any]:
    """
    Return those methods of a backend class that are replaced while a world runs.

    Raises:
        RuntimeError: This version of anyio has not got them.
    """
    owner: Any = get_async_backend(backend)
    methods = cast("dict[str, Any]", vars(owner))
    missing = [
        name for name in (TO_THREAD, FROM_THREAD) if not isinstance(methods.get(name), classmethod)
    ]
    if missing:
        msg = (
            f"mtaio.testing cannot see worker threads: this version of anyio has no classmethod "
            f"{' and no '.join(missing)} in {owner!r}. Use a version that mtaio was tested with."
        )
        raise RuntimeError(msg)
    return {name: methods[name] for name in (TO_THREAD, FROM_THREAD)}
