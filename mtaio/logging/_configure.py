"""
Logging for a whole program, from settings or the environment, in one call.

Promise: handlers are in place when `configure` returns, with no event loop needed; leaving the
block it may be used as writes and closes them, also when the block is cancelled, and puts back what
was there before.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakKeyDictionary

from anyio import CancelScope, CapacityLimiter, to_thread

from mtaio._internal import checks
from mtaio.logging._formatters import JsonFormatter
from mtaio.logging._handler import AsyncFileHandler
from mtaio.logging._levels import level_number
from mtaio.logging._redact import RedactingFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

__all__ = ["LogSettings", "LoggingContext", "configure"]

_FORMATS: Final = ("text", "json")
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogSettings(Protocol):
    """What `configure` wants to know; any object with these attributes will do."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    log_level: str | int
    log_file: str | None
    log_max_bytes: int
    log_backup_count: int
    log_format: str


class LoggingContext:
    """
    The handlers that `configure` made; leaving the context, of either kind, flushes last.

    Both ways of leaving write what is queued, take the handlers away and put the logger's level
    back. The async one does so in a worker thread, and cannot be cancelled; it takes 5 seconds at
    most, when the file takes nothing.
    """

    def __init__(self, logger: logging.Logger, level: int, handlers: list[logging.Handler]) -> None:
        self._logger: Final = logger
        self._before = logger.level
        self._handlers = handlers
        logger.setLevel(level)
        for handler in handlers:
            logger.addHandler(handler)

    @property
    def handlers(self) -> tuple[logging.Handler, ...]:
        """The handlers; none any more after `close`."""
        return tuple(self._handlers)

    def close(self) -> None:
        """Write what is queued, and take the handlers away. May be called again."""
        with _lock:
            handlers, self._handlers = self._handlers, []
            if _current.get(self._logger) is self:
                del _current[self._logger]
                self._logger.setLevel(self._before)
        for handler in handlers:
            self._logger.removeHandler(handler)
            handler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; blocks the thread for 5 seconds at most."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return itself. Not a checkpoint."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close in a worker thread, shielded from cancellation. A checkpoint."""
        with CancelScope(shield=True):
            await to_thread.run_sync(self.close, limiter=CapacityLimiter(1))


_current: Final[WeakKeyDictionary[logging.Logger, LoggingContext]] = WeakKeyDictionary()
_lock: Final = RLock()


def configure(
    settings: LogSettings | None = None,
    *,
    logger: logging.Logger | None = None,
    console: bool = True,
    redact: RedactingFilter | None = None,
    fields: Mapping[str, object] | None = None,
) -> LoggingContext:
    """
    Set logging up for a program: level, console, file, format, and masked secrets.

    Takes effect at once, inside or outside an event loop. A second call for the same logger closes
    what the first one made and takes its place. Not a checkpoint.

    Args:
        settings: Where the values come from. None reads the environment: ``MTAIO_LOG_LEVEL``
            (``INFO``), ``MTAIO_LOG_FILE`` (no file), ``MTAIO_LOG_MAX_BYTES`` (10,000,000),
            ``MTAIO_LOG_BACKUP_COUNT`` (5) and ``MTAIO_LOG_FORMAT`` (``text`` or ``json``); one that
            is empty counts as not set.
        logger: Which logger; None for the root, which sees the records of all.
        console: Whether to write to ``sys.stderr`` too.
        redact: What masks secrets; None for a `RedactingFilter` with its defaults.
        fields: As for `JsonFormatter`, with the JSON format.

    Returns:
        The context that flushes and undoes this when it is left. Used as no context, the
        interpreter's end flushes.

    Raises:
        TypeError: A setting is of the wrong type.
        ValueError: A setting makes no sense; the message names it, and the variable it came from.
        OSError: The file cannot be opened. Whatever is raised, nothing has changed.

    Example:
        ```python
        import logging

        import anyio

        from mtaio.logging import configure


        async def main() -> None:
            async with configure(console=False):
                logging.getLogger("shop").info("open")


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """
    given, names = (settings, str) if settings is not None else _from_environment()
    level = level_number(names("log_level"), given.log_level)
    for name, value in (
        ("log_max_bytes", given.log_max_bytes),
        ("log_backup_count", given.log_backup_count),
    ):
        checks.count(names(name), value, least=0, way_out="0 means no rotation.")
    if given.log_format not in _FORMATS:
        msg = f"{names('log_format')}={given.log_format!r} is unknown. Pass 'text' or 'json'."
        raise ValueError(msg)
    formatter = (
        JsonFormatter(fields=fields) if given.log_format == "json" else logging.Formatter(_TEXT)
    )
    handlers: list[logging.Handler] = []
    if given.log_file is not None:
        handlers.append(
            AsyncFileHandler(
                given.log_file,
                max_bytes=given.log_max_bytes,
                backup_count=given.log_backup_count,
            )
        )
    if console:
        handlers.append(logging.StreamHandler())
    redact = redact or RedactingFilter()
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(redact)
    target = logger or logging.getLogger()
    with _lock:
        before = _current.get(target)
        if before is not None:
            before.close()
        context = _current[target] = LoggingContext(target, level, handlers)
    return context


def _from_environment() -> tuple[LogSettings, Callable[[str], str]]:
    """Return what the environment says, and how its variables are called."""

    def read(name: str, default: str) -> str:
        return os.environ.get(_variable(name), "").strip() or default

    def whole(name: str, default: str) -> int:
        text = read(name, default)
        try:
            return int(text)
        except ValueError:
            msg = f"{_variable(name)}={text!r} is no whole number. Set it to one, or unset it."
            raise ValueError(msg) from None

    return _Settings(
        log_level=read("log_level", "INFO"),
        log_file=read("log_file", "") or None,
        log_max_bytes=whole("log_max_bytes", "10_000_000"),
        log_backup_count=whole("log_backup_count", "5"),
        log_format=read("log_format", "text").lower(),
    ), _variable


def _variable(name: str) -> str:
    return f"MTAIO_{name.upper()}"
