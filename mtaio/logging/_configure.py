"""
Logging for a whole program, from arguments, settings or the environment, in one call.

Promise: handlers are in place when `configure` returns, with no event loop needed; leaving the
block it may be used as writes and closes them, also when the block is cancelled, and puts back what
was there before.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Literal, cast
from weakref import WeakKeyDictionary

from anyio import CancelScope, CapacityLimiter, to_thread

from mtaio.logging._handler import AsyncFileHandler
from mtaio.logging._levels import level_number
from mtaio.logging._redact import RedactingFilter
from mtaio.logging._settings import (
    chosen,
    count_of,
    environment,
    flag_of,
    formatter_of,
    logger_of,
    path_of,
    reader,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping
    from threading import RLock
    from types import TracebackType
    from typing import Self

    from mtaio.logging._settings import LogSettings

__all__ = ["LoggingContext", "configure"]


class LoggingContext:
    """
    The handlers that `configure` made, which makes this too; leaving it, either way, flushes last.

    Both ways of leaving write what is queued, take the handlers away and put the logger's level
    back. The async one does so in a worker thread, shielded from cancellation; it takes 5 seconds
    at most, when the file takes nothing. asyncio's own ``Task.cancel()`` goes through every shield,
    and ends the wait; what is queued is written all the same.
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
        """The handlers; none any more after `close`."""
        return tuple(self._handlers)

    def close(self) -> None:
        """Write what is queued, and take the handlers away. May be called again."""
        with _lock:
            handlers = self._take()
            if _current.get(self._logger) is self:
                del _current[self._logger]
                self._logger.setLevel(self._before)
                _swap(self._logger, handlers, ())
        for handler in handlers:
            handler.close()

    def _take(self) -> list[logging.Handler]:
        """Hand the handlers over to who closes them."""
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
_lock: Final = cast("RLock", vars(logging)["_lock"])
"""What guards the lists of handlers, in all versions, and is renewed in a forked child."""


def configure(
    settings: LogSettings | None = None,
    *,
    level: str | int | None = None,
    file: str | os.PathLike[str] | None = None,
    max_bytes: int | None = None,
    backup_count: int | None = None,
    format: Literal["text", "json"] | None = None,  # noqa: A002 - as logging.basicConfig calls it
    console: bool | None = None,
    logger: logging.Logger | str | None = None,
    redact: RedactingFilter | None = None,
    fields: Mapping[str, object] | None = None,
) -> LoggingContext:
    """
    Set logging up for a program: level, console, file, format, and masked secrets.

    Takes effect at once, inside or outside an event loop. A second call for the same logger takes
    the place of the first, of which it closes the handlers afterwards; what is logged meanwhile
    goes to one or the other, and none of it is lost, though in the same file lines may change
    places. Not a checkpoint.

    Each value is the argument given here; failing that, what the settings say; without settings,
    what the environment says, where a variable that is empty counts as not set.

    The console is a ``logging.StreamHandler``, which writes in the caller's thread: so nothing is
    lost there when the process is killed, and whoever logs waits while the reader of a pipe takes
    nothing. Where an event loop must not wait, pass ``file="/dev/stderr", console=False``.

    Args:
        settings: Where the values come from; None reads the environment.
        level: The level, by name or number. ``log_level``, ``MTAIO_LOG_LEVEL``; ``INFO``.
        file: The file; ``""`` for none. ``log_file``, ``MTAIO_LOG_FILE``; none.
        max_bytes: As for `AsyncFileHandler`. ``log_max_bytes``, ``MTAIO_LOG_MAX_BYTES``;
            10,000,000.
        backup_count: As for `AsyncFileHandler`. ``log_backup_count``,
            ``MTAIO_LOG_BACKUP_COUNT``; 5.
        format: ``"text"`` or ``"json"``. ``log_format``, ``MTAIO_LOG_FORMAT``; ``text``.
        console: Whether to write to ``sys.stderr`` too. ``log_console``, if the settings have it,
            ``MTAIO_LOG_CONSOLE`` (``1`` or ``0``, ``yes`` or ``no``, …); yes.
        logger: Which logger, itself or its name; None for the root, which sees the records of all.
        redact: What masks secrets; None for a `RedactingFilter` with its defaults.
        fields: As for `JsonFormatter`, with the JSON format.

    Returns:
        The context that flushes and undoes this when it is left. Used as no context, the
        interpreter's end flushes.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value makes no sense; the message names it as it is called where it came from.
        OSError: The file cannot be opened. Whatever is raised, nothing has changed.

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
    target = logger_of(logger)
    if redact is None:
        redact = RedactingFilter()
    elif not isinstance(redact, RedactingFilter):  # pyright: ignore[reportUnnecessaryIsInstance] - a user may pass anything
        msg = f"redact={redact!r} is a {type(redact).__name__}. Pass a RedactingFilter, or None."
        raise TypeError(msg)
    read = environment if settings is None else reader(settings)
    level_to_set = level_number(*chosen("level", level, read))
    path = path_of(*chosen("file", file, read))
    sizes: list[int] = []
    for name, given in (("max_bytes", max_bytes), ("backup_count", backup_count)):
        label, value = chosen(name, given, read)
        sizes.append(count_of(label, value))
    formatter = formatter_of(*chosen("format", format, read), fields)
    handlers: list[logging.Handler] = []
    if flag_of(*chosen("console", console, read)):
        handlers.append(logging.StreamHandler())
    if path is not None:  # the last that may fail, since it leaves something behind
        handlers.insert(0, AsyncFileHandler(path, max_bytes=sizes[0], backup_count=sizes[1]))
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(redact)
    return LoggingContext(target, level_to_set, handlers)


def _swap(
    logger: logging.Logger, old: Collection[logging.Handler], new: Collection[logging.Handler]
) -> None:
    """
    Put ``new`` handlers in the place of ``old`` ones, for whoever logs meanwhile all at once.

    To be called with the lock, which is held for this alone: closing the old ones takes as long as
    their files do.
    """
    logger.handlers = [*(each for each in logger.handlers if each not in old), *new]
