"""
Flushes everything logged, through every handler, within a given time.

Promise: the call returns in time whatever a handler does, and raises no error of a handler. It
takes no handler's lock, nor logging's own, so a thread may call it while the others are blocked.
Cost: nothing until it is called; then a thread for each handler that is not an `AsyncFileHandler`
and has something to flush, at most 32.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, cast

from mtaio._internal import checks
from mtaio.logging import _shutdown
from mtaio.logging._handler import AsyncFileHandler

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Iterable

__all__ = ["flush_all"]

_NAME: Final = "mtaio flush"
_MOST: Final = 32
"""Threads that flush handlers at once. One that a handler never lets go counts until the end."""

_LOOK_AGAIN: Final = 0.001
"""Seconds between two looks at a queue that another thread empties."""

_KNOWN: Final = cast("list[weakref.ref[logging.Handler]]", vars(logging)["_handlerList"])
"""Where ``logging.shutdown`` finds the handlers, also those that no logger has."""


def flush_all(timeout: float) -> bool:
    """
    Wait until the operating system has everything that was logged before.

    This covers the handlers of all loggers, and those to which a ``MemoryHandler`` or a
    ``QueueListener`` passes records. Call it before the process ends in a way that does not flush,
    such as ``os._exit``. Before the interpreter's normal exit it is not needed.

    It blocks the thread for at most ``timeout`` seconds. Handlers are flushed concurrently in
    daemon threads, so one that is stuck does not delay the others. In async code, call it in a
    worker thread: ``await anyio.to_thread.run_sync(flush_all, 2.0)``.

    Records in a ``MemoryHandler`` or in the queue of a ``QueueHandler`` are passed on first, which
    may take half of ``timeout``. For a queue that is not a ``queue.Queue``, it only waits until
    that is empty.

    Args:
        timeout: Maximum seconds to wait, for all handlers together.

    Returns:
        False if a handler failed, did not finish in time, or could get no thread.

    Raises:
        TypeError: ``timeout`` is not a number.
        ValueError: ``timeout`` is negative or NaN.

    Example:
        ```python
        import logging

        from mtaio.logging import configure, flush_all

        with configure(console=False):
            logging.getLogger("shop").info("open")
            assert flush_all(timeout=2.0)
        ```
    """
    seconds = checks.at_least("timeout", timeout, 0, way_out="Pass seconds >= 0.")
    began = monotonic()
    half, until = began + seconds / 2, began + seconds
    memories, queues, rest = _handlers()
    passed_on = [
        _run(memories, half),
        _run([partial(_emptied, queue, half) for queue in queues], half),
        # The handlers that a listener has passed records to.
        not queues or _run(memories, half),
    ]
    requests = [(writer, writer.request_flush()) for writer in _shutdown.writers()]
    flushed = _run(rest, until)
    written = [writer.wait(each, max(0.0, until - monotonic())) for writer, each in requests]
    return all(passed_on) and flushed and all(written)


def _handlers() -> tuple[list[Callable[[], bool]], list[Any], list[Callable[[], bool]]]:
    """Return what flushes the memory handlers, the queues, and what flushes the other handlers."""
    handlers: Any = sys.modules.get("logging.handlers")  # without which there are none of its kinds
    memories: list[Callable[[], bool]] = []
    queues: list[Any] = []
    rest: list[Callable[[], bool]] = []
    for handler in _all_handlers():
        if handlers is not None and isinstance(handler, handlers.QueueHandler):
            queues.append(cast("Any", handler).queue)
        elif handlers is not None and isinstance(handler, handlers.MemoryHandler):
            memories.append(partial(_flushed, handler))
        elif isinstance(handler, AsyncFileHandler) or type(handler).flush is logging.Handler.flush:
            pass  # its writer is asked; it keeps nothing
        else:
            rest.append(partial(_flushed, handler))
    return memories, queues, rest


def _all_handlers() -> Iterable[logging.Handler]:
    """Return the handlers still referenced; other threads may make more during the call."""
    found = {id(each): each for ref in _KNOWN[:] if (each := ref()) is not None}
    # dictConfig makes logging forget the handlers there are, even if a logger keeps one.
    for logger in (logging.root, *logging.root.manager.loggerDict.copy().values()):
        if isinstance(logger, logging.Logger):
            found.update((id(each), each) for each in logger.handlers[:])
    return found.values()


def _flushed(handler: logging.Handler) -> bool:
    """Flush a handler, and return whether it could be."""
    try:
        handler.flush()
    except Exception:  # noqa: BLE001 - whatever it is, the other handlers are flushed
        # A stream that is closed has nothing to flush; its handler may have been forgotten.
        return getattr(getattr(handler, "stream", None), "closed", False) is True
    return True


def _emptied(queue: Any, until: float) -> bool:
    """Return whether another thread empties a queue by ``until``."""
    try:
        while queue.unfinished_tasks if hasattr(queue, "unfinished_tasks") else not queue.empty():
            if monotonic() >= until:
                return False
            sleep(_LOOK_AGAIN)
    except Exception:  # noqa: BLE001 - of a queue that cannot say, or is closed
        return False
    return True


def _run(calls: Iterable[Callable[[], bool]], until: float) -> bool:
    """Make all calls, in threads, and return whether each returned True by ``until``."""
    listed = list(calls)
    if not listed:
        return True
    waiting = iter(listed)  # which the threads share
    results: SimpleQueue[bool] = SimpleQueue()

    def work() -> None:
        for call in waiting:
            results.put(call())

    busy = sum(thread.name == _NAME for thread in threading.enumerate())
    started = 0
    with suppress(RuntimeError):  # there are too many, or the interpreter is exiting
        while started < min(len(listed), _MOST - busy):
            threading.Thread(target=work, name=_NAME, daemon=True).start()
            started += 1
    if not started:
        return False
    succeeded = True
    try:
        for _ in listed:
            left = min(max(0.0, until - monotonic()), threading.TIMEOUT_MAX)
            succeeded = results.get(timeout=left) and succeeded
    except Empty:
        return False
    return succeeded
