"""
Secrets that do not reach the log.

Promise: what stands under a secret's name, and what looks like a secret, is masked in the record
itself, so that no handler after this filter sees it; the caller's own objects are not changed.
Whatever cannot be searched is not shown, and nothing is raised.
Cost: each text of a record is searched, an exception's too; what is neither text, number nor
container is printed for it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from mtaio.logging._formatters import OWN, as_text
from mtaio.logging._secrets import Secrets
from mtaio.logging._walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RedactingFilter"]

_PLAIN: Final = logging.Formatter()


class RedactingFilter(logging.Filter):
    """
    Masks secrets in messages, their arguments, ``extra`` and tracebacks; lets every record pass.

    Add it to a handler, or to a logger: a logger's filters see only what is logged on that logger
    itself. It changes the record, so that handlers that come later see the mask too; those that
    came earlier have seen the secret. Where an exception's text has a secret, ``exc_info`` is
    replaced by the masked text.

    What is found: a value under a secret's name, in mappings, pairs, dataclasses, named tuples and
    text (``password=…``, ``"token": "…"``, ``--api-key …``, ``<secret>…</secret>``), headers and
    cookies to the end of their line, passwords in URLs, bearer and JSON web tokens, private keys,
    and tokens that begin as those of GitHub, GitLab, npm, PyPI, Stripe, Slack and Google do. What
    cannot be found is a secret that neither has such a name beside it nor looks like one, and one
    that is encoded. Names of loggers, threads and tasks are not searched. What holds itself, and
    what is more than 32 levels deep, becomes ``"..."``.

    Args:
        keys: More names under which secrets stand; ``password``, ``token`` and the like are known.
            A name counts if it ends in one, however its words are joined, and whatever digits
            follow: ``"token"`` also means ``access_token``, ``Access-Token`` and ``csrftoken``. A
            key of up to four letters must be a word by itself.
        patterns: More regular expressions of secrets in text. What the group ``secret`` matched is
            masked, everything if there is no such group.
        mask: What stands in the place of a secret.
        defaults: False leaves out the names and patterns that are known.

    Raises:
        TypeError: A key, a pattern or ``mask`` is no text.
        ValueError: A pattern is no regular expression, or a key has no letter or digit.

    Example:
        ```python
        import logging

        from mtaio.logging import RedactingFilter

        redact = RedactingFilter(keys=["card"])
        record = logging.makeLogRecord({"msg": "paid with %(card)s", "args": {"card": "4111"}})
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
            msg = f"mask={mask!r} is a {type(mask).__name__}, not a str. Pass a text."
            raise TypeError(msg)
        self._secrets = Secrets(
            _keys(keys), map(_compiled, _texts("patterns", patterns)), mask, known=defaults
        )

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the secrets of ``record``, and let it pass. Not a checkpoint."""
        walk = Walk(self._secrets)
        given = record.__dict__
        _redact_message(record, walk)
        for name in given.keys() - OWN:
            given[name] = walk.under(name, given[name])
        _redact_exception(record, self._secrets.masked)
        if record.stack_info:
            record.stack_info = self._secrets.masked(as_text(record.stack_info))
        return True


def _redact_message(record: logging.LogRecord, walk: Walk) -> None:
    args = cast("object", record.args)
    if isinstance(args, Mapping):
        mapping = cast("Mapping[str, object]", args)
        record.args = cast("Mapping[str, object]", walk.under("", mapping))
    elif isinstance(args, tuple):
        record.args = tuple(walk.under("", each) for each in cast("tuple[object, ...]", args))
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
        # Whoever formats the exception itself, and not its text, must not find it any more.
        record.exc_text = record.exc_text or safe
        record.exc_info = None


def _keys(keys: Iterable[str]) -> list[str]:
    """Return the names of secrets, all of which must be names."""
    listed: list[str] = _texts("keys", keys)
    for key in listed:
        if not any(map(str.isalnum, key)):
            msg = f"keys has {key!r}, which has no letter and no digit. Pass names of secrets."
            raise ValueError(msg)
    return listed


def _texts(name: str, values: Iterable[Any]) -> list[Any]:
    """Return what is to be texts or patterns, all of them."""
    if isinstance(values, str):
        msg = f"{name}={values!r} is one text. Pass several, as in [{values!r}]."
        raise TypeError(msg)
    kinds = (str,) if name == "keys" else (str, re.Pattern)
    listed = list(values)
    for value in listed:
        if not isinstance(value, kinds):
            msg = f"{name} has {value!r}, a {type(value).__name__}. Pass texts."
            raise TypeError(msg)
    return listed


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        msg = f"patterns has {pattern!r}, which is no regular expression: {error}."
        raise ValueError(msg) from None
    if isinstance(cast("object", compiled.pattern), bytes):
        msg = f"patterns has {pattern!r}, which is for bytes. Pass one for text."
        raise TypeError(msg)
    return compiled
