"""
Finds secrets in text: by the names before them, and by their form.

Promise: the time to search a text grows with its length, whatever it contains; in doubt too much is
masked, not too little.
Cost: a fixed number of regular expressions. Rules for changing them:

- A repetition is possessive (``*+``) wherever what follows it may fail.
- What was read is not read again for the next match. So a quote or a bracket that is never closed
  takes the rest of the text.
- An alternative starts with a character or a set of them wherever it can: ``re`` passes over it by
  that, and only enters it if it fits. Most of what a hostile text costs is alternatives entered.
- An expression starts with plain letters, to which ``re`` skips. Names are a trie of them, searched
  for in lower case, which is three times as fast as ``re.IGNORECASE``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["KEYS", "Secrets"]

# ---- names ---------------------------------------------------------------------------------------

_PASSWORDS: Final = (
    *("password", "pass_word", "passwd", "passphrase", "passcode", "passkey", "pass"),
    *("pwd", "pw", "pswd"),
)
KEYS: Final = (
    *_PASSWORDS,
    *(f"{password}_hash" for password in _PASSWORDS),
    *("passwords", "passwort", "contraseña", "mot_de_passe", "密码", "パスワード"),
    *("token", "tokens", "secret", "secrets", "api_key", "api_keys", "access_key", "access_keys"),
    *("private_key", "private_keys", "secret_key", "secret_keys", "session_key", "signing_key"),
    *("encryption_key", "account_key", "master_key", "jwt", "csrf", "xsrf"),
    *("auth", "authorization", "cookie", "cookies", "credential", "credentials", "creds"),
    *("session", "session_id", "sessid", "sid", "otp", "totp", "mfa", "signature", "sig"),
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
    "\x01": r"(?<![^\W\d_m].|m(?<![\[\d]m).)",
    "\x02": r"(?<![^\W\d_m]..|m(?<![\[\d]m)..)",
    # Behind the first or second letter of a short name in capitals, or with one.
    "\x04": r"(?<=[a-z\d].)",
    "\x05": r"(?<=[a-z\d]..)",
    "\x06": r"(?<=[A-Za-z\d].)",
    "\x07": r"(?<=[A-Za-z\d]..)",
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
    short = [(key[:2], key[2:]) for key in keys if _is_short(key) and key.isalpha()]
    capitals = [f"{head.upper()}{chr(3 + len(head))}{tail.upper()}" for head, tail in short]
    titles = [f"{head.title()}{chr(5 + len(head))}{tail}" for head, tail in short]
    return _trie(capitals + titles)


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

_COLOUR: Final = r"(?:(?:\x1b|\\\\*+(?:x1b|u001b|033))\[[\d;]*+m)"
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
    [\s,;&|)\]}>"'\x1b] | \\\\*+["'] | [\w.-][\w.-]{0,63}+ (?:\\*+["'])?+ \s{0,8}+ [=:] | \Z
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
    (?:
        [,;&|)\]}}>] (?! {_OVER} ) [^\s,;&|"'()\[\]{{}}<>\\\x1b]*+
        | ["'] (?! {_OVER} )
        | \\\\*+ (?: ["'] (?! {_OVER} ) | (?! ["'] | (?:x1b|u001b|033)\[[\d;]*+m (?: {_OVER} ) ) )
        | <[^<>\n]*+>
        | [^\s,;&|"'()\[\]{{}}>\\\x1b][^\s,;&|"'()\[\]{{}}>\\\x1b]*+
        | {_brackets(4)} | [(\[{{][\s\S]*+
        | \x1b\[[\d;]*+m (?! {_OVER} )
    )*+
    (?: [ \t]*+ (?: =(?!=) [ \t]*+ | \|[ ][\w.\[\]]++ (?: [ ]\|[ ][\w.\[\]]++ )*+ [ ]=[ ] )
        (?: [bruf]{{0,2}} (?: "[^"\n]*+"?+ | '[^'\n]*+'?+ ) | [^\s"']\S*+ ) )?+
"""
"""
A value without quotes, up to a blank, or to a comma or the like that cannot be part of it. Where it
is a type, as in ``password: str | None = "…"``, the value after it is taken too. Brackets that are
not closed, or more than four deep, take the rest of the text.
"""

_LINE: Final = r"""
    (?: =\\*+"[^"\n]*+" | [^\n"'\\] | \\++(?!["']) | \\*+["'] (?! [\s,)\]}] | \Z ) )++
"""
"""The value of a header: to the end of the line, or of the quote around the header."""

_YAML: Final = r"""
    [|>][\d+-]{0,2}+ (?:
        [ \t]*+ \r?\n (?P<block>[ \t]++) [^\n]*+ (?: \n (?: (?P=block)[^\n]*+ | [ \t]*+(?=\n) ) )*+
        | (?: \\++r )?+ \\++n (?=[ -]) [^\n]*+ )
    | \\\\*+ (?: r\\++ )?+ n (?=[ -]) [^\n]*+
    | [\r\n] (?: (?<=\n) | (?<=\r)\n ) (?P<item>[ \t]*+) -[ \t][^\n]*+
        (?: \n (?P=item) (?:-[ \t]|[ \t]) [^\n]*+ )*+
"""
"""A block or a list on the lines below a name; the rest of the line if line breaks are escaped."""

_SCHEMES: Final = ("basic", "bearer", "digest", "negotiate", "ntlm", "token", "aws4-hmac-sha256")
_SCHEME: Final = "|".join(rf"{scheme}[ \t]++" for scheme in _SCHEMES)

_AHEAD: Final = r"""
    [\s\d,\\"'\]_-]*+ (?:
        [=:\uff1d\uff1a是为は] | != | > (?: (?<=->) | [^<>]*+ </ ) | [Vv](?i:alue)
        | [Uu](?<=\\.)001[Bb] | [Xx](?<=\\.)1[Bb] | \[(?<=033.)
        | \x1b [\s\d,;m[\x1b\\"']*+ [=:!>UVXuvx\uff1d\uff1a是为は-] )
"""
"""
What is ahead of a name that may have a value, roughly: a sign, ``value`` or a colour. At most other
names the search stops here, after one look.
"""

_JOINED: Final = rf"""
    (?:
        [=:] (?! [ \t]*+ (?:
                [\s=:/,;&|"'()\[\]{{}}<>\\\x1b「『] | {{mask}} | [bruf]{{1,2}}\\*+["']
                | {_SCHEME} ) )
            (?<! [ao]..[oie][nes]. ) [ \t]*+ (?P<plain>)
        | (?= (?-i:{_AHEAD}) )
        (?: (?<=[ao]..[oie][nes])
            (?: (?<=authorization) | (?<=cookie) | (?<=cookies) ) (?P<header>) )?+
        (?: (?=[\d_"'\]\\\x1b-]) (?: [_-]?\d++ )?+ (?: \\*+["'] )?+ \]?+ {_COLOUR}*+ )?+
        (?: [ \t]*+ (?:
                (?: [!:]?={{1,3}}+>? | -> | \uff1d | \uff1a(?!:|//)
                    | :(?! : | // | =++>?[ \t]*+[,;&)\]}}] ) ) [ \t]*+
                (?(header) | (?! \n[^\s-]
                    | (?: [,;&)\]}}] | >[,;&)\]}}] | [|>](?=[^\W\d]) ) (?: {_OVER} ) ) )
                | (?P<is>[は是为]) | (?P<tag>>) )
            | [\s,] \s*+ (?:\\*+["'])?+ value (?:\\*+["'])?+ \s*+ [=:] )
        [ \t]*+ {_COLOUR}*+
        (?(tag) | (?: (?=[bruf\\"']) {_OPEN} | {_SCHEME} | [「『] )?+ )
    )
    (?P<secret>
        (?(plain) [^\s,;&|"'()\[\]{{}}<>\\\x1b]++
            (?= \s[^\s=|] | (?: [,;&)\]}}>"'] | \|(?![ ]) | \\\\*+["'] ) (?: {_OVER} ) | \Z )
        | (?: {{mask}} (?= {_OVER} )
            | (?(quote) {_QUOTED}
              | (?(tag) [^<>]++ (?=</)
              | (?(is) [!-~]{{4,}}+
              | (?: {_YAML} | (?(header) (?![(\[{{]) {_LINE} | (?!) ) | {_UNQUOTED} ) ))) ) )
    )
"""
"""
What joins a name to its value, and the value. ``name=…, value=…`` and ``<name>…</`` count too. What
is masked already stays as it is.

The first way is for what most values are: right behind ``name=``, without quotes and brackets. The
second finds them too, in twice the time. It is not for names that end as those of headers do.
"""

_OPENED: Final = rf"""
    (?: - (?<![\w.-].) - | \(\s?[bru]?\\*+["'] | \[\s?[bru]?\\*+["'] )
    (?= [\w.-]*+ (?: [ \t]++ [^\s=:-] | \\*+["'], | \\++u ) )
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
            r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?P<secret>[\s\S]*?)(?:-----END|\Z)",
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
    # shorter ones are words
    ("bearer", r"[Bb](?<!\w.)(?i:earer\s+(?P<secret>[a-z0-9._~+/-]{16,}+=*))"),
    # a base64 that no word looks like
    ("basic", r"[Bb](?<!\w.)(?i:asic\s+(?P<secret>(?=[a-z+/]*+[0-9=])[a-z0-9+/]{8,}+=*))"),
)
"""What is before a token, in small letters, and the token."""


class Secrets:
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
        if text == small:
            return text
        return self._replaced(self._joined_in_camel_case, text, text)

    def _replaced(self, pattern: re.Pattern[str], searched: str, text: str) -> str:
        """Return ``text`` with the mask wherever ``pattern`` finds a secret in ``searched``."""
        group = pattern.groupindex.get("secret", 0)
        parts: list[str] = []
        copied = 0
        for found in pattern.finditer(searched):
            start, end = found.span(group)
            if start != end:
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
