"""Random programs: calls in calls in calls, submitted, cancelled, across two executors."""

from __future__ import annotations

from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio.core import TaskExecutor
from mtaio.testing import run
from tests.core.gauge import Gauge

if TYPE_CHECKING:
    from mtaio.core import TaskHandle


Kind: TypeAlias = Literal[
    "run", "map", "gather", "group", "stream", "race", "submit", "one by one", "fire", "fail"
]


@dataclass(frozen=True)
class Node:
    """
    A piece of a program, which runs as one item.

    Args:
        kind: What to do with the pieces inside.
        ticks: How long to work before, in 64ths of a second.
        inside: The pieces inside.
        patience: After how many ticks to give the piece up; None for never.
    """

    kind: Kind
    ticks: int
    inside: tuple[Node, ...] = ()
    patience: int | None = None


def programs(*kinds: Kind, impatient: bool = False) -> st.SearchStrategy[list[Node]]:
    """Return programs made of these kinds of pieces; impatient ones are given up at times."""
    patience = st.none() | st.integers(0, 20) if impatient else st.none()
    leaf = st.builds(Node, st.sampled_from(kinds), st.integers(0, 9), patience=patience)
    tree = st.recursive(
        leaf,
        lambda inside: st.builds(
            Node,
            st.sampled_from(kinds),
            st.integers(0, 9),
            st.lists(inside, min_size=1, max_size=3).map(tuple),
            patience,
        ),
        max_leaves=12,
    )
    return st.lists(tree, min_size=1, max_size=4)


class Machine:
    """Runs a program on one executor, or on several alternately, and counts the items at work."""

    def __init__(self, limits: list[int], pending: int) -> None:
        self.executors = [TaskExecutor(limit, max_pending=pending) for limit in limits]
        self.gauges = [Gauge() for _ in limits]

    async def main(self, program: list[Node]) -> None:
        """Run a program to its end, whatever becomes of it, and look at what is left."""
        try:
            async with AsyncExitStack() as stack:
                for executor in self.executors:
                    await stack.enter_async_context(executor)
                await self.go_inside(Node("group", 0, tuple(program)), 0)
        except* ZeroDivisionError:
            pass
        for executor in self.executors:
            statistics = executor.statistics()
            assert (statistics.in_flight, statistics.waiting, statistics.submitted) == (0, 0, 0)
            ended = statistics.succeeded + statistics.failed + statistics.cancelled
            assert statistics.started == ended
            assert statistics.in_use == 0

    async def item(self, node: Node, depth: int, *, counted: bool = True) -> None:
        """Work, then see to the pieces inside, in which time the item is idle."""
        gauge = self.gauges[(depth - 1) % len(self.gauges)]
        with anyio.CancelScope() as scope:
            if node.patience is not None:
                scope.deadline = anyio.current_time() + node.patience / 64
            with gauge if counted else nullcontext():
                await anyio.sleep(node.ticks / 64)
            await self.go_inside(node, depth)

    async def go_inside(self, node: Node, depth: int) -> None:  # noqa: C901, PLR0912 - ten kinds
        """See to the pieces inside, on the executor for this depth."""
        executor = self.executors[depth % len(self.executors)]
        handles: list[TaskHandle[None]] = []

        async def item(inside: Node) -> None:
            await self.item(inside, depth + 1)

        async def part(inside: Node) -> None:
            # Inside an item of this executor the calls of gather and race are part of that item.
            await self.item(inside, depth + 1, counted=depth < len(self.executors))

        match node.kind:
            case "run":
                for each in node.inside:
                    await executor.run(item, each)
            case "map":
                await executor.map(item, node.inside)
            case "gather":
                await executor.gather(*[part(each) for each in node.inside])
            case "group":
                async with anyio.create_task_group() as group:
                    for each in node.inside:
                        group.start_soon(executor.run, item, each)
            case "stream":
                async with executor.stream(item, node.inside) as results:
                    async for _ in results:
                        pass
            case "race":
                if node.inside:
                    await executor.race(*[part(each) for each in node.inside])
            case "submit":
                for each in node.inside:
                    handles.insert(0, await executor.submit(item, each))
                for handle in handles:
                    await handle
            case "one by one":
                for each in node.inside:
                    await (await executor.submit(item, each))
            case "fire":
                for each in node.inside:
                    await executor.submit(item, each)
            case "fail":
                raise ZeroDivisionError


SIDE_BY_SIDE: tuple[Kind, ...] = ("run", "map", "gather", "group", "stream")

one = st.tuples(st.lists(st.integers(1, 3), min_size=1, max_size=1), st.integers(0, 2))
two = st.tuples(st.lists(st.integers(1, 2), min_size=2, max_size=2), st.integers(0, 1))
calm = st.tuples(one, programs(*SIDE_BY_SIDE, "submit", "one by one", "fire")) | st.tuples(
    two, programs(*SIDE_BY_SIDE, "one by one")
)
rough = st.tuples(
    one,
    programs(*SIDE_BY_SIDE, "race", "submit", "one by one", "fire", "fail", impatient=True),
) | st.tuples(two, programs(*SIDE_BY_SIDE, "race", "fail", impatient=True))


@settings(max_examples=60)
@given(calm)
def test_any_program_ends_and_keeps_the_limits(
    backend: str, drawn: tuple[tuple[list[int], int], list[Node]]
) -> None:
    """Whatever is nested in whatever, on one executor or two, it ends and keeps the limits."""
    (limits, pending), program = drawn
    machine = Machine(limits, pending)
    run(machine.main, program, backend=backend)
    for gauge, limit in zip(machine.gauges, limits, strict=True):
        assert gauge.peak <= limit


@settings(max_examples=60)
@given(rough)
def test_any_program_ends_though_parts_fail_or_are_given_up(
    backend: str, drawn: tuple[tuple[list[int], int], list[Node]]
) -> None:
    """With errors and cancellation anywhere, too, it ends, and every slot comes back."""
    (limits, pending), program = drawn
    run(Machine(limits, pending).main, program, backend=backend)
