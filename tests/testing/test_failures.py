"""What counts as a failure, and what is noted on one."""

from __future__ import annotations

import asyncio
import sys

import pytest

from mtaio.testing._diagnostics import is_failure, kind_of

FAILED = pytest.fail.Exception
SKIPPED = pytest.skip.Exception


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (LookupError(), True),
        (FAILED("x"), True),
        (ExceptionGroup("", [LookupError()]), True),
        (BaseExceptionGroup("", [FAILED("x"), LookupError()]), True),
        (BaseExceptionGroup("", [BaseExceptionGroup("", [FAILED("x")])]), True),
        (BaseExceptionGroup("", [LookupError(), KeyboardInterrupt()]), False),
        (SKIPPED("x"), False),
        (KeyboardInterrupt(), False),
        (SystemExit(1), False),
        (GeneratorExit(), False),
        (asyncio.CancelledError(), False),
    ],
    ids=repr,
)
def test_what_is_a_failure(error: BaseException, *, failure: bool) -> None:
    """Errors and pytest's fail() are failures; what only breaks a test off is none."""
    assert is_failure(error) is failure


def test_failures_without_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pytest is not in use, it is not asked."""
    monkeypatch.delitem(sys.modules, "pytest")
    assert not is_failure(FAILED("x"))
    assert is_failure(LookupError())


def test_kinds_of_failures() -> None:
    """Two failures are of one kind if their types are, those within groups in any order."""
    assert kind_of(LookupError(1)) == kind_of(LookupError(2)) != kind_of(KeyError())
    one = ExceptionGroup("a", [LookupError(), ExceptionGroup("", [OSError()])])
    two = ExceptionGroup("b", [ExceptionGroup("", [OSError(), OSError()]), LookupError()])
    assert kind_of(one) == kind_of(two) != kind_of(ExceptionGroup("", [LookupError()]))
