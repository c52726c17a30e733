"""Each item of the checklist, seen on a good deployment and on a spoilt one."""

from __future__ import annotations

import logging
import logging.handlers
import math
import os
import re
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from mtaio.app import Application, ErrorHandler
from mtaio.app._checklist import look_at
from mtaio.app._checklist._item import ROWS
from mtaio.app._machine import Machine
from mtaio.app.check import CheckItem, run_checks
from mtaio.cache import TTLCache
from mtaio.config import Settings
from mtaio.core import Retry, TaskExecutor
from mtaio.logging import RedactingFilter
from mtaio.resources import RateLimiter, TimeoutManager
from tests.app.certificates import LOCALHOST, dated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]

GOOD_MACHINE = Machine(
    processors=2.0,
    memory=2_000_000_000,
    open_files=1024,
    container=False,
    supervisor=None,
    root=False,
    umask=0o027,
)


def look(
    app: Application | None = None,
    *,
    environ: Mapping[str, str],
    handlers: tuple[logging.Handler, ...] = (),
    **machine: Any,
) -> list[CheckItem]:
    """Go through the checklist on a good machine but for the changes, without pytest's handlers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", list(handlers))
        return look_at(app, environ, replace(GOOD_MACHINE, **machine))


@pytest.fixture
def port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def environ(tmp_path: Path, port: int) -> dict[str, str]:
    """Return the environment of a good deployment."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n", encoding="utf-8")
    token.chmod(0o400)
    return {
        "MTAIO_DEFAULT_TIMEOUT": "15",
        "MTAIO_HEALTH_BIND": f"127.0.0.1:{port}",
        "MTAIO_HEALTH_TOKEN_FILE": str(token),
        "MTAIO_LOG_FILE": str(tmp_path / "app.log"),
    }


async def asgi(*_: object) -> None:
    """Answer nothing: what is checked is never started."""
    raise AssertionError


def application(environ: Mapping[str, str], **parts: Any) -> Application:
    """Return an application as it should be."""
    app = Application(parts.pop("settings", None) or Settings.from_env(environ), **parts)
    app.health.add("database", lambda: None)
    app.service(restart=Retry(attempts=3), name="poller")(_never)
    app.serve(asgi, bind="127.0.0.1:0", name="web")
    app.emitter.on("monitor.threshold_exceeded", _never)
    return app


async def _never(_: object) -> None:
    raise AssertionError


def remarkable(items: list[CheckItem]) -> dict[str, str]:
    """Return the items that are not well, by name, without the questions to people."""
    return {each.name: each.status for each in items if each.status not in {"ok", "ask"}}


def item(items: list[CheckItem], name: str) -> CheckItem:
    """Return the item of a name, of which there is one."""
    (found,) = (each for each in items if each.name == name)
    return found


def test_good_deployment_passes(environ: dict[str, str]) -> None:
    """Nothing is wrong with a good deployment; two questions remain, which only people answer."""
    items = look(application(environ), environ=environ)
    assert remarkable(items) == {}
    assert [each.name for each in items if each.status == "ask"] == ["recovery", "access"]
    assert all(each.remedy for each in items if each.status == "ask")
    assert not any(each.remedy for each in items if each.status == "ok")
    names = [each.name for each in items]
    assert len(set(names)) == len(names) >= 38


def test_without_an_application(environ: dict[str, str]) -> None:
    """Settings and machine can be looked at alone, and the missing application is asked for."""
    items = look(environ=environ)
    assert remarkable(items) == {}
    assert item(items, "application").status == "ask"
    assert not {"health_checks", "services", "servers"} & {each.name for each in items}


def test_application_is_never_entered(environ: dict[str, str]) -> None:
    """The application is as new afterwards, and no log file has appeared."""
    app = application(environ)
    look(app, environ=environ)
    assert app.state == "new"
    assert not os.path.exists(environ["MTAIO_LOG_FILE"])  # noqa: PTH110 - a variable is text


SPOILT_BY_VARIABLES: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("refused", {"MTAIO_MAX_WORKERS": "many"}, {"settings": "fail"}),
    ("public without a token", {"MTAIO_HEALTH_BIND": "0.0.0.0:9464", "MTAIO_HEALTH_TOKEN_FILE": ""},
     {"settings": "fail"}),
    ("misspelt", {"MTAIO_MAX_WORKER": "8"}, {"unknown_variables": "warn"}),
    ("too many workers", {"MTAIO_MAX_WORKERS": "129", "MTAIO_CONCURRENCY_LIMIT": "129"},
     {"workers": "warn"}),
    ("slow shutdown", {"MTAIO_SHUTDOWN_TIMEOUT": "30"}, {"shutdown": "warn"}),
    ("hasty shutdown", {"MTAIO_SHUTDOWN_TIMEOUT": "1", "MTAIO_DEFAULT_TIMEOUT": "0.5"},
     {"shutdown": "warn"}),
    ("debug log", {"MTAIO_LOG_LEVEL": "debug"}, {"log_level": "warn"}),
    ("endless log", {"MTAIO_LOG_MAX_BYTES": "0"}, {"log_rotation": "warn"}),
    ("no older logs", {"MTAIO_LOG_BACKUP_COUNT": "0"}, {"log_rotation": "warn"}),
    ("all older logs", {"MTAIO_LOG_BACKUP_COUNT": "0", "MTAIO_LOG_WHEN": "midnight",
      "MTAIO_LOG_MAX_BYTES": "0"}, {"log_rotation": "warn"}),
    ("a log for each day", {"MTAIO_LOG_MAX_BYTES": "0", "MTAIO_LOG_WHEN": "midnight"}, {}),
    ("no folder for the log", {"MTAIO_LOG_FILE": "/nowhere/app.log"}, {"log_path": "fail"}),
    ("log is a folder", {"MTAIO_LOG_FILE": os.path.abspath(os.sep)}, {"log_path": "fail"}),  # noqa: PTH100 - a variable is text
    ("no room for the log", {"MTAIO_LOG_MAX_BYTES": str(10**18)}, {"log_space": "fail"}),
    ("errors not logged", {"MTAIO_LOG_LEVEL": "critical"}, {"error_log": "fail"}),
    ("log goes nowhere", {"MTAIO_LOG_FILE": "", "MTAIO_LOG_CONSOLE": "no"}, {"error_log": "fail"}),
    ("a port of chance", {"MTAIO_HEALTH_BIND": "127.0.0.1:0"}, {"probe_address": "warn"}),
    ("no thresholds", {"MTAIO_CPU_THRESHOLD": "100", "MTAIO_MEMORY_THRESHOLD": "100"},
     {"thresholds": "warn"}),
    ("cache keeps nothing", {"MTAIO_CACHE_TTL": "0"}, {"cache_ttl": "warn"}),
    ("cache keeps for ever", {"MTAIO_CACHE_TTL": "inf"}, {"cache_ttl": "warn"}),
    ("cache too large", {"MTAIO_CACHE_SIZE": "500000"}, {"cache_size": "warn"}),
    ("no rate limit", {"MTAIO_RATE_LIMIT": "inf"}, {"rate": "warn"}),
    ("nothing let through", {"MTAIO_RATE_LIMIT": "0"}, {"rate": "fail"}),
    ("large burst", {"MTAIO_BURST_LIMIT": "1001"}, {"burst": "warn"}),
    ("few slots", {"MTAIO_CONCURRENCY_LIMIT": "3"}, {"concurrency": "warn"}),
    ("too few open files", {"MTAIO_CONCURRENCY_LIMIT": "450"}, {"open_files": "warn"}),
    ("far too few open files", {"MTAIO_CONCURRENCY_LIMIT": "900"}, {"open_files": "fail"}),
    ("no timeout", {"MTAIO_DEFAULT_TIMEOUT": "inf"}, {"timeout": "warn"}),
    ("timeout longer than the drain", {"MTAIO_DEFAULT_TIMEOUT": "18.5"}, {"timeout": "warn"}),
    ("debug mode", {"PYTHONASYNCIODEBUG": "1"}, {"debug_mode": "warn"}),
    ("token in a variable",
     {"MTAIO_HEALTH_TOKEN": "0123456789abcdef", "MTAIO_HEALTH_TOKEN_FILE": ""}, {"token": "warn"}),
    ("token that can be guessed",
     {"MTAIO_HEALTH_TOKEN": "hunter2", "MTAIO_HEALTH_TOKEN_FILE": ""}, {"token": "fail"}),
    ("not an address of this machine", {"MTAIO_HEALTH_BIND": "192.0.2.1:9464"}, {"ports": "fail"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "found"),
    [pytest.param(changes, found, id=name) for name, changes, found in SPOILT_BY_VARIABLES],
)
def test_variable_that_spoils_a_deployment_is_found(
    changes: dict[str, str], found: dict[str, str], environ: dict[str, str]
) -> None:
    """One wrong variable is one item, which says what to do; the other items stay as they are."""
    items = look(environ={**environ, **changes})
    assert remarkable(items) == found
    assert all(each.remedy for each in items if each.name in found)


SPOILT_BY_THE_MACHINE: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("half a processor", {"processors": 0.5}, {"processors": "warn"}),
    ("little memory", {"memory": 268_435_456}, {"memory": "warn"}),
    ("few open files", {"open_files": 128}, {"open_files": "fail"}),
    ("root", {"root": True}, {"user": "warn"}),
    ("Docker", {"supervisor": "docker"}, {"shutdown": "warn"}),
    ("Kubernetes", {"supervisor": "kubernetes"}, {"drain_delay": "warn", "probe_address": "warn"}),
]


@pytest.mark.parametrize(
    ("changes", "found"),
    [pytest.param(changes, found, id=name) for name, changes, found in SPOILT_BY_THE_MACHINE],
)
def test_machine_that_spoils_a_deployment_is_found(
    changes: dict[str, Any], found: dict[str, str], environ: dict[str, str]
) -> None:
    """What the machine lacks, or does differently, is one item for each thing that it spoils."""
    items = look(environ=environ, **changes)
    assert remarkable(items) == found
    assert all(each.remedy for each in items if each.name in found)


@pytest.mark.parametrize(
    ("workers", "status", "message"),
    [
        ("2", "ok", "MTAIO_WORKERS=2 on 2 processors"),
        ("3", "warn", "MTAIO_WORKERS=3 on 2 processors: more memory, no gain"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="it has no workers")
def test_workers(environ: dict[str, str], workers: str, status: str, message: str) -> None:
    """There should be no more workers than processors."""
    found = item(look(environ=environ | {"MTAIO_WORKERS": workers}, processors=2), "processes")
    assert (found.status, found.message) == (status, message)


def test_workers_that_cannot_be(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The program decides too late; each worker would do a job; Windows has no workers."""
    app = application(environ, settings=Settings.from_env(environ, workers=2))
    found = item(look(app, environ=environ), "processes")
    assert (found.status, found.message[:27]) == ("warn", "workers=2 has no effect: mt")
    environ["MTAIO_WORKERS"] = "2"
    app = application(environ)
    app.job(_never)
    assert item(look(app, environ=environ), "processes").status == ("fail")
    monkeypatch.setattr(sys, "platform", "win32")
    assert "on Windows" in item(look(environ=environ), "processes").message


def test_good_machines(environ: dict[str, str]) -> None:
    """No limit of open files is well, and so are the defaults of systemd."""
    items = look(environ=environ, open_files=None, supervisor="systemd")
    assert remarkable(items) == {}
    assert item(items, "open_files").message == "no limit"


def test_each_setting_that_is_refused_is_an_item(environ: dict[str, str]) -> None:
    """All that is refused is said at once; what depends on settings is not guessed."""
    changes = {
        "MTAIO_MAX_WORKERS": "many",
        "MTAIO_LOG_FORMAT": "xml",
        "MTAIO_HEALTH_TOKEN": "s3cret",
    }
    items = look(environ={**environ, **changes}, root=True)
    refused = [each for each in items if each.name == "settings"]
    assert {(each.status, each.message.split()[0]) for each in refused} == {
        ("fail", "MTAIO_HEALTH_TOKEN"),
        ("fail", "MTAIO_MAX_WORKERS='many'"),
        ("fail", "MTAIO_LOG_FORMAT='xml'"),
    }
    assert all(each.remedy for each in refused)
    assert item(items, "user").status == "warn"
    assert "workers" not in {each.name for each in items}


def test_variables_may_be_given(environ: dict[str, str]) -> None:
    """Those that are given are checked, and not the process's own."""
    items = run_checks(environ={**environ, "MTAIO_MAX_WORKERS": "many"})
    assert item(items, "settings").message.startswith("MTAIO_MAX_WORKERS='many'")


def test_defaults_are_well(environ: dict[str, str]) -> None:
    """With every setting at its default nothing warns or fails; what is undecided is asked."""
    free = {"MTAIO_HEALTH_BIND": environ["MTAIO_HEALTH_BIND"]}
    items = look(environ=free)
    assert remarkable(items) == {}
    found = item(items, "timeout")
    assert found.status == "ask"
    assert found.message.startswith("MTAIO_DEFAULT_TIMEOUT=30 is longer than the 18 s that a shut")
    assert found.remedy.startswith("Set MTAIO_DEFAULT_TIMEOUT to 18 or less")
    decided = [
        look(environ={**free, "MTAIO_DEFAULT_TIMEOUT": "30"}),
        look(environ={**free, "MTAIO_SHUTDOWN_TIMEOUT": "20"}),
        look(application(free, timeout_manager=TimeoutManager(20)), environ=free),
    ]
    assert [item(items, "timeout").status for items in decided] == ["warn"] * 3


def test_unknown_variables_do_not_warn_twice(
    environ: dict[str, str], recwarn: pytest.WarningsRecorder
) -> None:
    """What is misspelt is an item, with what was meant, and no warning beside it."""
    items = look(environ={**environ, "MTAIO_CACHE_TLL": "1"}, supervisor="kubernetes")
    found = item(items, "unknown_variables")
    assert found.message == "mtaio does not read MTAIO_CACHE_TLL (did you mean MTAIO_CACHE_TTL?)"
    assert "enableServiceLinks" in found.remedy
    assert (
        "mtaio does not read MTAIO_X"
        in item(look(environ={**environ, "MTAIO_X": "1"}), "unknown_variables").message
    )
    assert recwarn.list == []


def test_variables_that_the_program_overrides(environ: dict[str, str]) -> None:
    """A variable that is set and not read is told, by its name."""
    environ["MTAIO_LOG_LEVEL"] = "ERROR"
    app = application(environ, settings=Settings(default_timeout=10, log_level="WARNING"))
    found = item(look(app, environ=environ), "unused_variables")
    assert found.status == "warn"
    for variable in environ:
        assert variable in found.message
    assert "unused_variables" not in {each.name for each in look(environ=environ)}


def test_what_the_program_decides_is_called_as_the_program_calls_it() -> None:
    """Without a variable that would do something, the argument is named."""
    app = Application(Settings(log_level="DEBUG", health_bind="127.0.0.1:0"), logging=True)
    assert item(look(app, environ={}), "log_level").message.startswith("log_level=DEBUG")


# ---- parts that the program makes itself ---------------------------------------------------------


def test_parts_count_rather_than_settings(environ: dict[str, str]) -> None:
    """What a part was made with counts, and is named as the part's."""
    app = application(
        environ,
        cache=TTLCache(max_size=None, default_ttl=math.inf),
        executor=TaskExecutor(None),
        rate_limiter=RateLimiter(rate=1, burst=60),
        timeout_manager=TimeoutManager(None),
    )
    items = look(app, environ=environ)
    assert remarkable(items) == {
        "workers": "warn",
        "cache_ttl": "warn",
        "cache_size": "warn",
        "burst": "warn",
        "concurrency": "warn",
        "timeout": "warn",
    }
    assert item(items, "cache_size").message == "cache.max_size=inf: the cache grows without end"
    assert item(items, "burst").remedy == "Set rate_limiter.burst to 10 or less."


def test_application_without_anything(environ: dict[str, str]) -> None:
    """No health check, no probes and no listener are found; there are no servers to ask about."""
    app = Application(Settings.from_env(environ), probes=False)
    items = look(app, environ=environ)
    assert remarkable(items) == {"health_checks": "warn", "probes": "warn"}
    assert item(items, "alerts").status == "ask"
    assert item(items, "ports").message == "none is needed"
    assert not {"services", "servers", "access", "extras", "probe_address"} & {
        each.name for each in items
    }


@pytest.mark.parametrize(
    ("restart", "critical", "message"),
    [
        (None, True, "^fragile: the first error stops the application"),
        (1, True, "^fragile: the first error stops the application"),
        (None, False, "^fragile: it ends at the first error"),
    ],
)
def test_service_without_a_restart_policy(
    *, restart: int | None, critical: bool, message: str, environ: dict[str, str]
) -> None:
    """A service that is not started again is found, and what that means is said."""
    app = application(environ)
    app.service(name="fragile", critical=critical, restart=restart)(_never)
    found = item(look(app, environ=environ), "services")
    assert found.status == "warn"
    assert re.match(message, found.message)


def test_error_handler_that_cannot_report(environ: dict[str, str]) -> None:
    """An error handler needs a method that is called."""
    found = item(
        look(application(environ, error_handler=object()), environ=environ), "error_handler"
    )
    assert found.status == "fail"
    assert found.message == "object has neither report(error, context) nor handle_error"


class GuidesHandler:
    """An error handler with no more than the method that services await."""

    async def handle_error(self, error: Exception, context: object) -> None:
        """Do nothing."""


@pytest.mark.parametrize("handler", [ErrorHandler(), GuidesHandler()])
def test_error_handler_that_was_handed_in(environ: dict[str, str], handler: object) -> None:
    """Either method will do."""
    app = application(environ, error_handler=handler)
    found = item(look(app, environ=environ), "error_handler")
    assert (found.status, found.message) == ("ok", type(handler).__name__)


def test_no_thresholds_in_the_monitor(environ: dict[str, str]) -> None:
    """The monitor's own thresholds count."""
    app = application(environ)
    for each in app.monitor.thresholds:
        app.monitor.remove_threshold(each.metric)
    assert item(look(app, environ=environ), "thresholds").status == "warn"
    app.monitor.set_threshold("loop_delay", 0.5)
    assert item(look(app, environ=environ), "thresholds").message == "loop_delay 0.5"


def test_server_without_hypercorn(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that nothing can serve is found before the deployment."""
    monkeypatch.setattr("mtaio.app._checklist.configuration.find_spec", lambda _: None)
    found = item(look(application(environ), environ=environ), "extras")
    assert (found.status, found.remedy) == ("fail", "Install it with: pip install 'mtaio[app]'")


# ---- addresses -----------------------------------------------------------------------------------


def test_public_server(environ: dict[str, str]) -> None:
    """A server that others can reach without a proxy is found; in a container it has to be so."""
    app = application(environ)
    app.serve(asgi, bind="0.0.0.0:0", name="open")
    app.serve(asgi, bind="unix:/run/shop.sock")
    app.serve(asgi, bind="0.0.0.0:1", name="safe", certfile=LOCALHOST)
    found = item(look(app, environ=environ), "servers")
    assert (found.status, found.message) == (
        "warn",
        "open (0.0.0.0:0) can be reached from other machines, without encryption",
    )
    assert item(look(app, environ=environ, container=True), "servers").status == "ok"


@pytest.mark.parametrize(
    ("since", "until", "status", "said"),
    [
        (-1, 300, "ok", "is valid until"),
        (-300, 20, "warn", "is valid until"),
        (-300, 22, "ok", "is valid until"),
        (-36, 8, "warn", "is valid until"),  # of 44 days less than a fifth is left
        (-35, 10, "ok", "is valid until"),
        (-90, -1, "fail", "has expired: "),
        (3, 90, "fail", "is not valid before "),
    ],
)
def test_certificate(  # noqa: PLR0917 - parameters
    since: float, until: float, status: str, said: str, environ: dict[str, str], tmp_path: Path
) -> None:
    """A certificate that runs out soon is found, and one that nobody would accept."""
    path = dated(tmp_path / "cert.pem", since, until)
    environ["MTAIO_CERTFILE"] = str(path)
    for app in (None, application(environ)):
        found = item(look(app, environ=environ), "certificate")
        assert found.status == status
        assert found.message.startswith(f"{path} {said}")


def test_certificate_that_is_worst(environ: dict[str, str], tmp_path: Path) -> None:
    """Of several servers' certificates the worst is named; without any there is nothing to see."""
    assert not any(each.name == "certificate" for each in look(environ=environ))
    app = application(environ)
    assert not any(each.name == "certificate" for each in look(app, environ=environ))
    app.serve(asgi, bind="127.0.0.1:0", name="good", certfile=LOCALHOST)
    app.serve(asgi, bind="127.0.0.1:0", name="gone", certfile=tmp_path / "gone.pem")
    found = item(look(app, environ=environ), "certificate")
    assert (found.status, found.remedy[:14]) == ("fail", "Pass PEM files")
    assert "gone.pem': No such file" in found.message


def test_port_that_is_taken(environ: dict[str, str], port: int) -> None:
    """A port at which something listens already is found."""
    with socket.create_server(("127.0.0.1", port)):
        found = item(look(environ=environ), "ports")
    assert found.status == "fail"
    assert found.message.startswith(f"probes cannot listen at 127.0.0.1:{port}: ")
    assert found.remedy.startswith("Stop what listens there")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - looked at, never bound
def test_port_that_two_want(host: str, environ: dict[str, str], port: int) -> None:
    """Two servers at one port are found, also if one of them is at all addresses."""
    app = application(environ)
    app.serve(asgi, bind=f"{host}:{port}", name="admin")
    found = item(look(app, environ=environ, container=True), "ports")
    assert (found.status, found.message) == ("fail", f"admin and probes both use port {port}")


def test_free_ports_are_named_once(environ: dict[str, str]) -> None:
    """A server without a name of its own is its address."""
    app = application(environ)
    app.serve(asgi, bind="127.0.0.1:0")
    assert ", 127.0.0.1:0, probes " in item(look(app, environ=environ), "ports").message


def test_port_of_another_address(environ: dict[str, str], port: int) -> None:
    """Two addresses of one port are not in each other's way; IPv6 is looked at as well."""
    app = application(environ)
    app.serve(asgi, bind=f"[::1]:{port}", name="admin")
    found = item(look(app, environ=environ), "ports")
    assert "both want" not in found.message
    assert f"[::1]:{port}" in found.message


# ---- files ---------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that every user may look into."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if not all(each.stat().st_mode & 0o001 for each in folder.parents):
            pytest.skip("the folder for temporary files is closed to others")
        yield folder


posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions as POSIX has them")


@posix
@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(("mode", "status"), [(0o640, "ok"), (0o644, "warn"), (0o666, "fail")])
def test_log_that_others_can_open(
    *, mode: int, status: str, exists: bool, environ: dict[str, str], open_folder: Path
) -> None:
    """The permissions of the log count, or those that it is going to have."""
    log = open_folder / "app.log"
    if exists:
        log.touch()
        log.chmod(mode)
    environ["MTAIO_LOG_FILE"] = str(log)
    umask = 0o027 if exists else 0o666 & ~mode
    found = item(look(environ=environ, umask=umask), "log_privacy")
    assert found.status == status
    assert found.remedy.startswith("chmod 640" if exists else "UMask") or not found.remedy
    if mode == 0o644:
        assert (
            item(look(environ=environ, umask=umask, container=True), "log_privacy").status == "ok"
        )


@posix
@pytest.mark.parametrize(
    ("mode", "in_a_container", "outside"),
    [(0o400, "ok", "ok"), (0o444, "ok", "warn"), (0o466, "fail", "fail")],
)
def test_token_file_that_others_can_open(
    mode: int, in_a_container: str, outside: str, environ: dict[str, str]
) -> None:
    """A token that other users can read is found, except in a container, which has none."""
    Path(environ["MTAIO_HEALTH_TOKEN_FILE"]).chmod(mode)
    assert item(look(environ=environ), "token_file").status == outside
    assert item(look(environ=environ, container=True), "token_file").status == in_a_container


def test_log_at_a_relative_path(environ: dict[str, str], folder: Path) -> None:
    """A path that depends on the current folder is found, and the whole one is named."""
    environ["MTAIO_LOG_FILE"] = "app.log"
    found = item(look(environ=environ), "log_path")
    assert (found.status, found.remedy) == ("warn", f"Set MTAIO_LOG_FILE={folder / 'app.log'}")


@pytest.mark.parametrize(
    ("locked", "reason"),
    [("app.log", "this user may not write to it"), (".", "this user may not rename files in ")],
)
def test_log_that_cannot_be_written(
    locked: str,
    reason: str,
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A log that this user may not write, or not rotate, is found."""
    (tmp_path / "app.log").touch()
    # root, who runs some test machines, may write everything
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path / locked)
    found = item(look(environ=environ), "log_path")
    assert found.status == "fail"
    assert reason in found.message


@posix
def test_log_at_a_device(environ: dict[str, str]) -> None:
    """What is no file needs neither rotation nor room."""
    environ["MTAIO_LOG_FILE"] = "/dev/null"
    items = look(environ=environ)
    assert remarkable(items) == {}
    assert not {"log_rotation", "log_space", "log_privacy"} & {each.name for each in items}


@pytest.mark.parametrize(("when", "older"), [("", "1"), ("midnight", "2026-12-01")])
def test_older_logs_are_room(
    environ: dict[str, str], tmp_path: Path, when: str, older: str
) -> None:
    """What the log occupies already is not needed again."""
    environ["MTAIO_LOG_WHEN"] = when
    (tmp_path / f"app.log.{older}").write_bytes(b"x" * 1000)
    before = psutil.disk_usage(str(tmp_path)).free
    environ["MTAIO_LOG_MAX_BYTES"] = str(before)
    found = item(look(environ=environ), "log_space")
    assert (found.status, found.remedy.split()[:2]) == ("fail", ["Lower", "MTAIO_LOG_MAX_BYTES"])


# ---- logging that others have set up -------------------------------------------------------------


def test_two_handlers_of_one_file(environ: dict[str, str], tmp_path: Path) -> None:
    """A file with a handler of the program's own and one of the settings' is found."""
    handler = logging.handlers.RotatingFileHandler(tmp_path / "app.log", delay=True)
    logger = logging.getLogger("tests.app.checklist")
    logger.addHandler(handler)
    try:
        found = item(look(application(environ), environ=environ), "log_handlers")
        alone = item(look(application(environ, logging=False), environ=environ), "log_handlers")
    finally:
        logger.removeHandler(handler)
    assert (found.status, alone.status) == ("fail", "ok")
    assert found.message.startswith(os.path.realpath(tmp_path / "app.log"))


def masking(handler: logging.Handler) -> logging.Handler:
    """Return a handler that masks secrets."""
    handler.addFilter(RedactingFilter())
    return handler


def test_logging_that_the_program_has_set_up(environ: dict[str, str]) -> None:
    """A log file of the settings that nothing writes is told, and not judged."""
    items = look(environ=environ, handlers=(masking(logging.NullHandler()),))
    assert remarkable(items) == {"unused_variables": "warn"}
    assert "MTAIO_LOG_FILE" in item(items, "unused_variables").message
    assert item(items, "log_path").message == "the program has set up logging itself"
    assert not {"log_rotation", "log_space", "log_privacy"} & {each.name for each in items}


def test_log_file_that_the_program_writes(environ: dict[str, str]) -> None:
    """A log file of the settings that the program's own handler writes is judged."""
    environ["MTAIO_LOG_BACKUP_COUNT"] = "0"
    own = masking(logging.FileHandler(environ["MTAIO_LOG_FILE"], delay=True))
    items = look(environ=environ, handlers=(own,))
    assert remarkable(items) == {"log_rotation": "warn"}


@pytest.mark.parametrize(
    ("level", "found"), [(logging.DEBUG, "log_level"), (logging.CRITICAL, "error_log")]
)
def test_level_that_the_program_has_set(level: int, found: str, environ: dict[str, str]) -> None:
    """Where the program has set logging up, the root logger's level counts."""
    environ["MTAIO_LOG_FILE"] = ""
    before = logging.getLogger().level
    logging.getLogger().setLevel(level)
    try:
        items = look(environ=environ, handlers=(masking(logging.NullHandler()),))
    finally:
        logging.getLogger().setLevel(before)
    assert list(remarkable(items)) == [found]
    assert f"level is {logging.getLevelName(level)}" in item(items, found).message


def test_logging_without_handlers(environ: dict[str, str]) -> None:
    """With logging left alone and no handler, errors are shown without a time."""
    environ["MTAIO_LOG_FILE"] = ""
    items = look(application(environ, logging=False), environ=environ)
    assert remarkable(items) == {"error_log": "warn"}


def test_handlers_that_show_secrets(environ: dict[str, str]) -> None:
    """Handlers that the settings do not replace should mask secrets."""
    handlers = (masking(logging.NullHandler()), logging.NullHandler())
    found = item(look(environ=environ, handlers=handlers), "log_masking")
    assert (found.status, found.message) == ("warn", "NullHandler writes secrets as they are")


@pytest.mark.parametrize("name", ["mtaio.errors", "mtaio"])
def test_logger_that_is_switched_off(
    name: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A logger that logging.config has switched off is found."""
    monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    found = item(look(environ=environ), "error_log")
    assert (found.status, found.message) == (
        "fail",
        f"the logger {name!r} is switched off, or leaves errors out",
    )


def test_python_in_development_mode(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's development mode is found, however it was switched on."""
    flags = SimpleNamespace(dev_mode=True)
    monkeypatch.setattr("mtaio.app._checklist.performance.sys", SimpleNamespace(flags=flags))
    assert item(look(environ=environ), "debug_mode").message == "-X dev: every call is slower"
    environ["PYTHONDEVMODE"] = "1"
    assert item(look(environ=environ), "debug_mode").message.startswith("PYTHONDEVMODE: ")


def test_sizes_are_shown_as_people_write_them(environ: dict[str, str]) -> None:
    """Sizes have units of a thousand, and the largest has no end."""
    environ["MTAIO_LOG_MAX_BYTES"] = str(10**18)
    assert "6e+06 TB" in item(look(environ=environ), "log_space").message
    assert item(look(environ=environ, memory=999), "memory").message.startswith("999 bytes, ")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_documentation_has_every_item(language: str) -> None:
    """The reference lists each item, in the order in which the report does."""
    page = (ROOT / "docs" / language / "reference" / "command-line.md").read_text(encoding="utf-8")
    table = page.partition('id="check"')[2].partition('id="check-json"')[0].partition("###")[2]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [row.name for row in ROWS]
