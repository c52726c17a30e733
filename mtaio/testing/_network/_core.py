"""
The network as its parts and the event loop see it.

How a moment goes: when nothing is ready, the event loop asks `Core.stirs`. That takes what programs
have written, until they write no more; then it puts all of that on its way, and lets everything
happen that is due now. Only when nothing stirs does time move, to the loop's next timer or to
`Core.next_at`, whichever is earlier.
"""

from __future__ import annotations

import random
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import anyio

from mtaio.testing._network._events import Events
from mtaio.testing._network._faults import Faults
from mtaio.testing._network._links import Links
from mtaio.testing._network._machine import MAIN, Life, Machine, acting
from mtaio.testing._network._names import Names
from mtaio.testing._network._options import Options
from mtaio.testing._network._sockets import Sockets
from mtaio.testing._network._storage import Storage
from mtaio.testing._network._stream import Stream
from mtaio.testing._network._trace import KEPT, OpenSocket
from mtaio.testing._network._waits import awaited
from mtaio.testing._network._wires import Wires

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context
    from types import FrameType

    from anyio.abc import TaskGroup

    from mtaio.testing._diagnostics import Steps
    from mtaio.testing._network._endpoint import Endpoint
    from mtaio.testing._world import Engine, World

__all__ = ["Core"]


class Core:
    """
    A network, before, while and after it is open.

    Args:
        seed: Where its random numbers begin.
        links: The options of a link that was not told otherwise.
        dns: Seconds that a lookup of a name takes.

    Attributes:
        links: How long things take.
        faults: What goes wrong.
        names: What names mean.
        machines: The hosts, by name.
        trace: What has happened: what `NetworkEvent` is made of.
        delivered: How many segments and datagrams have arrived.
        held: How often something was held back.
        wires, sockets, options: Those of the run, while it is open.
        now: Returns the virtual time in seconds.
        awaits_writing: Says whether a program may wait until it can write to a descriptor.
        group: The task group of the programs.
        starts: What starts programs as soon as the network is open.
        state: Whether that is still to come, or over.
    """

    def __init__(self, seed: int, links: dict[str, Any], *, dns: float) -> None:
        rng = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.links = Links(rng, **links)
        self.faults = Faults()
        self.names = Names(self.faults)
        self.machines: dict[str, Machine] = {}
        self.trace: deque[tuple[float, str, str, str]] = deque(maxlen=KEPT)
        self.delivered = 0
        self.held = 0
        self.wires: Wires
        self.options: Options
        self.sockets: Sockets
        self.group: TaskGroup
        self.starts: list[Callable[[], None]] = []
        self.state: Literal["not open yet", "open", "over"] = "not open yet"
        self.now: Callable[[], float] = float
        self.awaits_writing: Callable[[int], bool]
        self._engine: Engine
        self._leave: Callable[[], None]
        self._steps: Steps
        self._world: World | None = None
        self._events = Events(self._pick)
        self._healing: deque[Callable[[], object]] = deque()
        self._numbers = 0
        self._lives: WeakKeyDictionary[Any, Life] = WeakKeyDictionary()
        self._dns = dns
        self._seed = seed

    # ---- its life ----

    def open(self, world: World) -> None:
        """Begin: from now on the sockets of this thread are simulated, in ``world``."""
        self._world = world
        self.wires = Wires()
        self.options = Options()
        self.sockets = Sockets(self)
        assert world.engine is not None  # noqa: S101 - a loop is running
        self._engine = world.engine
        self._leave = self._engine.join(self)
        self.now = self._engine.time
        assert world.steps is not None  # noqa: S101 - it has a schedule
        self._steps = world.steps
        self._steps.host_of = self._host_of
        self.awaits_writing = self._engine.awaits_writing
        self.sockets.replace()
        world.network = self

    def bury(self, life: Life) -> None:
        """Cancel what a program has left running in no task group, now that it has ended."""
        self._engine.bury(list(life.tasks))

    def abandon(self) -> None:
        """Have the event loop wait no more for what killed programs have left open."""
        open_still = [fd for orphan in self.sockets.orphans if (fd := orphan.fileno()) >= 0]
        self._engine.abandon(open_still)

    def close(self) -> None:
        """End: give sockets back to the kernel, and close what is left of the connections."""
        assert self._world is not None  # noqa: S101 - it was opened
        self._world.network = None
        self._steps.host_of = None
        self._leave()
        for orphan in self.sockets.orphans:
            with suppress(OSError):  # its descriptor was closed behind our back
                orphan.close()
        self.sockets.restore()
        self._events.clear()
        self._healing.clear()
        self.wires.close()
        self.options.close()
        for machine in self.machines.values():
            if machine.disk is not None:
                machine.disk.close()

    # ---- what its parts need ----

    def at(self, when: float, key: object, function: Callable[..., object], *args: Any) -> None:
        """Have something happen at ``when``, after what has the same key and happens before."""
        self._events.at(when, key, function, *args)

    def number(self) -> int:
        """Return the number of a new socket, from 1."""
        self._numbers += 1
        return self._numbers

    def note(self, what: str, source: str, target: str = "") -> None:
        """Note what happens."""
        self.trace.append((self.now(), what, source, target))

    def machine(self, name: str) -> Machine:
        """Return the machine of a name, which is made when it is first asked for."""
        machine = self.machines.get(name)
        if machine is None:
            number = len(self.machines) + 1
            machine = Machine(name, f"10.0.{number >> 8}.{number & 0xFF}", self._time)
            self.machines[name] = machine
            self.names.set(name, machine.address)
        return machine

    def _time(self) -> float:
        return self.now()  # which is another one while the network is open

    def disk(self, machine: Machine) -> Storage:
        """Make the disk of a machine, for which its host asks once."""
        if self.state != "open":
            msg = (
                f"host {machine.name!r} has no disk while its network is not open. Ask for it in "
                f"the block of the network."
            )
            raise RuntimeError(msg)
        rng = random.Random(f"{machine.name} {self._seed}")  # noqa: S311 - to be repeated
        disk = machine.disk = Storage(machine.name, rng, self._is_dead)
        return disk

    def _is_dead(self) -> bool:
        return self.here().over

    def machine_at(self, address: str) -> Machine | None:
        """Return the machine that has an address, if there is one."""
        for machine in self.machines.values():
            if machine.address == address:
                machine.known = True
                return machine
        return None

    def here(self) -> Life:
        """Return the life for which this task acts."""
        return acting.get() or self.machines[MAIN].life

    def spawn(
        self, function: Callable[..., Coroutine[Any, Any, object]], *args: object, name: str
    ) -> None:
        """Start a task that ends with the network."""
        self.group.start_soon(function, *args, name=name)

    def kill(self, machine: Machine, *, silent: bool) -> None:
        """Kill what runs on a machine, silently if it is the machine that is gone."""
        if self._world is not None:  # before it is open, there are no sockets
            self.sockets.orphan(machine.life)
        machine.kill(silent=silent)
        if silent:
            self.watch_silence()

    def read_on(self, machine: Machine) -> None:
        """Let programs of a machine read as fast as they may by now."""
        for endpoint in list(machine.endpoints.values()):
            if isinstance(endpoint, Stream):
                endpoint.reads_at = 0.0  # it need not wait for as long as it had to before
                endpoint.push()

    def watch_silence(self) -> None:
        """Let the keep-alive of connections run out that are cut off now."""
        for endpoint in self._endpoints():
            if isinstance(endpoint, Stream):
                endpoint.probe()

    def _endpoints(self) -> list[Endpoint]:
        """Return all that programs have open; nothing before the network is open."""
        return [] if self._world is None else self.sockets.endpoints()

    def wait_for_heal(self, again: Callable[[], object]) -> None:
        """Call ``again`` when a fault has been ended or a host started."""
        self._healing.append(again)

    def heal(self) -> None:
        """Try again what could not get through, in its order."""
        healing, self._healing = self._healing, deque()
        for again in healing:
            again()

    def open_sockets(self) -> tuple[OpenSocket, ...]:
        """Return the sockets that programs have open, the oldest first."""
        return tuple(
            OpenSocket(
                endpoint.host.name,
                "{}:{}".format(*endpoint.getsockname()),
                f"{self.names.name_of(endpoint.peer[0])}:{endpoint.peer[1]}"
                if endpoint.peer
                else "",
            )
            for endpoint in self.sockets.endpoints()
        )

    def cut(self, between: Callable[[str, str], bool]) -> int:
        """Reset the connections between some hosts, and return how many there were."""
        number = 0
        for endpoint in self._endpoints():
            if (
                isinstance(endpoint, Stream)
                and (other := endpoint.other) is not None
                and between(endpoint.host.name, other.host.name)
                and endpoint.cut()
            ):
                self.note("reset", endpoint.label(), other.label())
                number += 1
        return number

    def _pick(self, candidates: int) -> int:
        return self._steps.pick(candidates)

    # ---- what the event loop asks ----

    def stirs(self) -> bool:
        """Let everything happen that takes no time; return whether anything did."""
        if self.wires.take():
            return True  # whoever had to wait until it was taken may go on in this moment
        self.wires.leave()
        return self._events.happen(self.now())

    def arrive(self) -> None:
        """Let happen what is due at a moment to which time has just moved: nobody ran meanwhile."""
        if self.wires.stuck:
            self.stirs()
        else:
            self._events.happen(self.now())

    def next_at(self) -> float:
        """Return when something happens next, ``inf`` if nothing will."""
        return self._events.next_at()

    def number_of(self, fd: int) -> int:
        """Return the place of a descriptor among the simulated sockets, from 1; 0 if it is real."""
        return self.sockets.number(fd)

    def task_made(self, task: Any) -> None:
        """Note a task of asyncio, which may be in no task group: it ends with its host."""
        life = acting.get()
        if life is not None:
            self._lives[task] = life
            if life.scope is not None:
                life.tasks[task] = None

    def _host_of(self, task: Any) -> str:
        """Return the name of the host for which a task acts."""
        get_context = getattr(task, "get_context", None)  # of asyncio, since Python 3.12
        context: Context | None = get_context() if get_context else getattr(task, "context", None)
        life = self._lives.get(task) if context is None else context.get(acting)
        return MAIN if life is None else life.where.name

    def is_dead(self, context: Context) -> bool:
        """Return whether what runs in a context acts for a program that was killed."""
        life = context.get(acting)
        return life is not None and life.over

    def waits(self, frames: list[FrameType]) -> str | None:
        """Say for which socket a task waits, whose frames these are, innermost first."""
        endpoint = awaited(frames, self.sockets.find)
        if endpoint is None:
            return None
        if endpoint.peer is None:
            return f"at the socket {endpoint.label()}"
        peer = f"{self.names.name_of(endpoint.peer[0])}:{endpoint.peer[1]}"
        return f"at the socket {endpoint.label()}, whose peer is {peer}"

    def name_info(self, address: Any, flags: int) -> tuple[str, str]:
        """Return what ``getnameinfo`` says."""
        return self.names.getnameinfo(address, flags)

    async def look_up(self, *args: Any, **kwargs: Any) -> Any:
        """Return what ``getaddrinfo`` says, after the time that a lookup takes."""
        host = args[0] if args else kwargs.get("host")
        if self.here().over:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if self._dns and not self.names.is_numeric(host):
            await anyio.sleep(self._dns)
        return self.names.getaddrinfo(*args, **kwargs)
