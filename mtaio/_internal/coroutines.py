"""
What becomes of a coroutine that was handed over and is not going to be awaited.

Promise: one that never started is closed, so that the interpreter does not warn about it; one that
runs, or waits in somebody else's task, is left alone.
"""

from __future__ import annotations

import inspect

__all__ = ["close_unstarted"]


def close_unstarted(call: object) -> None:
    """Close ``call`` if it is a coroutine that has not begun."""
    if inspect.iscoroutine(call) and inspect.getcoroutinestate(call) == inspect.CORO_CREATED:
        call.close()
