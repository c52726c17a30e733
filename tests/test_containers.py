"""Containers of dependencies enter and leave our objects: svcs, dishka, FastAPI's Depends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import anyio
import dishka
import httpx
import pytest
import svcs
from fastapi import Depends, FastAPI

from mtaio import Application, EventEmitter, Settings, TaskExecutor, TTLCache

SETTINGS: Final = Settings(health_bind="127.0.0.1:0")

entered: Final[list[object]] = []
left: Final[list[object]] = []


def make_executor() -> TaskExecutor:
    """Return an executor."""
    return TaskExecutor(2)


def make_emitter() -> EventEmitter:
    """Return an emitter."""
    return EventEmitter()


def make_cache() -> TTLCache[Any]:
    """Return a cache."""
    return TTLCache(60)


def make_application() -> Application:
    """Return an application."""
    return Application(SETTINGS, probes=False, logging=False, signals=False)


MAKERS: Final[dict[Any, Callable[[], Any]]] = {
    TaskExecutor: make_executor,
    EventEmitter: make_emitter,
    TTLCache: make_cache,
    Application: make_application,
}

KINDS: Final = pytest.mark.parametrize("kind", MAKERS, ids=lambda kind: str(kind.__name__))


@pytest.fixture(autouse=True)
def _counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count how often each block is entered and left."""
    entered.clear()
    left.clear()
    for kind in MAKERS:
        enter, leave = kind.__aenter__, kind.__aexit__

        async def entering(it: Any, enter: Any = enter) -> Any:
            entered.append(it)
            return await enter(it)

        async def leaving(it: Any, *error: Any, leave: Any = leave) -> Any:
            left.append(it)
            return await leave(it, *error)

        monkeypatch.setattr(kind, "__aenter__", entering)
        monkeypatch.setattr(kind, "__aexit__", leaving)


async def use(it: Any) -> None:
    """Use an object as one can inside its block."""
    if isinstance(it, TaskExecutor):
        await (await it.submit(anyio.sleep, 0.1))
    elif isinstance(it, Application):
        assert it.state == "running"
        await (await it.executor.submit(anyio.sleep, 0.1))
    elif isinstance(it, EventEmitter):
        await it.emit("event")
    else:
        await it.set("key", 1)
        assert await it.get("key") == 1


def check_left(it: Any) -> None:
    """Check that its block was entered once and is left."""
    assert [each for each in entered if each is it] == [it]
    assert [each for each in left if each is it] == [it]


@KINDS
async def test_svcs(kind: Any) -> None:
    """A container of svcs enters what its factories return, and leaves it at its own end."""
    registry = svcs.Registry()
    registry.register_factory(kind, MAKERS[kind])
    async with svcs.Container(registry) as container:
        it = await container.aget(kind)
        assert it is await container.aget(kind)
        await use(it)
    check_left(it)


@KINDS
async def test_dishka(kind: Any) -> None:
    """A container of dishka runs generators, in which the block is."""

    async def provided() -> AsyncIterator[Any]:
        async with MAKERS[kind]() as it:
            yield it

    provider = dishka.Provider(scope=dishka.Scope.APP)
    provider.provide(provided, provides=kind)
    container = dishka.make_async_container(provider, lock_factory=anyio.Lock)
    it = await container.get(kind)
    await use(it)
    await container.close()
    check_left(it)


@KINDS
def test_dishka_reads_constructors(kind: Any) -> None:
    """A constructor's annotations can be evaluated, so dishka can tell what it needs."""
    dishka.Provider(scope=dishka.Scope.APP).provide(kind)


async def depends_executor() -> AsyncIterator[TaskExecutor]:
    """Enter an executor for a request."""
    async with make_executor() as it:
        yield it


async def depends_emitter() -> AsyncIterator[EventEmitter]:
    """Enter an emitter for a request."""
    async with make_emitter() as it:
        yield it


async def depends_cache() -> AsyncIterator[TTLCache[Any]]:
    """Enter a cache for a request."""
    async with make_cache() as it:
        yield it


async def test_depends() -> None:
    """FastAPI enters them for a request and leaves them after it; the application outlives them."""
    application = make_application()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with application:
            yield

    api = FastAPI(lifespan=lifespan)

    @api.get("/")
    async def index(
        executor: Annotated[TaskExecutor, Depends(depends_executor)],
        emitter: Annotated[EventEmitter, Depends(depends_emitter)],
        cache: Annotated[TTLCache[Any], Depends(depends_cache)],
    ) -> int:
        for it in (executor, emitter, cache, application):
            await use(it)
        return len(left)

    # The client's own lifespan is nobody's here: ASGITransport has none.
    async with (
        api.router.lifespan_context(api),
        httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://api") as client,
    ):
        answer = await client.get("/")
        assert (answer.status_code, answer.json()) == (200, 0)
        assert application not in left
        before = list(left)
    assert [type(each) for each in before] == [TTLCache, EventEmitter, TaskExecutor]
    for it in (*before, application):
        check_left(it)
