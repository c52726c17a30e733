"""
Leaving a task group by hand.

Promise: what the group makes of its end is returned, whatever it is, so that a block which owns a
group can say itself what its end is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


class Left(NamedTuple):
    """How a task group ended."""

    swallowed: bool = False
    """Whether it took what its body ended with for its own cancellation, which ends there."""
    raised: BaseException | None = None
    """What it raised: that again, a cancellation from outside, or a group of errors."""
    errors: tuple[BaseException, ...] = ()
    """The errors in that group."""


async def leave(group: TaskGroup, reason: BaseException | None) -> Left:
    """Leave ``group``, whose body ended with ``reason``."""
    kind, trace = (None, None) if reason is None else (type(reason), reason.__traceback__)
    try:
        answer = await group.__aexit__(kind, reason, trace)
        return Left(swallowed=bool(answer) and reason is not None)  # trio's is True for nothing too
    except BaseExceptionGroup as errors:
        return Left(raised=errors, errors=errors.exceptions)
    except BaseException as error:  # noqa: BLE001 - returned
        return Left(raised=error)
    finally:
        del reason, trace  # which may hold this frame
