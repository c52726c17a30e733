"""
Other algorithms for an adaptive limit, written down from their published descriptions.

They are as their authors have them, with defaults of theirs, but that the least limit is 1 and the
first 10, as for ours: a least limit of 20, as in Netflix's, is above what the simulated service can
take, and would be what is measured.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._overload import Limit

__all__ = ["AIMD", "RIVALS", "Envoy", "Gradient2", "Probe", "Vegas"]

MOST: Final = 200

numbers: Final = itertools.count()
"""Seeds: each client has a jitter of its own."""


def within(limit: float, least: float = 1) -> float:
    """Return the limit between its bounds."""
    return min(MOST, max(least, limit))


class AIMD:
    """One more for a call that is fast enough; a tenth less for one that is slow or fails."""

    threshold: ClassVar[float] = 0.25

    def __init__(self) -> None:
        self.limit = 10.0

    def sample(self, moment: float, latency: float, in_flight: int, *, failed: bool) -> None:  # noqa: ARG002 - as they are all called
        """Adjust the limit to a call."""
        if failed or latency > self.threshold:
            self.limit = within(self.limit * 0.9)
        elif in_flight * 2 >= self.limit:
            self.limit = within(self.limit + 1 / self.limit)


class Windowed:
    """Collects samples for a window, of at least ten of them."""

    seconds: ClassVar[float] = 1.0

    def __init__(self) -> None:
        self.limit = 10.0
        self.samples: list[float] = []
        self.peak = 0
        self.failed = False
        self.closes = 0.0
        self.moment = 0.0

    def sample(self, moment: float, latency: float, in_flight: int, *, failed: bool) -> None:
        """Collect a call."""
        self.samples.append(latency)
        self.peak = max(self.peak, in_flight)
        self.failed |= failed
        if moment >= self.closes and len(self.samples) >= 10:  # noqa: PLR2004 - as it is published
            self.moment = moment
            self.update()
            self.samples = []
            self.peak = 0
            self.failed = False
            self.closes = moment + self.seconds

    def mean(self) -> float:
        """Return the mean latency of the window."""
        return sum(self.samples) / len(self.samples)

    def update(self) -> None:
        """Adjust the limit to a window."""
        raise NotImplementedError


class Gradient2(Windowed):
    """Netflix: latency against a mean of the last 600 windows, and four more in each."""

    def __init__(self) -> None:
        super().__init__()
        self.long = 0.0
        self.windows = 0

    def update(self) -> None:
        """Adjust the limit to a window."""
        latency = self.mean()
        self.windows += 1
        if self.windows <= 10:  # noqa: PLR2004 - as it is published
            self.long += (latency - self.long) / self.windows
        else:
            self.long += (latency - self.long) * 2 / 601
        if self.long / latency > 2:  # noqa: PLR2004 - as it is published
            self.long *= 0.95
        if self.peak < self.limit / 2:
            return
        gradient = max(0.5, min(1.0, 1.5 * self.long / latency))
        self.limit = within(self.limit * 0.8 + (self.limit * gradient + 4) * 0.2)


class Vegas(Windowed):
    """Netflix: the queue, as the least latency makes it out, is kept between two bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.least = 0.0
        self.windows = 0
        self.source = random.Random(next(numbers))  # noqa: S311 - a simulation, not a secret
        self.jitter = self.source.uniform(0.5, 1)

    def update(self) -> None:
        """Adjust the limit to a window."""
        latency = self.mean()
        self.windows += 1
        if self.windows >= self.jitter * 30 * self.limit:
            self.windows = 0
            self.jitter = self.source.uniform(0.5, 1)
            self.least = latency
            return
        if not self.least or latency < self.least:
            self.least = latency
            return
        step = max(1, int(math.log10(self.limit)))
        queue = math.ceil(self.limit * (1 - self.least / latency))
        if self.failed:
            self.limit = within(self.limit - step)
        elif self.peak * 2 < self.limit:
            return
        elif queue <= step:
            self.limit = within(self.limit + 6 * step)
        elif queue < 3 * step:
            self.limit = within(self.limit + step)
        elif queue > 6 * step:
            self.limit = within(self.limit - step)


class Envoy(Windowed):
    """Envoy: the median against one that is measured each minute, with three calls at once."""

    seconds: ClassVar[float] = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.source = random.Random(next(numbers))  # noqa: S311 - a simulation, not a secret
        self.ideal = 0.0
        self.saved = 10.0
        self.limit = 3.0
        self.measuring = True
        self.since = -math.inf
        self.next = math.inf
        self.lowest = 0

    def sample(self, moment: float, latency: float, in_flight: int, *, failed: bool) -> None:
        """Collect a call that began since the last measurement did."""
        if moment - latency < self.since:
            return
        if not self.measuring:
            super().sample(moment, latency, in_flight, failed=failed)
            return
        self.samples.append(latency)
        if len(self.samples) >= 50:  # noqa: PLR2004 - as it is published
            self.ideal = self.median()
            self.measuring = False
            self.limit = self.saved
            self.next = moment + 60 * self.source.uniform(1, 1.15)
            self.samples = []

    def median(self) -> float:
        """Return the median latency of the window."""
        return sorted(self.samples)[len(self.samples) // 2]

    def update(self) -> None:
        """Adjust the limit to a window, or begin to measure."""
        gradient = max(0.5, min(2.0, self.ideal * 1.25 / self.median()))
        self.limit = within(self.limit * gradient + math.sqrt(self.limit), least=3)
        self.lowest = self.lowest + 1 if self.limit <= 3 else 0  # noqa: PLR2004 - as it is published
        if self.moment > self.next or self.lowest >= 5:  # noqa: PLR2004 - as it is published
            self.lowest = 0
            self.saved, self.limit = self.limit, 3.0
            self.since = self.moment
            self.measuring = True


class Probe(Windowed):
    """A baseline measured anew every five seconds, at 60 % of the limit for two windows."""

    seconds: ClassVar[float] = 0.25

    def __init__(self) -> None:
        super().__init__()
        self.base = 0.0
        self.windows = 0
        self.saved = self.limit

    def update(self) -> None:
        """Adjust the limit to a window, or measure."""
        latency = self.mean()
        self.windows += 1
        if self.windows == 20:  # noqa: PLR2004 - every five seconds
            self.saved = self.limit
            self.limit = within(self.limit * 0.6)
        elif self.windows == 22:  # noqa: PLR2004 - the one before is for the queue to drain
            self.base = latency
            self.limit = self.saved
            self.windows = 0
        elif self.windows < 20:  # noqa: PLR2004 - as above
            self.base = min(self.base or latency, latency)
            if self.peak >= self.limit / 2:
                gradient = max(0.5, min(1.0, 1.5 * self.base / latency))
                grown = self.limit * gradient + math.sqrt(self.limit)
                self.limit = within(self.limit * 0.8 + grown * 0.2)


RIVALS: Final[dict[str, Callable[[], Limit]]] = {
    "Gradient2": Gradient2,
    "Vegas": Vegas,
    "AIMD": AIMD,
    "Envoy": Envoy,
    "Probe": Probe,
}
