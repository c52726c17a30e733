"""
A quota as a part of a pipeline: what a call costs follows from its arguments.

Promise: each attempt takes its cost before it begins, and what it used is settled when it has
returned. One that fails keeps what it has taken.
Cost: one block for each call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, cast, final

from mtaio._internal.callables import close_unstarted, name_of
from mtaio.resources._taken import leave

if TYPE_CHECKING:
    from mtaio.resources._taken import Taken

__all__ = ["Cost", "QuotaPart", "Used"]

Cost: TypeAlias = float | Callable[..., float]
"""A number, or a function of a call's arguments that returns one."""

Used: TypeAlias = Callable[[Any], Mapping[str, float] | None]
"""
A function of a call's result that returns what it has used, by the names of limits; None if the
service has not said.
"""


class _Call(Protocol):
    """A call on its way through a pipeline: `mtaio.resilience.Call`."""

    fn: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...]
    key: Hashable


class _Stream(Protocol):
    """A stream that has been opened: `mtaio.resilience.OpenStream`."""

    last: Any
    is_exhausted: bool

    def keep_last(self) -> None: ...

    def on_end(self, fn: Callable[[BaseException | None], object]) -> None: ...


class _Quota(Protocol):
    """The quota, or that of each key."""

    @property
    def name(self) -> str | None: ...

    @property
    def take(self) -> Callable[..., Taken]: ...

    def record_durations(self) -> None: ...

    def statistics(self) -> object: ...


@final
class QuotaPart:
    """
    A part of a `mtaio.resilience.Pipeline` that takes from a `Quota`; returned by `Quota.part`.

    Example:
        ```python
        import anyio

        from mtaio import Pipeline, Quota, Retry

        quota = Quota(requests=120, tokens=40_000, per=60)


        def estimate(prompt: str) -> int:
            return len(prompt) + 500


        def usage_of(answer: str) -> dict[str, float]:
            return {"tokens": len(answer)}


        api = Pipeline(Retry(3), quota.part(tokens=estimate, used=usage_of))


        async def ask(prompt: str) -> str:
            await anyio.sleep(0.1)
            return f"{prompt}!"


        async def main() -> None:
            print(await api.run(ask, "hello"))


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("_cost", "_quota", "_timeout", "_used", "needs_key")

    kind: ClassVar[Literal["limiter"]] = "limiter"

    def __init__(
        self,
        quota: _Quota,
        cost: Mapping[str, Cost],
        used: Used | None,
        timeout: float | None,
        *,
        needs_key: bool = False,
    ) -> None:
        self.needs_key: bool = needs_key
        self._quota = quota
        self._cost = dict(cost)
        self._used = used
        self._timeout = timeout

    def __str__(self) -> str:
        cost = [f"{each}={_shown(value)}" for each, value in self._cost.items()]
        name = self._quota.name
        kind = "KeyedQuota" if self.needs_key else "Quota"
        return f"{kind}({', '.join([*([] if name is None else [repr(name)]), *cost])})"

    @property
    def name(self) -> str | None:
        """Name of the quota."""
        return self._quota.name

    @property
    def inner(self) -> object:
        """The quota, which other parts may share."""
        return self._quota

    def record_durations(self) -> None:
        """
        Record a histogram of the quota's waits from now on.

        Not a checkpoint. It can be called from any thread.
        """
        self._quota.record_durations()

    def statistics(self) -> object:
        """
        Return the statistics of the quota.

        Not a checkpoint. It can be called from any thread.
        """
        return self._quota.statistics()

    def wrap(self, then: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
        """Return an async function that takes what a call costs, then calls ``then``."""

        async def run(call: _Call) -> Any:
            return await self.call(partial(then, call), *_arguments(call), key=call.key)

        return run

    def wrap_stream(self, then: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
        """
        Return the same for streams, which are in flight until they end.

        When a stream has been read to its end, ``used`` is called with its last item.
        """

        async def run(call: _Call) -> _Stream:
            taken = self._take(*_arguments(call), call.key)
            await taken.__aenter__()
            try:
                stream: _Stream = await then(call)
            except BaseException:
                leave(taken)
                raise
            if self._used is not None and not stream.is_exhausted:
                stream.keep_last()
                stream.on_end(lambda _: self._settle_stream(taken, stream))
            stream.on_end(lambda _: leave(taken))
            return stream

        return run

    async def call(
        self,
        fn: Callable[[], Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        key: Hashable = None,
    ) -> Any:
        """Call ``fn`` when there is enough for its arguments, and settle what it used."""
        async with self._take(args, kwargs, key) as taken:
            result = await fn()
            self._settle(taken, result)
            return result

    def _settle_stream(self, taken: Taken, stream: _Stream) -> None:
        """Settle what a stream has used, if it has come to its end."""
        if stream.is_exhausted:
            self._settle(taken, stream.last)

    def _settle(self, taken: Taken, result: object) -> None:
        """Settle what a call has used; where the service has not said, the estimate stands."""
        used: Any = None if self._used is None else self._used(result)
        if used is None:
            return
        if not isinstance(used, Mapping):
            close_unstarted(used)
            msg = (
                f"used={name_of(self._used)} returned {used!r}, which is not a mapping. Return "
                f"what was used by the names of the limits, as in {{'tokens': 900}}, or None if "
                f"the service has not said."
            )
            raise TypeError(msg)
        taken.settle(**cast("Mapping[str, float]", used))

    def _take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], key: Hashable) -> Taken:
        """Return the block of a call with such arguments."""
        cost = {
            each: value(*args, **kwargs) if callable(value) else value
            for each, value in self._cost.items()
        }
        keys = (key,) if self.needs_key else ()
        return self._quota.take(*keys, timeout=self._timeout, **cost)


def _arguments(call: _Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call; a decorated function has its keywords in a partial."""
    fn, args, kwargs = call.fn, call.args, dict[str, Any]()
    while isinstance(fn, partial):
        args, kwargs = (*fn.args, *args), {**fn.keywords, **kwargs}
        fn = cast("Callable[..., Awaitable[Any]]", fn.func)
    return args, kwargs


def _shown(value: Cost) -> str:
    return name_of(value) if callable(value) else repr(value)
