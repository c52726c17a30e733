"""What the items of the checklist look at, and what several of them want to know of it."""

from __future__ import annotations

import logging
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mtaio._internal import environment
from mtaio._internal.addresses import Address
from mtaio._internal.levels import level_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtaio.app import Application
    from mtaio.app._machine import Machine
    from mtaio.config import Setting, Settings

__all__ = [
    "Look",
    "Value",
    "configures",
    "files_of_handlers",
    "health_address",
    "in_bytes",
    "in_seconds",
    "log_file",
    "log_threshold",
    "rotates",
    "writes_log_file",
]

_PARTS: Final = {
    "max_workers": ("executor", "max_workers"),
    "cache_ttl": ("cache", "default_ttl"),
    "cache_size": ("cache", "max_size"),
    "rate_limit": ("rate_limiter", "rate"),
    "burst_limit": ("rate_limiter", "burst"),
    "concurrency_limit": ("concurrency_limiter", "limit"),
    "default_timeout": ("timeout_manager", "default_timeout"),
}
"""Which attribute of which part of an application has the value of a setting."""


class Look(NamedTuple):
    """What is looked at."""

    settings: Settings
    app: Application | None
    machine: Machine
    environ: Mapping[str, str]

    def value(self, name: str) -> Value:
        """Return what counts for a setting: that of the part, if the program made it itself."""
        set_to = getattr(self.settings, name)
        if self.app is not None and name in _PARTS:
            part, attribute = _PARTS[name]
            used = getattr(getattr(self.app, part), attribute)
            used = math.inf if used is None else used
            if used != set_to:
                return Value(f"{part}.{attribute}", used)
        return Value(self.label(name), set_to)

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


class Value(NamedTuple):
    """A value, and what it is called."""

    label: str
    value: float

    def __str__(self) -> str:
        return f"{self.label}={self.value:.10g}"


def health_address(look: Look) -> Address | None:
    """Return where probes are to be answered, if they are."""
    if look.app is not None and look.app.probes is None:
        return None
    return Address.parse("health_bind", look.settings.health_bind)


# ---- the log ----


def configures(look: Look) -> bool:
    """Return whether the handlers will be those of the settings."""
    wanted = None if look.app is None else look.app._configures  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
    return not logging.getLogger().handlers if wanted is None else wanted


def writes_log_file(look: Look) -> bool:
    """Return whether the log file of the settings is written at all."""
    if configures(look):
        return True
    path = os.path.realpath(look.settings.log_file or "")
    return path in {os.path.realpath(each) for each in files_of_handlers()}


def files_of_handlers() -> Iterator[str]:
    """Yield the file of each handler of any logger that writes to one."""
    known = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    loggers = [each for each in known if isinstance(each, logging.Logger)]
    handlers = {id(handler): handler for each in loggers for handler in each.handlers}
    for handler in handlers.values():
        name = getattr(handler, "baseFilename", None)
        if name is not None:
            yield str(name)


def log_file(look: Look) -> Path | None:
    """Return the log file; None if there is none, or it is a device, a pipe or the like."""
    if look.settings.log_file is None or not writes_log_file(look):
        return None
    path = Path(look.settings.log_file).absolute()
    try:
        mode = path.stat().st_mode
    except OSError:
        return path
    return path if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else None


def log_threshold(look: Look) -> tuple[str, int]:
    """Return the least level that is logged, and what it is called."""
    if configures(look):
        level = look.settings.log_level
        return f"{look.label('log_level')}={level}", level_number("log_level", level)
    level = logging.getLogger().level
    return f"the root logger's level is {logging.getLevelName(level)}", level


def rotates(look: Look) -> bool:
    """Return whether the settings have the log file rotated, and older ones deleted."""
    settings = look.settings
    return bool(settings.log_backup_count and (settings.log_max_bytes or settings.log_when))


# ---- words ----


def in_seconds(value: float) -> str:
    """Return a time as people write it: 1.5 s."""
    return f"{value:.3g} s"


def in_bytes(value: float) -> str:
    """Return a size as people write it: 512 MB."""
    units = ["TB", "GB", "MB", "kB", "bytes"]
    while value >= 1000 and len(units) > 1:  # noqa: PLR2004 - as the units go
        value /= 1000
        units.pop()
    return f"{value:.3g} {units[-1]}"
