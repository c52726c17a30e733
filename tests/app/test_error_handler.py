"""What becomes of errors: one record each, with what is needed and without secrets."""

from __future__ import annotations

import itertools
import json
import logging
import sys
import threading
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import pytest

from mtaio.app import ErrorHandler
from mtaio.exceptions import LimitError, MTAIOError
from mtaio.logging import JsonFormatter, RedactingFilter
from mtaio.monitoring import Source, metrics

if TYPE_CHECKING:
    from collections.abc import Iterator


class Log(logging.Handler):
    """A logger that only this test knows, and what was logged there."""

    def __init__(self) -> None:
        super().__init__()
        self.logger = logging.Logger("shop.errors")  # noqa: LOG001 - no other test is to meet it
        self.logger.addHandler(self)
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record."""
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        """The levels and messages."""
        return [f"{each.levelname} {each.getMessage()}" for each in self.records]

    @property
    def only(self) -> Any:
        """The only record."""
        (record,) = self.records
        return record

    def json(self) -> dict[str, Any]:
        """Return the only record as a line of JSON would have it."""
        entry: dict[str, Any] = json.loads(JsonFormatter().format(self.only))
        return entry


@pytest.fixture
def log() -> Log:
    """Return a log with nothing in it."""
    return Log()


@pytest.fixture
def errors(log: Log) -> ErrorHandler:
    """Return a handler that reports to that log."""
    return ErrorHandler(logger=log.logger)


def raised(error: BaseException) -> BaseException:
    """Return an error that was raised."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


async def test_error_of_mtaio(log: Log, errors: ErrorHandler) -> None:
    """It is logged at ERROR, with its type, message and notes and the context, in one line."""
    error = raised(LimitError("the limit of 5 is reached"))
    error.add_note("in item 3: buy('tea')")
    errors.report(error, {"order": 7, "customer": "Ann"})
    assert log.only.levelname == "ERROR"
    assert log.only.getMessage() == (
        "LimitError: the limit of 5 is reached; in item 3: buy('tea'); "
        "context: order=7, customer='Ann'"
    )
    assert log.only.exc_info is None
    assert (log.only.pathname, log.only.name) == (__file__, "shop.errors")
    entry = log.json()
    assert entry["error_type"] == "LimitError"
    assert entry["error_message"] == "the limit of 5 is reached"
    assert entry["context"] == {"order": 7, "customer": "Ann"}


async def test_any_other_error(log: Log, errors: ErrorHandler) -> None:
    """It is logged at CRITICAL, with its traceback."""
    errors.report(raised(ZeroDivisionError("division by zero")))
    assert log.lines == ["CRITICAL unexpected ZeroDivisionError: division by zero"]
    entry = log.json()
    assert entry["exception"].startswith("Traceback (most recent call last):\n")
    assert entry["exception"].endswith(
        "in raised\n    raise error\nZeroDivisionError: division by zero"
    )
    assert (entry["error_type"], entry["error_message"]) == (
        "ZeroDivisionError",
        "division by zero",
    )
    assert entry["context"] is None


def test_error_that_was_never_raised(log: Log, errors: ErrorHandler) -> None:
    """It has no place and no traceback, and is reported all the same."""
    errors.report(KeyError("a"))
    assert log.lines == ["CRITICAL unexpected KeyError: 'a'"]
    assert (log.only.pathname, log.only.lineno) == ("", 0)


def test_default_logger() -> None:
    """The logger is mtaio.errors, unless another is named."""
    assert repr(ErrorHandler()) == "<ErrorHandler to mtaio.errors>"
    assert repr(ErrorHandler(logger="shop")) == "<ErrorHandler to shop>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logger": 7}, "^logger=7 is an int. Pass a logging.Logger, or its name.$"),
        ({"redact": 7}, "^redact=7 is an int. Pass a RedactingFilter, or None.$"),
    ],
)
def test_refused(arguments: dict[str, Any], message: str) -> None:
    """An argument of the wrong type is refused, with what to pass."""
    with pytest.raises(TypeError, match=message):
        ErrorHandler(**arguments)


def test_only_exceptions_are_reported(errors: ErrorHandler) -> None:
    """What is no exception is a mistake of the caller's."""
    with pytest.raises(TypeError, match=r"^error='no' is a str\. Pass an exception\.$"):
        errors.report("no")  # type: ignore[arg-type]  # the subject


def test_level_that_is_off(log: Log, errors: ErrorHandler) -> None:
    """A logger that leaves a level out gets no record; the error counts."""
    log.logger.setLevel(logging.CRITICAL)
    errors.report(MTAIOError("quiet"))
    assert log.lines == []
    assert errors.statistics().reported == {"ERROR": 1, "CRITICAL": 0}


# ---- groups --------------------------------------------------------------------------------------


async def test_group_of_tasks(log: Log, errors: ErrorHandler) -> None:
    """Each error of a group that tasks have raised is reported by itself."""

    async def fail(error: Exception) -> NoReturn:
        raise error

    with errors.catch({"order": 7}, swallow=True):
        async with anyio.create_task_group() as group:
            group.start_soon(fail, LimitError("full"))
            group.start_soon(fail, ValueError("a"))
    assert sorted(line.partition(" in ")[0] for line in log.lines) == [
        "CRITICAL unexpected ValueError",
        "ERROR LimitError",
    ]
    (unexpected,) = [each for each in log.records if each.exc_info]
    assert unexpected.funcName == "fail"


def test_nested_group(log: Log, errors: ErrorHandler) -> None:
    """The place of an error leads through the groups that it was in."""
    errors.report(
        ExceptionGroup(
            "all", [LimitError("full"), ExceptionGroup("batch", [ValueError("a"), KeyError("b")])]
        ),
        {"order": 7},
    )
    assert log.lines == [
        "ERROR LimitError in 'all' (1 of 2): full; context: order=7",
        "CRITICAL unexpected ValueError in 'all' (2 of 2) > 'batch' (1 of 2): a; context: order=7",
        "CRITICAL unexpected KeyError in 'all' (2 of 2) > 'batch' (2 of 2): 'b'; context: order=7",
    ]
    assert log.records[1].error_group == "'all' (2 of 2) > 'batch' (1 of 2)"
    assert errors.statistics().reported == {"ERROR": 1, "CRITICAL": 2}


def test_large_group(log: Log, errors: ErrorHandler) -> None:
    """Beyond a hundred errors of a group, one record says how many there are of each type."""
    many = [ValueError(str(number)) for number in range(150)]
    errors.report(ExceptionGroup("all", [*many, LimitError("full")]), {"order": 7})
    assert len(log.records) == 101
    assert log.lines[-1] == (
        "CRITICAL 51 more errors in one group: 50 of ValueError, 1 of LimitError; context: order=7"
    )
    assert log.records[-1].error_type == "ExceptionGroup"
    assert errors.statistics().reported == {"ERROR": 1, "CRITICAL": 150}


def test_many_words(log: Log, errors: ErrorHandler) -> None:
    """Long messages, many notes, long names of groups and many types are shortened."""
    long = MTAIOError("x" * 10_000)
    noted = LimitError("full")
    for number in range(20):
        noted.add_note(f"note {number}")
    errors.report(ExceptionGroup("g" * 1000, [long, noted]))
    first, second = log.records
    assert first.error_message == "x" * 2000 + "..."
    assert len(first.getMessage()) == 2003
    assert second.error_group == f"'{'g' * 100}' (2 of 2)"
    assert second.getMessage().endswith("full; " + "; ".join(f"note {n}" for n in range(10)))
    log.records.clear()
    kinds = [type(f"Kind{number}Error", (Exception,), {}) for number in range(112)]
    errors.report(ExceptionGroup("all", [kind() for kind in kinds]))
    assert log.lines[-1].count("1 of Kind") == 10


# ---- catching ------------------------------------------------------------------------------------


async def test_catch(log: Log, errors: ErrorHandler) -> None:
    """The block reports an error, with what its context holds by then, and lets it go on."""
    context: dict[str, object] = {"order": 7}
    error = ValueError("bad")

    async def work() -> NoReturn:
        with errors.catch(context):
            await anyio.sleep(1)
            context["step"] = "pay"
            raise error

    with pytest.raises(ValueError, match=r"^bad$") as caught:
        await work()
    assert caught.value is error
    assert log.lines == ["CRITICAL unexpected ValueError: bad; context: order=7, step='pay'"]
    assert log.json()["exception"].count("  File ") == 1  # no frame of the block
    assert errors.statistics().swallowed == 0


async def test_swallow(log: Log, errors: ErrorHandler) -> None:
    """The block ends the errors if it is to, each of a group, and counts them."""
    with errors.catch(swallow=True):
        pass
    with errors.catch(swallow=True):
        raise LimitError("full")
    with errors.catch(swallow=True):
        raise ExceptionGroup("all", [ValueError("a"), ValueError("b")])
    assert len(log.lines) == 3
    assert errors.statistics().swallowed == 3


@pytest.mark.parametrize("swallow", [False, True])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program(
    log: Log,
    errors: ErrorHandler,
    kind: type[BaseException],
    swallow: bool,  # noqa: FBT001 - a parameter
) -> None:
    """What is not an error of the program passes, and is not reported."""
    error = kind()
    with pytest.raises(kind) as caught, errors.catch(swallow=swallow):
        raise error
    assert caught.value is error
    errors.report(error)
    assert log.lines == []


@pytest.mark.parametrize("swallow", [False, True])
async def test_cancellation(log: Log, errors: ErrorHandler, swallow: bool) -> None:  # noqa: FBT001 - as above
    """Cancellation is neither reported nor swallowed."""
    with anyio.CancelScope() as scope, errors.catch(swallow=swallow):
        scope.cancel()
        try:
            await anyio.sleep(1)
        except BaseException as error:
            errors.report(error)
            raise
    assert scope.cancelled_caught
    assert log.lines == []
    assert errors.statistics().swallowed == 0


@pytest.mark.parametrize("swallow", [False, True])
async def test_cancellation_among_errors(
    log: Log,
    errors: ErrorHandler,
    swallow: bool,  # noqa: FBT001 - as above
) -> None:
    """Of a group the errors are reported, and what is not swallowed goes on as it is."""
    cancelled: list[BaseException] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        except BaseException as error:
            cancelled.append(error)
            raise
    group = BaseExceptionGroup("all", [*cancelled, ValueError("bad")])
    with pytest.raises(BaseExceptionGroup) as caught, errors.catch(swallow=swallow):
        raise group
    if swallow:
        assert caught.value.exceptions == tuple(cancelled)
        assert caught.value.message == "all"
        assert caught.value.__suppress_context__
    else:
        assert caught.value is group
    assert log.lines == ["CRITICAL unexpected ValueError in 'all' (2 of 2): bad"]
    assert errors.statistics().swallowed == (1 if swallow else 0)


async def test_errors_of_a_group_that_is_cancelled(log: Log, errors: ErrorHandler) -> None:
    """Around a task group that is cancelled while a task fails, the scope ends as it would."""

    async def fail_when_cancelled() -> None:
        try:
            await anyio.sleep(5)
        finally:
            raise ValueError("bad")

    with anyio.move_on_after(1) as scope, errors.catch(swallow=True):
        async with anyio.create_task_group() as group:
            group.start_soon(fail_when_cancelled)
            group.start_soon(anyio.sleep, 5)
    assert scope.cancel_called
    assert [line.partition(" in ")[0] for line in log.lines] == ["CRITICAL unexpected ValueError"]


def test_only_cancellation_in_a_group(errors: ErrorHandler) -> None:
    """A group without an error goes on as it is, also where errors are swallowed."""
    group = BaseExceptionGroup("all", [KeyboardInterrupt()])
    with pytest.raises(BaseExceptionGroup) as caught, errors.catch(swallow=True):
        raise group
    assert caught.value is group


# ---- secrets -------------------------------------------------------------------------------------


@dataclass
class Account:
    """Something with a secret."""

    name: str
    password: str
    hidden: str = field(default="hunter5", repr=False)


Login = namedtuple("Login", ["user", "token"])  # noqa: PYI024 - as code without types has it


def test_secrets(log: Log, errors: ErrorHandler) -> None:
    """Secrets are masked in message, traceback and context, and in nothing of the caller's."""
    context = {
        "url": "https://bob:hunter2@example.org/",
        "account": Account("bob", "hunter3"),
        "logins": [Login("bob", "hunter4")],
        "headers": {"Authorization": "Bearer hunter6"},
        "id": 7,
    }
    errors.report(raised(ValueError("password=hunter1")), context)
    shown = logging.Formatter("%(message)s %(context)s %(error_message)s").format(log.only)
    assert "hunter" not in shown + JsonFormatter().format(log.only)
    assert log.only.context == {
        "url": "https://bob:***@example.org/",
        "account": {"name": "bob", "password": "***"},
        "logins": [{"user": "bob", "token": "***"}],
        "headers": {"Authorization": "***"},
        "id": 7,
    }
    assert "raise error" in shown  # the traceback is there
    assert context["headers"] == {"Authorization": "Bearer hunter6"}


def test_secrets_of_ones_own(log: Log) -> None:
    """What counts as a secret is for the filter that is passed."""
    errors = ErrorHandler(logger=log.logger, redact=RedactingFilter(["card"], mask="<>"))
    errors.report(MTAIOError("failed"), {"card": "4111", "token": "1"})
    assert log.lines == ["ERROR MTAIOError: failed; context: card='<>', token='<>'"]


def test_secret_at_the_end_of_what_is_kept(log: Log, errors: ErrorHandler) -> None:
    """A long text is searched before it is cut, so that no secret loses what shows it is one."""
    token = "ghp_" + "a1B2" * 9
    errors.report(MTAIOError("x" * 1990 + " " + token), {"text": "x" * 1990 + " " + token})
    shown = repr(log.only.__dict__)
    assert "ghp_" not in shown
    assert log.only.context["text"].endswith(" ***")


# ---- contexts of all kinds -----------------------------------------------------------------------


class Broken:
    """Something that cannot be printed."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


class BrokenMapping(dict[str, object]):
    """A mapping that cannot be looked at."""

    def items(self) -> NoReturn:
        """Fail."""
        raise ZeroDivisionError


def test_kinds_of_values(log: Log, errors: ErrorHandler) -> None:
    """Numbers stay numbers, containers lists and mappings, and all else is text."""
    context: Mapping[str, object] = {
        "none": None,
        "flag": True,
        "number": 1.5,
        "infinite": float("inf"),
        "large": 1 << 2000,
        "huge": 1 << 100_000,
        "path": PurePosixPath("a/b"),
        "set": {1},
        "tuple": (1, b"x"),
        "type": Account,
        "broken": Broken(),
        "mapping": BrokenMapping(a=1),
    }
    errors.report(MTAIOError("failed"), context)
    entry = log.json()["context"]
    assert entry.pop("large") == str(1 << 2000)
    assert entry == {
        "none": None,
        "flag": True,
        "number": 1.5,
        "infinite": "inf",
        "huge": "<int that cannot be printed>",
        "path": "a/b",
        "set": [1],
        "tuple": [1, "b'x'"],
        "type": str(Account),
        "broken": "<Broken that cannot be printed>",
        "mapping": "<BrokenMapping that cannot be printed>",
    }


def test_error_that_cannot_be_printed(log: Log, errors: ErrorHandler) -> None:
    """An error whose text cannot be made is reported without it."""

    class BrokenError(MTAIOError):
        def __str__(self) -> str:
            raise ZeroDivisionError

    errors.report(BrokenError())
    assert log.lines == ["ERROR BrokenError: <BrokenError that cannot be printed>"]


def test_context_that_holds_itself(log: Log, errors: ErrorHandler) -> None:
    """What holds itself, and what is too deep, is cut there; what is there twice is shown twice."""
    context: dict[str, Any] = {"twice": [[1], [1]]}
    context["twice"][1] = context["twice"][0]
    context["self"] = context
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    context["deep"] = deep
    errors.report(MTAIOError("failed"), context)
    assert log.only.context == {"twice": [[1], [1]], "self": "...", "deep": [[[[[[["..."]]]]]]]}


def test_huge_context(log: Log, errors: ErrorHandler) -> None:
    """Of a huge context a record keeps some, and the message a few words."""
    errors.report(MTAIOError("failed"), {f"name {n}": ["x" * 10_000] * 30 for n in range(10_000)})
    context = log.only.context
    assert len(repr(context)) < 30_000
    assert len(context["name 0"]) == 30
    assert context["name 0"][0] == "x" * 2000 + "..."
    assert context["name 0"][-1] == "..."
    assert len(log.only.getMessage()) < 1_100


def test_many_values(log: Log, errors: ErrorHandler) -> None:
    """Of many values a record keeps 500, and says that there were more."""
    errors.report(MTAIOError("failed"), {"numbers": list(range(10_000)), "after": 1})
    errors.report(MTAIOError("failed"), {f"name {number}": number for number in range(10_000)})
    errors.report(MTAIOError("failed"), {"numbers": range(10)})
    first, second, third = (each.context for each in log.records)
    assert first == {"numbers": [*range(498), "..."], "...": "..."}
    assert second == {**{f"name {number}": number for number in range(499)}, "...": "..."}
    assert third == {"numbers": "range(0, 10)"}
    assert log.records[1].getMessage().endswith(", name 19=19...")


class Endless(Mapping[str, int]):
    """A mapping that has no end."""

    def __getitem__(self, key: str) -> int:
        return len(key)

    def __iter__(self) -> Iterator[str]:
        return map(str, itertools.count())

    def __len__(self) -> int:
        return sys.maxsize


def test_endless_context(log: Log, errors: ErrorHandler) -> None:
    """A mapping without an end, or with long names, is cut."""
    errors.report(MTAIOError("failed"), Endless())
    errors.report(MTAIOError("failed"), {"x" * 10_000: 1})
    assert len(log.records[0].context) == 500
    assert log.records[1].context == {"x" * 2000 + "...": 1}


@pytest.mark.parametrize("context", ["no mapping", 7, [1]])
def test_context_that_is_no_mapping(log: Log, errors: ErrorHandler, context: Any) -> None:
    """Whatever is passed as a context is reported."""
    errors.report(MTAIOError("failed"), context)
    assert log.lines == [f"ERROR MTAIOError: failed; context: {context!r}"]


# ---- trouble -------------------------------------------------------------------------------------


class FailingHandler(logging.Handler):
    """Raises in the one that logs."""

    def handle(self, record: logging.LogRecord) -> NoReturn:  # noqa: ARG002 - as logging calls it
        """Fail."""
        raise ZeroDivisionError


@pytest.mark.parametrize("loud", [True, False])
def test_handler_that_fails(
    log: Log,
    errors: ErrorHandler,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    loud: bool,  # noqa: FBT001 - as above
) -> None:
    """A report that cannot be logged is counted, and the error that was reported goes on."""
    monkeypatch.setattr(logging, "raiseExceptions", loud)
    log.logger.addHandler(FailingHandler())
    with pytest.raises(LimitError), errors.catch():
        raise LimitError("full")
    assert errors.statistics().failed == 1
    assert ("ZeroDivisionError" in capsys.readouterr().err) is loud


def test_record_factory_with_the_same_names(errors: ErrorHandler, log: Log) -> None:
    """A record that has a context already, from a factory of the user's, gets this one."""
    usual = logging.getLogRecordFactory()

    def make(*args: Any, **options: Any) -> logging.LogRecord:
        record = usual(*args, **options)
        record.__dict__["context"] = "request 7"
        return record

    logging.setLogRecordFactory(make)
    try:
        errors.report(MTAIOError("failed"), {"order": 7})
    finally:
        logging.setLogRecordFactory(usual)
    assert log.only.context == {"order": 7}


def test_threads(log: Log, errors: ErrorHandler) -> None:
    """Reports of several threads are all counted."""

    def work() -> None:
        for _ in range(50):
            with errors.catch(swallow=True):
                raise LimitError("full")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = errors.statistics()
    assert (figures.reported["ERROR"], figures.swallowed, len(log.records)) == (400, 400, 400)


def test_metrics(errors: ErrorHandler) -> None:
    """The monitor shows how many errors were reported at each level, from the first on."""
    source = Source(kind="error_handler", name=None, statistics=errors.statistics(), mappings=True)
    shown = {(each.name, each.labels.get("level")): each.kind for each in metrics([source])}
    assert shown == {
        ("mtaio_error_handler_reported_total", "ERROR"): "counter",
        ("mtaio_error_handler_reported_total", "CRITICAL"): "counter",
        ("mtaio_error_handler_swallowed_total", None): "counter",
        ("mtaio_error_handler_failed_total", None): "counter",
    }
