"""The checklist, errors: the error handler, services, the log, recovery."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mtaio.app._checklist._item import ask, check, fail, ok, warn
from mtaio.app._checklist._look import configures, log_threshold

if TYPE_CHECKING:
    from mtaio.app._checklist._item import Finding
    from mtaio.app._checklist._look import Look


@check("errors")
def error_handler(look: Look) -> Finding | None:
    if look.app is None:
        return None
    handler = vars(look.app).get("error_handler")  # the usual one is slow to make: it masks secrets
    if handler is None:
        return ok("ErrorHandler")
    methods = ("report", "handle_error")
    if not any(callable(getattr(handler, method, None)) for method in methods):
        return fail(
            f"{type(handler).__name__} has neither report(error, context) nor handle_error",
            "Pass an ErrorHandler as error_handler=, or None for the usual one.",
        )
    return ok(type(handler).__name__)


@check("errors")
def services(look: Look) -> Finding | None:
    if look.app is None or not look.app.services:
        return None
    once = [each for each in look.app.services if each.restart is None or each.restart == 1]
    lost = [each.name for each in once if not each.critical]
    if lost:
        return warn(
            f"{', '.join(lost)}: it ends at the first error, and the rest carries on without it",
            "Give it restart=Retry(...), or leave out critical=False.",
        )
    if once:
        return warn(
            f"{', '.join(each.name for each in once)}: the first error stops the application",
            "Give it restart=Retry(...), or critical=False if the rest can do without it.",
        )
    return ok("each is restarted after an error")


@check("errors")
def error_log(look: Look) -> Finding:
    settings = look.settings
    if configures(look) and settings.log_file is None and not settings.log_console:
        return fail(
            "the log goes nowhere: there is no file, and no console",
            f"Set {look.label('log_file')}, or {look.label('log_console')}=1.",
        )
    said, level = log_threshold(look)
    if level > logging.ERROR:
        return fail(f"{said}: errors are left out", "Set it to INFO.")
    for name in ("mtaio.errors", "mtaio.app", "mtaio", ""):
        if not _logs_errors(logging.getLogger(name)):
            return fail(
                f"the logger {name or 'root'!r} is switched off, or leaves errors out",
                "In logging.config pass disable_existing_loggers=False, and no level above ERROR.",
            )
    if not configures(look) and not logging.getLogger().handlers:
        return warn(
            "no logger has a handler: errors go to the standard error, without a time",
            "Leave out logging=False, or set logging up before the application starts.",
        )
    return ok("errors are in the log")


def _logs_errors(logger: logging.Logger) -> bool:
    return not logger.disabled and logger.isEnabledFor(logging.ERROR)


@check("errors", needs_settings=False)
def recovery(_: Look) -> Finding:
    return ask(
        "are there written instructions for when the service does not come back?",
        "Write a page for the person on call: how to restart, how to roll back, whom to ask.",
    )
