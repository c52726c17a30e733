"""
Faults: what goes wrong between hosts, for as long as it lasts, and how often it has.

Promise: a fault that was to strike and never did fails the test, which otherwise would have shown
nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Literal, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Cause", "Fault", "FaultMissedError", "Faults", "caller"]

Kind = Literal["partition", "hold", "refuse", "reset", "fail_dns"]

FOUND: Final = {
    "partition": "nothing was sent between them while it lasted",
    "hold": "nothing was sent between them while it lasted",
    "refuse": "nobody tried to connect while it lasted",
    "reset": "there was no connection between them",
    "fail_dns": "nobody asked for the name while it lasted",
}
"""What was the matter when a fault did not strike."""


class FaultMissedError(AssertionError):
    """
    A fault of a simulated network met nothing, so the test has not shown what it should.

    The message names the fault and the line that created it.
    """

    __module__ = "mtaio.testing"  # as users import it


class Cause:
    """What lets something go wrong."""

    __slots__ = ("applies", "kind", "required", "struck", "what", "where")

    def __init__(
        self, kind: Kind, what: str, applies: Callable[..., bool], *, required: bool
    ) -> None:
        self.kind: Final = kind
        self.applies: Final = applies
        self.what: Final = what
        self.struck = 0
        self.required: Final = required
        self.where: Final = caller()

    def strike(self) -> None:
        """Count that it applies."""
        self.struck += 1

    def missed(self) -> str | None:
        """Return what to say because it had to strike and did not; None if all is well."""
        if self.struck or not self.required:
            return None
        return f"{self.what} ({self.where}) never struck: {FOUND[self.kind]}"


@final
class Fault:
    """
    A fault of a simulated network, created by the methods of `Network`.

    Example:
        ```python
        import anyio

        from mtaio.testing import Network, run


        async def main() -> None:
            async with Network() as net:
                fault = net.refuse("stock", port=80)
                try:
                    await anyio.connect_tcp("stock", 80)
                except OSError:
                    assert fault.struck > 0


        run(main)
        ```
    """

    __slots__ = ("_cause",)

    def __init__(self, cause: Any) -> None:  # which users do not make
        self._cause: Cause = cause

    def __repr__(self) -> str:
        return f"<Fault {self._cause.what}, struck {self.struck} times>"

    def comes_of(self, cause: object) -> bool:
        """Return whether this is the fault of a cause; for the network."""
        return cause is self._cause

    @property
    def struck(self) -> int:
        """How often it has applied to something sent, a connection or a lookup."""
        return self._cause.struck


class Faults:
    """All faults of a network, and those that last."""

    __slots__ = ("_all", "_lasting")

    def __init__(self) -> None:
        self._all: list[Cause] = []
        self._lasting: list[Cause] = []

    def add(self, fault: Cause, *, lasting: bool = True) -> Fault:
        """Note a fault; one that lasts applies until it is ended."""
        self._all.append(fault)
        if lasting:
            self._lasting.append(fault)
        return Fault(fault)

    def end(self, fault: Fault | None) -> None:
        """End one of the faults that last, or all of them."""
        if fault is None:
            self._lasting.clear()
        else:
            self._lasting = [cause for cause in self._lasting if not fault.comes_of(cause)]

    def between(self, source: str, target: str) -> Cause | None:
        """Return what keeps things from getting from one host to another, if anything does."""
        if not self._lasting or source == target:
            return None
        return self._first(("partition", "hold"), source, target)

    def refusing(self, host: str, port: int) -> Cause | None:
        """Return what has connections to a host refused, if anything does."""
        return self._first(("refuse",), host, port)

    def failing(self, name: str) -> Cause | None:
        """Return what keeps a name from being resolved, if anything does."""
        return self._first(("fail_dns",), name)

    def _first(self, kinds: tuple[Kind, ...], *about: object) -> Cause | None:
        for fault in self._lasting:
            if fault.kind in kinds and fault.applies(*about):
                return fault
        return None

    def missed(self) -> Iterator[str]:
        """Yield what to say of each fault that had to strike and did not."""
        for fault in self._all:
            said = fault.missed()
            if said is not None:
                yield said


def caller() -> str:
    """Return the line of the program outside of this package that asks for something."""
    frame = sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
