"""Stand-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert."""

    metric: str
    value: float
    threshold: float
    state: str
    timestamp: float
    seconds: float


class Thresholds:
    """Stand-in."""

    def __init__(self) -> None:
        self._t: dict[str, float] = {}
        self._f: dict[str, Alert] = {}

    def set(self, metric: str, value: float, **_: object) -> None:
        """Set."""
        self._t[metric] = value

    def remove(self, metric: str) -> None:
        """Remove."""
        self._t.pop(metric, None)

    def firing(self) -> list[Alert]:
        """Return them."""
        return list(self._f.values())

    def evaluate(self, now: float, timestamp: float, values: Mapping[str, float]) -> list[Alert]:
        """Evaluate."""
        found = []
        for m, t in self._t.items():
            v = values.get(m)
            if v is None:
                continue
            if v > t and m not in self._f:
                self._f[m] = Alert(
                    metric=m, value=v, threshold=t, state="firing", timestamp=timestamp, seconds=0.0
                )
                found.append(self._f[m])
            elif v <= t and m in self._f:
                del self._f[m]
                found.append(
                    Alert(
                        metric=m,
                        value=v,
                        threshold=t,
                        state="recovered",
                        timestamp=timestamp,
                        seconds=0.0,
                    )
                )
        return found


def unknown_metric(metric: str, names: Iterable[str]) -> ValueError:
    """Return the error."""
    return ValueError(f"unknown metric {metric!r}: {sorted(names)}")
