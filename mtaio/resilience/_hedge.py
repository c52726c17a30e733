"""
A second attempt alongside a slow one: the first answer counts, and the other is cancelled.

Promise: every attempt belongs to the call and has ended when the call returns; a cancellation from
outside cancels all of them, starts none and is not an outcome; a second attempt that is refused
does not fail the call.
Cost: a task group for each call and an entry with one shared timer; a task only for a hedge.

Why the first attempt runs in the task of the caller, and which durations "p95" is taken from:
docs/en/design/resilience.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

from mtaio._internal import checks, clock
from mtaio._internal.copies import uncopied
from mtaio._internal.filters import Filter, check_filter
from mtaio._internal.statistics import COUNTER, GAUGE, snapshot
from mtaio.resilience._budget import Budget, record_call
from mtaio.resilience._part import Call, Next, StandalonePart
from mtaio.resilience._quantile import Quantile, parse_quantile
from mtaio.resilience._race import Hedging, Race
from mtaio.resilience._stream import OpenStream, opening_of

__all__ = ["Hedge", "HedgeStatistics"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeStatistics:
    """What a `Hedge` has done so far."""

    calls: int = field(metadata=COUNTER)
    """Calls made."""
    hedges: int = field(metadata=COUNTER)
    """Further attempts that were started, including those refused inside."""
    wins: int = field(metadata=COUNTER)
    """Calls answered by a further attempt."""
    rejected: int = field(metadata=COUNTER)
    """Further attempts refused, by the budget or by something inside the hedge."""
    after_seconds: float | None = field(metadata=GAUGE)
    """Seconds after which a call is hedged now; None while too few calls have been measured."""


@final
@uncopied
class Hedge(StandalonePart):
    """
    A part of a pipeline that makes further attempts if a call is slow; the first answer counts.

    It is the hedged request of Dean and Barroso ("The Tail at Scale", 2013). Use it for calls that
    may safely be made twice, to a service that is sometimes slow for reasons unrelated to the call.
    Every attempt goes through the parts inside the hedge, and takes a slot there. When one
    succeeds, the others are cancelled, and the call returns when they have ended. Results that come
    too late are dropped, so let the function return plain data, or pass ``discard`` if results must
    be closed. Streams that come too late are closed.

    Failures are not hedged. If no other attempt is in progress, a failure is raised at once, for a
    retry outside to handle; otherwise the call waits for the others. If all fail, the last error is
    raised, with a note that names the others. If an inner part refuses a further attempt with a
    `mtaio.exceptions.LimitError`, the call relies on those in progress.

    It may also be used by itself: ``hedge.run(fn)``, ``@hedge``. It can be created at module level
    and used by one event loop after another. A call is a checkpoint. If it is cancelled, it cancels
    all attempts and waits for them to end.

    Args:
        after: Seconds until the next attempt, more than 0, ``inf`` for none; or a quantile such as
            ``"p95"``, with which one call in twenty is hedged. Quantiles are measured over the
            first attempts of recent calls; nothing is hedged until about forty have succeeded.
        max_hedges: Maximum number of further attempts per call, at least 1, each ``after`` the
            previous one.
        on: Exceptions after which the call waits for the other attempts: a class, a tuple of
            classes, or a function from the exception to bool. Any other exception counts as the
            answer. An exception group counts if every exception in it does; a function is called
            with each.
        budget: A `Budget` for the further attempts of all calls; None for no limit. Without one, a
            service that is slow as a whole gets twice the load. Do not use the budget of a retry.
        discard: A function, plain or async, that closes a result the caller does not get, because
            it came too late or the call was cancelled meanwhile. The call waits for it, and shields
            it from cancellation for five seconds. Errors that it raises are logged. None if results
            need no closing.
        name: Name shown in messages and metrics.

    Raises:
        ValueError, TypeError: An argument is invalid; the message says what to pass instead.

    Example:
        ```python
        import anyio

        from mtaio import Pipeline
        from mtaio.resilience import Hedge

        api = Pipeline(Hedge(0.1))
        seconds = iter([0.5, 0.05])


        async def fetch() -> float:
            mine = next(seconds)
            await anyio.sleep(mine)
            return mine


        async def main() -> None:
            print(await api.run(fetch))  # 0.05, after 0.15 s


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_discard", "_given", "_hedging", "_name")

    kind: ClassVar[Literal["hedge"]] = "hedge"

    def __init__(
        self,
        after: float | str,
        *,
        max_hedges: int = 1,
        on: Filter = Exception,
        budget: Budget | None = None,
        discard: Callable[[Any], object] | None = None,
        name: str | None = None,
    ) -> None:
        seconds: float | None = None
        quantile: Quantile | None = None
        if isinstance(after, str):
            quantile = Quantile(parse_quantile(after))
        else:
            way_out = "Pass the seconds until the next attempt, or a quantile such as 'p95'."
            seconds = checks.at_least("after", after, 0, way_out=way_out)
            if not after:
                msg = f"after={after!r} would make every call twice. {way_out}"
                raise ValueError(msg)
        way_out = "Pass how many further attempts to make, at least 1."
        checks.count("max_hedges", max_hedges, way_out=way_out)
        check_filter(on)
        if budget is not None and not isinstance(budget, Budget):  # pyright: ignore[reportUnnecessaryIsInstance] - not typed callers
            msg = (
                f"budget={budget!r} is {checks.type_of(budget)}, not a Budget. Pass "
                f"Budget(0.1) for one hedge in ten calls, or None for no limit."
            )
            raise TypeError(msg)
        if discard is not None:
            way_out = "Pass a function of a result that closes it, or None."
            checks.callable_("discard", discard, way_out=way_out)
        self._discard = discard
        self._given = after
        self._name = name
        self._hedging = Hedging(
            self, seconds=seconds, quantile=quantile, max_hedges=max_hedges, on=on, budget=budget
        )

    def __str__(self) -> str:
        most = self._hedging.max_hedges
        hedges = "" if most == 1 else f", max_hedges={most}"
        budget = "" if self._hedging.budget is None else f", budget={self._hedging.budget}"
        return f"Hedge({self._given!r}{hedges}{budget})"

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        after = self._hedging.after
        when = "not yet" if after is None else f"after {after:.3g} s"
        return f"<Hedge{name}: {when}, {self._hedging.hedges} of {self._hedging.calls} calls>"

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def after(self) -> float | str:
        """Seconds until the next attempt, or the quantile, as it was given."""
        return self._given

    def statistics(self) -> HedgeStatistics:
        """
        Return a snapshot of the hedge.

        Not a checkpoint. It can be called from any thread.
        """
        hedging = self._hedging
        return snapshot(HedgeStatistics, hedging, after_seconds=hedging.after)

    def wrap(self, then: Next) -> Next:
        """Return an async function that calls ``then``, more than once if it is slow."""
        return self._wrap(then, self._discard)

    def wrap_stream(self, then: Next) -> Next:
        """Return an async function that opens a stream with ``then``, repeatedly if it is slow."""

        async def open_unscoped(call: Call) -> OpenStream:
            opened: OpenStream = await then(call)
            await opening_of(opened).checked(self)
            return opened

        return self._wrap(open_unscoped, OpenStream.aclose)

    def _wrap(self, then: Next, discard: Callable[[Any], object] | None) -> Next:
        hedging = self._hedging

        async def run(call: Call) -> Any:
            hedging.calls += 1
            if hedging.budget is not None:
                record_call(hedging.budget)
            after = hedging.after
            if after is not None and after != math.inf:
                return await Race(hedging, then, call, discard).run(after)
            started = clock.now()
            result = await then(call)
            hedging.first_took(clock.now() - started)
            return result

        return run
