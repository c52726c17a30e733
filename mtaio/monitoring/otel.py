"""
A monitor's metrics through OpenTelemetry.

Promise: every number exported to Prometheus is exported here too, those of objects watched later
included.

Cost: a collection reads the monitor's sources once. Between collections nothing runs.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, Final

from mtaio._internal.histogram import HistogramStatistics
from mtaio.monitoring._metrics import metrics, upto_each
from mtaio.monitoring._monitor import ResourceMonitor

try:
    from opentelemetry.metrics import Meter, Observation
except ImportError as _error:
    _msg = (
        "mtaio.monitoring.otel needs opentelemetry-api. Install it with: pip install 'mtaio[otel]'"
    )
    raise ImportError(_msg, name=_error.name) from _error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import CallbackOptions

    from mtaio.monitoring._metrics import Metric

__all__ = ["observe"]

_UNITS: Final = {
    "seconds": "s",
    "bytes": "By",
    "percent": "%",
    "ratio": "1",
    "cores": "{cpu}",
}
"""What units are called in UCUM, as OpenTelemetry wants them."""

_LONGEST: Final = 255
"""Characters of a name that OpenTelemetry takes."""


def observe(meter: Meter, monitor: ResourceMonitor) -> None:
    """
    Export what a monitor measures and watches as OpenTelemetry metrics.

    Counters become observable counters and everything else observable gauges, named like
    ``mtaio.rate_limiter.waiting``, with the attribute ``name`` and a unit. The values are the same
    as for Prometheus, except for infinity, NaN and names of more than 255 characters, which
    OpenTelemetry does not accept.

    A histogram becomes three observable counters as in Prometheus: ``.bucket``, which counts the
    values up to the attribute ``le``, ``.sum`` and ``.count``.

    The first collection exports the metrics that ``monitor`` has at the time of this call, so call
    ``await monitor.get_current_stats()`` before. A metric that first appears during a later
    collection is exported from the next one on. An object that is no longer watched has no more
    values. The meter keeps ``monitor`` alive.

    Not a checkpoint. It can be called from any thread.

    Args:
        meter: The meter, such as ``opentelemetry.metrics.get_meter("my.service")``. Each monitor
            needs a meter of its own.
        monitor: The monitor to export.
    """
    _Bridge(meter, monitor)


class _Bridge:
    """
    The instruments of one meter, and the numbers of one monitor.

    Invariants:
    - the instrument that reads the sources is the meter's first of ours, and a collection reads
      the instruments in their order, one collection after another: the others find its numbers;
    - it never exports anything of its own.
    """

    def __init__(self, meter: Meter, monitor: ResourceMonitor) -> None:
        self._meter = meter
        self._monitor = monitor
        self._known: set[str] = set()
        self._values: dict[str, list[Observation]] = {}
        meter.create_observable_gauge(
            "mtaio.sources", [self._read], description="Reads what the others show."
        )
        self._create(self._take())

    def _take(self) -> list[Metric]:
        """Read all numbers, and return one of each name that has no instrument yet."""
        values: dict[str, list[Observation]] = {}
        new: list[Metric] = []
        for whole in metrics(self._monitor.sources()):
            for metric, value in _numbers(whole):
                if not math.isfinite(value) or len(metric.dotted) > _LONGEST:
                    continue
                if metric.dotted not in self._known:
                    self._known.add(metric.dotted)
                    new.append(metric)
                values.setdefault(metric.dotted, []).append(Observation(value, metric.labels))
        self._values = values
        return new

    def _create(self, new: list[Metric]) -> None:
        """Make an instrument for each of ``new``."""
        for metric in new:
            name = metric.dotted
            create = (
                self._meter.create_observable_counter
                if metric.kind == "counter"
                else self._meter.create_observable_gauge
            )

            def show(_options: CallbackOptions, name: str = name) -> Iterable[Observation]:
                return self._values.get(name, ())

            create(name, [show], unit=_UNITS.get(metric.unit, ""), description=metric.help)

    def _read(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Begin a collection."""
        new = self._take()
        if new:
            # The SDK holds a lock while it collects, which making an instrument takes too. When the
            # interpreter exits no thread can be started, but no collection follows either.
            with suppress(RuntimeError):
                Thread(target=self._create, args=(new,), name="mtaio.otel", daemon=True).start()
        return ()


def _numbers(metric: Metric) -> list[tuple[Metric, float]]:
    """Return a metric and its number, or those that a histogram is made of."""
    whole = metric.value
    if not isinstance(whole, HistogramStatistics):
        return [(metric, whole)]
    total, count, bucket = (
        replace(metric, kind="counter", dotted=f"{metric.dotted}.{end}", unit=unit)
        for end, unit in (("sum", metric.unit), ("count", ""), ("bucket", ""))
    )
    buckets = [
        (replace(bucket, labels={**metric.labels, "le": bound}), number)
        for bound, number in upto_each(whole)
    ]
    return [(total, whole.sum), (count, whole.count), *buckets]
