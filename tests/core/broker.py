"""A broker that knows where each of its messages is, and how each was answered."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from mtaio.core import Intake

if TYPE_CHECKING:
    from collections.abc import Iterable


class Broker:
    """
    Hands out messages, and takes an answer for each.

    Args:
        messages: What it has.
        every: Seconds that it takes to hand out one; 0 for a step.
        many: How many it hands out at once, as a list; 0 for one at a time, as itself.
        ends: Whether it says so when it has no more, or is silent.
    """

    def __init__(
        self, messages: Iterable[int], *, every: float = 0, many: int = 0, ends: bool = True
    ) -> None:
        self.left = deque(messages)
        self.hand: set[int] = set()
        self.most = 0
        self.acked: list[int] = []
        self.nacked: list[tuple[int, Exception | None]] = []
        self._every = every
        self._many = many
        self._ends = ends

    def intake(self) -> Intake[int]:
        """Return a source of the messages."""
        if self._many:
            return Intake(self.receive_many, self.ack, self.nack, many=True)
        return Intake(self.receive, self.ack, self.nack)

    async def receive(self) -> int:
        """Wait for a message, and hand it out."""
        await (anyio.sleep(self._every) if self._every else checkpoint())
        if not self.left:
            if self._ends:
                raise StopAsyncIteration
            await anyio.sleep_forever()
        message = self.left.popleft()
        self.hand.add(message)
        self.most = max(self.most, len(self.hand))
        return message

    async def receive_many(self) -> list[int]:
        """Wait for messages, and hand out some."""
        messages = [await self.receive()]
        while self.left and len(messages) < self._many:
            messages.append(self.left.popleft())
        self.hand.update(messages)
        self.most = max(self.most, len(self.hand))
        return messages

    async def ack(self, message: int) -> None:
        """Take note that a message is done."""
        self.hand.remove(message)
        await checkpoint()
        self.acked.append(message)

    async def nack(self, message: int, error: Exception | None) -> None:
        """Take a message back."""
        self.hand.remove(message)
        await checkpoint()
        self.nacked.append((message, error))

    def returned(self) -> list[int]:
        """Return the messages that were given back unfinished."""
        return sorted(message for message, error in self.nacked if error is None)

    def failed(self) -> list[int]:
        """Return the messages that were given back with an error."""
        return sorted(message for message, error in self.nacked if error is not None)
