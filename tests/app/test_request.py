"""One request on its way through an application, with the server's side played by the test."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.app._request import Request, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable

GET: dict[str, Any] = {"type": "http", "http_version": "1.1", "method": "GET", "headers": []}
POST = {**GET, "method": "POST", "headers": [(b"host", b"a"), (b"transfer-encoding", b"chunked")]}
WEBSOCKET: dict[str, Any] = {"type": "websocket", "http_version": "1.1", "headers": []}


def never(error: Exception) -> None:
    """Be told of an error that there must not be."""
    raise AssertionError(error)


class Side:
    """The server's side: a body of some pieces, and what was sent."""

    def __init__(self, pieces: int = 0) -> None:
        self.pieces = pieces
        self.sent: list[Any] = []
        self.closed = False
        self.stuck = False

    async def receive(self) -> Any:
        """Return the next piece of the body."""
        if self.pieces == 0:
            await anyio.sleep_forever()
        self.pieces -= 1
        return {"type": "http.request", "body": b"x", "more_body": self.pieces > 0}

    async def send(self, message: Any) -> None:
        """Keep what is sent; the end of a response waits for the end of the body."""
        if message["type"] == "http.response.body" and not message["more_body"]:
            while self.pieces or self.stuck:  # noqa: ASYNC110 - as a server that has no event
                await anyio.sleep(1)
        if self.closed:
            msg = "closed"
            raise LookupError(msg)
        self.sent.append(message)

    def request(self, scope: Any, *, whole: bool = False) -> Request:
        """Return a request."""
        return Request(
            scope, self.receive, self.send, closing=lambda: False, whole=whole, bare=not whole
        )


async def answer(_: Any, __: Any, send: Any) -> None:
    """Answer with a header and a body."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"a", "more_body": False})


@pytest.mark.parametrize("whole", [False, True])
async def test_scopes_are_for_what_waits(whole: bool) -> None:  # noqa: FBT001 - a parameter
    """What is sent without waiting enters no cancel scope, unless it has to be shielded."""
    made: list[dict[str, bool]] = []
    keeps_up = anyio.Event()

    def new_scope(**options: bool) -> anyio.CancelScope:
        made.append(options)
        return anyio.CancelScope(**options)

    async def send(message: Any) -> None:
        if message.get("body") == b"slow":
            await keeps_up.wait()

    async def asgi(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"slow", "more_body": True})
        await send({"type": "http.response.body", "body": b"fast", "more_body": False})

    request = Request(
        GET,
        Side().receive,
        send,
        closing=lambda: False,
        whole=whole,
        bare=not whole,
        new_scope=new_scope,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(request.run, asgi, never)
        await anyio.sleep(1)
        keeps_up.set()
    assert made == [{}, *([{"shield": True}] * 3 if whole else [{"shield": False}])]


async def test_abandoned_while_it_sends_nothing() -> None:
    """There is nothing to give up, and what it sends later is refused by the server."""
    request = Side().request(GET)
    request.abandon()
    assert not request.sending


@pytest.mark.parametrize("scope", [POST, {**POST, "http_version": "2", "headers": []}])
async def test_body_is_taken(scope: Any) -> None:
    """The rest of a body is taken in while the end of the response is sent."""
    side = Side(pieces=20)
    await side.request(scope).run(answer, never)
    assert side.pieces == 0
    assert [each["type"] for each in side.sent] == ["http.response.start", "http.response.body"]


async def test_body_that_is_late() -> None:
    """Each piece has its time; then the client gets 408, and nothing of the application's."""
    side = Side(pieces=2)
    heard: list[str] = []

    async def receive() -> Any:
        if side.pieces == 1:
            side.pieces = 0  # for send(), which waits for the end of the body
            await anyio.sleep_forever()
        await anyio.sleep(9)
        return await Side.receive(side)

    async def asgi(_: Any, receive: Any, send: Any) -> None:
        heard.extend([(await receive())["type"] for _ in range(3)])
        await answer(None, None, send)
        with pytest.raises(ConnectionResetError):
            await send({"type": "http.response.body", "body": b"a", "more_body": True})

    request = Request(
        POST, receive, side.send, closing=lambda: False, whole=False, bare=True, body_timeout=10
    )
    start = anyio.current_time()
    await request.run(asgi, never)
    assert heard == ["http.request", "http.disconnect", "http.disconnect"]
    assert [each["type"] for each in side.sent] == ["http.response.start", "http.response.body"]
    assert (side.sent[0]["status"], request.late) == (408, True)
    assert anyio.current_time() - start == pytest.approx(19.1)


async def test_body_is_left() -> None:
    """A request that has no body, by its headers, has nothing taken in."""
    for headers in ([], [(b"content-length", b"0")]):
        side = Side(pieces=0)
        await side.request({**GET, "headers": headers}).run(answer, never)
        assert len(side.sent) == 2


async def test_sending_fails() -> None:
    """What the server raises reaches the application as it is, also while a body is taken in."""
    for scope, pieces in ((GET, 0), (POST, 3)):
        side = Side(pieces)
        errors: list[Exception] = []

        async def app(_: Any, __: Any, send: Any, side: Side = side) -> None:
            await send({"type": "http.response.start", "status": 200})
            side.closed = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        with pytest.raises(LookupError, match=r"^closed$"):
            await side.request(scope).run(app, errors.append)
        assert [str(each) for each in errors] == ["closed"]


async def test_stuck() -> None:
    """What is sent as a whole is not cancelled with the request, but abandoned."""
    side = Side()
    side.stuck = True
    request = side.request(GET, whole=True)
    async with anyio.create_task_group() as group:
        group.start_soon(request.run, answer, never)
        await anyio.sleep(1.5)
        request.cancel()
        await anyio.sleep(1)
        assert request.sending
        request.abandon()
    assert not request.sending
    assert anyio.current_time() == 2.5


@pytest.mark.parametrize("whole", [False, True])
async def test_error_beside_a_cancellation(*, whole: bool) -> None:
    """An error that a handler raises when it is cancelled is reported, and its client answered."""
    side = Side()
    errors: list[Exception] = []

    async def fails() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            msg = "clean-up"
            raise LookupError(msg)

    async def app(*_: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fails)
            await anyio.sleep_forever()

    request = side.request(GET, whole=whole)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(caught, request, app, errors))
        await anyio.sleep(1)
        request.cancel()
    assert len(errors) == 1
    assert side.sent[0]["status"] == 500


async def caught(request: Request, app: Callable[..., Any], errors: list[Exception]) -> None:
    """Run a request, whose error is for the server to log."""
    with pytest.raises(ExceptionGroup):
        await request.run(app, errors.append)


async def test_websocket() -> None:
    """A websocket's messages pass; one that its handler has closed is not closed again."""
    side = Side()

    async def app(_: Any, __: Any, send: Any) -> None:
        for kind in ("websocket.accept", "websocket.send", "websocket.close"):
            await send({"type": kind})

    await side.request(WEBSOCKET).run(app, never)
    assert len(side.sent) == 3


async def test_other_messages() -> None:
    """What else HTTP may have goes through as it is."""
    side = Side()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        await answer(scope, receive, send)
        await send({"type": "http.response.trailers", "headers": []})

    await side.request(GET).run(app, never)
    assert len(side.sent) == 4


def test_unwrapped() -> None:
    """Groups of one error stand for it, and others for themselves."""
    error, other = LookupError("a"), LookupError("b")
    assert unwrapped(error) is error
    assert unwrapped(ExceptionGroup("", [ExceptionGroup("", [error])])) is error
    group = ExceptionGroup("", [error, other])
    assert unwrapped(ExceptionGroup("", [group])) is group


async def test_error_that_is_reported() -> None:
    """An error that was reported is not hypercorn's to log: it is answered, and that is all."""
    side = Side()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise LookupError

    await side.request(GET).run(app, lambda _: True)
    assert side.sent[0]["status"] == 500


async def test_sys_exit() -> None:
    """A request cannot end the service: it is answered with 500, as after an error."""

    async def app(*_: object) -> None:
        raise SystemExit(3)

    side, errors = Side(), list[Exception]()
    with pytest.raises(RuntimeError, match=r"^sys\.exit\(3\) was called in a request"):
        await side.request(GET).run(app, errors.append)
    assert len(errors) == 1
    assert side.sent[0]["status"] == 500


async def test_client_that_left() -> None:
    """What a framework raises where it reads from a client that has left is nobody's error."""

    class ClientDisconnect(Exception):  # noqa: N818 - named by Starlette
        pass

    async def asgi(_: Any, receive: Any, __: Any) -> None:
        await receive()
        raise ClientDisconnect

    async def leave() -> Any:
        return {"type": "http.disconnect"}

    async def stay() -> Any:
        return {"type": "http.request"}

    options: dict[str, Any] = {"closing": lambda: False, "whole": False, "bare": True}
    side = Side()
    await Request(GET, leave, side.send, **options).run(asgi, never)
    assert side.sent == []
    with pytest.raises(ClientDisconnect):
        await Request(GET, stay, side.send, **options).run(asgi, lambda _: None)
