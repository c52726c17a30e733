"""
One run of a search, as an object and as a word that can be pasted into a command line.

Promise: `Plan.parse` of a plan's text is that plan.
"""

from __future__ import annotations

import re
from typing import Final, cast

from mtaio.testing._inject import MODES, Mode, Victim
from mtaio.testing._schedule import Schedule

_WAY_OUT: Final = "Pass what a failure has printed, such as asyncio/tape=4:1,9:2/step@5."

_CHOICE: Final = re.compile(r"(\d+):(\d+)")
_STRIKE: Final = re.compile(r"(\w+)@(\d+)")


class Plan:
    """
    On which backend to run, under which schedule, and where to strike.

    Args:
        backend: The name of the backend.
        schedule: Who runs next; None for the backend's own order.
        victim: Who is cancelled when; None for nobody.
    """

    __slots__ = ("backend", "schedule", "victim")

    def __init__(
        self, backend: str, schedule: Schedule | None, victim: Victim | None = None
    ) -> None:
        self.backend: str = backend
        self.schedule: Schedule | None = schedule
        self.victim: Victim | None = victim

    def __str__(self) -> str:
        parts = [self.backend]
        if self.schedule is not None:
            parts += _words(self.schedule)
        if self.victim is not None:
            parts.append(f"{self.victim.mode}@{self.victim.at}")
        return "/".join(parts)

    def under(self, schedule: Schedule) -> Plan:
        """Return the same plan under another schedule, with a new victim."""
        victim = self.victim and Victim(self.victim.mode, self.victim.at)
        return Plan(self.backend, schedule, victim)

    @classmethod
    def parse(cls, text: str) -> Plan:
        """
        Return the plan of which ``text`` is the text.

        Raises:
            ValueError: It is the text of none.
        """
        backend, *words = text.split("/")
        seed: int | None = None
        tape: dict[int, int] | None = None
        fair = False
        eager: bool | None = None
        victim: Victim | None = None
        for word in words:
            name, _, value = word.partition("=")
            strike = _STRIKE.fullmatch(word)
            if name == "seed" and value.isdecimal():
                seed = int(value)
            elif name == "tape" and all(map(_CHOICE.fullmatch, filter(None, value.split(",")))):
                tape = {int(at): int(choice) for at, choice in _CHOICE.findall(value)}
            elif word == "fair":
                fair = True
            elif word in _EAGER:
                eager = _EAGER[word]
            elif strike is not None and strike[1] in MODES:
                victim = Victim(cast("Mode", strike[1]), int(strike[2]))
            else:
                msg = f"{text!r} cannot be replayed: {word!r} is not part of a plan. {_WAY_OUT}"
                raise ValueError(msg)
        if seed is not None and tape is not None:
            msg = f"{text!r} cannot be replayed: a seed and a tape exclude each other. {_WAY_OUT}"
            raise ValueError(msg)
        if seed is None and tape is None:
            return cls(backend, None, victim)
        return cls(backend, Schedule(seed=seed, tape=tape, fair=fair, eager=eager), victim)


_EAGER: Final = {"eager": True, "lazy": False}


def _words(schedule: Schedule) -> list[str]:
    if schedule.seed is None:
        words = ["tape=" + ",".join(f"{at}:{choice}" for at, choice in schedule.tape.items())]
    else:
        words = [f"seed={schedule.seed}"]
    if schedule.fair:
        words.append("fair")
    if schedule.eager != (schedule.seed is None):
        words.append("eager" if schedule.eager else "lazy")
    return words
