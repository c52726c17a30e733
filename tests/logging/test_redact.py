from __future__ import annotations

import copy
import logging
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mtaio.logging import JsonFormatter, RedactingFilter

if TYPE_CHECKING:
    from tests.logging.tools import Logbook


def redacted(
    message: object, *args: object, redact: RedactingFilter | None = None, **extra: object
) -> logging.LogRecord:
    """Return a record as it is behind the filter."""
    record = logging.LogRecord("name", logging.INFO, __file__, 1, message, args, None)
    record.__dict__.update(extra)
    assert (redact or RedactingFilter()).filter(record)
    return record


@pytest.mark.parametrize(
    ("message", "masked"),
    [
        ("password=hunter2 for bob", "password=*** for bob"),
        ("DB_PASSWORD: 'hunter2', next", "DB_PASSWORD: '***', next"),
        ('{"api-key": "abc123", "n": 1}', '{"api-key": "***", "n": 1}'),
        ("https://bob:hunter2@host/path", "https://bob:***@host/path"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("sent Bearer abcdefghijklmnop.qrst==", "sent Bearer ***"),
        ("jwt eyJhbGciOi.eyJzdWIiOi.c2lnbmF0 end", "jwt *** end"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----",
        ),
        ("cut -----BEGIN PRIVATE KEY-----\nMIIE", "cut -----BEGIN PRIVATE KEY-----***"),
        ("nothing to hide, basic understanding", "nothing to hide, basic understanding"),
        ("max_tokens=7 keyboard=us", "max_tokens=7 keyboard=us"),
    ],
)
def test_secrets_in_messages_are_masked(message: str, masked: str) -> None:
    """What looks like a secret in a message is masked, and the rest stays."""
    assert redacted(message).getMessage() == masked


def test_secrets_in_arguments_are_masked() -> None:
    """Arguments are masked by their names, and the message as a whole by patterns."""
    assert redacted("%s is %s", "password", 3).getMessage() == "password is 3"
    assert redacted("password=%s!", "hunter2").getMessage() == "password=***"
    assert redacted("%(token)s %(n)d", {"token": "abc", "n": 3}).getMessage() == "*** 3"
    assert (
        redacted("got %s", [{"pwd": "x", "id": 1}]).getMessage() == "got [{'pwd': '***', 'id': 1}]"
    )
    assert redacted(["token=abc"]).getMessage() == "['token=***']"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True),
        ("db_password", True),
        ("accessToken", True),
        ("Access-Token", True),
        ("X API Key", True),
        ("tokens", False),
        ("password_length", False),
        ("keyboard", False),
    ],
)
def test_names_of_secrets(name: str, secret: object) -> None:
    """A name is a secret's if it ends in one, however its words are joined."""
    record = logging.makeLogRecord({"msg": "text", name: "value"})
    RedactingFilter().filter(record)
    value = record.__dict__[name]
    assert value == ("***" if secret else "value")


def test_secrets_deep_in_extra_are_masked_and_the_callers_objects_are_not() -> None:
    """Masks reach into mappings and lists, in copies alone."""
    headers: dict[Any, Any] = {
        "Authorization": "Basic x",
        "Accept": "*/*",
        3: ({"cookie": 1}, ["token=abc"]),
    }
    before = copy.deepcopy(headers)
    plain = {"a": [1, (2,)]}
    record = redacted("text", headers=headers, plain=plain)
    assert record.__dict__["headers"] == {
        "Authorization": "***",
        "Accept": "*/*",
        3: ({"cookie": "***"}, ["token=***"]),
    }
    assert headers == before
    assert record.__dict__["plain"] is plain


def test_value_that_holds_itself_is_left() -> None:
    """A value without an end stops the search, not the program."""
    value: list[object] = []
    value.append(value)
    assert redacted("text", value=value).__dict__["value"] is value


def test_secrets_in_tracebacks_are_masked() -> None:
    """An exception's text and a stack are masked in what is written."""
    record = logging.makeLogRecord({"msg": "failed", "stack_info": "at f(password=hunter2)"})
    try:
        float("token=abc")
    except ValueError:
        record.exc_info = sys.exc_info()
    redact = RedactingFilter()
    redact.filter(record)
    text = JsonFormatter().format(record)
    assert "abc" not in text
    assert "hunter2" not in text
    assert record.exc_text is not None
    assert record.exc_text.endswith("ValueError: could not convert string to float: 'token=***'")
    record.exc_text = "token=as-another-handler-rendered-it"
    redact.filter(record)
    assert record.exc_text == "token=***"


def test_harmless_traceback_is_left_to_the_formatter() -> None:
    """Without a secret in it the traceback is not rendered for good."""
    record = logging.makeLogRecord({"msg": "failed"})
    try:
        int("x")
    except ValueError:
        record.exc_info = sys.exc_info()
    RedactingFilter().filter(record)
    assert record.exc_text is None


def test_own_keys_patterns_and_mask() -> None:
    """Keys and patterns may be one's own; without patterns texts are not searched."""
    redact = RedactingFilter(
        keys=["card"], patterns=[r"\d{4}-\d{4}", re.compile(r"pin (?P<secret>\d+)?")], mask="<x>"
    )
    record = redacted("card 1111-2222 pin 12 pin !", redact=redact, card="1", password="p")  # noqa: S106 - no real one
    assert record.getMessage() == "card <x> pin <x> pin !"
    assert (record.__dict__["card"], record.__dict__["password"]) == ("<x>", "p")
    record = redacted("token=abc", redact=RedactingFilter(patterns=[]), stack_info="token=abc")
    assert (record.getMessage(), record.stack_info) == ("token=abc", "token=abc")


@pytest.mark.parametrize("message", ["token=abc %d", 7])
def test_broken_record_is_left_to_the_handler(message: object) -> None:
    """A message that cannot be rendered is masked as far as can be, and passes."""
    record = redacted(message, "token=abc", {"password": "x"})
    assert record.msg == ("token=*** %d" if message != 7 else 7)
    assert record.args == ("token=***", {"password": "***"})


def test_filter_of_a_handler(book: Logbook) -> None:
    """Added to the handler it masks what is written."""
    handler = book.open()
    handler.addFilter(RedactingFilter())
    book.logger.info("password=%s", "hunter2", extra={"n": 1})
    assert handler.flush()
    assert book.lines() == ["password=***"]


def test_bad_arguments_are_refused() -> None:
    """One text in the place of several, what is no text and no expression is refused."""
    with pytest.raises(TypeError, match=r"^keys='card' is one text. Pass several"):
        RedactingFilter(keys="card")
    with pytest.raises(TypeError, match=r"^keys has 3, a int. Pass texts"):
        RedactingFilter(keys=[3])  # type: ignore[list-item]  # what is refused
    with pytest.raises(TypeError, match=r"^patterns has b'x', a bytes"):
        RedactingFilter(patterns=[b"x"])  # type: ignore[list-item]  # what is refused
    with pytest.raises(ValueError, match=r"^patterns has '\(', which is no regular exp"):
        RedactingFilter(patterns=["("])
