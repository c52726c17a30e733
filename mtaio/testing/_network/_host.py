"""A host of a simulated network, as a test sees it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVarTuple, final

import anyio

from mtaio._internal import checks
from mtaio.testing._network._disk import Disk
from mtaio.testing._network._machine import MAIN, Life, Machine, acting

if TYPE_CHECKING:
    from mtaio.testing._network._core import Core

__all__ = ["Host"]

Args = TypeVarTuple("Args")

_before: Final[ContextVar[tuple[Life | None, ...]]] = ContextVar("_before", default=())
"""For what this task acted before the blocks that it is in; tasks share the hosts, not this."""


@final
class Host:
    """
    A machine on a simulated network; get it from `Network.host`.

    Used as a context manager, it makes the block and the tasks started in it act on this host, so
    sockets created there have its address. Blocks may nest.

    Example:
        ```python
        import anyio
        from anyio.abc import SocketStream

        from mtaio.testing import Network, run


        async def answer(stream: SocketStream) -> None:
            async with stream:
                await stream.send(b"3 left")


        async def stock() -> None:
            listener = await anyio.create_tcp_listener(local_port=80)
            await listener.serve(answer)


        async def main() -> None:
            async with Network(latency=0.02) as net:
                net.host("stock").start(stock)
                await anyio.sleep(1)
                async with await anyio.connect_tcp("stock", 80) as stream:
                    assert await stream.receive() == b"3 left"


        run(main)
        ```
    """

    __slots__ = ("_disk", "_machine", "_network", "_program")

    def __init__(self, network: Any, machine: Any) -> None:  # which users do not make
        self._network: Core = network
        self._machine: Machine = machine
        self._program: tuple[Callable[..., Awaitable[object]], tuple[Any, ...]] | None = None
        self._disk: Disk | None = None

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address}{'' if self.up else ', down'}>"

    def __enter__(self) -> Host:
        _before.set((*_before.get(), acting.get()))
        acting.set(self._machine.life)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stack = _before.get()  # empty in an async generator that another task closes
        _before.set(stack[:-1])
        acting.set(stack[-1] if stack else None)

    @property
    def name(self) -> str:
        """The name by which other hosts reach it."""
        return self._machine.name

    @property
    def address(self) -> str:
        """Its IPv4 address, such as ``"10.0.0.2"``."""
        return self._machine.address

    @property
    def up(self) -> bool:
        """Whether the machine answers; False after ``kill(silent=True)``."""
        return self._machine.up

    @property
    def read_rate(self) -> float | None:
        """
        Maximum bytes a second that programs on this host read; None for no limit.

        On each connection.

        At 0 they read nothing, and senders wait once the buffers are full. It can be changed at any
        time.
        """
        return self._machine.read_rate

    @read_rate.setter
    def read_rate(self, rate: float | None) -> None:
        if rate is not None:
            checks.at_least("read_rate", rate, 0, way_out="Pass bytes a second, or None.")
        self._machine.read_rate = None if rate == math.inf else rate
        self._network.read_on(self._machine)

    @property
    def disk(self) -> Disk:
        """
        A directory for the host's programs, which loses unsynced data if the power is cut.

        It is created at first use, and removed with the network.

        Raises:
            RuntimeError: The network is not open.
        """
        if self._disk is None:
            self._disk = Disk(self._network.disk(self._machine))
        return self._disk

    def start(self, main: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        """
        Run ``main(*args)`` on this host until it returns, the host is killed, or the network ends.

        Not a checkpoint: the program begins at the next one, and ``await settle()`` lets it run
        until it waits, for example for its first connection. If the network is not open yet, as in
        a pytest fixture, the program starts when it opens.

        An exception from the program ends the block of the network, unless the host was killed.
        After a kill, the host can be started again, also with another program.

        Args:
            main: An async function: the program, as in production.
            args: Its arguments.

        Raises:
            TypeError: ``main`` is not callable.
            RuntimeError: The network is over, or the host runs a program already.
        """
        checks.callable_("main", main, way_out="Pass the async function, and its arguments.")
        if self._network.state == "over":
            msg = f"{self!r} cannot start a program: its network is over. Make another Network."
            raise RuntimeError(msg)
        if self._program is not None and not self._machine.life.over:
            msg = f"{self!r} runs a program already. Kill it first, or start both in one function."
            raise RuntimeError(msg)
        self._program = main, args
        if self._network.state == "open":
            self._start()
        elif self._start not in self._network.starts:
            self._network.starts.append(self._start)

    def _start(self) -> None:
        assert self._program is not None  # noqa: S101 - start() was called
        main, args = self._program
        life = self._machine.life
        if life.over:
            life = self._machine.life = Life(self._machine)
        self._network.note("start", self.name)
        self._machine.up = True
        life.scope = anyio.CancelScope()
        self._network.heal()  # what was sent to it meanwhile is sent again, and refused
        with self:
            self._network.spawn(_live, self._network, life, main, args, name=f"host {self.name}")

    def kill(self, *, silent: bool = False) -> None:
        """
        Kill the program of this host at once.

        The program is cancelled, and nothing that its clean-up sends reaches the network. Peers get
        a reset, as when a process dies and its kernel goes on. Not a checkpoint.

        Args:
            silent: Whether the machine itself is gone, as when its power is cut: nobody is told,
                and nobody gets an answer until it is started again. Connections that were open stay
                half-open: a peer learns of it when it sends something after that. What was written
                to the `disk` and not synced may be lost; if not silent, all of it is kept.

        Raises:
            RuntimeError: Power was cut, and SQLite has written to the disk; the host is killed. Or
                the host is ``"main"`` with no program, where the test itself acts; nothing is done.
        """
        if self._program is None and self.name == MAIN:
            msg = (
                f"the test itself acts on {self!r}, and would be cut off for good. Start the "
                f"client on a host of its own, and kill that."
            )
            raise RuntimeError(msg)
        self._network.note("cut power" if silent else "kill", self.name)
        self._network.kill(self._machine, silent=silent)

    def restart(self) -> None:
        """
        Start the program again, with the same arguments; kill it first if it runs.

        Raises:
            RuntimeError: It was never started.
        """
        if self._program is None:
            msg = f"{self!r} has nothing to restart. Call start() with its program first."
            raise RuntimeError(msg)
        if not self._machine.life.over:
            self.kill()
        main, args = self._program
        self.start(main, *args)


async def _live(
    network: Core, life: Life, main: Callable[..., Awaitable[object]], args: tuple[Any, ...]
) -> None:
    """Run the program of a host for as long as it lives."""
    assert life.scope is not None  # noqa: S101 - it was started
    life.tasks.clear()  # of this one, which ends by itself
    try:
        with life.scope:
            await main(*args)
    except Exception:
        if not life.over:
            raise
        # What it met when it was killed: a dead program tells nobody.
    finally:
        if life.over:
            network.bury(life)
