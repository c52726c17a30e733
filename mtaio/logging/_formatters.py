"""
Records as JSON, one object a line.

Promise: each line is one JSON object that any parser reads, whatever the record holds: values that
are no JSON become text, and nothing in a record makes a second line.
Cost: one pass of the standard library's encoder; a second, slower one only for what it refuses.
"""

from __future__ import annotations

import json
import logging
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from mtaio._internal.loops import task_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["OWN", "JsonFormatter", "as_text"]

OWN: Final = frozenset({*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"})
"""What a record has by itself; all else was given by the caller with ``extra``."""

_KEYS: Final = frozenset({"time", "level", "logger", "message", "task", "exception", "stack"})
_LONGEST: Final = 1024
"""Bits of a whole number; in a record that needs the second pass, longer ones are text."""

_DEEPEST: Final = 32
"""Values within values within values: from here on they are text."""


class JsonFormatter(logging.Formatter):
    """
    Formats each record as one JSON object on one line.

    Its keys are ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``; where there is one,
    ``task`` (the name of the running task), ``exception`` and ``stack`` (as text); then whatever
    was given with ``extra``. A key of ``extra`` that is one of these gets ``extra_`` in front.

    Args:
        fmt: None: there is no format string. It, ``datefmt`` and ``style`` are there because
            ``logging.config`` passes them.
        datefmt: None.
        style: Ignored.
        fields: Put into each object, after ``message``: the service's name, its version.

    Raises:
        TypeError: ``fmt`` or ``datefmt`` is given, or ``fields`` is no mapping.
        ValueError: ``fields`` has a key of the record's.

    Example:
        ```python
        import json
        import logging

        from mtaio.logging import JsonFormatter

        formatter = JsonFormatter(fields={"service": "shop"})
        record = logging.makeLogRecord({"msg": "order %d", "args": (7,), "customer": "Ann"})
        entry = json.loads(formatter.format(record))
        assert entry["message"] == "order 7"
        assert entry["service"] == "shop"
        assert entry["customer"] == "Ann"
        ```
    """

    def __init__(
        self,
        fmt: None = None,
        datefmt: None = None,
        style: str = "%",  # noqa: ARG002 - logging.config passes it
        *,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        for name, value in (("fmt", fmt), ("datefmt", datefmt)):
            if value is not None:
                msg = f"{name}={value!r} has no meaning here: the keys are fixed. Leave it out."
                raise TypeError(msg)
        try:
            self.fields: Final = dict(fields or {})
        except (TypeError, ValueError):
            msg = f"fields={fields!r} is no mapping. Pass a dict of what each line is to have."
            raise TypeError(msg) from None
        if taken := sorted(_KEYS & self.fields.keys()):
            msg = f"fields has {', '.join(taken)}, which the record itself gives. Rename it."
            raise ValueError(msg)
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON; it is not changed."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        entry: dict[str, object] = {
            "time": f"{moment.removesuffix('+00:00')}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update(self.fields)
        task = getattr(record, "taskName", None) or task_name()
        if task:
            entry["task"] = task
        if record.exc_text:
            entry["exception"] = record.exc_text
        elif record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = self.formatStack(record.stack_info)
        for key, value in record.__dict__.items():
            if key not in OWN:
                entry[f"extra_{key}" if key in _KEYS else key] = value
        return _encode(entry)


def _encode(entry: dict[str, object]) -> str:
    try:
        line = _ENCODER.encode(entry)
    except (TypeError, ValueError, RecursionError):
        # A key that is no str, NaN, a number too long, a value that holds itself.
        line = _ENCODER.encode(_plain(entry, 0))
    if not line.isascii():
        try:
            line.encode()
        except UnicodeEncodeError:  # half of a surrogate pair: escaped it can at least be written
            line = line.encode(errors="backslashreplace").decode()
    return line


def as_text(value: object) -> str:
    """Return what stands for a value that is no JSON."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a record is worth more than one value that cannot be printed
        return f"<{type(value).__name__} that cannot be printed>"


_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=as_text
)


def _plain(value: Any, depth: int) -> object:
    """Return ``value`` with everything in it that is no JSON as text."""
    plain: object = value
    if isinstance(value, float):
        plain = value if math.isfinite(value) else as_text(value)
    elif isinstance(value, int):
        # No reader is expected to know such numbers, and Python may refuse to print them.
        plain = value if value.bit_length() <= _LONGEST else hex(value)
    elif depth < _DEEPEST and isinstance(value, dict):
        items = cast("dict[object, object]", value)
        plain = {as_text(key): _plain(each, depth + 1) for key, each in items.items()}
    elif depth < _DEEPEST and isinstance(value, list | tuple):
        parts = cast("Iterable[object]", value)
        plain = [_plain(each, depth + 1) for each in parts]
    elif value is not None and not isinstance(value, str):
        plain = as_text(value)
    return plain
