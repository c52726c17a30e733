"""
One request, or one websocket, on its way through an ASGI application.

Promise: `Request.cancel` ends it at any stage. A client that has heard nothing gets a 503, a
websocket a closing message, and a response that has begun breaks off, which HTTP shows the client.
Every response that begins while the server closes says ``Connection: close``.

Why the rest of a request's body is read: hypercorn keeps ten pieces of it for the application, and
holds up everything else, the end of the response included, until there is room for one more.
"""

from __future__ import annotations

import math
from errno import ECONNRESET
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from mtaio._internal import clock
from mtaio._internal.cancellation import without_cancellation
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.steps import begin

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio._internal.access_log import Entry
    from mtaio._internal.asgi import ASGIApp, Message, Receive, Send

__all__ = ["Request", "unwrapped"]

_TIMED_OUT: Final = 408
_FAILED: Final = 500
_UNAVAILABLE: Final = 503
_GOING_AWAY: Final = 1001
_NOTICE: Final = 0.1
"""Seconds for an application to see that the client has gone, before sending is an error."""

_CLOSE: Final = (b"connection", b"close")

_LEFT: Final = frozenset({"ClientDisconnect", "WebSocketDisconnect"})
"""What Starlette and Litestar raise where they read from a client that has left."""


class Request:
    """
    One request.

    Args:
        scope: What the server says of it.
        receive: The server's.
        send: The server's.
        closing: Returns whether the connection is to end with this response.
        whole: Whether to shield what is being sent from cancellation. On trio hypercorn does so
            with most of it, and raises later where it was cancelled before that.
        bare: Whether the server's ``send`` enters no cancel scope of AnyIO's; not with ``whole``.
        body_timeout: Seconds that the next piece of the body may take.
        entry: Where it is logged; None for nowhere.
        new_scope: Makes its cancel scopes. The event loop's own class costs half as much as to have
            AnyIO find out which that is.

    Attributes:
        client: The address that its connection comes from, as a socket has it; None if it has none.
        finished: Whether the last of the response has been handed to the server.
        late: Whether its body did not come in time. Then it counts as left by its client.
        left: Whether the application was told that its client has left.
        sending: Whether it waits for the client to take what was sent.
    """

    __slots__ = (
        "_bare",
        "_body_timeout",
        "_cancel_scope",
        "_closing",
        "_entry",
        "_gone",
        "_new_scope",
        "_receive",
        "_send",
        "_shield",
        "_started",
        "_unread",
        "_whole",
        "client",
        "finished",
        "late",
        "left",
        "scope",
        "sending",
    )

    def __init__(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
        *,
        closing: Callable[[], bool],
        whole: bool,
        bare: bool,
        body_timeout: float = math.inf,
        entry: Entry | None = None,
        new_scope: Callable[..., anyio.CancelScope] = anyio.CancelScope,
    ) -> None:
        self.scope: Final = scope
        self.client: object = scope.get("client")
        self._receive = receive
        self._send = send
        self._closing = closing
        self._whole = whole
        self._bare = bare
        self._body_timeout = body_timeout
        self._entry = entry
        self._new_scope = new_scope
        self._cancel_scope = new_scope()
        self._shield: anyio.CancelScope | None = None
        self._started = False
        self.finished = False
        self.late = self.left = False
        self._unread = _has_body(scope)
        self._gone: ConnectionResetError | None = None
        self.sending = False

    def cancel(self) -> None:
        """Cancel it; from the loop's thread."""
        self._cancel_scope.cancel()

    def abandon(self) -> None:
        """Cancel what it sends, too: nothing more can be sent on its connection."""
        if self._shield is not None:
            self._shield.cancel()

    async def run(self, asgi: ASGIApp, on_error: Callable[[Exception], object]) -> None:
        """
        Have ``asgi`` answer it, and answer in its place where it did not.

        Args:
            asgi: The application.
            on_error: Called with what ``asgi`` raised, which is raised then, for hypercorn to log,
                unless this returns something true.
        """
        reported: object = False
        try:
            with self._cancel_scope:
                try:
                    await self._call(asgi)
                except BaseException as error:
                    failure = without_cancellation(error)
                    if isinstance(failure, Exception):
                        if self._is_about_gone(failure):
                            return
                        reported = on_error(failure)
                        await self._give_up()
                    raise
                await self._give_up()
        except Exception:
            await self._answer(_FAILED)
            if not reported:
                raise
            return
        was_cancelled = self._cancel_scope.cancelled_caught
        if was_cancelled and self._entry is not None:
            self._entry.fail(None)
        await self._answer(_UNAVAILABLE if was_cancelled else _FAILED)

    async def _call(self, asgi: ASGIApp) -> None:
        try:
            await asgi(self.scope, self.receive, self.send)
        except SystemExit as error:  # asyncio would leave the loop with it, there and then
            msg = (
                f"sys.exit({error.code!r}) was called in a request, which does not end the "
                f"service. Call app.stop_nowait() for that."
            )
            raise RuntimeError(msg) from error

    async def refuse(self, *headers: tuple[bytes, bytes]) -> None:
        """
        Answer it with 503.

        Args:
            headers: What the client is told with it. The connection is then kept if there is no
                body to come, for the client is to ask again.
        """
        await self._answer(_UNAVAILABLE, *headers)

    async def receive(self) -> Message:
        """Return what comes next from the client; if that takes too long, that it has gone."""
        if self.late:
            await checkpoint()
            return {"type": "http.disconnect"}
        message: Message
        if self._unread and self._body_timeout < math.inf:
            message = await self._next_piece()
        else:
            message = await self._receive()
        kind = message["type"]
        if kind != "http.request" or not message.get("more_body", False):
            self._unread = False
            if kind.endswith(".disconnect"):
                self.left = True
                if self._entry is not None:
                    self._entry.answer.gone = kind == "http.disconnect"
        return message

    async def _next_piece(self) -> Message:
        """Return the next piece of the body; if that takes too long, answer and give it up."""
        with self._new_scope(deadline=clock.loop_deadline(clock.now() + self._body_timeout)):
            return await self._receive()
        # From here on nothing that the application sends reaches the client. A response that has
        # begun breaks off, which the client sees.
        self.late, self._unread = True, False
        await self._answer(_TIMED_OUT)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """
        Send to the client what the application sends.

        Raises:
            ConnectionResetError: The client has gone, and this is a piece of a longer whole. What
                begins or ends a response is dropped then, as most servers do it.
        """
        if self.late and not message.get("more_body", False):
            await checkpoint()
            return
        if message["type"] == "websocket.send" or message.get("more_body", False):
            await checkpoint()  # what is gone takes all at once, and the loop would stand still
            if self._is_gone():
                await anyio.sleep(_NOTICE)
                self._gone = ConnectionResetError(ECONNRESET, "the client has gone")
                raise self._gone
        await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        """Send something to the client, whoever says it."""
        message = self._noted(message["type"], message)
        taking = self.finished and self._unread
        sending: Any = self._send_and_take(message) if taking else self._send(message)
        if self._bare and not taking:
            # It suspends only if the client does not keep up. What waits for that may have to be
            # cancelled, and pays for a scope; what does not suspend cannot be.
            sending = begin(sending)
        if sending is not None:
            self.sending = True
            try:
                with self._new_scope(shield=self._whole) as self._shield:
                    await sending
            finally:
                self.sending = False
        if self._entry is not None and self._entry.answered:
            self._entry.end()

    def _noted(self, kind: str, message: Message) -> Message:
        """Note how far the response is, and return what is to be sent of it."""
        if self._entry is not None:
            message = self._entry.note(message)
        if kind == "http.response.start":
            self._started = True
            if self._closing() and self._is_http_1():
                kept = [each for each in message.get("headers", ()) if each[0].lower() != _CLOSE[0]]
                return {**message, "headers": [*kept, _CLOSE]}
        elif kind == "http.response.body":
            self.finished = not message.get("more_body", False)
        elif kind in {"websocket.accept", "websocket.http.response.start"}:
            self._started = True
        elif kind in {"websocket.close", "websocket.http.response.body"}:
            self._started = True
            self.finished = not message.get("more_body", False)
        return message

    async def _give_up(self) -> None:
        """Take in the body, if the response was broken off and cannot be ended."""
        if self._started and not self.finished:
            await self._take()

    async def _answer(self, status: int, *more: tuple[bytes, bytes]) -> None:
        """Answer with ``status``, if nothing has been answered yet."""
        kind = self.scope["type"]
        if not self._started:
            prefix = "websocket.http.response" if kind == "websocket" else "http.response"
            headers = [(b"content-length", b"0"), *more]
            ends = not more or self._unread or kind == "websocket"
            if ends and self._is_http_1():
                headers.append(_CLOSE)
            start = {"type": f"{prefix}.start", "status": status, "headers": headers}
            await self._pass_on(start)
            await self._pass_on({"type": f"{prefix}.body", "body": b"", "more_body": False})
        elif kind == "websocket" and not self.finished and status == _UNAVAILABLE:
            await self._pass_on({"type": "websocket.close", "code": _GOING_AWAY})

    def _is_gone(self) -> bool:
        """Return whether the client has gone, where hypercorn shows it, or counts as such."""
        return self.late or bool(getattr(getattr(self._send, "__self__", None), "closed", False))

    def _is_about_gone(self, error: Exception) -> bool:
        """Return whether an application raised because it was told that the client has gone."""
        cause: BaseException | None = unwrapped(error)
        if self.left and type(cause).__name__ in _LEFT:
            return True
        while cause is not None and cause is not self._gone:
            cause = cause.__cause__ or cause.__context__
        return cause is not None

    def _is_http_1(self) -> bool:
        """Return whether it has a connection of its own, and headers that are about that."""
        return bool(self.scope["http_version"].startswith("1"))

    async def _send_and_take(self, message: Message) -> None:
        """Send the last of the response, and take in what comes of the body until it is sent."""
        failed: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._take)
            try:
                await self._send(message)
            except Exception as error:  # noqa: BLE001 - raised below, outside of the task group
                failed = error
            group.cancel_scope.cancel()
        if failed is not None:
            raise failed

    async def _take(self) -> None:
        """Take in what is left of the body."""
        while self._unread:
            await self.receive()


def _has_body(scope: Message) -> bool:
    """Return whether a body comes with a request, or may come."""
    if scope["type"] != "http":
        return False
    if not scope["http_version"].startswith("1"):
        return True  # it needs no header
    for name, value in scope["headers"]:  # any() of a generator takes twice as long
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


def unwrapped(error: Exception) -> Exception:
    """Return the one error in groups of one, in which task groups put it."""
    whole: object = error
    if isinstance(whole, ExceptionGroup):
        first, *others = cast("ExceptionGroup[Exception]", whole).exceptions
        if not others:
            return unwrapped(first)
    return error
