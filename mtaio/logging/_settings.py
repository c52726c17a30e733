"""
What `configure` goes by: where each value comes from, and what it has to be.

Promise: a value that makes no sense is named as it is called where it came from.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final, Protocol, cast

from mtaio._internal import checks
from mtaio.logging._arguments import absolute
from mtaio.logging._formatters import JsonFormatter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = [
    "LogSettings",
    "chosen",
    "count_of",
    "environment",
    "flag_of",
    "formatter_of",
    "logger_of",
    "path_of",
    "reader",
]

_DEFAULTS: Final[Mapping[str, object]] = {
    "level": "INFO",
    "file": None,
    "max_bytes": 10_000_000,
    "backup_count": 5,
    "format": "text",
    "console": True,
}
_REQUIRED: Final = ("level", "file", "max_bytes", "backup_count", "format")
_FLAGS: Final = {
    **dict.fromkeys(("1", "yes", "true", "on"), True),
    **dict.fromkeys(("0", "no", "false", "off"), False),
}
_FORMATS: Final = ("text", "json")
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogSettings(Protocol):
    """
    What `configure` wants to know; any object with these attributes will do.

    It may have ``log_console`` too, a bool.
    """

    @property
    def log_level(self) -> str | int:
        """The level, by name or number."""
        ...

    @property
    def log_file(self) -> str | os.PathLike[str] | None:
        """The file; None for none."""
        ...

    @property
    def log_max_bytes(self) -> int:
        """As for `AsyncFileHandler`."""
        ...

    @property
    def log_backup_count(self) -> int:
        """As for `AsyncFileHandler`."""
        ...

    @property
    def log_format(self) -> str:
        """``"text"`` or ``"json"``."""
        ...


# ---- where values come from ----------------------------------------------------------------------


def chosen(
    name: str, given: object, read: Callable[[str], tuple[str, object]]
) -> tuple[str, object]:
    """Return what a value is called where it comes from, and the value."""
    return read(name) if given is None else (name, given)


def environment(name: str) -> tuple[str, object]:
    variable = f"MTAIO_LOG_{name.upper()}"
    text = os.environ.get(variable, "").strip()
    return variable, text or _DEFAULTS[name]


def reader(settings: LogSettings) -> Callable[[str], tuple[str, object]]:
    missing = [name for name in _REQUIRED if not hasattr(settings, f"log_{name}")]
    if missing:
        msg = (
            f"settings is a {type(settings).__name__}, which has no "
            f"{', '.join(f'log_{name}' for name in missing)}. Pass an object with these, or None "
            f"to read the environment; single values have arguments, as in "
            f"configure(file='app.log', level='INFO')."
        )
        raise TypeError(msg)

    def read(name: str) -> tuple[str, object]:
        label = f"log_{name}"
        return label, getattr(settings, label, _DEFAULTS[name])

    return read


# ---- what they have to be ------------------------------------------------------------------------


def logger_of(logger: object) -> logging.Logger:
    if logger is None or isinstance(logger, str):
        return logging.getLogger(logger)
    if not isinstance(logger, logging.Logger):
        msg = (
            f"logger={logger!r} is a {type(logger).__name__}. Pass a logging.Logger, the name of "
            f"one, or None for the root."
        )
        raise TypeError(msg)
    return logger


def path_of(name: str, value: object) -> Path | None:
    if value is None or value == "":
        return None
    return absolute(cast("str | os.PathLike[str]", value), called=name)


def count_of(name: str, value: object) -> int:
    if isinstance(value, str) and name.isupper():  # a variable of the environment
        try:
            value = int(value)
        except ValueError:
            msg = f"{name}={value!r} is no whole number. Set it to one, or unset it."
            raise ValueError(msg) from None
    return checks.count(name, value, least=0, way_out="0 means no rotation.")


def flag_of(name: str, value: object) -> bool:
    if isinstance(value, str) and name.isupper():
        known = _FLAGS.get(value.lower())
        if known is None:
            msg = f"{name}={value!r} is neither yes nor no. Set it to 1 or 0, or unset it."
            raise ValueError(msg)
        return known
    if not isinstance(value, bool):
        msg = f"{name}={value!r} is a {type(value).__name__}, not a bool. Pass True or False."
        raise TypeError(msg)
    return value


def formatter_of(
    name: str, value: object, fields: Mapping[str, object] | None
) -> logging.Formatter:
    made = JsonFormatter(fields=fields)  # which looks at the fields, whatever the format
    if not isinstance(value, str) or value.lower() not in _FORMATS:
        msg = f"{name}={value!r} is unknown. Pass 'text' or 'json'."
        raise ValueError(msg)
    return made if value.lower() == "json" else logging.Formatter(_TEXT)
