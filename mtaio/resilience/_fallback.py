"""
An answer for a call that has failed.

Promise: it is called once, for an ``Exception`` that ``on`` accepts or a result that ``failed``
does, never for a cancellation.
Cost: one coroutine; nothing is kept.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Literal, final

from mtaio._internal import checks
from mtaio._internal.callables import name_of
from mtaio._internal.cancellation import is_cancelled, raise_failure
from mtaio._internal.filters import Filter, accepts, check_filter, check_verdict
from mtaio._internal.statistics import snapshot
from mtaio.resilience._events import FellBack, emit, is_wanted
from mtaio.resilience._part import Call, Next, StandalonePart
from mtaio.resilience._statistics import FallbackStatistics
from mtaio.resilience._stream import OpenStream

__all__ = ["Fallback"]


@final
class Fallback(StandalonePart):
    """
    A part of a pipeline that replaces a failure by another result, such as a cached value.

    Parts outside of it do not see the failure, so it is usually the outermost. It may also be used
    by itself: ``fallback.run(fn)``, ``@fallback``.

    Args:
        fn: A function, plain or async, that returns the result to use instead. It is called with
            the error, or with the result that is a failure, and then the positional arguments of
            the call, including ``self`` of a decorated method; keyword-only arguments are left out.
            It may raise.
        on: Exceptions to replace: a class, a tuple of classes, or a function from the exception to
            bool. An exception group counts if every exception in it does; a function is called with
            each. Whatever a call raises while it is being cancelled passes.
        failed: A function that is called with the result of each call that raises nothing, and
            returns whether the result is a failure, such as a response with status 503. None if no
            result is. Streams have no result.
        name: Name shown in messages and metrics.

    Raises:
        TypeError: ``fn`` is not callable, ``on`` names no exceptions, or ``failed`` is not a plain
            function.

    Example:
        ```python
        import anyio

        from mtaio import Pipeline
        from mtaio.resilience import Fallback

        api = Pipeline(Fallback(lambda error, city: f"no news from {city}", on=OSError))


        @api
        async def weather(city: str) -> str:
            raise ConnectionError(city)


        async def main() -> None:
            print(await weather("Kyoto"))


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_failed", "_fn", "_name", "_on", "_used", "_verdict")

    kind: ClassVar[Literal["fallback"]] = "fallback"

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        on: Filter = Exception,
        failed: Callable[[Any], object] | None = None,
        name: str | None = None,
    ) -> None:
        way_out = "Pass a function of the error and the call's arguments that returns a result."
        checks.callable_("fn", fn, way_out=way_out)
        check_filter(on)
        if failed is not None:
            check_verdict("failed", failed)
        self._fn = fn
        self._verdict = failed
        self._on: Filter = on
        self._name = name
        self._used = 0
        self._failed = 0

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<Fallback{name} to {name_of(self._fn)}: used {self._used} times>"

    def __str__(self) -> str:
        return f"Fallback({self._name or name_of(self._fn)})"

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._name

    @property
    def on(self) -> Filter:
        """The exceptions that are replaced."""
        return self._on

    @property
    def is_quiet(self) -> bool:
        """Whether it replaces only exceptions, and no results."""
        return self._verdict is None

    def wrap(self, then: Next) -> Next:
        """Return an async function that calls ``then`` and replaces its failure."""
        on, verdict = self._on, self._verdict

        async def run(call: Call) -> Any:
            try:
                result = await then(call)
            except Exception as error:
                if not accepts(on, error) or is_cancelled():
                    raise  # nobody waits for an answer in a task that is being cancelled
                return await self._answer(call, error, error)
            if verdict is None or type(result) is OpenStream:
                return result
            if verdict(result) and not is_cancelled():
                return await self._answer(call, result, None)
            return result

        return run

    async def _answer(self, call: Call, failure: object, error: Exception | None) -> Any:
        """Answer for a call that ended with ``failure``, which is ``error`` or a result."""
        fn = self._fn
        try:
            try:
                answer = fn(failure, *call.args)
                if inspect.isawaitable(answer):
                    answer = await answer
            except BaseException as raised:
                raise_failure(raised, fn)
                raise
        except Exception:
            self._failed += 1
            raise
        self._used += 1
        if is_wanted(FellBack):
            emit(FellBack(name=self._name, function=name_of(call.fn), error=error))
        return answer

    def statistics(self) -> FallbackStatistics:
        """
        Return how often it was used.

        Not a checkpoint. It can be called from any thread.
        """
        return snapshot(FallbackStatistics, self)
