"""
A simulated network, as a test sees it.

Promise: programs run unmodified on it, with real descriptors; time never passes while something
that was written has not been taken; the same program with the same seed and schedule does the same
in every process; at the end nothing is left of it, and a fault that never struck has failed the
test.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias, final

import anyio

from mtaio._internal import checks
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.testing._network._faults import Cause, Fault, FaultMissedError, caller
from mtaio.testing._network._host import Host
from mtaio.testing._network._links import checked
from mtaio.testing._network._machine import MAIN, MOST_HOSTS
from mtaio.testing._network._trace import NetworkEvent, NetworkStatistics, OpenSocket
from mtaio.testing._simulation import settle
from mtaio.testing._world import world_here

__all__ = ["HostLike", "Network"]

HostLike: TypeAlias = Host | str
"""A host, or its name."""

EVERYBODY = "*"
"""In the place of hosts: all of them, those included that are made later."""


@final
class Network:
    """
    A simulated network of hosts, in virtual time, for unmodified asyncio and trio programs.

    Use it with ``async with`` around the code under test. While it is open, TCP and UDP sockets
    (IPv4) created in the event loop's thread belong to the simulated network, and the names of its
    hosts resolve. The sockets have real file descriptors, so TLS, transports and libraries work
    unchanged. Other threads keep the real network. The block itself acts on the host ``"main"``.

    Runs are reproducible: a run without a `Schedule` gets one, Python's ``random`` is seeded for
    the block, and the network's own random numbers come from ``seed``. The schedule also orders
    what happens at the same moment on different connections.

    Entering and leaving are checkpoints. At the end of the block, all hosts are killed and their
    connections are closed after their programs have ended.

    Args:
        latency: Seconds from one host to another; there is no latency within a host.
        jitter: Maximum seconds that are added at random. Streams keep their order.
        bandwidth: Bytes a second from one host to another; None for no limit.
        loss: The share of datagrams that are lost, from 0 to 1.
        duplicate: The share of the other datagrams that arrive twice, each with its own jitter.
        segment: Maximum number of bytes of a stream that arrive at once, cut at random; None for no
            such limit. Use 1 to find code that takes what one ``recv`` returns for a whole message.
        dns: Seconds that an asynchronous lookup of a name takes.
        seed: Seeds its random numbers, and Python's ``random`` for the block.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of its range.
        RuntimeError: The system is not Linux. On entering: no simulation runs in this thread,
            another network is open, or this one was open before.
        FaultMissedError: On leaving, if nothing else is raised: a fault never struck.

    Warns:
        UserWarning: On leaving: a host was named for a link or a fault, and for nothing else.

    Example:
        ```python
        import anyio

        from mtaio.testing import Network, run


        async def name_server() -> None:
            socket = await anyio.create_udp_socket(
                local_host="0.0.0.0", local_port=53
            )
            async with socket:
                async for packet, (host, port) in socket:
                    await socket.sendto(packet.upper(), host, port)


        async def main() -> None:
            async with Network(latency=0.05) as net:
                net.host("dns").start(name_server)
                await anyio.sleep(1)
                async with await anyio.create_connected_udp_socket("dns", 53) as socket:
                    await socket.send(b"hello")
                    assert await socket.receive() == b"HELLO"
                assert round(anyio.current_time(), 9) == 1.1


        run(main)
        ```
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        bandwidth: float | None = None,
        loss: float = 0.0,
        duplicate: float = 0.0,
        segment: int | None = None,
        dns: float = 0.0,
        seed: int = 0,
    ) -> None:
        checks.count("seed", seed, least=0, way_out="Pass a whole number >= 0.")
        checks.at_least("dns", dns, 0, way_out="Pass seconds, 0 for none.")
        if sys.platform != "linux":
            msg = (
                f"a simulated network needs Linux, and this is {sys.platform!r}. Skip the test "
                f"there: pytest.mark.skipif(sys.platform != 'linux', reason='...')."
            )
            raise RuntimeError(msg)
        # Elsewhere there is not even what it imports.
        from mtaio.testing._network._core import Core  # noqa: PLC0415

        self._seed = seed
        self._core = Core(
            seed,
            {
                "latency": latency,
                "jitter": jitter,
                "bandwidth": bandwidth,
                "loss": loss,
                "duplicate": duplicate,
                "segment": segment,
            },
            dns=dns,
        )
        self._hosts: dict[str, Host] = {}
        self._named: dict[str, str] = {}
        self._left: tuple[OpenSocket, ...] = ()
        self._random: object = None
        self.host(MAIN)

    def __repr__(self) -> str:
        return f"<Network of {', '.join(self._hosts)}, {self._core.state}>"

    # ---- hosts and links ----

    def host(self, name: str) -> Host:
        """
        Return the host with a name, and create it at first use.

        Not a checkpoint.

        Raises:
            TypeError: ``name`` is not a str.
            ValueError: It is empty or ``"*"``, or there are too many hosts.
        """
        host = self._host(name)
        self._core.machines[name].known = True
        return host

    def _host(self, name: str) -> Host:
        """Return the host of a name, which may be a misspelt one."""
        _require("name", name, str, "a str", "Pass the name of a host.")
        host = self._hosts.get(name)
        if host is None:
            if not name or name == EVERYBODY:
                msg = f"name={name!r} is no name for a host. Pass one such as 'stock'."
                raise ValueError(msg)
            if len(self._hosts) >= MOST_HOSTS:
                msg = f"there are {MOST_HOSTS} hosts already, and no address for {name!r}."
                raise ValueError(msg)
            machine = self._core.machine(name)
            host = self._hosts[name] = Host(self._core, machine)
            self._named[name] = caller()
        return host

    def link(
        self,
        a: HostLike,
        b: HostLike,
        *,
        oneway: bool = False,
        latency: float | Unset = UNSET,
        jitter: float | Unset = UNSET,
        bandwidth: float | Unset | None = UNSET,
        loss: float | Unset = UNSET,
        duplicate: float | Unset = UNSET,
        segment: int | Unset | None = UNSET,
    ) -> None:
        """
        Change the link between two hosts.

        The change applies to what is sent from now on. Options that are not given stay as they are.
        Not a checkpoint.

        Args:
            a: A host, or its name.
            b: The other host.
            oneway: Whether only the way from ``a`` to ``b`` changes.
            latency: As for `Network`, as are the others.
            jitter: Maximum seconds that are added at random.
            bandwidth: Bytes a second, or None.
            loss: The share of datagrams that are lost.
            duplicate: The share of the others that arrive twice.
            segment: Maximum number of bytes that arrive at once, or None.

        Raises:
            TypeError: An option, or a host, has the wrong type.
            ValueError: One is out of its range, ``a`` and ``b`` are the same host, or one of them
                is ``"*"``.
        """
        source, target = self._name(a), self._name(b)
        if EVERYBODY in {source, target}:
            msg = "link() changes the link of two hosts. Pass what is for all links to Network()."
            raise ValueError(msg)
        if source == target:
            msg = f"there is no link from {source!r} to itself. Pass two hosts."
            raise ValueError(msg)
        given = {
            "latency": latency,
            "jitter": jitter,
            "bandwidth": bandwidth,
            "loss": loss,
            "duplicate": duplicate,
            "segment": segment,
        }
        options = checked({name: value for name, value in given.items() if value is not UNSET})
        self._core.links.change(source, target, options)
        if not oneway:
            self._core.links.change(target, source, options)

    def name(self, name: str, host: HostLike | None) -> None:
        """
        Give a host another name, or move a name to another host.

        Not a checkpoint.

        Args:
            name: The name, such as ``"api.example.com"``.
            host: The host, or its name; None to remove the name.
        """
        checks.title("name", name)
        address = None if host is None else self.host(self._name(host)).address
        self._core.names.set(name, address)
        self._core.note(f"means {'nothing' if host is None else self._name(host)}", name)

    # ---- faults ----

    def partition(
        self,
        a: HostLike | Iterable[HostLike],
        b: HostLike | Iterable[HostLike] = EVERYBODY,
        *,
        oneway: bool = False,
        required: bool = True,
    ) -> Fault:
        """
        Cut some hosts off from others until `heal`.

        Data of streams is held back and arrives after `heal`, unless the sender's kernel has given
        up, after 924.6 seconds or its TCP_USER_TIMEOUT. Attempts to connect are repeated after 1,
        2, 4 … seconds and fail after 127. Datagrams are lost. Not a checkpoint.

        Args:
            a: A host, its name, several of them, or ``"*"`` for all.
            b: The others. Default: all.
            oneway: Whether only what ``a`` sends to ``b`` is held back.
            required: Whether the test fails if the fault never strikes.

        Returns:
            The fault, for `heal`. It counts how often it has struck.

        Raises:
            TypeError: ``a`` or ``b`` is no host.
            ValueError: One of them is empty.
        """
        return self._between("partition", a, b, oneway=oneway, required=required)

    def hold(
        self,
        a: HostLike | Iterable[HostLike],
        b: HostLike | Iterable[HostLike] = EVERYBODY,
        *,
        oneway: bool = False,
        required: bool = True,
    ) -> Fault:
        """
        Hold back everything between hosts until `heal`.

        Unlike with a `partition`, nothing is lost or retried, also no datagrams, and no kernel
        gives up. Not a checkpoint.

        Args:
            a: As for `partition`.
            b: As for `partition`.
            oneway: As for `partition`.
            required: As for `partition`.
        """
        return self._between("hold", a, b, oneway=oneway, required=required)

    def refuse(self, host: HostLike, port: int | None = None, *, required: bool = True) -> Fault:
        """
        Refuse new connections to a host until `heal`.

        Open connections stay open. Not a checkpoint.

        Args:
            host: The host, its name, or ``"*"`` for all.
            port: The port; None for all.
            required: As for `partition`.

        Raises:
            TypeError: ``host`` is no host, or ``port`` is not an int.
            ValueError: ``port`` is less than 1.
        """
        if port is not None:
            checks.count("port", port, way_out="Pass the number of a port, or None for all.")
        name = self._name(host)
        where = f"{_said([host])}{'' if port is None else f':{port}'}"
        return self._start(
            Cause(
                "refuse",
                f"refusal of {where}",
                partial(_is_refused, name, port),
                required=required,
            )
        )

    def reset(
        self,
        a: HostLike | Iterable[HostLike],
        b: HostLike | Iterable[HostLike] = EVERYBODY,
        *,
        required: bool = True,
    ) -> Fault:
        """
        Reset all connections between hosts at both ends, as a middlebox may.

        Not a checkpoint.

        Args:
            a: As for `partition`.
            b: As for `partition`.
            required: As for `partition`.
        """
        some, others = _listed(a), _listed(b)
        between = self._pairs(some, others, oneway=False)
        what = f"reset of {_said(some)} and {_said(others)}"
        cause = Cause("reset", what, between, required=required)
        fault = self._core.faults.add(cause, lasting=False)
        for _ in range(self._core.cut(between)):
            cause.strike()
        return fault

    def fail_dns(self, name: HostLike = EVERYBODY, *, required: bool = True) -> Fault:
        """
        Make lookups of a name fail until `heal`.

        They raise ``socket.gaierror`` with ``EAI_AGAIN`` after the time that a lookup takes. Not a
        checkpoint.

        Args:
            name: The name, or ``"*"`` for all.
            required: As for `partition`.
        """
        _require("name", name, (Host, str), "a str", "Pass one name, or '*' for all.")
        failing = (name.name if isinstance(name, Host) else name).lower()
        return self._start(
            Cause(
                "fail_dns",
                f"failure of the name {failing!r}",
                partial(_is_meant, failing),
                required=required,
            )
        )

    def heal(self, fault: Fault | None = None) -> None:
        """
        End a fault, or all of them.

        What was held back is sent now and arrives after the latency of its link. A real kernel may
        wait a little before it sends again. Not a checkpoint.

        Args:
            fault: What `partition`, `hold`, `refuse` or `fail_dns` has returned; None for all.

        Raises:
            TypeError: ``fault`` is not a fault.
        """
        way_out = "Pass what partition() and the like have returned, or nothing for all faults."
        _require("fault", fault, (Fault, type(None)), "a Fault", way_out)
        self._core.faults.end(fault)
        self._core.note("heal", EVERYBODY if fault is None else repr(fault))
        self._core.heal()

    # ---- what it has seen ----

    @property
    def open(self) -> tuple[OpenSocket, ...]:
        """
        The sockets that programs have open, the oldest first.

        After the block, these are the ones that were open when all programs had ended.
        """
        return self._core.open_sockets() if self._core.state == "open" else self._left

    @property
    def delivered(self) -> int:
        """How many segments and datagrams have arrived so far."""
        return self._core.delivered

    @property
    def held(self) -> int:
        """How often something was held back or lost by a partition or a hold so far."""
        return self._core.held

    @property
    def trace(self) -> tuple[NetworkEvent, ...]:
        """
        What has happened, at most the last 100,000 events.

        Two runs that did the same have equal traces, on all versions of Python.
        """
        return tuple(NetworkEvent(*event) for event in self._core.trace)

    def statistics(self) -> NetworkStatistics:
        """
        Return the state and the counts so far.

        Not a checkpoint.
        """
        return NetworkStatistics(open=self.open, delivered=self.delivered, held=self.held)

    # ---- the block ----

    async def __aenter__(self) -> Network:
        await checkpoint()
        world = world_here()
        if self._core.state != "not open yet":
            msg = f"{self!r} cannot be opened again. Make another one for another run."
            raise RuntimeError(msg)
        if world is None:
            msg = (
                "a simulated network needs virtual time, and no simulation runs in this thread. "
                "Open it in the function given to mtaio.testing.run(), or in an async test on a "
                "virtual_backend()."
            )
            raise RuntimeError(msg)
        if world.network is not None:
            msg = "a simulated network is open already. Give it another host instead."
            raise RuntimeError(msg)
        world.imply_schedule()
        self._core.open(world)
        self._core.state = "open"
        self._random = random.getstate()
        random.seed(self._seed)
        self._core.group = anyio.create_task_group()
        await self._core.group.__aenter__()
        for start in self._core.starts:
            start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        core = self._core
        for host, machine in core.machines.items():
            if host != MAIN:
                core.kill(machine, silent=False)
        core.group.cancel_scope.cancel("the network is over")
        try:
            swallowed = await core.group.__aexit__(exc_type, exc, traceback)
            core.abandon()
            if exc is None:
                with anyio.CancelScope(shield=True):
                    await settle()  # transports of asyncio close their sockets a little later
        except BaseExceptionGroup as group:
            errors = [error for error in group.exceptions if error is not exc]
            if not errors:
                return False  # the block's own error, as it is
            if len(errors) == len(group.exceptions) == 1:
                raise errors[0] from None  # of a host's program, which has cancelled the block
            raise
        finally:
            self._left = core.open_sockets()
            self._core.state = "over"
            core.close()
            state: Any = self._random
            random.setstate(state)
        if exc is None:
            self._refuse_missed()
        return swallowed

    def _refuse_missed(self) -> None:
        machines = self._core.machines
        others = ", ".join(repr(name) for name in self._hosts if machines[name].known)
        strange = " ".join(
            f"Nothing ever ran on the host {name!r} ({where}), and nobody asked for it: is its "
            f"name right? There are {others}."
            for name, where in self._named.items()
            if not machines[name].known
        )
        missed = list(self._core.faults.missed())
        if missed:
            msg = f"{'; '.join(missed)}. Let it strike, or pass required=False where it may miss."
            raise FaultMissedError(f"{msg} {strange}".rstrip())
        if strange:
            warnings.warn(strange, stacklevel=3)

    def _start(self, cause: Cause) -> Fault:
        self._core.note("begins", cause.what)
        return self._core.faults.add(cause)

    def _between(
        self,
        kind: Any,
        a: HostLike | Iterable[HostLike],
        b: HostLike | Iterable[HostLike],
        *,
        oneway: bool,
        required: bool,
    ) -> Fault:
        way = "from {} to {}" if oneway else "between {} and {}"
        some, others = _listed(a), _listed(b)
        what = f"{kind} {way.format(_said(some), _said(others))}"
        pairs = self._pairs(some, others, oneway=oneway)
        fault = self._start(Cause(kind, what, pairs, required=required))
        self._core.watch_silence()
        return fault

    def _pairs(self, a: list[HostLike], b: list[HostLike], *, oneway: bool) -> Any:
        """Return a function that says whether something between two hosts is meant."""
        sources, targets = frozenset(map(self._name, a)), frozenset(map(self._name, b))

        def is_from_to(source: str, target: str) -> bool:
            return not sources.isdisjoint((source, EVERYBODY)) and not targets.isdisjoint(
                (target, EVERYBODY)
            )

        def is_between(source: str, target: str) -> bool:
            return is_from_to(source, target) or is_from_to(target, source)

        return is_from_to if oneway else is_between

    def _name(self, host: HostLike) -> str:
        """Return the name of a host, which is there from now on."""
        if isinstance(host, Host):
            return host.name
        return host if host == EVERYBODY else self._host(host).name


def _listed(hosts: HostLike | Iterable[HostLike]) -> list[HostLike]:
    """Return one host or several as a list."""
    if isinstance(hosts, (Host, str)):
        return [hosts]
    _require("hosts", hosts, Iterable, "a host", "Pass hosts, or their names.")
    listed = list(hosts)
    if not listed:
        raise ValueError("a fault between no hosts would never strike. Pass hosts, or '*' for all.")
    return listed


def _require(name: str, value: object, kind: Any, called: str, way_out: str) -> None:
    """Raise ``TypeError`` if ``value`` is not of a kind."""
    if not isinstance(value, kind):
        reason = f"{name}={value!r} is {checks.type_of(value)}, not {called}"
        raise checks.refusal(TypeError, reason, way_out)


def _is_refused(host: str, port: int | None, at: str, number: int) -> bool:
    return host in {EVERYBODY, at} and port in {None, number}


def _is_meant(name: str, asked: str) -> bool:
    return name in {EVERYBODY, asked}


def _said(hosts: list[HostLike]) -> str:
    """Return hosts in words."""
    names = [host.name if isinstance(host, Host) else host for host in hosts]
    return ", ".join("all" if name == EVERYBODY else name for name in names)
