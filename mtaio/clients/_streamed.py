"""
A response whose body is a stream of a pipeline: the tokens of a language model, passed on.

Promise: the stream is opened before the response starts, so an error before its first item can
still become a status; it is read and closed in the task that sends the response, also when the
client goes away, the server stops, or sending fails. Errors are not wrapped in groups.
Cost: one task for each response, which waits for the client to leave.

An async generator that reads the stream would not do: frameworks leave it to the garbage
collector when the client has gone, and what it had opened stays open until then (PEP 533).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import anyio

from mtaio._internal import checks

try:
    from starlette.background import BackgroundTask
    from starlette.responses import Response
except ImportError as error:
    msg = "StreamedResponse needs Starlette (or FastAPI). Install it with: pip install starlette"
    raise ImportError(msg) from error

__all__ = ["StreamedResponse"]

T = TypeVar("T")


def _encoded(item: object) -> bytes:
    """Return an item as it is sent unless the caller says otherwise."""
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    msg = (
        f"the stream yielded {item!r}, which is {checks.type_of(item)} and not str or bytes. Pass "
        f"encode=..., a function that returns the bytes to send for an item."
    )
    raise TypeError(msg)


class StreamedResponse(Response):
    """
    A Starlette or FastAPI response that sends the items of a stream as they arrive.

    Use it for what `mtaio.Pipeline.stream` and decorated async generator functions return. The
    status is sent with the first item. If there is none because every attempt failed or was
    refused, the error goes to the app's exception handlers, which may answer with a 503. A later
    failure ends the response before it is complete, which the client can detect. When the client
    disconnects, the stream is closed and what it holds, such as a slot or a connection, is
    released.

    Args:
        stream: A block that yields an async iterable. It is entered once, when the response is
            sent.
        status_code: The status, if there is a first item or the stream is empty.
        headers: Headers of the response.
        media_type: Media type of the response. For ``text/event-stream``, ``encode`` must return
            whole events.
        encode: A function that returns the bytes to send for an item. By default, text is sent as
            UTF-8 and bytes are sent unchanged.

    Raises:
        TypeError: ``stream`` is not such a block, or ``encode`` is not callable.

    Example:
        ```python
        from starlette.requests import Request

        from mtaio import Pipeline, Timeout
        from mtaio.clients import StreamedResponse

        api = Pipeline(Timeout(60, first=2.0, between=1.0))


        @api
        async def tokens(prompt: str):
            for word in prompt.split():
                yield word + " "


        async def answer(request: Request) -> StreamedResponse:
            return StreamedResponse(tokens((await request.body()).decode()))
        ```
    """

    def __init__(
        self,
        stream: AbstractAsyncContextManager[AsyncIterable[T], Any],
        *,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str = "text/plain",
        encode: Callable[[T], bytes] | None = None,
    ) -> None:
        given: Any = stream
        if not hasattr(given, "__aenter__"):
            msg = (
                f"stream={given!r} is {checks.type_of(given)}, not a block that yields items. "
                f"Pass what api.stream(fn, ...) or a generator function under @api returns."
            )
            raise TypeError(msg)
        if encode is not None:
            checks.callable_("encode", encode, way_out="Pass a function from an item to bytes.")
        self.status_code: int = status_code
        self.media_type: str | None = media_type
        self.background: BackgroundTask | None = None
        self.init_headers(headers)
        self._stream = stream
        self._encode: Callable[[Any], bytes] = _encoded if encode is None else encode

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """
        Send the response; called by the ASGI server or framework.

        A checkpoint.
        """
        del scope
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(_wait_until_gone, receive, group.cancel_scope)
            try:
                await self._send(send)
            except Exception as error:  # noqa: BLE001 - raised below, out of the group
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback has this frame

    async def _send(self, send: Any) -> None:
        """Send the items, and the status before the first of them."""
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        is_started = False
        async with self._stream as items:
            async for item in items:
                body = self._encode(item)
                if not is_started:
                    is_started = True
                    await send(start)
                await send({"type": "http.response.body", "body": body, "more_body": True})
        if not is_started:
            await send(start)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _wait_until_gone(receive: Any, scope: anyio.CancelScope) -> None:
    """Cancel the response when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
