"""
When a metric raises an alert, and when the alert is over.

Promise: an alert is an edge. A metric that stays beyond its threshold for ``for_seconds`` fires
once, and recovers once, when it reaches ``clear``; in between nothing is reported. Everything
follows from the times and values passed to `Thresholds.evaluate`: no clock is read, nothing waits.
Cost: a few tenths of a microsecond for each threshold and sample.

Thresholds may be set in one thread while another evaluates: no lock is needed, because a threshold
is replaced whole, and the state of its metric is kept separately and changed only by `evaluate`.

Why alerts work this way: docs/en/guides/alerts.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, final

from mtaio._internal import checks
from mtaio._internal.clock import REAL, Tells

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Alert", "Threshold", "Thresholds", "unknown_metric"]

_KEPT: Final = 100
"""Alerts and recoveries that are kept, the last ones."""
_SHOWN: Final = 100
"""Characters of a refused name that a message shows; longer names are cut."""
_LISTED: Final = 600
"""Characters of known names that a message lists."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """What a metric must not exceed, or must not fall below."""

    metric: str
    """The name of the metric."""
    value: float
    """The limit, which is still allowed."""
    clear: float
    """The value at which the metric has recovered."""
    for_seconds: float
    """Seconds for which the threshold must be exceeded before there is an alert."""
    cooldown: float
    """Seconds after a recovery in which there is no other alert."""
    below: bool
    """Whether the metric must not fall below ``value`` instead."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A metric has exceeded its threshold, or has recovered."""

    metric: str
    """The name of the metric."""
    value: float
    """What was measured."""
    threshold: float
    """The value that the metric must not exceed, or fall below."""
    state: Literal["firing", "recovered"]
    """``"firing"`` when the alert starts, ``"recovered"`` when it is over."""
    timestamp: float
    """When the sample was taken, in seconds since the epoch."""
    seconds: float
    """Seconds for which the alert had been firing; 0.0 when it starts."""


class _Rule:
    """One threshold, and what has become of its metric."""

    # Invariants:
    # - threshold alone is changed by set(), everything else by evaluate() alone;
    # - since is when the metric went beyond `pending`, the threshold of that moment; None while it
    #   is not, or when there is no telling;
    # - alert is what has been reported and is not over, fired when it was.
    __slots__ = ("alert", "fired", "pending", "recovered", "since", "threshold")

    def __init__(self, threshold: Threshold) -> None:
        self.threshold: Threshold = threshold
        self.pending: Threshold = threshold
        self.since: float | None = None
        self.alert: Alert | None = None
        self.fired: float = -math.inf
        self.recovered: float = -math.inf


class Thresholds:
    """
    The thresholds of a monitor, one for each metric, and which of them are firing.

    `set`, `remove`, `firing` and `configured` may be called from any thread, `evaluate` by one at
    a time. None of them waits.
    """

    # Invariants:
    # - _rules is changed in place, one key at a time, and read as a copy;
    # - past is replaced whole.
    __slots__ = ("_rules", "alerts", "past", "timed_by")

    def __init__(self) -> None:
        self._rules: dict[str, _Rule] = {}
        self.alerts: int = 0
        """How often one has fired."""
        self.past: tuple[Alert, ...] = ()
        """The last alerts and recoveries, the newest last."""
        self.timed_by: Tells = REAL
        """The clock of all moments here."""

    def set(
        self,
        metric: str,
        value: float,
        *,
        clear: float | None = None,
        for_seconds: float = 0.0,
        cooldown: float = 0.0,
        below: bool = False,
    ) -> None:
        """
        Let ``metric`` have a threshold, in place of the one it had.

        An alert that is firing stays so until the metric reaches the new ``clear``: a change of the
        threshold is no recovery by itself. A metric that was beyond the old threshold, but not yet
        for long enough, is timed again. The cooldown goes on from the last recovery. The same
        threshold set again changes nothing.

        Args:
            metric: Its name.
            value: What the metric must not exceed. The value itself is allowed.
            clear: The alert is over when the metric is at this value or below. By default that is
                ``value``; a lower one keeps a metric that moves around its threshold from firing
                again and again.
            for_seconds: The alert fires when the metric has exceeded ``value`` in all samples of so
                many seconds. A sample without the metric, or with NaN, starts them again.
            cooldown: For so many seconds after a recovery the alert does not fire. If the metric
                exceeds ``value`` when they are over, and has done so for ``for_seconds``, it fires
                then.
            below: The metric must not fall below ``value`` instead, and ``clear`` lies above.

        Raises:
            TypeError: A number is something else.
            ValueError: A number is NaN or negative, ``value`` or ``clear`` is infinite, or
                ``clear`` is beyond ``value``.
        """
        value = _finite("value", value, way_out="Pass the value that the metric must not exceed.")
        threshold = Threshold(
            metric=metric,
            value=value,
            clear=_clear(value, clear, below=below),
            for_seconds=_seconds("for_seconds", for_seconds),
            cooldown=_seconds("cooldown", cooldown),
            below=below,
        )
        rule = self._rules.setdefault(metric, _Rule(threshold))
        if rule.threshold != threshold:
            rule.threshold = threshold

    def remove(self, metric: str) -> None:
        """
        Let ``metric`` have no threshold; an alert that is firing ends without a recovery.

        Does nothing if it has none.
        """
        self._rules.pop(metric, None)

    def configured(self) -> list[Threshold]:
        """Return the thresholds, in the order in which their metrics were first given one."""
        return [rule.threshold for rule in self._rules.copy().values()]

    def firing(self) -> list[Alert]:
        """Return the alerts that are not over, each as it was when it fired."""
        alerts = (rule.alert for rule in self._rules.copy().values())
        return [alert for alert in alerts if alert is not None]

    def move(self, seconds: float) -> None:
        """Go over to another clock: see `clock.Timed`."""
        for rule in self._rules.copy().values():
            rule.fired += seconds
            rule.recovered += seconds
            if rule.since is not None:
                rule.since += seconds

    def evaluate(self, now: float, timestamp: float, values: Mapping[str, float]) -> list[Alert]:
        """
        Return which alerts start, and which are over, with this sample.

        A metric that is not among ``values``, or is NaN, is not judged: an alert that is firing
        goes on, because nothing shows that it is over.

        Args:
            now: When the sample was taken, by the clock `timed_by`.
            timestamp: The same moment in seconds since the epoch, for the alerts.
            values: What was measured, by metric.
        """
        alerts: list[Alert] = []
        for metric, rule in self._rules.copy().items():
            value = values.get(metric)
            if value is None or value != value:  # noqa: PLR0124 - NaN alone differs from itself
                rule.since = None
                continue
            threshold = rule.threshold
            if rule.alert is not None:
                cleared = value >= threshold.clear if threshold.below else value <= threshold.clear
                if cleared:
                    alerts.append(_recover(rule, threshold, value, now, timestamp))
            elif value < threshold.value if threshold.below else value > threshold.value:
                if rule.since is None or rule.pending is not threshold:
                    rule.since = now
                    rule.pending = threshold
                if (
                    now - rule.since >= threshold.for_seconds
                    and now - rule.recovered >= threshold.cooldown
                ):
                    alerts.append(_fire(rule, threshold, value, now, timestamp))
            else:
                rule.since = None
        if alerts:
            self.past = (*self.past, *alerts)[-_KEPT:]
            self.alerts += sum(alert.state == "firing" for alert in alerts)
        return alerts


def _fire(rule: _Rule, threshold: Threshold, value: float, now: float, timestamp: float) -> Alert:
    alert = Alert(
        metric=threshold.metric,
        value=value,
        threshold=threshold.value,
        state="firing",
        timestamp=timestamp,
        seconds=0.0,
    )
    rule.alert = alert
    rule.fired = now
    rule.since = None
    return alert


def _recover(
    rule: _Rule, threshold: Threshold, value: float, now: float, timestamp: float
) -> Alert:
    rule.alert = None
    rule.recovered = now
    return Alert(
        metric=threshold.metric,
        value=value,
        threshold=threshold.value,
        state="recovered",
        timestamp=timestamp,
        seconds=now - rule.fired,
    )


def unknown_metric(metric: object, known: Iterable[str]) -> ValueError:
    """
    Return the error for somebody who has named a metric that there is not.

    Args:
        metric: What was named.
        known: The names that there are.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

    names = sorted(known)
    by_lower = {name.lower(): name for name in names}
    close = get_close_matches(str(metric)[:_SHOWN].lower(), by_lower, n=1)
    guess = f" Did you mean {by_lower[close[0]]!r}?" if close else ""
    shown = repr(metric)
    if isinstance(metric, str) and len(metric) > _SHOWN:
        shown = f"{metric[:_SHOWN]!r}..."
    return ValueError(
        f"metric={shown} is not measured here.{guess} For a metric of your own, call watch() or "
        f"gauge() first. Metrics are: {_listed(names)}."
    )


def _listed(names: list[str]) -> str:
    """Return as many of the names as there is room for."""
    shown: list[str] = []
    room = _LISTED
    for name in names:
        short = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        room -= len(short) + 2
        if room < 0:
            return f"{', '.join(shown)} and {len(names) - len(shown)} more"
        shown.append(short)
    return ", ".join(shown) or "none"


def _finite(name: str, value: object, *, way_out: str) -> float:
    accepted = checks.number(name, value, way_out=way_out)
    if math.isinf(accepted):
        msg = f"{name}={value!r} is infinite. {way_out}"
        raise ValueError(msg)
    return float(accepted)


def _seconds(name: str, value: object) -> float:
    return float(checks.at_least(name, value, 0, way_out="Pass seconds >= 0."))


def _clear(value: float, clear: object, *, below: bool) -> float:
    """Return the value at which an alert is over."""
    if clear is None:
        return value
    way_out = "Pass the value at which the alert is over, or leave it out to use value."
    accepted = _finite("clear", clear, way_out=way_out)
    if accepted < value if below else accepted > value:
        side, other = ("below", "above") if below else ("above", "below")
        msg = (
            f"clear={clear!r} is {side} value={value!r}, so an alert would be over before it "
            f"fires. Pass a clear that is value or {other}, or below={not below} for a metric that "
            f"must not {'exceed' if below else 'fall below'} value."
        )
        raise ValueError(msg)
    return accepted
