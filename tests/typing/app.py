"""What type checkers make of an application's parts: checked by mypy and pyright, and not run."""

from __future__ import annotations

from typing import assert_type

from mtaio.app import ErrorHandler
from mtaio.statistics import ErrorHandlerStatistics

errors = ErrorHandler()


def going_on() -> int:
    """After a block that lets errors go on nothing is left to return."""
    with errors.catch({"order": 7}):
        return 1


def swallowing() -> int | None:
    """After a block that swallows errors something is."""
    with errors.catch(swallow=True):
        return 1
    return None


def reporting() -> None:
    """What is reported is an exception, and the figures have types."""
    errors.report(KeyboardInterrupt())
    assert_type(errors.statistics(), ErrorHandlerStatistics)
    errors.report("bad")  # type: ignore[arg-type] # no exception
