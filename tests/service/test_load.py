"""The example of the deployment guide under load: its limits, its figures, its end."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.service.client import Feed, Load, accepts
from tests.service.harness import wait_until

if TYPE_CHECKING:
    from tests.service.conftest import Start
    from tests.service.upstream import Upstream

RATE, BURST, SLOTS = 300, 50, 10
SLACK = 0.02
"""The seconds by which the limiter may grant a token early, so that timers need not be exact."""

TRIES = {"plain": 1, "slow": 1, "flaky": 2, "lost": 2, "broken": 3}
"""How often a name of each kind is asked for until it is answered, or given up."""


def served(lines: list[str]) -> Counter[str]:
    """Return what the log says was answered."""
    return Counter(line.partition("prices of ")[2] for line in lines if "prices of " in line)


def test_limits_figures_and_drain(start: Start, upstream: Upstream) -> None:
    """
    The limits hold as the upstream measures them, and SIGTERM leaves no request unanswered.

    50 connections ask for prices that are slow, fail once, are lost once, or never there; then 50
    requests are in flight when the signal comes.
    """
    service = start(
        "shop",
        SHOP_UPSTREAM=upstream.url,
        MTAIO_RATE_LIMIT=str(RATE),
        MTAIO_BURST_LIMIT=str(BURST),
        MTAIO_CONCURRENCY_LIMIT=str(SLOTS),
        MTAIO_MAX_WORKERS="100",
        MTAIO_SHUTDOWN_TIMEOUT="30",
    ).wait_readiness(200)

    names = {kind: [f"{kind}-{number}" for number in range(30)] for kind in TRIES}
    began = time.monotonic()
    load = Load(
        service.address,
        [
            f"/prices?sku={name}&sku=pen"
            for name in itertools.chain(*zip(*names.values(), strict=True))
        ],
    )
    load.start().join()
    assert (load.unanswered, load.broken) == ([], [])
    # Each price was fetched once for all who asked, and as often as its failures call for.
    wanted = {name: TRIES[kind] for kind, each in names.items() for name in each}
    assert upstream.asked == Counter({**wanted, "pen": 1})
    for path, answer in load.answers.items():
        assert answer.status == (503 if "broken" in path else 200), (path, answer)
    assert upstream.peak == SLOTS
    for number, moment in enumerate(upstream.arrivals, 1):
        assert number <= BURST + RATE * (moment - began + SLACK), moment - began
    for metric, value in {
        "mtaio_server_requests_total": len(load.answers),
        "mtaio_rate_limiter_acquired_total": len(upstream.arrivals),
        "mtaio_concurrency_limiter_peak": SLOTS,
        "mtaio_task_executor_retried_total": 30 + 30 + 2 * 30,
    }.items():
        service.wait_metric(metric, value)

    feed = Feed(service.address, "/feed").start()
    upstream.hold()
    last = Load(service.address, [f"/prices?sku=late-{number}" for number in range(50)]).start()
    service.wait_metric("mtaio_server_in_flight", 51)
    upstream.wait_in_flight(SLOTS)
    service.send()
    feed.join()  # it ends as soon as the service drains, with all requests still in flight
    assert feed.whole
    assert feed.body.endswith(b"event: end\ndata:\n\n")
    assert service.readiness() == 503
    wait_until(lambda: not accepts(service.address))
    upstream.release()
    last.join()
    assert (last.unanswered, last.broken) == ([], [])
    assert Counter(answer.status for answer in last.answers.values()) == {200: 50}
    assert service.wait() == 0
    assert service.seconds < 30
    # What was answered is what the log says, to the line.
    answered = [
        path.partition("=")[2].replace("&sku=", ", ")
        for each in (load, last)
        for path, answer in each.answers.items()
        if answer.status == 200
    ]
    assert served(service.log()) == Counter(answered)


def test_memory_and_rolling_end(start: Start, upstream: Upstream) -> None:
    """
    10,000 requests leave memory where it was, and a stop under running load cuts no answer short.

    The requests go on while the service says that it is not ready, and until it listens no more:
    each is answered whole, or not accepted. Some of the first get no answer from the upstream, and
    are tried again when their time is over.
    """
    service = start(
        "shop",
        SHOP_UPSTREAM=upstream.url,
        MTAIO_MAX_WORKERS="100",
        MTAIO_RATE_LIMIT="inf",
        MTAIO_DRAIN_DELAY="0.5",
        MTAIO_DEFAULT_TIMEOUT="2",
        MTAIO_SHUTDOWN_TIMEOUT="30",
    ).wait_readiness(200)
    assert service.rss() < 66
    numbers = itertools.count()

    def ask(requests: int) -> Load:
        paths = (
            f"/prices?sku={'stuck' if number < 10 else 'plain'}-{number % 500}&number={number}"
            for number in itertools.islice(numbers, requests)
        )
        return Load(service.address, paths).start()

    total = 1000
    assert {answer.status for answer in ask(total).join().answers.values()} == {200}
    assert all(upstream.asked[f"stuck-{number}"] >= 2 for number in range(10))
    resident = service.rss()
    total += len(ask(10_000).join(100).answers)
    growth = service.rss() - resident
    assert total == 11_000
    assert growth < 2, f"{growth} MiB more than {resident}"

    load = ask(10**9)
    load.wait_answers(200)
    before = len(load.answers)
    service.send()
    service.wait_readiness(503)
    load.join()
    assert load.broken == []
    assert {answer.status for answer in load.answers.values()} == {200}
    assert len(load.answers) > before
    assert service.wait() == 0
    assert service.seconds < 30
    assert served(service.log()).total() == total + len(load.answers)


def test_background_service_and_events(start: Start, upstream: Upstream) -> None:
    """What the background service finds reaches the handlers of the event."""
    service = start("shop", SHOP_UPSTREAM=upstream.url, MTAIO_CACHE_TTL="1").wait_readiness(200)
    assert service.get("/prices?sku=rising-1").body == b'{"rising-1":1.0}'
    service.err.wait("shop: rising-1 costs 2.0 now")
    assert service.stop() == 0
