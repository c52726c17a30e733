"""A connection through valkey-glide, with a client that answers in each way."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from mtaio._internal import clock
from mtaio.exceptions import StoreError
from mtaio.redis._link import Link
from mtaio.redis._store import Script
from mtaio.testing import settle


class GlideError(Exception):
    """The base of glide's errors."""


class Client:
    """
    Stands for a client of glide's.

    Args:
        *answers: What its calls return or raise, one after another; None for no answer at all.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = [*answers]
        self.asked: list[object] = []
        self.closed = anyio.Event()

    async def custom_command(self, args: list[str | bytes]) -> Any:
        """Run a command."""
        return await self._answer(args)

    async def invoke_script(self, script: object, *, keys: list[str], args: list[str]) -> Any:
        """Run a script."""
        return await self._answer([script, *keys, *args])

    async def get_pubsub_message(self) -> Any:
        """Return a message; without one, wait until this is closed."""
        if self.answers:
            return self.answers.pop(0)
        await self.closed.wait()
        raise GlideError

    async def close(self) -> None:
        """Be closed."""
        self.closed.set()

    async def _answer(self, asked: list[Any]) -> Any:
        self.asked.append(asked)
        answer = self.answers.pop(0)
        if answer is None:
            await anyio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        return answer


def linked(client: Client) -> Link:
    """Return a connection through ``client``."""
    glide: Any = SimpleNamespace(GlideError=GlideError, Script=lambda source: f"glide's {source}")
    return Link(client, glide, "nowhere", 0.5, hint=" Perhaps it is asleep.")


async def test_answers() -> None:
    """Arguments are encoded, glide's object for a script is made once, and answers are returned."""
    hello = SimpleNamespace(channel=b"news", message=b"hello")
    client = Client("OK", b"one", b"two", hello)
    link = linked(client)
    script = Script("source")
    assert await link.command("SET", "a", 1.5) == "OK"
    assert await link.script(script, ("key",), (b"\xff", 7)) == b"one"
    assert await link.script(script, ["key"]) == b"two"
    assert await link.message() == ("news", b"hello")
    await link.close()
    assert client.asked == [
        ["SET", "a", "1.5"],
        ["glide's source", "key", b"\xff", "7"],
        ["glide's source", "key"],
    ]
    assert client.closed.is_set()


async def test_errors() -> None:
    """An error of glide's names the server, on one line; the first of a row of failures is kept."""
    link = linked(Client(GlideError("no\n  connection"), GlideError("again"), "OK"))
    assert link.failing_since == math.inf
    start = clock.now()
    with pytest.raises(StoreError, match=r"^nowhere: no connection$") as caught:
        await link.command("PING")
    assert caught.value.server == "nowhere"
    await anyio.sleep(1)
    with pytest.raises(StoreError, match=r"^nowhere: again$"):
        await link.command("PING")
    assert link.failing_since == start
    await link.command("PING")
    assert link.failing_since == math.inf


async def test_refused() -> None:
    """An error that the server has answered says so; that it could not be reached does not."""
    connect = "Standalone connect failed - IoError: NOAUTH: HELLO"
    refused = ["WRONGTYPE: Operation", "An error was signalled by the server: - PermissionDenied"]
    link = linked(Client(*map(GlideError, [connect, *refused])))
    answers = []
    for _ in range(3):
        with pytest.raises(StoreError) as caught:
            await link.command("PING")
        answers.append(caught.value.refused)
    assert answers == [False, True, True]


async def test_closed_meanwhile() -> None:
    """A call whose connection is closed fails with the reason, which glide does not know."""
    link = linked(Client(GlideError("No error message provided")))
    await link.close("the store was left")
    with pytest.raises(
        StoreError,
        match=r"^nowhere did not answer before the connection was closed: the store was left\.$",
    ):
        await link.command("PING")


async def test_wait_for_a_message_ends_by_closing() -> None:
    """It is not cancelled: glide may still give a message to one that was."""
    client = Client()
    link = linked(client)
    got: list[object] = []

    async def receive() -> None:
        got.append(await link.message())

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await settle()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
            assert got == []
        await link.close()
    assert got == [None]


async def test_what_cannot_be_sent() -> None:
    """It is refused before glide is called, which would leave a future behind."""
    client = Client()
    link = linked(client)
    with pytest.raises(ValueError, match=r"^argument='\\ud800' has half of a surrogate pair"):
        await link.command("GET", "\ud800")
    with pytest.raises(ValueError, match=r"^argument='\\ud800' has half of a surrogate pair"):
        await link.script(Script("source"), ["\ud800"])
    with pytest.raises(TypeError, match=r"^argument=None is a NoneType, not a number"):
        await link.command("GET", None)  # type: ignore[arg-type] # what is tested
    for timeout in (0, -1):
        with pytest.raises(ValueError, match=r"^timeout=.* is not a finite number greater than 0"):
            await link.command("GET", "a", timeout=timeout)
    assert client.asked == []


async def test_no_answer() -> None:
    """A call that glide itself does not end is ended after its timeout, and is a failure."""
    link = linked(Client(None, None, None))
    start = clock.now()
    with pytest.raises(
        StoreError, match=r"^nowhere did not answer within 0\.5 s\. Perhaps it is asleep\.$"
    ) as caught:
        await link.command("PING")
    assert caught.value.server == "nowhere"
    assert clock.now() - start == pytest.approx(0.5)
    assert link.failing_since == pytest.approx(start + 0.5)
    with pytest.raises(StoreError, match=r"^nowhere did not answer within 2 s\. Perhaps"):
        await link.command("BLPOP", "list", 0, timeout=2)
    assert clock.now() - start == pytest.approx(2.5)
    with anyio.move_on_after(1000) as scope:
        await link.command("BLPOP", "list", 0, timeout=math.inf)
    assert scope.cancelled_caught


async def test_glide_gives_up_a_moment_before() -> None:
    """Its own timeout is reported as ours; what may be wrong is not said of one that answered."""
    timed_out = GlideError("Standalone connect failed - IoError: `nowhere:1`: timed out\n")
    link = linked(Client(timed_out, "OK", timed_out))
    with pytest.raises(
        StoreError, match=r"^nowhere did not answer within 0\.5 s\. Perhaps it is asleep\.$"
    ):
        await link.command("PING")
    assert link.failing_since == clock.now()
    await link.command("PING")
    with pytest.raises(StoreError, match=r"^nowhere did not answer within 0\.5 s\.$"):
        await link.command("PING")


async def test_a_server_that_closes_the_connection() -> None:
    """It does not say why, so the likely reasons are named."""
    error = GlideError("connect failed: Multiplexed connection driver unexpectedly terminated")
    with pytest.raises(
        StoreError, match=r"^nowhere: the connection was closed by the server, which may want TLS"
    ):
        await linked(Client(error)).command("PING")
