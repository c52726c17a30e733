"""What a backend tells of its tasks, for `mtaio._internal.task_tree`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["SeenTask"]


@dataclass(slots=True)
class SeenTask:
    """One task; made when somebody looks, and kept no longer."""

    id: int
    name: str
    coroutine: Any
    """What it runs; None if that must not be looked at from here."""
    state: Literal["running", "ready", "waiting", "cancelled"]
    waits: bool
    """Whether nothing is going to resume it yet; a cancelled task may wait in a shield."""
    awaited: object
    """The future that it waits for; None on trio."""
    starter: int | None
    """The id of the task that opened ``group``; without one, of the only task that awaits it."""
    group: Any
    """The task group or nursery in which it was started; None if it was not, or if unknown."""
