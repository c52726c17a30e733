"""
Masks secrets in log records.

Promise: a value under a secret's name, and whatever looks like a secret, is masked in the record
itself, so that no later handler sees it. The caller's own objects are not changed. What cannot be
searched is not shown, and nothing is raised.
Cost: each value of a record is visited once, and each text is searched; an exception, or an object
that is not text, number or container, is printed first.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from operator import is_
from typing import Any, Final, cast

from mtaio._internal import checks
from mtaio.logging._json import OWN, as_text
from mtaio.logging._secrets import Secrets

__all__ = ["RedactingFilter"]

# ---- values --------------------------------------------------------------------------------------

_DEEPEST: Final = 32
"""Values within values within values: what is deeper is not searched, and not shown."""

_CUT: Final = "..."
"""Stands where a value holds itself, and where it is too deep."""

_WALKED: Final = frozenset({dict, list, tuple})
"""Types that print what they hold, and nothing else."""


class _Walk:
    """Goes through one record's values, and looks at each once."""

    __slots__ = ("_done", "secrets")

    def __init__(self, secrets: Secrets) -> None:
        self.secrets: Final = secrets
        # By identity, with what they are, so that no other takes that identity meanwhile.
        self._done: dict[int, tuple[object, object]] = {}

    def under(self, name: object, value: object) -> object:
        """
        Return ``value``, which stands under ``name``, with its secrets masked.

        What holds no secret comes back as it is, the very object; what does, as a copy.
        """
        try:
            return self._under(name, value, 0) if name else self._value(value, 0)
        except Exception:  # noqa: BLE001 - what cannot be searched is not shown
            return f"<{type(value).__name__} that cannot be searched>"

    def _under(self, name: object, value: object, depth: int) -> object:
        if self._named(name):
            return self.secrets.mask
        if name == "netloc" and isinstance(value, str):  # of the result of urlsplit
            masked = self.secrets.masked(f"://{value}")[3:]
            return value if masked == value else masked
        return self._value(value, depth)

    def _named(self, name: object) -> bool:
        if isinstance(name, bytes):
            name = name.decode(errors="replace")
        return isinstance(name, str) and self.secrets.named(name)

    def _value(self, value: object, depth: int) -> object:
        kind = type(value)
        if kind is str:
            return self.secrets.masked(cast("str", value))
        if value is None or kind is bool:
            return value
        if kind is int or kind is float:
            return self._shown(value) if self.secrets.patterns else value
        known = self._done.get(id(value))
        if known is not None:
            return known[1]
        self._done[id(value)] = value, _CUT
        result = value
        if depth < _DEEPEST:
            result = self._inside(value, depth + 1)
        elif kind in _WALKED:
            result = _CUT
        if result is value and kind not in _WALKED:
            result = self._shown(value)
        self._done[id(value)] = value, result
        return result

    def _inside(self, value: Any, depth: int) -> object:
        """Return what ``value`` holds with its secrets masked, itself if there are none."""
        if isinstance(value, Mapping):
            return self._mapping(cast("Mapping[object, object]", value), depth)
        if isinstance(value, list | tuple | set | frozenset | deque):
            return self._sequence(value, depth)
        if isinstance(value, bytes | bytearray):
            return self._bytes(value)
        if is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value, depth)
        return value

    def _mapping(self, mapping: Mapping[object, object], depth: int) -> object:
        changed = False
        result: dict[object, object] = {}
        valued = ("value" in mapping or "Value" in mapping) and any(
            self._named(mapping.get(each)) for each in ("name", "Name", "key", "Key")
        )
        for key, value in mapping.items():
            name = self._key(key)
            secret = valued and key in ("value", "Value")
            masked = self.secrets.mask if secret else self._under(key, value, depth)
            changed = changed or name is not key or masked is not value
            result[name] = masked
        return result if changed else mapping

    def _key(self, key: object) -> object:
        if isinstance(key, str):
            return self.secrets.masked(key)
        if isinstance(key, bytes):
            return self._bytes(key)
        if key is None or isinstance(key, int | float):
            return key
        return self._shown(key)

    def _sequence(self, sequence: Any, depth: int) -> object:
        kind = cast("Any", type(sequence))
        each: list[object] = list(sequence)
        names: tuple[object, ...] = getattr(cast("object", sequence), "_fields", ())
        fielded = isinstance(sequence, tuple) and len(names) == len(each) > 0
        if not fielded:
            names = ("",) * len(each)
            if not isinstance(sequence, set | frozenset):
                names = tuple(self._before(each, place) for place in range(len(each)))
        parts = [self._under(name, value, depth) for name, value in zip(names, each, strict=True)]
        if all(map(is_, parts, each)):
            return cast("object", sequence)
        if fielded:
            return cast("object", kind._make(parts))
        if isinstance(sequence, deque):
            return deque(parts, cast("deque[object]", sequence).maxlen)
        if isinstance(sequence, set | frozenset):
            try:
                return cast("object", kind(parts))
            except TypeError:  # what was hashable no longer is
                return parts
        return tuple(parts) if isinstance(sequence, tuple) else parts

    @staticmethod
    def _before(values: list[object], place: int) -> object:
        """Return what names the value at ``place``: the first of a pair, or an option."""
        before = values[place - 1] if place else ""
        is_option = isinstance(before, str) and before.startswith("-")
        return before if is_option or len(values) == 2 else ""  # noqa: PLR2004 - a pair

    def _bytes(self, value: bytes | bytearray) -> bytes | bytearray:
        text = value.decode(errors="surrogateescape")
        masked = self.secrets.masked(text)
        return value if masked == text else masked.encode(errors="surrogateescape")

    def _dataclass(self, value: Any, depth: int) -> object:
        changed = False
        parts: list[str] = []
        for field in fields(value):
            if field.repr and hasattr(value, field.name):
                before = getattr(value, field.name)
                part = self._under(field.name, before, depth)
                changed = changed or part is not before
                parts.append(f"{field.name}={part!r}")
        if not changed:
            return cast("object", value)
        return self.secrets.masked(f"{type(value).__qualname__}({', '.join(parts)})")

    def _shown(self, value: object) -> object:
        """Return the masked text of ``value`` if there is a secret in it, else itself."""
        try:
            shown = str(value)
            inner = shown if type(value).__str__ is object.__str__ else repr(value)
        except Exception:  # noqa: BLE001 - what cannot be printed cannot be searched
            return as_text(value)
        plain = (str.__str__(value),) if isinstance(value, str) else ()
        for text in (*plain, shown, inner):
            masked = self.secrets.masked(text)
            if masked != text:
                return masked
        return value


# ---- records -------------------------------------------------------------------------------------

_PLAIN: Final = logging.Formatter()


class RedactingFilter(logging.Filter):
    """
    Masks secrets in messages, their arguments, ``extra`` and tracebacks.

    Add it to a handler, or to a logger, whose filters see only what is logged on that logger
    itself. All records pass. The filter changes the record, so later handlers see the masked text,
    while earlier ones have seen the secret. If the text of an exception contains a secret,
    ``exc_info`` is replaced by the masked text.

    It masks values with the name of a secret in mappings, pairs, dataclasses, named tuples and text
    (``password=…``, ``"token": "…"``, ``--api-key …``, ``<secret>…</secret>``), headers and cookies
    to the end of their line, passwords in URLs, bearer and JSON web tokens, private keys, and
    tokens with the prefixes of many services. It does not find secrets that are encoded, or that
    have no such name and no such form; the guide lists both. Names of loggers, threads and tasks
    are not searched. Values that contain themselves or are more than 32 levels deep become
    ``"..."``.

    Args:
        keys: More names of secrets, in addition to ``password``, ``token`` and the like. Names that
            end in a key match too, however their words are joined and whatever digits follow:
            ``"token"`` also matches ``access_token``, ``Access-Token`` and ``csrftoken``. A key of
            up to four Latin letters has to be a whole word.
        patterns: More regular expressions for secrets in text. The group ``secret`` is masked, or
            the whole match if there is none.
        mask: The text that replaces a secret.
        defaults: Whether to look for the known names and patterns.

    Raises:
        TypeError: A key, a pattern or ``mask`` is not a text.
        ValueError: A pattern is not a regular expression, or a key has no letter or digit.

    Example:
        ```python
        import logging

        from mtaio.logging import RedactingFilter

        redact = RedactingFilter(keys=["card"])
        record = logging.makeLogRecord(
            {"msg": "paid with %(card)s", "args": {"card": "4111"}}
        )
        redact.filter(record)
        assert record.getMessage() == "paid with ***"
        ```
    """

    def __init__(
        self,
        keys: Iterable[str] = (),
        patterns: Iterable[str | re.Pattern[str]] = (),
        *,
        mask: str = "***",
        defaults: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(mask, str):  # pyright: ignore[reportUnnecessaryIsInstance] - a user may pass anything
            msg = f"mask={mask!r} is {checks.type_of(mask)}, not a str. Pass a str."
            raise TypeError(msg)
        self._secrets = Secrets(
            _keys(keys), map(_compiled, _texts("patterns", patterns)), mask, known=defaults
        )

    def filter(self, record: logging.LogRecord) -> bool:
        """
        Mask the secrets in the record, and return True.

        Not a checkpoint.
        """
        walk = _Walk(self._secrets)
        given = record.__dict__
        _redact_message(record, walk)
        for name in given.keys() - OWN:
            given[name] = walk.under(name, given[name])
        _redact_exception(record, self._secrets.masked)
        if record.stack_info:
            record.stack_info = self._secrets.masked(as_text(record.stack_info))
        return True


def _redact_message(record: logging.LogRecord, walk: _Walk) -> None:
    args = cast("object", record.args)
    if type(args) is tuple:  # two arguments are not a pair of name and value
        record.args = tuple([walk.under("", each) for each in cast("tuple[object, ...]", args)])
    elif args is not None:
        record.args = cast("Mapping[str, object]", walk.under("", args))
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - the handler meets it too, and reports it
        record.msg = walk.under("", record.msg)
        return
    masked = walk.secrets.masked(message)
    if masked != message:
        record.msg = masked
        record.args = None
    if "message" in record.__dict__:  # a handler before this one has left it there
        record.message = masked


def _redact_exception(record: logging.LogRecord, masked: Callable[[str], str]) -> None:
    text = record.exc_text
    if text:
        record.exc_text = masked(as_text(text))
    if not record.exc_info:
        return
    try:
        plain = _PLAIN.formatException(record.exc_info)
    except Exception:  # noqa: BLE001 - as above
        return
    safe = masked(plain)
    if safe != plain or record.exc_text != text:
        # A formatter that renders the exception itself must not find it any more.
        record.exc_text = record.exc_text or safe
        record.exc_info = None


def _keys(keys: Iterable[str]) -> list[str]:
    """Return the names of secrets; each must have a letter or a digit."""
    listed: list[str] = _texts("keys", keys)
    for key in listed:
        if not any(map(str.isalnum, key)):
            msg = f"keys has {key!r}, which has no letter and no digit. Pass names of secrets."
            raise ValueError(msg)
    return listed


def _texts(name: str, values: Iterable[Any]) -> list[Any]:
    """Return a list of what must be texts, or texts and patterns."""
    if isinstance(values, str):
        msg = f"{name}={values!r} is a single str. Pass several, as in [{values!r}]."
        raise TypeError(msg)
    kinds = (str,) if name == "keys" else (str, re.Pattern)
    listed = list(values)
    for value in listed:
        if not isinstance(value, kinds):
            msg = f"{name} has {value!r}, {checks.type_of(value)}, not a str. Pass strings only."
            raise TypeError(msg)
    return listed


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        msg = f"patterns has {pattern!r}, which is not a regular expression: {error}."
        raise ValueError(msg) from None
    if isinstance(cast("object", compiled.pattern), bytes):
        msg = f"patterns has {pattern!r}, which is for bytes. Pass one for text."
        raise TypeError(msg)
    return compiled
