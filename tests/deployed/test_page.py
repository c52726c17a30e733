"""The status page in a real browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.deployed.browser import Browser, Tab, program
from tests.deployed.service import LIMITS, Service, alert, check

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

HERE = Path(__file__).parent
READY = "cards.size > 3 && document.querySelector('.chart path') !== null"
"""True once the charts are drawn."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser for all tests of this module."""
    if program() is None and os.environ.get("CI") != "true":
        pytest.skip("no Chromium here: apt-get install chromium")
    with Browser() as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """Return an empty tab."""
    tab = browser.tab()
    tab.look()
    tab.speak("en-GB")
    yield tab
    tab.close()


@contextlib.contextmanager
def shown(tab: Tab, **settings: Any) -> Generator[Service]:
    """Show the page of a service with these settings."""
    with Service(**settings) as service:
        tab.goto(service.url)
        tab.wait(READY)
        yield service


def asked(service: Service, times: int) -> None:
    """Wait until the page has asked so many times."""
    end = time.monotonic() + 30
    while len(service.asked) < times:
        assert time.monotonic() < end, service.asked
        time.sleep(0.05)


def card(tab: Tab, title: str) -> str:
    """Return the text of the card with a title."""
    return str(
        tab.evaluate(
            "[...document.querySelectorAll('.card')]"
            f".find(each => each.querySelector('h3').textContent === {json.dumps(title)}).innerText"
        )
    )


def words(tab: Tab) -> str:
    """Return what the page says about the service as a whole."""
    return str(tab.evaluate("document.getElementById('words').textContent"))


def test_figures_are_those_of_the_service(tab: Tab) -> None:
    """The page shows what ``stats`` says, in units that people read."""
    with Service(load=0.6) as service:
        service.frozen = True
        tab.goto(service.url)
        tab.wait(READY)
        stats = service.stats(300)
        values = stats["values"]
        assert tab.text("h1") == "orders-api"
        assert tab.text("#uptime") == "up 1\u202fd 2\u202fh"
        assert words(tab) == "HealthyNo alert is firing, and the event loop answers."
        assert tab.evaluate("document.title") == "✓ orders-api: Healthy"
        cpu = card(tab, "CPU of the container")
        assert f"{values['cpu.usage_percent']:.1f}\u202f%" in cpu
        assert f"{values['cpu.process_percent'] / 2:.1f}\u202f%" in cpu  # the limit is 2 CPUs
        past = stats["history"]["values"]["cpu.usage_percent"]
        assert f"min {min(past):.1f}\u202f% · max {max(past):.1f}\u202f%" in cpu
        memory = card(tab, "Memory of the container")
        assert f"{values['memory.used'] / 2**20:.0f}\u202fMiB of 1.00\u202fGiB" in memory
        assert f"{values['loop.delay_p99_seconds'] * 1e3:.2f}\u202fms" in card(
            tab, "Event loop delay"
        )
        database = card(tab, "database")
        assert "ConcurrencyLimiter" in database
        assert f"{values['concurrency_limiter.database.in_use']}\n/ 20 in use" in database
        rates = stats["history"]["values"]["concurrency_limiter.database.acquired"]
        acquired = (rates[-1] - rates[-11]) / 10
        shown = f"{acquired:.0f}" if acquired >= 100 else f"{acquired:.1f}"
        assert f"acquired\n{shown}\u202f/s" in database
        past = stats["history"]["values"]
        hits, misses = past["ttl_cache.sessions.hits"], past["ttl_cache.sessions.misses"]
        hit, missed = hits[-1] - hits[-11], misses[-1] - misses[-11]
        assert f"{100 * hit / (hit + missed):.1f}%\nhit rate, last 10 s" in card(tab, "sessions")
        assert f"{values['queue_depth']:.0f}" in card(tab, "queue_depth")
        assert "mail relay\n41.0\u202fms\npassing · ready · not critical" in card(
            tab, "Health checks"
        )


def test_every_watched_object_has_a_card_with_a_chart(tab: Tab) -> None:
    """All kinds of primitives, gauges, and what the page has never heard of are drawn."""
    extra = {
        "connection_pool.main.idle": 4.0,
        "connection_pool.main.opened": 9.0,
        "temperature": -3.5,
    }
    with shown(tab, extra=extra):
        titles = tab.evaluate(
            "[...document.querySelectorAll('.card')].filter(each => each.querySelector('.chart'))"
            ".map(each => each.querySelector('h3').textContent)"
        )
        assert titles[3:] == [
            *("database", "geocoder", "per_user", "payments", "requests", "sessions", "images"),
            *("orders", "app", "main", "queue_depth", "temperature", "Process", "orders-api"),
        ]
        assert "ConnectionPool" in card(tab, "main")
        assert "idle\n4" in card(tab, "main")


def test_charts_follow_the_service(tab: Tab) -> None:
    """The history comes once; then each sample is asked for alone, once a second, and drawn."""
    with shown(tab) as service:
        before = tab.evaluate("document.querySelector('path.s0').getAttribute('d')")
        asked(service, 4)
        times, queries = zip(*service.asked, strict=True)
        assert queries[0] == "points=300"
        assert set(queries[1:]) == {""}
        assert all(later - earlier > 0.8 for earlier, later in pairwise(times[1:]))
        assert tab.evaluate("document.querySelector('path.s0').getAttribute('d')") != before
        assert tab.complaints() == []


def test_a_chart_has_gaps_where_there_are_no_data(tab: Tab) -> None:
    """What was not measured is not drawn, be it a figure or a time."""
    with Service() as service:
        service.frozen = True
        history = service.stats(300)["history"]
        cpu = history["values"]["cpu.usage_percent"]
        cpu[100:120] = [None] * 20
        for values in (history["timestamps"], *history["values"].values()):
            del values[200:230]
        service.changes["history"] = history
        tab.goto(service.url)
        tab.wait(READY)
        path = tab.evaluate("document.querySelector('path.s0').getAttribute('d')")
        assert path.count("M") == 3
        memory = tab.evaluate("document.querySelectorAll('path.s0')[1].getAttribute('d')")
        assert memory.count("M") == 2


def test_the_scale_of_percent_is_honest(tab: Tab) -> None:
    """Percent goes from 0 to 100, and a threshold is drawn at its place on that scale."""
    with shown(tab):
        lines = tab.evaluate(
            "[...document.querySelector('.chart').querySelectorAll('line')]"
            ".map(each => [each.getAttribute('class'), +each.getAttribute('y1')])"
        )
        (threshold,) = [y for kind, y in lines if kind == "threshold"]
        grid = [y for kind, y in lines if kind is None]
        bottom, top = max(grid), min(grid)
        assert (bottom - threshold) / (bottom - top) == pytest.approx(0.8, abs=0.02)
        labels = tab.evaluate(
            "[...document.querySelector('.chart').querySelectorAll('text')].map(e => e.textContent)"
        )
        assert labels == [
            "0\u202f%",
            "50\u202f%",
            "100\u202f%",
            "\u22125\u202fmin",
            "now",
            "alert 80\u202f%",
        ]


NOW = time.time()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"firing": [alert("cpu_usage", 91.2, 80.0, "firing", NOW, 0.0)]},
            r"^Alert firingcpu_usage above 80.% since \d\d:\d\d:\d\d$",
        ),
        (
            {
                "firing": [alert("ttl_cache.sessions.hit_rate", 0.4, 0.5, "firing", NOW, 0.0)],
                "thresholds": [
                    {
                        "metric": "ttl_cache.sessions.hit_rate",
                        "value": 0.5,
                        "clear": 0.5,
                        "below": True,
                    }
                ],
            },
            r"^Alert firingttl_cache.sessions.hit_rate below 50.% since \d\d:\d\d:\d\d$",
        ),
        (
            {"stall": {"seconds": 3.21, "place": "app.py:12 in work", "cause": "gil"}},
            r"^Event loop blockedfor 3.21.s at app.py:12 in work: C code held the interpreter lock",
        ),
        (
            {
                "health": {
                    "healthy": False,
                    "live": True,
                    "ready": False,
                    "started": True,
                    "checks": [check("database", error="no route", failures=3), check("cache")],
                }
            },
            "^Not readyfailing: database$",
        ),
        (
            {
                "health": {
                    "healthy": False,
                    "live": True,
                    "ready": True,
                    "started": True,
                    "checks": [check("mail", error="no route", failures=3, critical=False)],
                }
            },
            "^Degradedfailing: mail$",
        ),
        (
            {
                "firing": [alert("cpu_usage", 91.2, 80.0, "firing", NOW, 0.0)],
                "health": {
                    "healthy": False,
                    "live": True,
                    "ready": False,
                    "started": True,
                    "checks": [check("database", error="no route", failures=3)],
                },
            },
            r"^Not readyfailing: database; cpu_usage above 80.% since \d\d:\d\d:\d\d$",
        ),
        (
            {
                "firing": [alert("cpu_usage", 91.2, 80.0, "firing", NOW, 0.0)],
                "health": {
                    "healthy": False,
                    "live": False,
                    "ready": False,
                    "started": False,
                    "draining": True,
                    "checks": [check("disk", kind="live", error="full", failures=3)],
                },
            },
            r"^Not livefailing: disk; cpu_usage above",
        ),
        (
            {
                "firing": [alert("cpu_usage", 91.2, 80.0, "firing", NOW, 0.0)],
                "health": {
                    "healthy": True,
                    "live": True,
                    "ready": True,
                    "started": True,
                    "checks": [check("mail", error="no route", critical=False)],
                },
            },
            r"^Alert firingcpu_usage above 80.% since \d\d:\d\d:\d\d; failing: mail$",
        ),
        (
            {
                "health": {
                    "healthy": False,
                    "live": True,
                    "ready": False,
                    "started": False,
                    "checks": [],
                }
            },
            "^Still starting$",
        ),
        (
            {
                "health": {
                    "healthy": False,
                    "live": True,
                    "ready": False,
                    "started": True,
                    "draining": True,
                    "checks": [],
                }
            },
            "^Drainingit takes no new work$",
        ),
        ({"health": None}, "^HealthyNo alert is firing, and the event loop answers.$"),
        (
            {"ahead": 60.0},
            r"^DegradedThe monitor has taken no sample since \d\d:\d\d:\d\d.$",
        ),
        (
            {"stats": None, "values": {}},
            "^ConnectingThe monitor has not taken its first sample yet.$",
        ),
    ],
    ids=[
        "alert",
        "below",
        "blocked",
        "not ready",
        "failing",
        "not ready and an alert",
        "not live and an alert",
        "failing and an alert",
        "starting",
        "draining",
        "bare",
        "stale",
        "no sample",
    ],
)
def test_the_state_is_told_in_words(tab: Tab, changes: dict[str, Any], told: str) -> None:
    """What is wrong stands at the top, the gravest first, and in the tab's title."""
    with Service() as service:
        service.changes.update(changes)
        if "ahead" in changes:
            service.changes["now"] = time.time() + changes["ahead"]
        tab.goto(service.url)
        tab.wait("document.getElementById('updated').textContent")
        assert re.search(told, words(tab)), words(tab)
        state = tab.evaluate("document.querySelector('#words b').textContent")
        icon = tab.evaluate("document.getElementById('icon').textContent")
        assert tab.evaluate("document.title") == f"{icon} orders-api: {state}"
        assert tab.complaints() == []


def test_alerts_and_stalls_are_listed(tab: Tab) -> None:
    """The alerts that fire now come first, then the last ones, then what else is watched."""
    now = time.time()  # the chart marks what lies within its five minutes
    past = now - 60
    with Service() as service:
        service.changes.update(
            firing=[alert("cpu_usage", 91.2, 80.0, "firing", now, 0.0)],
            alerts=[
                alert("loop_delay", 0.31, 0.25, "firing", past, 0.0),
                alert("loop_delay", 0.004, 0.25, "recovered", past + 12, 12.0),
                alert("cpu_usage", 91.2, 80.0, "firing", now, 0.0),
            ],
            stalls=[
                {"seconds": 2.5, "place": "app.py:12 in work", "cause": "loop", "timestamp": past}
            ],
        )
        tab.goto(service.url)
        tab.wait(READY)
        lines = card(tab, "Alerts").split("\n")
        assert [line for line in lines if re.fullmatch(r"[a-z_.]+", line)] == [
            *(
                "cpu_usage",
                "loop_delay",
                "loop_delay",
                "memory.percent",
                "loop_delay",
                "queue_depth",
            )
        ]
        assert lines[:2] == ["Alerts", "▲ 1 firing"]
        assert re.search(r"recovered \d\d:\d\d:\d\d, after 12.0\u202fs", "\n".join(lines))
        stalls = card(tab, "Stalls of the event loop")
        assert re.search(
            r"app.py:12 in work\n2.50\u202fs\n\d\d:\d\d:\d\d: its thread waited or computed", stalls
        )
        marked = tab.evaluate(
            "[...document.querySelectorAll('.card')].filter(e => e.classList.contains('bad'))"
            ".map(e => e.innerText.split('\\n').slice(0, 2).join(' '))"
        )
        assert marked == ["CPU of the container ▲ firing"]
        assert tab.evaluate("document.querySelectorAll('path.mark').length") == 1


def test_nothing_is_asked_of_another_host(tab: Tab) -> None:
    """The page works where there is nothing but the service."""
    with shown(tab) as service:
        asked(service, 2)
        urls = {re.sub(r"^data:.*", "data:", url) for url in tab.requests()}
        urls -= {"data:"}
        assert urls == {service.url, f"{service.url}stats?points=300", f"{service.url}stats"}


@pytest.mark.parametrize(
    ("prefix", "end"), [("", "/"), ("/status", "/"), ("/status", ""), ("/a/b", "?x=1")]
)
def test_the_page_works_under_any_prefix(tab: Tab, prefix: str, end: str) -> None:
    """It finds ``stats`` beside itself, with or without a slash."""
    with Service(prefix=prefix) as service:
        tab.goto(service.url.rstrip("/") + end)
        tab.wait(READY)
        assert service.asked[0][1] == "points=300"


def test_hostile_names_are_text(tab: Tab) -> None:
    """A name is shown as it is, whatever HTML or JavaScript would make of it."""
    image = '<img src=x onerror="window.bad=1">'
    script = "<script>window.bad=1</script>"
    bare = f"{script}'\"&amp;"
    with Service(
        name=image,
        extra={
            bare: 1.0,
            "__proto__": 2.0,
            "constructor": 3.0,
            f"rate_limiter.{image}.waiting": 4.0,
            f"rate_limiter.{image}.acquired": 5.0,
            "hasOwnProperty.__proto__.toString": 6.0,
            "x" * 300: 7.0,
        },
    ) as service:
        service.changes.update(
            firing=[alert(bare, 1.0, 0.5, "firing", NOW, 0.0)],
            alerts=[alert("__proto__", 1.0, 0.5, "recovered", NOW, 1.0)],
            stall={"seconds": 1.0, "place": image, "cause": "constructor"},
            health={
                "live": True,
                "ready": True,
                "started": True,
                "checks": [check(image, error=script)],
            },
        )
        tab.goto(service.url)
        tab.wait(READY)
        asked(service, 2)
        assert tab.text("h1") == image
        for title in (bare, image, "__proto__", "constructor", "x" * 300):
            assert title in card(tab, title)
        assert bare in card(tab, "Alerts")
        assert image in words(tab)
        assert script in card(tab, "Health checks")
        assert tab.evaluate("[window.bad, document.images.length, document.scripts.length]") == [
            *(None, 0, 1)
        ]
        assert tab.evaluate("document.documentElement.scrollWidth") <= 1280
        assert tab.complaints() == []


def test_a_lost_connection_is_told_and_found_again(tab: Tab) -> None:
    """The page says since when, tries less and less often, and recovers by itself."""
    with shown(tab) as service:
        service.stop()
        tab.wait("document.body.classList.contains('lost')")
        assert re.fullmatch(
            r"No connectionsince \d\d:\d\d:\d\d; what is shown is from then.", words(tab)
        )
        assert tab.evaluate("document.title") == "○ orders-api: No connection"
        tab.wait("link.tries >= 3")
        assert re.fullmatch(r"Next try in \d s\.|Trying now\.", tab.text("#updated"))
        times = [
            params["timestamp"]
            for method, params in list(tab.events)
            if method == "Network.requestWillBeSent"
        ][-3:]
        first, second = times[1] - times[0], times[2] - times[1]
        assert 0.8 < first < second
        for _ in range(20):  # impatience makes no flood
            tab.evaluate("document.getElementById('retry').click()")
        service.asked.clear()
        service.start()
        tab.wait("!document.body.classList.contains('lost')")
        assert words(tab).startswith("Healthy")
        assert service.asked[0][1] == "points=300"  # what happened meanwhile is there too
        assert tab.evaluate("document.getElementById('retry').hidden")
        assert len(service.asked) <= 2


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, b"", "Not allowed"),
        (503, b"", "No connection"),
        (200, b"<!doctype html><title>Bad gateway</title>", "No connection"),
        (200, b"[]", "No connection"),
        (200, b'{"error": "not here"}', "No connection"),
    ],
)
def test_answers_that_are_none(tab: Tab, status: int, body: bytes, told: str) -> None:
    """A refusal is told from an error, and what is not ``stats`` counts as no answer."""
    with shown(tab) as service:
        service.status, service.body = status, body
        tab.wait(f"document.querySelector('#words b').textContent === {json.dumps(told)}")
        tab.wait("link.tries > 1")


def test_a_hidden_tab_asks_seldom(tab: Tab) -> None:
    """A tab that nobody sees leaves the service alone, and is up to date once it is seen."""
    with shown(tab) as service:
        hide = "Object.defineProperty(document, 'hidden', {{value: {}, configurable: true}});"
        tell = "document.dispatchEvent(new Event('visibilitychange'))"
        tab.evaluate(hide.format("true") + tell)
        tab.wait("link.next - performance.now() > 20000")
        seen = len(service.asked)
        time.sleep(3)
        assert len(service.asked) == seen
        tab.evaluate("page.gap = 2")  # as if it had been hidden for longer
        tab.evaluate(hide.format("false") + tell)
        tab.wait("link.next - performance.now() < 1500 && !link.whole")
        assert service.asked[seen][1] == "points=300"


def test_counters_of_a_new_process_begin_again(tab: Tab) -> None:
    """A counter that falls makes a gap, never a negative rate."""
    with Service(age=200) as service:  # as below: none is ever too old
        service.frozen = True
        history = service.stats(300)["history"]
        granted = history["values"]["rate_limiter.geocoder.acquired"]
        granted[150:] = [value - granted[150] for value in granted[150:]]
        service.changes["history"] = history
        tab.goto(service.url)
        tab.wait(READY)
        rates = tab.evaluate("page.rows.map((_, i) => rateAt('rate_limiter.geocoder.acquired')(i))")
        assert rates[150] is None
        assert rates.count(None) == 2  # the first has none before it
        assert min(rate for rate in rates if rate is not None) >= 0


def test_pointer_and_keys_read_a_chart(tab: Tab) -> None:
    """Hovering or the arrow keys show the time and the value, in every chart the same moment."""
    with Service(load=0.5, age=200) as service:  # the page shows 300 s, so none is ever too old
        service.frozen = True
        tab.goto(service.url)
        tab.wait(READY)
        cpu = service.stats(300)["history"]["values"]["cpu.usage_percent"]
        tab.hover(".chart", x=0.6)
        tab.wait("!document.querySelector('.tip').hidden")
        tip = tab.text(".tip").split("\n")
        assert re.fullmatch(r"\d\d:\d\d:\d\d", tip[0])
        assert re.fullmatch(r"all [\d.]+\u202f%", tip[1])
        assert tab.evaluate("document.querySelectorAll('.cursor').length") > 3
        assert (
            tab.evaluate("[...document.querySelectorAll('.tip')].filter(e => !e.hidden).length")
            == 1
        )
        tab.hover("h1")
        tab.wait("document.querySelector('.tip').hidden")
        tab.evaluate("document.querySelector('.chart').focus()")
        for key, index in (
            ("ArrowLeft", -2),
            ("ArrowLeft", -3),
            ("PageDown", -13),
            ("Home", 0),
            ("End", -1),
        ):
            tab.press(key)
            said = tab.evaluate("document.querySelector('.chart').getAttribute('aria-valuetext')")
            assert re.match(rf"\d\d:\d\d:\d\d: all {cpu[index]:.1f}\u202f%, this process ", said)
        tab.press("Escape")
        said = tab.evaluate("document.querySelector('.chart').getAttribute('aria-valuetext')")
        assert re.match(rf"all {cpu[-1]:.1f}\u202f%, this process .*; min .* · max ", said)


def test_any_figure_can_be_charted(tab: Tab) -> None:
    """Choosing a figure of a card brings it into the chart."""
    with shown(tab):
        tab.evaluate(
            "cards.get('concurrency_limiter.database.').node"
            ".querySelectorAll('.facts button')[1].click()"
        )
        chart = "cards.get('concurrency_limiter.database.').chart.node.getAttribute('aria-label')"
        assert tab.evaluate(chart) == "database: waiting"
        pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map(e => e.textContent)"
        assert re.match(r"waiting\d", tab.evaluate(pressed)[0])


def test_everything_that_takes_the_focus_has_a_name(tab: Tab) -> None:
    """A screen reader can say what each control is."""
    with shown(tab, trouble=True, load=0.6):
        tree = tab.call("Accessibility.getFullAXTree")["nodes"]
        controls = [
            (node["role"]["value"], node.get("name", {}).get("value"))
            for node in tree
            if not node["ignored"]
            and node["role"]["value"] in {"slider", "button", "DisclosureTriangle"}
        ]
        assert len(controls) > 60
        assert [each for each in controls if not each[1]] == []


def test_japanese(tab: Tab) -> None:
    """A browser that is set to Japanese shows the page in Japanese."""
    tab.speak("ja-JP")
    with shown(tab):
        assert words(tab) == "正常アラートはなく、イベントループは応答しています。"
        assert tab.evaluate("document.documentElement.lang") == "ja"
        assert tab.text("#uptime") == "稼働 1\u202f日 2\u202f時間"
        assert "使用中" in card(tab, "database")


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_screen(tab: Tab, width: int, language: str) -> None:
    """The page never scrolls sideways, and no chart or text leaves its card."""
    tab.look(width=width)
    tab.speak(language)
    with shown(tab, trouble=True, load=0.6, extra={"a_gauge_" * 12: 1e18}):
        tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        outside = tab.evaluate((HERE / "outside.js").read_text(encoding="utf-8"))
        assert outside == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("lost", [False, True], ids=["connected", "lost"])
def test_every_text_has_contrast_in_both_themes(tab: Tab, theme: str, *, lost: bool) -> None:
    """The contrast of all text is at least that of WCAG's level AA for small text."""
    tab.look(theme=theme)
    with shown(tab, trouble=True, load=0.6) as service:
        if lost:
            service.stop()
            tab.wait("document.body.classList.contains('lost')")
        else:
            assert "▲" in tab.text("#status")
        found = tab.evaluate((HERE / "contrast.js").read_text(encoding="utf-8"))
        assert len(found) > 150
        assert [each for each in found if each[1] < 4.5] == []
        back = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == {"light": "rgb(244, 245, 247)", "dark": "rgb(14, 17, 22)"}[theme]


OPEN_TASKS = "document.getElementById('tab-tasks').click()"
ROWS = "[...document.querySelectorAll('.row:not([hidden])')].map(each => each.textContent)"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_tasks_that_wait_for_each_other_are_seen(tab: Tab, theme: str) -> None:
    """Tasks are read while their tab is open: deadlocks, waits, the tree, which can be filtered."""
    tab.look(theme=theme, width=400)
    with shown(tab, trouble=True) as service:
        assert service.looks == 0
        tab.evaluate(OPEN_TASKS)
        tab.wait(f"{ROWS}.length > 4")
        deadlocks = card(tab, "Deadlocks")
        assert "2 tasks wait for each other" in deadlocks
        assert "Lock 'stock' · orders/transfer.py:19 in transfer · held by transfer 61" in deadlocks
        waits = card(tab, "What tasks wait for")
        assert "37 \u00d7 slot · ConcurrencyLimiter 'database'" in waits
        assert "held by 20 tasks at orders/query.py:44 in query" in waits
        assert "transfer 60" in card(tab, "The longest waits")
        assert "60 tasks · 60 waiting" in card(tab, "Tasks")
        assert tab.evaluate("document.getElementById('main').offsetHeight") == 0
        found = tab.evaluate((HERE / "contrast.js").read_text(encoding="utf-8"))
        assert len(found) > 30
        assert [each for each in found if each[1] < 4.5] == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400
        tab.evaluate("document.querySelector('.row summary').click()")
        tab.evaluate("taskFilter.value = 'STOCK'; taskFilter.dispatchEvent(new Event('input'))")
        rows = tab.evaluate(ROWS)
        assert [row.split()[0] for row in rows] == ["orders.web.main", "task", "transfer"]
        looks = service.looks
        service.status = 503
        tab.wait("taskNote.textContent.startsWith('The tasks cannot be read: ')")
        service.status = 200
        tab.wait("!taskNote.textContent.startsWith('The tasks')")
        assert service.looks >= looks + 2
        assert tab.evaluate("document.querySelector('.row').open")  # as it was left
        tab.evaluate("document.getElementById('tab-main').click()")
        tab.wait("!document.getElementById('main').hidden && location.hash === ''")
        assert [each for each in tab.complaints() if "503" not in each] == []


def test_a_calm_service_has_no_deadlock(tab: Tab) -> None:
    """Without tasks that wait for each other that is said; a link leads to the tab."""
    with Service() as service:
        tab.goto(f"{service.url}#tasks")
        tab.wait(f"{ROWS}.length > 3")
        assert "No tasks wait for each other." in card(tab, "Deadlocks")


def test_the_lines_of_a_chart_are_told_apart_without_colour(tab: Tab) -> None:
    """Each line of a chart has its own pattern, which the legend shows."""
    with shown(tab):
        patterns = tab.evaluate(
            "['.s0', '.s1', '.s2'].map(each => [`path${each}`, `.legend line${each}`].map(where =>"
            " getComputedStyle(document.querySelector(where)).strokeDasharray))"
        )
        assert all(line == legend for line, legend in patterns)
        assert len({line for line, _ in patterns}) == 3


def test_many_objects_do_not_make_the_page_slow(tab: Tab) -> None:
    """With a thousand gauges, what is not on the screen is not drawn."""
    with shown(tab, extra={f"gauge_{n}": float(n) for n in range(1000)}):
        tab.wait("cards.size > 1000")
        assert tab.evaluate("document.querySelectorAll('.chart path').length") < 300
        assert "999" in card(tab, "gauge_999")


def test_limits_without_a_value_are_no_harm(tab: Tab) -> None:
    """An executor or a cache without a limit is shown without one."""
    with Service() as service:
        service.changes["limits"] = {
            name: value
            for name, value in LIMITS.items()
            if name.partition(".")[0] not in {"task_executor", "ttl_cache", "concurrency_limiter"}
        }
        tab.goto(service.url)
        tab.wait(READY)
        assert "in flight" in card(tab, "images").split("\n")[2:5]
        assert "/ 16" not in card(tab, "images")
        assert tab.complaints() == []


def labels(tab: Tab, card: str) -> list[str]:
    """Return the texts in the chart of a card, which is drawn once it is near the screen."""
    chart = f"cards.get({json.dumps(card)}).chart.svg"
    return list(
        tab.wait(
            f"(found => found.length && found.map(each => each.textContent))"
            f"([...{chart}.querySelectorAll('text')])"
        )
    )


def test_a_gauge_may_be_negative(tab: Tab) -> None:
    """The scale goes below zero where the figures do."""
    tab.look(height=4000)
    with shown(tab, extra={"temperature": -3.5}):
        assert labels(tab, " temperature") == ["-5", "0", "1"]
        assert "-3.50" in card(tab, "temperature")


def test_a_threshold_beyond_the_scale_is_told(tab: Tab) -> None:
    """A threshold far above the figures does not flatten them, and is named all the same."""
    tab.look(height=4000)
    with shown(tab, load=0.1):
        zero, _, told = labels(tab, " queue_depth")
        assert (zero, told) == ("0", "alert 400 \u2191")
        drawn = "cards.get(' queue_depth').chart.svg.querySelectorAll('line.threshold').length"
        assert tab.evaluate(drawn) == 0
