"""The figures of statistics objects, by name."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

__all__ = ["Source", "flat", "kinds"]


class Source(NamedTuple):
    """One object's statistics."""

    kind: str
    name: str | None
    statistics: object
    mappings: bool = False


def flat(source: Source, *, mappings: bool = False) -> dict[str, float]:
    """Return the numbers by their dotted names."""
    return {name: value for name, value, _ in _walk(_prefix(source), source.statistics)}


def kinds(source: Source, *, mappings: bool = False) -> dict[str, str]:
    """Return for each dotted name "counter", "gauge" or "limit"."""
    found: dict[str, str] = {}
    _kinds(_prefix(source), source.statistics, found)
    return found


def _kinds(prefix: str, value: Any, found: dict[str, str]) -> None:
    for each in fields(value):
        inner = getattr(value, each.name)
        name = f"{prefix}{each.name}"
        if is_dataclass(inner):
            _kinds(f"{name}.", inner, found)
        elif not isinstance(inner, str):
            found[name] = each.metadata.get("kind", "gauge")


def _prefix(source: Source) -> str:
    if source.kind == "gauge":
        return str(source.name)
    parts = [part for part in (source.kind, source.name) if part]
    return ".".join(parts) + "." if parts else ""


def _walk(prefix: str, value: Any) -> list[tuple[str, float, str]]:
    if isinstance(value, int | float):
        return [(prefix, float(value), "gauge")]
    found: list[tuple[str, float, str]] = []
    for each in fields(value):
        inner = getattr(value, each.name)
        if is_dataclass(inner):
            found += _walk(f"{prefix}{each.name}.", inner)
        elif isinstance(inner, int | float):
            found.append((f"{prefix}{each.name}", float(inner), each.metadata.get("kind", "gauge")))
    return found
