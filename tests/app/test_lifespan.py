"""The ASGI lifespan protocol, run by its owner."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from starlette.applications import Starlette

from mtaio.app import Application
from mtaio.app._lifespan import Lifespan
from mtaio.config import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def starlette(log: list[str], *, fail: str = "") -> Starlette:
    """Return an application that notes what it does, and fails where it is told to."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        log.append("up")
        if fail == "up":
            msg = "no database"
            raise LookupError(msg)
        yield {"pool": log}
        if fail == "down":
            msg = "no network"
            raise LookupError(msg)
        await anyio.sleep(1)
        log.append("down")

    return Starlette(lifespan=lifespan)


async def test_starlette() -> None:
    """The application is up inside the block, has shut down after it, and leaves its state."""
    log: list[str] = []
    lifespan = Lifespan(starlette(log))
    for _ in range(2):
        log.clear()
        async with lifespan as entered:
            assert entered is lifespan
            assert lifespan.supported
            assert lifespan.state == {"pool": log}
            assert log == ["up"]
        assert log == ["up", "down"]
    assert anyio.current_time() == 2


async def test_start_up_fails() -> None:
    """The message has what it raised, which is the cause, and not once more its traceback."""
    with pytest.raises(
        RuntimeError, match=r"^the application failed to start up: LookupError: no database$"
    ) as e:
        await Lifespan(starlette([], fail="up")).__aenter__()
    assert repr(e.value.__cause__) == "LookupError('no database')"


async def test_shutdown_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A shutdown that fails is reported once, and ends as any other."""
    async with Lifespan(starlette([], fail="down")):
        pass
    (record,) = caplog.records
    assert record.name == "mtaio.app"
    assert record.message.startswith("The application failed to shut down: Traceback")


async def ignorant(scope: Any, *_: Any) -> None:
    """Know nothing of lifespans."""
    assert scope["type"] == "http"


async def absent(scope: Any, receive: Any, send: Any) -> None:
    """Return at once."""


async def raises(_: Any, receive: Any, __: Any) -> None:
    """Raise when told to start up."""
    await receive()
    msg = "no database"
    raise LookupError(msg)


async def grouped(scope: Any, receive: Any, send: Any) -> None:
    """Raise in a task group."""
    async with anyio.create_task_group() as group:
        group.start_soon(raises, scope, receive, send)


@pytest.mark.parametrize(
    ("app", "logged"),
    [(ignorant, 0), (absent, 0), (raises, 1), (grouped, 1)],
    ids=lambda each: str(each)[10:15],
)
async def test_not_supported(
    app: Callable[..., Any], logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    """An application without a lifespan is served; that one raised when told to start is said."""
    async with Lifespan(app) as lifespan:
        assert not lifespan.supported
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * logged


async def test_start_up_cancelled() -> None:
    """An application that never answers is cancelled with the start that waits for it."""
    ends: list[str] = []

    async def never(*_: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ends.append("cancelled")

    with anyio.move_on_after(3) as scope:
        await Lifespan(never).__aenter__()
    assert scope.cancelled_caught
    assert ends == ["cancelled"]
    assert anyio.current_time() == 3


async def test_shutdown_cancelled() -> None:
    """A shutdown that takes too long is cancelled with the block."""
    log: list[str] = []
    with anyio.CancelScope() as scope:
        async with Lifespan(starlette(log)):
            scope.cancel()
            scope.deadline = anyio.current_time()
    assert scope.cancelled_caught
    assert log == ["up"]


async def test_block_cancelled() -> None:
    """While a cancelled block still ends its work, the application is not cancelled under it."""
    app = Told(COMPLETE)
    with anyio.CancelScope() as scope:
        async with Lifespan(app):
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            assert not app.ended
    assert app.ended
    assert app.heard == ["lifespan.startup"]


async def test_body_raises() -> None:
    """What the block raises travels untouched, and the application shuts down."""
    log: list[str] = []
    with pytest.raises(KeyError, match=r"^'x'$"):
        async with Lifespan(starlette(log)):
            raise KeyError("x")
    assert log == ["up", "down"]


class Told:
    """An application that does as it is told, message by message."""

    def __init__(self, *answers: dict[str, Any], then: Exception | None = None) -> None:
        self.answers = answers
        self.then = then
        self.heard: list[str] = []
        self.ended = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer each message, and ask for one more."""
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
        try:
            for answer in self.answers:
                self.heard.append((await receive())["type"])
                await send(answer)
            if self.then is not None:
                raise self.then
            await receive()
        finally:
            self.ended = True


COMPLETE = {"type": "lifespan.startup.complete"}


async def test_asks_for_more() -> None:
    """An application that loops over messages for ever ends with the block."""
    app = Told(COMPLETE, {"type": "lifespan.shutdown.complete"})
    async with Lifespan(app):
        pass
    assert app.heard == ["lifespan.startup", "lifespan.shutdown"]
    assert app.ended


async def test_failed_without_a_word() -> None:
    """A failed start needs no message, and the application may wait for ever after it."""
    app = Told({"type": "lifespan.startup.failed"})
    with pytest.raises(
        RuntimeError, match=r"^the application failed to start up: it did not say why"
    ):
        await Lifespan(app).__aenter__()
    assert app.ended


async def test_raises_while_serving(caplog: pytest.LogCaptureFixture) -> None:
    """An application whose lifespan raises while it is served is reported at that moment."""
    async with Lifespan(Told(COMPLETE, then=LookupError("gone"))) as lifespan:
        assert lifespan.supported
        await anyio.sleep(1)
        assert [record.message for record in caplog.records] == [
            "The application's lifespan raised."
        ]


async def test_unknown_message() -> None:
    """A message that the protocol does not have is the application's error."""
    app = Told({"type": "lifespan.startup"})
    async with Lifespan(app) as lifespan:
        assert not lifespan.supported
    assert app.ended


async def test_application_as_lifespan() -> None:
    """A server's lifespan enters the application, again and again; its own is left to it."""
    states: list[str] = []
    service = Application(Settings(health_bind="127.0.0.1:0"), name="s", probes=False)

    @service.resource
    async def resource() -> AsyncIterator[int]:
        states.append("opened")
        yield 1
        states.append("closed")

    async with Lifespan(Starlette(lifespan=service.lifespan)):
        states.append(service.state)
    async with Lifespan(Starlette(lifespan=service.lifespan)) as lifespan:
        assert lifespan.state == {}
    assert states == ["opened", "running", "closed", "opened", "closed"]
    service.serve(Starlette(lifespan=service.lifespan), bind="127.0.0.1:0")
    async with service:
        states.append(service.state)
        assert "request_metrics.server.in_flight" in service.monitor.metric_names()
    assert states[5:] == ["opened", "running", "closed"]
    assert "request_metrics.server.in_flight" not in service.monitor.metric_names()


async def test_application_in_the_lifespan_of_another() -> None:
    """It is refused with the way out: two would want the same probes, signals and log."""
    settings = Settings(health_bind="127.0.0.1:0")
    outer, inner = (Application(settings, logging=False, signals=False) for _ in range(2))
    outer.serve(Starlette(lifespan=inner.lifespan), bind="127.0.0.1:0")
    with pytest.raises(RuntimeError, match=r"RuntimeError: <Application new> cannot start in the "):
        async with outer:
            pass
    async with inner:
        assert inner.state == "running"
