"""
What a simulation asks of the event loop under it, and what is said if a loop cannot do it all.

Promise: a version of a backend that hides its steps loses exploration alone; virtual time needs
none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mtaio.testing._deadlock import Stack
    from mtaio.testing._steps import Steps


class Engine(Protocol):
    """What a world asks of the event loop under it."""

    def time(self) -> float:
        """Return the virtual time in seconds."""
        ...

    async def sleep_until(self, moment: float) -> None:
        """Sleep until virtual time is ``moment``, exactly."""
        ...

    async def settle(self) -> None:
        """Wait until every other task is blocked."""
        ...

    async def exhaust(self) -> None:
        """Wait until nothing more can happen unless time moves: no task runs and no thread."""
        ...

    def stacks(self) -> tuple[Stack, ...]:
        """Return where each task is."""
        ...

    def current_task(self) -> object:
        """Return the task that is running."""
        ...

    def watch(self, steps: Steps) -> None:
        """Tell ``steps`` of each step of a task, and let its schedule choose."""
        ...

    def guard_begins(self) -> object:
        """Note that the code under test begins in this task, and force that alone from now on."""
        ...

    def cancelled_outside(self) -> bool:
        """Tell whether this task was cancelled by somebody other than the engine."""
        ...

    def guard_ends(self) -> None:
        """Note that the code under test is over."""
        ...


class StepsUnseenError(RuntimeError):
    """The steps of tasks can be neither chosen nor watched with this version of a backend."""


def steps_unseen(backend: str, hook: str) -> StepsUnseenError:
    """Return the error that says so."""
    return StepsUnseenError(
        f"mtaio.testing cannot choose or see the steps of tasks on {backend}: this version of it "
        f"has no {hook} of the kind that mtaio was tested with. Virtual time works all the same; "
        f"leave schedule, sim.always() and Victim out, or use another version of {backend}."
    )
