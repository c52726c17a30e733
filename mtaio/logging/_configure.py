"""
Sets up a whole program's logging in one call, from arguments, settings or the environment.

Promise: handlers are in place when `configure` returns, with no event loop needed. Leaving its
block, even by cancellation, writes what is queued, closes the handlers, and restores the previous
state. An error names a value as its source does: the argument, the setting or the variable.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeAlias, cast, final
from weakref import WeakKeyDictionary

from anyio import CancelScope, CapacityLimiter, to_thread

from mtaio._internal import checks, environment
from mtaio._internal.levels import level_number
from mtaio.logging._handler import AsyncFileHandler, check_encoding
from mtaio.logging._json import JsonFormatter
from mtaio.logging._redact import RedactingFilter
from mtaio.logging._text import TextFormatter

if TYPE_CHECKING:
    from threading import RLock

__all__ = ["LogSettings", "LoggingContext", "configure"]

_DEFAULTS: Final[Mapping[str, object]] = {
    "level": "INFO",
    "file": None,
    "max_bytes": 10_000_000,
    "backup_count": 5,
    "when": None,
    "format": "text",
    "console": True,
}
_Filter: TypeAlias = Any
"""What ``Handler.addFilter`` takes, which each version of Python says otherwise."""

_REQUIRED: Final = ("level", "file", "max_bytes", "backup_count", "format")
_FORMATS: Final = ("text", "json")
_ERRORS: Final = "backslashreplace"
"""As for ``logging.basicConfig``: a record with half a surrogate pair, as names of files have that
are not UTF-8, is written, and the file stays UTF-8."""


class LogSettings(Protocol):
    """
    The protocol of settings that `configure` reads.

    It may also have ``log_console``, a bool, and ``log_when``, as for `AsyncFileHandler`.
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


@final
class LoggingContext:
    """
    The handlers set up by `configure`; leaving the block writes what is queued.

    Leaving the block also removes the handlers and restores the logger's level. ``async with`` does
    this in a worker thread, shielded from cancellation, and takes at most 5 seconds if the file
    cannot be written. asyncio's own ``Task.cancel()`` ignores shields and ends the wait, but the
    queued records are still written.
    """

    def __init__(self, logger: logging.Logger, level: int, handlers: list[logging.Handler]) -> None:
        self._logger: Final = logger
        self._before: int = logger.level
        self._handlers = handlers
        old: list[logging.Handler] = []
        with _lock:
            replaced = _current.get(logger)
            if replaced is not None:
                self._before = replaced._before  # noqa: SLF001 - another of this class
                old = replaced._take()  # noqa: SLF001 - as above
            _current[logger] = self
            logger.setLevel(level)
            _swap(logger, old, handlers)
        for handler in old:
            handler.close()

    @property
    def handlers(self) -> tuple[logging.Handler, ...]:
        """The handlers; empty after `close`."""
        return tuple(self._handlers)

    def close(self, timeout: float | None = None) -> None:
        """
        Write the queued records, and remove the handlers.

        It can be called more than once.

        Args:
            timeout: Maximum seconds to wait for the file, as for `AsyncFileHandler.close`.
        """
        with _lock:
            handlers = self._take()
            if _current.get(self._logger) is self:
                del _current[self._logger]
                self._logger.setLevel(self._before)
                _swap(self._logger, handlers, ())
        for handler in handlers:
            if isinstance(handler, AsyncFileHandler):
                handler.close(timeout)
            else:
                handler.close()

    def _take(self) -> list[logging.Handler]:
        """Return the handlers, which the caller is to close."""
        handlers, self._handlers = self._handlers, []
        return handlers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close. This blocks the thread for at most 5 seconds."""
        self.close()

    async def __aenter__(self) -> Self:
        """
        Return itself.

        Not a checkpoint.
        """
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Close in a worker thread, shielded from cancellation.

        A checkpoint.
        """
        with CancelScope(shield=True):
            await to_thread.run_sync(self.close, limiter=CapacityLimiter(1))


_current: Final[WeakKeyDictionary[logging.Logger, LoggingContext]] = WeakKeyDictionary()
_lock: Final = cast("RLock", vars(logging)["_lock"])
"""What guards the lists of handlers, in all versions, and is renewed in a forked child."""


def configure(
    settings: LogSettings | None = None,
    *,
    level: str | int | None = None,
    file: str | os.PathLike[str] | None = None,
    max_bytes: int | None = None,
    backup_count: int | None = None,
    when: str | None = None,
    format: Literal["text", "json"] | None = None,  # noqa: A002 - as logging.basicConfig calls it
    console: bool | None = None,
    logger: logging.Logger | str | None = None,
    redact: RedactingFilter | None = None,
    fields: Mapping[str, object] | None = None,
    filters: Iterable[logging.Filter | Callable[[logging.LogRecord], object]] = (),
    errors: str = _ERRORS,
) -> LoggingContext:
    """
    Set up a program's logging: level, console, file, format and masking of secrets.

    It takes effect at once, inside or outside an event loop. A second call for the same logger
    replaces the handlers of the first and closes them. Records logged meanwhile go to either, so
    lines in the same file may change places. Not a checkpoint.

    For each value, the argument comes first. Without the argument, the value comes from the
    settings, or from the environment if there are no settings. An empty variable counts as not set.

    The console is a ``logging.StreamHandler``, which writes in the caller's thread. The caller
    waits if standard error is a pipe that nobody reads. If an event loop must not wait, pass
    ``file="/dev/stderr", console=False``.

    Args:
        settings: The settings; None to read the environment.
        level: The level, by name or number. Setting ``log_level``, variable ``MTAIO_LOG_LEVEL``,
            default ``INFO``.
        file: The file; ``""`` for none. ``{worker}`` in it becomes the worker's number under
            ``mtaio run --workers``, otherwise 0. Setting ``log_file``, variable ``MTAIO_LOG_FILE``,
            default none.
        max_bytes: As for `AsyncFileHandler`. Setting ``log_max_bytes``, variable
            ``MTAIO_LOG_MAX_BYTES``, default 10,000,000.
        backup_count: As for `AsyncFileHandler`. Setting ``log_backup_count``, variable
            ``MTAIO_LOG_BACKUP_COUNT``, default 5.
        when: As for `AsyncFileHandler`; ``""`` for never. Setting ``log_when`` (optional), variable
            ``MTAIO_LOG_WHEN``, default never.
        format: ``"text"`` or ``"json"``. Setting ``log_format``, variable ``MTAIO_LOG_FORMAT``,
            default ``"text"``.
        console: Whether to write to ``sys.stderr`` too. Setting ``log_console`` (optional),
            variable ``MTAIO_LOG_CONSOLE`` (``yes`` or ``no``, ``1`` or ``0``, …), default yes.
        logger: The logger, or its name; None for the root, which gets all records.
        redact: The filter that masks secrets; None for a `RedactingFilter` with its defaults.
        fields: As for `JsonFormatter`; used with the JSON format.
        filters: More filters for the file and the console: functions of the record, or objects with
            such a method ``filter``. They are called before ``redact``, which masks what they add.
        errors: What to do with text that UTF-8 cannot express, as for `AsyncFileHandler`.

    Returns:
        A context manager that flushes and undoes this when it is left. If it is not entered,
        logging is flushed when the interpreter exits.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value is not valid. The message names the argument, setting or variable.
        OSError: The file cannot be opened. After an error, logging is as it was before.

    Example:
        ```python
        import logging

        import anyio

        from mtaio.logging import configure


        async def main() -> None:
            async with configure(level="DEBUG", console=False):
                logging.getLogger("shop").info("open")


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """
    target = _logger_of(logger)
    more = _filters_of(filters)
    check_encoding("utf-8", errors)
    if redact is None:
        redact = RedactingFilter()
    elif not isinstance(redact, RedactingFilter):  # pyright: ignore[reportUnnecessaryIsInstance] - a user may pass anything
        msg = (
            f"redact={redact!r} is {checks.type_of(redact)}, not a filter. Pass a RedactingFilter, "
            f"or None."
        )
        raise TypeError(msg)
    if settings is not None:
        _check_settings(settings)
    level_to_set = level_number(*_value(settings, "level", level))
    path = _path_of(*_value(settings, "file", file))
    most = _count_of(*_value(settings, "max_bytes", max_bytes))
    backups = _count_of(*_value(settings, "backup_count", backup_count))
    rotated_when = _when_of(*_value(settings, "when", when))
    formatter = _formatter_of(*_value(settings, "format", format), fields)
    handlers: list[logging.Handler] = []
    if _flag_of(*_value(settings, "console", console)):
        handlers.append(logging.StreamHandler())
    if path is not None:  # the last that may fail, since it leaves something behind
        file_handler = AsyncFileHandler(
            path, max_bytes=most, backup_count=backups, when=rotated_when, errors=errors
        )
        handlers.insert(0, file_handler)
    for handler in handlers:
        handler.setFormatter(formatter)
        for each in (*more, redact):
            handler.addFilter(each)
    return LoggingContext(target, level_to_set, handlers)


def _swap(
    logger: logging.Logger, old: Collection[logging.Handler], new: Collection[logging.Handler]
) -> None:
    """
    Put ``new`` handlers in the place of ``old`` ones, all at once for other threads.

    To be called with the lock, which is held for this alone: closing the old ones takes as long as
    their files do.
    """
    logger.handlers = [*(each for each in logger.handlers if each not in old), *new]


def _check_settings(settings: LogSettings) -> None:
    missing = [f"log_{name}" for name in _REQUIRED if not hasattr(settings, f"log_{name}")]
    if missing:
        msg = (
            f"settings is {checks.type_of(settings)}, which has no {', '.join(missing)}. Pass an "
            f"object with these, or None to read the environment; single values have arguments, as "
            f"in configure(file='app.log', level='INFO')."
        )
        raise TypeError(msg)


def _value(settings: LogSettings | None, name: str, given: object) -> tuple[str, object]:
    """Return what a value is called where it comes from, and the value."""
    if given is not None:
        return name, given
    if settings is not None:
        attribute = f"log_{name}"
        return attribute, getattr(settings, attribute, _DEFAULTS[name])
    variable = f"MTAIO_LOG_{name.upper()}"
    return variable, environment.text(os.environ, variable) or _DEFAULTS[name]


def _logger_of(logger: object) -> logging.Logger:
    if logger is None or isinstance(logger, str):
        return logging.getLogger(logger)
    if not isinstance(logger, logging.Logger):
        msg = (
            f"logger={logger!r} is {checks.type_of(logger)}, not a logger. Pass a logging.Logger, "
            f"the name of one, or None for the root."
        )
        raise TypeError(msg)
    return logger


def _filters_of(filters: object) -> list[_Filter]:
    if not isinstance(filters, Iterable):
        msg = (
            f"filters={filters!r} is {checks.type_of(filters)}, not several filters. Pass a list, "
            f"as in filters=[...]."
        )
        raise TypeError(msg)
    several: list[_Filter] = list(cast("Any", filters))
    for each in several:
        if not callable(getattr(each, "filter", each)):
            msg = (
                f"filters has {each!r}, {checks.type_of(each)}, which cannot filter. Pass a "
                f"logging.Filter, or a function of the record."
            )
            raise TypeError(msg)
    return several


def _path_of(name: str, value: object) -> Path | None:
    if value is None or value == "":
        return None
    path = str(checks.path(name, value).absolute())
    return Path(path.replace("{worker}", os.environ.get(environment.WORKER, "0")))


def _count_of(name: str, value: object) -> int:
    if isinstance(value, str) and name.isupper():  # a variable of the environment
        value = environment.whole_number(name, value)
    return checks.count(name, value, least=0, way_out="0 means no rotation.")


def _when_of(name: str, value: object) -> str | None:
    return None if value is None or value == "" else checks.when(name, value)


def _flag_of(name: str, value: object) -> bool:
    if isinstance(value, str) and name.isupper():
        return environment.flag(name, value)
    return checks.flag(name, value)


def _formatter_of(
    name: str, value: object, fields: Mapping[str, object] | None
) -> logging.Formatter:
    made = JsonFormatter(fields=fields)  # which looks at the fields, whatever the format
    json = checks.one_of(name, value, _FORMATS) == "json"
    return made if json else TextFormatter()
