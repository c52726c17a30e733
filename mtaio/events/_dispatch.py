"""
One event on its way through its listeners, tier by tier, and the errors that they raise.

Promise: every listener of a tier has ended before the next tier starts; one that fails does not
stop the others of its tier. An emit that is cancelled, or hit by a ``BaseException``, cancels its
handlers, waits for them, and logs the errors that its caller does not get. Each error is reported
once: to ``on_error``, or by the policy, or to the log; none is emitted, and none goes to
``on_error`` twice.

A tier runs in the caller's task. When several of its handlers are async, the first that really
suspends makes the rest start, each in a task of its own. The task group for them is opened before
any handler runs: one that has suspended may be inside cancel scopes of its own, and a scope opened
then would close in the wrong order.
"""

from __future__ import annotations

from contextvars import copy_context
from inspect import isasyncgen, isawaitable, isgenerator
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

import anyio

from mtaio._internal.callables import close_unstarted, name_of
from mtaio._internal.cancellation import failure_in, without_cancellation
from mtaio._internal.checkpoints import checkpoint_if_cancelled
from mtaio._internal.signature import check_takes
from mtaio._internal.steps import begin
from mtaio.events._registry import IGNORED, check_handler, timed_call
from mtaio.events._stream import Blocked
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtaio._internal.histogram import Histogram
    from mtaio.events._event import Event
    from mtaio.events._registry import Listener, Tier, Topic

__all__ = ["Dispatch", "ErrorPolicy", "Policy"]

ErrorPolicy = Literal["raise", "continue", "log"]
"""What happens if a handler fails; see the option ``errors`` of `EventEmitter`."""

_LAST: Final = (2**63, 0)
"""The rank of an error that is not a listener's."""

_BY_RANK: Final = itemgetter(0)


class Policy:
    """
    What all emits of one emitter share.

    Args:
        errors: As for `EventEmitter`.
        on_error: As for `EventEmitter`.
        concurrent: As for `EventEmitter`.

    Invariant: ``waiting`` counts the emits that wait for space in a stream.
    """

    __slots__ = ("concurrent", "durations", "errors", "on_error", "waiting")

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
            check_handler("on_error", on_error, way_out=way_out)
            check_takes("on_error", on_error, "error", "event", "handler", way_out=way_out)
        self.errors: ErrorPolicy = errors
        self.on_error: Callable[[Exception, Event[Any], Any], object] | None = on_error
        self.concurrent: bool = concurrent
        self.waiting: int = 0
        self.durations: Histogram | None = None
        """How long handlers run, if that is recorded."""


class Dispatch:
    """
    The state of one emit.

    Invariants:
    - ``_errors`` are those not reported yet: the rank of the listener, what the user knows it as,
      and the error;
    - ``_blocked`` are the events of this tier that wait for space in full streams;
    - ``_unfinished`` counts the walks through a concurrent tier that have not ended.
    """

    __slots__ = ("_blocked", "_errors", "_event", "_policy", "_topic", "_unfinished")

    def __init__(self, policy: Policy, topic: Topic, event: Event[Any]) -> None:
        self._policy = policy
        self._topic = topic
        self._event = event
        self._errors: list[tuple[tuple[int, int], object, Exception]] = []
        self._blocked: list[Blocked] = []
        self._unfinished = 0

    async def run(self, tiers: tuple[Tier, ...]) -> None:
        """Take the event through ``tiers``, and raise what the error policy says."""
        try:
            for concurrent, tier in tiers:
                if concurrent:
                    await self._walk_concurrently(iter(tier))
                else:
                    await self._walk(iter(tier))
                if self._blocked:
                    await self._wait_for_space()
                if self._event.stopped or (self._errors and self._policy.errors == "raise"):
                    break
        except BaseException:
            self._abandon()
            raise
        if self._errors:
            self._raise_errors()

    async def resume(
        self, tiers: tuple[Tier, ...], result: Any, error: BaseException | None
    ) -> None:
        """
        Go on after the emitter itself has called the only listener.

        Args:
            tiers: The tier of that listener.
            result: What it returned.
            error: What it raised instead, which is raised again if it is no failure.
        """
        listener = tiers[0][1][0]
        failure: Exception | None = None
        try:
            try:
                if error is not None:
                    raise error  # noqa: TRY301 - what both raise is dealt with below
                handled = await self._settle(result)
                self._topic.tally.handled += handled  # not in one line, which reads it too early
            except BaseException as raised:
                failure = _failure(listener.subject, raised, own_task=False)
                if failure is None:
                    raise
                await self._fail(listener, failure)
            if self._blocked:
                await self._wait_for_space()
        except BaseException:
            self._abandon()
            raise
        finally:
            del error, failure  # which hold this frame
        if self._errors:
            self._raise_errors()

    # ---- one tier --------------------------------------------------------------------------------

    async def _walk(self, listeners: Iterator[Listener], *, own_task: bool = False) -> None:
        """
        Call one listener after another; stop early if the rest was given to other tasks.

        Args:
            listeners: What is left of a tier.
            own_task: Whether this is a task of the emit, or that of its caller.
        """
        event = self._event
        topic = self._topic
        durations = self._policy.durations
        for listener in listeners:
            call = listener.call
            if call is None:
                call = listener.claim()
                if call is None:
                    continue
            if durations is not None:
                call = timed_call(durations, listener, call)
            try:
                result = call(event)
                if listener.is_async:
                    await result
                elif result is not None and not await self._settle(result):
                    continue
            except BaseException as end:  # noqa: BLE001 - raised again if it is no failure
                failure = _failure(listener.subject, end, own_task=own_task)
                try:
                    if failure is None:
                        raise
                    await self._fail(listener, failure, own_task=own_task)
                finally:
                    del failure  # it holds this frame
            else:
                topic.tally.handled += 1

    async def _walk_concurrently(self, listeners: Iterator[Listener]) -> None:
        """Walk through a tier in a task group; once a handler suspends, the rest gets tasks."""
        context = copy_context()  # before a handler changes it
        tasks: list[anyio.TaskHandle[Any]] = []
        fatal: BaseException | None = None
        self._unfinished = 1
        try:
            async with anyio.create_task_group() as group:
                start: Callable[..., anyio.TaskHandle[Any]] = group.start_soon
                first = begin(self._walk(listeners))
                if first is not None:
                    label = f"handlers of {self._event.name!r}"
                    for part in _parts(listeners):
                        self._unfinished += 1
                        tasks.append(context.run(start, self._walk_in_task, part, name=label))
                    await first
                self._unfinished -= 1
        except BaseExceptionGroup as errors:
            fatal = self._fatal(errors)
            if fatal is None:
                raise
        finally:
            if self._unfinished:
                for task in tasks:
                    close_unstarted(task.coro)
        if fatal is not None:
            try:
                raise fatal
            finally:
                del fatal  # it holds this frame
        if self._unfinished:
            # On asyncio a group may end normally although it is cancelled, as its tasks end.
            await checkpoint_if_cancelled()
            name = self._event.name
            msg = (
                f"handlers of {name!r} were cancelled although the emit was not. Look for code "
                f"that cancels tasks it does not own, such as all of asyncio.all_tasks()."
            )
            self._keep(_LAST, name, StrayCancellationError(msg))

    async def _walk_in_task(self, part: Iterator[Listener]) -> None:
        await self._walk(part, own_task=True)
        self._unfinished -= 1

    def _fatal(self, errors: BaseExceptionGroup[BaseException]) -> BaseException | None:
        """Return what to raise for the errors of the task group; None if it was cancelled."""
        rest = cast("BaseExceptionGroup[BaseException] | None", without_cancellation(errors))
        if rest is None:
            return None
        if len(rest.exceptions) == 1:
            return rest.exceptions[0]
        return BaseExceptionGroup(f"handlers of {self._event.name!r} failed", rest.exceptions)

    async def _settle(self, result: Any) -> bool:
        """Act on the result of a plain call; return whether the event was handled."""
        if isinstance(result, Blocked):
            self._blocked.append(result)
            return False
        if result is IGNORED:
            return False
        if isawaitable(result):
            await result
        elif isgenerator(result) or isasyncgen(result):
            msg = (
                f"the handler returned {result!r}, a generator, which is not iterated. Iterate it "
                f"in the handler, or return nothing."
            )
            raise TypeError(msg)
        return True

    # ---- full streams ----------------------------------------------------------------------------

    async def _wait_for_space(self) -> None:
        self._policy.waiting += 1
        try:
            for blocked in self._blocked:
                await blocked.wait()
        finally:
            self._policy.waiting -= 1
        self._leave_streams()

    def _leave_streams(self) -> None:
        for blocked in self._blocked:
            if blocked.taken:
                self._topic.tally.handled += 1
            else:
                blocked.withdraw()
        self._blocked.clear()

    # ---- errors ----------------------------------------------------------------------------------

    async def _fail(self, listener: Listener, error: Exception, *, own_task: bool = False) -> None:
        """Hand the error of a listener to ``on_error``, or without one to the policy."""
        self._topic.tally.failed += 1
        subject = listener.subject
        on_error = self._policy.on_error
        if on_error is None:
            self._keep(listener.rank, subject, error)
            return
        try:
            result = on_error(error, self._event, subject)
            if isawaitable(result):
                await result
        except BaseException as end:
            self._keep(listener.rank, subject, error)
            own = _failure(on_error, end, own_task=own_task)
            if own is None:
                raise
            self._keep(listener.rank, on_error, own)  # never emitted, and not handed to it again

    def _keep(self, rank: tuple[int, int], subject: object, error: Exception) -> None:
        if self._policy.errors == "log":
            self._log(subject, error)
        else:
            self._errors.append((rank, subject, error))

    def _raise_errors(self) -> None:
        errors = [error for _, _, error in sorted(self._errors, key=_BY_RANK)]
        self._errors.clear()
        msg = f"handlers of {self._event.name!r} failed"
        raise ExceptionGroup(msg, errors) from None  # it holds what would be its context

    def _abandon(self) -> None:
        """Leave nothing behind: the emit is cancelled, or ends with a BaseException."""
        self._leave_streams()
        for _, subject, error in sorted(self._errors, key=_BY_RANK):
            self._log(subject, error)
        self._errors.clear()

    def _log(self, subject: object, error: Exception) -> None:
        from logging import getLogger  # noqa: PLC0415 - most programs never come here

        label = name_of(subject) if callable(subject) else str(subject)
        getLogger("mtaio.events").error(
            "%s failed on event %r", label, self._event.name, exc_info=error
        )


def _failure(subject: object, end: BaseException, *, own_task: bool) -> Exception | None:
    """
    Return the failure with which ``subject`` ended; None if there is none.

    A stray cancellation is one: it would end the rest of the tier in silence. One
    that was asked for may come in a group with an error, from a nursery of trio's.
    """
    failure = failure_in(end, name_of(subject), own_task=own_task)
    return failure if isinstance(failure, Exception) else None


def _parts(listeners: Iterator[Listener]) -> Iterator[Iterator[Listener]]:
    """Cut what is left of a tier into tasks: a plain handler does not wait for an async one."""
    part: list[Listener] = []
    for listener in listeners:
        part.append(listener)
        if listener.is_async:
            yield iter(part)
            part = []
    if part:
        yield iter(part)
