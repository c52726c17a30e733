"""
How long a service asks to wait: the value of ``Retry-After``, wherever it was found.

Promise: whatever a service sends, the answer is a number of seconds or None, and never an error;
a text is looked at only if it is short.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["in_response", "moment_in", "seconds", "seconds_in"]

_LONGEST: Final = 400
"""Characters of a text that may mean something; a float has at most 309 digits before the point."""


def seconds(asked: object) -> float | None:
    """Return the seconds to wait that a number or the text of a header means; None if neither."""
    if isinstance(asked, str):
        return seconds_in(asked)
    if not isinstance(asked, int | float) or asked != asked:  # noqa: PLR0124 - NaN
        return None
    try:
        return float(asked)
    except OverflowError:  # an int from a server that means: never
        return math.inf if asked > 0 else -math.inf


def seconds_in(text: str, sent: str | None = None) -> float | None:
    """
    Return the seconds that the value of a header ``Retry-After`` asks for; None if it is bad.

    Args:
        text: The value: seconds, also with a fraction, or an HTTP date.
        sent: The header ``Date`` of the response, from which a date counts; this host's clock is
            used without it, or where it is bad.
    """
    if len(text) > _LONGEST:
        return None
    if re.fullmatch(r"\s*[0-9]+(\.[0-9]*)?\s*", text):  # services send fractions, too
        return float(text)
    moment = moment_in(text)
    if moment is None:
        return None
    since = None if sent is None else moment_in(sent)
    if since is None:
        from datetime import UTC, datetime  # noqa: PLC0415 - as in moment_in

        since = datetime.now(UTC)
    return (moment - since).total_seconds()


def in_response(error: object) -> float | None:
    """
    Return the seconds that the response asks for of which an error tells; None if it does not.

    That is ``error.response.headers`` in httpx, requests and the SDKs that are built on them, and
    ``error.headers`` in aiohttp and urllib.
    """
    headers: Any = getattr(getattr(error, "response", error), "headers", None)
    get = getattr(headers, "get", None)
    if not callable(get):
        return None
    for name, unit in ("retry-after-ms", 1000), ("Retry-After", 1), ("retry-after", 1):
        said: object = get(name)
        asked = seconds_in(said) if isinstance(said, str) else None
        if asked is not None:
            return asked / unit
    return None


def moment_in(text: str) -> datetime | None:
    """Return the moment that an HTTP date means; None if it is none."""
    from datetime import UTC  # noqa: PLC0415 - few services send a date
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - loads the e-mail package

    if len(text) > _LONGEST:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError, IndexError, TypeError):  # of a parser for any letter
        return None
    # "-0000", which means UTC, has no zone.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
