"""What the workers of the pools do; apart, so that these need not import the tests."""

from __future__ import annotations

import os
import time
from pathlib import Path


def square(x: int) -> int:
    """Square a number."""
    return x * x


def refuse_three(x: int) -> int:
    """Refuse the number 3."""
    if x == 3:
        raise LookupError(x)
    return x


def span(seconds: float) -> tuple[float, float]:
    """Take some time, and return when that was."""
    begin = time.monotonic()
    time.sleep(seconds)
    return begin, time.monotonic()


def note_span(folder: str, name: str, seconds: float) -> None:
    """Take some time, and leave a file that says when that was, for callers that have gone."""
    begin, end = span(seconds)
    (Path(folder) / name).write_text(f"{begin} {end}", encoding="utf-8")


def note(folder: str, name: str, seconds: float) -> None:
    """Leave a file that says that the call was made, and take some time."""
    (Path(folder) / name).touch()
    time.sleep(seconds)


def die_at_three(x: int) -> int:
    """End the worker at the number 3."""
    if x == 3:
        os._exit(1)
    return x
