"""What the tests of pipelines call, and what they put into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import anyio

if TYPE_CHECKING:
    from mtaio.resilience import Call
    from mtaio.types import Next

__all__ = ["Failing", "Marked", "answer", "fail"]


async def answer(value: int = 1) -> int:
    """Return at once."""
    return value


async def fail(*_: object) -> int:
    """Fail at once."""
    raise ConnectionError


class Failing:
    """
    Fails the first calls, and notes when each began.

    Args:
        failures: How many fail.
        seconds: How long each takes.
    """

    def __init__(self, failures: int, seconds: float = 0.0) -> None:
        self.failures = failures
        self.seconds = seconds
        self.calls: list[float] = []

    async def __call__(self, value: int = 1) -> int:
        """Fail or return, after the seconds."""
        self.calls.append(anyio.current_time())
        if self.seconds:
            await anyio.sleep(self.seconds)
        if len(self.calls) <= self.failures:
            raise ConnectionError(len(self.calls))
        return value


class Marked:
    """A part of one's own: it notes who came by, and may say of which kind it is."""

    def __init__(self, mark: str, marks: list[str], kind: str = "") -> None:
        self.mark = mark
        self.marks = marks
        self.kind = kind
        self.after: float | str | None = None

    def __str__(self) -> str:
        return f"Marked({self.mark!r})"

    def wrap(self, then: Next) -> Next:
        """Note the way in and the way out."""

        async def run(call: Call) -> Any:
            self.marks.append(f"{self.mark} in")
            try:
                return await then(call)
            finally:
                self.marks.append(f"{self.mark} out")

        return run


class Bare:
    """A part of one's own that has statistics, but no numbers in them."""

    kind: ClassVar[str] = ""

    def wrap(self, then: Next) -> Next:
        """Leave it as it is."""
        return then

    def statistics(self) -> str:
        """Return no numbers."""
        return "fine"
