"""
Where secrets stand in text: behind their names, and by how they look.

Promise: what stands behind a secret's name is masked to its end, however it is quoted, escaped or
bracketed; in doubt too much is masked, not too little. A text of any kind is searched in time that
grows with its length alone.
Cost: one pass over the text, and one for each pattern of the caller's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mtaio.logging._values import AFTER_QUOTE, OPENING, around, end_of_line, quoted, unquoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["KEYS", "Secrets"]

KEYS: Final = (
    *("password", "passwords", "passwd", "passphrase", "passcode", "pwd", "pass", "secret"),
    *("secrets", "token", "api_key", "api_keys", "access_key", "private_key", "secret_key"),
    *("encryption_key", "signing_key", "account_key", "master_key", "authorization", "cookie"),
    *("cookies", "credential", "credentials", "session_id", "session_key", "phpsessid", "csrf"),
    *("xsrf", "jwt", "otp", "パスワード"),
)
_SHORT: Final = 4
"""Letters of a key that must be a word by itself: ``pass`` does not mean ``bypass``."""

_HEADERS: Final = ("authorization", "cookie", "cookies")
"""Names whose value has blanks in it, also without quotes, and goes on to the end of the line."""

_REACH: Final = 100
"""How many characters of a name are looked at, from its end; names may be of any length."""

_MOST_OPEN: Final = 16
"""Brackets that are never closed, of which each costs a look at the whole rest of the text."""

_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+")

_NAME: Final = re.compile(
    r"""
    (?<! [\w.-] )
    (?:
        (?P<option> --? [^\W\d_] [\w.-]*+ ) [ \t]++ (?= [^\s=:-] )
        | (?P<name> [\w.-]++ (?: [ ] [\w.] [\w.-]*+ )? )
        (?P<closed> \\*+ ["'] )?+ \]?+ \s*+
        (?: [!:]?={1,3}>? | -> | \uff1d | (?P<colon> [:\uff1a] ) | (?P<comma> ,)
            | (?= \( \s*+ [bru]? ["'] ) )
    )
    \s*+
    """,
    re.VERBOSE,
)
"""A name and what joins it to its value. A blank joins an option, ``--password x``, a comma a pair,
``("password", "x")``, an open bracket a call; ``"name": "password", "value": "x"`` counts too."""

_PAIRED: Final = re.compile(r"""[(\[]\s?[bru]?\\*["']\Z""")
_VALUED: Final = re.compile(r"""\\*["']?value\\*["']?\s*+[=:]\s*+""")
_SCHEME: Final = re.compile(r"(?i)(?:basic|bearer|digest|negotiate|ntlm|token|aws4-hmac-sha256)\s+")
_ASSIGNED: Final = re.compile(r"\s*+=(?!=)\s*+")
_ELEMENT: Final = re.compile(r"<(?P<name>[\w.:-]++)[^<>]*+(?<!/)>(?P<secret>[^<]++)")

_PATTERNS: Final = (
    # … bearer …; shorter ones are words
    ("bearer", r"(?i)\bbearer\s+(?P<secret>[a-z0-9._~+/-]{16,}+=*)"),
    # … basic …: a base64 that no word looks like
    ("basic", r"(?i)\bbasic\s+(?P<secret>(?=[a-z+/]*+[0-9=])[a-z0-9+/]{8,}+=*)"),
    # https://user:…@host: up to the last @ before the path; failing that, before the end
    (
        "@",
        r"""(?x) :// [^\s/?\#@:"<>]*+ : (?! \d{1,5} (?: [/?\#"',;)\]}\s] | \Z ) )
        (?P<secret> [^\s/?\#"<>]* (?=@) | (?= [^\s"<>@]{0,99}+ @ ) [^\s"<>]{0,99} (?=@) )""",
    ),
    # https://…@host: a token in the place of the user
    ("@", r"://(?P<secret>[^\s/?#@:\"<>]{20,})(?=@)"),
    # JSON web tokens
    ("eyj", r"(?a)(?<![\w-])(?>[\w-]*?(?=eyJ))(?P<secret>[\w-]++\.[\w-]++\.[\w-]*)"),
    # private keys
    (
        "private key",
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?P<secret>[\s\S]*?)(?:-----END|\Z)",
    ),
    # what GitHub, GitLab, npm, PyPI, Stripe, Slack, Google and others call their tokens
    ("gh", r"(?a)\bgh[oprsu]_\w{20,}"),
    ("github_pat_", r"(?a)\bgithub_pat_\w{20,}"),
    ("glpat-", r"(?a)\bglpat-[\w-]{20,}"),
    ("npm_", r"(?a)\bnpm_\w{36,}"),
    ("pypi-", r"(?a)\bpypi-[\w-]{50,}"),
    ("sk-", r"(?a)\bsk-[\w-]{20,}"),
    ("k_", r"(?a)\b[rs]k_(?:live|test)_\w{20,}"),
    ("xox", r"(?a)\bxox[a-z]-[\w-]{10,}"),
    ("aiza", r"(?a)\bAIza[\w-]{35,}"),
)
"""Each with what a text in small letters has if the pattern is anywhere in it."""


class Secrets:
    """
    Knows the names of secrets, and finds secrets in text.

    Args:
        keys: What the names of secrets end in.
        patterns: What secrets look like, beside the known ones.
        mask: What is put in their place.
        known: Whether the known keys and patterns are among them.
    """

    def __init__(
        self, keys: Iterable[str], patterns: Iterable[re.Pattern[str]], mask: str, *, known: bool
    ) -> None:
        names = [_words(key) for key in (*keys, *(KEYS if known else ()))]
        joined = {"".join(words) for words in names}
        self._short = frozenset(key for key in joined if len(key) <= _SHORT)
        self._long = tuple(sorted(joined - self._short))
        self._reach = _REACH + max(map(len, joined), default=0)
        self._ends_in_key = lru_cache(maxsize=1024)(self._looked_up)
        self._hints = _hints(names)
        self.mask: Final = mask
        self.own_patterns: Final = tuple(patterns)
        self._patterns = [
            *((hint, *_masker(re.compile(each), mask)) for hint, each in _PATTERNS if known),
            *(("", *_masker(each, mask)) for each in self.own_patterns),
        ]

    # ---- names -----------------------------------------------------------------------------------

    def named(self, name: str) -> bool:
        """Tell whether what is called ``name`` is a secret."""
        return self._ends_in_key(name[-self._reach :])

    def _looked_up(self, name: str) -> bool:
        words = _words(name)
        joined = "".join(words)
        bare = joined.rstrip("0123456789")
        if joined.endswith(self._long) or bare.endswith(self._long):
            return True
        ends = ("".join(words[start:]) for start in range(len(words)))
        return any(end in self._short or end.rstrip("0123456789") in self._short for end in ends)

    # ---- text ------------------------------------------------------------------------------------

    def masked(self, text: str) -> str:
        """Return ``text`` with the secrets in it masked, the very same if there are none."""
        if text.isalnum() and not self.own_patterns:
            return text  # nothing in it joins a name to a value, and no known pattern is so plain
        small = text.lower()
        for hint in self._hints:
            if hint in small:
                text = self._behind_names(text)
                if "</" in text:
                    text = _ELEMENT.sub(self._element, text)
                break
        for hint, pattern, replace in self._patterns:
            if hint in small:
                text = pattern.sub(replace, text)
        return text

    def _element(self, found: re.Match[str]) -> str:
        if not self.named(found["name"]):
            return found[0]
        return f"{found[0][: -len(found['secret'])]}{self.mask}"

    def _behind_names(self, text: str) -> str:
        parts: list[str] = []
        copied = 0
        never_closed = 0
        found = _NAME.search(text)
        while found is not None:
            place = found.end()
            if self._joined(text, found):
                start, end, closed = self._value(text, found)
                if not closed:
                    never_closed += 1
                    if never_closed > _MOST_OPEN:
                        end = len(text)
                if end > start:
                    parts += (text[copied:start], self.mask)
                    copied = place = end
            found = _NAME.search(text, place)
        if not parts:
            return text
        return "".join((*parts, text[copied:]))

    def _joined(self, text: str, found: re.Match[str]) -> bool:
        """Tell whether a secret's name was found, and joined to a value."""
        name = found["option"] or found["name"]
        if found["comma"] is not None and (
            found["closed"] is None
            or not (
                name.startswith("-")
                or _PAIRED.search(text, max(0, found.start() - 9), found.start())
                or _VALUED.match(text, found.end())
            )
        ):
            return False
        return self.named(name)

    def _value(self, text: str, found: re.Match[str]) -> tuple[int, int, bool]:
        """Return where the value behind a name begins and ends, and whether its end was found."""
        start = found.end()
        if found["comma"] is not None and (valued := _VALUED.match(text, start)) is not None:
            start = valued.end()
        if text.startswith(self.mask, start) and AFTER_QUOTE.match(text, start + len(self.mask)):
            return start, start + len(self.mask), True  # searched before
        opened = OPENING.match(text, start)
        if opened is not None:
            start = opened.end()
            end, behind = quoted(text, opened, len(text))
            if behind < len(text) and not AFTER_QUOTE.match(text, behind):
                end, closed = unquoted(text, behind, goes_on=True)
                return start, end, closed
            return start, end, True
        scheme = _SCHEME.match(text, start)
        if scheme is not None:
            start = scheme.end()
        if found["name"] and text[start : start + 1] not in "([{<":
            quote = around(text, found)
            if _is_header(found["name"]) or (quote is not None and found["colon"] is not None):
                end = end_of_line(text, start)
                return start, end if quote is None else quoted(text, quote, end)[0], True
        end, closed = unquoted(text, start)
        assigned = _ASSIGNED.match(text, end)
        if assigned is not None and end > start:  # it was a type: password: str = "…"
            opened = OPENING.match(text, assigned.end())
            if opened is not None:
                return start, quoted(text, opened, len(text))[0], True
            end, closed = unquoted(text, assigned.end())
        return start, end, closed


def _words(name: str) -> list[str]:
    """Return the words of a name: those of ``accessToken`` and ``Access-Token`` are the same."""
    return [word.lower() for word in _WORDS.split(name) if word]


def _hints(names: Iterable[list[str]]) -> list[str]:
    """Return what a text in small letters has if one of the names is anywhere in it."""
    hints: list[str] = []
    for words in sorted(names, key=len):
        if not any(hint in word for word in words for hint in hints):
            hints.append(max(words, key=len) if len(words[-1]) < _SHORT - 1 else words[-1])
    return [hint for hint in hints if not any(each in hint for each in hints if each != hint)]


def _is_header(name: str) -> bool:
    return "".join(_words(name[-_REACH:])).endswith(_HEADERS)


def _masker(
    pattern: re.Pattern[str], mask: str
) -> tuple[re.Pattern[str], Callable[[re.Match[str]], str]]:
    """Return a pattern, and what replaces a match of it."""
    if "secret" not in pattern.groupindex:
        return pattern, lambda _: mask

    def replace(found: re.Match[str]) -> str:
        start, end = found.span("secret")
        if start < 0:
            return found[0]
        begin = found.start()
        return f"{found[0][: start - begin]}{mask}{found[0][end - begin :]}"

    return pattern, replace
