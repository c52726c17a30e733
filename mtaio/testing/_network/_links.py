"""How long what one host sends takes to another, and whether it gets there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mtaio._internal import checks

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

__all__ = ["Link", "Links", "Piece"]

Piece: TypeAlias = bytes | memoryview
"""What travels as one."""

SEGMENT: Final = 131_072
"""The most bytes that travel as one, as with the kernel's segmentation offload."""
LEAST: Final = 65_536
"""The most where more of them would be on a slow link for longer than it `LASTS`."""
LASTS: Final = 1 / 64
"""For how long a link may be busy with what travels as one, in seconds."""


@dataclass(slots=True)
class Link:
    """What a link does, in one direction. The units are those of `Network`."""

    latency: float
    jitter: float
    bandwidth: float | None
    loss: float
    duplicate: float
    segment: int | None
    busy_until: float = 0.0
    """When the last byte that was put on it so far has left."""


def checked(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of a link as they came, if they are right."""
    for name in ("latency", "jitter"):
        if name in options:
            value = checks.at_least(name, options[name], 0, way_out="Pass seconds, 0 for none.")
            if value == math.inf:
                msg = (
                    f"{name}={value!r} means that nothing ever arrives. Use partition() to cut "
                    f"hosts off."
                )
                raise ValueError(msg)
    if options.get("bandwidth") is not None:
        checks.positive("bandwidth", options["bandwidth"], way_out="Pass bytes a second, or None.")
    for name, what in (("loss", "are lost"), ("duplicate", "arrive twice")):
        if name in options:
            way_out = f"Pass the share of datagrams that {what}, from 0 to 1."
            if checks.at_least(name, options[name], 0, way_out=way_out) > 1:
                msg = f"{name}={options[name]!r} is more than 1. {way_out}"
                raise ValueError(msg)
    if options.get("segment") is not None:
        way_out = "Pass the most bytes that arrive at once, or None."
        checks.count("segment", options["segment"], way_out=way_out)
    return options


class Links:
    """The links between all hosts, each of which is as the rest until it is told otherwise."""

    __slots__ = ("_default", "_links", "_random")

    def __init__(self, rng: random.Random, **options: Any) -> None:
        self._default = checked(options)
        self._links: dict[tuple[str, str], Link] = {}
        self._random = rng

    def of(self, source: str, target: str) -> Link:
        """Return the link from one host to another."""
        link = self._links.get((source, target))
        if link is None:
            link = self._links[source, target] = Link(**self._default)
        return link

    def change(self, source: str, target: str, options: dict[str, Any]) -> None:
        """Change a link in one direction; what is on its way stays as it is."""
        link = self.of(source, target)
        for name, value in options.items():
            setattr(link, name, value)

    def arrival(self, source: str, target: str, size: int, now: float) -> float:
        """Return when ``size`` bytes that leave now arrive, after those that left before."""
        if source == target:
            return now
        link = self.of(source, target)
        if link.bandwidth is not None and size:
            now = link.busy_until = max(link.busy_until, now) + size / link.bandwidth
        return now + link.latency + (self._random.random() * link.jitter if link.jitter else 0.0)

    def loses(self, source: str, target: str) -> bool:
        """Return whether a datagram is lost on the way."""
        return source != target and self._happens(self.of(source, target).loss)

    def doubles(self, source: str, target: str) -> bool:
        """Return whether a datagram arrives twice."""
        return source != target and self._happens(self.of(source, target).duplicate)

    def _happens(self, share: float) -> bool:
        return share > 0 and self._random.random() < share

    def pieces(self, source: str, target: str, data: bytes) -> Sequence[Piece]:
        """Return the segments in which ``data`` arrives; what is cut is not copied."""
        link = None if source == target else self.of(source, target)
        most = None if link is None else link.segment
        if most is None and len(data) <= LEAST:
            return (data,)
        view = memoryview(data)
        if most is None:
            size = SEGMENT
            if link is not None and link.bandwidth is not None:
                size = max(LEAST, int(min(SEGMENT, link.bandwidth * LASTS)))
            return [view[at : at + size] for at in range(0, len(data), size)]
        pieces: list[Piece] = []
        at = 0
        while at < len(data):
            size = self._random.randint(1, most)
            pieces.append(view[at : at + size])
            at += size
        return pieces
