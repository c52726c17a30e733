"""
What a pipeline is made of: parts, each of which wraps the parts inside it.

Promise: a part is an object with ``wrap``, and nothing else is required. It is wrapped once, when
the pipeline is made; a call then runs through plain coroutines, one for each part.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeGuard, runtime_checkable

from mtaio._internal.cancellation import is_cancelled
from mtaio._internal.filters import accepts
from mtaio.exceptions import BreakerOpenError, LimitError

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["REFUSALS", "Call", "Next", "Part", "is_outcome"]

REFUSALS: Final = (LimitError, BreakerOpenError)
"""What a call raises that a part refuses: it says nothing about what is called."""


def is_outcome(error: BaseException) -> TypeGuard[Exception]:
    """Return whether a call has ended with ``error``, and was not cancelled or refused."""
    # What a cancelled call raises may be what its function made of the cancellation.
    return isinstance(error, Exception) and not accepts(REFUSALS, error) and not is_cancelled()


class Call:
    """
    One call on its way through a pipeline. It does not change: a part may pass it on many times.

    Args:
        fn: The function to call and await.
        args: Its arguments.
        key: What the call is for, for parts that keep a state for each key; None if not given.
    """

    __slots__ = ("args", "fn", "key")

    def __init__(
        self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], key: Hashable = None
    ) -> None:
        self.fn: Callable[..., Awaitable[Any]] = fn
        self.args: tuple[Any, ...] = args
        self.key: Hashable = key

    def __repr__(self) -> str:
        return f"<Call of {self.fn!r} with {len(self.args)} arguments>"


Next: TypeAlias = Callable[[Call], Awaitable[Any]]
"""What is inside a part: the next part, or the call of the function itself."""


@runtime_checkable
class Part(Protocol):
    """
    A part of a `Pipeline`, which also takes `mtaio.resources` limiters and `mtaio.core.Retry`.

    A class of your own is a part if it has `wrap`. It may also have

    - ``kind``, one of ``"fallback"``, ``"timeout"``, ``"retry"``, ``"breaker"``, ``"hedge"`` and
      ``"limiter"``: the rules for the order of parts then apply to it;
    - ``needs_timeout``, True if it judges a service by how calls end, and so needs a timeout inside
      it, which it sees as an error and not as a cancellation;
    - ``needs_key``, True if calls without a ``key`` are to be refused;
    - ``statistics()``, which returns a dataclass with numbers, and ``name``: they become part of
      the pipeline's statistics;
    - ``__str__``, which is shown when the pipeline is printed.

    One law holds for every part: a cancellation is not an outcome. It is neither counted as a
    failure nor retried, and whatever was taken for the call is given back.

    Example:
        ```python
        import anyio

        from mtaio.resilience import Call, Next, Pipeline, Timeout


        class Failures:
            def wrap(self, then: Next) -> Next:
                async def run(call: Call) -> object:
                    try:
                        return await then(call)
                    except Exception as error:  # and not BaseException, which a cancellation is
                        print(f"{call.fn.__name__}{call.args}: {error}")
                        raise

                return run


        api = Pipeline(Failures(), Timeout(0.1))


        async def main() -> None:
            try:
                await api.call(anyio.sleep, 1)
            except TimeoutError:
                print("no answer")


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    def wrap(self, then: Next) -> Next:
        """
        Return an async function that does the part's work around ``then``.

        Called once for each pipeline that the part is in. The part's state belongs to the part, so
        that one part in two pipelines is shared between them.
        """
        ...
