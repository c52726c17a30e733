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
"""Values within values within values, in a record that needs the second pass."""

_MOST: Final = 100_000
"""Values in a record that needs the second pass, of which some may be there many times."""

_CUT: Final = "..."
"""Stands where a value holds itself, and where values are too deep or too many."""

_SEPARATORS: Final = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What JSON leaves as it is, and some readers take for the end of a line."""


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
        entry: dict[object, object] = {
            "time": _moment(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update(self.fields)
        task = getattr(record, "taskName", None) or task_name()
        if task:
            entry["task"] = task
        exception = self._exception(record)
        if exception:
            entry["exception"] = exception
        if record.stack_info:
            entry["stack"] = self.formatStack(as_text(record.stack_info))
        given = record.__dict__
        for key, value in given.items():
            if key not in OWN:
                name = key
                if key in _KEYS:
                    while name in _KEYS or name in given:
                        name = f"extra_{name}"
                entry[name] = value
        return _encode(entry)

    def _exception(self, record: logging.LogRecord) -> str:
        """Return the text of the record's exception, empty if it has none."""
        text = as_text(record.exc_text or "")
        if text and not text.isspace():
            return text
        info: Any = record.exc_info
        if isinstance(info, BaseException):
            return self.formatException((type(info), info, info.__traceback__))
        try:
            return self.formatException(info) if info and info[0] is not None else ""
        except Exception:  # noqa: BLE001 - no exception, but the rest of the record is worth a line
            return as_text(cast("object", info))


def as_text(value: object) -> str:
    """Return what stands for a value that is no JSON."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a record is worth more than one value that cannot be printed
        return f"<{type(value).__name__} that cannot be printed>"


def _moment(created: float) -> str:
    try:
        moment = datetime.fromtimestamp(created, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return as_text(created)  # of a clock that shows no time
    return f"{moment.isoformat(timespec='microseconds').removesuffix('+00:00')}Z"


_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=as_text
)


def _encode(entry: dict[object, object]) -> str:
    try:
        line = _ENCODER.encode(entry)
    except Exception:  # noqa: BLE001 - a key that is no str, NaN, a value that holds itself, …
        line = _ENCODER.encode(_Plain().value(entry, 0))
    if not line.isascii():
        for separator, escaped in _SEPARATORS.items():
            if separator in line:
                line = line.replace(separator, escaped)
        try:
            line.encode()
        except UnicodeEncodeError:  # half of a surrogate pair: escaped it can at least be written
            line = line.encode(errors="backslashreplace").decode()
    return line


class _Plain:
    """Makes JSON of anything, once for each record."""

    __slots__ = ("_inside", "_left")

    def __init__(self) -> None:
        self._inside: set[int] = set()
        self._left = _MOST

    def value(self, value: object, depth: int) -> object:
        """Return ``value`` with everything in it that is no JSON as text."""
        self._left -= 1
        kind = type(value)
        if value is None or kind is str:
            return value
        try:
            if isinstance(value, int | float):
                return _number(value)
            if isinstance(value, dict | list | tuple):
                return self._container(value, depth)
        except Exception:  # noqa: BLE001 - of a type that has its own idea of what it holds
            return f"<{kind.__name__} that cannot be read>"
        return as_text(value)

    def _container(self, value: Any, depth: int) -> object:
        if id(value) in self._inside or self._left <= 0 or depth >= _DEEPEST:
            return _CUT
        self._inside.add(id(value))
        try:
            return self._filled(value, depth + 1)
        finally:
            self._inside.remove(id(value))

    def _filled(self, value: Any, depth: int) -> object:
        if isinstance(value, dict):
            plain: dict[object, object] = {}
            for key, each in cast("dict[object, object]", value).items():
                if self._left <= 0 and depth > 1:  # the record's own keys are few
                    plain[_CUT] = _CUT
                    break
                plain[_key(key)] = self.value(each, depth)
            return plain
        parts: list[object] = []
        for each in cast("Iterable[object]", value):
            if self._left <= 0:
                parts.append(_CUT)
                break
            parts.append(self.value(each, depth))
        return parts


def _number(value: float) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else as_text(value)
    # No reader is expected to know such numbers, and Python may refuse to print them.
    return value if value.bit_length() <= _LONGEST else hex(value)


def _key(key: object) -> object:
    if key is None or isinstance(key, str):
        return key
    return _number(key) if isinstance(key, int | float) else as_text(key)
