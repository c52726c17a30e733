"""A response that sends the items of a stream, asked as an ASGI server would."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio import Pipeline, Timeout
from mtaio.clients import StreamedResponse
from mtaio.testing import explore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mtaio.testing import Victim

pytestmark = pytest.mark.anyio

api = Pipeline(Timeout(5))


class Source:
    """A stream of the words, a second apart, that knows whether it is open."""

    def __init__(self, *words: object, fails: bool = False) -> None:
        self.words = words
        self.fails = fails
        self.is_open = False

    async def stream(self) -> AsyncIterator[Any]:
        """Yield them."""
        self.is_open = True
        try:
            for word in self.words:
                await anyio.sleep(1)
                yield word
            if self.fails:
                raise ConnectionError
        finally:
            self.is_open = False


class Client:
    """Who asks: what it got, and whether it leaves after some seconds."""

    def __init__(self, *, leaves: float = 100) -> None:
        self.got: list[Any] = []
        self.leaves = leaves
        self.asks = 0

    async def receive(self) -> dict[str, Any]:
        """Return the request, and later that it has gone."""
        self.asks += 1
        if self.asks == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await anyio.sleep(self.leaves)
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """Take a message."""
        await checkpoint()
        what = message["type"].removeprefix("http.response.")
        self.got.append(message["status"] if what == "start" else message["body"])


async def ask(client: Client, response: StreamedResponse) -> list[Any]:
    """Let the client have the response, and return what it got."""
    await response({"type": "http"}, client.receive, client.send)
    return client.got


async def test_items_are_sent_as_they_come() -> None:
    """The status comes with the first, and an empty body last; text is UTF-8."""
    source = Source("ä", b"b")
    response = StreamedResponse(api.stream(source.stream), status_code=201, headers={"x-a": "1"})
    assert (b"x-a", b"1") in response.raw_headers
    assert await ask(Client(), response) == [201, "ä".encode(), b"b", b""]
    assert anyio.current_time() == 2


async def test_empty_stream_is_an_empty_response() -> None:
    """There is a status although there is no item."""
    assert await ask(Client(), StreamedResponse(api.stream(Source().stream))) == [200, b""]


async def test_items_are_encoded_as_the_caller_says() -> None:
    """An item may be anything; without a function it has to be text or bytes."""
    source = Source(1, 2)
    response = StreamedResponse(api.stream(source.stream), encode=lambda item: b"%d" % item)
    assert await ask(Client(), response) == [200, b"1", b"2", b""]
    client = Client()
    with pytest.raises(TypeError, match=r"yielded 1, which is an int .* Pass encode=") as caught:
        await ask(client, StreamedResponse(api.stream(source.stream)))
    assert not isinstance(caught.value, ExceptionGroup)
    assert client.got == []
    assert not source.is_open


async def test_error_before_the_first_item_is_bare_and_no_response_has_begun() -> None:
    """So whoever calls the response can still answer."""
    client = Client()
    with pytest.raises(ConnectionError):
        await ask(client, StreamedResponse(api.stream(Source(fails=True).stream)))
    assert client.got == []


async def test_error_after_it_leaves_the_response_unfinished() -> None:
    """There is no last message."""
    client = Client()
    with pytest.raises(ConnectionError):
        await ask(client, StreamedResponse(api.stream(Source("a", fails=True).stream)))
    assert client.got == [200, b"a"]


@pytest.mark.parametrize("leaves", [0.5, 1.5])
async def test_client_that_leaves_closes_the_stream(leaves: float) -> None:
    """At once, before the first item or after it, and without an error."""
    source = Source("a", "b")
    client = Client(leaves=leaves)
    await ask(client, StreamedResponse(api.stream(source.stream)))
    assert anyio.current_time() == leaves
    assert client.got == [200, b"a"][: 2 * int(leaves)]
    assert not source.is_open


def test_what_is_no_stream_is_refused() -> None:
    """A generator would not be closed, and is refused, as is an encode that cannot be called."""
    with pytest.raises(TypeError, match=r"stream=<async_generator .*not a block that yields"):
        StreamedResponse(Source("a").stream())  # type: ignore[arg-type] # on purpose
    wrong: Any = 1
    with pytest.raises(TypeError, match=r"encode=1"):
        StreamedResponse(api.stream(Source("a").stream), encode=wrong)


def test_without_starlette_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this class needs it."""
    monkeypatch.delitem(sys.modules, "mtaio.clients._streamed")
    monkeypatch.setitem(sys.modules, "starlette.responses", None)
    monkeypatch.delitem(sys.modules["mtaio.clients"].__dict__, "StreamedResponse", raising=False)
    with pytest.raises(ImportError, match="pip install starlette"):
        _ = sys.modules["mtaio.clients"].StreamedResponse


@explore(seeds=10, exhaustive=None, inject=("checkpoint",))
async def test_cancelled_anywhere(victim: Victim) -> None:
    """Whenever the response is cancelled, its stream is closed."""
    source = Source("a", "b")
    client = Client(leaves=1.5)
    await victim(ask, client, StreamedResponse(api.stream(source.stream)))
    assert not source.is_open
