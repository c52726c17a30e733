"""
Caches whose values expire, are loaded once for all callers, and are evicted to make room.

Promise: an expired value is not returned, unless the cache is told to serve stale ones; a caller
that is cancelled does not take the value away from others; every cache can be created at module
level and used by one event loop after another, on either backend, and by any thread.

Every method that works on memory alone has a sync twin: ``await cache.get(key)`` is
``cache.get_nowait(key)``. Loads are ``await cache.get_or_set(key, loader)`` and
``await cache.refresh(key, loader)``, or ``await cache.get_or_set_many(keys, loader)`` for several
keys at once; `cached` puts a cache around a function, async or plain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.cache._cached import BoundCached, Cached, cached
    from mtaio.cache._plain import BoundPlainCached, PlainCached
    from mtaio.cache._store import RemovalCause
    from mtaio.cache._ttl import TTLCache

__all__ = [
    "BoundCached",
    "BoundPlainCached",
    "Cached",
    "PlainCached",
    "RemovalCause",
    "TTLCache",
    "cached",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.cache._cached": ("BoundCached", "Cached", "cached"),
            "mtaio.cache._plain": ("BoundPlainCached", "PlainCached"),
            "mtaio.cache._store": ("RemovalCause",),
            "mtaio.cache._ttl": ("TTLCache",),
        },
    )
