"""Secrets in text, what is left as it is, and what hostile text costs."""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks._hostile import cost, hostile, prose
from mtaio.logging import RedactingFilter
from mtaio.logging._secrets import KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

MASK = "***"
KNOWN = RedactingFilter()


def masked(text: str, redact: RedactingFilter = KNOWN) -> str:
    """Return a message as it is after the filter."""
    record = logging.LogRecord("name", logging.INFO, __file__, 1, text, None, None)
    redact.filter(record)
    return record.getMessage()


# fmt: off
TEXTS = [
    # How values are written.
    ("password=hunter2 for bob", "password=*** for bob"),
    ("password = 'my long pass word', n=1", "password = '***', n=1"),
    ('{"password": "a b", "n": 1}', '{"password": "***", "n": 1}'),
    (r'{"password": "a\"b", "n": 1}', '{"password": "***", "n": 1}'),
    (r'{"password": "a\"", "n": 1}', '{"password": "***", "n": 1}'),
    (r'{"password": "a\\", "token": "b", "n": 1}', '{"password": "***'),
    (r'{"x": "{\"token\": \"a \\\"b\\\" c\"}", "n": 1}', r'{"x": "{\"token\": \"***\"}", "n": 1}'),
    (r'"password=\"a b\"", n', r'"password=\"***\"", n'),
    (r'"password=\"a b", n', r'"password=\"***'),
    (r"{'a': '{\"password\": \"a\\\\\"b\"}'} n", r"{'a': '{\"password\": \"***\"}'} n"),
    ("password='it''s mine' n", "password='***' n"),
    ("password='a b'c'd e' n", "password='***' n"),
    ('password="""a "b" c""" n', 'password="""***""" n'),
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
    ("token=<Secret 'a b'> n", "token=*** n"),
    ("token={'never': 'closed'\nn=1", "token=***"),
    ("token=(((((too deep))))) n", "token=***"),
    ("password=***, n=1", "password=***, n=1"),
    ("password=***hunter2, n=1", "password=***, n=1"),
    ("tokens=[\n  'a',\n  'b'\n], n=1", "tokens=***, n=1"),
    # How names are joined to them.
    ("DB_PASSWORD: hunter2, next", "DB_PASSWORD: ***, next"),
    ("dbPassword=z, accessToken: x n", "dbPassword=***, accessToken: *** n"),
    ("userPwd=z, dbPW: x, dbPass=y n", "userPwd=***, dbPW: ***, dbPass=*** n"),
    ("if password == 'x' or token != 'y':", "if password == '***' or token != '***':"),
    ("{:password=>'x', 'token' -> 1}", "{:password=>'***', 'token' -> ***}"),
    ("form['password'] = 'x y'", "form['password'] = '***'"),
    ("password: str = 'x y', n", "password: ***, n"),
    ("password: str | None = 'x y', n", "password: ***, n"),
    ("password: str | None, n", "password: *** | None, n"),
    ("password: str| None = 'x y', password=str| None = 'x y'", "password: ***, password=***"),
    (r'"token=u\"a b\"", n; token: b\"a b\", n', r'"token=u\"***\"", n; token: b\"***\", n'),
    (r'"token=x\", n", "token: x\"", n', r'"token=***\", n", "token: ***\"", n'),
    ("password: x | user=bob | n = 1", "password: *** | user=bob | n = 1"),
    ("mysql --password hunter2 --user bob", "mysql --password *** --user bob"),
    ("mysql --verbose --password=hunter2 x", "mysql --verbose --password=*** x"),
    ("['--password', 'x y', '-u']", "['--password', '***', '-u']"),
    ("[(b'x-api-key', b'x y'), (b'n', b'1')]", "[(b'x-api-key', b'***'), (b'n', b'1')]"),
    ("('user', 'password', 'email'), token, x", "('user', 'password', 'email'), token, x"),
    ("api key: abc next", "api key: *** next"),
    ("/x?token=abc&page=1", "/x?token=***&page=1"),
    ("<ns:secret>a b</ns:secret> <a>b</a>", "<ns:secret>***</ns:secret> <a>b</a>"),
    ("<password/> </a>", "<password/> </a>"),
    ("password:=x, token !=y, pwd=>z)", "password:=***, token !=***, pwd=>***)"),
    ('["password"]=>\n  string(7) "hunter2"\n}', '["password"]=***\n}'),
    ("password=x", "password=***"),
    ("password=, b", "password=, b"),
    ("password:=, user=bob", "password:=, user=bob"),
    ("password=,b c", "password=*** c"),
    ("Cookie: ,b c\nn", "Cookie: ***\nn"),
    ("password=|user=bob", "password=|user=bob"),
    ("password=\nuser=bob", "password=\nuser=bob"),
    ("token=u\"a b\", n; token=u'a b', n", "token=u\"***\", n; token=u'***', n"),
    ("'token=x', n", "'token=***', n"),
    ("token12=x, token_1=x, token-1 -> x", "token12=***, token_1=***, token-1 -> ***"),
    ("\x1b[1mtoken\x1b[0m=\x1b[31mab\x1b[0m n", "\x1b[1mtoken\x1b[0m=\x1b[31m***\x1b[0m n"),
    ("\x1b[1mpw\x1b[0m: \x1b[31mab\x1b[0m n", "\x1b[1mpw\x1b[0m: \x1b[31m***\x1b[0m n"),
    (r"'\x1b[1mpw\x1b[0m=\x1b[31ma\x\x1b[0m'", r"'\x1b[1mpw\x1b[0m=\x1b[31m***\x1b[0m'"),
    (r"'\033[1mpw\033[0m -> a b'", r"'\033[1mpw\033[0m -> *** b'"),
    (r"'\u001b[1mpw\u001b[0m: a b'", r"'\u001b[1mpw\u001b[0m: *** b'"),
    ("\x1b[1mname\x1b[0m=token\x1b[0m, value=x n", "\x1b[1mname\x1b[0m=token\x1b[0m, value=*** n"),
    # Pairs of name and value.
    ("{'name': 'DB_PASS', 'value': 'a b', 'n': 1}", "{'name': 'DB_PASS', 'value': '***', 'n': 1}"),
    ('{"Value": "a \\"b", "Key": "DB_PASSWORD"}', '{"Value": "***", "Key": "DB_PASSWORD"}'),
    ("Env(name='DB_PASSWORD', value='a b', n=1)", "Env(name='DB_PASSWORD', value='***', n=1)"),
    ("- name: DB_PASSWORD\n  value: hunter2\n", "- name: DB_PASSWORD\n  value: ***\n"),
    (r'"{\"name\": \"pwd\", \"value\": \"a b\"}"', r'"{\"name\": \"pwd\", \"value\": \"***\"}"'),
    # YAML.
    ("passwords:\n  - a b\n  - c\nuser: bob", "passwords:***\nuser: bob"),
    ("passwords:\n- a b\n- c: 1\n  d: 2\nuser: bob", "passwords:***\nuser: bob"),
    ("  password: |\n    a b\n\n    c\n  user: bob", "  password: ***\n  user: bob"),
    ("password: >-\r\n  a b\r\nuser: bob", "password: ***\nuser: bob"),
    (r"{'a': 'password: |\n  b c\nuser: bob'}", "{'a': 'password: ***"),
    (r"{'a': 'passwords:\n- b c\nuser: bob'}", "{'a': 'passwords:***"),
    # Names in other languages.
    ("Passwort: x, contraseña=y", "Passwort: ***, contraseña=***"),
    ("mot de passe : z, n", "mot de passe : ***, n"),
    ("CONTRASEÑA=x 用户密码：abc; İ 密码=x n", "CONTRASEÑA=*** 用户密码：***; İ 密码=*** n"),  # noqa: RUF001 - so it is typed in China
    ("パスワード：x y, password＝z", "パスワード：*** y, password＝***"),  # noqa: RUF001 - and in Japan
    ("パスワードはhunter2です。", "パスワードは***です。"),
    ("パスワードは「hunter2」です。", "パスワードは「***」です。"),
    ("パスワードは8文字以上です。", "パスワードは8文字以上です。"),
    (r'{"\u5bc6\u7801": "x", "n": 1}', r'{"\u5bc6\u7801": "***", "n": 1}'),
    (r"['{\"Contrase\\u00F1a\": \"x\"}']", r"['{\"Contrase\\u00F1a\": \"***\"}']"),
    # Headers.
    ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
    ('Authorization: Digest a="b", c="d"\nHost: h', "Authorization: Digest ***\nHost: h"),
    ("Cookie: a=b; c=d\nHost: h", "Cookie: ***\nHost: h"),
    ("{'cookie': a=b; c=d\nn=1}", "{'cookie': ***\nn=1}"),
    ("Set-Cookie: session=abc; Path=/", "Set-Cookie: ***"),
    ("['Cookie: a=b; c=d', 'x']", "['Cookie: ***', 'x']"),
    (r'"{\"h\": \"Cookie: a=b; c=d\", \"n\": 1}"', r'"{\"h\": \"Cookie: ***\", \"n\": 1}"'),
    ("cookies={'a': 'b; c'}, n=1", "cookies=***, n=1"),
    ("token: Bearer abc next", "token: Bearer *** next"),
    # What looks like a secret.
    ("sent Bearer abcdefghijklmnop.qrst==, n", "sent Bearer ***, n"),
    ("sent basic YWxhZGRpbjpvcGVuc2VzYW1l= n", "sent basic *** n"),
    ("https://bob:hunter2@host/path", "https://bob:***@host/path"),
    ("postgres://u:p@ss@host/db?to=a@b", "postgres://u:***@host/db?to=a@b"),
    ("postgres://u:p/s#s@host/db", "postgres://u:***@host/db"),
    ("redis://:hunter2@host", "redis://:***@host"),
    ("SplitResult(scheme='x', netloc='u:p@h')", "SplitResult(scheme='x', netloc='u:***@h')"),
    ("https://abcdefghij0123456789x@host/", "https://***@host/"),
    ("jwt eyJhbGciOi.eyJzdWIiOi.c2lnbmF0 end", "jwt *** end"),
    ("https://hooks.slack.com/services/T00/B00/XyZ n", "https://hooks.slack.com/services/*** n"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
     "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----"),
    ("cut -----BEGIN PRIVATE KEY-----\nMIIE", "cut -----BEGIN PRIVATE KEY-----***"),
    ("AKIAIOSFODNN7EXAMPLE", MASK),
    ("AKIAIOSFODNN7EXAMPLE, wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY n", "*** n"),
    ("SG.ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf09kqeF8tAmbihYzrnopKc n", "*** n"),
    ("token s.aBcDeFgHiJkLmNoPqRsTuV12 n", "token *** n"),
]
# fmt: on


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_secrets_in_text_are_masked(text: str, expected: str) -> None:
    """What is under a secret's name, or looks like a secret, is masked; the rest stays."""
    assert masked(text) == expected
    assert masked(expected) == expected
    before = "A text before it. " * 100
    assert masked(f"{before}\n{text}") == f"{before}\n{expected}"


@pytest.mark.parametrize(
    "start",
    [
        *("ghp_", "github_pat_", "glpat-", "npm_", "pypi-", "sk-", "sk_live_", "rk_test_"),
        *("whsec_", "xoxb-", "xapp-", "AIza", "ya29.", "GOCSPX-", "ASIA", "hf_", "dop_v1_"),
        *("shpat_", "hvs.", "hvb."),
    ],
)
def test_tokens_are_known_by_their_start(start: str) -> None:
    """A token is masked as a whole wherever a word may start, and not within a word."""
    token = start + ("A1B2" * 4 if start == "ASIA" else "A1b2" * 15)
    assert masked(f"got {token}, ({token})") == "got ***, (***)"
    assert masked(f"got x{token}") == f"got x{token}"
    assert masked(f"got {start}x") == f"got {start}x"


@pytest.mark.parametrize("key", KEYS)
def test_every_known_name_is_found(key: str) -> None:
    """A name counts however its words are joined, with whatever before it, in text and as a key."""
    words = key.split("_")
    camel = words[0] + "".join(map(str.title, words[1:]))
    for name in (key, key.upper(), camel, "-".join(words), " ".join(words), "".join(words)):
        for full in (name, f"db_{name}", f"{name}2", f"X-{name}"):
            assert masked(f"{full}=x") == f"{full}={MASK}"
            record = logging.makeLogRecord({"given": {full: "x"}})
            KNOWN.filter(record)
            assert vars(record)["given"] == {full: MASK}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "author=Ann",
            "assignment: 3",
            "session_count=5",
            "passport=X12",
            "signal=9",
            "compass: n",
        ),
        *("bypass=1", "password_length=8", "OLDPWDS=x", "laptop: x", "keyboard=us", "key=5"),
        *("tokenizer=bpe", "oauth=no", "design: new", "inside: x", "passed=12", "secretary: Ann"),
        *("considered: 1", "mfaa=1", "spwd=x", "tokens_per_second=5", "Password::reset"),
        "password is asked for; 12:30:45, the token expired, the session was opened",
        "the secret, the cookies and a key: three things",
        "a bearer of bad news; basic understanding; basic auth",
        "http://shop:8080/@a http://shop:80",
        "items.append(x); args.this_is_a_name_of_some_24 letters",
        "async with Session() as session:\n    await session.get(url)\n    ~~~~~~~^^^^",
        "from a--b to c; --verbose x",
    ],
)
def test_what_holds_no_secret_is_left(text: str) -> None:
    """Prose, and names that only look like those of secrets, stay readable."""
    assert masked(text) == text
    assert masked(f"{text} {'a text ' * 200}") == f"{text} {'a text ' * 200}"


@pytest.mark.parametrize(
    "text",
    [
        "password hunter2",
        "password is hunter2",
        "your OTP code: 123456",
        "[parameters: ('bob', 'hunter2')]",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "secrets:\n  db: hunter2",
        "set_password('hunter2')",
        "cGFzc3dvcmQ9aHVudGVyMg==",
    ],
)
def test_what_the_guide_says_it_cannot_see(text: str) -> None:
    """The limits that the guide names are those that there are."""
    assert masked(text) == text


def test_own_names_and_patterns() -> None:
    """Own names and patterns come on top of the known ones, or in their place."""
    text = "card=1 discard=2 kreditKarte=3 暗証番号: 4 token=5 AB-66 id: 7 userId: 8 grid: 9 x=0"
    own = ("card", "kredit-karte", "暗証番号", "id", "x")
    expected = (
        "card=*** discard=2 kreditKarte=*** 暗証番号: *** token=*** *** id: *** userId: *** "
        "grid: 9 x=***"
    )
    assert masked(text, RedactingFilter(own, ["AB-[0-9]+"])) == expected
    assert masked(text, RedactingFilter(own, defaults=False)) == expected.replace(
        "token=*** ***", "token=5 AB-66"
    )
    assert masked(text, RedactingFilter(defaults=False)) == text
    pin = RedactingFilter(patterns=[r"pin (?P<secret>\d+)?", "x*"])
    assert masked("pin 12 pin !", pin) == "pin *** pin !"


@pytest.mark.parametrize("mask", ["", "<a b>", "# [", "PASSWORD=X", r"\1", "token"])
def test_any_mask(mask: str) -> None:
    """Any text will do as a mask, and is left as it is by a second filter."""
    redact = RedactingFilter(mask=mask)
    once = masked('password=hunter2, {"token": "a b"}, --token x, GET /?sig=a&n=1', redact)
    assert once == f'password={mask}, {{"token": "{mask}"}}, --token {mask}, GET /?sig={mask}&n=1'
    assert masked(once, redact) == once


# ---- any text ------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *("password", "token", "cookie", "=", ":", ": ", ",", "'", '"', "\\", "(", ")", "[", "{"),
        *("<", ">", " ", "\n", "a", "***", "--", "-", "://", "@", "eyJ", ".", "</", "Bearer "),
        *("b'", "basic ", "|\n  ", "- ", "value", "name", "\x1b[1m", "は", "Pw"),
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join) | st.text())
@example("password='a'b")
@example("token=(\\'***")
def test_masked_text_is_left(text: str) -> None:
    """Searched twice, as with a filter on each of two handlers, a text is masked as before."""
    once = masked(text)
    twice = masked(once)
    assert masked(twice) == twice
    assert len(twice) <= len(once) + len(MASK)


# ---- linear time ---------------------------------------------------------------------------------

# fmt: off
PARTS = [
    # No secret, or one at most.
    *("a", "a-", "a.", "a_", "a=", "d=", "a: ", "=", ":", '"', "'", "\\", '\\"', " ", "\n", "-"),
    *("--a", "--.", " --a", "QUJDZGVmZ2hpamtsbW5vcA==", "password=", "pass", "api ", "://"),
    *("://a:", "https://", "İ", "\x1b[1m", "AKIA", "SG.", " s.1", "eyJ-", "eyJa.", " eyJa.b"),
    *("bearer ", "basic a", "xoxb-", "-----BEGIN ", "<secret ", "token\\", "('a", 'token="'),
    *("token=(\n", "1PW", "PW\x1b[1m", ">pw", "\npw", "密码", "\\u密码", "mfa: ,"),
    *("otp=\n", " |PW=  ", "--" + "password" * 5 + ";"),
    # Nothing but secrets, or what starts like one.
    *("pw=x ", "dbPw=x ", "password=hunter2 ", "password ", "pass sess tok ", "token\t\t"),
    *("secret>", "password\x1b[1m", "('token',", "--token ", "'token', value=", "'token: x "),
    *("token=x", "token='", "token='\"", 'token="""', "token=\\'x", 'token=\\"', 'token=\\\\"'),
    *("token='(", "token=(( ", 'token=["\n', "token=<a ", "token=[[[[a]]]] "),
    *("token={'a': ['b', (1)]} ", "token=x,", "token: x = ", "token: x ='", "token:x|"),
    *("token: x | ", "token:\n", "token:\n - x\n", "password: |\n  x\n", '\\"cookie: x\n'),
    *('cookie: a="b ', "cookie: x='\n", "auth: basic ", "value=", "value='", "value=\"value='"),
    *("name=token value=x ", "https://a:b@", "netloc='", "パスワードはabcd "),
    *("-----BEGIN PRIVATE KEY-----", "AKIAABCDEFGHIJKLMNOP", "<token>x</token>", "パスワードは"),
    *('{"password": "x"}, ',),
]
# fmt: on
"""What a hostile text is made of."""

SHAPES: dict[str, Callable[[int], str]] = {
    "blanks": lambda n: "password" + " " * n + "x",
    "backslashes": lambda n: "token='" + "\\" * n,
    "backslashes and quotes": lambda n: "token=" + ("\\" * (n // 4) + '"x') * 4,
    "commas": lambda n: "token=x" + ",a" * (n // 2),
    "long words": lambda n: "token=x" + ("," + "a" * 64) * (n // 65),
    "nested": lambda n: "token=" + "(" * n,
    "slashed headers": lambda n: "\\" * (n // 2) + '"cookie: x\n' * (n // 20),
    "slashes": lambda n: "://" * (n // 3) + "@",
    "url": lambda n: "://a:" + "x" * n,
    "user": lambda n: "://" + "a" * n,
    "name": lambda n: "a-" * (n // 2) + "password=x",
    "key": lambda n: "-----BEGIN " + "A" * n,
    "elements": lambda n: "secret</" + "<secret " * (n // 8),
    "digits": lambda n: "token" + "1" * n + "=x",
    "block": lambda n: "token: |\n" + " " * (n // 2) + "x\n" + " " * (n // 2),
    "lines": lambda n: "token: |\n  x" + "\n" * n,
    "late": lambda n: "a=" * (n // 2) + "token=x",
}


def repeated(unit: str) -> Callable[[int], str]:
    """Return what makes a text of many of one part."""
    return lambda length: unit * (length // len(unit))


@pytest.mark.heavy  # a tracer, as coverage is, would change what is compared
@pytest.mark.parametrize(
    "make",
    [*map(repeated, PARTS), *SHAPES.values()],
    ids=map(repr, (*PARTS, *SHAPES)),
)
def test_time_grows_with_the_length_alone(make: Callable[[int], str]) -> None:
    """
    A longer text takes no longer for each letter, and none is of another order than prose.

    Three times prose is usual for the worst of them, and the benchmarks hold the figure. How much
    it is differs between processors: ten is no noise on any.
    """
    texts = make(5_000), make(40_000), prose(40_000)
    short = long = beside = float("inf")
    for _ in range(20):  # the least of each: what else runs on the machine only adds to it
        short, long, beside = map(min, (short, long, beside), map(cost, texts))
        if long < 3 * short and long < 10 * beside:
            return
    pytest.fail(
        f"{long / short:.1f} times as slow for each letter, {long / beside:.1f} times prose"
    )


@pytest.mark.heavy  # as above
def test_random_hostile_texts_take_a_few_times_the_time_of_prose() -> None:
    """
    What is made of a few pieces of names, signs and tokens, over and over, is cheap as well.

    ``python -m benchmarks._hostile`` tries more of them.
    """
    beside = prose(10_000)
    left = {name: (text, float("inf")) for name, text in islice(hostile(3, 10_000), 400)}
    least = float("inf")
    for _ in range(30):  # the least of each, by turns, as above
        least = min(least, cost(beside), cost(beside))
        measured = {name: (text, min(best, cost(text))) for name, (text, best) in left.items()}
        left = {name: each for name, each in measured.items() if each[1] >= 10 * least}
        if not left:
            return
    dear = [f"{best / least:.1f} times prose: {name}" for name, (_, best) in left.items()]
    pytest.fail("\n".join(dear))
