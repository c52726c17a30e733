"""
Cancels a victim at each moment where cancellation can strike, one moment per run.

Promise: `injections` tries every moment exactly once; a victim may handle its cancellation as it
likes, and no other task of the run is cancelled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias, TypeVar, TypeVarTuple, final

import anyio

from mtaio._internal import checks
from mtaio._internal.frames import Window
from mtaio.testing._world import world_here

T = TypeVar("T")
Args = TypeVarTuple("Args")

Mode: TypeAlias = Literal["checkpoint", "step", "native"]
"""Where a `Victim` is cancelled: when it suspends, or between two steps of any tasks."""

MODES: Final[tuple[Mode, ...]] = ("checkpoint", "step", "native")


@final
class Victim:
    """
    A call to be cancelled at a chosen moment: ``await victim(afn, *args)``.

    The ``mode`` says which moments are counted:

    - ``"checkpoint"``: the call is cancelled the ``at``-th time that it suspends. This uses only
      public API.
    - ``"step"``: the call is cancelled just before the ``at``-th step of any task of the run during
      the call. This finds what is lost between waking up and running.
    - ``"native"``: like ``"step"``, but with ``asyncio.Task.cancel()``, which ignores shields.

    Args:
        mode: Where to cancel.
        at: The number of the moment, from 1; 0 to let the call run to its end.

    Raises:
        TypeError: ``at`` is not an int.
        ValueError: There is no such mode, or ``at`` is negative.

    Example:
        ```python
        import anyio

        from mtaio.testing import Victim, run


        async def scenario(victim: Victim) -> None:
            lock = anyio.Lock()

            async def work() -> None:
                async with lock:
                    await anyio.sleep(1)

            await victim(work)
            assert victim.cancelled
            assert not lock.locked()


        run(scenario, Victim("checkpoint", at=2))
        ```
    """

    # Invariants:
    # - moments counts those that have come, and stops with the one that was struck;
    # - strike and task, that which made the call, are None but while the victim is there; the task
    #   is so as well where there is no simulation.
    __slots__ = ("_strike", "_task", "at", "calls", "cancelled", "fired", "mode", "moments")

    def __init__(self, mode: Mode = "checkpoint", at: int = 0) -> None:
        if mode not in MODES:
            msg = f"mode={mode!r} is unknown. Pass one of {', '.join(map(repr, MODES))}."
            raise ValueError(msg)
        checks.count("at", at, least=0, way_out="Pass the number of a moment, or 0 for never.")
        self.mode: Mode = mode
        self.at: int = at
        self.calls: int = 0
        """How often it was called."""
        self.moments: int = 0
        """How many moments there were at which it could have been cancelled."""
        self.fired: bool = False
        """Whether the moment came."""
        self.cancelled: bool = False
        """Whether the latest call ended by the cancellation."""
        self._strike: Callable[[], object] | None = None
        self._task: object = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mode!r}, at={self.at!r})"

    async def __call__(self, afn: Callable[[*Args], Awaitable[T]], /, *args: *Args) -> T | None:
        """
        Await ``afn(*args)``, and cancel it when the moment comes.

        Returns:
            What ``afn`` returns; None if it was cancelled.

        Raises:
            TypeError: ``afn`` is not callable.
            RuntimeError: The victim is in a call already, its mode needs a simulation and none is
                running, or the backend's version does not show its steps.
            ValueError: The mode is ``"native"`` and the backend is not asyncio.
            BaseException: What ``afn`` raises.
        """
        checks.callable_(
            "afn", afn, way_out="Pass the coroutine function itself, and its arguments after it."
        )
        if self._strike is not None:
            msg = f"{self!r} is in the middle of a call. Make another Victim for another part."
            raise RuntimeError(msg)
        self.calls += 1
        self.cancelled = False
        world = world_here()
        if world is not None and world.engine is not None:
            self._task = world.engine.current_task()
            if world.steps is not None:
                world.steps.record(self._task).play(afn)
        try:
            if self.mode == "native":
                return await self._natively(afn, *args)
            return await self._in_scope(afn, *args)
        finally:
            self._strike = self._task = None

    async def _in_scope(self, afn: Callable[[*Args], Awaitable[T]], *args: *Args) -> T | None:
        with anyio.CancelScope() as scope:
            self._strike = scope.cancel
            if self.mode == "checkpoint":
                result: T = await _Ticking(_called(afn, args), self._moment)
                return result
            with self._between_steps():
                return await afn(*args)
        self.cancelled = scope.cancelled_caught
        return None

    async def _natively(self, afn: Callable[[*Args], Awaitable[T]], *args: *Args) -> T | None:
        import asyncio  # noqa: PLC0415 - the subject of this mode

        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        if task is None:
            msg = (
                "mode='native' cancels with asyncio.Task.cancel(), and this is not asyncio. Use "
                "'checkpoint' or 'step' here."
            )
            raise ValueError(msg)
        self._strike = task.cancel
        before = self.fired
        try:
            with self._between_steps():
                return await afn(*args)
        except asyncio.CancelledError:
            if self.fired == before:
                raise  # which came from elsewhere
            self.cancelled = True
            return None
        finally:
            if self.fired != before:
                task.uncancel()

    @contextmanager
    def _between_steps(self) -> Generator[None]:
        """Have each step inside the block counted as a moment."""
        world = world_here()
        if world is None:
            msg = (
                f"{self!r} cancels between the steps of tasks, and no simulation is running to "
                f"tell them. Use mtaio.testing.run() or a virtual_backend(), or 'checkpoint'."
            )
            raise RuntimeError(msg)
        strikes = world.observed().strikes
        strikes.append(self._moment)
        try:
            yield
        finally:
            strikes.remove(self._moment)

    def _moment(self) -> None:
        if self.fired or self._strike is None:
            return
        self.moments += 1
        if self.moments == self.at:
            self.fired = True
            world = world_here()
            if world is not None and world.steps is not None:
                who = world.steps.record(self._task)
                world.steps.note(f"{who} is cancelled ({self.mode}@{self.at})")
            self._strike()


class _Ticking(Window):
    """Awaits a coroutine, and calls ``tick`` whenever that suspends."""

    __slots__ = ("_tick",)

    def __init__(self, driven: Coroutine[Any, Any, Any], tick: Callable[[], None]) -> None:
        self.behind = driven
        self._tick = tick

    def __await__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        trap = self.behind.send(value)
        self._tick()
        return trap

    def throw(self, *error: Any) -> Any:
        trap = self.behind.throw(*error)
        self._tick()
        return trap

    def close(self) -> None:
        self.behind.close()


async def _called(afn: Callable[[*Args], Awaitable[T]], args: tuple[*Args]) -> T:
    __tracebackhide__ = True
    return await afn(*args)


def injections(mode: Mode = "checkpoint") -> Iterator[Victim]:
    """
    Yield victims that are cancelled at the first moment, the second, and so on.

    Run the scenario once with each victim; it has to pass each time. The last victim is not
    cancelled, because its call ended before the moment came.

    Args:
        mode: As for `Victim`.

    Raises:
        ValueError: There is no such mode.
        RuntimeError: The previous victim was not called, so nothing was cancelled.

    Example:
        ```python
        import anyio

        from mtaio.testing import Victim, injections, run


        async def scenario(victim: Victim) -> None:
            semaphore = anyio.Semaphore(1)

            async def work() -> None:
                async with semaphore:
                    await anyio.sleep(1)

            await victim(work)
            assert semaphore.value == 1


        for victim in injections("step"):
            run(scenario, victim)
        ```
    """
    Victim(mode)  # for its checks, at once
    return _injections(mode)


def _injections(mode: Mode) -> Iterator[Victim]:
    at = 0
    while True:
        at += 1
        victim = Victim(mode, at)
        yield victim
        if not victim.calls:
            msg = (
                f"injections() cannot go on: {victim!r} was not called, so nothing was cancelled. "
                f"Let the scenario await victim(afn, *args)."
            )
            raise RuntimeError(msg)
        if not victim.fired:
            return
