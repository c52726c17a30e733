"""
Secrets that do not reach the log.

Promise: what stands under a secret's name, and what looks like a secret, is masked in the record
itself, so that no handler after this filter sees it; the caller's own objects are not changed.
Cost: each pattern is searched for in each text of a record.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, cast

from mtaio.logging._formatters import OWN

__all__ = ["RedactingFilter"]

_DEEPEST: Final = 32
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PLAIN: Final = logging.Formatter()

KEYS: Final = (
    *("password", "passwd", "passphrase", "pwd", "secret", "token", "api_key", "apikey"),
    *("access_key", "private_key", "secret_key", "authorization", "cookie", "credential"),
    *("credentials", "session_id", "sessionid", "csrf"),
)

PATTERNS: Final = (
    # password=…, "token": "…", db-api-key: …
    r"""(?ix) \b (?:[a-z0-9]+[_-])* (?:password|passwd|passphrase|pwd|secret|token|api[_-]?key
        |access[_-]?key|private[_-]?key|secret[_-]?key) ["']? \s* [=:] \s* ["']?
        (?P<secret> [^\s"',;&}\])]+ )""",
    # Authorization: Basic …
    r"""(?i)\bauthorization["']?\s*[=:]\s*["']?(?:[a-z]+\s+)?(?P<secret>[^\s"',;]+)""",
    # … bearer …
    r"(?i)\bbearer\s+(?P<secret>[a-z0-9._~+/-]{16,}=*)",
    # https://user:…@host
    r"(?i)\b[a-z][a-z0-9+.-]*://[^\s/:@]*:(?P<secret>[^\s/@]+)@",
    # JSON web tokens, wherever they stand
    r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
    # private keys
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?P<secret>[\s\S]*?)(?:-----END|\Z)",
)


class RedactingFilter(logging.Filter):
    """
    Masks secrets in messages, their arguments, ``extra`` and tracebacks; lets every record pass.

    Add it to a handler, or to a logger: a logger's filters see only what is logged on that logger
    itself. It changes the record, so that handlers that come later see the mask too.

    Args:
        keys: Names under which secrets stand, in ``extra``, in arguments, and in mappings within
            them. ``"token"`` also means ``access_token``, ``accessToken`` and ``Access-Token``.
        patterns: Regular expressions of secrets in text. What the group ``secret`` matched is
            masked, everything if there is no such group.
        mask: What stands in the place of a secret.

    Raises:
        TypeError: A key or a pattern is no text.
        ValueError: A pattern is no regular expression.

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
        keys: Iterable[str] = KEYS,
        patterns: Iterable[str | re.Pattern[str]] = PATTERNS,
        *,
        mask: str = "***",
    ) -> None:
        super().__init__()
        self._keys = frozenset(map(_name, _texts("keys", keys)))
        self._patterns = tuple(map(_compiled, _texts("patterns", patterns)))
        self._mask = mask
        self._is_secret = lru_cache(maxsize=1024)(self._ends_in_key)

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the secrets of ``record``, and let it pass. Not a checkpoint."""
        self._redact_message(record)
        for name, value in list(record.__dict__.items()):
            if name not in OWN:
                record.__dict__[name] = self._redact(name, value, 0)
        if self._patterns:
            if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
                plain = _PLAIN.formatException(record.exc_info)
                masked = self._search(plain)
                if masked != plain:
                    record.exc_text = masked
            elif record.exc_text:
                record.exc_text = self._search(record.exc_text)
            if record.stack_info:
                record.stack_info = self._search(record.stack_info)
        return True

    def _redact_message(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, Mapping):
            record.args = {key: self._redact(key, each, 0) for key, each in record.args.items()}
        elif record.args:
            record.args = tuple(self._redact("", each, 0) for each in record.args)
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - the handler meets it too, and reports it
            record.msg = self._search(record.msg) if isinstance(record.msg, str) else record.msg
            return
        masked = self._search(message)
        if masked != message:
            record.msg = masked
            record.args = None

    def _redact(self, name: object, value: Any, depth: int) -> object:
        """Return ``value``, which stands under ``name``, with its secrets masked."""
        if isinstance(name, str) and name and self._is_secret(name):
            return self._mask
        if isinstance(value, str):
            return self._search(value)
        if depth == _DEEPEST:
            return value
        if isinstance(value, Mapping):
            mapping = cast("Mapping[object, object]", value)
            items = [
                (key, each, self._redact(key, each, depth + 1)) for key, each in mapping.items()
            ]
            if any(each is not masked for _, each, masked in items):
                return {key: masked for key, _, masked in items}
        elif type(value) in {list, tuple}:
            sequence = cast("Sequence[object]", value)
            parts = [self._redact("", each, depth + 1) for each in sequence]
            if any(each is not part for each, part in zip(sequence, parts, strict=True)):
                return tuple(parts) if type(value) is tuple else parts
        return cast("object", value)

    def _search(self, text: str) -> str:
        for pattern, groups in self._patterns:
            if groups:
                text = pattern.sub(self._without_group, text)
            else:
                text = pattern.sub(lambda _: self._mask, text)
        return text

    def _without_group(self, found: re.Match[str]) -> str:
        start, end = found.span("secret")
        if start < 0:
            return found[0]
        begin = found.start()
        return f"{found[0][: start - begin]}{self._mask}{found[0][end - begin :]}"

    def _ends_in_key(self, name: str) -> bool:
        parts = _name(name).split("_")
        return any("_".join(parts[start:]) in self._keys for start in range(len(parts)))


def _name(key: str) -> str:
    """Return a name as it is compared: ``accessToken`` and ``Access-Token`` are one."""
    return _CAMEL.sub("_", key).replace("-", "_").replace(" ", "_").lower()


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


def _compiled(pattern: str | re.Pattern[str]) -> tuple[re.Pattern[str], bool]:
    """Return a pattern, and whether it says which part is the secret."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        msg = f"patterns has {pattern!r}, which is no regular expression: {error}."
        raise ValueError(msg) from None
    return compiled, "secret" in compiled.groupindex
