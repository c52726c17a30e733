"""
The contract of what limits how much runs at once.

Promise: `check_limiter` knows a limiter by ``async with``, and by ``acquire`` and ``release`` where
it has them, and by nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio.testing._limiter_clauses import CONTRACT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mtaio.testing._limiter_clauses import Make

__all__ = ["check_limiter"]


def check_limiter(
    factory: Make,
    *,
    seeds: int = 100,
    exhaustive: int | None = 2,
    without: Iterable[str] = (),
    backends: Sequence[str] | None = None,
) -> None:
    """
    Raise `ContractError` unless what ``factory`` makes is a good limiter of how much runs at once.

    For those who write one of their own: hold it to what `mtaio.resources.ConcurrencyLimiter` is
    held to, on each backend, under every schedule with few delays, many at random, and cancelled
    anywhere. What is waited for must come from tasks of the same event loop and from its timers.
    The clauses, in the order in which they are checked:

    - ``"entry"``: as many as there are slots enter at once, one more enters when one leaves;
    - ``"error"``: an error inside goes out as it is, and gives the slot back;
    - ``"bound"``: never more are inside than there are slots;
    - ``"progress"``: nobody waits while a slot is free;
    - ``"order"``: who asks first enters first, and nobody barges in;
    - ``"hand"``: ``acquire()`` and ``release()``, if it has them, do what ``async with`` does;
    - ``"checkpoint"``: a task cancelled as it suspends, outside or inside, leaves nothing behind;
    - ``"step"``: nor does one cancelled between any two steps, as when it was just let in;
    - ``"native"``: nor, on asyncio, one that is cancelled by ``Task.cancel()``;
    - ``"reuse"``: made outside of event loops, it serves one after another, on every backend.

    Args:
        factory: Called with a number of slots, makes a limiter; a class will do.
        seeds: How many schedules at random to try for a clause on each backend.
        exhaustive: How often the other schedules may depart from the oldest task, as for `explore`.
        without: Clauses to leave out, which the limiter does not promise.
        backends: Their names. Default: those that are installed of asyncio and trio.

    Raises:
        ContractError: A clause is broken; ``clause`` is its name.
        TypeError: What ``factory`` makes has no ``__aenter__`` and ``__aexit__``.
        ValueError: There is no such clause or backend, or a number is negative.
        BaseException: What ``factory`` raises when it is first called.

    Example:
        ```python
        import anyio

        from mtaio.resources import ConcurrencyLimiter
        from mtaio.testing import check_limiter

        check_limiter(ConcurrencyLimiter, seeds=10)
        check_limiter(anyio.Semaphore, seeds=10, without=["reuse"])
        ```
    """
    __tracebackhide__ = True
    CONTRACT.check(
        factory, 1, seeds=seeds, exhaustive=exhaustive, without=without, backends=backends
    )
