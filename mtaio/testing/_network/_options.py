"""
The options of sockets: the kernel itself says which there are, and what they may be.

Two real sockets of each kind serve a whole network. One is never changed: it knows the defaults. On
the other each option that a program sets is set as well, so that the kernel refuses what it always
refuses, and is read back as the kernel keeps it.
"""

from __future__ import annotations

import _socket  # plain ones, which are never simulated
import socket
from typing import Any, Final

__all__ = ["Options", "Settings"]

LONGEST: Final = 256
"""More bytes than any option has that programs set."""

_KINDS: Final = (socket.SOCK_STREAM, socket.SOCK_DGRAM)


class Options:
    """The options that there are, for all sockets of a network."""

    __slots__ = ("_fresh", "_tried")

    def __init__(self) -> None:
        self._fresh, self._tried = _one_of_each(), _one_of_each()

    def default(self, kind: int, *args: Any) -> Any:
        """Return what ``getsockopt`` says of a socket for which nothing was set."""
        return self._fresh[kind].getsockopt(*args)

    def normal(self, kind: int, level: int, option: int, *value: Any) -> bytes:
        """
        Return what the kernel keeps when an option is set to a value.

        Raises:
            OSError: It does not take that.
            TypeError: It is no value.
        """
        self.check(kind, level, option, *value)
        kept: bytes = self._tried[kind].getsockopt(level, option, LONGEST)
        return kept

    def check(self, kind: int, level: int, option: int, *value: Any) -> None:
        """Raise what the kernel raises when an option is set that cannot be read back."""
        self._tried[kind].setsockopt(level, option, *value)

    def close(self) -> None:
        """Give the sockets back."""
        for each in (*self._fresh.values(), *self._tried.values()):
            each.close()


def _one_of_each() -> dict[int, Any]:
    return {kind: _socket.socket(socket.AF_INET, kind) for kind in _KINDS}


class Settings:
    """
    The options of one socket.

    Args:
        options: Those that there are.
        kind: The kind of the socket.
    """

    __slots__ = ("_kind", "_options", "_set")

    def __init__(self, options: Options, kind: int) -> None:
        self._options = options
        self._kind = kind
        self._set: dict[tuple[int, int], bytes] = {}

    def inherit(self, other: Settings) -> None:
        """Take what was set on the socket that has accepted this one."""
        self._set.update(other._set)

    def set(self, level: int, option: int, *value: Any) -> None:
        """Set an option, or raise what the kernel raises."""
        self._set[level, option] = self._options.normal(self._kind, level, option, *value)

    def get(self, level: int, option: int, *size: int) -> Any:
        """Return an option as a number, or as so many bytes."""
        value = self._set.get((level, option))
        if value is None:
            return self._options.default(self._kind, level, option, *size)
        return (
            value[: size[0]]
            if size and size[0]
            else int.from_bytes(value[:4], "little", signed=True)
        )

    def number(self, level: int, option: int) -> int:
        """Return an option as a number."""
        number: int = self.get(level, option)
        return number

    def raw(self, level: int, option: int) -> bytes:
        """Return an option that was set, as the kernel keeps it; no bytes if it was not."""
        return self._set.get((level, option), b"")
