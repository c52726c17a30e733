"""Secrets in text, and what hostile text costs."""

from __future__ import annotations

import re
from time import thread_time
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtaio.logging._secrets import KEYS, Secrets

if TYPE_CHECKING:
    from collections.abc import Callable

MASK = "***"


def secrets(*keys: str, patterns: tuple[str, ...] = (), known: bool = True) -> Secrets:
    """Return what finds secrets."""
    return Secrets(keys, map(re.compile, patterns), MASK, known=known)


KNOWN = secrets()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        # How values are written.
        ("password=hunter2 for bob", "password=*** for bob"),
        ("password = 'my long pass word', n=1", "password = '***', n=1"),
        ('{"password": "a b", "n": 1}', '{"password": "***", "n": 1}'),
        (r'{"password": "a\"b", "n": 1}', '{"password": "***", "n": 1}'),
        (r'{"password": "a\\", "token": "b", "n": 1}', '{"password": "***'),
        (
            r'{"x": "{\"token\": \"a \\\"b\\\" c\"}", "n": 1}',
            r'{"x": "{\"token\": \"***\"}", "n": 1}',
        ),
        (r'"password=\"a b\"", n', r'"password=\"***\"", n'),
        (r'"password=\"a b", n', r'"password=\"***'),
        ("password='it''s mine' n", "password='***' n"),
        (r'{"password": "a\"", "n": 1}', '{"password": "***", "n": 1}'),
        (r"{'a': '{\"password\": \"a\\\\\"b\"}'} n", r"{'a': '{\"password\": \"***\"}'} n"),
        ('password="""a "b" c""" n', 'password="***""" n'),
        ('password="""a "b" c', 'password="***'),
        ("password: 'never closed, n=1", "password: '***"),
        ("password='' n=1", "password='' n=1"),
        ("password=, user=bob", "password=, user=bob"),
        ("password=ab'cd n", "password=*** n"),
        ("password=a,b;c user=bob", "password=*** user=bob"),
        ("password=a,user=bob", "password=***,user=bob"),
        ("D(password=hunter2)", "D(password=***)"),
        ('{"token":123,"n":1}', '{"token":***,"n":1}'),
        ("token={'a': ['b, c', (1)]} n", "token=*** n"),
        ("token=SecretStr('a)b c') n", "token=*** n"),
        ("token={'never': 'closed'\nn=1", "token=***\nn=1"),
        ("password=***, n=1", "password=***, n=1"),
        ("password=***hunter2, n=1", "password=***, n=1"),
        # How names are joined to them.
        ("DB_PASSWORD: hunter2, next", "DB_PASSWORD: ***, next"),
        ("dbPassword=z, accessToken: x n", "dbPassword=***, accessToken: *** n"),
        ("if password == 'x' or token != 'y':", "if password == '***' or token != '***':"),
        ("{:password=>'x', 'token' -> 1}", "{:password=>'***', 'token' -> ***}"),
        ("form['password'] = 'x y'", "form['password'] = '***'"),
        ("password: str = 'x y', n", "password: ***', n"),
        ("password: str = x, n", "password: ***, n"),
        ("set_password('x y', 'z') n", "set_password*** n"),
        ("set_password(user) n", "set_password(user) n"),
        ("mysql --password hunter2 --user bob", "mysql --password *** --user bob"),
        ("mysql --verbose --password=hunter2 x", "mysql --verbose --password=*** x"),
        ("['--password', 'x y', '-u']", "['--password', '***', '-u']"),
        ("[(b'x-api-key', b'x y'), (b'n', b'1')]", "[(b'x-api-key', b'***'), (b'n', b'1')]"),
        ("('user', 'password', 'email'), token, x", "('user', 'password', 'email'), token, x"),
        ("api key: abc next", "api key: *** next"),
        ("/x?token=abc&page=1", "/x?token=***&page=1"),
        (
            "<ns:secret id='3'>a b</ns:secret> <a>b</a>",
            "<ns:secret id='3'>***</ns:secret> <a>b</a>",
        ),
        ("<password/> </a>", "<password/> </a>"),
        ("password is asked for; 12:30:45", "password is asked for; 12:30:45"),
        (
            "{'name': 'DB_PASSWORD', 'value': 'a b', 'n': 1}",
            "{'name': 'DB_PASSWORD', 'value': '***', 'n': 1}",
        ),
        ("Env(name='DB_PASSWORD', value='a b', n=1)", "Env(name='DB_PASSWORD', value='***', n=1)"),
        (
            r'"{\"name\": \"token\", \"value\": \"a b\"}"',
            r'"{\"name\": \"token\", \"value\": \"***\"}"',
        ),
        ("パスワード：x y, password＝z", "パスワード：*** y, password＝***"),  # noqa: RUF001 - so it is typed in Japan
        # Headers.
        ("['X-Api-Key: my key', 'x']", "['X-Api-Key: ***', 'x']"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("Cookie: a=b; c=d\nHost: h", "Cookie: ***\nHost: h"),
        ("{'cookie': a=b; c=d\nn=1}", "{'cookie': ***\nn=1}"),
        ("Set-Cookie: session=abc; Path=/", "Set-Cookie: ***"),
        ("['Cookie: a=b; c=d', 'x']", "['Cookie: ***', 'x']"),
        (r'"{\"h\": \"Cookie: a=b; c=d\", \"n\": 1}"', r'"{\"h\": \"Cookie: ***\", \"n\": 1}"'),
        ('"Authorization: Digest a="b", c="d', '"Authorization: Digest ***"b", c="d'),
        ("cookies={'a': 'b; c'}, n=1", "cookies=***, n=1"),
        ("token: Bearer abc next", "token: Bearer *** next"),
        # What looks like a secret.
        ("sent Bearer abcdefghijklmnop.qrst==, n", "sent Bearer ***, n"),
        ("a bearer of bad news; basic understanding", "a bearer of bad news; basic understanding"),
        ("sent basic YWxhZGRpbjpvcGVuc2VzYW1l= n", "sent basic *** n"),
        ("https://bob:hunter2@host/path", "https://bob:***@host/path"),
        ("postgres://u:p@ss@host/db?to=a@b", "postgres://u:***@host/db?to=a@b"),
        ("postgres://u:p/s#s@host/db", "postgres://u:***@host/db"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("http://shop:8080/@a http://shop:80", "http://shop:8080/@a http://shop:80"),
        ("https://abcdefghij0123456789x@host/", "https://***@host/"),
        ("jwt eyJhbGciOi.eyJzdWIiOi.c2lnbmF0 end", "jwt *** end"),
        ("x-eyJhbGciOi.eyJzdWIiOi.c2lnbmF0 end", "x-*** end"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----",
        ),
        ("cut -----BEGIN PRIVATE KEY-----\nMIIE", "cut -----BEGIN PRIVATE KEY-----***"),
        *(
            (f"got {begin}{'A1b2' * 15} n", "got *** n")
            for begin in (
                *("ghp_", "github_pat_", "glpat-", "npm_", "pypi-", "sk-", "sk_live_", "rk_test_"),
                *("xoxb-", "AIza"),
            )
        ),
    ],
)
def test_secrets_in_text_are_masked(text: str, masked: str) -> None:
    """What stands behind a secret's name, or looks like one, is masked; the rest stays."""
    assert KNOWN.masked(text) == masked
    assert KNOWN.masked(masked) == masked


def test_value_goes_on_behind_its_quote() -> None:
    """What stands right behind a closing quote, as in a shell's words, is a part of the value."""
    assert KNOWN.masked("password='a b'c'd e' n") == "password='*** n"
    assert KNOWN.masked("password='a b'(c") == "password='***"


@pytest.mark.parametrize(
    "name",
    [
        *("password", "db_password", "accessToken", "Access-Token", "X API Key", "DBPassword"),
        *(
            "csrftoken",
            "password2",
            "DB_PASS",
            "userPWD",
            "jwt",
            "x.cookie",
            "AWS_SECRET_ACCESS_KEY",
        ),
    ],
)
def test_names_of_secrets(name: str) -> None:
    """A name is a secret's if it ends in one, however its words are joined."""
    assert KNOWN.named(name)
    assert KNOWN.named("x" * 10_000 + "_" + name)


@pytest.mark.parametrize(
    "name", ["tokens", "password_length", "keyboard", "bypass", "OLDPWDS", "laptop", "", "_", "key"]
)
def test_other_names(name: str) -> None:
    """What only begins like a secret's name, or ends in a short one by chance, is none."""
    assert not KNOWN.named(name)


@pytest.mark.parametrize("key", KEYS)
def test_every_known_name_is_found_in_text(key: str) -> None:
    """What counts as a key of a mapping counts in a text too, in every spelling."""
    words = key.split("_")
    camel = words[0] + "".join(map(str.title, words[1:]))
    for name in (key, key.upper(), camel, "-".join(words), " ".join(words), "".join(words)):
        for full in (name, f"db_{name}", f"{name}2"):
            assert KNOWN.named(full)
            assert KNOWN.masked(f"{full}=x") == f"{full}={MASK}"


def test_own_names_and_patterns() -> None:
    """Own names and patterns come on top of the known ones, or in their place."""
    text = "card=1 discard=2 kreditKarte=3 暗証番号: 4 token=5 AB-66"
    own = ("card", "kredit-karte", "暗証番号")
    masked = "card=*** discard=2 kreditKarte=*** 暗証番号: *** token=*** ***"
    assert secrets(*own, patterns=("AB-[0-9]+",)).masked(text) == masked
    assert secrets(*own, known=False).masked(text) == masked.replace(
        "token=*** ***", "token=5 AB-66"
    )
    assert secrets(known=False).masked(text) == text
    pin = secrets(patterns=(r"pin (?P<secret>\d+)?",))
    assert pin.masked("pin 12 pin !") == "pin *** pin !"


def test_long_names_fill_no_memory() -> None:
    """What is remembered of a name is short, however long the name."""
    for number in range(2000):
        KNOWN.named(f"{number}" * 1000)
    info = KNOWN._ends_in_key.cache_info()
    assert info.currsize <= 1024


PIECES = st.sampled_from(
    [
        *(
            "password",
            "token",
            "cookie",
            "=",
            ":",
            ": ",
            ",",
            "'",
            '"',
            "\\",
            "(",
            ")",
            "[",
            "{",
            "<",
        ),
        *(
            ">",
            " ",
            "\n",
            "a",
            "***",
            "--",
            "-",
            "://",
            "@",
            "eyJ",
            ".",
            "</",
            "Bearer ",
            "b'",
            "basic ",
        ),
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join) | st.text())
@example("password='a'b")
@example("token=(\\'***")
def test_masked_text_is_left(text: str) -> None:
    """Searched twice, as with a filter on each of two handlers, a text is masked as before."""
    once = KNOWN.masked(text)
    twice = KNOWN.masked(once)
    assert KNOWN.masked(twice) == twice
    assert len(twice) <= len(once) + len(MASK)


HOSTILE: dict[str, Callable[[int], str]] = {
    "words": lambda n: "a-" * n + "password",
    "dots": lambda n: "a." * n,
    "names": lambda n: "password " * n,
    "blanks": lambda n: "password" + " " * n + "x",
    "assigned": lambda n: "token=x" * n,
    "backslashes": lambda n: "token='" + "\\" * n,
    "more backslashes": lambda n: "token=x" + "\\" * n,
    "commas and backslashes": lambda n: "token=x" + ",\\\\" * n,
    "slashed name": lambda n: "token" + "\\" * n,
    "quotes": lambda n: "token='" * n,
    "both quotes": lambda n: "token='\"" * n,
    "escaped": lambda n: "token=" + "\\'x" * n,
    "brackets": lambda n: "token=(\n" * n,
    "nested": lambda n: "token=" + "(" * n,
    "commas": lambda n: "token=" + ",a" * n,
    "headers": lambda n: '\\"cookie: x\n' * n,
    "slashed headers": lambda n: "\\" * n + '"cookie: x\n' * n,
    "urls": lambda n: "://a:" * n,
    "slashes": lambda n: "://" * n + "@",
    "url": lambda n: "://a:" + "x" * n,
    "users": lambda n: "://" + "a" * n,
    "jwt": lambda n: "eyJ-" * n,
    "jwts": lambda n: "eyJa." * n,
    "bearer": lambda n: "bearer " * n,
    "basic": lambda n: "basic " + "a" * n,
    "keys": lambda n: "-----BEGIN PRIVATE KEY-----" * n + "-----BEGIN " + "A" * n,
    "elements": lambda n: "secret</" + "<secret " * n,
    "valued": lambda n: "'token', value=" * n,
    "enclosed": lambda n: "'token: x " * n,
    "pairs": lambda n: "('token'," * n,
    "options": lambda n: "--token " * n,
    "xox": lambda n: "xoxb-" * n,
    "types": lambda n: "token: x = " * n,
    "triple": lambda n: 'token="""' * n,
    "digits": lambda n: "token" + "1" * n + "=x",
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_costs_in_proportion_to_its_length(make: Callable[[int], str]) -> None:
    """Eight times the text is searched in about eight times the time, not sixty-four."""

    def seconds(size: int) -> float:
        text = make(size)
        best = float("inf")
        for _ in range(3):
            began = thread_time()
            KNOWN.masked(text)
            best = min(best, thread_time() - began)
        return best / len(text)

    small, large = seconds(2_500), seconds(20_000)
    assert large < 3 * small + 1e-7
