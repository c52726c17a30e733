"""
The options of ``mtaio demo``: the command line, its help, the work and the report all read these.

Promise: plain values, as they were given; whoever uses one checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import Token

Backend = Literal["asyncio", "trio", "uvloop"]

_Flag = Annotated[bool, Parameter(negative="", show_default=False)]


def _whole(_: object, tokens: Sequence[Token]) -> int:
    """Return a whole number; cyclopts itself would round "1.5"."""
    try:
        return int(tokens[0].value)
    except ValueError:
        msg = f"{tokens[0].value!r} is no whole number."
        raise ValueError(msg) from None


_Whole = Annotated[int, Parameter(converter=_whole)]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to hash, and what to show. Each field's line is its help on the command line."""

    backend: Backend = "asyncio"
    """The event loop to run on."""
    limit: _Whole = 8
    """Worker threads at once."""
    rate: float | None = None
    """Files to begin per second, evenly spaced."""
    timeout: float | None = None
    """Seconds for each file."""
    follow_symlinks: _Flag = False
    """Follow symbolic links; a broken one is then a failure."""
    output: Path | None = None
    """Write the digests to this file, for "sha256sum --check". It appears when all is done, or not
    at all."""
    json: _Flag = False
    """Print every figure, and the failures by name, as JSON instead of a table."""
    quiet: _Flag = False
    """Show neither bar nor table, only failures."""


DEFAULTS = Options()
