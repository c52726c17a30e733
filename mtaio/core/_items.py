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
from typing import TYPE_CHECKING, Any

from mtaio._internal.clock import now
from mtaio._internal.coop import FAST_ITEMS, checkpoint
from mtaio.core._slots import CURRENT, NOBODY
from mtaio.core._verdict import judge

if TYPE_CHECKING:
    from collections.abc import Generator

    from mtaio.core._pool import Pool, Worker


@types.coroutine
def take_items(  # noqa: C901, PLR0912, PLR0915 - each call saved here is saved for every item
    pool: Pool, worker: Worker
) -> Generator[Any, Any, None]:
    """Take items from the pool's source until it has none, for now or for good."""
    fn, many, source, put, reserve = pool.fn, pool.many, pool.source, pool.put, pool.reserve
    gate, progress = pool.gate, pool.progress
    queue = None if pool.slots is None else pool.slots.queue
    watched = worker.watched
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
            coro = fn(*item) if many else fn(item)
            send = coro.send
            waits_for = run(send, None)
            unyielding = -1
            if pool.attentive:
                pool.item_suspended()
            while True:
                try:
                    answer = yield waits_for
                except GeneratorExit:
                    pool.stopping = True  # the event loop is gone, and nobody drives us any more
                    run(coro.close)
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
                    waits_for = run(coro.throw, thrown)
                finally:
                    del thrown  # its traceback holds this frame: else they keep each other alive
        except StopIteration as end:
            if watched is not None:
                watched.item_returned()
            put(index, end.value)
            pool.finished += 1
        except BaseException as error:
            pool.finished += 1
            if judge(pool, worker, index, item, error):
                raise
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
