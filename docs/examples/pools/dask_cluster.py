"""Calls on a cluster: three attempts, four seconds for each."""

import math

import anyio
from distributed import Client, LocalCluster

from mtaio import Retry, TaskExecutor

executor = TaskExecutor(max_workers=64)


async def main() -> None:
    # For a cluster that runs already: Client("tcp://scheduler:8786").
    with (
        LocalCluster(n_workers=2, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        pool = client.get_executor(pure=False)
        roots = await executor.map(
            math.isqrt,
            range(100),
            via=pool,
            chunksize=10,
            timeout=4,
            retry=Retry(attempts=3),
        )
    print(sum(roots))


if __name__ == "__main__":
    anyio.run(main)
