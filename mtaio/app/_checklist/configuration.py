"""The checklist, configuration: environment variables, limits of resources, the log."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mtaio._internal import environment
from mtaio.app._checklist._item import ask, check, fail, ok, warn
from mtaio.app._checklist._look import (
    configures,
    files_of_handlers,
    in_bytes,
    in_seconds,
    log_file,
    log_threshold,
    rotates,
    writes_log_file,
)
from mtaio.config import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtaio.app._checklist._item import Finding
    from mtaio.app._checklist._look import Look
    from mtaio.app._machine import Supervisor

_LEAST_MEMORY: Final = 512_000_000
"""Bytes; the guide's recommendation."""

_WORKERS_EACH: Final = 64
"""Workers for each processor, at most."""

_OWN_FILES: Final = 150
"""Files that are open besides those for requests: 100 connections to probes, the log, the loop."""

_FILES_EACH: Final = 2
"""Files for each request: its own connection, and one to where the answer comes from."""

_LEAST_DRAIN: Final = 1.0
"""Seconds that what is in flight must have, at least."""

_PATIENCE: Final[Mapping[Supervisor | None, tuple[float, str]]] = {
    "kubernetes": (30, "Kubernetes kills after 30 s by default (terminationGracePeriodSeconds)"),
    "docker": (10, "Docker kills after 10 s by default (stop_grace_period, --time)"),
    "systemd": (90, "systemd kills after 90 s by default (TimeoutStopSec)"),
    None: (30, "Kubernetes kills after 30 s by default"),
}
"""How many seconds the one who stops the service waits, and how that is said."""


@check("configuration")
def settings(look: Look) -> Finding:
    described = look.settings.describe()
    decided = sum(each.source != "default" for each in described)
    return ok(f"{len(described)} are valid, {decided} of them not the default")


@check("configuration", needs_settings=False)
def unknown_variables(look: Look) -> Finding:
    known = [
        variable
        for each in Settings().describe()
        for variable in (each.variable, *([f"{each.variable}_FILE"] if each.secret else []))
    ]
    known.append(environment.WORKER)
    unknown = environment.unknown(look.environ, known)
    if not unknown:
        return ok("each MTAIO_ variable is a setting")
    named = ", ".join(
        name if meant is None else f"{name} (did you mean {meant}?)"
        for name, meant in unknown.items()
    )
    remedy = "Correct or unset them."
    if look.machine.supervisor == "kubernetes":
        remedy += (
            " If they come from a Kubernetes service, set enableServiceLinks: false in the pod."
        )
    return warn(f"mtaio does not read {named}", remedy)


@check("configuration")
def unused_variables(look: Look) -> Finding | None:
    unused = [
        variable
        for each in look.settings.describe()
        if each.source not in {"environment", "file"}
        for variable in (each.variable, f"{each.variable}_FILE" if each.secret else "")
        if look.text(variable) is not None
    ]
    label = look.label("log_file")
    if label.isupper() and look.settings.log_file is not None and not writes_log_file(look):
        unused.append(label)
    if not unused:
        return None
    return warn(
        f"no effect: {', '.join(unused)}, because the program sets the value itself",
        "Unset it, or have the program use Settings.from_env().",
    )


@check("configuration", needs_settings=False)
def application(look: Look) -> Finding:
    app = look.app
    if app is None:
        return ask(
            "which application is deployed? Its health checks, services and servers are unchecked",
            "Name it: mtaio check module:app",
        )
    resources, services, servers = len(app.resources), len(app.services), len(app.servers)
    jobs = f", jobs: {len(app.jobs)}" if app.jobs else ""
    return ok(f"resources: {resources}, services: {services}, servers: {servers}{jobs}")


@check("configuration", needs_settings=False)
def extras(look: Look) -> Finding | None:
    if look.app is None or not look.app.servers:
        return None
    if find_spec("hypercorn") is None:
        return fail(
            "hypercorn, which serves HTTP, is not installed",
            "Install it with: pip install 'mtaio[app]'",
        )
    return ok("hypercorn is installed")


@check("configuration", needs_settings=False)
def processors(look: Look) -> Finding:
    processors = look.machine.processors
    if processors < 1:
        return warn(
            f"{processors:.2g} of a processor: the event loop stalls once that is used up",
            "Allow at least one processor, or two if threads work beside the event loop.",
        )
    return ok(f"{processors:g}")


@check("configuration", needs_settings=False)
def memory(look: Look) -> Finding:
    memory = look.machine.memory
    if memory < _LEAST_MEMORY:
        return warn(
            f"{in_bytes(memory)}, but {in_bytes(_LEAST_MEMORY)} is recommended",
            "Raise the memory limit of the container, or use a larger machine.",
        )
    return ok(in_bytes(memory))


@check("configuration")
def open_files(look: Look) -> Finding:
    limit, requests = look.machine.open_files, look.value("concurrency_limit")
    least = requests.value + _OWN_FILES
    wanted = _FILES_EACH * requests.value + _OWN_FILES
    if limit is None or wanted <= limit:
        return ok("no limit" if limit is None else f"{limit}, of which {wanted:.10g} are needed")
    remedy = f"Raise the limit (ulimit -n, LimitNOFILE=), or lower {requests.label}."
    if least > limit:
        return fail(f"{limit} may be open, and {requests} needs {least:.10g}", remedy)
    return warn(
        f"{limit} may be open, and {requests} needs {wanted:.10g} with an upstream connection for "
        f"each",
        remedy,
    )


@check("configuration")
def workers(look: Look) -> Finding:
    workers, processors = look.value("max_workers"), look.machine.processors
    most = max(1, math.floor(processors * _WORKERS_EACH))
    if workers.value > most:
        return warn(
            f"{workers} on {processors:g} processors: more threads and memory, no gain",
            f"Set {workers.label} to {most} or less, unless nearly all of them wait.",
        )
    return ok(f"{workers} on {processors:g} processors")


@check("configuration")
def processes(look: Look) -> Finding | None:
    count, processors = look.value("workers"), look.machine.processors
    if count.value == 1:
        return None
    if not count.label.isupper():
        return warn(
            f"{count} has no effect: mtaio run starts its workers before it knows the program",
            "Set MTAIO_WORKERS, or pass --workers.",
        )
    if sys.platform == "win32":
        return fail(f"{count}: there are no workers on Windows", f"Unset {count.label}.")
    if look.app is not None and look.app.jobs:
        return fail(
            f"{count}, and each would run the whole job {look.app.jobs[0].name!r}",
            f"Unset {count.label}.",
        )
    most = max(1, math.floor(processors))
    if count.value > most:
        return warn(
            f"{count} on {processors:g} processors: more memory, no gain",
            f"Set {count.label} to {most} or less.",
        )
    return ok(f"{count} on {processors:g} processors")


@check("configuration")
def shutdown(look: Look) -> Finding:
    budget = look.settings.shutdown
    label = look.label("shutdown_timeout")
    total = in_seconds(budget.total)
    patience, who = _PATIENCE[look.machine.supervisor]
    if budget.total >= patience:
        return warn(
            f"{label} is {total}, and {who}",
            f"Set {label} to {patience - max(1, patience // 6):g} or less, or let the platform "
            f"wait longer.",
        )
    if budget.drain < _LEAST_DRAIN:
        return warn(
            f"{label} leaves {in_seconds(budget.drain)} for work in flight",
            f"Raise {label}.",
        )
    return ok(f"{total} in total, {in_seconds(budget.drain)} of it for work in flight")


@check("configuration")
def drain_delay(look: Look) -> Finding:
    delay = look.settings.drain_delay
    if not delay and look.machine.supervisor == "kubernetes":
        label = look.label("drain_delay")
        return warn(
            f"{label}=0: requests still arrive for seconds after Kubernetes has sent SIGTERM",
            f"Set {label}=5, unless a preStop hook waits.",
        )
    return ok(f'{in_seconds(delay)} between "not ready" and accepting no more connections')


@check("configuration")
def log_level(look: Look) -> Finding:
    said, level = log_threshold(look)
    if level < logging.INFO:
        return warn(f"{said}: slow, large, and full of data", "Set it to INFO in production.")
    return ok(logging.getLevelName(level))


@check("configuration")
def log_rotation(look: Look) -> Finding | None:
    if log_file(look) is None:
        return None
    settings = look.settings
    count, size, when = settings.log_backup_count, settings.log_max_bytes, settings.log_when
    if rotates(look):
        said = [f"of {in_bytes(size)}"] if size else []
        said += [f"by {look.label('log_when')}={when}"] if when else []
        return ok(f"{count} older files {', '.join(said)}")
    label = look.label("log_backup_count" if size or when else "log_max_bytes")
    return warn(
        f"{label}=0: the log file grows without end",
        f"Set {label}, unless something else rotates the file.",
    )


@check("configuration")
def log_path(look: Look) -> Finding:
    path, label = log_file(look), look.label("log_file")
    if path is None:
        if not writes_log_file(look):
            return ok("the program has set up logging itself")
        return ok(str(look.settings.log_file or "none, the log is not written to a file"))
    trouble = _why_not_written(path, rotates=rotates(look))
    if trouble is not None:
        return fail(f"{label}={path}: {trouble[0]}", trouble[1])
    if not Path(look.settings.log_file or "").is_absolute():
        return warn(
            f"{label}={look.settings.log_file} depends on the folder that the service starts in",
            f"Set {label}={path}",
        )
    return ok(f"{path} can be written")


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


@check("configuration")
def log_space(look: Look) -> Finding | None:
    path = log_file(look)
    count, size = look.settings.log_backup_count, look.settings.log_max_bytes
    if path is None or not rotates(look) or not size or not path.parent.is_dir():
        return None
    needed = (count + 1) * size
    if look.settings.log_when:
        older = [each for each in path.parent.iterdir() if each.name.startswith(f"{path.name}.")]
    else:
        older = [Path(f"{path}.{number}") for number in range(1, min(count, 999) + 1)]
    there = sum(each.stat().st_size for each in (path, *older) if each.is_file())
    room = shutil.disk_usage(path.parent).free + there
    if needed > room:
        return fail(
            f"the log may grow to {in_bytes(needed)}, but there is room for {in_bytes(room)}",
            f"Lower {look.label('log_max_bytes')} or {look.label('log_backup_count')}, "
            f"or make room in {path.parent}.",
        )
    return ok(f"{in_bytes(needed)} at most, and there is room for {in_bytes(room)}")


@check("configuration")
def log_handlers(look: Look) -> Finding:
    writers = [os.path.realpath(each) for each in files_of_handlers()]
    path = log_file(look)
    if path is not None and configures(look):
        writers.append(os.path.realpath(path))
    shared = sorted({each for each in writers if writers.count(each) > 1})
    if shared:
        return fail(
            f"{', '.join(shared)} has two handlers: each rotates the file while the other writes "
            f"to it",
            "Keep one handler, on the root logger.",
        )
    return ok("each log file has one handler")
