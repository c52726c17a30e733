"""
Health reports made in one event loop and awaited in another.

Promise: waiting ends after the given time, even if the loop that makes the report is blocked or
over. At most one request for each kind of report is pending, however many wait.
Why not ``anyio.from_thread.run``: it waits for ever if that loop ends.
"""

from __future__ import annotations

import contextvars
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from mtaio._internal import loops
from mtaio._internal.cancellation import Failure, classify
from mtaio.monitoring._delivery import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mtaio.monitoring._report import CheckKind, HealthReport

__all__ = ["Reports"]


class Reports:
    """
    The reports of one registry.

    Args:
        make: Makes a report on the checks of a kind; awaited in the loop that runs `serve`.
        loop: That loop, as `loops.current_loop` returned it.
    """

    # Invariants:
    # - _making and _scope belong to the loop that makes reports; _making has the scope of each
    #   report that is being made;
    # - _asked belongs to the loop that asks; a kind is in it from the request until its answer.
    # Each report has a task of the loop and none of a group's: when asyncio's loop ends, a group's
    # child that could not begin yet is said to be "never awaited".
    __slots__ = ("_asked", "_context", "_loop", "_make", "_making", "_none_left", "_scope")

    def __init__(
        self,
        make: Callable[[CheckKind | None], Awaitable[HealthReport]],
        loop: object,
    ) -> None:
        self._make: Final = make
        self._loop: Final = loop
        self._context: Final = contextvars.copy_context()
        self._scope: Final = anyio.CancelScope()
        self._making: set[anyio.CancelScope] = set()
        self._none_left: Final = anyio.Event()
        self._asked: dict[CheckKind | None, _Asked] = {}

    # ---- in the loop that makes them -------------------------------------------------------------

    async def serve(self) -> None:
        """Make the reports that are asked for, until `stop` or the end of the loop."""
        try:
            with self._scope:
                await anyio.sleep_forever()
        finally:
            self._scope.cancel()  # also where it was the loop that ended this
            for scope in self._making:
                scope.cancel()
            if self._making:
                with anyio.CancelScope(shield=True):
                    await self._none_left.wait()

    def stop(self) -> None:
        """End `serve`; called in its loop."""
        self._scope.cancel()

    def _want(self, kind: CheckKind | None, asker: object) -> None:
        answer = partial(self._answer, kind, asker)
        loops.start_task(self._loop, answer, self._context.copy())

    async def _answer(self, kind: CheckKind | None, asker: object) -> None:
        if self._scope.cancel_called:
            return
        report: HealthReport | None = None
        with anyio.CancelScope() as scope:
            self._making.add(scope)
            try:
                report = await self._make(kind)
            except BaseException as error:
                if not isinstance(classify(error), Failure):
                    raise  # also a native cancellation: asyncio ends with one of all tasks
                logger.exception("cannot make a health report")  # the next may succeed
            finally:
                self._making.remove(scope)
                if not self._making and self._scope.cancel_called:
                    self._none_left.set()
            loops.call_in(asker, partial(self._arrived, kind, report))

    # ---- in the loop that asks -------------------------------------------------------------------

    async def get(self, kind: CheckKind | None, *, within: float) -> HealthReport | None:
        """
        Return a report, None if it does not come in time.

        A checkpoint; cancelled, it leaves the request on its way, for the next caller.

        Args:
            kind: Which checks are run.
            within: Seconds to wait.
        """
        asked = self._asked.get(kind)
        if asked is None:
            asked = self._asked[kind] = _Asked()
            if not loops.call_in(self._loop, partial(self._want, kind, loops.current_loop())):
                self._arrived(kind, None)
        with anyio.move_on_after(within):
            await asked.answered.wait()
        return asked.report

    def _arrived(self, kind: CheckKind | None, report: HealthReport | None) -> None:
        asked = self._asked.pop(kind)
        asked.report = report
        asked.answered.set()


class _Asked:
    """A report that is on its way."""

    __slots__ = ("answered", "report")

    def __init__(self) -> None:
        self.answered: Final = anyio.Event()
        self.report: HealthReport | None = None
