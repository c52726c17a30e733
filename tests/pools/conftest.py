"""Ray, for the tests of pools: one cluster for all, as it takes half a minute to start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # before it is imported

import ray

WORKERS = 3


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Have a cluster of processes on this machine, which this program is connected to."""
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
