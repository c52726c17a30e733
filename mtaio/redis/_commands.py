"""
Commands that need a connection of their own.

Promise: on one that others use, a command that waits at the server is refused, because everything
behind it waits as well: leases run out meanwhile. So is one that changes what later commands do:
after ``SELECT``, limits would be counted in another database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mtaio.redis._store import Argument

__all__ = ["refuse_unshared"]

_LISTS: Final = ("BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH")
_SETS: Final = ("BZMPOP", "BZPOPMAX", "BZPOPMIN")
_BLOCKING: Final = frozenset((*_LISTS, *_SETS, "WAIT", "WAITAOF"))
_READS: Final = frozenset(("XREAD", "XREADGROUP"))
_LISTENING: Final = frozenset(("MONITOR", "PSUBSCRIBE", "SSUBSCRIBE", "SUBSCRIBE"))
_CHANGING: Final = frozenset(("AUTH", "HELLO", "MULTI", "QUIT", "RESET", "SELECT"))

_WAY_OUT: Final = (
    "Run it over a connection of its own: 'async with store.dedicated() as connection:', then "
    "connection.command(..., timeout=...)."
)


def refuse_unshared(args: tuple[Argument, ...]) -> None:
    """Raise ``ValueError`` if a command needs a connection of its own."""
    if not args:
        msg = "command() was called without a command. Pass its name and its arguments."
        raise TypeError(msg)
    name, *options = map(_word, args)
    if "STREAMS" in options:
        options = options[: options.index("STREAMS")]
    if name in _LISTENING:
        msg = (
            f"{args[0]!r} has messages follow, which command() cannot return. Use a client of "
            f"Redis for it."
        )
    elif name in _BLOCKING or (name in _READS and "BLOCK" in options):
        msg = f"{args[0]!r} would hold up everything else that uses the store. {_WAY_OUT}"
    elif name in _CHANGING:
        msg = f"{args[0]!r} would change the connection of everything else. {_WAY_OUT}"
    else:
        return
    raise ValueError(msg)


def _word(arg: Argument) -> str:
    return (arg.decode(errors="replace") if isinstance(arg, bytes) else str(arg)).upper()
