"""
Calling HTTP APIs that limit: what they say in headers, and clients that keep to it by themselves.

Promise: a refusal is waited out as the service asks, and costs nobody anything else; bodies pass
untouched.
Cost: each name is imported on first use; httpx and aiohttp only with the class that is for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.clients._headers import RateLimitHeaders, ServiceLimit

__all__ = [
    "RateLimitHeaders",
    "ServiceLimit",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.clients._headers": ("RateLimitHeaders", "ServiceLimit"),
        },
    )
