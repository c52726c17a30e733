"""
The contract of what keeps values by key and loads those that are missing.

Promise: `check_cache` knows a cache by ``get``, ``set``, ``delete`` and ``get_or_set``, by
``async with`` where it has that, and by nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio.testing._cache_callers import ROOM
from mtaio.testing._cache_clauses import CONTRACT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mtaio.testing._cache_callers import Make

__all__ = ["check_cache"]


def check_cache(
    factory: Make,
    *,
    seeds: int = 100,
    exhaustive: int | None = 2,
    without: Iterable[str] = (),
    backends: Sequence[str] | None = None,
) -> None:
    """
    Raise `ContractError` unless what ``factory`` makes is a good cache of what is loaded.

    For those who write one of their own, or put something around one: hold it to what
    `mtaio.cache.TTLCache` is held to, on each backend, under every schedule with few delays, many
    at random, and cancelled anywhere. It needs ``await get(key, default)``,
    ``await set(key, value, ttl)``, ``await delete(key)``, which tells whether there was a value,
    and ``await get_or_set(key, load)``, which calls ``load()`` and awaits it if there is none. If
    it has ``async with`` too, it is entered. The clauses, in the order in which they are checked:

    - ``"value"``: what was set is found, None included, until it is deleted or set anew;
    - ``"time"``: a value whose time is over is not found; 0 is over at once, ``math.inf`` never;
    - ``"bound"``: never more values are found than there is room for, loads or no loads;
    - ``"load"``: one load for all who ask, and its value is kept; keys do not wait for each other;
    - ``"error"``: an error of a load goes to each who waited for it, as it is, and is not kept;
    - ``"change"``: what was set or deleted during a load is not undone by it;
    - ``"deadline"``: a caller's deadline ends its waiting, whether it asked first or later;
    - ``"recursion"``: a load that asks for its own key gets an error, instead of waiting for ever;
    - ``"checkpoint"``: a caller cancelled as it suspends takes nobody with it, and leaves nothing
      behind;
    - ``"step"``: nor does one cancelled between any two steps, as when the value was just there;
    - ``"native"``: nor, on asyncio, one that is cancelled by ``Task.cancel()``;
    - ``"reuse"``: made outside of event loops, it serves one after another, on every backend.

    Args:
        factory: Called with how many values there is to be room for, makes a cache.
        seeds: How many schedules at random to try for a clause on each backend.
        exhaustive: How often the other schedules may depart from the oldest task, as for `explore`.
        without: Clauses to leave out, which the cache does not promise.
        backends: Their names. Default: those that are installed of asyncio and trio.

    Raises:
        ContractError: A clause is broken; ``clause`` is its name.
        TypeError: What ``factory`` makes lacks one of the methods.
        ValueError: There is no such clause or backend, or a number is negative.
        BaseException: What ``factory`` raises when it is first called.

    Example:
        ```python
        from mtaio.cache import TTLCache
        from mtaio.testing import check_cache

        check_cache(lambda room: TTLCache(60, room), seeds=10)
        ```
    """
    __tracebackhide__ = True
    CONTRACT.check(
        factory, ROOM, seeds=seeds, exhaustive=exhaustive, without=without, backends=backends
    )
