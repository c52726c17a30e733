"""
What an emitter was told at its construction about its emits, and the block that it is in.

Promise: an unknown error policy is refused where the emitter is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from mtaio.events._listener import check_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.events._event import Event
    from mtaio.events._home import Home

__all__ = ["ErrorPolicy", "Rules"]

ErrorPolicy = Literal["raise", "continue", "log"]


class Rules:
    """
    What all emits of one emitter go by.

    Args:
        errors: As for `EventEmitter`.
        on_error: As for `EventEmitter`.
        concurrent: As for `EventEmitter`.

    Invariants:
    - ``home`` is the emitter's ``async with`` block, from entering to leaving;
    - ``waiting`` counts the emits that wait for room in a stream.
    """

    __slots__ = ("concurrent", "errors", "home", "on_error", "waiting")

    def __init__(
        self,
        errors: ErrorPolicy,
        on_error: Callable[[Exception, Event[Any], Any], object] | None,
        *,
        concurrent: bool,
    ) -> None:
        if errors not in get_args(ErrorPolicy):
            msg = (
                f'errors={errors!r} is unknown. Pass "raise" (stop after the tier, and raise), '
                f'"continue" (run all tiers, then raise) or "log".'
            )
            raise ValueError(msg)
        if on_error is not None:
            way_out = "Pass a function of three arguments: error, event, handler."
            check_call("on_error", on_error, way_out=way_out)
        self.errors: ErrorPolicy = errors
        self.on_error: Callable[[Exception, Event[Any], Any], object] | None = on_error
        self.concurrent: bool = concurrent
        self.home: Home | None = None
        self.waiting: int = 0
