"""
A token bucket with a line before it: everything about waiting for tokens.

Promise: tokens are taken in the order of asking, each time by the task that asked, in the step in
which it goes on; a task that gives up, however it is told to, has taken nothing, and those behind
move up at once. One timer exists at most, the head's.
Cost: two events and a timer for a request that waits alone, an event for each that queues.
Why nobody hands tokens to a sleeping task: docs/en/design/rate-limiting.md.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import NoReturn

import anyio

from mtaio._internal import checks
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.clock import loop_deadline
from mtaio.exceptions import RateLimitError, RateLimitTimeoutError
from mtaio.resources._bucket import TICK, Bucket
from mtaio.resources._line import Line, Waiter

__all__ = ["QueuedBucket", "Tally"]


class Tally:
    """What became of those who did not get their tokens at once, in one line or in many."""

    __slots__ = ("cancelled", "rejected", "waiters")

    def __init__(self) -> None:
        self.cancelled = 0
        self.rejected = 0
        self.waiters = 0


class QueuedBucket(Bucket):
    """
    A bucket, and the line of tasks that wait for its tokens.

    Args:
        rate: As for `Bucket`.
        burst: As for `Bucket`.
        per: As for `Bucket`.
        slack: Seconds by which a waiter served late may be counted as served earlier.
        name: For messages.
    """

    # Invariants:
    # - nobody takes tokens that would delay a waiter who came before;
    # - only the head of _line sleeps until a moment, hence FIFO and one timer;
    # - a waiter takes its tokens in its own task, in the step in which it leaves the line;
    # - a call that finds _granted at _yield_at or beyond yields before it takes anything.
    __slots__ = ("_granted", "_line", "_name", "_slack", "_tally", "_yield_at")

    def __init__(
        self,
        rate: float,
        burst: float | None,
        *,
        per: float,
        slack: float,
        name: str | None,
    ) -> None:
        super().__init__(rate, burst, per=per)
        way_out = "Pass seconds >= 0, a few times what the event loop may be late."
        if checks.at_least("slack", slack, 0, way_out=way_out) == math.inf:
            msg = f"slack={slack!r} would lift the limit for whoever waits. {way_out}"
            raise ValueError(msg)
        self._slack = slack
        self._name = name
        self._line: Line | None = None  # until somebody waits
        self._tally = Tally()
        self._granted: int = 0
        self._yield_at = FAST_CALLS - 1

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self._limits()}>"

    def _limits(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        per = "s" if self._per == 1 else f"{self._per!r} s"
        burst = math.inf if self._burst is None else self._burst
        return f"{name} {self._rate!r}/{per} burst={burst!r}"

    def _living_line(self) -> Line | None:
        """Return the line, without waiters whose event loop is over."""
        line = self._line
        if line and line.loop.is_over():
            self._drop(line)
        return line

    def _reachable_line(self) -> Line | None:
        """Return the line, if its waiters can be woken from here."""
        line = self._living_line()
        if line:
            line.loop.bind(self, waiting=True)
        return line

    def _drop(self, line: Line) -> None:
        self._tally.waiters -= len(line)
        line.drop()

    def _wait(self, tokens: float, moment: float, line: Line | None) -> float:
        """Return in how many seconds ``tokens`` will be there, after those asked for already."""
        return self._due(tokens + line.tokens if line else tokens, moment) - moment

    def _acquire_nowait(self, tokens: float) -> None:
        """Do what ``acquire_nowait`` promises."""
        self._check(tokens)
        moment = self._moment()
        wait = self._wait(tokens, moment, self._living_line()) if tokens else 0.0
        if wait:
            self._tally.rejected += 1
            msg = f"{self!r} cannot grant tokens={tokens!r} now, only in {wait:.6g} s."
            raise RateLimitError(msg, retry_after=wait, name=self._name)
        self._take(tokens, moment)
        self._granted += 1

    def _join(self, tokens: float, timeout: float | None) -> Waiter | None:
        """Grant what is asked for, or put it in the line, or raise because waiting is in vain."""
        self._check(tokens)
        checks.timeout("timeout", timeout)
        line = self._line
        if line and line.loop.bind(self, waiting=True):
            self._drop(line)
        moment = self._moment()
        wait = self._wait(tokens, moment, line) if tokens else 0.0
        if timeout is not None and wait > timeout + TICK:
            self._tally.rejected += 1
            raise self._late(tokens, wait, timeout, moment + timeout)
        if self._granted < self._yield_at and not (tokens and (wait or line)):
            self._take(tokens, moment)
            self._granted += 1
            return None
        return self._enter(tokens, moment, timeout)

    def _enter(self, tokens: float, moment: float, timeout: float | None) -> Waiter:
        """Let a waiter join the line; without tokens to wait for, a line of its own."""
        line = self._line
        if line is None or not tokens:
            line = Line()
            if tokens:
                self._line = line
        if not line:
            line.loop.bind(self, waiting=False)
        waiter = Waiter(line, tokens, moment, timeout)
        line.join(waiter)
        self._tally.waiters += 1
        return waiter

    async def _queue(self, waiter: Waiter) -> None:
        """Take what a waiter asks for once all before it are gone; yields at least once."""
        tokens = waiter.tokens
        moment = waiter.joined
        yielded = False
        try:
            while True:
                if waiter.line.head() is not waiter:
                    bell = waiter.bell = anyio.Event()
                    await bell.wait()
                    moment = self._moment()
                elif self._due(tokens, moment) > moment:
                    moment = await self._sleep(waiter, moment)
                elif yielded:
                    break
                else:
                    await checkpoint()
                    moment = self._moment()
                yielded = True
                if waiter.expired or tokens > self._most:
                    self._give_up(waiter, moment)
            # Late, as all are who slept, it counts as served when it could have been.
            self._take(tokens, min(moment, max(waiter.joined, moment - self._slack)))
            self._granted += 1
            self._yield_at = self._granted + FAST_CALLS - 1
        except RateLimitError:
            self._tally.rejected += 1
            raise
        except GeneratorExit:
            self._tally.cancelled += 1
            with suppress(RuntimeError):  # closed with its loop, which is over for all in the line
                self._leave(waiter)
            raise
        except BaseException:
            self._tally.cancelled += 1
            raise
        finally:
            self._leave(waiter)

    async def _refused(self) -> None:
        """Yield if it is time to: a loop over calls that are refused has to be fair as well."""
        if self._granted < self._yield_at:
            self._yield_at -= 1
        else:
            self._yield_at = self._granted + FAST_CALLS - 1
            await checkpoint()

    def _leave(self, waiter: Waiter) -> None:
        if waiter in waiter.line:
            self._tally.waiters -= 1
            waiter.line.leave(waiter)

    async def _sleep(self, head: Waiter, moment: float) -> float:
        """Sleep until the head is due, a deadline comes or the bell rings; return the moment."""
        line = head.line
        line.expire(moment)
        if head.expired:
            return moment
        until = due = self._due(head.tokens, moment)
        deadline = line.first_deadline()
        if deadline < due - TICK:
            until = deadline
        bell = head.bell = anyio.Event()
        if until == math.inf:
            await bell.wait()
            return self._moment()
        with anyio.CancelScope(deadline=loop_deadline(until)) as scope:
            await bell.wait()
        moment = self._moment()
        # The timer is right even where the clock, by rounding, is not there yet.
        return max(moment, until) if scope.cancelled_caught else moment

    def _give_up(self, waiter: Waiter, moment: float) -> NoReturn:
        tokens = waiter.tokens
        if waiter.timeout is not None and tokens <= self._most:
            wait = self._wait(0, moment, waiter.line)
            raise self._late(tokens, wait, waiter.timeout, waiter.deadline)
        msg = (
            f"{self!r} can no longer grant tokens={tokens!r}: burst was lowered to "
            f"{self._most!r} meanwhile. Acquire in smaller parts."
        )
        raise RateLimitError(msg, retry_after=math.inf, name=self._name)

    def _late(
        self, tokens: float, wait: float, timeout: float, deadline: float
    ) -> RateLimitTimeoutError:
        msg = f"{self!r} cannot grant tokens={tokens!r} within {timeout!r} s, only in {wait:.6g} s."
        return RateLimitTimeoutError(
            msg,
            retry_after=wait,
            timeout=timeout,
            deadline=loop_deadline(deadline),
            name=self._name,
        )
