"""
The ASGI lifespan protocol, run by the application's owner instead of an HTTP server.

Promise: the application has started up when the block begins, and has shut down when it has been
left, all in one task. An application without support for the protocol is served all the same.
Cost: one waiting task.
"""

from __future__ import annotations

import logging
from traceback import format_exception_only
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal.checkpoints import checkpoint

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

    from mtaio._internal.asgi import ASGIApp, Message

__all__ = ["Lifespan"]

logger: Final = logging.getLogger("mtaio.app")


class Lifespan:
    """
    The start-up and shutdown of an ASGI application, as an ``async with`` block.

    It is entered and left in one task, as a task group is. The application's side of the protocol
    runs in another, in a copy of the context in which the block was entered.

    - An application that ends or raises without having sent ``lifespan.startup.complete`` does not
      support the protocol, and is told nothing more. If it raised after it was told to start up,
      that is a warning in the log.
    - ``lifespan.startup.failed`` raises a ``RuntimeError`` with the application's message; its
      cause is what the application raised next, if anything.
    - Later errors are logged and not raised: ``lifespan.shutdown.failed``, and an application that
      raises while it is served or shuts down.

    Args:
        asgi: The application.

    Attributes:
        state: What the application keeps for its requests, each of which gets a copy. New for each
            block.
        supported: Whether the application takes part, from the beginning of the block.
    """

    __slots__ = ("_asgi", "_group", "_run", "state", "supported")

    def __init__(self, asgi: ASGIApp) -> None:
        self._asgi = asgi
        self._group: TaskGroup | None = None
        self.state: dict[str, Any] = {}
        self.supported = False

    async def __aenter__(self) -> Self:
        """
        Start the application up.

        A checkpoint; cancelled, the application's task has been cancelled too.

        Raises:
            RuntimeError: The application reported that it failed to start up.
        """
        self.state = {}
        self._run = run = _Run(self._asgi, self.state)
        self._group = group = anyio.create_task_group()
        await group.__aenter__()
        try:
            group.start_soon(run.main)
            await run.started.wait()
            if run.failed:
                # It may raise the cause, or wait for messages that will not come.
                await run.finished.wait()
        except BaseException:
            await self._end(group)
            raise
        self.supported = run.complete
        if not run.complete:
            await self._end(group)
        if run.failed:
            message = run.message or "it did not say why."
            if run.error is not None and message.startswith("Traceback"):  # which is chained
                message = "".join(format_exception_only(run.error)).strip()
            msg = f"the application failed to start up: {message}"
            raise RuntimeError(msg) from run.error
        if run.error is not None and run.asked and not run.complete:
            logger.warning(
                "The application raised during startup. It is served anyway, without a shutdown "
                "event. To stop the server instead, send lifespan.startup.failed.",
                exc_info=run.error,
            )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Have the application shut down, and wait until it has ended.

        A checkpoint; cancelled, the application's task has been cancelled too.
        """
        group, run = self._group, self._run
        if group is None:
            await checkpoint()
            return
        try:
            run.shutdown.set()
            await run.finished.wait()
        finally:
            await self._end(group)
        if run.failed:
            logger.error(
                "The application failed to shut down: %s", run.message or "it did not say why."
            )

    async def _end(self, group: TaskGroup) -> None:
        """End the application's task."""
        self._group = None
        self._run.scope.cancel()
        await group.__aexit__(None, None, None)


class _Run:
    """
    One start and end of an application.

    Attributes:
        scope: Where it runs, and is cancelled.
        started: Set when the application has answered the start, or will not.
        shutdown: Set when it is to shut down.
        finished: Set when it has ended, or asks for more than there is.
        asked: Whether it has been told to start up.
        complete: Whether it has started up.
        failed: Whether it said that it failed, to start up or to shut down.
        message: What it said then.
        error: What it raised.
    """

    __slots__ = (
        "_asgi",
        "_state",
        "_told",
        "asked",
        "complete",
        "error",
        "failed",
        "finished",
        "message",
        "scope",
        "shutdown",
        "started",
    )

    def __init__(self, asgi: ASGIApp, state: dict[str, Any]) -> None:
        self._asgi = asgi
        self._state = state
        self._told = False
        # What cancels the block from outside comes to the application as its shutdown, and as a
        # cancellation only where the block cannot wait for that.
        self.scope = anyio.CancelScope(shield=True)
        self.started = anyio.Event()
        self.shutdown = anyio.Event()
        self.finished = anyio.Event()
        self.asked = False
        self.complete = False
        self.failed = False
        self.message = ""
        self.error: Exception | None = None

    async def main(self) -> None:
        """Call the application."""
        scope: Message = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            with self.scope:
                await self._asgi(scope, self._receive, self._send)
        except Exception as error:
            self.error = error
            if self.complete and not self.failed:
                logger.exception("The application's lifespan raised.")
        finally:
            self.started.set()
            self.finished.set()

    async def _receive(self) -> Message:
        if not self.asked:
            self.asked = True
            return {"type": "lifespan.startup"}
        if self.complete and not self._told:
            await self.shutdown.wait()
            self._told = True
            return {"type": "lifespan.shutdown"}
        self.finished.set()
        while True:
            await anyio.sleep_forever()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self.complete = True
        elif kind in {"lifespan.startup.failed", "lifespan.shutdown.failed"}:
            self.failed = True
            self.message = message.get("message", "")
        elif kind != "lifespan.shutdown.complete":
            msg = (
                f"a lifespan has no message of type {kind!r}. Send lifespan.startup.complete, "
                f"lifespan.shutdown.complete, or .failed in place of .complete."
            )
            raise ValueError(msg)
        self.started.set()
