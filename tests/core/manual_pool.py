"""A pool without workers: the test begins and ends its calls."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Sent:
    """A call that was handed to the pool."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    future: Future[Any]

    def begin(self) -> bool:
        """Begin it, as a worker does; return whether it has not been cancelled."""
        return self.future.set_running_or_notify_cancel()

    def end(self) -> None:
        """Make the call, after beginning it if that has not been done."""
        if not self.future.running() and not self.begin():
            return
        try:
            result = self.fn(*self.args, **self.kwargs)
        except BaseException as error:  # noqa: BLE001 - handed to its caller, as pools do
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class ManualPool(Executor):
    """A pool whose calls wait to be ended by the test."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.refusal: Exception | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take a call, or refuse it."""
        if self.refusal is not None:
            raise self.refusal
        self.sent.append(Sent(fn, args, kwargs, Future()))
        return self.sent[-1].future

    def end_all(self) -> None:
        """End all calls that have been sent and not cancelled."""
        for sent in self.sent:
            if not sent.future.done():
                sent.end()
