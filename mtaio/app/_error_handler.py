"""
Reports errors: those of mtaio in one line, unexpected ones with a traceback.

Promise: an error is one record, an exception group one for each error in it; secrets are masked;
a report raises nothing, whatever the error and its context are. Cancellation is not an error: it is
neither reported nor swallowed.
Cost: a record, and searching it for secrets, in the calling thread.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    Protocol,
    cast,
    final,
    overload,
    runtime_checkable,
)

import mtaio
from mtaio._internal.checks import type_of
from mtaio._internal.statistics import COUNTER
from mtaio.app import _context
from mtaio.exceptions import MTAIOError

if TYPE_CHECKING:
    import mtaio.logging

__all__ = ["AsyncErrorHandler", "ErrorHandler", "ErrorHandlerStatistics", "ErrorReporter"]

_MOST_RECORDS: Final = 100
"""Errors of one group that have a record of their own."""

_MOST_KINDS: Final = 10
"""Kinds of errors that the record about the others of a group names."""

_MOST_NOTES: Final = 10
"""Notes of an error that its message has."""

_MOST_LETTERS: Final = 100
"""Characters of a group's message in the path of an error."""


@runtime_checkable
class ErrorReporter(Protocol):
    """The protocol of what reports an application's errors, such as an `ErrorHandler`."""

    def report(self, error: Exception, context: Mapping[str, object], /) -> object:
        """Report an error, without waiting."""
        ...


class AsyncErrorHandler(Protocol):
    """The protocol of what handles an application's errors asynchronously."""

    async def handle_error(self, error: Exception, context: dict[str, object], /) -> object:
        """Handle an error."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorHandlerStatistics:
    """What an `ErrorHandler` has done so far."""

    reported: Mapping[str, int] = field(metadata=COUNTER | {"label": "level"})
    """Errors reported, by the name of the level; each error of a group is counted."""
    swallowed: int = field(metadata=COUNTER)
    """Those of them that a `catch` swallowed."""
    failed: int = field(metadata=COUNTER)
    """Reported errors that could not be logged, because a handler or a filter raised."""


class ErrorHandler:
    """
    Reports errors to a logger.

    A `MTAIOError`, such as a limit that was reached, is logged at ``ERROR`` with its type, message,
    notes and context, without a traceback. Any other error is logged at ``CRITICAL`` with its
    traceback. Each error in an exception group gets a record of its own; after 100 of them, one
    record counts the rest by type.

    Records have the extra keys ``error_type``, ``error_message``, ``context`` and, for an error
    from a group, ``error_group``; their file and line are those where the error was raised. Secrets
    that `RedactingFilter` finds are masked. The context is kept as plain data, with at most 500
    values in 8 levels and 2,000 characters a text.

    Exceptions that are no ``Exception``, such as cancellation, ``KeyboardInterrupt`` and
    ``SystemExit``, are not reported.

    An error handler can be used from any thread, with or without an event loop. A subclass may
    override `report`, which `catch` calls.

    Args:
        logger: The logger, or its name.
        redact: The filter that masks secrets; None for a `RedactingFilter` with its defaults.

    Raises:
        TypeError: An argument is of the wrong type.

    Example:
        ```python
        import anyio

        from mtaio import RateLimiter
        from mtaio.app import ErrorHandler

        errors = ErrorHandler()
        limiter = RateLimiter(rate=1, burst=1)


        async def buy(article: str) -> None:
            with errors.catch({"article": article}, swallow=True):
                limiter.acquire_nowait()


        async def main() -> None:
            await buy("tea")
            await buy("cake")  # logs: RateLimitError: …; context: article='cake'
            assert errors.statistics().reported == {"ERROR": 1, "CRITICAL": 0}


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    def __init__(
        self,
        *,
        logger: str | logging.Logger = "mtaio.errors",
        redact: mtaio.logging.RedactingFilter | None = None,
    ) -> None:
        # Not later, in a report: the error to report may be that no more files can be opened.
        from mtaio.logging import RedactingFilter  # noqa: PLC0415 - not before one is made

        if isinstance(logger, str):
            logger = logging.getLogger(logger)
        elif not isinstance(logger, logging.Logger):  # pyright: ignore[reportUnnecessaryIsInstance] - a user may pass anything
            msg = f"logger={logger!r} is {type_of(logger)}. Pass a logging.Logger, or its name."
            raise TypeError(msg)
        if redact is None:
            redact = RedactingFilter()
        elif not isinstance(redact, RedactingFilter):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
            msg = f"redact={redact!r} is {type_of(redact)}. Pass a RedactingFilter, or None."
            raise TypeError(msg)
        self._logger: Final = logger
        self._redact: Final = redact
        self._counts: Final = threading.RLock()  # a signal handler may report too
        self._reported: Final = {logging.ERROR: 0, logging.CRITICAL: 0}
        self._swallowed = 0
        self._failed = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self._logger.name}>"

    def report(self, error: BaseException, context: Mapping[str, object] | None = None) -> None:
        """
        Report an error.

        If a log handler or filter fails, that is counted as ``failed`` and, if
        ``logging.raiseExceptions`` is true, printed to ``sys.stderr``. Not a checkpoint. It can be
        called from any thread.

        Args:
            error: What was raised.
            context: What was being done, as names and values.

        Raises:
            TypeError: ``error`` is not an exception.
        """
        if not isinstance(error, BaseException):  # pyright: ignore[reportUnnecessaryIsInstance] - a user may pass anything
            msg = f"error={error!r} is {type_of(error)}. Pass an exception."
            raise TypeError(msg)
        errors = list(_errors_in(error))
        if not errors:
            return
        kept = _context.plain(context)
        with self._counts:
            for each, _ in errors:
                self._reported[_level(each)] += 1
        for each, path in errors[:_MOST_RECORDS]:
            self._log(each, path, kept)
        others = [each for each, _ in errors[_MOST_RECORDS:]]
        if others:
            self._log_others(others, kept)

    @overload
    def catch(
        self, context: Mapping[str, object] | None = None, *, swallow: Literal[False] = False
    ) -> AbstractContextManager[None, Literal[False]]: ...

    @overload
    def catch(
        self, context: Mapping[str, object] | None = None, *, swallow: bool
    ) -> AbstractContextManager[None, bool]: ...

    def catch(
        self, context: Mapping[str, object] | None = None, *, swallow: bool = False
    ) -> AbstractContextManager[None, Any]:
        """
        Return a context manager that reports errors raised in its block.

        Use a plain ``with``, also around ``await``. An error propagates unchanged after it was
        reported, unless ``swallow`` is true. Cancellation and other exceptions that are no
        ``Exception`` propagate in any case, also out of a group that holds both. Not a checkpoint.

        Args:
            context: What is being done, as names and values. It is read when an error is reported,
                so you can add to it in the block.
            swallow: Whether to suppress the errors after reporting them.
        """
        return _Catch(self.report, context, self._swallow if swallow else None)

    def _swallow(self, error: BaseException) -> None:
        """Count what a block swallows."""
        with self._counts:
            self._swallowed += sum(1 for _ in _errors_in(error))

    def statistics(self) -> ErrorHandlerStatistics:
        """
        Return what was reported so far.

        Not a checkpoint. It can be called from any thread.
        """
        with self._counts:
            return ErrorHandlerStatistics(
                reported={logging.getLevelName(level): n for level, n in self._reported.items()},
                swallowed=self._swallowed,
                failed=self._failed,
            )

    def _log(self, error: Exception, path: str, context: object) -> None:
        """Log an error, which was at ``path`` in a group, or in none."""
        level, kind = _level(error), type(error).__name__
        notes = islice(getattr(error, "__notes__", ()), _MOST_NOTES)
        place = f" in {path}" if path else ""
        self._emit(
            level,
            f"{kind if level == logging.ERROR else f'unexpected {kind}'}{place}: "
            + "; ".join(map(_context.printed, (error, *notes))),
            error,
            {
                "error_type": kind,
                "error_message": _context.printed(error),
                "context": context,
                **({"error_group": path} if path else {}),
            },
        )

    def _log_others(self, errors: list[Exception], context: object) -> None:
        """Log how many more errors a group has than there are records for."""
        kinds = Counter(type(error).__name__ for error in errors).most_common(_MOST_KINDS)
        message = f"{len(errors)} more errors in one group: " + ", ".join(
            f"{number} of {kind}" for kind, number in kinds
        )
        self._emit(
            max(map(_level, errors)),
            message,
            None,
            {
                "error_type": "ExceptionGroup",
                "error_message": message,
                "context": context,
            },
        )

    def _emit(
        self, level: int, text: str, error: Exception | None, extra: dict[str, object]
    ) -> None:
        """Make a record, mask its secrets, shorten it, and pass it to the logger."""
        try:
            if not self._logger.isEnabledFor(level):
                return
            make: Any = logging.getLogRecordFactory()
            path, line, function = _place(error)
            info = (type(error), error, error.__traceback__) if error is not None else None
            record: logging.LogRecord = make(
                self._logger.name,
                level,
                path,
                line,
                text,
                None,
                info if level == logging.CRITICAL else None,
                function,
            )
            record.__dict__.update(extra)
            self._redact.filter(record)
            for name in extra:
                record.__dict__[name] = _context.cut(record.__dict__[name])
            record.msg = _context.cut(record.msg)
            if kept := record.__dict__["context"]:
                record.msg = f"{record.msg}; context: {_context.brief(kept)}"
            self._logger.handle(record)
        except Exception:  # noqa: BLE001 - the caller is to see the error it reports, and not this one
            with self._counts:
                self._failed += 1
            if logging.raiseExceptions and sys.stderr is not None:
                with suppress(Exception):  # which may be what failed
                    traceback.print_exc()


class _Catch:
    """
    The block of `ErrorHandler.catch`.

    Args:
        report: Reports what is raised in it.
        context: What is being done.
        swallow: Called with what is swallowed; None for what is to go on.
    """

    # A class: the frame of a generator would come first in every traceback.
    __slots__ = ("_context", "_report", "_swallow")

    def __init__(
        self,
        report: Callable[[BaseException, Mapping[str, object] | None], object],
        context: Mapping[str, object] | None,
        swallow: Callable[[BaseException], object] | None,
    ) -> None:
        self._report: Final = report
        self._context: Final = context
        self._swallow: Final = swallow

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if exc is None:
            return False
        self._report(exc, self._context)
        if self._swallow is None:
            return False
        self._swallow(exc)
        if isinstance(exc, BaseExceptionGroup) and not isinstance(exc, Exception):
            group = cast("BaseExceptionGroup[BaseException]", exc)
            errors, rest = group.split(Exception)
            if errors is not None and rest is not None:
                raise rest
        return isinstance(exc, Exception)


def _level(error: Exception) -> int:
    return logging.ERROR if isinstance(error, MTAIOError) else logging.CRITICAL


def _place(error: Exception | None) -> tuple[str, int, str | None]:
    """Return the file, the line and the function where an error was raised."""
    step = None if error is None else error.__traceback__
    if step is None:
        return "", 0, None
    while step.tb_next is not None:
        step = step.tb_next
    code = step.tb_frame.f_code
    return code.co_filename, step.tb_lineno, code.co_name


def _errors_in(error: BaseException) -> Iterator[tuple[Exception, str]]:
    """Yield each ``Exception``, and where in a group it is, ``""`` if in none."""
    ahead: list[tuple[BaseException, str]] = [(error, "")]
    while ahead:
        each, path = ahead.pop()
        if isinstance(each, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", each)
            name = f"{path} > " if path else ""
            name += repr(group.message[:_MOST_LETTERS])
            total = len(group.exceptions)
            ahead += [
                (part, f"{name} ({number} of {total})")
                for number, part in reversed([*enumerate(group.exceptions, 1)])
            ]
        elif isinstance(each, Exception):
            yield each, path
