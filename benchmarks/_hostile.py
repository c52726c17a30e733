"""
What random hostile texts cost the secret scanner, beside prose of the same length.

``python -m benchmarks._hostile [texts] [seed]`` prints how the ratios are distributed, and the
worst texts. The same seed makes the same texts.
"""

from __future__ import annotations

import logging
import sys
from random import Random
from time import thread_time
from typing import TYPE_CHECKING, Final

from mtaio.logging import RedactingFilter

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PROSE", "cost", "hostile", "prose", "ratios", "worst"]

# fmt: off
PIECES: Final = (
    # What joins, opens, closes and ends.
    *"=:,;&|()[]{}<>'\"\\ \n\t-._/@#?!*$%+~^`",
    *("==", "=>", "->", "!=", "://", "--", "</", "/>", ": ", ", ", "= ", " |", "| ", "- ", "b'"),
    *('f"', '"""', "'''", '\\"', "\\'", "\\n", "\\u", "***", "|\n  ", ":\n - x", "\n  "),
    *("\x1b[1m", "\x1b[0m", "\\x1b[0m", "は", "é", "İ", "1", "a", "d", "x", "A"),
    # Names, and what is nearly one.
    *("password", "passwd", "pass", "pwd", "pw", "token", "tokens", "secret", "api_key", "api key"),
    *("auth", "authorization", "cookie", "cookies", "session", "session_id", "sid", "otp", "mfa"),
    *("jwt", "sig", "signature", "creds", "credentials", "mot de passe", "密码", "パスワード"),
    *("\\u5bc6\\u7801", "Pw", "PW", "Token", "dbPass", "value", "Value", "name", "netloc="),
    *("key", "access", "private", "passwor", "toke", "secre", "cooki", "sess", "author", "auth_"),
    *("api_", "se", "s", "p", "pa", "to", "c", "cr"),
    # How tokens start.
    *("eyJ", "eyJa.", "a.b", "SG.", "hvs.", "hvb.", "s.", "ya29.", "ghp_", "gh", "github_pat_"),
    *("npm_", "sk_live_", "sk_", "rk_test_", "whsec_", "hf_", "dop_v1_", "shpat_", "shp", "glpat-"),
    *("pypi-", "sk-", "xox", "xoxb-", "xapp-", "GOCSPX-", "-----BEGIN ", "PRIVATE KEY-----"),
    *("-----END", "AKIA", "ASIA", "AIza", "hooks.slack.com/", "bearer ", "Bearer", "basic "),
    *("basic", "digest ", "https://", "http://", "user:", "a:b@"),
    *("a" * 16, "A1b2" * 5, "QUJD" * 5, "1" * 8, "hunter2"),
)
# fmt: on
"""What a hostile text is made of."""

PROSE: Final = (
    "The session was passed on to the author, who signed it with a key, once inside: the token. "
)
KNOWN: Final = RedactingFilter()


def prose(length: int) -> str:
    """Return prose of about so many letters."""
    return PROSE * (length // len(PROSE))


def hostile(seed: int, length: int) -> Iterator[tuple[str, str]]:
    """Yield names and texts without end: a few pieces, once or mixed, over and over."""
    random = Random(seed)  # noqa: S311 - the same texts each time

    def unit() -> str:
        return "".join(random.choices(PIECES, k=random.choice((1, 2, 2, 3, 3, 3, 4, 4, 5, 6, 8))))

    def many(part: str, share: float = 1) -> str:
        return part * (int(length * share) // len(part) + 1)

    while True:
        kind = random.random()
        first, second = unit(), unit()
        if kind < 0.7:  # noqa: PLR2004 - most are of one part
            yield repr(first), many(first)
        elif kind < 0.85:  # noqa: PLR2004 - shares of the whole
            yield f"{first!r}, then {second!r}", many(first, 0.5) + many(second, 0.5)
        elif kind < 0.93:  # noqa: PLR2004 - as above
            last = unit()
            yield f"once {first!r}, {second!r}, once {last!r}", first + many(second) + last
        else:
            few = random.choices(PIECES, k=random.randint(2, 12))
            mixed = "".join(random.choices(few, k=length // min(map(len, few))))
            yield f"mixed {few}", mixed[:length]


def cost(text: str) -> float:
    """Return the seconds of this thread for each letter of a text, without those of coverage."""
    record = logging.LogRecord("name", logging.INFO, __file__, 1, text, None, None)
    tracer = sys.gettrace()
    sys.settrace(None)
    started = thread_time()
    KNOWN.filter(record)
    seconds = thread_time() - started
    sys.settrace(tracer)
    return seconds / len(text)


def ratios(texts: int, seed: int, length: int = 20_000) -> list[tuple[float, str]]:
    """
    Return how many times as much as prose each text costs, the worst first.

    What seems dear is measured again, by turns with prose, and the least of each counts: what else
    runs on the machine only adds to it.
    """
    beside = prose(length)
    usual = min(cost(beside) for _ in range(50))
    found: list[tuple[float, str]] = []
    for _, (name, text) in zip(range(texts), hostile(seed, length), strict=False):
        least, base = min(cost(text), cost(text)), usual
        if least > 2 * usual:
            base = cost(beside)
            for _ in range(15):
                least, base = min(least, cost(text)), min(base, cost(beside))
        found.append((least / base, name))
    return sorted(found, reverse=True)


def worst() -> float:
    """Return the worst ratio of a thousand texts."""
    return ratios(1_000, seed=1)[0][0]


def main() -> None:
    texts, seed = (int(each) for each in (*sys.argv[1:], "10000", "7")[:2])
    found = ratios(texts, seed)
    nanoseconds = min(cost(prose(20_000)) for _ in range(50)) * 1e9
    print(
        f"{sys.version.split()[0]}: prose {nanoseconds:.1f} ns a letter; {texts} texts, by ratio:"
    )
    for bound in (1, 2, 2.5, 3, 3.5, 4, 5):
        print(f"  over {bound:3} x: {sum(ratio > bound for ratio, _ in found)}")
    for ratio, name in found[:25]:
        print(f"  {ratio:.2f} {name}")


if __name__ == "__main__":
    main()
