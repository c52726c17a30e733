r"""
Masks secrets in log records.

Promise: what stands under a secret's name, and what looks like a secret, is masked in the record
itself, so that no later handler sees it. The caller's own objects are not changed. What cannot be
searched is not shown, and nothing is raised.
Cost: each value of a record is visited once, and each text is searched a fixed number of times.

Text is searched with regular expressions alone, in time that grows with its length, whatever is in
it. Who changes one of them keeps to this:

- A repetition is possessive (``*+``) wherever what follows it may fail.
- What was read is not read again for the next match. So a quote or a bracket that is never closed
  takes the rest of the text.
- An expression starts with plain letters, to which ``re`` skips. Names are a trie of them, searched
  for in lower case, which is three times as fast as ``re.IGNORECASE``.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from operator import is_
from typing import Any, Final, cast

from mtaio.logging._formatters import OWN, as_text

__all__ = ["RedactingFilter"]

# ---- names ---------------------------------------------------------------------------------------

KEYS: Final = (
    *("password", "passwords", "pass_word", "passwd", "passphrase", "passcode", "passkey", "pass"),
    *("pwd", "pw", "pswd", "secret", "secrets", "token", "tokens", "api_key", "api_keys"),
    *("access_key", "access_keys", "private_key", "private_keys", "secret_key", "secret_keys"),
    *("encryption_key", "signing_key", "account_key", "master_key", "session_key", "auth"),
    *("authorization", "cookie", "cookies", "credential", "credentials", "creds", "session"),
    *("session_id", "sessid", "sid", "csrf", "xsrf", "jwt", "otp", "totp", "mfa", "signature"),
    *("sig", "password_hash", "passwd_hash", "pass_hash", "pwd_hash", "pw_hash"),
    *("passwort", "contraseña", "mot_de_passe", "密码", "パスワード"),
)
"""What the names of secrets end in. An underscore stands for any joint: none, ``-``, a blank."""

_SHORT: Final = 4
"""Letters of a key that must be a word by itself: ``pass`` does not mean ``bypass``."""

_SHORTEST: Final = 16
"""Fewer letters, and nothing else, are no secret that a text shows."""

_LONG: Final = 1000
"""A text of so many letters has most hints in it anyway: they are not looked for."""

_REACH: Final = 200
"""How many characters of a mapping's key are looked at, from its end."""

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+")
_JOINT: Final = "_"
_JOINT_OR: Final = {
    _JOINT: r"[ _.-]?",
    # Behind the first or second letter of a key that must be a word by itself; or behind a colour.
    "\x01": r"(?:(?<![^\W\d_].)|(?<=[\[\d]m.))",
    "\x02": r"(?:(?<![^\W\d_]..)|(?<=[\[\d]m..))",
    "\x03": r"\\(?<!\\\\)\\*+u",  # a letter escaped, however often
}


def _spelled(key: str) -> str:
    """Return the words of a key, joined: those of ``accessToken`` and ``Access-Token`` are one."""
    return _JOINT.join(word.lower() for word in _CAMEL.split(key) if word)


def _trie(keys: Iterable[str]) -> str:
    """Return a regular expression of any of ``keys``, which looks at each letter once."""
    heads: dict[str, list[str]] = {}
    for key in keys:
        heads.setdefault(key[:1], []).append(key[1:])
    ends = heads.pop("", None) is not None
    if not heads:
        return "" if ends else "(?!)"
    branches = [_JOINT_OR.get(head, re.escape(head)) + _trie(heads[head]) for head in sorted(heads)]
    if ends:
        branches.append("")
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


def _in_small_letters(keys: Collection[str]) -> str:
    """Return a regular expression of names, for text in small letters."""
    spelled = [f"{key[:2]}{chr(len(key[:2]))}{key[2:]}" if _is_short(key) else key for key in keys]
    return _trie([*spelled, *(_escaped(key) for key in keys if not key.isascii())])


def _escaped(key: str) -> str:
    r"""Return a key as JSON spells it: each letter beyond ASCII is ``\u`` and its number."""
    return "".join(each if each.isascii() else f"\x03{ord(each):04x}" for each in key)


def _in_camel_case(keys: Iterable[str]) -> str:
    """Return a regular expression of short names behind other letters: ``userPwd``, ``dbPW``."""
    short = sorted({key for key in keys if _is_short(key) and key.isalpha()})
    capitals = [rf"{key[0].upper()}(?<=[a-z\d].){key[1:].upper()}" for key in short]
    titles = [rf"{key[0].upper()}(?<=[A-Za-z\d].){key[1:]}" for key in short]
    return f"(?:{'|'.join(capitals + titles) or '(?!)'})"


def _hints(keys: Collection[str]) -> list[str]:
    """Return words of which each of ``keys`` has one in it."""
    hints: list[str] = [] if all(map(str.isascii, keys)) else ["\\u"]
    for key in sorted(keys, key=len):
        words = key.split(_JOINT)
        if not any(hint in word for word in words for hint in hints):
            hints.append(max(words, key=len) if len(words[-1]) < _SHORT - 1 else words[-1])
    return hints


def _is_short(key: str) -> bool:
    return key.isascii() and len(key) <= _SHORT


# ---- text ----------------------------------------------------------------------------------------

_COLOUR: Final = r"(?:(?:\x1b|\\++(?:x1b|u001b|033))\[[\d;]*+m)"
_OPEN: Final = r"""[bruf]{0,2}(?P<escape>\\*+)(?P<quote>"{3}|'{3}|["'])"""
_QUOTED: Final = r"""
    (?:
        [^\\"']++
        | (?<!\\) (?P=escape)(?P=quote)(?P=escape)(?P=quote)
        | (?! (?<!\\) (?P=escape) (?: (?P=escape)(?P=escape)\\\\ )*+ (?P=quote) (?:
            [.!?]?(?:\s|\Z) | [,;:)\]}>&|<\x1b] | \\*+["'] ) )
          [\s\S]
    )*+
    (?: (?= (?P=escape)(?P=quote) ) | [\s\S]*+ )
"""
"""
A quoted value, up to the quote that closes it: the same one, with as many backslashes before it and
with what may follow a value behind it. Where backslashes leave it open whether a quote closes, and
where none does, it is the rest of the text.
"""

_OVER: Final = r"""
    [\s,;&|)\]}>"'\x1b] | \\++["'] | \Z | [\w.-]{1,64}+ (?:\\*+["'])?+ \s{0,8}+ [=:]
"""
"""What stands behind a comma, a quote or a bracket that ends a value without quotes."""


def _brackets(depth: int) -> str:
    """Return a regular expression of balanced brackets, of any kind, ``depth`` deep."""
    inner = _brackets(depth - 1) if depth > 1 else r"(?!)"
    return rf"""[(\[{{] (?:
        [^()\[\]{{}}"'\\]++ | \\[\s\S] | {inner}
        | "(?:[^"\\]++|\\[\s\S])*+" | '(?:[^'\\]++|\\[\s\S])*+' | ["']
    )*+ [)\]}}]"""


_UNQUOTED: Final = rf"""
    (?=\S) [^\s,;&|"'()\[\]{{}}<>\\\x1b]*+
    (?: (?=\S) (?:
        <[^<>\n]*+>
        | [^\s,;&|"'()\[\]{{}}>\\\x1b]++
        | {_brackets(4)} | [(\[{{][\s\S]*+
        | (?! {_COLOUR} (?: {_OVER} ) ) \\++ (?!["'])
        | (?: [,;&|)\]}}>] | \\*+["'] | {_COLOUR} ) (?! {_OVER} )
    )++ )?+
    (?: [ \t]*+ =(?!=) [ \t]*+
        (?: [bruf]{{0,2}} (?: "[^"\n]*+"?+ | '[^'\n]*+'?+ ) | [^\s"']\S*+ ) )?+
"""
"""
A value without quotes, up to a blank, or to a comma or the like that cannot be part of it. Where it
is a type, as in ``password: str = "…"``, the value after it is taken too. Brackets that are not
closed, or more than four deep, take the rest of the text.
"""

_LINE: Final = r"""
    (?: =\\*+"[^"\n]*+" | [^\n"'\\] | \\++(?!["']) | \\*+["'] (?! [\s,)\]}] | \Z ) )++
"""
"""The value of a header: to the end of the line, or of the quote around the header."""

_YAML: Final = r"""
    [|>][\d+-]{0,2}+ [ \t]*+ \r?\n (?P<block>[ \t]++) [^\n]*+
        (?: \n (?: (?P=block)[^\n]*+ | [ \t]*+(?=\n) ) )*+
    | (?: [|>][\d+-]{0,2}+ )?+ (?: \\++r )?+ \\++n (?=[ -]) [^\n]*+
    | \r?\n (?P<item>[ \t]*+) -[ \t][^\n]*+ (?: \n (?P=item) (?:-[ \t]|[ \t]) [^\n]*+ )*+
"""
"""A block or a list on the lines below a name; the rest of the line if line breaks are escaped."""

_SCHEME: Final = r"(?:basic|bearer|digest|negotiate|ntlm|token|aws4-hmac-sha256)[ \t]++"

_JOINED: Final = rf"""
    (?![a-z])
    (?: (?<=[nes]) (?: (?<=authorization) | (?<=cookie) | (?<=cookies) ) (?P<header>) )?+
    (?: (?![=:]) (?: [_-]?\d++ )?+ (?: \\*+["'] )?+ \]?+ {_COLOUR}*+ )?+
    (?:
        [ \t]*+
        (?: [!:]?={{1,3}}+>? | -> | \uff1d | [:\uff1a](?!:|//) | (?P<is>[は是为]) | (?P<tag>>) )
        | [\s,] \s*+ (?:\\*+["'])?+ value (?:\\*+["'])?+ \s*+ [=:]
    )
    [ \t]*+ {_COLOUR}*+
    (?(tag) | (?: {_OPEN} | {_SCHEME} | [「『] )?+ )
    (?P<secret>
        {{mask}} (?= {_OVER} )
        | (?(quote) {_QUOTED}
          | (?(tag) [^<>]++ (?=</)
          | (?(is) [!-~]{{4,}}+
          | (?: {_YAML} | (?(header) (?![(\[{{]) {_LINE} | (?!) ) | {_UNQUOTED} ) )))
    )
"""
"""
What joins a name to its value, and the value. ``name=…, value=…`` and ``<name>…</`` count too. What
is masked already stays as it is.
"""

_OPENED: Final = rf"""
    (?: - (?<![\w-].) - | \(\s?[bru]?\\*+["'] | \[\s?[bru]?\\*+["'] )
    [\w.-]*? {{names}} \d*+
    (?: [ \t]++ (?=[^\s=:-]) | \\*+["'],\s*+ )
    (?: {_OPEN} )?+
    (?P<secret> {{mask}} (?= {_OVER} ) | (?(quote) {_QUOTED} | {_UNQUOTED} ) )
"""
"""An option, ``--password x`` or ``'--password', 'x'``, or a pair, ``('password', 'x')``."""

_VALUE_FIRST: Final = r"""
    value (?:\\*+["'])?+ \s*+ [=:] \s*+ (?P<quote>["'])?+
    (?P<secret> (?(quote) (?: (?!(?P=quote)) [^\\] | \\. )*+ | [^\s,"'=:]++ ) )
    ["']?+ \s*+ ,? \s*+ ["']?+ (?:name|key) ["']?+ \s*+ [=:] \s*+ ["']?+
    [\w.-]*? {names} \d*+ (?!\w)
"""
"""``{"value": "…", "name": "password"}``"""

_USER_INFO: Final = r"""(?x: [^\s/?\#@:"'<>]*+ :
    (?! // | \d{1,5} (?: [/?\#"',;)\]}\s] | \Z ) )
    (?P<secret> [^\s/?\#"<>]* (?=@) | (?= [^\s"<>@]{0,99}+ @ ) [^\s"<>]{0,99} (?=@) ) )"""
"""``user:…@host``: up to the last @ before the path; failing that, before the end."""

_TOKENS: Final = {
    ".": (
        ("eyJ", r"(?<!-...)[\w-]++\.[\w-]++\.[\w-]*+"),  # JSON web tokens
        ("hooks.slack.com/", r"\w+/(?P<secret>[\w/-]{10,})"),
        ("ya29.", r"[\w.-]{20,}"),  # Google
        ("SG.", r"[\w-]{16,}\.[\w-]{16,}"),  # SendGrid
        ("hvs.", r"[\w-]{20,}"),  # Vault
        ("hvb.", r"[\w-]{20,}"),
        ("s.", r"(?=[A-Za-z]*\d)[A-Za-z0-9]{24}(?![\w.])"),
    ),
    "_": (
        ("gh", r"[oprsu]_\w{20,}"),  # GitHub
        ("github_pat_", r"\w{20,}"),
        ("npm_", r"\w{36,}"),
        ("sk_", r"(?:live|test)_\w{16,}"),  # Stripe
        ("rk_", r"(?:live|test)_\w{16,}"),
        ("whsec_", r"[\w+/]{20,}=*"),
        ("hf_", r"[A-Za-z0-9]{20,}"),  # Hugging Face
        ("dop_v1_", r"\w{32,}"),  # DigitalOcean
        ("doo_v1_", r"\w{32,}"),
        ("dor_v1_", r"\w{32,}"),
        ("shp", r"(?:at|ca|pa|ss|ua)_\w{32,}"),  # Shopify
    ),
    "-": (
        ("glpat-", r"[\w-]{20,}"),  # GitLab
        ("pypi-", r"[\w-]{50,}"),
        ("sk-", r"[\w-]{20,}"),  # OpenAI, Anthropic
        ("xox", r"[a-z]-[\w-]{10,}"),  # Slack
        ("xapp-", r"[\w-]{20,}"),
        ("GOCSPX-", r"[\w-]{20,}"),  # Google
        (
            "-----BEGIN ",
            r"[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?P<secret>[\s\S]*?)(?:-----END|\Z)",
        ),
    ),
    "A": (
        ("AKIA", r"[A-Z0-9]{16}\b(?:[\s,:;/|\"']{1,6}[A-Za-z0-9/+]{40}(?![\w/+]))?"),  # AWS, with
        ("ASIA", r"[A-Z0-9]{16}\b(?:[\s,:;/|\"']{1,6}[A-Za-z0-9/+]{40}(?![\w/+]))?"),  # its key
        ("AIza", r"[\w-]{35,}"),  # Google
    ),
    "@": (
        ("://", _USER_INFO),
        ("netloc=", rf"\\*['\"]{_USER_INFO}"),  # in what urlsplit returns
        ("://", r"(?P<secret>[^\s/?#@:\"<>]{20,}+)(?=@)"),  # a token in the place of the user
    ),
}
"""By a character that each of them has: how tokens start, behind no letter, and how they go on."""

_WORDS: Final = (
    ("bearer", r"(?i)\bbearer\s+(?P<secret>[a-z0-9._~+/-]{16,}+=*)"),  # shorter ones are words
    # a base64 that no word looks like
    ("basic", r"(?i)\bbasic\s+(?P<secret>(?=[a-z+/]*+[0-9=])[a-z0-9+/]{8,}+=*)"),
)
"""What is before a token, in small letters, and the token."""


class _Secrets:
    """
    Knows the names of secrets, and finds secrets in text.

    Args:
        keys: What the names of secrets end in.
        patterns: What secrets look like, besides the known ones.
        mask: What is put in their place.
        known: Whether the known keys and patterns are among them.
    """

    def __init__(
        self, keys: Iterable[str], patterns: Iterable[re.Pattern[str]], mask: str, *, known: bool
    ) -> None:
        self.mask: Final = mask
        self.patterns: Final = tuple(patterns)
        self._tokens = [
            (has, [(start, _token(start, rest)) for start, rest in tokens])
            for has, tokens in (_TOKENS if known else {}).items()
        ]
        self._words = [(hint, re.compile(each)) for hint, each in _WORDS if known]
        names = {_spelled(key) for key in (*keys, *(KEYS if known else ()))}
        small, camel = _in_small_letters(names), _in_camel_case(names)

        def compiled(pattern: str, names: str) -> re.Pattern[str]:
            masked = pattern.replace("{mask}", re.escape(mask.lower()))
            return re.compile(masked.replace("{names}", names), re.VERBOSE)

        self._all_hints = _hints(names)
        self._hints = [hint for hint in self._all_hints if hint.isascii()]
        self._joined = compiled(f"{{names}}{_JOINED}", small)
        self._joined_in_camel_case = compiled(f"{{names}}(?i:{_JOINED})", camel)
        self._opened = compiled(_OPENED, small)
        self._value_first = compiled(_VALUE_FIRST, small)
        self._ends = re.compile(rf"{small}[\W\d_]*+\Z"), re.compile(rf"{camel}[\W\d_]*+\Z")
        self._ends_in_key = lru_cache(maxsize=1024)(self._looked_up)

    def named(self, name: str) -> bool:
        """Return whether what is called ``name`` is a secret."""
        return self._ends_in_key(name[-_REACH:])

    def _looked_up(self, name: str) -> bool:
        small, camel = self._ends
        return bool(small.search(name.lower()) or camel.search(name))

    def masked(self, text: str) -> str:
        """Return ``text`` with the secrets in it masked, the very same if there are none."""
        if len(text) < _SHORTEST and text.isascii() and text.isalnum() and not self.patterns:
            return text
        small = _lower(text)
        masked = text
        hints = self._hints if small.isascii() else self._all_hints
        for hint in hints if len(text) < _LONG else ("",):
            if hint in small:
                masked = self._behind_names(text, small)
                break
        return self._by_looks(masked, small)

    def _by_looks(self, text: str, small: str) -> str:
        for has, tokens in self._tokens:
            if has in text:
                for start, pattern in tokens:
                    if start in text:
                        text = self._replaced(pattern, text, text)
        for hint, pattern in self._words:
            if hint in small:
                text = self._replaced(pattern, text, text)
        for pattern in self.patterns:
            text = self._replaced(pattern, text, text)
        return text

    def _behind_names(self, text: str, small: str) -> str:
        searches = [self._joined]
        if "--" in small or "'," in small or '",' in small:
            searches.append(self._opened)
        if "value" in small:
            searches.append(self._value_first)
        for pattern in searches:
            masked = self._replaced(pattern, small, text)
            if masked is not text:
                text, small = masked, _lower(masked)
        return self._replaced(self._joined_in_camel_case, text, text)

    def _replaced(self, pattern: re.Pattern[str], searched: str, text: str) -> str:
        """Return ``text`` with the mask wherever ``pattern`` finds a secret in ``searched``."""
        group = "secret" if "secret" in pattern.groupindex else 0
        parts: list[str] = []
        copied = 0
        for found in pattern.finditer(searched):
            start, end = found.span(group)
            if start < end:
                parts.append(text[copied:start])
                copied = end
        if not parts:
            return text
        parts.append(text[copied:])
        return self.mask.join(parts)


def _token(start: str, rest: str) -> re.Pattern[str]:
    # What is before it is looked at second, so that ``re`` can skip to the plain letters.
    before = rf"(?<!\w{'.' * len(start)})" if start[0].isalpha() else ""
    return re.compile(re.escape(start) + before + rest, re.ASCII)


def _lower(text: str) -> str:
    """Return ``text`` in lower case, and as long as before, so that positions are the same."""
    small = text.lower()
    return small if len(small) == len(text) else text.replace("\u0130", "I").lower()


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

    def __init__(self, secrets: _Secrets) -> None:
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
            return cast("object", sequence._make(parts))
        if isinstance(sequence, deque):
            return deque(parts, cast("deque[object]", sequence).maxlen)
        if isinstance(sequence, set | frozenset):
            try:
                return type(sequence)(parts)
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
    Masks secrets in messages, their arguments, ``extra`` and tracebacks; lets every record pass.

    Add it to a handler, or to a logger: a logger's filters see only what is logged on that logger
    itself. It changes the record, so that handlers that come later see the mask too; those that
    came earlier have seen the secret. Where an exception's text has a secret, ``exc_info`` is
    replaced by the masked text.

    What is found: a value under a secret's name, in mappings, pairs, dataclasses, named tuples and
    text (``password=…``, ``"token": "…"``, ``--api-key …``, ``<secret>…</secret>``), headers and
    cookies to the end of their line, passwords in URLs, bearer and JSON web tokens, private keys,
    and tokens that start as those of many services do. What cannot be found is a secret that
    neither has such a name before it nor looks like one, and one that is encoded; the guide lists
    both. Names of loggers, threads and tasks are not searched. What holds itself, and what is more
    than 32 levels deep, becomes ``"..."``.

    Args:
        keys: More names under which secrets stand; ``password``, ``token`` and the like are known.
            A name counts if it ends in one, however its words are joined, and whatever digits
            follow: ``"token"`` also means ``access_token``, ``Access-Token`` and ``csrftoken``. A
            key of up to four Latin letters must be a word by itself.
        patterns: More regular expressions of secrets in text. What the group ``secret`` matched is
            masked, everything if there is no such group.
        mask: What takes the place of a secret.
        defaults: Whether the known names and patterns are looked for.

    Raises:
        TypeError: A key, a pattern or ``mask`` is not a text.
        ValueError: A pattern is not a regular expression, or a key has no letter or digit.

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
        self._secrets = _Secrets(
            _keys(keys), map(_compiled, _texts("patterns", patterns)), mask, known=defaults
        )

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the secrets of ``record``, and let it pass. Not a checkpoint."""
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
        # Whoever formats the exception itself, and not its text, must not find it any more.
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
        msg = f"patterns has {pattern!r}, which is not a regular expression: {error}."
        raise ValueError(msg) from None
    if isinstance(cast("object", compiled.pattern), bytes):
        msg = f"patterns has {pattern!r}, which is for bytes. Pass one for text."
        raise TypeError(msg)
    return compiled
