"""What is told of a simulated network: what happened on it, and which sockets are open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

__all__ = ["KEPT", "NetworkEvent", "NetworkStatistics", "OpenSocket"]

KEPT: Final = 100_000
"""How many events the trace of a network goes back."""


@final
@dataclass(frozen=True, slots=True)
class NetworkEvent:
    """Something that happened on a simulated network."""

    time: float
    """The virtual time in seconds."""
    what: str
    """What: ``"connected"``, ``"120 bytes"``, ``"FIN"``, ``"kill"`` and the like."""
    source: str
    """The host, and the port if there is one, from which it came or which it concerns."""
    target: str = ""
    """The host and the port at which it arrived, if it is about two."""

    def __str__(self) -> str:
        who = f"{self.source} > {self.target}" if self.target else self.source
        return f"t={self.time:<8g} {who}  {self.what}"


@final
@dataclass(frozen=True, slots=True)
class OpenSocket:
    """A socket that a program on a simulated network has open."""

    host: str
    """The name of its host."""
    local: str
    """Its address and port, ``"0.0.0.0:0"`` if it has none yet."""
    peer: str
    """The name and port of the other end; empty if it has none."""

    def __str__(self) -> str:
        return f"{self.host} {self.local}" + (f" > {self.peer}" if self.peer else "")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkStatistics:
    """What a simulated network has done so far."""

    open: tuple[OpenSocket, ...]
    """The sockets that programs have open."""
    delivered: int
    """How many segments and datagrams have arrived."""
    held: int
    """How often something was held back or lost because of a partition or a hold."""
