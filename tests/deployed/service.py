"""A service that does not exist, whose ``stats`` look like those of one that does."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from mtaio._internal.task_document import document, json_pieces
from mtaio._internal.task_tree import GroupNode, TaskNode, TaskTree, Wait
from mtaio.monitoring._page import content_security_policy, page

if TYPE_CHECKING:
    from types import TracebackType

MIB: Final = 2**20
LIMITS: Final[dict[str, float]] = {
    "cpu.limit": 2.0,
    "memory.total": 1024 * MIB,
    "process.max_open_files": 1024,
    "concurrency_limiter.database.limit": 20,
    "resource_limiter.payments.concurrency.limit": 8,
    "rate_limiter.geocoder.rate": 50,
    "rate_limiter.geocoder.burst": 50,
    "keyed_rate_limiter.per_user.rate": 20,
    "keyed_rate_limiter.per_user.burst": 20,
    "keyed_rate_limiter.per_user.max_keys": 10_000,
    "timeout_manager.requests.default_timeout": 10.0,
    "ttl_cache.sessions.max_size": 5_000,
    "task_executor.images.max_workers": 16,
    "event_emitter.orders.max_pending": 1_000,
    "event_emitter.orders.max_names": 100,
    "async_file_handler.app.max_pending": 10_000,
}
GAUGES: Final = frozenset(
    {
        "usage_percent",
        "process_percent",
        "load_average",
        "count",
        "throttled_ratio",
        "available",
        "used",
        "percent",
        "rss",
        "threads",
        "open_files",
        "delay_p50_seconds",
        "delay_p99_seconds",
        "delay_max_seconds",
        "tasks",
        "in_use",
        "waiting",
        "peak",
        "max_wait_seconds",
        "tokens",
        "next_grant_seconds",
        "keys",
        "size",
        "weight",
        "hit_rate",
        "in_flight",
        "running",
        "submitted",
        "services",
        "threads_in_use",
        "threads_waiting",
        "processes_in_use",
        "processes_waiting",
        "listeners",
        "streams",
        "wait_fors",
        "pending",
        "max_queue_seconds",
        "queue_depth",
        "watched",
        "firing",
    }
)
THRESHOLDS: Final[list[dict[str, Any]]] = [
    {"metric": "cpu_usage", "value": 80.0, "clear": 70.0, "below": False},
    {"metric": "memory.percent", "value": 90.0, "clear": 85.0, "below": False},
    {"metric": "loop_delay", "value": 0.25, "clear": 0.25, "below": False},
    {"metric": "queue_depth", "value": 400.0, "clear": 300.0, "below": False},
]


class Model:
    """One second after the other of a service under a load from 0 to 1, the same for each seed."""

    def __init__(self, start: float, *, load: float, trouble: bool = False, seed: int = 7) -> None:
        self.time = start
        self.load = load
        self.trouble = trouble
        self._random = random.Random(seed)  # noqa: S311 - figures to look at, no secret
        self._start = start
        self._noise = 0.0
        self._sums: dict[str, float] = {}
        self._peaks: dict[str, float] = {}

    def _count(self, name: str, per_second: float) -> float:
        """Add to a counter about as many as come in a second, and return its value."""
        whole, part = divmod(max(0.0, per_second * self._random.uniform(0.8, 1.2)), 1)
        self._sums[name] = self._sums.get(name, 0.0) + whole + (self._random.random() < part)
        return self._sums[name]

    def _peak(self, name: str, value: float) -> float:
        """Return the most that a gauge has been."""
        self._peaks[name] = max(self._peaks.get(name, 0.0), value)
        return self._peaks[name]

    def step(self) -> dict[str, float]:
        """Return the figures of the next second."""
        self.time += 1.0
        random = self._random
        age = self.time - self._start
        self._noise = 0.9 * self._noise + random.gauss(0, 0.03)
        wave = 0.12 * math.sin(age / 37) + 0.06 * math.sin(age / 11)
        load = min(1.0, max(0.02, self.load * (1 + wave) + self._noise * (0.3 + self.load)))
        if self.trouble and age > 180:
            load = min(1.0, load + 0.35 * min(1.0, (age - 180) / 40))
        requests = 220 * load
        full = max(0.0, load - 0.7) / 0.3
        values: dict[str, float] = {}

        def put(prefix: str, **fields: float) -> None:
            values.update({f"{prefix}.{name}": value for name, value in fields.items()})

        used = (300 + 380 * load + 20 * math.sin(age / 90)) * MIB
        put(
            "cpu",
            usage_percent=min(100.0, 100 * load * random.uniform(0.93, 1.04)),
            process_percent=172 * load * random.uniform(0.95, 1.02),
            load_average=0.4 + 6 * load,
            count=8,
            throttled_ratio=0.3 * full * random.random(),
        )
        put(
            "memory",
            available=1024 * MIB - used,
            used=used,
            percent=used / MIB / 10.24,
            rss=used * 0.82,
        )
        put("io", read_bytes=self._count("r", 4e5 * load), write_bytes=self._count("w", 3e6 * load))
        p50 = 0.00012 * (1 + 3 * load) * random.uniform(0.9, 1.1)
        p99 = 0.0011 * (1 + 4 * load) * (1 + 30 * full) * random.uniform(0.85, 1.2)
        put(
            "process",
            threads=14 + round(6 * load),
            open_files=60 + round(140 * load),
            voluntary_switches=self._count("vs", 900 + 4000 * load),
            involuntary_switches=self._count("is", 20 + 300 * load),
            gc_collections=self._count("gc", 0.4 + 3 * load),
            gc_collected=self._count("gcc", 500 * load),
        )
        put(
            "loop",
            delay_p50_seconds=p50,
            delay_p99_seconds=p99,
            delay_max_seconds=p99 * (2 + 3 * ((int(age) // 30) % 3)),
            blocked=1.0 if self.trouble and age > 230 else 0.0,
            blocked_seconds=2.41 if self.trouble and age > 230 else 0.0,
            tasks=24 + round(requests * 0.6),
        )
        in_use = min(20, round(20 * load * random.uniform(0.8, 1.15)))
        waiting = round(14 * full * random.random())
        put(
            "concurrency_limiter.database",
            in_use=in_use,
            waiting=waiting,
            peak=self._peak("db", in_use),
            acquired=self._count("db", requests * 1.8),
            rejected=self._count("dbr", 6 * full),
            timed_out=self._count("dbt", 1.2 * full),
            cancelled=self._count("dbc", 0.05),
            wait_seconds=self._count("dbw", waiting),
            max_wait_seconds=self._peak("dbm", 0.004 + 0.9 * full),
        )
        put(
            "rate_limiter.geocoder",
            tokens=max(0.0, 50 * (1 - load) + random.uniform(-3, 3)),
            waiting=round(5 * full * random.random()),
            acquired=self._count("geo", min(50, 64 * load)),
            rejected=self._count("geor", 3 * full),
            timed_out=self._count("geot", full),
            cancelled=self._count("geoc", 0.02),
            wait_seconds=self._count("geow", full),
            max_wait_seconds=self._peak("geom", 0.1 * full),
            next_grant_seconds=0.02 * full,
        )
        put(
            "keyed_rate_limiter.per_user",
            keys=1_800 + round(900 * load + 60 * math.sin(age / 23)),
            forgotten=self._count("kf", 4),
            rejected_keys=self._count("krk", 0),
            waiting=0,
            acquired=self._count("k", requests),
            rejected=self._count("kr", 1.5 * load),
            timed_out=self._count("kt", 0),
            cancelled=self._count("kc", 0),
            wait_seconds=self._count("kw", 0),
            max_wait_seconds=self._peak("km", 0),
        )
        put(
            "resource_limiter.payments",
            entered=self._count("pay", 12 * load),
            in_flight=min(8, round(7 * load)),
        )
        put(
            "resource_limiter.payments.concurrency",
            in_use=min(8, round(7 * load * random.uniform(0.8, 1.2))),
            waiting=round(2 * full),
            peak=self._peak("pay", round(7 * load)),
            acquired=self._count("paya", 12 * load),
            rejected=self._count("payr", 0),
            timed_out=self._count("payt", 0),
            cancelled=self._count("payc", 0),
            wait_seconds=self._count("payw", 0.1),
            max_wait_seconds=0.031,
        )
        put("resource_limiter.payments.timeout", entered=self._count("pe", 12 * load), timed_out=0)
        put(
            "timeout_manager.requests",
            entered=self._count("te", requests),
            timed_out=self._count("tt", 0.8 * full),
        )
        ratio = 0.93 - 0.25 * full + 0.03 * math.sin(age / 17)
        hits, misses = (
            self._count("h", 900 * load * ratio),
            self._count("m", 900 * load * (1 - ratio)),
        )
        put(
            "ttl_cache.sessions",
            size=min(5000, 2200 + round(1800 * load + age / 3)),
            weight=min(5000, 2200 + round(1800 * load + age / 3)),
            hits=hits,
            misses=misses,
            hit_rate=hits / (hits + misses) if hits + misses else 0.0,
            loads=self._count("l", 900 * load * (1 - ratio)),
            failed=self._count("lf", 0.4 * full),
            cancelled=self._count("lc", 0),
            load_seconds=self._count("ls", 1.5 * load),
            in_flight=round(3 * load * random.random()),
            waiting=round(2 * load * random.random()),
            evictions=self._count("ev", 2 * load),
            expirations=self._count("ex", 9),
            dropped=self._count("cd", 0),
        )
        running = min(16, round(16 * load * random.uniform(0.7, 1.1)))
        put(
            "task_executor.images",
            in_flight=running,
            in_use=running,
            waiting=round(40 * full * random.random()),
            peak=self._peak("ex", running),
            started=self._count("xs", 30 * load),
            succeeded=self._count("xo", 29.6 * load),
            failed=self._count("xf", 0.02 + 1.4 * full),
            cancelled=self._count("xc", 0),
            timed_out=self._count("xt", 0.5 * full),
            retried=self._count("xr", 0.3 * load),
            waits=self._count("xw", 6 * load),
            wait_seconds=self._count("xws", 2 * full),
            submitted=round(4 * load),
            services=2,
            threads_in_use=round(5 * load),
            threads_waiting=0,
            processes_in_use=0,
            processes_waiting=0,
        )
        put(
            "event_emitter.orders",
            listeners=12,
            streams=3,
            wait_fors=0,
            waiting=0,
            pending=round(30 * full * random.random()),
            emitted=self._count("e", 40 * load),
            handled=self._count("eh", 130 * load),
            failed=self._count("ef", 0.3 * full),
            dropped=self._count("ed", 0),
            rejected=self._count("er", 0),
        )
        put(
            "async_file_handler.app",
            pending=round(30 * load * random.random() + 2_000 * full * random.random()),
            waiting=0,
            written=self._count("wr", 600 * load),
            bytes=self._count("wb", 600 * load * 240),
            lost=0,
            rotations=math.floor(age / 140),
            write_errors=0,
            max_queue_seconds=self._peak("wq", 0.003 + 0.2 * full),
        )
        values["async_file_handler.app.dropped"] = self._count("wd", 9 * full)
        put(
            "monitor.orders-api",
            samples=age,
            watched=9,
            firing=0,
            handled=self._count("mh", 0.01),
            failed=0,
            alerts=0,
            handlers_failed=0,
            handlers_timed_out=0,
            dropped=0,
        )
        values["queue_depth"] = max(0, round(60 * load + 420 * full + random.uniform(-9, 9)))
        values["timestamp"] = self.time
        values["uptime"] = 93_784 + age
        return values


def kind_of(name: str) -> str:
    """Return whether a figure is a counter, a gauge or a limit."""
    if name in LIMITS:
        return "limit"
    return "gauge" if name.rpartition(".")[2] in GAUGES else "counter"


def alert(  # noqa: PLR0917 - as the fields stand in the answer
    metric: str, value: float, threshold: float, state: str, time: float, seconds: float = 0.0
) -> dict[str, Any]:
    """Return an alert as ``stats`` has it."""
    return {
        "metric": metric,
        "value": value,
        "threshold": threshold,
        "state": state,
        "timestamp": time,
        "seconds": seconds,
    }


def check(
    name: str,
    kind: str = "ready",
    *,
    error: str | None = None,
    failures: int = 0,
    critical: bool = True,
    seconds: float = 0.002,
) -> dict[str, Any]:
    """Return a health check as ``stats`` has it."""
    return {
        "name": name,
        "kind": kind,
        "status": "passing" if not error else "failing" if critical else "degraded",
        "critical": critical,
        "seconds": seconds,
        "error": error,
        "timestamp": time.time(),
        "failures": failures,
    }


def tasks(*, trouble: bool) -> bytes:
    """Return what ``tasks?format=json`` answers: two transfers may wait for each other."""

    def task(number: int, function: str, line: int, **fields: Any) -> TaskNode:
        where = f"orders/{function}.py:{line} in {function}"
        stack = (f"orders/web.py:31 in {function}_endpoint", where)
        return TaskNode(
            id=number,
            name=f"{function} {number}",
            function=stack[0],
            where=where,
            stack=stack,
            **fields,
        )

    db = "ConcurrencyLimiter 'database'"
    queries = [
        task(n, "query", 44, wait=Wait(on="socket", seconds=0.4 + n / 50)) for n in range(1, 21)
    ]
    holders = tuple(each.id for each in queries)
    waiters = [
        task(n, "checkout", 27, wait=Wait(on="slot", of=db, key=1, seconds=n / 9, holders=holders))
        for n in range(21, 58)
    ]
    transfers = [
        task(
            number,
            "transfer",
            19,
            wait=Wait(on="lock", of=f"Lock {name!r}", key=number, seconds=s, holders=(other,)),
        )
        for number, other, name, s in ((60, 61, "stock", 83.2), (61, 60, "invoice", 81.9))
    ]
    found = [*queries, *waiters, *(transfers if trouble else [])]
    group = GroupNode(kind="task group", where="orders/web.py:12 in serve", children=tuple(found))
    root = TaskNode(
        id=99,
        name="orders.web.main",
        function="orders/web.py:8 in main",
        where="orders/web.py:12 in serve",
        stack=("orders/web.py:12 in serve",),
        wait=Wait(on="tasks"),
        children=(group,),
    )
    tree = TaskTree(
        backend="asyncio",
        taken_at=time.time(),
        count=len(found) + 1,
        roots=(root,),
        cycles=((60, 61),) if trouble else (),
        longest=((60, 61) if trouble else ()) + tuple(range(57, 49, -1)),
    )
    return b"".join(json_pieces(document(tree, name="orders-api")))


class Service:
    """
    The service behind the page, and the page itself, for the length of a block.

    Args:
        load: How busy it is, from 0 to 1.
        trouble: Whether the load rises until an alert fires and the loop stalls.
        age: Seconds of history there are at first.
        prefix: The path under which the page is mounted.
        extra: Further figures of each sample.
    """

    def __init__(
        self,
        *,
        load: float = 0.3,
        trouble: bool = False,
        age: int = 300,
        prefix: str = "",
        name: str = "orders-api",
        extra: dict[str, float] | None = None,
    ) -> None:
        self.prefix = prefix
        self.changes: dict[str, Any] = {}
        """What replaces parts of the next answers."""
        self.status = 200
        self.asked: list[tuple[float, str]] = []
        """When ``stats`` was asked for, and how."""
        self.frozen = False
        """Whether no more samples are taken."""
        self.body: bytes | None = None
        """What something else answers in its place."""
        self.looks = 0
        """How often ``tasks`` was asked for."""
        self._name = name
        self.trouble: Final = trouble
        self._extra = extra or {}
        self._lock = threading.Lock()
        self._model = Model(time.time() - age - 1, load=load, trouble=trouble)
        self._rows: list[dict[str, float]] = []
        self._alerts: list[dict[str, Any]] = []
        self._firing: dict[str, dict[str, Any]] = {}
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._catch_up()

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self._port}{self.prefix}/"

    def _catch_up(self) -> None:
        """Take the samples that are due."""
        while not self.frozen and self._model.time + 1 <= time.time():
            values = {**self._model.step(), **self._extra}
            self._rows.append(values)
            self._watch(values)

    def _watch(self, values: dict[str, float]) -> None:
        """Compare a sample with the thresholds."""
        names = {"cpu_usage": "cpu.usage_percent", "loop_delay": "loop.delay_p99_seconds"}
        for each in THRESHOLDS:
            metric: str = each["metric"]
            value, now = values[names.get(metric, metric)], values["timestamp"]
            old = self._firing.get(metric)
            if old is None and value > each["value"]:
                self._firing[metric] = alert(metric, value, each["value"], "firing", now, 0.0)
                self._alerts.append(self._firing[metric])
            elif old is not None and value < each["clear"]:
                del self._firing[metric]
                seconds = now - old["timestamp"]
                self._alerts.append(alert(metric, value, each["value"], "recovered", now, seconds))

    def stats(self, points: int = 0) -> dict[str, Any]:
        """Return what ``stats?points=N`` answers."""
        with self._lock:
            self._catch_up()
            rows = self._rows[-points:] if points else []
            last = self._rows[-1]
        names = {**last, **LIMITS}
        nested: dict[str, Any] = {"timestamp": last["timestamp"], "uptime": last["uptime"]}
        for name, value in names.items():
            kind, _, field = name.partition(".")
            if kind in {"cpu", "memory", "io", "process", "loop"}:
                nested.setdefault(kind, {})[field] = value
        nested["cpu"]["source"] = nested["memory"]["source"] = "cgroup"
        stalls = [
            {
                "seconds": 2.41,
                "place": "orders/export.py:88 in render",
                "cause": "loop",
                "timestamp": last["timestamp"] - 61,
            },
            {
                "seconds": 1.18,
                "place": "orders/pdf.py:31 in compress",
                "cause": "gil",
                "timestamp": last["timestamp"] - 4_020,
            },
        ]
        checks = [
            check("database"),
            check("broker", seconds=0.011),
            check("migrations", "startup"),
            check("mail relay", critical=False, seconds=0.041),
        ]
        if self.trouble:
            error = "ConnectionRefusedError: [Errno 111] connect to 10.0.3.7:25"
            checks[3] = check("mail relay", error=error, failures=4, critical=False, seconds=0.5)
        answer: dict[str, Any] = {
            "name": self._name,
            "now": time.time(),
            "uptime": last["uptime"],
            "interval": 1.0,
            "stats": nested,
            "values": last,
            "limits": LIMITS,
            "kinds": {name: "gauge" if name in self._extra else kind_of(name) for name in names},
            "firing": list(self._firing.values()),
            "alerts": self._alerts[-100:],
            "stall": None,
            "stalls": stalls[::-1] if self.trouble else [],
            "thresholds": THRESHOLDS,
            "health": {
                "healthy": True,
                "live": True,
                "ready": True,
                "started": True,
                "draining": False,
                "degraded": self.trouble,
                "checks": checks,
            },
        }
        if rows:
            answer["history"] = {
                "timestamps": [row["timestamp"] for row in rows],
                "values": {name: [row.get(name) for row in rows] for name in last},
            }
        return {**answer, **self.changes}

    def answer(self, points: int) -> bytes:
        """Return the body of the answer, which may be one of a proxy."""
        if self.body is not None:
            return self.body
        return json.dumps(self.stats(points), allow_nan=False).encode()

    def start(self) -> None:
        """Listen, at the same port as before if there was one."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if parts.path in {service.prefix, f"{service.prefix}/"}:
                    headers = {
                        "Content-Type": "text/html; charset=utf-8",
                        "Content-Security-Policy": content_security_policy(),
                    }
                    self._reply(200, page(), headers)
                elif parts.path == f"{service.prefix}/stats":
                    service.asked.append((time.monotonic(), parts.query))
                    points = int(parse_qs(parts.query).get("points", ["0"])[0])
                    body = service.answer(points)
                    self._reply(service.status, body, {"Content-Type": "application/json"})
                elif parts.path == f"{service.prefix}/tasks":
                    service.looks += 1
                    body = tasks(trouble=service.trouble)
                    self._reply(service.status, body, {"Content-Type": "application/json"})
                else:
                    self._reply(404, b"", {})

            def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
