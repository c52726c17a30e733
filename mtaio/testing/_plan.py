"""
One run of a search, as an object and as a word that can be pasted into a command line.

Promise: `Plan.parse` of a plan's text is that plan, and anything else is refused.
"""

from __future__ import annotations

import re
from typing import Final, cast

from mtaio.testing._inject import MODES, Mode, Victim
from mtaio.testing._schedule import Schedule

BACKENDS: Final = ("asyncio", "trio")
"""The backends that have virtual time."""

_WAY_OUT: Final = "Pass what a failure has printed, such as asyncio/tape=4:1,9:2/step@5."

_SEED: Final = re.compile(r"seed=([0-9]+)")
_TAPE: Final = re.compile(r"tape=((?:[0-9]+:[0-9]+(?:,[0-9]+:[0-9]+)*)?)")
_STRIKE: Final = re.compile(rf"({'|'.join(MODES)})@([0-9]+)")
_EAGER: Final = {"eager": True, "lazy": False}


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
        if backend not in BACKENDS:
            raise _refusal(text, f"{backend!r} is no backend with virtual time")
        found: dict[str, str] = {}
        for word in words:
            part = _part(word)
            if part is None:
                raise _refusal(text, f"{word!r} is not part of a plan")
            if part in found:
                raise _refusal(text, f"{found[part]!r} and {word!r} exclude each other")
            found[part] = word
        victim = None
        strike = _STRIKE.fullmatch(found.get("strike", ""))
        if strike is not None:
            victim = Victim(cast("Mode", strike[1]), int(strike[2]))
        order = found.get("order")
        if order is None:
            if "fair" in found or "eager" in found:
                raise _refusal(text, "it has neither a seed nor a tape")
            return cls(backend, None, victim)
        eager = _EAGER[found["eager"]] if "eager" in found else None
        schedule = _schedule(text, order, fair="fair" in found, eager=eager)
        return cls(backend, schedule, victim)


def _part(word: str) -> str | None:
    """Return which part of a plan a word is, None if it is none."""
    if _SEED.fullmatch(word) or _TAPE.fullmatch(word):
        return "order"
    if _STRIKE.fullmatch(word):
        return "strike"
    return "eager" if word in _EAGER else "fair" if word == "fair" else None


def _schedule(text: str, order: str, *, fair: bool, eager: bool | None) -> Schedule:
    seed = _SEED.fullmatch(order)
    if seed is not None:
        return Schedule(seed=int(seed[1]), fair=fair, eager=eager)
    marks = re.findall(r"([0-9]+):([0-9]+)", order)
    tape = {int(at): int(choice) for at, choice in marks}
    if len(tape) < len(marks):
        raise _refusal(text, "its tape chooses twice at one moment")
    return Schedule(tape=tape, fair=fair, eager=eager)


def _refusal(text: str, reason: str) -> ValueError:
    return ValueError(f"{text!r} cannot be replayed: {reason}. {_WAY_OUT}")


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
