"""
Records as JSON, one object per line.

Promise: each line is one JSON object that any parser reads, whatever the record holds: values
unknown to JSON become text, and nothing in a record starts a second line.
Cost: one pass of the standard library's encoder; a second one only for what it refuses.
"""

from __future__ import annotations

import json
import logging
import reprlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from mtaio._internal.backend import task_name
from mtaio._internal.request_context import request_id, trace_now

__all__ = ["OWN", "JsonFormatter", "as_text"]

OWN: Final = frozenset({*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"})
"""What a record has by itself; all else was given by the caller with ``extra``."""

_KEYS: Final = frozenset({"time", "level", "logger", "message", "task", "exception", "stack"})
_SEPARATORS: Final = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What JSON leaves as it is, and some readers take for the end of a line."""


class JsonFormatter(logging.Formatter):
    """
    Formats each record as one JSON object on one line.

    The keys are ``time`` (RFC 3339, UTC), ``level``, ``logger`` and ``message``. If they are known,
    there are also ``task`` (the name of the running task), ``request_id`` (see
    `mtaio.logging.request_id`), ``trace_id`` and ``span_id`` (of the current span, or of the
    request's client), and ``exception`` and ``stack`` (as text). Then come the keys of ``extra``.
    If one of them has the name of a key above, it gets the prefix ``extra_``, except for ids, which
    replace the others.

    Args:
        fmt: Must be None. It exists, like ``datefmt`` and ``style``, because ``logging.config``
            passes it.
        datefmt: Must be None.
        style: Ignored.
        fields: Keys and values for each object, such as the service's name and version.

    Raises:
        TypeError: ``fmt`` or ``datefmt`` is given, or ``fields`` is not a mapping.
        ValueError: ``fields`` has a key that the record itself sets.

    Example:
        ```python
        import json
        import logging

        from mtaio.logging import JsonFormatter

        formatter = JsonFormatter(fields={"service": "shop"})
        record = logging.makeLogRecord(
            {"msg": "order %d", "args": (7,), "customer": "Ann"}
        )
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
            msg = f"fields={fields!r} is not a mapping. Pass a dict of what each line is to have."
            raise TypeError(msg) from None
        if taken := sorted(_KEYS & self.fields.keys()):
            msg = f"fields has {', '.join(taken)}, which the record itself gives. Rename it."
            raise ValueError(msg)
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON. The record is not changed."""
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
        request, span = request_id.get(), trace_now()
        if request is not None:
            entry["request_id"] = request
        if span is not None:
            entry["trace_id"], entry["span_id"] = span
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
    """Return what stands for a value that JSON does not have."""
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
_REPR: Final = reprlib.Repr()
"""A ``repr`` that ends soon, also for values that hold each other."""
_REPR.maxlevel = 3
_REPR.maxdict = _REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxfrozenset = 30
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 1000


def _encode(entry: Mapping[Any, object]) -> str:
    try:
        line = _ENCODER.encode(entry)
    except Exception:  # noqa: BLE001 - a key that is not a str, NaN, a value that holds itself, …
        safe = {as_text(key): _encodable(value) for key, value in entry.items()}
        line = _ENCODER.encode(safe)
    if not line.isascii():
        for separator, escaped in _SEPARATORS.items():
            if separator in line:
                line = line.replace(separator, escaped)
        try:
            line.encode()
        except UnicodeEncodeError:  # half of a surrogate pair: escaped it can at least be written
            line = line.encode(errors="backslashreplace").decode()
    return line


def _encodable(value: object) -> object:
    """Return ``value`` if the encoder takes it, else its ``repr``."""
    try:
        _ENCODER.encode(value)
    except Exception:  # noqa: BLE001 - as above
        try:
            return _REPR.repr(value)
        except Exception:  # noqa: BLE001  # pragma: no cover - broken, before 3.14
            return f"<{type(value).__name__} that cannot be printed>"
    return value
