"""Secrets in records."""

from __future__ import annotations

import json
import logging
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtaio.logging import JsonFormatter, RedactingFilter

if TYPE_CHECKING:
    from tests.logging.tools import Logbook


KNOWN = RedactingFilter()


def redacted(
    message: object, *args: object, redact: RedactingFilter | None = None, **extra: object
) -> logging.LogRecord:
    """Return a record as it is behind the filter."""
    record = logging.LogRecord("name", logging.INFO, __file__, 1, message, args, None)
    record.__dict__.update(extra)
    assert (redact or KNOWN).filter(record)
    return record


def masked(value: object, redact: RedactingFilter | None = None) -> Any:
    """Return a value of ``extra`` as it is behind the filter."""
    return redacted("text", value=value, redact=redact).__dict__["value"]


@dataclass(unsafe_hash=True)
class User:
    """Prints what it holds."""

    name: str
    password: object
    note: object = None
    hidden: str = field(default="token=abc", repr=False)


@dataclass
class Point:
    """Has no secret."""

    x: int
    y: object


class Login(NamedTuple):
    """A tuple whose values have names."""

    name: str
    password: str


class Shown:
    """Prints what it is told to, one way or the other."""

    def __init__(self, shown: object, inner: object = "<>") -> None:
        self.shown = shown
        self.inner = inner

    def __str__(self) -> str:
        return str(self.shown)

    def __repr__(self) -> str:
        return str(self.inner)


class Broken:
    """Cannot be printed."""

    def __str__(self) -> str:
        raise ZeroDivisionError


class Hostile:
    """Does not even tell what it is."""

    @property  # type: ignore[misc]  # it is what makes it hostile
    def __class__(self) -> type:
        raise ZeroDivisionError


class Loud(str):
    """A text that prints another one."""

    __slots__ = ()

    def __str__(self) -> str:
        return "token=loud"


class Kept(Mapping[str, object]):
    """A mapping that is not a dict, and may be broken."""

    def __init__(self, items: dict[str, object] | None) -> None:
        self.kept = items

    def __getitem__(self, key: str) -> object:
        assert self.kept is not None
        return self.kept[key]

    def __iter__(self) -> Iterator[str]:
        if self.kept is None:
            raise ZeroDivisionError
        return iter(self.kept)

    def __len__(self) -> int:
        return 1


class Shared(dict[str, object]):
    """A dict that can be hashed."""

    def __hash__(self) -> int:  # type: ignore[override]  # it is what this is for
        return 1


class Colour(Enum):
    """Something harmless that is neither text nor number."""

    RED = 1


def test_secrets_in_arguments_are_masked() -> None:
    """Arguments are masked by their names, and the message as a whole as a text."""
    assert redacted("%s is %s", "password", 3).getMessage() == "password is 3"
    assert redacted("password=%s!", "hunter2").getMessage() == "password=***"
    assert redacted("%s: %s", "password", "hunter2").getMessage() == "password: ***"
    assert redacted("%(token)s %(n)d", {"token": "abc", "n": 3}).getMessage() == "*** 3"
    assert (
        redacted("got %s", [{"pwd": "x", "id": 1}]).getMessage() == "got [{'pwd': '***', 'id': 1}]"
    )
    assert redacted(["token=abc"]).getMessage() == "['token=***']"


def test_harmless_record_is_left_as_it_is() -> None:
    """Where there is no secret, the very same objects stay, message and arguments apart too."""
    plain = ({"a": [1, (2,)]}, {1.5, None}, b"raw", Point(1, [2]), Colour.RED, deque([1]))
    extra: dict[str, Any] = {f"x{n}": each for n, each in enumerate(plain)}
    record = redacted("%s and %d", "text", 7, **extra)
    assert (record.msg, record.args) == ("%s and %d", ("text", 7))
    assert all(record.__dict__[f"x{n}"] is each for n, each in enumerate(plain))
    args = {"n": 1}
    assert redacted("%(n)d", args).args is args


def test_arguments_of_an_access_log_stay_apart() -> None:
    """A formatter that takes the arguments themselves, as uvicorn's does, still finds them."""
    record = redacted('%s - "%s %s"', "10.0.0.1:1", "GET", "/x?token=abc&n=1")
    assert record.args == ("10.0.0.1:1", "GET", "/x?token=***&n=1")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Authorization": "Basic x", "Accept": "*/*"}, {"Authorization": "***", "Accept": "*/*"}),
        ({3: ({"cookie": 1}, ["token=abc"])}, {3: ({"cookie": "***"}, ["token=***"])}),
        ({b"authorization": b"Bearer x", b"n": b"1"}, {b"authorization": "***", b"n": b"1"}),
        ({"token=abc": 1, b"token=abc": 2}, {"token=***": 1, b"token=***": 2}),
        ({("token=abc",): 1, None: 2, 3: 4}, {"('token=***',)": 1, None: 2, 3: 4}),
        ({"name": "DB_PASSWORD", "value": "x"}, {"name": "DB_PASSWORD", "value": "***"}),
        ([{"Value": "x", "Name": "token"}], [{"Value": "***", "Name": "token"}]),
        ([{"Key": "pw", "Value": "x"}], [{"Key": "pw", "Value": "***"}]),
        ({"value": "x", "key": "user"}, {"value": "x", "key": "user"}),
        ([("Authorization", "Bearer x"), ("n", "1")], [("Authorization", "***"), ("n", "1")]),
        ([[b"cookie", b"a=b"]], [[b"cookie", "***"]]),
        (["mysql", "--password", "x", "-u", "bob"], ["mysql", "--password", "***", "-u", "bob"]),
        (("password", "name", "token"), ("password", "name", "token")),
        (b"token=abc \xff", b"token=*** \xff"),
        (bytearray(b"token=abc"), b"token=***"),
        (deque(["token=abc"], maxlen=3), deque(["token=***"])),
        (frozenset({"token=abc"}), frozenset({"token=***"})),
        ({User("bob", 1)}, {"User(name='bob', password='***', note=None)"}),
        (frozenset({Login("bob", "x")}), frozenset({Login("bob", "***")})),
        ({Shared({"token": "x"})}, [{"token": "***"}]),
        (MappingProxyType({"token": 1, "n": 2}), {"token": "***", "n": 2}),
        (Kept({"token": 1, "n": 2}), {"token": "***", "n": 2}),
        (Login("bob", "hunter2"), Login("bob", "***")),
        (urlsplit("postgres://u:p@db/x?n=1"), urlsplit("postgres://u:***@db/x?n=1")),
        (urlsplit("postgres://db/x"), urlsplit("postgres://db/x")),
        ({"auth": ("bob", "hunter2"), "n": 1}, {"auth": "***", "n": 1}),
        ({"tokens": ["a"], "passwords": ("b",)}, {"tokens": "***", "passwords": "***"}),
        (User("bob", "hunter2"), "User(name='bob', password='***', note=None)"),
        (
            User("bob", "", {"token": "x", "n": [1]}),
            "User(name='bob', password='***', note={'token': '***', 'n': [1]})",
        ),
        ([User("bob", 1)], ["User(name='bob', password='***', note=None)"]),
        (User, User),
        (Shown("token=abc"), "token=***"),
        (Shown("", "token=abc"), "token=***"),
        (Loud("token=abc"), "token=***"),
        (Loud("text"), "token=***"),
        (ValueError("token=abc"), "token=***"),
        (Broken(), "<Broken that cannot be printed>"),
        ([Hostile()], "<list that cannot be searched>"),
        (Kept(None), "<Kept that cannot be searched>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_secrets_in_extra_are_masked(value: object, expected: object) -> None:
    """What holds a secret is copied with its type, and stays as it is; broken values go."""
    before = repr(value) if not isinstance(value, list | Broken) else ""
    found = masked(value)
    assert found == expected
    assert type(found) is type(expected)
    if before:
        assert repr(value) == before


def test_value_that_holds_itself_is_cut() -> None:
    """A value that holds itself is cut where it does, however often; what it holds is masked."""
    value: list[object] = ["token=abc"]
    value += [value, value, {"again": value}]
    assert masked(value) == ["token=***", "...", "...", {"again": "..."}]
    shared: Any = {"token": "abc"}
    for _ in range(60):
        shared = {"a": shared, "b": shared}  # a tree of 2 ** 60 leaves
    found = masked(shared)
    assert found["a"] is found["b"]


@pytest.mark.parametrize("depth", [5, 30, 31, 40, 500, 100_000])
def test_no_depth_hides_a_secret(depth: int) -> None:
    """However deep it stands, a secret is masked, or what holds it is not shown."""
    value: Any = [{"password": "hunter2"}, Shown("token=hunter2")]
    for _ in range(depth):
        value = [value]
    record = redacted("text", value=value)
    assert "hunter2" not in JsonFormatter().format(record)
    harmless: Any = 1
    for _ in range(min(depth, 31)):
        harmless = [harmless]
    assert masked(harmless) is harmless


def test_values_too_deep_are_cut() -> None:
    """Thirty-two levels are searched and left as they are; what is deeper is not shown."""

    def nested(levels: int, core: object) -> object:
        for _ in range(levels):
            core = [core]
        return core

    kept = nested(32, "text")
    record = logging.makeLogRecord({"kept": kept, "cut": nested(33, "text")})
    KNOWN.filter(record)
    assert vars(record)["kept"] is kept
    assert vars(record)["cut"] == nested(32, "...")


def test_numbers_are_searched_for_own_patterns() -> None:
    """A number is not a secret by itself, but may look like one to an own pattern."""
    redact = RedactingFilter(patterns=[r"4111\d+"])
    assert masked([4111_2222, 5.5, True], redact) == ["***", 5.5, True]
    assert masked(41112222) == 41112222
    assert masked(10**5000, redact) == "<int that cannot be printed>"


def failing(error: BaseException) -> logging.LogRecord:
    """Return a record of an error that was raised."""
    record = logging.makeLogRecord({"msg": "failed"})
    try:
        raise error  # noqa: TRY301 - as anywhere else
    except BaseException:  # noqa: BLE001 - any kind
        record.exc_info = sys.exc_info()
    return record


def test_secrets_in_tracebacks_are_masked() -> None:
    """An exception's text and a stack are masked, also where the exception itself is formatted."""
    error = ValueError("token=abc")
    error.add_note("password=hunter2")
    for each in (error, ExceptionGroup("several", [TypeError("password: hunter2"), error])):
        record = failing(each)
        record.stack_info = "at f(password=hunter2)"
        KNOWN.filter(record)
        assert record.exc_text is not None
        assert "ValueError: token=***" in record.exc_text
        assert record.exc_info is None
        for formatter in (JsonFormatter(), logging.Formatter()):
            text = formatter.format(record)
            assert "token=***" in text
            assert "abc" not in text
            assert "hunter2" not in text


def test_traceback_of_another_handler_is_masked() -> None:
    """What a handler before has rendered is masked, and so is the exception it came from."""
    record = failing(ValueError("token=abc"))
    record.exc_text = "in short: token=abc"
    record.message = "token=abc"
    KNOWN.filter(record)
    assert (record.exc_text, record.exc_info) == ("in short: token=***", None)
    assert record.message == "failed"
    record = failing(ValueError("token=abc"))
    record.exc_text = "in short"
    KNOWN.filter(record)
    assert (record.exc_text, record.exc_info) == ("in short", None)
    record = failing(ValueError("text"))
    record.exc_text = "at length, with its variables: token=abc"
    KNOWN.filter(record)
    masked = "at length, with its variables: token=***"
    assert (record.exc_text, record.exc_info) == (masked, None)
    record = logging.makeLogRecord({"msg": "", "exc_text": "token=abc", "stack_info": 3})
    KNOWN.filter(record)
    assert (record.exc_text, record.stack_info) == ("token=***", "3")


def test_harmless_traceback_is_left_to_the_formatter() -> None:
    """Without a secret in it the traceback is not rendered for good."""
    record = failing(ValueError("text"))
    info = record.exc_info
    KNOWN.filter(record)
    assert record.exc_text is None
    assert record.exc_info is info


def test_own_keys_patterns_and_mask() -> None:
    """Own keys and patterns come on top of the known ones, or in their place."""
    own: dict[str, Any] = {"keys": ["card"], "patterns": [r"\d{4}-\d{4}"], "mask": "<x>"}
    extra = {"card": "1", "token": "p"}
    record = redacted("1111-2222 token=abc", redact=RedactingFilter(**own), **extra)
    assert record.getMessage() == "<x> token=<x>"
    assert (record.__dict__["card"], record.__dict__["token"]) == ("<x>", "<x>")
    redact = RedactingFilter(**own, defaults=False)
    record = redacted("1111-2222 token=abc", redact=redact, **extra)
    assert record.getMessage() == "<x> token=abc"
    assert (record.__dict__["card"], record.__dict__["token"]) == ("<x>", "p")


@pytest.mark.parametrize("message", ["token=abc %d", 7, Shown("token=abc %d")])
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


# ---- a planted secret ----------------------------------------------------------------------------

CORE = "S3kr1t"
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.text(
    "\"'\\ ,}", max_size=4
)
SECRET = st.builds("{}{}{}".format, ANY, st.just(CORE), ANY)
BARE = st.builds(
    "{}{}{}".format,
    *[
        st.text("ab1._!$%^*+/@#-", max_size=4).map("a".__add__),
        st.just(CORE),
        st.text("ab1.!$^*+-", max_size=3),
    ],
)
NAME = st.sampled_from(
    [
        *("password", "API-Key", "accessToken", "x_secret", "Authorization", "cookie", "tokens"),
        *("auth", "sid", "user_pw", "X-Signature", "pwd_hash", "Contraseña", "密码", "パスワード"),
    ]
)


def quoted(secret: str) -> st.SearchStrategy[object]:
    """Return texts in which a secret is quoted, and structures in which it stands."""

    def made(name: str) -> list[object]:
        return [
            {name: secret},
            {b"x-token": secret.encode()},
            {name: [secret], "n": 1},
            [{"name": name, "value": secret}, {"Value": secret, "Key": f"DB_{name}"}],
            f"{name}:\n  - {secret!r}\n  - x",
            {"headers": [(name, secret)]},
            [(b"x-token", secret.encode())],
            ["run", f"--{name}", secret],
            Login("bob", secret),
            User("bob", secret),
            Kept({name: secret}),
            MappingProxyType({"a": {name: secret}}),
            json.dumps({name: secret, "n": 1}),
            json.dumps({"body": json.dumps({name: secret})}, ensure_ascii=False),
            f"got {name}={secret!r}, n=1",
            f"got token = {secret!r}".encode(),
            Shown(f"<{name}={secret!r}>", f"Shown({name}={secret!r})"),
            ValueError(f"{ {name: secret} } refused"),
            {("n", f"{name}={json.dumps(secret)}")},
        ]

    return NAME.flatmap(lambda name: st.sampled_from(made(name)))


def bare(secret: str) -> st.SearchStrategy[object]:
    """Return texts in which a secret stands as it is."""
    return NAME.flatmap(
        lambda name: st.sampled_from(
            [
                f"{name}={secret} n=1",
                f"{name}: {secret}",
                f"\x1b[1m{name}\x1b[0m=\x1b[31m{secret}\x1b[0m",
                f"{name}: |\n  {secret} {secret}\n  {secret}\nn: 1",
                f"passwords:\n- a {secret}\n- {secret}\nn: 1",
                json.dumps([{"value": secret, "name": name}], ensure_ascii=False),
                urlsplit(f"x://bob:{secret.replace('/', '.').replace('#', '.')}@host"),
                f"run --{name} {secret} --n 1",
                f"GET /x?{name}={secret}&n=1",
                f"<{name}>{secret}</{name}>",
                f"postgres://bob:{secret.replace('/', '.').replace('#', '.')}@host/path",
                f"X-{name}: Bearer {secret}\nn: 1",
                f"token: Bearer {secret}\nn: 1".encode(),
                Shown(f"Shown({name}={secret}, n=1)"),
            ]
        )
    )


PLANTED = st.recursive(
    SECRET.flatmap(quoted) | BARE.flatmap(bare),
    lambda inner: (
        st.lists(inner | st.integers() | st.text(), min_size=1, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, min_size=1, max_size=3)
        | st.tuples(st.booleans(), inner)
        | st.builds(User, st.just("bob"), st.none(), inner)
        | st.builds(lambda value: Shown(value, value), inner)
        | inner.map(lambda value: deque([value]))
        | inner.map(lambda value: ExceptionGroup("several", [ValueError(value)]))
    ),
    max_leaves=3,
)


@given(PLANTED)
def test_planted_secret_is_never_written(planted: object) -> None:
    """Wherever a secret is put in a record, no formatter writes it."""
    record = logging.LogRecord("name", 20, __file__, 1, "got %s and %r", (planted, planted), None)
    record.__dict__["x"] = planted
    raised = failing(ValueError(planted))
    raised.msg = planted
    mapped = logging.makeLogRecord({"msg": "%(a)s", "args": {"a": planted}, "x": [planted]})
    for each in (record, raised, mapped):
        KNOWN.filter(each)
        formatters = [JsonFormatter(), logging.Formatter("%(message)s")]
        if "x" in each.__dict__:
            formatters.append(logging.Formatter("%(message)s %(x)s"))
        for formatter in formatters:
            try:
                line = formatter.format(each)
            except (
                TypeError,
                ValueError,
                KeyError,
            ):  # arguments that do not fit: the handler reports it
                line = f"{each.msg!r} {each.args!r}"
            assert CORE not in line


# ---- what is left --------------------------------------------------------------------------------

HARMLESS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("abc .", max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner, inner)
        | st.dictionaries(st.sampled_from(["a", "b", "user"]), inner, max_size=3)
        | st.builds(Point, st.integers(), inner)
        | inner.map(lambda value: deque([value], maxlen=2))
        | st.frozensets(st.text("abc .", max_size=9), max_size=2)
    ),
    max_leaves=6,
)


@given(HARMLESS, HARMLESS)
def test_what_is_not_secret_survives(left: object, right: object) -> None:
    """What stands next to a secret keeps its place, its type and its value."""
    assert masked([left, right])[0] is left
    for secret in ({"password": "x", "n": left}, {"n": left, "password": right}):
        given = {"first": left, "inner": secret, "last": [right, {"token": "y"}, left]}
        found = masked(given)
        expected = {
            "first": left,
            "inner": {"password": "***", "n": left},
            "last": [right, {"token": "***"}, left],
        }
        assert found == expected
        assert list(found) == list(given)
        assert type(found["first"]) is type(left)


ODD = st.recursive(
    st.builds(Broken)
    | st.builds(Hostile)
    | st.just(Kept(None))
    | st.binary()
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.text(max_size=3) | st.binary(max_size=3), inner, max_size=2)
        | st.tuples(inner)
        | st.builds(Shown, inner, inner)
        | st.builds(User, inner, inner, inner)
    ),
    max_leaves=4,
)
ATTRIBUTES = ("msg", "args", "exc_info", "exc_text", "stack_info", "message", "x", "token", "")


@given(st.dictionaries(st.sampled_from(ATTRIBUTES), ODD))
@example({"exc_info": (1, 2, 3)})
@example({"args": 7})
@example({"args": (Hostile(),)})
@example({"args": Hostile(), "exc_info": Hostile()})
@example({"msg": Broken()})
@example({"exc_info": (Broken, Broken(), None)})
@example({"exc_text": Broken(), "stack_info": Broken()})
@example({3: 4, None: Hostile()})
def test_no_record_makes_the_filter_raise(attributes: dict[Any, object]) -> None:
    """The filter lets every record pass, and the rest of it is masked."""
    record = logging.makeLogRecord({"msg": "text", "other": "token=abc"})
    record.__dict__.update(attributes)
    assert KNOWN.filter(record)
    assert record.__dict__["other"] == "token=***"
