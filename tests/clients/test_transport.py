"""LimitedTransport: waits, sends, listens, obeys."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from mtaio import KeyedRateLimiter, Pipeline, Quota, RateLimiter, Retry, Timeout
from mtaio.clients import LimitedTransport, ServerBuckets
from mtaio.resources import KeyedQuota
from mtaio.testing import Victim, injections, run
from tests.clients.scripted import Body, Scripted, refuse_first, respond

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def client(transport: Scripted, **options: Any) -> httpx.AsyncClient:
    """Return a client of a service, without jitter."""
    limited = LimitedTransport(transport, **{"jitter": 0, **options})
    return httpx.AsyncClient(transport=limited, base_url="http://api")


def limited(of: httpx.AsyncClient) -> LimitedTransport:
    """Return the transport of a client."""
    transport = of._transport
    assert isinstance(transport, LimitedTransport)
    return transport


async def get_all(http: httpx.AsyncClient, times: int, path: str = "/") -> list[httpx.Response]:
    """Ask so many times at once."""
    found: list[httpx.Response] = []

    async def get() -> None:
        found.append(await http.get(path))

    async with anyio.create_task_group() as group:
        for _ in range(times):
            group.start_soon(get)
    return found


async def test_waits_for_the_quota_and_follows_what_the_server_says() -> None:
    """What remains there counts, not what was thought; what was taken can be settled."""
    said = {"x-ratelimit-remaining-tokens": "50", "x-ratelimit-limit-requests": "10"}
    service = Scripted(lambda *_: respond(200, said))
    quota = Quota(requests=5, tokens=1000, per=10)
    async with client(service, quota=quota, cost=lambda _: {"tokens": 100}) as http:
        response = await http.get("/")
        now = quota.statistics().limits
        assert (int(now["requests"].rate), int(now["tokens"].tokens)) == (10, 50)
        response.extensions["taken"].settle(tokens=90)
        await http.get("/")
    assert service.moments[1] > 0
    assert not service.is_open


async def test_names_of_limits_are_translated() -> None:
    """Where the quota calls them otherwise."""
    service = Scripted(lambda *_: respond(200, {"RateLimit": '"default";r=1;t=9'}))
    quota = Quota(calls=5, per=10)
    async with client(service, quota=quota, names={"default": "calls"}) as http:
        await http.get("/")
    assert int(quota.statistics().limits["calls"].tokens) == 1


@pytest.mark.parametrize("kind", ["quota", "rate", "buckets", "none", "foreign"])
async def test_a_refusal_holds_everybody(kind: str) -> None:
    """For as long as the service asks; then the request is sent again, and nothing is lost."""

    class Foreign:
        async def acquire(self) -> None:
            """Never wait."""

    Foreign.acquire.__signature__ = 5  # type: ignore[attr-defined] # as if written in C, with none
    options: dict[str, dict[str, Any]] = {
        "quota": {"quota": Quota(requests=100)},
        "rate": {"limiter": RateLimiter(100, burst=100)},
        "buckets": {"limiter": ServerBuckets()},
        "none": {},
        "foreign": {"limiter": Foreign()},
    }
    service = Scripted(refuse_first(1, Retry_After="7"))
    async with client(service, **options[kind]) as http:
        first = await http.get("/")
        async with anyio.create_task_group() as group:
            group.start_soon(http.get, "/")
            group.start_soon(http.get, "/")
        now = limited(http).statistics()
    assert first.status_code == 200
    assert service.moments[0] == 0
    assert service.moments[1] == pytest.approx(7, abs=0.02)
    assert (now.requests, now.sent, now.refused, now.given_up, now.in_flight) == (3, 4, 1, 0, 0)
    assert service.bodies[0].closed


async def test_only_who_is_refused_is_held() -> None:
    """With a limiter for each host."""
    service = Scripted(
        lambda request, _: respond(429 if request.url.host == "bad" else 200, {"Retry-After": "9"})
    )
    async with client(service, limiter=KeyedRateLimiter(1000), within=0) as http:
        assert (await http.get("http://bad/")).status_code == 429
        await http.get("http://good/")
        assert anyio.current_time() == 0
        await http.get("http://bad/")
    assert anyio.current_time() == pytest.approx(9, abs=0.01)


async def test_a_key_without_room_cannot_be_held() -> None:
    """It was forgotten while its request was under way; the refusal comes through all the same."""
    limiter = KeyedRateLimiter(1000, max_keys=1)

    def answer(_: httpx.Request, __: int) -> httpx.Response:
        limiter.hold("other", 60)
        return respond(429)

    async with client(Scripted(answer, 1), limiter=limiter, within=0) as http:
        assert (await http.get("/")).status_code == 429


async def test_a_quota_for_each_host() -> None:
    """Each learns of its own limits, and is held for itself."""

    def answer(request: httpx.Request, _: int) -> httpx.Response:
        status = 429 if request.url.host == "bad" else 200
        return respond(status, {"Retry-After": "9", "RateLimit-Remaining": "0"})

    quota = KeyedQuota(requests=10, per=100)
    async with client(Scripted(answer), quota=quota, within=0) as http:
        await http.get("http://bad/")
        await http.get("http://good/")
        assert anyio.current_time() == 0
        assert quota.statistics_for("bad").held_seconds == 9
        assert quota.statistics_for("good").limits["requests"].tokens == 0
        assert quota.statistics_for("other").limits["requests"].tokens == 10


async def test_keys_of_a_caller_s_own() -> None:
    """What is limited together is the caller's to say."""
    service = Scripted(lambda *_: respond())
    limiter = KeyedRateLimiter(1)
    async with client(service, limiter=limiter, key=lambda request: request.url.path) as http:
        await http.get("/a")
        await http.get("/b")
        assert anyio.current_time() == 0
        await http.get("/a")
    assert anyio.current_time() == 1


REFUSALS = [
    (429, {}, True),
    (503, {"Retry-After": "1"}, True),
    (529, {"Retry-After": "1"}, True),
    (503, {}, False),
    (403, {"Retry-After": "1"}, True),
    (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, True),
    (403, {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "1"}, False),
    (403, {}, False),
    (404, {"Retry-After": "1"}, False),
]


@pytest.mark.parametrize(("status", "headers", "is_refusal"), REFUSALS)
async def test_what_a_refusal_is(status: int, headers: dict[str, str], is_refusal: bool) -> None:  # noqa: FBT001 - of a table
    """What says: not now, but later."""
    service = Scripted(lambda _, number: respond() if number else respond(status, headers))
    async with client(service) as http:
        assert (await http.get("/")).status_code == (200 if is_refusal else status)
        assert limited(http).statistics().refused == is_refusal


AGAIN: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("GET", {}, {}, True),
    ("PUT", {"content": b"x"}, {}, True),
    ("POST", {"content": b"x"}, {}, False),
    ("PATCH", {"json": {}}, {}, False),
    ("POST", {"json": {}, "headers": {"Idempotency-Key": "1"}}, {}, True),
    ("POST", {"json": {}}, {"resend": True}, True),
    ("GET", {}, {"resend": False}, False),
    ("POST", {"json": {}}, {"resend": lambda request: request.url.path == "/"}, True),
    ("POST", {"json": {}, "extensions": {"resend": True}}, {}, True),
    ("GET", {"extensions": {"resend": False}}, {"resend": True}, False),
    ("GET", {}, {"within": 0.5}, False),
]


@pytest.mark.parametrize(("method", "call", "options", "again"), AGAIN)
async def test_what_is_sent_again(
    method: str,
    call: dict[str, Any],
    options: dict[str, Any],
    again: bool,  # noqa: FBT001 - of a table
) -> None:
    """What is safe to repeat, or said to be; the body is the same. The rest gets the refusal."""
    service = Scripted(refuse_first(1, Retry_After="1"))
    async with client(service, **options) as http:
        response = await http.request(method, "/", **call)
        assert response.status_code == (200 if again else 429)
        assert limited(http).statistics().given_up == (not again)
    assert len(service.moments) == 1 + again
    assert len(set(service.sent)) == 1


async def test_a_body_that_cannot_be_sent_twice_is_not() -> None:
    """Whatever the caller says: the first sending has used it up."""

    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    service = Scripted(refuse_first(1))
    async with client(service, resend=True) as http:
        assert (await http.put("/", content=body())).status_code == 429


async def test_the_caller_gets_the_response_as_it_came() -> None:
    """A stream is not read ahead, and a refusal that is given up neither; both are the caller's."""
    for status in (200, 429):
        service = Scripted(lambda *_, status=status: respond(status, body=Body(b"a", b"b", wait=1)))
        async with (
            client(service, resend=False) as http,
            http.stream("GET", "/") as response,
        ):
            assert service.bodies[0].read == 0
            begun = anyio.current_time()
            moments = [anyio.current_time() - begun async for _ in response.aiter_raw()]
            assert moments == [1, 2]
        assert service.bodies[0].closed


@pytest.mark.parametrize(
    ("body", "length", "read", "seconds"),
    [
        (Body(b"a", b"b"), "2", 2, 0),
        (Body(b"a", b"b"), None, 0, 0),
        (Body(b"a", b"b"), "65537", 0, 0),
        (Body(b"a", b"b"), "9" * 10, 0, 0),
        (Body(b"a", b"b", wait=0.75), "2", 1, 1),
    ],
    ids=["short", "unknown", "long", "absurd", "slow"],
)
async def test_a_refusal_is_closed_before_the_next_attempt(
    body: Body, length: str | None, read: int, seconds: float
) -> None:
    """Read to its end if that is short and quick, so that its connection can be used again."""
    body = Body(*body.pieces, wait=body.wait)
    said = {"Retry-After": "5"} | ({} if length is None else {"Content-Length": length})
    service = Scripted(lambda _, number: respond() if number else respond(429, said, body))
    async with client(service) as http:
        assert (await http.get("/")).status_code == 200
    assert (body.read, body.closed) == (read, True)
    assert service.moments == [0, 5]
    assert seconds <= 1


async def test_pauses_grow_while_the_service_says_nothing() -> None:
    """Doubling, until together they would exceed what is allowed; queueing is no pause."""
    service = Scripted(refuse_first(100))
    async with client(service, within=10) as http:
        assert (await http.get("/")).status_code == 429
    assert service.moments == [0, 0.5, 1.5, 3.5, 7.5]
    soon = Scripted(refuse_first(100, Retry_After="0"))
    async with client(soon, within=1) as http:
        await http.get("/")
    assert [round(each - soon.moments[0], 2) for each in soon.moments] == [
        0,
        0.05,
        0.15,
        0.35,
        0.75,
    ]
    queued = Scripted(refuse_first(2, Retry_After="1"))
    async with client(queued, limiter=RateLimiter(1, per=100), within=5) as http:
        assert [each.status_code for each in await get_all(http, 3)] == [200] * 3


async def test_jitter_is_added_to_what_is_asked() -> None:
    """Never subtracted."""
    moments = set()
    for _ in range(5):
        service = Scripted(refuse_first(1, Retry_After="10"))
        async with client(service, jitter=0.5) as http:
            await http.get("/")
        moments.add(service.moments[1] - service.moments[0])
    assert len(moments) == 5
    assert all(10 <= each <= 15 for each in moments)


async def test_the_caller_s_deadline_is_obeyed() -> None:
    """A pause that would outlast it is not begun: the caller gets the refusal in time."""
    service = Scripted(refuse_first(100, Retry_After="7"))
    async with client(service) as http:
        response = await Pipeline(Timeout(10)).run(http.get, "/")
    assert response.status_code == 429
    assert (service.moments, anyio.current_time()) == ([0, 7], 7)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_errors_are_retried_as_the_policy_says(method: str) -> None:
    """If the request may be sent again; a refusal costs no attempt."""

    def answer(_: httpx.Request, number: int) -> httpx.Response:
        if number in {1, 3}:
            raise httpx.ConnectError("nobody there")
        return respond(200) if number == 4 else respond(429, {"Retry-After": "1"})

    service = Scripted(answer)
    service.moments.append(0)
    retry = Retry(3, on=httpx.TransportError, jitter=0)
    async with client(service, retry=retry) as http:
        if method == "GET":
            assert (await http.request(method, "/")).status_code == 200
        else:
            with pytest.raises(httpx.ConnectError):
                await http.request(method, "/")
    assert len(service.moments) == (5 if method == "GET" else 2)


def test_responses_that_the_policy_refuses_are_closed(backend: str) -> None:
    """Those that were followed by another, and the last one if it was cancelled after that."""

    async def main(victim: Victim) -> None:
        service = Scripted(lambda _, number: respond(503 if number < 2 else 200))
        retry = Retry(3, until=lambda response: response.status_code < 500, jitter=0)
        async with client(service, retry=retry) as http:
            with anyio.CancelScope():
                await victim(http.get, "/")
            assert service.is_quiet()
        if not victim.cancelled:
            assert [body.closed for body in service.bodies] == [True, True, True]

    for victim in injections():
        run(main, victim, backend=backend)


def test_nothing_is_left_of_a_request_that_is_cancelled(backend: str) -> None:
    """Wherever it is struck: waiting, sending, closing a refusal, pausing."""

    async def main(victim: Victim) -> None:
        def answer(_: httpx.Request, number: int) -> httpx.Response:
            said = {"Retry-After": "1", "Content-Length": "2"}
            return respond() if number % 2 else respond(429, said, Body(b"a", b"b", wait=0.1))

        service = Scripted(answer, 0.5)
        quota, buckets = Quota(requests=3, per=3), ServerBuckets()
        async with client(service, quota=quota, limiter=buckets) as http:

            async def get() -> None:
                with anyio.CancelScope():
                    await http.get("/")

            async with anyio.create_task_group() as group:
                group.start_soon(get)
                group.start_soon(victim, get)
            assert service.is_quiet()
            now = buckets.statistics()
            assert (now.in_flight, now.waiting) == (0, 0)
            assert quota.statistics().in_flight == limited(http).statistics().in_flight == 0
            assert (await http.get("/")).status_code in {200, 429}

    for mode in ("checkpoint", "native") if backend == "asyncio" else ("checkpoint",):
        for victim in injections(mode):
            run(main, victim, backend=backend)


async def test_a_response_is_closed_if_its_headers_cannot_be_told() -> None:
    """A quota of somebody else's fails: the connection is free all the same."""

    class Broken(Scripted):
        def take(self) -> Any:
            return anyio.CancelScope()

        def observe(self, **_: object) -> None:
            raise LookupError

        def hold(self, _: float) -> None:
            """Do nothing."""

        limits = ("requests",)

    class Taken:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

    broken = Broken(lambda *_: respond(200, {"RateLimit-Remaining": "1"}))
    broken.take = Taken  # type: ignore[method-assign] # a block
    async with client(broken, quota=broken) as http:
        with pytest.raises(LookupError):
            await http.get("/")
    assert broken.bodies[0].closed


async def test_a_refusal_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Once each, with whom it concerns and how long it lasts."""
    with caplog.at_level(logging.WARNING, "mtaio.clients"):
        async with client(Scripted(refuse_first(2, Retry_After="2"))) as http:
            await http.get("/secret?token=1")
    assert caplog.messages == ["GET api: refused with 429; held for 2 s"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quota": 5}, r"^quota=5 is an int, not a quota"),
        ({"limiter": 5}, r"^limiter=5 is an int, which has no acquire\(\)"),
        ({"retry": 5}, r"^retry=5 is an int, not a Retry"),
        ({"key": 5}, r"^key=5 is an int, which is not callable"),
        ({"cost": 5}, r"^cost=5 is an int, which is not callable"),
        ({"resend": 5}, r"^resend=5 is an int, which is not callable"),
        ({"within": -1}, r"^within=-1 is less than 0"),
        ({"jitter": 2}, r"^jitter=2 is more than 1"),
    ],
)
def test_misuse_is_refused(options: dict[str, Any], message: str) -> None:
    """With the value, the reason and the way out."""
    with pytest.raises((TypeError, ValueError), match=message):
        LimitedTransport(**options)


def test_a_missing_library_is_named() -> None:
    """And the extra that brings it; what needs none of them works."""
    program = (
        "import sys; sys.modules['httpx'] = sys.modules['aiohttp'] = None\n"
        "import mtaio.clients as clients\n"
        "clients.RateLimitHeaders, clients.ServerBuckets\n"
        "for name in 'LimitedTransport', 'LimitedMiddleware':\n"
        "    try:\n        getattr(clients, name)\n"
        "    except ImportError as error:\n        print(error)"
    )
    done = subprocess.run(  # noqa: S603 - this very Python, with a program written here
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("pip install 'mtaio[httpx]'\n") == 1
    assert done.stdout.count("pip install 'mtaio[aiohttp]'\n") == 1


async def test_httpx_s_own_transport_is_the_default() -> None:
    """With its own settings."""
    transport = LimitedTransport()
    assert isinstance(transport._transport, httpx.AsyncHTTPTransport)
    await transport.aclose()


async def test_cost_that_is_no_mapping_is_refused() -> None:
    """A number, or a coroutine of an async function, says how to write it."""
    quota = Quota(tokens=100)

    async def later(_: httpx.Request) -> dict[str, float]:
        return {}

    wrong: Any
    for wrong in (lambda _: 5, later):
        async with client(Scripted(lambda *_: respond(200, {})), quota=quota, cost=wrong) as http:
            with pytest.raises(TypeError, match=r'^cost=.* returned .* as \{"tokens": 1500\}\.$'):
                await http.get("/")
