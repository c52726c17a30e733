"""
The checklist of the deployment guide, item by item, as far as a program can check it.

Promise: nothing is started, entered or written; addresses are bound for a moment, to see whether
they are free. Each item says what it found, and, unless all is well, what to do. What no program
can know is an item too, put to the operator as a question.
Cost: a few small files are read.

One module for each section of the guide: the limits it applies are the constants at its head, and
docs/en/reference/command-line.md has them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import mtaio

# Importing a section puts its items on the list, in this order, which is the guide's.
from mtaio.app._checklist import (  # isort: skip
    configuration as configuration,
    monitoring as monitoring,
    errors as errors,
    performance as performance,
    security as security,
)
from mtaio.app._checklist._item import ROWS, SECTIONS, CheckItem, Status, fail, made
from mtaio.app._checklist._look import Look
from mtaio.app._machine import Machine
from mtaio.config import Settings, SettingsError

if TYPE_CHECKING:
    import mtaio.app
    from mtaio.app._checklist._item import Finding

__all__ = ["SECTIONS", "CheckItem", "Status", "look_at", "run_checks"]


def run_checks(
    app: mtaio.app.Application | None = None,
    *,
    environ: Mapping[str, str] | None = None,
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
    return look_at(app, environ, Machine.read(environ))


def look_at(
    app: mtaio.app.Application | None, environ: Mapping[str, str], machine: Machine
) -> list[CheckItem]:
    """Return what `run_checks` does, on a given machine."""
    problems: list[Finding] = []
    try:
        with warnings.catch_warnings():
            # The same is an item here, with what to do.
            warnings.filterwarnings("ignore", "variables that mtaio does not read", UserWarning)
            settings = Settings.from_env(environ) if app is None else app.settings
    except SettingsError as error:
        settings = Settings()
        problems = [fail(each.message, each.remedy) for each in error.problems]
    look = Look(settings, app, machine, environ)
    items = [made("settings", "configuration", each) for each in problems]
    for row in ROWS:
        if problems and row.needs_settings:
            continue
        found = row.look(look)
        if found is not None:
            items.append(made(row.name, row.section, found))
    return items
