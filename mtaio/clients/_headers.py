"""
What a service says about its limits in the headers of its responses.

Promise: whatever a service sends, reading it never raises, takes linear time, and gives numbers of
at least 0; no wait is longer than the caller believes.
Cost: a look at each header's name; values only of those that are about limits.

Sources: RFC 9110 (``Retry-After``), draft-ietf-httpapi-ratelimit-headers in its older forms
(``RateLimit-Limit``, ``-Remaining``, ``-Reset``; ``limit=, remaining=, reset=``) and its newer one
(``"name";r=;t=``), and what GitHub, GitLab, Discord, OpenAI, Anthropic, X, Kong and Envoy document.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, TypedDict, cast, final

from mtaio._internal import checks
from mtaio._internal.retry_after import moment_in, seconds_in
from mtaio.clients._fields import MOST, Member, bounded, members_of, number_in, reset_in

__all__ = ["Observation", "Observer", "RateLimitHeaders", "ResponseHeaders", "ServiceLimit"]

ResponseHeaders: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
"""Headers of a response: of httpx, aiohttp, requests, a dict, or ASGI's pairs of bytes."""

DEFAULT_NAME: Final = "requests"
"""What a limit is called to which the service gives no name."""

LONGEST: Final = 86_400.0
"""Seconds of the longest wait that is believed, unless the caller says otherwise."""

_MOST_AMOUNT: Final = 1e15
_MOST_NAME: Final = 100
_MOST_LINES: Final = 4000

_ABOUT: Final = re.compile(
    r"(?:[a-z0-9]+-)?"  # x-, anthropic-
    r"(?:ratelimit|rate-limit)-"
    r"(?:(?P<first>limit|remaining|reset-after|reset)(?:-(?P<last_name>[a-z0-9_-]+))?"
    r"|(?P<first_name>[a-z0-9_-]+)-(?P<last>limit|remaining|reset))"
)
"""Of ``x-ratelimit-limit-tokens``, ``anthropic-ratelimit-tokens-limit`` and the like."""


class Observation(TypedDict):
    """What a service says, by the names of its limits: the arguments of `Quota.observe`."""

    remaining: dict[str, float]
    limit: dict[str, float]
    reset: dict[str, float]


class Observer(Protocol):
    """What takes an `Observation`: a `Quota`."""

    def observe(
        self,
        *,
        remaining: Mapping[str, float] | None = ...,
        limit: Mapping[str, float] | None = ...,
        reset: Mapping[str, float] | None = ...,
    ) -> object:
        """Take over what the service says."""
        ...

    @property
    def limits(self) -> Collection[str]:
        """The names of its limits."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimit:
    """
    What a service says about one of its limits; None for what it does not say.

    Attributes:
        limit: How much is allowed in a window.
        remaining: How much of it is left.
        reset: Seconds until all of it is available again, from when the response was sent.
        window: Length of the window in seconds.
    """

    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None
    window: float | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitHeaders:
    """
    What a service says about its limits in the headers of a response.

    Use ``RateLimitHeaders.parse(response.headers)`` to read them. It supports ``Retry-After``
    (seconds or a date) and ``retry-after-ms``; ``RateLimit`` and ``RateLimit-Policy`` in all
    versions of the IETF draft so far; and ``X-RateLimit-*`` and similar headers, whose reset may be
    seconds, seconds since 1970, a duration such as ``6m0s``, or a date. Points in time are compared
    with the header ``Date``, so this host's clock need not be right.

    Values that cannot be parsed, negative numbers, NaN and infinity are ignored.

    Attributes:
        retry_after: Seconds for which the service asks not to be called; None if it does not ask.
        limits: What it says about each limit, by name. Hyphens in names become underscores; a limit
            without a name is called ``requests``.
        bucket: The service's name for the limit that the request counted against
            (``X-RateLimit-Bucket`` of Discord, ``X-RateLimit-Resource`` of GitHub).
        scope: Whose limit it was (``X-RateLimit-Scope`` of Discord): ``user``, ``global``,
            ``shared``.
        is_global: Whether a refusal concerns all requests, not only this bucket.

    Example:
        ```python
        from mtaio.clients import RateLimitHeaders

        said = RateLimitHeaders.parse(
            {"x-ratelimit-remaining-tokens": "900", "x-ratelimit-reset-tokens": "6m0s"}
        )
        print(said.limits["tokens"].remaining, said.limits["tokens"].reset)
        ```
    """

    retry_after: float | None = None
    limits: Mapping[str, ServiceLimit] = field(default_factory=dict[str, ServiceLimit], hash=False)
    bucket: str | None = None
    scope: str | None = None
    is_global: bool = False

    @classmethod
    def parse(cls, headers: ResponseHeaders, *, longest: float = LONGEST) -> RateLimitHeaders:
        """
        Parse the headers of a response.

        Not a checkpoint. It can be called from any thread.

        Args:
            headers: A mapping or pairs of names and values; names in any case, also as bytes.
            longest: Maximum seconds to wait, whatever the service says: longer waits become this
                long.

        Raises:
            TypeError: ``headers`` is neither, or ``longest`` is not a number.
            ValueError: ``longest`` is negative or NaN.
        """
        checks.at_least("longest", longest, 0, way_out="Pass seconds >= 0.")
        found = _relevant(headers)
        if not found:
            return _SILENT
        sent = found.pop("date", None)
        if not found:
            return _SILENT
        return _Reading(found, sent, longest).result()

    @property
    def wait(self) -> float | None:
        """
        Seconds to wait after a refusal; None if the service does not say.

        This is `retry_after`, or else the longest reset of the limits with nothing left.
        """
        if self.retry_after is not None:
            return self.retry_after
        return max(
            (
                each.reset
                for each in self.limits.values()
                if each.reset is not None and each.remaining is not None and each.remaining < 1
            ),
            default=None,
        )

    def as_observation(
        self, names: Mapping[str, str] | Collection[str] | None = None
    ) -> Observation:
        """
        Return arguments for a `Quota`: ``quota.observe(**said.as_observation({"requests"}))``.

        Limits of 0 are left out, since a quota cannot have them.

        Args:
            names: The limits of the quota, or what it calls the service's limits, such as
                ``{"default": "requests"}``. Others are left out. None for all.
        """
        observed = Observation(remaining={}, limit={}, reset={})
        for name, said in self.limits.items():
            if names is not None and name not in names:
                continue
            called: str = name
            if isinstance(names, Mapping):
                called = cast("Mapping[str, str]", names)[name]
            if said.remaining is not None:
                observed["remaining"][called] = said.remaining
            if said.limit:
                observed["limit"][called] = said.limit
            if said.reset is not None:
                observed["reset"][called] = said.reset
        return observed

    def observe(self, quota: Observer, names: Mapping[str, str] | None = None) -> None:
        """
        Tell a quota what the service says about its limits.

        Not a checkpoint.

        Args:
            quota: A `mtaio.resources.Quota`.
            names: What the quota calls the service's limits, such as ``{"default": "requests"}``;
                None if the names are the same.
        """
        if self.limits:
            known = quota.limits if names is None else names
            quota.observe(**self.as_observation(known))


_SILENT: Final = RateLimitHeaders()


def _relevant(headers: ResponseHeaders) -> dict[str, str]:
    """Return the headers that say something of limits, by their names in lower case."""
    found: dict[str, str] = {}
    for name, value in _pairs(headers):
        called = _text(name)
        if called is None or len(called) > _MOST_NAME or len(found) >= 2 * MOST:
            continue
        called = called.lower()
        if called in _OTHERS or "ratelimit" in called or "rate-limit" in called:
            text, before = _text(value), found.get(called)
            if text is None:
                continue
            if before is None:
                found[called] = text
            elif len(before) + len(text) <= _MOST_LINES:  # lines of one name are one list
                found[called] = f"{before}, {text}"
    return found


def _text(value: object) -> str | None:
    """Return a name or value as text; None if it is neither that nor bytes."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None


_OTHERS: Final = frozenset({"date", "retry-after", "retry-after-ms"})


def _pairs(headers: ResponseHeaders) -> Iterator[tuple[Any, Any]]:
    items: Any = getattr(headers, "items", None)
    pairs: Any = items() if callable(items) else headers
    try:
        return iter(pairs)
    except TypeError:
        msg = f"headers={headers!r} is {checks.type_of(headers)}, not headers"
        raise checks.refusal(
            TypeError, msg, "Pass the response's headers: a mapping, or pairs."
        ) from None


class _Reading:
    """
    One reading of headers.

    Args:
        headers: Those that say something of limits.
        sent: The header ``Date``.
        longest: The most seconds of a wait.
    """

    def __init__(self, headers: dict[str, str], sent: str | None, longest: float) -> None:
        self._headers = headers
        self._sent = sent
        self._longest = longest
        self._now: float | None = None
        self._limits: dict[str, dict[str, float]] = {}

    def result(self) -> RateLimitHeaders:
        headers = self._headers
        # What comes first counts: the standard before what grew.
        self._draft()
        self._grown()
        bucket = headers.get("x-ratelimit-bucket") or headers.get("x-ratelimit-resource")
        scope = headers.get("x-ratelimit-scope")
        short = _short(scope)
        return RateLimitHeaders(
            retry_after=self._retry_after(),
            limits={name: ServiceLimit(**its) for name, its in self._limits.items()},
            bucket=_short(bucket),
            scope=short,
            is_global=headers.get("x-ratelimit-global", "").lower() == "true" or short == "global",
        )

    def _retry_after(self) -> float | None:
        text = self._headers.get("retry-after-ms")
        if text is not None:
            asked = number_in(text)
            if asked is not None:
                return self._wait(asked / 1000)
        text = self._headers.get("retry-after")
        if text is None:
            return None
        asked = seconds_in(text, self._sent)
        return self._wait(number_in(text) if asked is None else asked)  # a proxy may repeat it

    def _draft(self) -> None:
        """Read ``RateLimit`` and ``RateLimit-Policy``."""
        headers = self._headers
        old: dict[str, float] = {}
        for member in members_of(headers.get("ratelimit", "")):
            if member.key is not None:  # limit=100, remaining=50, reset=5
                if isinstance(member.value, float):
                    old[member.key] = member.value
            elif isinstance(member.value, str):  # "default";r=50;t=30
                self._set(member.value, "remaining", member.parameters.get("r"))
                self._set(member.value, "reset", member.parameters.get("t"))
        for what in ("limit", "remaining", "reset"):
            self._set(DEFAULT_NAME, what, old.get(what))
        nameless: list[Member] = []
        for member in members_of(headers.get("ratelimit-policy", "")):
            if isinstance(member.value, str):  # "default";q=100;w=60
                self._set(member.value, "limit", member.parameters.get("q"))
                self._set(member.value, "window", member.parameters.get("w"))
            else:
                nameless.append(member)
        self._nameless(nameless, old.get("limit", number_in(headers.get("ratelimit-limit", ""))))

    def _nameless(self, policies: list[Member], closest: float | None) -> None:
        """Read policies of the older forms, ``100;w=60``: that in force, and others by window."""
        for member in policies:
            window = bounded(member.parameters.get("w"))
            if member.value == closest or len(policies) == 1:
                name = DEFAULT_NAME
            elif window is None:
                continue
            else:
                name = f"{window:g}s"
            self._set(name, "limit", member.value)
            self._set(name, "window", window)

    def _grown(self) -> None:
        """Read ``X-RateLimit-*`` and its relatives."""
        late: list[tuple[str, str]] = []
        for header, text in self._headers.items():
            about = _ABOUT.fullmatch(header)
            if about is None:
                continue
            what = about["first"] or about["last"]
            name = (about["last_name"] or about["first_name"] or DEFAULT_NAME).replace("-", "_")
            if what == "reset":
                late.append((name, text))
            elif what == "reset-after":
                self._set(name, "reset", number_in(text))
            else:
                self._set(name, what, number_in(text))
        # A moment is less exact than the seconds until then, which may be there, too.
        for name, text in late:
            self._set(name, "reset", reset_in(text, self._sent_at()))
        date = self._headers.get("ratelimit-resettime")  # of GitLab
        if date is not None:
            self._set(DEFAULT_NAME, "reset", reset_in(date, self._sent_at()))

    def _set(self, name: str, what: str, value: object) -> None:
        """Note what is said of a limit, unless it is no number or was said before."""
        number = self._wait(value) if what == "reset" else bounded(value, _MOST_AMOUNT)
        if number is None or not 0 < len(name) <= _MOST_NAME:
            return
        if name in self._limits or len(self._limits) < MOST:
            self._limits.setdefault(name, {}).setdefault(what, number)

    def _wait(self, value: object) -> float | None:
        """Return so many seconds, at least 0 and at most what is believed."""
        if not isinstance(value, float):
            return None
        return bounded(max(0.0, value), self._longest)

    def _sent_at(self) -> float:
        """Return when the response was sent, in seconds since 1970."""
        if self._now is None:
            sent = None if self._sent is None else moment_in(self._sent)
            self._now = time.time() if sent is None else sent.timestamp()
        return self._now


def _short(text: str | None) -> str | None:
    return text.strip() or None if text is not None and len(text) <= _MOST_NAME else None
