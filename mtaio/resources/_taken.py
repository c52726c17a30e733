"""
What one request has taken of a quota, to be settled when it is known what it has used.

Promise: tokens are granted in one step when the block is entered, and only `Taken.settle` changes
what they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, final

from mtaio._internal.copies import uncopied

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from mtaio._internal.clock import Tells

__all__ = ["Grant", "Taken", "Takes", "leave"]


class Grant:
    """
    Tokens that a quota has granted.

    Args:
        number: The number of the take.
        moment: When they were granted.
        timed_by: The clock of that moment.

    Attributes:
        more: What was found to be used beside, by the name of the limit: the number and moment of
            each such correction, and how much.
    """

    __slots__ = ("moment", "more", "number", "timed_by")

    def __init__(self, number: int, moment: float, timed_by: Tells) -> None:
        self.number: int = number
        self.moment: float = moment
        self.timed_by: Tells = timed_by
        self.more: dict[str, list[tuple[int, float, float]]] = {}


class Takes(Protocol):
    """What is taken from: a quota, seen by its blocks."""

    async def grant(self, costs: tuple[float, ...], timeout: float | None) -> Grant:
        """Wait for tokens of each limit, and take them."""
        ...

    def note_in_flight(self, costs: tuple[float, ...], sign: int) -> None:
        """Count what a block holds that begins (1) or ends (-1)."""
        ...

    def correct(self, grant: Grant, before: tuple[float, ...], after: tuple[float, ...]) -> None:
        """Count a grant as so much of each limit, and no longer as so much."""
        ...

    def costs(self, cost: Mapping[str, float], *, default: tuple[float, ...]) -> tuple[float, ...]:
        """Return the cost for each limit, in their order; raise for a name that is none."""
        ...

    def describe(self, costs: tuple[float, ...]) -> str:
        """Return a cost in words."""
        ...


@uncopied
@final
class Taken:
    """
    A block in which a request has taken what it needs from a `Quota`; returned by `Quota.take`.

    Nothing is given back automatically, however the block ends, since a server may count a failed
    request too. If the request was never sent or used less than it took, call `settle`.

    Example:
        ```python
        import anyio

        from mtaio import Quota

        quota = Quota(requests=120, tokens=40_000, per=60)


        async def main() -> None:
            async with quota.take(tokens=1500) as taken:
                used = 900  # what the server says when it has answered
                taken.settle(tokens=used)
            print(taken.cost)


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariant: _grant is None until the block is entered; _held is what the quota has counted as
    # in flight, None before and after the block.
    __slots__ = ("_costs", "_entered", "_grant", "_held", "_quota", "_timeout")

    def __init__(self, quota: Takes, costs: tuple[float, ...], timeout: float | None) -> None:
        self._quota = quota
        self._costs = costs
        self._timeout = timeout
        self._entered = False
        self._grant: Grant | None = None
        self._held: tuple[float, ...] | None = None

    def __repr__(self) -> str:
        return f"<Taken: {self._quota.describe(self._costs)} of {self._quota!r}>"

    @property
    def cost(self) -> tuple[float, ...]:
        """What currently counts as taken, in the order of the quota's limits."""
        return self._costs

    async def __aenter__(self) -> Self:
        """
        Take what the request costs, as `Quota.acquire` does.

        A checkpoint if `Quota.acquire` is one. If it is cancelled, it has taken nothing.

        Raises:
            LimitError, ValueError: As for `Quota.acquire`.
            RuntimeError: The block was entered before, or tasks of another running event loop are
                waiting.
        """
        if self._entered:
            msg = (
                f"{self!r} was entered before, and is for one request. Call take() for each "
                f"request."
            )
            raise RuntimeError(msg)
        self._entered = True
        self._grant = await self._quota.grant(self._costs, self._timeout)
        self._held = self._costs
        self._quota.note_in_flight(self._costs, 1)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Give nothing back; see `settle`.

        Not a checkpoint.
        """
        self._leave()

    def _leave(self) -> None:
        """End the block, which may have ended before."""
        if self._held is not None:
            self._quota.note_in_flight(self._held, -1)
            self._held = None

    def settle(self, **used: float) -> None:
        """
        Report how much of some limits was really used, to give back the rest or take more.

        It may be called in the block or after it, and again; the last call counts. Limits that are
        not named are not changed. A bucket gets back what it would hold if less had been taken in
        the first place: no more than it holds when full, and nothing if it has been full since. If
        more was used than is available, the limit goes into debt, and tasks that wait for it wait
        longer.

        Not a checkpoint. It can be called from any thread; outside the event loop's thread, it
        takes effect shortly afterwards.

        Args:
            **used: Amount used of each limit, 0 or more, such as ``tokens=900``.

        Raises:
            TypeError: A name is not that of a limit, or a value is not a number.
            ValueError: A value is negative, infinite or NaN.
            RuntimeError: The block was not entered, or not yet.
        """
        if self._grant is None:
            msg = f"{self!r} has taken nothing yet. Settle in its block, or after it."
            raise RuntimeError(msg)
        before = self._costs
        after = self._quota.costs(used, default=before)
        self._costs = after
        if after != before:
            self._quota.correct(self._grant, before, after)


leave = Taken._leave  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
"""What ends a block where there is none: that of a stream."""
