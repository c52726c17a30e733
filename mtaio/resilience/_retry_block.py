"""
A block that is retried: ``async for attempt in Retry(3): async with attempt: ...``.

Promise: it ends as the block does: without an error, with the last error, with a cancellation, and
at once with ``break`` and ``return``. A loop that does not enter its attempts is told so.
Cost: one object for the loop, one for each attempt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, final

from mtaio._internal import spans
from mtaio._internal.sentinel import UNSET
from mtaio.resilience._attempts import Attempts
from mtaio.resilience._retry import start

if TYPE_CHECKING:
    from types import TracebackType

    from mtaio.resilience._retry import Retry

__all__ = ["Attempt", "Tries"]

_LESSON = (
    "Write 'async for attempt in Retry(3):' and, in the loop, 'async with attempt:' around what is "
    "to be retried."
)


@final
class Attempt:
    """
    One attempt of a retried block, as yielded by ``async for attempt in Retry(3)``.

    An error that is to be retried does not leave the block; the next iteration of the loop tries
    again. Code that needs the result therefore belongs inside the block.

    Example:
        ```python
        import anyio

        from mtaio import Retry

        answers = iter([None, "fine"])


        async def main() -> None:
            async for attempt in Retry(3):
                async with attempt:
                    answer = next(answers)
                    if answer is None:
                        raise ConnectionError("nobody there")
                    print(answer, "at attempt", attempt.number)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariant: _seconds is None unless the block has failed and there is another attempt.
    __slots__ = ("_attempts", "_is_first", "_outer", "_result", "_seconds", "_span", "_state")

    def __init__(self, attempts: Attempts, *, is_first: bool) -> None:
        self._attempts = attempts
        self._is_first = is_first
        self._outer: Attempts | None = None
        self._result: Any = UNSET
        self._seconds: float | None = None
        self._span: spans.Span | None = None
        self._state: Literal["new", "entered", "succeeded", "failed"] = "new"

    def __repr__(self) -> str:
        return f"<Attempt {self.number}: {self._state}>"

    @property
    def number(self) -> int:
        """Number of the attempt; 1 is the first. Attempts that a service throttled do not count."""
        return self._attempts.attempt

    @property
    def result(self) -> Any:
        """The result, for the policy's ``until`` to judge: assign it in the block."""
        if self._result is UNSET:
            msg = "the attempt has no result yet. Assign it: attempt.result = ..."
            raise AttributeError(msg)
        return self._result

    @result.setter
    def result(self, value: Any) -> None:
        self._result = value

    async def __aenter__(self) -> Attempt:
        """
        Start the attempt.

        Not a checkpoint.
        """
        if self._state != "new":
            msg = f"{self!r} has been entered before. {_LESSON}"
            raise RuntimeError(msg)
        self._state = "entered"
        if not self._is_first:
            self._outer = self._attempts.enter()
        if spans.hook is not None:
            self._span = spans.begin("attempt", self, **{"mtaio.attempt": self.number})
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """
        End the attempt, and suppress an error that is to be retried.

        Not a checkpoint.
        """
        if self._span is not None:
            self._span.end(error)
        if not self._is_first:
            self._attempts.leave(self._outer)
        self._state = "succeeded" if error is None else "failed"
        if isinstance(error, Exception):
            self._seconds = self._attempts.after_error(error)
        return self._seconds is not None

    async def _ended(self, *, is_judged: bool) -> float | None:
        """
        Return the seconds to wait before the next attempt; None if there is none.

        Args:
            is_judged: Whether the policy judges the result, which ``break`` makes needless.
        """
        if self._state in {"new", "entered"}:
            msg = f"{self!r} was not completed when the loop continued. {_LESSON}"
            raise RuntimeError(msg)
        if self._state == "failed" or not is_judged:
            return self._seconds
        if self._result is UNSET:
            msg = (
                f"{self!r} has no result, and the policy has until=... to judge it. Assign it in "
                f"the block: attempt.result = ..."
            )
            raise RuntimeError(msg)
        return await self._attempts.after_result(self._result)


class Tries:
    """
    The attempts of one block, one after another.

    Args:
        policy: Decides how many there are.
    """

    __slots__ = ("_attempts", "_current", "_policy")

    def __init__(self, policy: Retry) -> None:
        self._policy = policy
        self._attempts: Attempts | None = None
        self._current: Attempt | None = None

    def __aiter__(self) -> Tries:
        return self

    async def __anext__(self) -> Attempt:
        current, attempts = self._current, self._attempts
        if current is None or attempts is None:
            self._attempts = attempts = Attempts(self._policy, None, start(self._policy))
        else:
            seconds = await current._ended(is_judged=self._policy.until is not None)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
            if seconds is None:
                raise StopAsyncIteration
            await attempts.sleep(seconds)
        self._current = Attempt(attempts, is_first=current is None)
        return self._current
