from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mtaio.testing
from mtaio.logging import JsonFormatter, request_id

if TYPE_CHECKING:
    from tests.logging.tools import Logbook


class Hostile:
    """Cannot be printed, whichever way."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


def entry(record: logging.LogRecord | None = None, **attributes: Any) -> dict[str, Any]:
    """Return what the line of a record says, read as strictly as can be."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    if record is None:
        record = logging.makeLogRecord({"msg": "text", **attributes})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert len(line.splitlines()) == 1
    read: dict[str, Any] = json.loads(line.encode(), parse_constant=refuse)
    return read


def test_record_becomes_one_object() -> None:
    """Time, level, logger and message are there, and whatever was given with ``extra``."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    made = entry(
        msg="paid %d",
        args=(7,),
        name="shop",
        levelname="INFO",
        created=moment.timestamp(),
        customer="アン",
        items=[1, 2.5, None, True],
    )
    assert made == {
        "time": "2026-01-02T03:04:05.000678Z",
        "level": "INFO",
        "logger": "shop",
        "message": "paid 7",
        "customer": "アン",
        "items": [1, 2.5, None, True],
    }
    assert list(made)[:4] == ["time", "level", "logger", "message"]


def test_text_stays_readable() -> None:
    """Text that is not ASCII is written as it is."""
    assert '"日本語\\n"' in JsonFormatter().format(logging.makeLogRecord({"msg": "日本語\n"}))


def test_exception_and_stack_are_text(book: Logbook) -> None:
    """A traceback and a stack stand in the object, and the record keeps neither."""
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    book.logger.addHandler(logging.handlers.QueueHandler(records))
    record = logging.makeLogRecord({"msg": "failed"})
    try:
        int("gone")
    except ValueError:
        record.exc_info = sys.exc_info()
    record.stack_info = "Stack (most recent call last):\n  here"
    made = entry(record)
    assert made["exception"].startswith("Traceback (most recent call last):\n")
    assert made["exception"].endswith("with base 10: 'gone'")
    assert made["stack"] == record.stack_info
    assert record.exc_text is None
    record.exc_text = "as another handler rendered it"
    assert entry(record)["exception"] == "as another handler rendered it"
    record.exc_text, record.exc_info = None, (None, None, None)
    assert "exception" not in entry(record)


def test_task_is_named(backend: str) -> None:
    """The running task's name is there, on either backend; outside of tasks there is none."""
    made: list[dict[str, Any]] = []

    async def child() -> None:
        made.append(entry())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(child, name="the child")

    mtaio.testing.run(main, backend=backend)
    assert made[0]["task"] == "the child"
    assert "task" not in entry()
    assert entry(taskName="of the record")["task"] == "of the record"


def test_extra_never_hides_what_the_record_says() -> None:
    """A name of ``extra`` that is taken gets ``extra_`` in front."""
    made = entry(level="mine", time=3, task="t")
    assert (made["extra_level"], made["extra_time"], made["extra_task"]) == ("mine", 3, "t")
    assert made["level"] != "mine"
    made = entry(time=1, extra_time=2)
    assert (made["extra_time"], made["extra_extra_time"]) == (2, 1)


def test_an_id_of_the_callers_own_stays() -> None:
    """An id that a filter or ``extra`` gives is not replaced by that of the request."""
    token = request_id.set("ours")
    try:
        assert entry()["request_id"] == "ours"
        assert entry(request_id="theirs")["request_id"] == "theirs"
    finally:
        request_id.reset(token)
    assert "request_id" not in entry()


def test_fields_are_in_every_line() -> None:
    """What is given once stands in each line; ``extra`` of the same name wins."""
    formatter = JsonFormatter(fields={"service": "shop", "version": 2})
    made = json.loads(formatter.format(logging.makeLogRecord({"msg": "", "version": 3})))
    assert (made["service"], made["version"]) == ("shop", 3)


def everyone() -> list[object]:
    """Return lists that hold each other, and themselves."""
    lists: list[list[object]] = [[] for _ in range(50)]
    for each in lists:
        each.extend(lists)
    return [*lists]


def deep(depth: int) -> list[object]:
    """Return lists within lists."""
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


class Impostor:
    """Raises when it is asked for its class."""

    @property  # type: ignore[misc]  # it is what makes it hostile
    def __class__(self) -> type:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"raw", "b'raw'"),
        ({1}, "{1}"),
        ({"a": Hostile()}, {"a": "<Hostile that cannot be printed>"}),
        (ExceptionGroup("several", [ValueError("x")]), "several (1 sub-exception)"),
        ({None: 1, True: 2, 1.5: 3, 4: 5}, {"null": 1, "true": 2, "1.5": 3, "4": 5}),
        (list(range(200_000)), list(range(200_000))),
        ("half \ud800", "half \ud800"),
        ("next\x85line\u2028and\u2029more\x0b\x1c", "next\x85line\u2028and\u2029more\x0b\x1c"),
        (float("nan"), "nan"),
        ({"x": float("-inf"), "y": [1.5, (2, None)]}, "{'x': -inf, 'y': [1.5, (2, None)]}"),
        ({(1, 2): {3: 4}}, "{(1, 2): {3: 4}}"),
    ],
)
def test_values_that_json_does_not_have_become_text(value: object, expected: object) -> None:
    """Whatever is logged, the line is JSON, and the other values are as they were."""
    made = entry(value=value, other=[1, {"a": None}])
    assert made["value"] == expected
    assert made["other"] == [1, {"a": None}]


@pytest.mark.parametrize(
    "value",
    [
        everyone(),
        deep(200_000),
        [float("nan"), list(range(200_000))],
        [float("nan"), {str(number): number for number in range(200_000)}],
        {(): 10**4000},
        {(): "#" * 100_000},
        10**5000,
        [Impostor(), float("nan")],
        {("b",): Hostile()},
    ],
    ids=["mutual", "deep", "long", "wide", "number", "text", "huge", "impostor", "hostile"],
)
def test_values_that_cannot_be_shown_whole_are_short(value: object) -> None:
    """What the encoder refuses is shown in part, at once, whatever it holds."""
    made = entry(value=value, other=1)
    assert isinstance(made["value"], str)
    assert len(made["value"]) < 500_000
    assert made["other"] == 1


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"exc_text": "\n"}, {}),
        ({"exc_text": " ", "exc_info": (None, None, None)}, {}),
        ({"exc_text": "\n", "exc_info": (ValueError, ValueError("x"), None)}, "ValueError: x"),
        ({"exc_info": ValueError("x")}, "ValueError: x"),
        ({"exc_info": ()}, {}),
        ({"exc_info": True}, "True"),
        ({"exc_info": (1, 2, 3)}, "(1, 2, 3)"),
    ],
)
def test_odd_exceptions(attributes: dict[str, Any], expected: object) -> None:
    """An exception that is blank is left out; one that is none does not lose the record."""
    assert entry(**attributes).get("exception", {}) == expected


def test_odd_records() -> None:
    """Whatever a record has, there is a line."""
    assert entry(created=1e300)["time"] == "1e+300"
    assert entry(created=None)["time"] == "None"
    assert entry(created=-1.5)["time"] == "1969-12-31T23:59:58.500000Z"
    assert entry(stack_info=3)["stack"] == "3"
    odd: dict[Any, Any] = {3: 4, ("a",): 6, "levelname": 7, "name": b"n"}
    made = entry(logging.makeLogRecord(odd))
    assert (made["3"], made["('a',)"]) == (4, 6)
    assert (made["level"], made["logger"]) == (7, "b'n'")


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text() | st.integers() | st.booleans(), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_any_extra_makes_one_line_of_json(extra: dict[str, object]) -> None:
    """No value breaks the line or the format."""
    mine = {f"x{key}": value for key, value in extra.items()}
    made = entry(None, **mine)
    assert set(mine) <= set(made)
