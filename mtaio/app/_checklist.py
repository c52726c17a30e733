"""
The checklist of the deployment guide, item by item, as far as a program can check it.

Promise: nothing is started, entered or written; addresses are bound for a moment, to see whether
they are free. Each item says what it found, and, unless all is well, what to do. What no program
can know is an item too, put to the operator as a question.
Cost: a few small files are read.

The limits it applies are the constants below: docs/en/reference/command-line.md has them.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import stat
import sys
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import psutil

from mtaio._internal import environment
from mtaio._internal.addresses import Address
from mtaio._internal.levels import level_number
from mtaio.app._machine import Machine
from mtaio.config import Settings, SettingsError, unknown_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mtaio.app import Application
    from mtaio.app._machine import Supervisor
    from mtaio.config import Setting

__all__ = ["SECTIONS", "CheckItem", "Section", "Status", "run_checks"]

Status: TypeAlias = Literal["ok", "warn", "fail", "ask"]
"""All is well; may be intended; does not work or is unsafe; only a person can tell."""

Section: TypeAlias = Literal["configuration", "monitoring", "errors", "performance", "security"]

SECTIONS: Final[tuple[Section, ...]] = (
    "configuration",
    "monitoring",
    "errors",
    "performance",
    "security",
)
"""The sections of the guide's checklist, in its order."""

_LEAST_MEMORY: Final = 512_000_000
"""Bytes; the guide's recommendation."""
_WORKERS_EACH: Final = 64
"""Workers for each processor, at most."""
_OWN_FILES: Final = 150
"""Files that are open besides those for requests: 100 connections to probes, the log, the loop."""
_FILES_EACH: Final = 2
"""Files for each request: its own connection, and one to where the answer comes from."""
_BURST_SECONDS: Final = 10
"""Seconds' worth of requests in a burst, at most."""
_ENTRY_BYTES: Final = 1024
"""What an entry of a cache is taken to need."""
_CACHE_SHARE: Final = 0.25
"""The share of the memory that a cache may need."""
_LEAST_DRAIN: Final = 1.0
"""Seconds that what is in flight must have, at least."""
_SHORTEST_TOKEN: Final = 16
_PERCENT: Final = 100

_HAS_MODES: Final = os.name == "posix"
"""Whether a file says what its owner, its group and everybody may do."""

_PATIENCE: Final[Mapping[Supervisor | None, tuple[float, str]]] = {
    "kubernetes": (30, "Kubernetes kills after 30 s by default (terminationGracePeriodSeconds)"),
    "docker": (10, "Docker kills after 10 s by default (stop_grace_period, --time)"),
    "systemd": (90, "systemd kills after 90 s by default (TimeoutStopSec)"),
    None: (30, "Kubernetes kills after 30 s by default"),
}
"""How many seconds the one who stops the service waits, and how that is said."""

_PARTS: Final = {
    "max_workers": ("executor", "max_workers"),
    "cache_ttl": ("cache", "default_ttl"),
    "cache_size": ("cache", "max_size"),
    "rate_limit": ("rate_limiter", "rate"),
    "burst_limit": ("rate_limiter", "burst"),
    "concurrency_limit": ("concurrency_limiter", "capacity"),
    "default_timeout": ("timeout_manager", "default_timeout"),
}
"""Which attribute of which part of an application has the value of a setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckItem:
    """One item of the checklist, and its status."""

    name: str
    """What is checked; always the same for the same item."""
    section: Section
    """The section of the guide's checklist."""
    status: Status
    """``"ok"``; ``"warn"``: look at it, it may be intended; ``"fail"``: it does not work, or is not
    safe; ``"ask"``: only a person can tell."""
    message: str
    """What was seen."""
    remedy: str
    """What to do; empty if there is nothing to do."""


def run_checks(
    app: Application | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    machine: Machine | None = None,
) -> list[CheckItem]:
    """
    Go through the checklist, and return its items in their order.

    The application is inspected, and neither started nor entered; its parts are created, as on
    first use. Each setting that is refused is an item as well; checks that need the settings are
    then left out. Not a checkpoint.

    Args:
        app: The application; None to check the settings and the machine alone.
        environ: The environment variables; None for those of the process. The application reads
            its settings from those of the process.
        machine: What the service may use; None to find out.

    Example:
        ```python
        from mtaio.app.check import run_checks

        failed = [item for item in run_checks() if item.status == "fail"]
        for item in failed:
            print(item.name, item.message, item.remedy)
        ```
    """
    if environ is None:
        environ = os.environ
    if machine is None:
        machine = Machine.read(environ)
    problems: list[_Finding] = []
    try:
        with warnings.catch_warnings():
            # The same is an item here, with what to do.
            warnings.filterwarnings("ignore", "variables that mtaio does not read", UserWarning)
            settings = Settings.from_env(environ) if app is None else app.settings
    except SettingsError as error:
        settings = Settings()
        problems = [_fail(each.message, each.remedy) for each in error.problems]
    look = _Look(settings, app, machine, environ)
    items = [_made("settings", "configuration", each) for each in problems]
    for row in _ROWS:
        if problems and row.needs_settings:
            continue
        found = row.look(look)
        if found is not None:
            items.append(_made(row.name, row.section, found))
    return items


class _Finding(NamedTuple):
    """How an item stands."""

    status: Status
    message: str
    remedy: str = ""


class _Look(NamedTuple):
    """What is looked at."""

    settings: Settings
    app: Application | None
    machine: Machine
    environ: Mapping[str, str]

    def value(self, name: str) -> _Value:
        """Return what counts for a setting: that of the part, if the program made it itself."""
        set_to = getattr(self.settings, name)
        if self.app is not None and name in _PARTS:
            part, attribute = _PARTS[name]
            used = getattr(getattr(self.app, part), attribute)
            used = math.inf if used is None else used
            if used != set_to:
                return _Value(f"{part}.{attribute}", used)
        return _Value(self.label(name), set_to)

    def label(self, name: str) -> str:
        """Return what an operator calls a setting: the variable, or what the program passes."""
        found = self._described(name)
        return name if found.source == "override" else found.variable

    def is_default(self, name: str) -> bool:
        """Return whether neither the operator nor the program has decided on a setting."""
        found = self._described(name)
        return found.source == "default" and self.value(name).label == found.variable

    def _described(self, name: str) -> Setting:
        return next(each for each in self.settings.describe() if each.name == name)

    def text(self, variable: str) -> str | None:
        """Return what a variable says, if it is set."""
        return environment.text(self.environ, variable)


class _Value(NamedTuple):
    """A value, and what it is called."""

    label: str
    value: float

    def __str__(self) -> str:
        return f"{self.label}={self.value:.10g}"


class _Row(NamedTuple):
    """One item of the checklist, and who looks at it."""

    name: str
    section: Section
    look: Callable[[_Look], _Finding | None]
    needs_settings: bool


_ROWS: Final[list[_Row]] = []


def _item(
    section: Section, *, needs_settings: bool = True
) -> Callable[[Callable[[_Look], _Finding | None]], Callable[[_Look], _Finding | None]]:
    """
    Put a function on the checklist, under its own name, in the order of this file.

    It returns None where there is nothing to look at.
    """

    def put(
        look: Callable[[_Look], _Finding | None],
    ) -> Callable[[_Look], _Finding | None]:
        name = look.__name__.removeprefix("_")
        _ROWS.append(_Row(name, section, look, needs_settings))
        return look

    return put


def _made(name: str, section: Section, found: _Finding) -> CheckItem:
    return CheckItem(
        name=name,
        section=section,
        status=found.status,
        message=found.message,
        remedy=found.remedy,
    )


def _ok(message: str) -> _Finding:
    return _Finding("ok", message)


def _warn(message: str, remedy: str) -> _Finding:
    return _Finding("warn", message, remedy)


def _fail(message: str, remedy: str) -> _Finding:
    return _Finding("fail", message, remedy)


def _ask(message: str, remedy: str) -> _Finding:
    return _Finding("ask", message, remedy)


# ---- configuration: environment variables --------------------------------------------------------


@_item("configuration")
def _settings(look: _Look) -> _Finding:
    described = look.settings.describe()
    decided = sum(each.source != "default" for each in described)
    return _ok(f"{len(described)} are valid, {decided} of them not the default")


@_item("configuration", needs_settings=False)
def _unknown_variables(look: _Look) -> _Finding:
    unknown = unknown_variables(look.environ)
    if not unknown:
        return _ok("each MTAIO_ variable is a setting")
    named = ", ".join(
        name if meant is None else f"{name} (did you mean {meant}?)"
        for name, meant in unknown.items()
    )
    remedy = "Correct or unset them."
    if look.machine.supervisor == "kubernetes":
        remedy += " Those of a Kubernetes service end with enableServiceLinks: false in the pod."
    return _warn(f"mtaio does not read {named}", remedy)


@_item("configuration")
def _unused_variables(look: _Look) -> _Finding | None:
    unused = [
        variable
        for each in look.settings.describe()
        if each.source not in {"environment", "file"}
        for variable in (each.variable, f"{each.variable}_FILE" if each.secret else "")
        if look.text(variable) is not None
    ]
    label = look.label("log_file")
    if label.isupper() and look.settings.log_file is not None and not _writes_log_file(look):
        unused.append(label)
    if not unused:
        return None
    return _warn(
        f"no effect: {', '.join(unused)}, because the program sets the value itself",
        "Unset it, or have the program use Settings.from_env().",
    )


@_item("configuration", needs_settings=False)
def _application(look: _Look) -> _Finding:
    app = look.app
    if app is None:
        return _ask(
            "which application is deployed? Its health checks, services and servers are unchecked",
            "Name it: mtaio check module:app",
        )
    resources, services, servers = len(app.resources), len(app.services), len(app.servers)
    return _ok(f"resources: {resources}, services: {services}, servers: {servers}")


@_item("configuration", needs_settings=False)
def _extras(look: _Look) -> _Finding | None:
    if look.app is None or not look.app.servers:
        return None
    if find_spec("hypercorn") is None:
        return _fail(
            "hypercorn, which serves HTTP, is not installed",
            "Install it with: pip install 'mtaio[app]'",
        )
    return _ok("hypercorn is installed")


# ---- configuration: limits of resources ----------------------------------------------------------


@_item("configuration", needs_settings=False)
def _processors(look: _Look) -> _Finding:
    processors = look.machine.processors
    if processors < 1:
        return _warn(
            f"{processors:.2g} of a processor: the event loop stalls once that is used up",
            "Allow at least one processor, or two if threads work beside the event loop.",
        )
    return _ok(f"{processors:g}")


@_item("configuration", needs_settings=False)
def _memory(look: _Look) -> _Finding:
    memory = look.machine.memory
    if memory < _LEAST_MEMORY:
        return _warn(
            f"{_bytes(memory)}, but {_bytes(_LEAST_MEMORY)} is recommended",
            "Raise the memory limit of the container, or use a larger machine.",
        )
    return _ok(_bytes(memory))


@_item("configuration")
def _open_files(look: _Look) -> _Finding:
    limit, requests = look.machine.open_files, look.value("concurrency_limit")
    least = requests.value + _OWN_FILES
    wanted = _FILES_EACH * requests.value + _OWN_FILES
    if limit is None or wanted <= limit:
        return _ok("no limit" if limit is None else f"{limit}, of which {wanted:.10g} are needed")
    remedy = f"Raise the limit (ulimit -n, LimitNOFILE=), or lower {requests.label}."
    if least > limit:
        return _fail(f"{limit} may be open, and {requests} needs {least:.10g}", remedy)
    return _warn(
        f"{limit} may be open, and {requests} needs {wanted:.10g} with a connection upstream each",
        remedy,
    )


@_item("configuration")
def _workers(look: _Look) -> _Finding:
    workers, processors = look.value("max_workers"), look.machine.processors
    most = max(1, math.floor(processors * _WORKERS_EACH))
    if workers.value > most:
        return _warn(
            f"{workers} on {processors:g} processors: more threads and memory, no gain",
            f"Set {workers.label} to {most} or less, unless nearly all of them wait.",
        )
    return _ok(f"{workers} on {processors:g} processors")


@_item("configuration")
def _shutdown(look: _Look) -> _Finding:
    budget = look.settings.shutdown
    label = look.label("shutdown_timeout")
    total = _seconds(budget.total)
    patience, who = _PATIENCE[look.machine.supervisor]
    if budget.total >= patience:
        return _warn(
            f"{label} is {total}, and {who}",
            f"Set {label} to {patience - max(1, patience // 6):g} or less, or have it wait longer.",
        )
    if budget.drain < _LEAST_DRAIN:
        return _warn(
            f"{label} leaves {_seconds(budget.drain)} for what is in flight",
            f"Raise {label}.",
        )
    return _ok(f"{total} in all, {_seconds(budget.drain)} of them for what is in flight")


@_item("configuration")
def _drain_delay(look: _Look) -> _Finding:
    delay = look.settings.drain_delay
    if not delay and look.machine.supervisor == "kubernetes":
        label = look.label("drain_delay")
        return _warn(
            f"{label}=0: requests still arrive for seconds after Kubernetes has sent SIGTERM",
            f"Set {label}=5, unless a preStop hook waits.",
        )
    return _ok(f"{_seconds(delay)} between not ready and accepting nothing more")


# ---- configuration: logging ----------------------------------------------------------------------


def _configures(look: _Look) -> bool:
    """Return whether the handlers will be those of the settings."""
    wanted = None if look.app is None else look.app._configures  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
    return not logging.getLogger().handlers if wanted is None else wanted


def _writes_log_file(look: _Look) -> bool:
    """Return whether the log file of the settings is written at all."""
    if _configures(look):
        return True
    path = os.path.realpath(look.settings.log_file or "")
    return path in {os.path.realpath(each) for each in _files_of_handlers()}


def _files_of_handlers() -> Iterator[str]:
    """Yield the file of each handler of any logger that writes to one."""
    known = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    loggers = [each for each in known if isinstance(each, logging.Logger)]
    handlers = {id(handler): handler for each in loggers for handler in each.handlers}
    for handler in handlers.values():
        name = getattr(handler, "baseFilename", None)
        if name is not None:
            yield str(name)


def _log_file(look: _Look) -> Path | None:
    """Return the log file; None if there is none, or it is a device, a pipe or the like."""
    if look.settings.log_file is None or not _writes_log_file(look):
        return None
    path = Path(look.settings.log_file).absolute()
    try:
        mode = path.stat().st_mode
    except OSError:
        return path
    return path if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else None


def _log_threshold(look: _Look) -> tuple[str, int]:
    """Return the least level that is logged, and what it is called."""
    if _configures(look):
        level = look.settings.log_level
        return f"{look.label('log_level')}={level}", level_number("log_level", level)
    level = logging.getLogger().level
    return f"the root logger's level is {logging.getLevelName(level)}", level


def _rotates(look: _Look) -> bool:
    return bool(look.settings.log_max_bytes and look.settings.log_backup_count)


@_item("configuration")
def _log_level(look: _Look) -> _Finding:
    said, level = _log_threshold(look)
    if level < logging.INFO:
        return _warn(f"{said}: slow, large, and full of data", "Set it to INFO in production.")
    return _ok(logging.getLevelName(level))


@_item("configuration")
def _log_rotation(look: _Look) -> _Finding | None:
    if _log_file(look) is None:
        return None
    if _rotates(look):
        settings = look.settings
        return _ok(f"{settings.log_backup_count} older files of {_bytes(settings.log_max_bytes)}")
    label = look.label("log_backup_count" if look.settings.log_max_bytes else "log_max_bytes")
    return _warn(
        f"{label}=0: the log file grows without end",
        f"Set {label}, unless something else rotates the file.",
    )


@_item("configuration")
def _log_path(look: _Look) -> _Finding:
    path, label = _log_file(look), look.label("log_file")
    if path is None:
        if not _writes_log_file(look):
            return _ok("the program has set up logging itself")
        return _ok(str(look.settings.log_file or "none, the log is not written to a file"))
    trouble = _why_not_written(path, rotates=_rotates(look))
    if trouble is not None:
        return _fail(f"{label}={path}: {trouble[0]}", trouble[1])
    if not Path(look.settings.log_file or "").is_absolute():
        return _warn(
            f"{label}={look.settings.log_file} depends on the folder that the service starts in",
            f"Set {label}={path}",
        )
    return _ok(f"{path} can be written")


def _why_not_written(path: Path, *, rotates: bool) -> tuple[str, str] | None:
    """Return why a log cannot be written, and what to do."""
    folder = path.parent
    if path.is_dir():
        return "it is a folder", "Name a file in it."
    if not folder.is_dir():
        return (
            f"there is no folder {folder}",
            "Create it, and give it to the user that the service runs as.",
        )
    way_out = "Give it to the user that the service runs as, or run the check as that user."
    if not os.access(path if path.exists() else folder, os.W_OK):
        return "this user may not write to it", way_out
    if rotates and not os.access(folder, os.W_OK):
        return f"this user may not rename files in {folder}, as rotation does", way_out
    return None


@_item("configuration")
def _log_space(look: _Look) -> _Finding | None:
    path = _log_file(look)
    if path is None or not _rotates(look) or not path.parent.is_dir():
        return None
    count, size = look.settings.log_backup_count, look.settings.log_max_bytes
    needed = (count + 1) * size
    there = sum(
        each.stat().st_size
        for each in (path, *(Path(f"{path}.{number}") for number in range(1, min(count, 999) + 1)))
        if each.is_file()
    )
    room = psutil.disk_usage(str(path.parent)).free + there
    if needed > room:
        return _fail(
            f"the log may grow to {_bytes(needed)}, but there is room for {_bytes(room)}",
            f"Lower {look.label('log_max_bytes')} or {look.label('log_backup_count')}, "
            f"or make room in {path.parent}.",
        )
    return _ok(f"{_bytes(needed)} at most, and there is room for {_bytes(room)}")


@_item("configuration")
def _log_handlers(look: _Look) -> _Finding:
    writers = [os.path.realpath(each) for each in _files_of_handlers()]
    path = _log_file(look)
    if path is not None and _configures(look):
        writers.append(os.path.realpath(path))
    shared = sorted({each for each in writers if writers.count(each) > 1})
    if shared:
        return _fail(
            f"{', '.join(shared)} has two handlers: each rotates it under the other",
            "Keep one handler, on the root logger.",
        )
    return _ok("each log file has one handler")


# ---- monitoring ----------------------------------------------------------------------------------


@_item("monitoring")
def _health_checks(look: _Look) -> _Finding | None:
    if look.app is None:
        return None
    count = look.app.health.statistics().checks
    if not count:
        return _warn(
            "none: ready only means that the event loop answers",
            'Add one for what a request needs: @app.health_check("database").',
        )
    return _ok(f"{count} registered")


@_item("monitoring")
def _probes(look: _Look) -> _Finding | None:
    if look.app is None:
        return None
    if look.app.probes is None:
        return _warn(
            "off: /livez, /readyz and /metrics are not served",
            "Leave out probes=False, or serve mtaio.monitoring.asgi.health_app yourself.",
        )
    return _ok(f"/livez, /readyz and /metrics at {look.settings.health_bind}")


@_item("monitoring")
def _probe_address(look: _Look) -> _Finding | None:
    address = _health_address(look)
    if address is None:
        return None
    label = look.label("health_bind")
    if not address.port:
        return _warn(f"{label}={address} is another port each time", f"Give {label} a fixed port.")
    if look.machine.supervisor == "kubernetes" and address.is_local:
        return _warn(
            f"{label}={address}: the kubelet probes from outside the pod, and gets no answer",
            f"Set {label}=0.0.0.0:{address.port}, and a token with MTAIO_HEALTH_TOKEN_FILE.",
        )
    return _ok(str(address))


@_item("monitoring")
def _thresholds(look: _Look) -> _Finding:
    app = look.app
    limits = (
        {"cpu_usage": look.settings.cpu_threshold, "memory_usage": look.settings.memory_threshold}
        if app is None
        else {each.metric: each.value for each in app.monitor.thresholds}
    )
    percents = ("cpu_usage", "memory_usage")
    effective = {k: v for k, v in limits.items() if k not in percents or v < _PERCENT}
    if not effective:
        return _warn(
            "none: nothing raises an alert",
            "Set MTAIO_CPU_THRESHOLD=80 and MTAIO_MEMORY_THRESHOLD=90.",
        )
    return _ok(", ".join(f"{name} {value:g}" for name, value in effective.items()))


@_item("monitoring")
def _alerts(look: _Look) -> _Finding | None:
    app = look.app
    if app is None:
        return None
    count = app.emitter.listener_count("monitor.threshold_exceeded")
    if not count:
        return _ask(
            "who receives alerts? The emitter has no listener for them",
            'Send it on in @app.emitter.on("monitor.threshold_exceeded"), or set alerts up in '
            "Prometheus.",
        )
    return _ok(f"monitor.threshold_exceeded has listeners: {count}")


# ---- errors --------------------------------------------------------------------------------------


@_item("errors")
def _error_handler(look: _Look) -> _Finding | None:
    if look.app is None:
        return None
    handler = vars(look.app).get("error_handler")  # the usual one is slow to make: it masks secrets
    if handler is None:
        return _ok("ErrorHandler")
    methods = ("report", "handle_error")
    if not any(callable(getattr(handler, method, None)) for method in methods):
        return _fail(
            f"{type(handler).__name__} has neither report(error, context) nor handle_error",
            "Pass an ErrorHandler as error_handler=, or None for the usual one.",
        )
    return _ok(type(handler).__name__)


@_item("errors")
def _services(look: _Look) -> _Finding | None:
    if look.app is None or not look.app.services:
        return None
    once = [each for each in look.app.services if each.restart is None or each.restart == 1]
    lost = [each.name for each in once if not each.critical]
    if lost:
        return _warn(
            f"{', '.join(lost)}: it ends at the first error, and the rest carries on without it",
            "Give it restart=Retry(...), or leave out critical=False.",
        )
    if once:
        return _warn(
            f"{', '.join(each.name for each in once)}: the first error stops the application",
            "Give it restart=Retry(...), or critical=False if the rest can do without it.",
        )
    return _ok("each is restarted after an error")


@_item("errors")
def _error_log(look: _Look) -> _Finding:
    settings = look.settings
    if _configures(look) and settings.log_file is None and not settings.log_console:
        return _fail(
            "the log goes nowhere: there is no file, and no console",
            f"Set {look.label('log_file')}, or {look.label('log_console')}=1.",
        )
    said, level = _log_threshold(look)
    if level > logging.ERROR:
        return _fail(f"{said}: errors are left out", "Set it to INFO.")
    for name in ("mtaio.errors", "mtaio.app", "mtaio", ""):
        if not _logs_errors(logging.getLogger(name)):
            return _fail(
                f"the logger {name or 'root'!r} is switched off, or leaves errors out",
                "In logging.config pass disable_existing_loggers=False, and no level above ERROR.",
            )
    if not _configures(look) and not logging.getLogger().handlers:
        return _warn(
            "no logger has a handler: errors go to the standard error, without a time",
            "Leave out logging=False, or set logging up before the application starts.",
        )
    return _ok("errors are in the log")


def _logs_errors(logger: logging.Logger) -> bool:
    return not logger.disabled and logger.isEnabledFor(logging.ERROR)


@_item("errors", needs_settings=False)
def _recovery(_: _Look) -> _Finding:
    return _ask(
        "are there written instructions for when the service does not come back?",
        "Write a page for the person on call: how to restart, how to roll back, whom to ask.",
    )


# ---- performance ---------------------------------------------------------------------------------


@_item("performance")
def _cache_ttl(look: _Look) -> _Finding:
    ttl = look.value("cache_ttl")
    if not ttl.value:
        return _warn(f"{ttl}: the cache keeps nothing", f"Set {ttl.label} to a number of seconds.")
    if ttl.value == math.inf:
        return _warn(
            f"{ttl}: changes made elsewhere are never seen",
            f"Set {ttl.label} to how old an answer may be.",
        )
    return _ok(f"{_seconds(ttl.value)}")


@_item("performance")
def _cache_size(look: _Look) -> _Finding:
    size, memory = look.value("cache_size"), look.machine.memory
    if size.value == math.inf:
        return _warn(f"{size}: the cache grows without end", f"Set {size.label}.")
    needed = int(size.value) * _ENTRY_BYTES
    if needed > memory * _CACHE_SHARE:
        most = int(memory * _CACHE_SHARE) // _ENTRY_BYTES
        return _warn(
            f"{size} is {_bytes(needed)} of {_bytes(memory)}, if an entry needs 1 KiB",
            f"Set {size.label} to {most} or less, unless entries are smaller.",
        )
    return _ok(f"{int(size.value)} entries, {_bytes(needed)} if one needs 1 KiB")


@_item("performance")
def _rate(look: _Look) -> _Finding:
    rate = look.value("rate_limit")
    if not rate.value:
        return _fail(f"{rate}: no request is ever let through", f"Set {rate.label}.")
    if rate.value == math.inf:
        return _warn(f"{rate}: no limit", f"Set {rate.label} to what the service can take.")
    return _ok(f"{rate.value:g} a second")


@_item("performance")
def _burst(look: _Look) -> _Finding:
    burst, rate = look.value("burst_limit"), look.value("rate_limit")
    if burst.value > rate.value * _BURST_SECONDS > 0:
        return _warn(
            f"{burst} lets {burst.value / rate.value:.0f} seconds' worth of requests start at once",
            f"Set {burst.label} to {rate.value * _BURST_SECONDS:g} or less.",
        )
    return _ok(f"{burst.value:g} at once after a quiet period")


@_item("performance")
def _concurrency(look: _Look) -> _Finding:
    limit, workers = look.value("concurrency_limit"), look.value("max_workers")
    if limit.value < workers.value:
        return _warn(
            f"{limit} is less than {workers}: workers wait for each other",
            f"Set {workers.label} to {limit.value:g}, or raise {limit.label}.",
        )
    return _ok(f"{limit.value:g} requests at once")


@_item("performance")
def _timeout(look: _Look) -> _Finding:
    timeout, drain = look.value("default_timeout"), look.settings.shutdown.drain
    if timeout.value == math.inf:
        return _warn(f"{timeout}: a request may hang for ever", f"Set {timeout.label}, in seconds.")
    if timeout.value > drain:
        # While both are defaults nobody has decided anything: that is a question, and no mistake.
        undecided = look.is_default("default_timeout") and look.is_default("shutdown_timeout")
        return (_ask if undecided else _warn)(
            f"{timeout} is longer than the {_seconds(drain)} that a shutdown waits for requests",
            f"Set {timeout.label} to {math.floor(drain) or drain:g} or less, or raise "
            f"{look.label('shutdown_timeout')}.",
        )
    return _ok(f"{_seconds(timeout.value)}, and a shutdown waits for {_seconds(drain)}")


@_item("performance", needs_settings=False)
def _debug_mode(look: _Look) -> _Finding:
    on = [name for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE") if look.text(name) is not None]
    if sys.flags.dev_mode and "PYTHONDEVMODE" not in on:
        on.append("-X dev")
    if on:
        return _warn(f"{', '.join(on)}: every call is slower", "Leave it out in production.")
    return _ok("Python runs without its debug modes")


# ---- security ------------------------------------------------------------------------------------


def _health_address(look: _Look) -> Address | None:
    """Return where probes are to be answered, if they are."""
    if look.app is not None and look.app.probes is None:
        return None
    return Address.parse("health_bind", look.settings.health_bind)


def _token_source(look: _Look) -> str:
    return next(each.source for each in look.settings.describe() if each.secret)


@_item("security")
def _token(look: _Look) -> _Finding:
    token, address = look.settings.health_token, look.settings.health_bind
    if token is None:
        return _ok(f"none, and only this machine reaches {address}")
    if len(token) < _SHORTEST_TOKEN:
        return _fail(
            f"the token for {address} has only {len(token)} characters and can be guessed",
            "Make one with: openssl rand -hex 32",
        )
    if _token_source(look) == "environment":
        return _warn(
            "MTAIO_HEALTH_TOKEN is a plain variable: child processes and docker inspect see it",
            "Put it in a file, and set MTAIO_HEALTH_TOKEN_FILE to its path.",
        )
    return _ok("from a file" if _token_source(look) == "file" else "from the program")


@_item("security")
def _token_file(look: _Look) -> _Finding | None:
    if _token_source(look) != "file" or not _HAS_MODES:
        return None
    path = Path(look.text("MTAIO_HEALTH_TOKEN_FILE") or "")
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH:
        return _fail(f"{path} can be written by any user", f"chmod 400 {path}")
    if mode & stat.S_IROTH and not look.machine.container:
        return _warn(f"{path} can be read by any user", f"chmod 400 {path}")
    return _ok(f"{path} ({stat.filemode(mode)})")


@_item("security")
def _log_privacy(look: _Look) -> _Finding | None:
    path = _log_file(look)
    if path is None or not path.parent.is_dir() or path.is_dir() or not _HAS_MODES:
        return None
    if path.exists():
        mode, tense = path.stat().st_mode, "is"
    else:
        mode, tense = 0o666 & ~look.machine.umask, "will be"
    if mode & stat.S_IWOTH:
        return _fail(f"{path} {tense} writable by any user", _privately(path))
    reachable = all(each.stat().st_mode & stat.S_IXOTH for each in path.parents)
    if mode & stat.S_IROTH and reachable and not look.machine.container:
        return _warn(f"{path} {tense} readable by any user", _privately(path))
    return _ok("other users cannot read the log")


def _privately(path: Path) -> str:
    change = f"chmod 640 {path}, and " if path.exists() else ""
    return f"{change}UMask=0027 in the unit (umask 027 in a shell), so that new files are private."


@_item("security")
def _log_masking(look: _Look) -> _Finding:
    if _configures(look):
        return _ok("secrets are masked in the log")
    from mtaio.logging import RedactingFilter  # noqa: PLC0415 - only for what others have set up

    bare = [
        type(each).__name__
        for each in logging.getLogger().handlers
        if not any(isinstance(one, RedactingFilter) for one in each.filters)
    ]
    if bare:
        return _warn(
            f"{', '.join(bare)} writes secrets as they are",
            "Add a RedactingFilter to it, or leave logging to the application.",
        )
    return _ok("secrets are masked in the log")


@_item("security", needs_settings=False)
def _user(look: _Look) -> _Finding:
    if look.machine.root:
        return _warn(
            "root: an attacker who takes over the service has the machine",
            "Run it as its own user (User= in the unit, USER in the Dockerfile).",
        )
    return _ok("not root")


@_item("security")
def _servers(look: _Look) -> _Finding | None:
    if look.app is None or not look.app.servers:
        return None
    public = [
        f"{each.name} ({each.address})"
        for each in _served(look)
        if not each.address.is_local and not each.encrypted
    ]
    if public and not look.machine.container:
        return _warn(
            f"{', '.join(public)} can be reached from other machines, without encryption",
            "Bind to 127.0.0.1 behind a proxy with TLS, or give hypercorn a certificate.",
        )
    return _ok("open to the network of the container" if public else "local, or encrypted")


@_item("security")
def _ports(look: _Look) -> _Finding:
    own = _health_address(look)
    wanted = [*_served(look), *([] if own is None else [_Served("probes", own)])]
    for one, other in combinations(wanted, 2):
        port = one.address.port
        if port == other.address.port != 0 and _meet(one.address.host, other.address.host):
            return _fail(f"{one.name} and {other.name} both want port {port}", "Move one of them.")
    for each in wanted:
        refused = _refused(each.address)
        if refused is not None:
            return _fail(f"{each.name} cannot listen at {each.address}: {refused[0]}", refused[1])
    free = ", ".join(map(str, wanted))
    return _ok(f"free: {free}" if free else "none is needed")


class _Served(NamedTuple):
    """What listens at an address and a port."""

    name: str
    address: Address
    encrypted: bool = False

    def __str__(self) -> str:
        where = str(self.address)
        return where if self.name == where else f"{self.name} {where}"


def _served(look: _Look) -> list[_Served]:
    """Return the servers, without those that listen at a socket file or the like."""
    found: list[_Served] = []
    for each in [] if look.app is None else look.app.registered.servers:
        try:
            address = Address.parse("bind", each.info.bind)
        except ValueError:
            continue
        encrypted = bool(getattr(each.config, "ssl_enabled", False))
        found.append(_Served(each.info.name, address, encrypted))
    return found


def _meet(one: str, other: str) -> bool:
    """Return whether two hosts with the same port are in each other's way."""
    return one == other or not {one, other}.isdisjoint({"0.0.0.0", "::"})  # noqa: S104 - compared


def _refused(address: Address) -> tuple[str, str] | None:
    """Return why an address cannot be listened at, and what to do."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            if os.name == "posix":  # pragma: no branch - elsewhere it would share the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        remedies = {
            errno.EADDRINUSE: "Stop what listens there: the service itself, or another program.",
            errno.EACCES: "Use a port from 1024 on, or give the service CAP_NET_BIND_SERVICE.",
        }
        reason = error.strerror or str(error)
        return reason, remedies.get(error.errno or 0, "Use an address of this machine.")
    return None


@_item("security")
def _access(look: _Look) -> _Finding | None:
    if look.app is None or not look.app.servers:
        return None
    return _ask(
        "who may call the servers? mtaio does not authenticate callers",
        "Authenticate callers in the application, or in a proxy in front of it.",
    )


# ---- words ---------------------------------------------------------------------------------------


def _seconds(value: float) -> str:
    return f"{value:.3g} s"


def _bytes(value: float) -> str:
    """Return a size as people write it: 512 MB."""
    units = ["TB", "GB", "MB", "kB", "bytes"]
    while value >= 1000 and len(units) > 1:  # noqa: PLR2004 - as the units go
        value /= 1000
        units.pop()
    return f"{value:.3g} {units[-1]}"
