"""
What an item that raised means to its call: a failure, a timeout, or a cancellation to pass on.

Promise: an error of the item's own is never taken for a cancellation, nor a cancellation for an
error; a cancellation that nobody asked for is a failure of that item alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtaio._internal.cancellation import is_cancelled, stray_error, without_cancellation
from mtaio.core import _failures
from mtaio.core._call import name_of
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError

if TYPE_CHECKING:
    from mtaio.core._pool import Pool, Worker
    from mtaio.core._watch import Watched


def judge(pool: Pool, worker: Worker, index: int, item: Any, error: BaseException) -> bool:
    """
    Deal with the end of an item that raised.

    Returns:
        True if the worker has to re-raise: it is being cancelled, or the error is not one that an
        item may have (``KeyboardInterrupt`` and the like).
    """
    watched = worker.watched
    fired = watched is not None and watched.fired
    left = error if watched is None else watched.item_failed(error)
    rest = None if left is None else without_cancellation(left)
    if rest is None and not is_cancelled():
        subject = item if pool.subject is None else pool.subject
        worker.spent = left is not None  # the cancellation came from no scope of ours
        if watched is not None and fired:
            pool.counters.timed_out += 1
            rest = _timed_out(subject, pool.name, watched)
            rest.__cause__ = error  # its traceback shows where the item was waiting
        else:
            rest = stray_error(error, name_of(subject))
    if isinstance(rest, Exception):
        _record(pool, index, item, rest)
        return False
    if rest is None:
        pool.counters.cancelled += 1
    else:
        pool.counters.failed += 1
    return True


def _timed_out(subject: object, limited_by: str | None, watched: Watched) -> MTAIOTimeoutError:
    return MTAIOTimeoutError(
        f"{name_of(subject)} did not end within timeout={watched.timeout!r} s",
        timeout=watched.timeout,
        deadline=watched.due,
        name=limited_by,
    )


def _record(pool: Pool, index: int, item: Any, error: Exception) -> None:
    pool.counters.failed += 1
    if pool.errors == "return":
        put = pool.put if pool.put_error is None else pool.put_error
        put(index, error)
        return
    _failures.annotate(error, pool.subject, index, item, many=pool.many)
    pool.failures.append((index, error))
    if pool.errors == "raise":
        pool.stop()
    elif pool.gate is not None:
        pool.gate.skip(index)
