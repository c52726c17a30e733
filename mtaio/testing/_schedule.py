"""
Who runs next: a decision for each moment at which several tasks could.

Promise: one schedule and one program give one run, on every Python version; the schedule that
always takes the oldest task is the empty tape; a tape that does not fit the run is told.
Why the candidates have one order: docs/en/design/exploration.md.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from mtaio._internal import checks

if TYPE_CHECKING:
    from collections.abc import Callable

_WAY_OUT = "Pass what a failure has printed, such as Schedule(tape={4: 1})."
_REPLAYED = "It was recorded with another program, backend or version: search anew."


class Schedule:
    """
    Decides which task takes the next step, wherever more than one could.

    Such moments are numbered from 0, and the candidates at each from 0, the oldest (the one that
    was woken first, and of those woken together the one made first). A *tape* gives the choices
    that differ from 0; a *seed* makes every choice at random. Pass it to `run`. It may be used for
    one run after another; ``repr`` is what to write down.

    Args:
        seed: The start of a sequence of random choices.
        tape: For the number of a choice the number of the candidate.
        fair: Whether every task that could run does so once before any runs twice, as trio
            guarantees. Without, a task may be kept waiting for as long as the choices want it,
            as one that waits for a slow network is.
        eager: Whether plain callbacks of asyncio run as soon as the step before is over, or at a
            moment of the schedule's choice too. Default: eager on a tape, not with a seed.
        strict: Whether a tape that does not fit the run is an error when the run is over. If not,
            choices count modulo the candidates, and those of moments that never came are ignored.

    Raises:
        TypeError: An argument has the wrong type, or there is a seed and a tape.
        ValueError: The seed or a number on the tape is negative.

    Example:
        ```python
        from mtaio.testing import Schedule, run


        async def main() -> str:
            return "the same run each time"


        assert run(main, schedule=Schedule(seed=17)) == run(main, schedule=Schedule(seed=17))
        ```
    """

    # Invariants:
    # - _log holds each choice of the latest run: which candidate, out of how many;
    # - pick never raises, since that would break the event loop; what does not fit is kept for
    #   `mismatch`.
    __slots__ = ("_draw", "_log", "_misfit", "_seed", "_tape", "eager", "fair", "runs", "strict")

    def __init__(
        self,
        *,
        seed: int | None = None,
        tape: Mapping[int, int] | None = None,
        fair: bool = False,
        eager: bool | None = None,
        strict: bool = True,
    ) -> None:
        if seed is not None and tape is not None:
            msg = f"seed={seed!r} and tape={tape!r} exclude each other. Pass one of them."
            raise TypeError(msg)
        if seed is not None:
            checks.count("seed", seed, least=0, way_out="Pass a whole number >= 0.")
        self._seed: int | None = seed
        self._tape: dict[int, int] = _checked({} if tape is None else tape)
        self.fair: bool = _flag("fair", fair)
        self.eager: bool = (seed is None) if eager is None else _flag("eager", eager)
        self.strict: bool = _flag("strict", strict)
        self._log: list[tuple[int, int]] = []
        self._misfit: str | None = None
        self._draw: Callable[[], float] | None = None
        self.runs: int = 0

    def __repr__(self) -> str:
        parts = [f"tape={self._tape!r}" if self._seed is None else f"seed={self._seed!r}"]
        if self.fair:
            parts.append("fair=True")
        if self.eager != (self._seed is None):
            parts.append(f"eager={self.eager!r}")
        if not self.strict:
            parts.append("strict=False")
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def seed(self) -> int | None:
        """The start of the random choices; None on a tape."""
        return self._seed

    @property
    def tape(self) -> dict[int, int]:
        """The choices other than 0 that were asked for; empty with a seed."""
        return dict(self._tape)

    @property
    def log(self) -> tuple[tuple[int, int], ...]:
        """Each choice of the latest run: the number of the candidate, and how many there were."""
        return tuple(self._log)

    def played(self) -> Schedule:
        """Return the choices of the latest run on a tape, for replay and for `shrink`."""
        tape = {at: choice for at, (choice, _) in enumerate(self._log) if choice}
        return Schedule(tape=tape, fair=self.fair, eager=self.eager)

    # ---- during a run ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Forget the run before."""
        self.runs += 1
        self._log = []
        self._misfit = None
        self._draw = None if self._seed is None else random.Random(self._seed).random  # noqa: S311 - to be repeated, not to be secret

    def pick(self, candidates: int) -> int:
        """Return the number of the candidate that takes the next step, of at least two."""
        if self._draw is not None:
            choice = int(self._draw() * candidates)
        else:
            choice = self._tape.get(len(self._log), 0)
            if choice >= candidates:
                if self._misfit is None:
                    self._misfit = (
                        f"choice {len(self._log)} is {choice}, but there were {candidates} "
                        f"candidates"
                    )
                choice %= candidates
        self._log.append((choice, candidates))
        return choice

    def mismatch(self) -> str | None:
        """Return why the tape does not fit the latest run, None if it does."""
        if not self.strict:
            return None
        misfit = self._misfit
        if misfit is None and self._tape and max(self._tape) >= len(self._log):
            misfit = f"there were only {len(self._log)} choices"
        return misfit and f"{self!r} does not fit this run: {misfit}. {_REPLAYED}"


def refuse_other(name: str, value: object) -> None:
    """Raise ``TypeError`` unless ``value`` is a schedule."""
    if not isinstance(value, Schedule):
        msg = (
            f"{name}={value!r} is a {type(value).__name__}, not a Schedule. Pass Schedule(seed=1), "
            f"Schedule(tape={{4: 1}}), or one after another from exhaustive()."
        )
        raise TypeError(msg)


def _flag(name: str, value: object) -> bool:
    """Return ``value`` if it is a bool."""
    if not isinstance(value, bool):
        msg = f"{name}={value!r} is a {type(value).__name__}, not a bool. Pass True or False."
        raise TypeError(msg)
    return value


def _checked(tape: object) -> dict[int, int]:
    """Return a tape as a dict of its own, without the zeros, if it is one."""
    if not isinstance(tape, Mapping):
        msg = f"tape={tape!r} is a {type(tape).__name__}, not a mapping. {_WAY_OUT}"
        raise TypeError(msg)
    choices = cast("Mapping[int, int]", tape)
    for at, choice in choices.items():
        checks.count("number of a choice on the tape", at, least=0, way_out=_WAY_OUT)
        checks.count(f"choice {at} on the tape", choice, least=0, way_out=_WAY_OUT)
    return {at: choices[at] for at in sorted(choices) if choices[at]}
