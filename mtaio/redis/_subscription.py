"""
A subscription that is checked all the time.

Promise: `on_subscribed` is called whenever the subscription comes into force, and `on_lost` when it
no longer delivers even what it sends to itself. A connection that glide restored in silence, or
that only seems to be alive, is found within `check_interval` seconds and the store's timeout.

glide restores the subscriptions of a lost connection without telling anyone. So each check asks the
server which connection this is, and sends a message through a channel of the subscription's own.
Nothing else is asked through that connection: just after it has reconnected, glide 2.6 takes the
confirmation of a subscription for the answer to a command.
"""

from __future__ import annotations

import math
import re
from logging import getLogger
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

import anyio

from mtaio._internal import clock, loops
from mtaio.exceptions import StoreError
from mtaio.redis._outage import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from mtaio.redis._link import Endpoint, Link
    from mtaio.redis._store import Store

__all__ = ["Subscription"]

_PATIENCE: Final = 4.0
"""Seconds that glide is given to restore a subscription before a new one is opened."""

_CLIENT: Final = re.compile(rb"id=(\d+) addr=(\S+) .*\bage=(\d+) ")


class _OddAnswerError(Exception):
    """glide took another message from the server for the answer."""


class _Seen(NamedTuple):
    """What the server says about a connection."""

    number: bytes
    address: bytes
    age: int

    @classmethod
    def parse(cls, answer: object) -> Self:
        """Return what the answer to CLIENT INFO says."""
        found = _CLIENT.match(answer) if isinstance(answer, bytes) else None
        if found is None:
            raise _OddAnswerError
        return cls(found[1], found[2], int(found[3]))

    def follows(self, before: _Seen) -> bool:
        """Return whether this is still the connection that was seen before."""
        # Numbers start again with the server, and Unix sockets have no ports.
        return self[:2] == before[:2] and self.age >= before.age


class Subscription:
    """
    The subscription of one block.

    Args:
        store: Through which it sends messages to itself.
        endpoint: Where to connect.
        on_message: As for `Store.subscribe`.
        on_subscribed: As for `Store.subscribe`.
        on_lost: As for `Store.subscribe`.
        check_interval: As for `Store.subscribe`.
    """

    def __init__(
        self,
        store: Store,
        endpoint: Endpoint,
        on_message: Callable[[str, bytes], object],
        on_subscribed: Callable[[], object],
        on_lost: Callable[[], object] | None,
        *,
        check_interval: float,
    ) -> None:
        self._store = store
        self._endpoint = endpoint
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_lost = on_lost
        self._check_interval = check_interval
        self._own = f"mtaio:watch:{uuid4().hex}"
        self._heard = anyio.Event()
        self._sent = b""
        self._connection: _Seen | None = None
        self._in_force = False
        self._failure: object = None
        self._logged = False

    async def run(self, channels: frozenset[str]) -> None:
        """Deliver messages until cancelled."""
        attempt = 0
        while True:
            try:
                link = await self._endpoint.open({*channels, self._own}, attempt=attempt)
            except StoreError:
                self._lose()
                await anyio.sleep(self._check_interval)
            else:
                await self._serve(link)
                self._log()
            attempt += 1

    async def _serve(self, link: Link) -> None:
        """Deliver messages until the subscription has been silent for too long; close the link."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._receive, link)
            try:
                await self._watch_over(link)
            finally:
                await link.close()  # which ends the task as well

    async def _watch_over(self, link: Link) -> None:
        """Look again and again, until the subscription has been silent for too long."""
        silent_since = clock.now()
        patience = max(_PATIENCE, 2 * self._store.timeout)
        pauses = Backoff(self._check_interval / 10, self._check_interval)
        loop = loops.current_loop()
        while clock.now() - silent_since < patience and not self._endpoint.is_unread(loop):
            start = clock.now()
            if await self._look(link):
                silent_since = math.inf
                pauses.reset()
            elif silent_since == math.inf:
                silent_since = clock.now()
            if self._in_force:
                await anyio.sleep(self._check_interval)
            else:  # a look that had to wait for its end is pause enough
                await anyio.sleep(max(0.0, start + pauses.next() - clock.now()))

    async def _receive(self, link: Link) -> None:
        while (got := await link.message()) is not None:
            channel, message = got
            if channel != self._own:
                self._on_message(channel, message)
            elif message == self._sent:
                self._heard.set()

    async def _look(self, link: Link) -> bool:
        """Return whether the subscription delivers; call the callbacks if that has changed."""
        token = uuid4().hex
        try:
            known = self._connection
            self._connection = seen = _Seen.parse(await link.command("CLIENT", "INFO"))
            self._sent, self._heard = token.encode(), anyio.Event()
            await self._store.publish(self._own, token)
            with anyio.fail_after(self._store.timeout):
                await self._heard.wait()
        except (StoreError, TimeoutError, _OddAnswerError) as error:
            self._failure = str(error) or "it does not receive what it sends to itself"
            self._lose()
            return False
        self._logged = False
        if not self._in_force or known is None or not seen.follows(known):
            self._in_force = True
            self._on_subscribed()
        return True

    def _log(self) -> None:
        """Say once why the subscription is not in force: a user may lack a permission."""
        if not (self._in_force or self._logged):
            self._logged = True
            getLogger("mtaio.redis").warning(
                "%s: a subscription has received nothing for some seconds, and keeps trying: %s",
                self._store.name,
                self._failure,
            )

    def _lose(self) -> None:
        if self._in_force:
            self._in_force = False
            if self._on_lost is not None:
                self._on_lost()
