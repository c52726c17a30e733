"""What services say about their limits, and what they may send instead."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio._internal.retry_after import moment_in
from mtaio.clients import RateLimitHeaders, ServiceLimit
from mtaio.clients._fields import members_of
from mtaio.resources import Quota

SENT = {"Date": "Tue, 01 Dec 2026 00:00:00 GMT"}
EPOCH = 1796083200


def limits(**headers: str) -> dict[str, tuple[float | None, ...]]:
    """Return limit, remaining, reset and window of each limit, and let ``__`` be a hyphen."""
    said = RateLimitHeaders.parse(SENT | {k.replace("_", "-"): v for k, v in headers.items()})
    return {
        name: (each.limit, each.remaining, each.reset, each.window)
        for name, each in said.limits.items()
    }


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"RETRY-AFTER": "2, 2"}, 2),
        ({"Retry-After": "1", "retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "1", "retry-after-ms": "soon"}, 1),
        ({**SENT, "Retry-After": "Tue, 01 Dec 2026 00:00:09 GMT"}, 9),
        ({**SENT, "Retry-After": "Tue, 01 Dec 2020 00:00:09 GMT"}, 0),
        ({"Retry-After": "9" * 400}, 86_400),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "9" * 10_000_000}, None),
        ({"Retry-After": "Tue, 01 Dec 2026 00:00:09 GMT" + " " * 10_000_000}, None),
        ({}, None),
        (SENT, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds or a date, which counts from when the response was sent; nothing else."""
    assert RateLimitHeaders.parse(headers).retry_after == seconds


def test_without_a_date_this_machine_s_clock_counts() -> None:
    """Also for a moment since 1970."""
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    headers = {"Retry-After": later, "X-RateLimit-Reset": str(int(time.time()) + 1800), "Date": "?"}
    said = RateLimitHeaders.parse(headers)
    assert said.retry_after == pytest.approx(3600, abs=30)
    assert said.limits["requests"].reset == pytest.approx(1800, abs=30)


def test_the_draft_as_it_is() -> None:
    """Several policies, and the one that is closest to being exhausted."""
    assert limits(
        RateLimit='"default";r=50;t=30',
        RateLimit_Policy='"default";q=100;w=60;pk=:YWJj:, "daily";q=1000;w=86400;odd',
    ) == {"default": (100, 50, 30, 60), "daily": (1000, None, None, 86_400)}


@pytest.mark.parametrize(
    "headers",
    [
        {"RateLimit": "limit=10, remaining=5, reset=7", "RateLimit_Policy": "10;w=60"},
        {"RateLimit_Limit": "10", "RateLimit_Remaining": "5", "RateLimit_Reset": "7"}
        | {"RateLimit_Policy": "10;w=60"},
        {"RateLimit_Limit": "10, 10;w=60", "RateLimit_Remaining": "5", "RateLimit_Reset": "7"}
        | {"RateLimit_Policy": "10;w=60"},
    ],
)
def test_the_draft_as_it_was(headers: dict[str, str]) -> None:
    """Three fields, with the policy in a fourth."""
    assert limits(**headers) == {"requests": (10, 5, 7, 60)}


def test_older_policies_are_told_apart_by_their_windows() -> None:
    """The one in force has the limit that is named."""
    assert limits(RateLimit_Limit="50", RateLimit_Policy="10;w=1, 50;w=60, 99") == {
        "requests": (50, None, None, 60),
        "1s": (10, None, None, 1),
    }


def test_grown_headers() -> None:
    """What GitHub, GitLab, Discord, OpenAI, Anthropic, X and Envoy send."""
    assert limits(
        X_RateLimit_Limit="60", X_RateLimit_Remaining="0", X_RateLimit_Reset=str(EPOCH + 90)
    ) == {"requests": (60, 0, 90, None)}
    assert limits(X_Rate_Limit_Limit="15", X_Rate_Limit_Reset=f"{EPOCH + 90}000") == {
        "requests": (15, None, 90, None)
    }
    assert limits(RateLimit_Limit="60", RateLimit_ResetTime="Tue, 01 Dec 2026 00:00:30 GMT") == {
        "requests": (60, None, 30, None)
    }
    assert limits(X_RateLimit_Reset=str(EPOCH + 99), X_RateLimit_Reset_After="64.57") == {
        "requests": (None, None, 64.57, None)
    }
    assert limits(
        x_ratelimit_limit_requests="60",
        x_ratelimit_remaining_tokens="149984",
        x_ratelimit_reset_requests="120ms",
        x_ratelimit_reset_tokens="1h6m0.5s",
    ) == {"requests": (60, None, 0.12, None), "tokens": (None, 149_984, 3960.5, None)}
    assert limits(
        anthropic_ratelimit_input_tokens_remaining="5",
        anthropic_ratelimit_input_tokens_reset="2026-12-01T00:00:04Z",
    ) == {"input_tokens": (None, 5, 4, None)}
    assert limits(X_RateLimit_Limit='10, 10;w=1;name="a"', X_RateLimit_Reset="1") == {
        "requests": (10, None, 1, None)
    }
    assert limits(X_RateLimit_Reset="2026-12-01T00:00:04") == {"requests": (None, None, 4, None)}


def test_buckets_that_the_service_names() -> None:
    """Discord's and GitHub's, and whether a refusal concerns all of them."""
    said = RateLimitHeaders.parse({"X-RateLimit-Bucket": "abc", "X-RateLimit-Scope": "shared"})
    assert (said.bucket, said.scope, said.is_global) == ("abc", "shared", False)
    assert RateLimitHeaders.parse({"X-RateLimit-Resource": "core"}).bucket == "core"
    assert RateLimitHeaders.parse({"X-RateLimit-Global": "true"}).is_global
    assert RateLimitHeaders.parse({"X-RateLimit-Scope": "global"}).is_global
    assert RateLimitHeaders.parse({"X-RateLimit-Bucket": "x" * 101}).bucket is None


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RateLimit-Remaining": "-1"},
        {"X-RateLimit-Remaining": "nan"},
        {"X-RateLimit-Remaining": "1e9"},
        {"X-RateLimit-Remaining": "\uff19"},
        {"X-RateLimit-Remaining": "5" * 10_000_000},
        {"X-RateLimit-Reset": "5s and more"},
        {"X-RateLimit-Reset": "5s 3s"},
        {"X-RateLimit-Reset": "-0001-12-01"},
        {"X-RateLimit-Reset": "x" * 10_000_000},
        {"RateLimit": '"a";r=5;t=' + "9" * 10_000_000},
        {"RateLimit": '"a";r=-5'},
        {"RateLimit": '"a;r=5'},
        {"RateLimit": '"a";r=5 "b";r=6'},
        {"RateLimit": '"a";r=5,'},
        {"RateLimit": '"a";=5'},
        {"RateLimit": '"a";r=(1 2)'},
        {"RateLimit": '"a";r'} | {"RateLimit-Policy": '"";q=5'},
        {"RateLimit": "5;r=5"},
        {"RateLimit": "limit=a, remaining=?1x"},
        {"RateLimit": "limit=a"},
        {"Server": "ratelimit"},
        {"RateLimit": '"' + "a" * 101 + '";r=5'},
        {"X-RateLimit-Limit-" + "a" * 200: "5"},
        {"X-RateLimit-Remaining": 5},
        {5: "5"},
    ],
)
def test_what_is_not_understood_is_left_out(headers: Any) -> None:
    """Whatever breaks the rules; a field that breaks them in one place is lost as a whole."""
    said = RateLimitHeaders.parse(headers)
    assert {
        name: each for name, each in said.limits.items() if each != ServiceLimit(remaining=1)
    } == {}


def test_waits_are_believed_up_to_a_day_or_as_said() -> None:
    """An amount is bounded, too, and so is the number of limits."""
    headers = {"X-RateLimit-Reset": "999999999", "Retry-After": "999999"}
    said = RateLimitHeaders.parse(headers)
    assert (said.retry_after, said.limits["requests"].reset) == (86_400, 86_400)
    said = RateLimitHeaders.parse(headers, longest=60)
    assert (said.retry_after, said.limits["requests"].reset) == (60, 60)
    many = {f"X-RateLimit-Limit-{n}": "5" for n in range(1000)}
    policy = ", ".join(f'"{n}";q=5' for n in range(100))
    assert len(RateLimitHeaders.parse(many).limits) == 32
    assert len(RateLimitHeaders.parse({**many, "RateLimit-Policy": policy}).limits) == 32
    assert len(members_of(policy)) == 32


def test_lines_of_one_name_are_one_list() -> None:
    """As ASGI has them, in bytes; and of too many the first count."""
    line = (b"RateLimit-Policy", b'"a";q=5')
    said = RateLimitHeaders.parse([line, (b"ratelimit-policy", b'"b";q=6')])
    assert set(said.limits) == {"a", "b"}
    assert RateLimitHeaders.parse([line] * 100_000).limits == {"a": ServiceLimit(limit=5)}


def test_wait_after_a_refusal() -> None:
    """What the service asks for, or else until there is something again of what is used up."""
    parse = RateLimitHeaders.parse
    assert parse({"Retry-After": "3", "RateLimit": '"a";r=0;t=9'}).wait == 3
    assert parse({"RateLimit": '"a";r=0;t=9, "b";r=0;t=5, "c";r=1;t=99, "d";r=0'}).wait == 9
    assert parse({"RateLimit": '"a";r=1;t=9'}).wait is None


def test_a_quota_hears_of_its_own_limits() -> None:
    """Others, and a limit of 0, which none has, are left out; names may be translated."""
    said = RateLimitHeaders.parse(
        {"RateLimit": '"default";r=5;t=9, "tokens";r=7'}
        | {"RateLimit-Policy": '"default";q=0, "daily";q=9'}
    )
    assert said.as_observation() == {
        "remaining": {"default": 5, "tokens": 7},
        "limit": {"daily": 9},
        "reset": {"default": 9},
    }
    quota = Quota(requests=100, tokens=100, per=60)
    said.observe(quota)
    seen = {name: int(each.tokens) for name, each in quota.statistics().limits.items()}
    assert seen == {"requests": 100, "tokens": 7}
    said.observe(quota, {"default": "requests"})
    assert int(quota.statistics().limits["requests"].tokens) == 5
    RateLimitHeaders.parse({}).observe(quota)


def test_misuse_is_refused() -> None:
    """What are no headers, and a wait that is none."""
    nothing: Any = None
    with pytest.raises(TypeError, match=r"^headers=None is a NoneType"):
        RateLimitHeaders.parse(nothing)
    with pytest.raises(ValueError, match=r"^longest=-1 is less"):
        RateLimitHeaders.parse({}, longest=-1)


PIECES = (
    '"a" ; r= t= q= 5 -1 , = \\ " limit 1796083205 : s m ms GMT Tue, Dec 00:00 T Z + '
    "99999999999999999999"
)
NAMES = (
    "Retry-After retry-after-ms Date RateLimit RateLimit-Policy RateLimit-Reset "
    "RateLimit-ResetTime X-RateLimit-Limit X-RateLimit-Reset-Tokens X-RateLimit-Scope "
    "X-RateLimit-Reset-After X-RateLimit-Remaining anthropic-ratelimit-a-reset"
)
pieces = st.lists(st.sampled_from(PIECES.split()), max_size=12)
values = st.one_of(st.text(max_size=40), pieces.map("".join), pieces.map(" ".join))
names = st.sampled_from(NAMES.split())


@settings(max_examples=100)
@given(st.lists(st.tuples(names, values), max_size=8))
def test_nothing_raises_and_all_is_bounded(headers: list[tuple[str, str]]) -> None:
    """Whatever is sent, each number is at least 0, and each wait at most what is believed."""
    said = RateLimitHeaders.parse(headers, longest=100)
    assert said.retry_after is None or 0 <= said.retry_after <= 100
    for each in said.limits.values():
        assert each.reset is None or 0 <= each.reset <= 100
        for amount in (each.limit, each.remaining, each.window):
            assert amount is None or 0 <= amount < math.inf
    assert said.wait is None or 0 <= said.wait <= 100


@settings(max_examples=50)
@given(st.dictionaries(st.text(alphabet='ab"\\ ', min_size=1), st.integers(0, 10**6), max_size=8))
def test_what_is_written_by_the_rules_is_read(windows: dict[str, int]) -> None:
    """Names of any letters that a string may have."""
    quoted = {name: name.replace("\\", "\\\\").replace('"', '\\"') for name in windows}
    field = " , ".join(f'"{quoted[name]}"; r={left};t=1.5' for name, left in windows.items())
    said = RateLimitHeaders.parse({"RateLimit": field})
    assert {name: each.remaining for name, each in said.limits.items()} == windows


def test_dates_are_dates() -> None:
    """And a long text is none."""
    assert moment_in("Tue, 01 Dec 2026 00:00:00 -0000") == datetime(2026, 12, 1, tzinfo=UTC)
    assert moment_in("x" * 1000) is None
