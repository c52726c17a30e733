"""
Commands that wait at the server.

Promise: one on a connection that others use is refused, because everything behind it waits as well:
leases run out meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mtaio.redis._store import Argument

__all__ = ["refuse_blocking"]

_LISTS: Final = ("BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH")
_SETS: Final = ("BZMPOP", "BZPOPMAX", "BZPOPMIN")
_BLOCKING: Final = frozenset((*_LISTS, *_SETS, "WAIT", "WAITAOF"))
_READS: Final = frozenset(("XREAD", "XREADGROUP"))


def refuse_blocking(args: tuple[Argument, ...]) -> None:
    """Raise ``ValueError`` if a command waits at the server."""
    words = [*map(_word, args)]
    options = words[: words.index("STREAMS")] if "STREAMS" in words else words
    if _BLOCKING.intersection(words[:1]) or (_READS.intersection(words[:1]) and "BLOCK" in options):
        msg = (
            f"{args[0]!r} would hold up everything else that uses the store. Run it over a "
            f"connection of its own: 'async with store.dedicated() as connection:', then "
            f"connection.command(..., timeout=...)."
        )
        raise ValueError(msg)


def _word(arg: Argument) -> str:
    return (arg.decode(errors="replace") if isinstance(arg, bytes) else str(arg)).upper()
