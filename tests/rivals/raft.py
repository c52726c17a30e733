"""A small Raft: elections alone, over datagrams, with two defects to switch on."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from socket import AF_INET
from typing import TYPE_CHECKING, Any, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Sequence

PORT: Final = 7000
HEARTBEAT: Final = 0.05
PATIENCE: Final = (0.15, 0.3)


@dataclass
class Node:
    """
    One member of a cluster; ``serve`` is what its machine runs.

    ``term`` and ``voted`` are what Raft writes to stable storage before it answers: they are kept
    when the machine is restarted, unless ``forgets``. ``votes_twice`` leaves out the rule that
    a member votes once in a term.
    """

    name: str
    others: Sequence[str]
    votes_twice: bool = False
    forgets: bool = False
    term: int = 0
    voted: str | None = None
    leads: bool = False
    seen: set[tuple[int, str]] = field(default_factory=set)
    _stands: int = -1
    _votes: set[str] = field(default_factory=set)
    _socket: Any = None

    async def serve(self) -> None:
        """Take part in elections, and send heartbeats while it leads."""
        self.leads = False
        if self.forgets:
            self.term, self.voted = 0, None
        async with await anyio.create_udp_socket(family=AF_INET, local_port=PORT) as self._socket:
            while True:
                patience = HEARTBEAT if self.leads else random.uniform(*PATIENCE)  # noqa: S311 - no secret
                with anyio.move_on_after(patience) as silence:
                    data, _ = await self._socket.receive()
                if not silence.cancelled_caught:
                    await self._hear(**json.loads(data))
                elif self.leads:
                    await self._tell(self.others, "heartbeat")
                else:
                    self.term += 1
                    self.voted = self.name
                    self._stands, self._votes = self.term, {self.name}
                    await self._tell(self.others, "candidate")

    async def _hear(self, kind: str, term: int, sender: str) -> None:
        if term > self.term:
            self.term, self.voted, self.leads = term, None, False
        if term < self.term:
            await self._tell([sender], "newer")  # whoever sent it steps down
            return
        if kind == "candidate":
            if self.voted in (None, sender) or (self.votes_twice and not self.leads):
                self.voted = sender
                await self._tell([sender], "vote")
        elif kind == "vote" and term == self._stands:
            self._votes.add(sender)
            if not self.leads and 2 * len(self._votes) > len(self.others) + 1:
                self.leads = True
                self.seen.add((self.term, self.name))
                await self._tell(self.others, "heartbeat")

    async def _tell(self, names: Sequence[str], kind: str) -> None:
        data = json.dumps({"kind": kind, "term": self.term, "sender": self.name}).encode()
        for name in names:
            await self._socket.sendto(data, name, PORT)


def cluster(size: int, *, votes_twice: bool = False, forgets: bool = False) -> list[Node]:
    """Return so many members that know each other."""
    names = [f"n{number}" for number in range(size)]
    return [
        Node(name, [each for each in names if each != name], votes_twice, forgets) for name in names
    ]


def one_leader_a_term(nodes: Sequence[Node]) -> bool:
    """Return whether no term has had two leaders: what Raft promises."""
    terms = [term for node in nodes for term, _ in node.seen]
    return len(terms) == len(set(terms))
