"""`bridge` on the virtual clock, with a stream in memory."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.events import Event, EventEmitter, EventKey
from mtaio.exceptions import StoreError
from mtaio.redis import bridge
from mtaio.testing import Victim, explore
from tests.redis.streaming import StreamStore

if TYPE_CHECKING:
    from collections.abc import Callable

PENDING = "mtaio:events:{orders}"


class Shop:
    """An emitter whose handler notes what it gets."""

    def __init__(self, handle: Callable[[Event[Any]], Any] | None = None) -> None:
        self.emitter = EventEmitter()
        self.got: list[Any] = []
        self.events: list[Event[Any]] = []
        self._handle = handle
        self.emitter.on("order.*", self.take)

    async def take(self, event: Event[Any]) -> None:
        """Handle an event."""
        if self._handle is not None:
            await self._handle(event)
        self.got.append(event.data)
        self.events.append(event)


async def test_events_are_shared_by_a_group() -> None:
    """Each goes to one consumer of each group, in order, with its metadata."""
    async with StreamStore() as store:
        one, two, other = Shop(), Shop(), Shop()
        ada = {"by": "ada"}
        async with (
            bridge(one.emitter, store, stream="orders", group="ship") as first,
            bridge(two.emitter, store, stream="orders", group="ship") as second,
            bridge(other.emitter, store, stream="orders", group="bill", limit=3),
        ):
            for number in range(100):
                assert await first.send("order.paid", number, metadata=ada) == f"{number + 1}-0"
            await anyio.sleep(1)
            assert sorted(one.got + two.got) == [*range(100)]
            assert one.got == sorted(one.got)
            assert sorted(other.got) == [*range(100)]
            event = other.events[0]
            assert event.name == "order.paid"
            assert event.metadata == {"by": "ada", "stream_id": "1-0", "deliveries": 1}
            assert first.statistics().sent == 100
            assert first.statistics().handled + second.statistics().handled == 100
            assert first.statistics().in_flight == 0
            assert repr(first) == "<Bridge 'orders/ship' at memory://>"
        assert store.data[PENDING].pending == {"ship": {}, "bill": {}}


async def test_a_group_resumes_where_it_was() -> None:
    """What was sent while nobody received is delivered; a new group may begin with what is new."""
    async with StreamStore() as store:
        key = EventKey[int]("order.paid")
        async with bridge(EventEmitter(), store, stream="orders") as sender:
            assert sender.name == "orders"
            for number in range(3):
                await sender.send(key, number)
            shop, late = Shop(), Shop()
            for expected in ([0, 1, 2], [0, 1, 2, 3]):
                async with bridge(shop.emitter, store, stream="orders", group="ship"):
                    await anyio.sleep(0.1)
                assert shop.got == expected
                await sender.send(key, len(expected))
            async with bridge(late.emitter, store, stream="orders", group="late", from_start=False):
                await anyio.sleep(0.1)
                await sender.send(key, 5)
                await anyio.sleep(0.1)
                del store.data[PENDING]  # the server has lost it
                await sender.send("order.paid", 6)
                await anyio.sleep(3)
            assert late.got == [5, 6]


async def test_slow_consumers_share_what_waits() -> None:
    """One that is busy leaves to the others what it has no time for."""

    async def slowly(_: Event[Any]) -> None:
        await anyio.sleep(1)

    async with StreamStore() as store:
        one, two = Shop(slowly), Shop(slowly)
        async with (
            bridge(one.emitter, store, stream="orders", group="ship") as sender,
            bridge(two.emitter, store, stream="orders", group="ship"),
        ):
            await anyio.sleep(10)
            for number in range(20):
                await sender.send("order.paid", number)
            await anyio.sleep(13)
        assert sorted(one.got + two.got) == [*range(20)]


async def test_forwarding() -> None:
    """What is emitted is sent, and what came from the stream is not sent again."""
    async with StreamStore() as store:
        here, there = Shop(), Shop()
        async with (
            bridge(here.emitter, store, stream="orders", forward=["order.paid"]),
            bridge(there.emitter, store, stream="orders", group="ship", forward=["order.*"]),
        ):
            await here.emitter.emit("order.paid", 1, metadata={"by": "ada"})
            await here.emitter.emit("order.made", 2)
            await anyio.sleep(1)
            assert (here.got, there.got) == ([1, 2], [1])
            assert there.events[0].metadata["by"] == "ada"
            store.fail()
            with pytest.raises(ExceptionGroup) as caught:
                await here.emitter.emit("order.paid", 3)
            assert caught.group_contains(StoreError)
        assert here.emitter.listener_count("order.paid") == 1


async def test_forwarding_by_patterns_that_overlap() -> None:
    """An event is sent once, and nothing is left behind by a pattern that is none."""
    async with StreamStore() as store:
        shop = Shop()
        key = EventKey[int]("order.paid")
        forward: list[str | EventKey[Any]] = ["order.paid", "order.*", "*", key]
        async with bridge(shop.emitter, store, stream="orders", forward=forward) as remote:
            for name in ("order.paid", "order.made", "orders"):
                await shop.emitter.emit(name, 1)
            assert remote.statistics().sent == 3
        with pytest.raises(ValueError, match="has a '\\*' where it matches nothing"):
            async with bridge(shop.emitter, store, stream="orders", forward=["order.*", "*.made"]):
                pass
        assert shop.emitter.listener_count() == 1


async def test_names_that_no_event_has() -> None:
    """They are refused where they are sent, and not where they would come."""
    async with StreamStore() as store, bridge(EventEmitter(), store, stream="orders") as remote:
        with pytest.raises(ValueError, match=r"^name='order\.\*' is a pattern"):
            await remote.send("order.*")
        with pytest.raises(ValueError, match=r"^name='' is empty"):
            await remote.send("")


async def test_events_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    """They are delivered again after a while, others meanwhile, and are set aside at last."""

    async def handle(event: Event[Any]) -> None:
        if event.data == "bad" or (event.data == "shy" and event.metadata["deliveries"] < 3):
            moments.append(anyio.current_time())
            raise OSError("no")

    moments: list[float] = []
    shop = Shop(handle)
    async with StreamStore() as store:
        async with bridge(
            shop.emitter, store, stream="orders", group="ship", claim_after=10, max_deliveries=3
        ) as made:
            with caplog.at_level(logging.WARNING, "mtaio.redis"):
                for data in ("bad", "shy", "good"):
                    await made.send("order.paid", data)
                await store.command(
                    *("XADD", PENDING, "MAXLEN", "~", 10, "*", "name", "order.paid", "data", "{")
                )
                await anyio.sleep(100)
            statistics = made.statistics()
        assert shop.got == ["good", "shy"]
        assert [round(each / 10) for each in moments] == [0, 0, 1, 1, 2]
        assert (statistics.failed, statistics.set_aside, statistics.claimed) == (8, 2, 6)
        aside = store.data[f"{PENDING}:aside"].entries
        assert [each[b"id"] for each in aside.values()] == [b"1-0", b"4-0"]
        assert store.data[PENDING].pending == {"ship": {}}
        assert "event 1-0 failed on delivery 1" in caplog.text
        assert "events aside: they had" in caplog.text


async def test_a_consumer_that_dies() -> None:
    """What it held goes to another when it has not been heard of for long enough."""
    async with StreamStore() as store:
        shop = Shop()
        async with bridge(EventEmitter(), store, stream="orders", group="ship") as made:
            await anyio.sleep(0.1)
        for number in range(70):
            await made.send("order.paid", number)
        read = ("XREADGROUP", "GROUP", "ship", "dead", "COUNT", 70, "BLOCK", 100)
        assert await store.command(*read, "STREAMS", PENDING, ">")
        async with bridge(shop.emitter, store, stream="orders", group="ship", claim_after=9):
            await anyio.sleep(8.9)
            assert shop.got == []
            await anyio.sleep(5)
        assert shop.got == [*range(70)]
        assert shop.events[0].metadata["deliveries"] == 2


async def test_handlers_that_take_long() -> None:
    """What is being handled is not claimed by others, however long it takes."""

    async def handle(_: Event[Any]) -> None:
        await anyio.sleep(50)

    async with StreamStore() as store:
        one, two = Shop(handle), Shop(handle)
        async with (
            bridge(one.emitter, store, stream="orders", group="ship", claim_after=3) as made,
            bridge(two.emitter, store, stream="orders", group="ship", claim_after=3),
        ):
            await made.send("order.paid", 1)
            await anyio.sleep(60)
        assert one.got + two.got == [1]


async def test_a_block_that_is_cancelled_gives_back() -> None:
    """Another consumer gets what was in hand at its next look, in order; nothing is lost."""

    async def handle(_: Event[Any]) -> None:
        await anyio.sleep(10)

    async with StreamStore() as store:
        slow, shop = Shop(handle), Shop()
        async with bridge(EventEmitter(), store, stream="orders") as sender:
            for number in range(5):
                await sender.send("order.paid", number)
        with anyio.move_on_after(15):
            async with bridge(slow.emitter, store, stream="orders", group="ship"):
                await anyio.sleep_forever()
        assert slow.got == [0]
        async with bridge(shop.emitter, store, stream="orders", group="ship"):
            await anyio.sleep(0.1)
        assert shop.got == [1, 2, 3, 4]
        assert anyio.current_time() < 16


async def test_events_that_the_stream_has_dropped() -> None:
    """They are counted as lost."""

    async def fail(_: Event[Any]) -> None:
        raise OSError("no")

    async with StreamStore() as store:
        shop = Shop(fail)
        async with bridge(
            shop.emitter, store, stream="orders", group="ship", claim_after=5, max_length=2
        ) as made:
            await made.send("order.paid", 1)
            await anyio.sleep(0.1)
            for number in range(2):
                await made.send("other", number)
            await anyio.sleep(10)
            assert made.statistics().lost == 1
            assert made.statistics().handled == 2


async def test_server_down(caplog: pytest.LogCaptureFixture) -> None:
    """It tries again with growing pauses, and goes on when the server is there, also empty."""

    async def handle(_: Event[Any]) -> None:
        await anyio.sleep(5)

    async with StreamStore() as store:
        shop = Shop(handle)
        with caplog.at_level(logging.WARNING, "mtaio.redis"):
            async with bridge(
                shop.emitter, store, stream="orders", group="ship", claim_after=3
            ) as made:
                await made.send("order.paid", 1)
                await anyio.sleep(0.1)
                store.fail()
                await anyio.sleep(30)
                store.recover()
                store.data.clear()
                await anyio.sleep(5)
                await made.send("order.paid", 2)
                await anyio.sleep(10)
                assert made.statistics().server_failures > 10
        assert shop.got == [1, 2]
        assert "cannot receive, and tries again in 2 s: memory:// did not answer" in caplog.text
        assert "event 1-0 was handled and will be delivered again" in caplog.text


async def test_what_ends_the_block_comes_out_as_it_is() -> None:
    """An error of the body, and what a handler raises that is no Exception; two in a group."""

    class Stop(BaseException):
        pass

    async def handle(_: Event[Any]) -> None:
        raise Stop

    async with StreamStore() as store:
        shop = Shop(handle)
        with pytest.raises(LookupError):
            async with bridge(shop.emitter, store, stream="orders", group="ship"):
                raise LookupError

        async def send() -> None:
            async with bridge(shop.emitter, store, stream="orders", group="ship") as made:
                await made.send("order.paid", 1)
                await anyio.sleep_forever()

        with pytest.raises(Stop):
            await send()
        assert [*store.data[PENDING].pending["ship"]] == ["1-0"]

        async def fail() -> None:
            async with bridge(shop.emitter, store, stream="orders", group="ship"):
                try:
                    await anyio.sleep_forever()
                finally:
                    raise LookupError

        with pytest.raises(BaseExceptionGroup) as caught:
            await fail()
        assert caught.group_contains(Stop)


async def test_refusals() -> None:
    """Empty names, and numbers out of range."""
    emitter = EventEmitter()
    async with StreamStore() as store:
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"stream": None}, "stream=None is a NoneType, not a str"),
            ({"group": 5}, "group=5 is an int, not a str"),
            ({"codec": None}, "codec=None is a NoneType, not a Codec"),
            ({"from_start": 0}, "from_start=0 is an int, not a bool"),
            ({"store": None}, "store=None is a NoneType, not a store"),
        ]
        for options, message in wrong:
            with pytest.raises(TypeError, match=f"^{message}"):
                await bridge(
                    emitter, **{"store": store, "stream": "orders", **options}
                ).__aenter__()
        refused: list[tuple[dict[str, Any], str]] = [
            *(({name: ""}, f"^{name}='' is empty") for name in ("stream", "group")),
            *(({name: 0}, f"^{name}=0 is less than 1") for name in ("limit", "max_length")),
            ({"max_deliveries": 0}, "^max_deliveries=0 is less than 1"),
            ({"claim_after": math.inf}, "^claim_after=inf is not a finite number"),
        ]
        for options, message in refused:
            with pytest.raises(ValueError, match=message):
                await bridge(emitter, store, **{"stream": "orders", **options}).__aenter__()
        with pytest.raises(TypeError, match=r"^forward='order\.\*' is one name, not several"):
            await bridge(emitter, store, stream="orders", forward="order.*").__aenter__()


@explore(seeds=30, exhaustive=0)
async def test_a_receiver_that_is_cancelled(victim: Victim) -> None:
    """Whenever it is, each event is handled once or more, and none stays with the group."""
    async with StreamStore() as store:
        one, two = Shop(), Shop()

        async def receive() -> None:
            async with bridge(one.emitter, store, stream="orders", group="ship", claim_after=2):
                await anyio.sleep(1)

        async with (
            bridge(two.emitter, store, stream="orders") as sender,
            anyio.create_task_group() as group,
        ):
            group.start_soon(victim, receive)
            for number in range(3):
                await sender.send("order.paid", number)
        async with bridge(two.emitter, store, stream="orders", group="ship", claim_after=2):
            await anyio.sleep(4)
        assert {*one.got, *two.got} == {0, 1, 2}
        assert store.data[PENDING].pending == {"ship": {}}
