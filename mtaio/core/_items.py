"""
The loop for which the pool exists: take an item, run it, put its result away, take the next.

Promise: each item runs in a context of its own, though not in a task of its own; a worker that
meets no suspension yields after 32 items all the same.
Cost: all of what an item costs; hence one function, in which each call saved is saved per item.

It plays the event loop's part towards each item: a coroutine is advanced with ``send`` inside its
context, and what it yields is passed on to the real event loop. That isolates context variables
without a task, and shows whether an item suspended at all.
"""

from __future__ import annotations

import types
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, cast

from mtaio._internal.checkpoints import FAST_ITEMS, checkpoint
from mtaio._internal.clock import now
from mtaio.core._slots import CURRENT, NOBODY
from mtaio.core._verdict import judge

if TYPE_CHECKING:
    from collections.abc import Generator

    from mtaio.core._pool import Pool, Worker


DONE: Final = object()
"""What a desk yields when the item on it has come to its end."""


@types.coroutine
def _desk(tray: list[Any]) -> Generator[Any, Any, None]:
    """
    Await one coroutine after another, each sent in, and put their results on the tray.

    What the coroutine yields comes out as it is; `DONE` says that the next may be sent. Driven
    directly, each coroutine would end with a StopIteration, which costs a tenth of the whole.
    """
    coroutine = yield DONE
    while True:
        tray[0] = yield from coroutine
        coroutine = yield DONE


def _open_desk(tray: list[Any]) -> Generator[Any, Any, None]:
    desk = cast("Generator[Any, Any, None]", _desk(tray))
    next(desk)
    return desk


@types.coroutine
def take_items(  # noqa: C901, PLR0912, PLR0915 - each call saved here is saved for every item
    pool: Pool, worker: Worker
) -> Generator[Any, Any, None]:
    """Take items from the pool's source until it has none, for now or for good."""
    fn, many, source, put, reserve = pool.fn, pool.many, pool.source, pool.put, pool.reserve
    gate, progress = pool.gate, pool.progress
    queue = None if pool.slots is None else pool.slots.queue
    watched = worker.watched
    tray: list[Any] = [None]
    desk = _open_desk(tray)
    send = desk.send
    unyielding = 0
    for item in source:
        index = pool.started
        pool.started = index + 1
        if reserve is not None:
            reserve(None)
        slot = worker.slot
        if slot is not None:
            slot.item = index
            CURRENT.set((slot, index))
        run = copy_context().run
        if watched is not None:
            watched.limit.moment = now() + watched.timeout
        try:
            waits_for = run(send, fn(*item) if many else fn(item))
            if waits_for is not DONE:
                unyielding = -1
                if pool.attentive:
                    pool.item_suspended()
            while waits_for is not DONE:
                try:
                    answer = yield waits_for
                except GeneratorExit:
                    pool.stopping = True  # the event loop is gone, and nobody drives us any more
                    run(desk.close)
                    raise
                except BaseException as error:  # noqa: BLE001 - the item decides what it means
                    thrown = error
                else:
                    if answer is not None and hasattr(answer, "error"):
                        unyielding = FAST_ITEMS  # as below: trio sends errors, wrapped
                    waits_for = run(send, answer)
                    continue
                # It may be a cancellation that the item is about to swallow: see to it that a
                # checkpoint comes before the next item.
                unyielding = FAST_ITEMS
                try:
                    # Out of the handler, lest errors of the item's own get this one as context.
                    waits_for = run(desk.throw, thrown)
                finally:
                    del thrown  # its traceback holds this frame: else they keep each other alive
        except BaseException as error:
            pool.finished += 1
            desk = _open_desk(tray)  # the error ended the old one
            send = desk.send
            if judge(pool, worker, index, item, error):
                raise
        else:
            if watched is not None:
                watched.item_returned()
            put(index, tray[0])
            tray[0] = None  # else the result would live as long as the next item runs
            pool.finished += 1
        if slot is not None:
            slot.item = NOBODY
        if progress is not None:
            progress(pool.finished, pool.total)
        if pool.stopping:
            return
        unyielding += 1
        if unyielding >= FAST_ITEMS:
            if worker.spent:
                return
            unyielding = 0
            yield from checkpoint().__await__()
        # Nothing may yield between here and the next item: the gate counts on it.
        if (
            slot is not None
            and (queue or slot.tenant is not None)
            and pool.must_queue(worker, slot)
        ) or (gate is not None and pool.started >= gate.until):
            yield from pool.admit(worker).__await__()
            if pool.stopping:
                return
