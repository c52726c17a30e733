"""Each row of the page "Coming from other libraries" is run, as the page shows it."""

from __future__ import annotations

import ast
import inspect
import itertools
import logging
import math
import random
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import time
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from textwrap import indent
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from mtaio.app import Application
from mtaio.cache import TTLCache, cached
from mtaio.core import Intake, Stream, TaskExecutor
from mtaio.events import Event, EventEmitter
from mtaio.logging import AsyncFileHandler, LoggingContext
from mtaio.monitoring import HealthRegistry, ResourceMonitor
from mtaio.redis import RedisLeader, TieredCache
from mtaio.resilience import Breaker
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    Quota,
    RateLimiter,
    TimeoutManager,
)
from mtaio.testing import run
from tests.backends import BACKENDS
from tests.pages import DOCS
from tests.redis.caching import caching_store
from tests.redis.leading import Elections
from tests.redis.reserving import reserving_store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from anyio.abc import TaskStatus

    from tests.redis.memory import MemoryStore

PACKAGES: Final = (
    *("app", "asgi", "cache", "clients", "config", "core", "events", "logging", "monitoring"),
    *("redis", "resilience", "resources", "exceptions"),
)
CELL: Final = re.compile(r"(?:`[^`]*`|[^|`])+")
CODE: Final = re.compile(r"([^`]*)`([^`]*)`")
LINK: Final = re.compile(r"\[([^]]*)\]\([^)]*\)")

ELSEWHERE: Final = {
    *("CapacityLimiter", "KeyError", "QueueHandler", "SamplingDuration", "by"),
    "stop_before_delay",
}
"""What right cells name although it is not mtaio's."""


def sections(language: str) -> dict[str, list[str]]:
    """Return the right cells of the rows, by heading."""
    page = (DOCS / language / "guides" / "coming-from.md").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for section in page.split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
        cells = [[cell for cell in CELL.findall(row) if cell.strip()] for row in rows]
        assert {len(row) for row in cells} == {2}, heading
        found[heading] = [right.strip() for _, right in cells]
    return found


ROWS: Final = [(heading, cell) for heading, cells in sections("en").items() for cell in cells]
IDS: Final = [
    f"{heading.split(',')[0].split(':')[0]}-{number}" for number, (heading, _) in enumerate(ROWS)
]


def exported() -> dict[str, Any]:
    """Return the public names of all packages."""
    modules = [import_module(f"mtaio.{name}") for name in PACKAGES]
    return {name: getattr(module, name) for module in modules for name in module.__all__}


@cache
def words() -> set[str]:
    """Return the names of the public objects, of what they have, and of their arguments."""
    found = set(exported())
    for thing in exported().values():
        members = inspect.getmembers(thing) if inspect.isclass(thing) else []
        found |= {name for name, _ in members}
        for each in (thing, *(member for _, member in members)):
            if inspect.isroutine(each) or inspect.isclass(each):
                try:
                    found |= set(inspect.signature(each).parameters)
                except (TypeError, ValueError):  # it is not written in Python
                    continue
    return found


def statements(cell: str) -> list[str]:
    """Return the code of a right cell; a block after the word "then" stands in the one before."""
    found: list[str] = []
    for before, code in CODE.findall(LINK.sub(r"\1", cell)):
        if named := re.fullmatch(r"(\w+)(=\S.*)?", code):
            known = words() | ELSEWHERE | {"source", "fetch", "leader"}
            assert named[1] in known, f"mtaio has no {named[1]}"
            continue
        if code.startswith("@"):
            yields = "Pipeline" in code or "resource" in code
            body = f"{code}\nasync def decorated(*args):\n    {'yield' if yields else 'return'} 7"
            if code.startswith(("@cached", "@Retry")) and "refresh_ahead" not in code:
                body += "\nawait decorated(7)"
            elif code.startswith("@Pipeline"):
                body += "\nasync with decorated() as stream:\n    [x async for x in stream]"
        elif code.startswith("except "):
            body = f"try:\n    pass\n{code}:\n    pass"
        elif code.startswith(("with ", "async with ", "async for ", "if ")):
            body = f"{code}:\n    pass"
        else:
            body = code
        if before.strip(" ,") == "then" and found[-1].endswith("pass"):
            body = found.pop().removesuffix("    pass") + indent(body, "    ")
        found.append(body)
    return found


async def fn(*args: Any) -> Any:
    """Do what is done with an item."""
    await anyio.sleep(1)
    return args[0] if args else 7


async def several(items: Any) -> list[Any]:
    """Return more than one result."""
    return [items, items]


def plain(x: Any) -> Any:
    """Do what is done in a thread or a process."""
    return x


async def serve(*, task_status: TaskStatus[None]) -> None:
    """Run until cancelled."""
    task_status.started()
    await anyio.sleep_forever()


async def numbers() -> AsyncGenerator[int]:
    """Yield three numbers."""
    for number in range(3):
        await anyio.sleep(1)
        yield number


def hook(*_: Any, **__: Any) -> None:
    """Be told of something."""


class Queue:
    """What asyncio.Queue is on asyncio, and a receiver with three messages."""

    def __init__(self) -> None:
        self._numbers = iter(range(3))

    async def get(self) -> int:
        """Return a message, or say that there are no more."""
        await anyio.sleep(1)
        for number in self._numbers:
            return number
        raise StopAsyncIteration

    def task_done(self) -> None:
        """Note that one is done."""


async def load_many(keys: list[str]) -> dict[str, int]:
    """Load several values."""
    return dict.fromkeys(keys, 7)


class Meter:
    """A meter of OpenTelemetry that takes all calls."""

    def __getattr__(self, _: str) -> Any:
        return hook


FIXED: Final[dict[str, Any]] = {
    "anyio": anyio,
    "itertools": itertools,
    "math": math,
    "random": random,
    "time": time,
    **dict.fromkeys(["f", "g", "read", "write", "work", "effect", "load", "fetch"], fn),
    **dict.fromkeys(["child", "serve"], serve),
    **dict.fromkeys(["ack", "nack", "hook", "report", "show", "compress", "Depends"], hook),
    **dict.fromkeys(["asgi"], fn),
    "calls": [fn, fn],
    "fns": [fn, fn],
    "items": [1, 2, 3],
    "urls": ["a", "b"],
    "names": ["ada"],
    "ages": [36],
    "text": "tea",
    "prices": {"tea": 2},
    "x": 7,
    "y": 8,
    "n": 100_000,
    "when": 100.0,
    "key": "tea",
    "keys": ["tea", "mate"],
    "value": 7,
    "values": {"tea": 7},
    "default": 0,
    "user": "ada",
    "host": "a",
    "sender": None,
    "kwargs": {"at": 7},
    "dotenv_values": dict,
    "keep": bool,
    "key_of": lambda *_, **__: "key",
    "is_429": lambda _: False,
    "is_transient": lambda _: True,
    "seconds": lambda _: None,
    "seconds_for": lambda *_: 5.0,
    "ttl_of": lambda _: 5.0,
    "weigh": lambda _, __: 1.0,
    "load_many": load_many,
    "meter": Meter(),
    "item": 7,
    "error": OSError(),
    "done": 1,
    "total": 2,
    "count": lambda: 7,
    "log": logging.getLogger("tests.coming_from"),
}
"""What names in the right cells stand for, wherever they occur."""


@asynccontextmanager
async def server(cell: str) -> AsyncGenerator[dict[str, Any]]:
    """Enter a server in memory that understands what a row asks of it."""
    store: MemoryStore
    if "leader" in cell:
        store = Elections()
    else:
        store = caching_store() if "shared" in cell else reserving_store()
    async with store, AsyncExitStack() as stack:
        found: dict[str, Any] = {"store": store}
        if "shared" in cell:
            cache = TieredCache[Any](store, "shop")
            found["shared"] = await stack.enter_async_context(cache)
        if "leader" in cell:
            leader = RedisLeader(store, "key", ttl=10)
            found["leader"] = await stack.enter_async_context(leader)
        yield found


def function(cell: str) -> Any:
    """Return what ``fn`` has to be for a row."""
    if any(word in cell for word in ("run_in", "threads=", "via=")):
        return plain
    return several if "flatten=" in cell else fn


def limiter(heading: str) -> Any:
    """Return what ``limiter`` is in a section."""
    if heading.startswith("Web"):
        return KeyedRateLimiter(5)
    if heading.startswith(("aiolimiter", "tenacity")):
        return RateLimiter(100, burst=100)
    return ConcurrencyLimiter(20)


async def finish(result: Any) -> None:
    """Read a stream to its end, and close what a row has opened."""
    if isinstance(result, Stream):
        async with result:
            async for _ in result:
                pass
    elif isinstance(result, AsyncFileHandler | LoggingContext):
        result.close()
    elif inspect.isroutine(getattr(result, "aclose", None)):
        await result.aclose()


async def run_row(heading: str, cell: str, path: Path) -> None:
    """Run what stands in a right cell, for twenty seconds at most."""
    async with (
        server(cell) as redis,
        TaskExecutor(10) as executor,
        EventEmitter() as emitter,
    ):
        with ExitStack() as stack:
            timeouts = TimeoutManager()
            names = exported() | FIXED | redis
            names |= {
                "executor": executor,
                "emitter": emitter,
                "timeouts": timeouts,
                "fn": function(cell),
                "limiter": limiter(heading),
                "queue": Queue(),
                "receive": Queue().get,
                "intake": Intake(Queue().get, hook, hook),
                "event": Event("saved", 7) if ".data" in cell else anyio.Event(),
                "quota": Quota(tokens=1000),
                "breaker": Breaker(max_keys=10 if "block" in cell else None),
                "cache": TTLCache[Any](60),
                "kept": cached(ttl=60)(fn),
                "monitor": ResourceMonitor(),
                "health": HealthRegistry(),
                "app": Application(name="app"),
                "path": path / "file",
                "scope": stack.enter_context(timeouts(60)),
                "handler": hook,
            }
            names |= {name: numbers() for name in ("source", "a", "b", "c") if name in cell}
            if "pool" in cell:
                names["pool"] = stack.enter_context(ThreadPoolExecutor(1))
            if "coros" in cell:
                names["coros"] = [fn(), fn()]
            if heading.startswith("logging"):
                names["handler"] = AsyncFileHandler(path / "log")
                stack.callback(names["handler"].close)
            if "observe" in cell:
                names["observe"] = import_module("mtaio.monitoring.otel").observe
            with anyio.move_on_after(20):
                for code in statements(cell):
                    await execute(code, names)


async def execute(code: str, names: dict[str, Any]) -> None:
    """Run a piece of code that may await."""
    try:
        tree: Any = compile(code, "<row>", "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        tree = compile(code, "<row>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(tree, names)  # noqa: S307 - of our own page
    if code.startswith("subscribe("):
        result()  # which ends the subscription
    if inspect.iscoroutine(result):
        result = await result
    await finish(result)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("heading", "cell"), ROWS, ids=IDS)
def test_row_is_run(heading: str, cell: str, backend: str, tmp_path: Path) -> None:
    """Names and arguments exist, and the call works."""
    if "observe" in cell and find_spec("opentelemetry") is None:
        pytest.skip("needs OpenTelemetry")
    run(lambda: run_row(heading, cell, tmp_path), backend=backend, grace=30.0)


def test_both_languages_have_the_same_code() -> None:
    """The rows of the Japanese page show the same code."""

    def code(language: str) -> list[list[str]]:
        cells = [cell for section in sections(language).values() for cell in section]
        return [sorted(found for _, found in CODE.findall(LINK.sub(r"\1", cell))) for cell in cells]

    assert code("ja") == code("en")
