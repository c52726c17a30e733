"""
Metrics as text for Prometheus.

Promise: Prometheus can read the text, whatever the names and values: one family after another,
each with its help and its type.

Cost: about a microsecond for each sample.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtaio.monitoring._metrics import Metric

__all__ = ["CONTENT_TYPE", "to_prometheus"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""What the text is, for the header of an HTTP response."""


def to_prometheus(metrics: Iterable[Metric]) -> str:
    """
    Return metrics in Prometheus' text format, version 0.0.4.

    Args:
        metrics: What `metrics` yields, in any order.
    """
    families: dict[str, list[str]] = {}
    labels: Mapping[str, str] | None = None
    shown = ""
    for metric in metrics:
        if metric.labels is not labels:  # those of one source mostly share them
            labels = metric.labels
            shown = _labels(labels)
        lines = families.get(metric.name)
        if lines is None:
            lines = families[metric.name] = [
                f"# HELP {metric.name} {_escape(metric.help)}\n",
                f"# TYPE {metric.name} {metric.kind}\n",
            ]
        lines.append(f"{metric.name}{shown} {_number(metric.value)}\n")
    return "".join(line for lines in families.values() for line in lines)


def _labels(labels: Mapping[str, str]) -> str:
    """Return labels between their braces, or nothing."""
    if not labels:
        return ""
    quoted = {name: _escape(value).replace('"', r"\"") for name, value in labels.items()}
    pairs = [f'{name}="{value}"' for name, value in quoted.items()]
    return "{" + ",".join(pairs) + "}"


def _escape(text: str) -> str:
    """Return ``text`` on one line."""
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _number(value: float) -> str:
    """Return a number as Prometheus writes it."""
    if isinstance(value, int) or math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
