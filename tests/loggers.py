"""The loggers of the package, which the tests of one process share."""

from __future__ import annotations

import logging


def loggers() -> dict[str, tuple[object, ...]]:
    """Return those that are set, and how: level, propagation, whether disabled, handlers."""
    states = {
        name: (logger.level, logger.propagate, logger.disabled, *logger.handlers)
        for name, logger in logging.root.manager.loggerDict.copy().items()
        if name.partition(".")[0] == "mtaio" and isinstance(logger, logging.Logger)
    }
    return {name: state for name, state in states.items() if state != (0, True, False)}


def reset_loggers() -> None:
    """Set them back to what they are in a program that has not set any."""
    for name in loggers():
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)
        logger.propagate, logger.disabled = True, False
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            handler.close()
