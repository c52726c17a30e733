"""Calls on a Ray cluster, which can stop those that have begun."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import anyio
import ray
from ray.exceptions import RayTaskError

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=64)


def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)


class RayCall(Future[Any]):
    """A call on the cluster; to cancel it ends it there."""

    def __init__(self, ref: Any) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self.ref = ref
        ref.future().add_done_callback(self.end)

    def cancel(self) -> bool:
        """Have Ray end the call; the future is done when it has."""
        ray.cancel(self.ref)
        return False

    def end(self, done: Future[Any]) -> None:
        """Take the result, or the error that the function raised."""
        error = done.exception()
        if error is None:
            self.set_result(done.result())
        elif isinstance(error, RayTaskError):
            # It has the traceback of the function.
            error.cause.__cause__ = error
            self.set_exception(error.cause)
        else:
            self.set_exception(error)


class RayPool(Executor):
    """A pool for via=; options are those of a Ray task, such as num_cpus."""

    def __init__(self, **options: Any) -> None:
        options = {"max_retries": 0} | options  # retry= is ours
        self.remote = ray.remote(**options)(call)

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Start a call."""
        return RayCall(self.remote.remote(fn, *args, **kwargs))


def nap(seconds: int) -> None:
    for _ in range(10 * seconds):
        time.sleep(0.1)


async def main() -> None:
    pool = RayPool()
    roots = await executor.map(math.isqrt, range(100), via=pool, chunksize=10)
    print(sum(roots))

    naps = [3600] * 8
    late = await executor.map(nap, naps, via=pool, timeout=1, errors="return")
    print([type(error).__name__ for error in late[:2]])
    print(await executor.run(math.factorial, 5, via=pool))  # not an hour later


if __name__ == "__main__":
    ray.init(include_dashboard=False)  # a running cluster: ray.init("auto")
    anyio.run(main)
