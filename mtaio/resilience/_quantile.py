"""
The duration that a given part of the latest calls stayed below.

Promise: it follows a change within a few dozen calls, and says nothing before it has seen enough.
Cost: one write for each call, and a sort of the window for each eighth of it: half a microsecond a
call, whatever the quantile.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

__all__ = ["Quantile", "parse_quantile"]

_FORM: Final = re.compile(r"p([1-9][0-9])")

_ABOVE: Final = 1.001
"""On a virtual clock calls take exactly as long as each other, but for the last digits."""


def parse_quantile(text: str) -> float:
    """Return the part that ``text``, such as "p95", stands for."""
    found = _FORM.fullmatch(text)
    if found is None:
        msg = f"after={text!r} is not a quantile. Pass one from 'p10' to 'p99', or seconds."
        raise ValueError(msg)
    return int(found[1]) / 100


class Quantile:
    """
    The quantile ``part`` of the latest durations.

    Args:
        part: From 0 to 1, neither included.

    Attributes:
        value: A little more than the quantile, in seconds, so that durations which are all the same
            are not above it; None while there are too few durations.
    """

    # Invariant: _latest has the durations of the window, the oldest first; `value` is that of
    # _latest as it was at the last of every _step additions.
    __slots__ = ("_latest", "_left", "_part", "_step", "value")

    def __init__(self, part: float) -> None:
        # Eight durations lie above the quantile in a full window, two when it is first told.
        window = max(64, round(8 / (1 - part)))
        self._part = part
        self._step = window // 8
        self._left = window // 4
        self._latest: deque[float] = deque(maxlen=window)
        self.value: float | None = None

    def add(self, seconds: float) -> None:
        """Add a duration."""
        self._latest.append(seconds)
        self._left -= 1
        if not self._left:
            self._left = self._step
            ordered = sorted(self._latest)
            self.value = ordered[int(self._part * len(ordered))] * _ABOVE
