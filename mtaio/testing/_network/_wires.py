"""
The network's ends of all sockets: what programs have written is taken from the kernel here.

Promise: virtual time does not move while a byte is in the kernel that the network has not taken,
except where a window is full; what was written in one moment is taken in the order of the sockets,
whatever the kernel says first.
"""

from __future__ import annotations

import select
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtaio.testing._network._endpoint import Endpoint
    from mtaio.testing._network._stream import Stream

__all__ = ["Wires"]

_number = attrgetter("number")


def _number_of_first(ready: tuple[Stream, int]) -> int:
    return ready[0].number


class Wires:
    """The wires to look at, and the sockets for which something could not be delivered yet."""

    # Invariant: watched holds those whose programs may send now, by the descriptors of their wires.
    __slots__ = ("_leaving", "_poll", "_watched", "laid", "stuck")

    def __init__(self) -> None:
        self.laid: dict[int, Endpoint] = {}
        """All endpoints that have a wire, by their numbers."""
        self._poll = select.epoll()
        self._watched: dict[int, Stream] = {}
        self._leaving: dict[int, Stream] = {}
        self.stuck: dict[int, Stream] = {}
        """Those of which something waits until their programs read, by their numbers."""

    def watch(self, stream: Stream) -> None:
        """Take what its program sends, from now on, or again after `unwatch`."""
        assert stream.wire is not None  # noqa: S101 - it was laid
        fd = stream.wire.fileno()
        self._poll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)
        self._watched[fd] = stream

    def unwatch(self, stream: Stream) -> None:
        """Take nothing from it any more, or for a while."""
        if stream.wire is None:
            return
        fd = stream.wire.fileno()
        if self._watched.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def take(self) -> bool:
        """
        Take what programs have sent, and give them what fits.

        Returns:
            Whether a program can go on in this moment, because it got something, or waited until
            it could send more.
        """
        moved = False
        if self._watched:
            ready = [
                (self._watched[fd], mask) for fd, mask in self._poll.poll(0, len(self._watched))
            ]
            if len(ready) > 1:
                ready.sort(key=_number_of_first)
            for stream, mask in ready:
                ending = mask != select.EPOLLIN
                if stream.take(ending=ending) and stream.awaits_writing():
                    moved = True
                self._leaving[stream.number] = stream
        for stream in sorted(self.stuck.values(), key=_number) if self.stuck else ():
            if stream.push():
                moved = True
        return moved

    def leave(self) -> None:
        """Put on its way what programs have sent in this moment, which is over."""
        if not self._leaving:
            return
        leaving, self._leaving = self._leaving, {}
        for number in sorted(leaving):
            leaving[number].leave()

    def close(self) -> None:
        """Close all wires."""
        for endpoint in list(self.laid.values()):
            endpoint.drop_wire()
        self._watched.clear()
        self.stuck.clear()
        self._leaving.clear()
        self._poll.close()
