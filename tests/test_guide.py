"""
A deployment written by hand (tests/guide.py) runs on mtaio, block by block and as a whole.

It is run as it is written, with the one import that it leaves out, `Application`. It has three
defects of its own, which no library can repair: they are asserted as errors, and CORRECTIONS are
the fewest that there can be.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from mtaio.app import Application
from mtaio.app import ErrorHandler as OurErrorHandler
from mtaio.events import EventEmitter
from mtaio.exceptions import LimitError
from mtaio.monitoring import ResourceMonitor
from tests.guide import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtaio.events import Event

IMPORTS: Final = """
from mtaio.app import Application
from mtaio.monitoring import HealthMonitor as Base
"""
"""What the guide uses and does not import, and what CORRECTIONS use."""

CORRECTIONS: Final = {
    "class HealthMonitor:": "class HealthMonitor(Base):",
    '"message": str(error)': '"error_message": str(error)',
    "await asyncio.Event().wait()": "await app.wait_closed()",
}
"""What is wrong in the guide, and the least that puts it right."""

ENVIRONMENT: Final = {"MTAIO_HEALTH_BIND": "127.0.0.1:0", "MTAIO_SHUTDOWN_TIMEOUT": "2"}


def whole(*corrections: str) -> str:
    """Return all of the guide's programs as one, with some corrections."""
    program = IMPORTS + "".join(BLOCKS.values())
    for wrong in corrections:
        assert program.count(wrong) == 1
        program = program.replace(wrong, CORRECTIONS[wrong])
    return program


def names_of(program: str) -> SimpleNamespace:
    """Run a program, without its ``main``, and return what it defines."""
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(program, "guide.py", "exec"), names)  # noqa: S102 - the subject
    return SimpleNamespace(**names)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run the guide in a folder of its own; take away the handlers that it adds."""
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    logger = logging.getLogger("mtaio")
    before = logger.handlers[:], logger.level
    yield tmp_path
    for handler in logger.handlers[:]:
        if handler not in before[0]:
            logger.removeHandler(handler)
            handler.close()
    logger.setLevel(before[1])


def logged(folder: Path) -> list[str]:
    """Return what is in the guide's log, without the time."""
    for handler in logging.getLogger("mtaio").handlers:
        handler.flush()
    lines = (folder / "app.log").read_text(encoding="utf-8").splitlines()
    return [line.split(" - ", 1)[1] for line in lines if line.count(" - ") > 2]


# ---- block by block ------------------------------------------------------------------------------


async def test_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor and the cache are made from the environment, at module level, and work."""
    for name, value in {"MAX_WORKERS": "2", "CACHE_TTL": "1.5", "CACHE_SIZE": "3"}.items():
        monkeypatch.setenv(f"MTAIO_{name}", value)
    guide = names_of(BLOCKS["configuration"])
    assert guide.config == {
        "max_workers": 2,
        "cache_ttl": 1.5,
        "cache_size": 3,
        "log_level": "INFO",
    }

    async def fetch(key: int) -> str:
        running.append(key)
        await anyio.sleep(1)
        return f"value {key}"

    running: list[int] = []
    began = anyio.current_time()
    async with guide.executor:
        assert await guide.executor.map(fetch, range(4)) == [f"value {key}" for key in range(4)]
    assert anyio.current_time() - began == 2  # two at once
    for key in range(5):
        await guide.cache.set(key, str(key))
    assert await guide.cache.get(4) == "4"
    assert guide.cache.statistics().size == 3
    await anyio.sleep(1.5)
    assert await guide.cache.get(4) is None


async def test_logging(folder: Path) -> None:
    """The handler rotates, formats and writes what is logged below "mtaio"."""
    await names_of(BLOCKS["logging"]).setup_logging()
    logging.getLogger("mtaio.shop").info("open")
    logging.getLogger("mtaio.shop").debug("hidden")
    assert logged(folder) == ["mtaio.shop - INFO - open"]


async def test_resources() -> None:
    """The limits are those of the environment, and hold."""
    program = BLOCKS["configuration"] + BLOCKS["resources"]  # the first one imports os
    rate, slots, timeouts = await names_of(program).configure_resources()
    await rate.acquire(200)
    began = anyio.current_time()
    await rate.acquire()
    assert anyio.current_time() - began == pytest.approx(0.01)
    async with slots:
        assert slots.statistics().in_use == 1
        assert slots.statistics().limit == 50
    with pytest.raises(TimeoutError):
        await timeouts.run(anyio.sleep, 31)
    assert anyio.current_time() - began == pytest.approx(30.01)


# ---- health --------------------------------------------------------------------------------------

BASES: Final = {"no base": "class HealthMonitor:", "our base": "class HealthMonitor(Base):"}


def made(*, base: str) -> Any:
    """Make the guide's HealthMonitor, with mtaio's own for a base or not."""
    program = BLOCKS["health"].replace("class HealthMonitor:", BASES[base])
    return names_of(IMPORTS + program).HealthMonitor()


@pytest.mark.parametrize("base", BASES)
async def test_health(base: str) -> None:
    """Its thresholds are set, its handler emits the alert, and its status tells the figures."""
    health = made(base=base)
    assert isinstance(health.monitor, ResourceMonitor)
    assert isinstance(health.emitter, EventEmitter)
    heard: list[dict[str, Any]] = []

    def hear(event: Event[dict[str, Any]]) -> None:
        heard.append(event.data)

    health.emitter.on("health_alert", hear)

    await health.start()
    assert health.monitor.running
    configured = {each.metric: each.value for each in health.monitor.thresholds}
    assert configured == {"cpu_usage": 80.0, "memory_usage": 90.0}
    status = await health.get_health_status()
    assert status["status"] == ("healthy" if status["cpu_usage"] < 80 else "degraded")
    assert 0 <= status["cpu_usage"] <= 100
    assert 0 < status["memory_usage"] <= 100
    assert status["uptime"] > 0
    health.monitor.set_threshold("memory_usage", 0.0)
    await anyio.sleep(2.5)
    (alert,) = [each for each in heard if each["metric"] == "memory_usage"]
    assert alert["threshold"] == 0.0
    assert alert["value"] > 0
    await health.monitor.stop()


async def test_health_with_our_base() -> None:
    """With mtaio's class for a base it can be entered, as the guide's last program does."""
    health = made(base="our base")
    async with health:
        assert health.monitor.running
    assert not health.monitor.running


# ---- errors --------------------------------------------------------------------------------------


async def test_message_in_extra(caplog: pytest.LogCaptureFixture) -> None:
    """The guide's handler fails for mtaio's errors, with logging's KeyError; others it reports."""
    handler = names_of(BLOCKS["logging"] + BLOCKS["errors"]).ErrorHandler()
    with pytest.raises(KeyError, match="Attempt to overwrite 'message' in LogRecord"):
        await handler.handle_error(LimitError("full"), {"order": 7})
    await handler.handle_error(ValueError("bad"), {"order": 7})
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("mtaio.errors", "CRITICAL")
    assert record.message == "not foreseen"
    assert record.__dict__["context"] == {"order": 7}


async def test_error_handler(caplog: pytest.LogCaptureFixture) -> None:
    """With another key it works."""
    handler = names_of(whole('"message": str(error)')).ErrorHandler()
    await handler.handle_error(LimitError("full"), {"order": 7})
    await handler.handle_error(ValueError("bad"))
    assert [(each.name, each.levelname) for each in caplog.records] == [
        ("mtaio.errors", "ERROR"),
        ("mtaio.errors", "CRITICAL"),
    ]
    first, second = (each.__dict__ for each in caplog.records)
    assert (first["error_type"], first["error_message"]) == ("LimitError", "full")
    assert first["context"] == {"order": 7}
    assert second["exc_info"][0] is ValueError


def test_our_error_handler(caplog: pytest.LogCaptureFixture) -> None:
    """Mtaio's own reports to the same logger, at the same levels; its method never waits."""
    handler = OurErrorHandler()
    handler.report(LimitError("full"), {"order": 7})
    handler.report(ValueError("bad"))
    assert [(each.name, each.levelname) for each in caplog.records] == [
        ("mtaio.errors", "ERROR"),
        ("mtaio.errors", "CRITICAL"),
    ]


# ---- the whole -----------------------------------------------------------------------------------


async def test_monitor_that_cannot_be_entered(folder: Path) -> None:
    """The guide's HealthMonitor is no context manager: its main fails, and logs that it did."""
    with pytest.raises(TypeError, match=r"does not support the asynchronous context manager"):
        await names_of(whole()).main()
    assert logged(folder) == ["mtaio - CRITICAL - the application did not start"]


async def test_corrected(folder: Path) -> None:
    """Corrected it runs as a whole: it starts, does its work, and ends when it is told to stop."""
    applications: list[Application] = []
    guide = names_of(whole(*CORRECTIONS))

    def make(**parts: Any) -> Application:
        app = Application(**parts)
        app.service(work)
        applications.append(app)
        return app

    async def work(app: Application) -> None:
        async with app.concurrency_limiter:
            await app.rate_limiter.acquire()
            worked.append(await app.timeout_manager.run(app.executor.run, fetch))
        await anyio.sleep(5)
        app.stop_nowait("all is done")

    async def fetch() -> str:
        await anyio.sleep(1)
        return "value"

    worked: list[str] = []
    guide.main.__globals__["Application"] = make
    await guide.main()
    assert worked == ["value"]
    (app,) = applications
    assert app.state == "stopped"
    assert type(app.error_handler).__module__ == "guide"
    lines = logged(folder)
    assert "mtaio - INFO - the application has started" in lines
    assert lines[-1] == "mtaio.app - INFO - stopped"


@pytest.mark.parametrize("error", [ValueError("bad"), LimitError("full")], ids=["other", "mtaio's"])
async def test_error_handler_of_the_guide_is_used(folder: Path, error: Exception) -> None:
    """What a service raises goes to the handler that was handed in, which has handle_error."""
    guide = names_of(whole(*CORRECTIONS))
    app = Application(error_handler=guide.ErrorHandler())

    @app.service(critical=False)
    async def fail() -> None:
        raise error

    await guide.setup_logging()
    async with app:
        await anyio.sleep(1)
    told = {
        "ValueError": "mtaio.errors - CRITICAL - not foreseen",
        "LimitError": "mtaio.errors - ERROR - refused by mtaio",
    }
    assert told[type(error).__name__] in logged(folder)


async def test_error_handler_that_fails_hides_no_error(folder: Path) -> None:
    """What the guide's handler, as it is written, fails to report is logged, and its failure."""
    guide = names_of(whole())
    app = Application(error_handler=guide.ErrorHandler())

    @app.service(critical=False)
    async def fail() -> None:
        raise LimitError("full")

    await guide.setup_logging()
    async with app:
        await anyio.sleep(1)
    assert logged(folder)
    log = (folder / "app.log").read_text(encoding="utf-8")
    assert "KeyError: \"Attempt to overwrite 'message' in LogRecord\"" in log
    assert "mtaio.exceptions.LimitError: full" in log


class Process:
    """The guide as a program of its own."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        (folder / "program.py").write_text(program, encoding="utf-8")
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self.process = subprocess.Popen(
            [sys.executable, "program.py"],
            cwd=folder,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def stop_when_started(self) -> int:
        """Send SIGTERM when it has started; return its exit code."""
        try:
            until = time.monotonic() + 60
            while "the application has started" not in self.log():
                assert self.process.poll() is None, self.process.communicate()[1]
                assert time.monotonic() < until
                time.sleep(0.02)
            self.process.send_signal(signal.SIGTERM)
            self.process.communicate(timeout=60)
        finally:
            self.process.kill()
            self.process.wait()
        return self.process.returncode

    def log(self) -> str:
        """Return what is in its log."""
        path = self.folder / "app.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to handle")
def test_event_that_is_never_set(tmp_path: Path) -> None:
    """After SIGTERM the application stops, and with it the guide's main, which waits for ever."""
    program = whole("class HealthMonitor:", '"message": str(error)')
    process = Process(tmp_path, program)
    assert process.stop_when_started() == 0
    *_, last = [line for line in process.log().splitlines() if " - mtaio.app - " in line]
    assert last.endswith(" - mtaio.app - INFO - stopped")


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform == "win32", reason="as above")
def test_corrected_at_a_signal(tmp_path: Path, backend: str) -> None:
    """Corrected it ends with 0 at SIGTERM, on either backend, and its log is whole."""
    program = whole(*CORRECTIONS).replace(
        "asyncio.run(main())", f"__import__('anyio').run(main, backend={backend!r})"
    )
    process = Process(tmp_path, program)
    assert process.stop_when_started() == 0
    assert process.log().splitlines()[-1].endswith(" - mtaio.app - INFO - stopped")
