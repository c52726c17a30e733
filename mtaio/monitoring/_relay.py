"""
Probes and metrics of several processes at one address.

Promise: a probe says that all is well if each process says so. `/metrics` has the figures of all,
each with the label ``worker``, and what the processes show by themselves is below their names. Who
may see it, they decide. A process that does not answer in time is left out of the figures.
Cost: each request is one to each process, over a connection of its own.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, final

import anyio

from mtaio._internal.addresses import Address
from mtaio.monitoring._delivery import logger
from mtaio.monitoring._endpoints import Request, Response, text
from mtaio.monitoring._listener import Limits, Listener
from mtaio.monitoring._metrics import CONTENT_TYPE, Source, metrics, to_prometheus
from mtaio.monitoring._probes import listening_socket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from anyio.abc import TaskStatus

__all__ = ["ProbesRelay"]

_WITHIN: Final = 2.5
"""Seconds for a process to answer a probe, which takes it 2 at most, or to show its figures."""
_WITHIN_HISTORY: Final = 30.0
_MOST: Final = 64 * 2**20
"""Bytes of an answer: three hours of history have twenty million."""

_SAMPLE: Final = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?( [^}]*)")
_TAKEN: Final = re.compile(r'(^|,)worker="')
"""A label of a sample's own that has the same name: in a value, the quote has a backslash."""
_PROBES: Final = frozenset({"/livez", "/readyz", "/startupz"})


@final
class ProbesRelay:
    """
    Answers probes for several processes, such as the workers of a supervisor.

    - ``/livez`` is 200 unless it fails in one of them; ``/readyz`` and ``/startupz`` are 200 if
      there are any processes and all of them say so. - ``/metrics`` has the figures of all
      processes; the label ``worker`` is the name of the process. - ``/NAME/…`` is answered by the
      process of that name, such as its page or its ``/stats``.

    Each process has `Probes` of its own. They decide whether the client may see figures, as if it
    had asked them directly.

    Args:
        targets: Called for each request; returns the addresses of the processes' `Probes` by name.
        bind: As for `Probes`.
        sources: Returns more sources for the metrics.

    Raises:
        ValueError, TypeError: ``bind`` is not an address and a port.

    Example:
        ```python
        import anyio

        from mtaio.monitoring import ProbesRelay

        processes = {"1": "127.0.0.1:9001", "2": "127.0.0.1:9002"}


        async def main() -> None:
            relay = ProbesRelay(lambda: processes, bind="127.0.0.1:0")
            async with anyio.create_task_group() as group:
                print("probes of both:", await group.start(relay.serve))
                group.cancel_scope.cancel()


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("_address", "_sources", "_targets")

    def __init__(
        self,
        targets: Callable[[], Mapping[str, str]],
        *,
        bind: str = "127.0.0.1:9464",
        sources: Callable[[], Iterable[Source]] = tuple,
    ) -> None:
        self._address: Final = Address.parse("bind", bind)
        self._targets: Final = targets
        self._sources: Final = sources

    async def serve(self, *, task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED) -> None:
        """
        Answer until cancelled.

        A checkpoint. If it is cancelled, it closes its sockets.

        Args:
            task_status: Gets the address, with the actual port in place of 0, when it listens.

        Raises:
            ListenError: It cannot listen there.
        """
        listening = listening_socket(self._address)
        listener = Listener(listening, self._respond, Limits())
        try:
            task_status.started(str(Address(self._address.host, listening.getsockname()[1])))
            await listener.serve()
        finally:
            listener.close()

    async def _respond(self, request: Request, send: Callable[[Response], Awaitable[None]]) -> None:
        try:
            answer = await self._answer(request)
        except Exception:  # noqa: BLE001 - logged, and the client gets to know
            logger.exception("cannot answer %s %s", request.method, request.path)
            answer = text(500, "internal error")
        await send(answer)

    async def _answer(self, request: Request) -> Response:
        if request.method not in {"GET", "HEAD"}:
            return text(405, "only GET and HEAD", ("allow", "GET, HEAD"))
        targets = self._targets()
        if request.path in _PROBES:
            answers = await _ask_all(targets.values(), request, request.path)
            ok = all(each is not None and each.status == HTTPStatus.OK for each in answers)
            ok = ok and bool(targets or request.path == "/livez")
            return text(200, "ok") if ok else text(503, "unavailable")
        if request.path == "/metrics":
            return await self._metrics(targets, request)
        name, slash, rest = request.path[1:].partition("/")
        if name not in targets or not slash:
            pages = " ".join(f"/{each}/" for each in targets) or "no worker is up"
            return text(404, f"each worker has pages of its own: {pages}")
        path = f"/{rest}?{request.query}" if request.query else f"/{rest}"
        answer = await _ask(targets[name], request, path, within=_WITHIN_HISTORY)
        return text(503, "this worker does not answer") if answer is None else answer

    async def _metrics(self, targets: Mapping[str, str], request: Request) -> Response:
        answers = await _ask_all(targets.values(), request, request.path)
        texts = {"": to_prometheus(metrics(self._sources()))}
        for name, answer in zip(targets, answers, strict=True):
            if answer is not None and answer.status != HTTPStatus.OK:
                return answer  # the client may not see them
            if answer is not None:
                texts[name] = answer.body.decode("utf-8", "replace")
        headers = (("content-type", CONTENT_TYPE), ("cache-control", "no-store"))
        return Response(200, headers, merged(texts).encode())


def merged(texts: Mapping[str, str]) -> str:
    """
    Return one text for Prometheus with what several processes say.

    A family is one group of lines, whoever has said them; each sample of a process gets its name as
    the label ``worker``, but for that without one.
    """
    families: dict[str, tuple[dict[str, None], list[str]]] = {}
    for name, content in texts.items():
        samples: list[str] = []
        for line in content.split("\n"):  # a value may hold what else ends a line
            if line.startswith("# "):
                heads, samples = families.setdefault(line.split(" ", 3)[2], ({}, []))
                heads.setdefault(line)
            elif found := _SAMPLE.fullmatch(line):
                metric, labels, value = found.groups()
                own = f'worker="{name}"' if name else ""
                labels = _TAKEN.sub(r'\1exported_worker="', labels or "") if own else labels
                inside = ",".join(filter(None, (own, labels)))
                samples.append(f"{metric}{{{inside}}}{value}" if inside else line)
    lines = (line for heads, samples in families.values() for line in (*heads, *samples))
    return "".join(f"{line}\n" for line in lines)


async def _ask_all(addresses: Iterable[str], request: Request, path: str) -> list[Response | None]:
    """Return what each answers, in order; None for one that does not."""
    answers: list[Response | None] = []

    async def ask(place: int, address: str) -> None:
        answers[place] = await _ask(address, request, path, within=_WITHIN)

    async with anyio.create_task_group() as group:
        for place, address in enumerate(addresses):
            answers.append(None)
            group.start_soon(partial(ask, place, address))
    return answers


async def _ask(address: str, request: Request, path: str, *, within: float) -> Response | None:
    """Return what one answers, as if it had been asked by the client; None if it does not."""
    fields = [("host", request.host or ""), ("connection", "close")]
    if request.authorization is not None:
        fields.append(("authorization", request.authorization.decode("latin-1")))
    if request.accept:
        fields.append(("accept", request.accept.decode("latin-1")))
    if request.forwarded or not request.client_is_local:
        fields.append(("x-forwarded-for", request.client or "unknown"))
    lines = [f"GET {path} HTTP/1.0", *(f"{name}: {value}" for name, value in fields), "", ""]
    host, port = Address.parse("address", address)
    received = bytearray()
    try:
        with anyio.fail_after(within):
            async with await anyio.connect_tcp(host, port) as stream:
                await stream.send("\r\n".join(lines).encode("latin-1"))
                with suppress(anyio.EndOfStream):
                    while len(received) <= _MOST:
                        received += await stream.receive()
    except (OSError, anyio.BrokenResourceError, TimeoutError):
        return None
    return _parsed(bytes(received)) if len(received) <= _MOST else None


def _parsed(received: bytes) -> Response | None:
    head, end, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    status = first.split(" ")[1:2]
    if not (end and status and status[0].isdigit()):
        return None
    fields = (line.partition(": ")[::2] for line in lines)
    length = None
    kept: list[tuple[str, str]] = []
    for name, value in fields:
        if name == "content-length":
            length = value
        elif name not in {"date", "connection"}:
            kept.append((name, value))
    if length is not None and length != str(len(body)):
        return None  # cut off
    return Response(int(status[0]), tuple(kept), body)
