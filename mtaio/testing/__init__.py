"""
Tests in virtual time on asyncio and trio, which do not wait and fail on deadlocks.

Promise: in virtual time, a sleep of a year takes microseconds and ends at the exact moment; worker
    threads, sockets and subprocesses stay real; a test in which no task can wake up any more fails
    with the stacks of its tasks. Neither pytest nor, for asyncio, trio is needed.

Names are imported on first use, because pytest loads the plugin before coverage measurement begins
and must not import the library under test with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import lazy

if TYPE_CHECKING:
    from mtaio.testing._assertions import (
        assert_checkpoints,
        assert_no_checkpoints,
        assert_quiescent,
    )
    from mtaio.testing._check_cache import check_cache
    from mtaio.testing._check_limiter import check_limiter
    from mtaio.testing._contract import ContractError
    from mtaio.testing._diagnostics import Deadlock, Livelock
    from mtaio.testing._explore import explore
    from mtaio.testing._inject import Victim, injections
    from mtaio.testing._network._disk import Disk
    from mtaio.testing._network._faults import Fault, FaultMissedError
    from mtaio.testing._network._host import Host
    from mtaio.testing._network._network import Network
    from mtaio.testing._network._trace import NetworkEvent, NetworkStatistics, OpenSocket
    from mtaio.testing._schedule import Schedule
    from mtaio.testing._search import ExplorationWarning
    from mtaio.testing._simulation import (
        InvariantError,
        Simulation,
        current_simulation,
        run,
        settle,
        virtual_backend,
    )

__all__ = [
    "ContractError",
    "Deadlock",
    "Disk",
    "ExplorationWarning",
    "Fault",
    "FaultMissedError",
    "Host",
    "InvariantError",
    "Livelock",
    "Network",
    "NetworkEvent",
    "NetworkStatistics",
    "OpenSocket",
    "Schedule",
    "Simulation",
    "Victim",
    "assert_checkpoints",
    "assert_no_checkpoints",
    "assert_quiescent",
    "check_cache",
    "check_limiter",
    "current_simulation",
    "explore",
    "injections",
    "run",
    "settle",
    "virtual_backend",
]

if not TYPE_CHECKING:  # pragma: no branch - a type checker would believe every name
    __getattr__, __dir__ = lazy.attributes(
        __name__,
        {
            "mtaio.testing._assertions": (
                "assert_checkpoints",
                "assert_no_checkpoints",
                "assert_quiescent",
            ),
            "mtaio.testing._check_cache": ("check_cache",),
            "mtaio.testing._check_limiter": ("check_limiter",),
            "mtaio.testing._contract": ("ContractError",),
            "mtaio.testing._diagnostics": ("Deadlock", "Livelock"),
            "mtaio.testing._explore": ("explore",),
            "mtaio.testing._inject": ("Victim", "injections"),
            "mtaio.testing._network._disk": ("Disk",),
            "mtaio.testing._network._faults": ("Fault", "FaultMissedError"),
            "mtaio.testing._network._host": ("Host",),
            "mtaio.testing._network._network": ("Network",),
            "mtaio.testing._network._trace": (
                "NetworkEvent",
                "NetworkStatistics",
                "OpenSocket",
            ),
            "mtaio.testing._schedule": ("Schedule",),
            "mtaio.testing._search": ("ExplorationWarning",),
            "mtaio.testing._simulation": (
                "InvariantError",
                "Simulation",
                "current_simulation",
                "run",
                "settle",
                "virtual_backend",
            ),
        },
        modules=("schedules",),
    )
