"""
Plain functions in worker processes.

Promise: a call that is cancelled or timed out leaves no process behind; what cannot be sent to a
process is explained.
"""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any, cast

import anyio

from mtaio.core._notes import note
from mtaio.core._threads import ADMITTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.core._lane import Lane
    from mtaio.core._timing import Timing


async def run_in_process(lane: Lane, call: Callable[[], Any], timing: Timing) -> Any:
    """Make a call in a worker process, which is killed if the caller is cancelled."""
    from anyio import to_process  # noqa: PLC0415 - dear to import, and few programs need it

    slot = await lane.enter()
    try:
        with timing.limit():
            admission = cast("anyio.CapacityLimiter", _WithWorker())
            return await to_process.run_sync(call, cancellable=True, limiter=admission)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        _explain(call, error)
        raise
    finally:
        lane.leave(slot)


class _WithWorker:
    """
    Stands in for the limiter of a call, and lets it in when a worker process idles for it.

    To start one takes a tenth of a second, and anyio loses the process if it is cancelled then.
    What happens between leaving `__aenter__` and taking the process cannot be interrupted.
    """

    async def __aenter__(self) -> None:
        from anyio import to_process  # noqa: PLC0415 - as above

        with anyio.CancelScope(shield=True):
            await to_process.run_sync(os.getpid, limiter=ADMITTED)

    async def __aexit__(self, *_: object) -> None:
        pass


def _explain(call: Callable[[], Any], error: Exception) -> None:
    """Add the way out to an error if it arose because the call cannot be sent to a process."""
    try:
        pickle.dumps(call)
    except Exception:  # noqa: BLE001 - what cannot be pickled may raise anything
        note(
            error,
            "A worker process gets the function and its arguments by pickle: pass a function from "
            "the top level of a module, and plain data. For anything else use run_in_thread().",
        )
