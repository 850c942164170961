"""
Calling webhooks, on a clock.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from twisted.web.test.requesthelper import DummyRequest
from zope.interface import implementer

from sgl_droute.errors import BadRequest, ConnectRefused, Refused
from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.webhook import Webhook
from sgl_droute.fleet.webhooks import PendingWebhooks
from sgl_droute.workers.deadlines import Deadlines
from sgl_droute.workers.webhooks import TIMEOUT, Webhooks, open_webhooks, read_secret, signature

URL = "http://hooks.example.com/done?x=1"
W = "http://w:1"


@define(eq=False)
class Answer:
    """What a receiver answers, as far as it is looked at."""

    code: int
    phrase: bytes = b"phrase"
    length: int = 2
    headers: Headers = field(factory=Headers)

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(b"ok")
        protocol.connectionLost(Failure(ResponseDone()))


@define(eq=False)
class Received:
    """One call as a receiver got it."""

    method: bytes
    url: bytes
    headers: Headers
    body: bytes
    answering: Deferred[IResponse]

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        assert values is None or len(values) == 1
        return None if values is None else values[0]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def answer(self, code: int) -> None:
        answer: Any = Answer(code)
        self.answering.callback(answer)


@implementer(IAgent)
@define(eq=False)
class Receivers:
    """
    All receivers there are; they answer when the test says so.
    """

    calls: list[Received] = field(factory=list)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        assert headers is not None
        producer: Any = bodyProducer
        answering: Deferred[IResponse] = Deferred()
        self.calls.append(Received(method, uri, headers, producer.data, answering))
        return answering


class Bench:
    """
    Webhooks with everything around them in a test's hands. What is kept outlives them.
    """

    def __init__(self, secret_file: str = "", kept: dict[Any, Webhook] | None = None) -> None:
        self.clock: Any = MemoryReactorClock()
        self.clock.advance(1_000_000.0)
        self.kept = {} if kept is None else kept
        self.receivers = Receivers()
        self.jobs = OpenJobs()
        self.pending = PendingWebhooks()
        self.pending.restore(self.kept.values())
        self.pending.on_change = self._changed
        self.webhooks = open_webhooks(
            self.pending,
            self.jobs,
            self.clock,
            Deadlines(self.clock),
            hosts=["*.example.com", "name"],
            secret_file=secret_file,
            agent=self.receivers,
        )

    def _changed(self, kind: str, id: str, webhook: Webhook | None) -> None:
        if webhook is None:
            del self.kept[kind, id]
        else:
            self.kept[kind, id] = webhook

    def start(self) -> Bench:
        self.webhooks.startService()
        return self

    def job(self, id: str = "v", url: str = URL) -> None:
        """
        A worker has accepted a job that somebody wants to be called for.
        """
        self.webhooks.expect("video", id, url)
        self.jobs.created("video", id, W, 1, self.clock.seconds())

    def done(self, id: str = "v", status: str = "completed", **fields: Any) -> None:
        fields["status"] = status
        self.jobs.seen("video", id, W, 1, fields, self.clock.seconds())
        self.clock.advance(0)

    def taken(self) -> list[Received]:
        """
        The calls since this was asked last.
        """
        calls, self.receivers.calls = self.receivers.calls, []
        return calls


@pytest.fixture
def bench() -> Bench:
    """Webhooks that run."""
    return Bench().start()


def asked(**headers: str) -> Any:
    request = DummyRequest([b"v1", b"videos"])
    for name, value in headers.items():
        request.requestHeaders.addRawHeader(name.replace("_", "-"), value)
    return request


def lines(logged: list[LogEvent], level: str) -> list[str | None]:
    return [
        formatEvent(event)
        for event in logged
        if event["log_namespace"] == "sgl_droute.workers.webhooks"
        and event["log_level"].name == level
    ]


def test_who_wants_to_be_called(bench: Bench) -> None:
    """
    The URL is read in its one spelling, and workers are not shown it.
    """
    request = asked(X_Webhook_Url="HTTP://Hooks.Example.com:80/done?x=1", X_Other="1")
    assert bench.webhooks.wanted(request) == URL
    assert not request.requestHeaders.hasHeader("X-Webhook-Url")
    assert request.requestHeaders.hasHeader("X-Other")
    assert bench.webhooks.wanted(asked()) is None


@pytest.mark.parametrize(
    "url",
    ["http://other.org/", "http://example.com/", "http://10.0.0.1/", "no URL", "", "http://\xe9"],
)
def test_who_is_not_called(bench: Bench, url: str) -> None:
    """
    A URL that is none, or whose host the operator has not named, is a 400; the header is gone all
    the same.
    """
    request = asked(X_Webhook_Url=url)
    with pytest.raises(BadRequest, match="X-Webhook-Url"):
        bench.webhooks.wanted(request)
    assert not request.requestHeaders.hasHeader("X-Webhook-Url")


def test_two_urls(bench: Bench) -> None:
    """
    Two URLs are a 400.
    """
    request = asked(X_Webhook_Url=URL)
    request.requestHeaders.addRawHeader("X-Webhook-Url", URL)
    with pytest.raises(BadRequest):
        bench.webhooks.wanted(request)


def test_too_many_wait(bench: Bench) -> None:
    """
    When 10 000 wait the next one is refused, and is to come back.
    """
    for number in range(10_000):
        bench.webhooks.expect("video", str(number), URL)
    with pytest.raises(Refused) as refused:
        bench.webhooks.wanted(asked(X_Webhook_Url=URL))
    assert (refused.value.status, refused.value.reason) == (503, "webhooks_full")
    assert refused.value.headers["Retry-After"] == "60"


def test_a_call(bench: Bench) -> None:
    """
    When a job is done its webhook is called once, with what became of the job; unsigned where there
    is no secret.
    """
    bench.job()
    assert bench.taken() == []
    bench.clock.advance(30.0)
    assert bench.taken() == []
    bench.done(inference_time_s=29.5, file_path="/srv/v.mp4")
    (call,) = bench.taken()
    assert (call.method, call.url) == (b"POST", URL.encode())
    assert call.header("Content-Type") == "application/json"
    assert call.header("User-Agent") == "sgl-droute"
    assert call.header("X-Webhook-Timestamp") == "1000030"
    assert call.header("X-Signature") is None
    assert call.header("X-Webhook-Id") == call.json["id"]
    assert call.json["id"].startswith("evt_")
    assert call.json == {
        "id": call.json["id"],
        "type": "video.completed",
        "created_at": 1_000_030,
        "data": {"id": "v", "kind": "video", "status": "completed", "inference_time_s": 29.5},
    }
    call.answer(204)
    bench.clock.advance(86400.0)
    assert bench.taken() == []
    assert bench.kept == {}


def test_a_signed_call(tmp_path: Path) -> None:
    """
    With a secret the body's HMAC tells that it is the router's; the line end in the file is not
    part of the secret.
    """
    (tmp_path / "secret").write_bytes(b" s\xe9cret \r\n")
    bench = Bench(str(tmp_path / "secret")).start()
    bench.job()
    bench.done()
    (call,) = bench.taken()
    signed = hmac.new(b" s\xe9cret ", call.body, hashlib.sha256).hexdigest()
    assert call.header("X-Signature") == f"sha256={signed}"
    assert "cret" not in repr(bench.webhooks)


def test_the_check_that_the_documentation_shows() -> None:
    """
    What receivers are told to do takes genuine calls and no others.
    """
    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    shown: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], shown)
    is_genuine = shown["is_genuine"]
    genuine = signature(b"secret", b"body")
    assert is_genuine(b"secret", b"body", genuine)
    assert not is_genuine(b"other", b"body", genuine)
    assert not is_genuine(b"secret", b"Body", genuine)
    assert not is_genuine(b"secret", b"body", "")


@pytest.mark.parametrize(
    ("end", "type_"),
    [
        (lambda bench: bench.done(status="failed"), "video.failed"),
        (lambda bench: bench.jobs.lost("video", "v"), "video.lost"),
        (lambda bench: bench.jobs.worker_lost(W, 1), "video.lost"),
    ],
)
def test_bad_ends(bench: Bench, end: Any, type_: str) -> None:
    """
    A job that failed, and one that nobody knows any more, are told too.
    """
    bench.job()
    end(bench)
    bench.clock.advance(0)
    (call,) = bench.taken()
    assert call.json["type"] == type_
    assert call.json["data"]["status"] == type_.partition(".")[2]


def test_a_job_that_nobody_has(bench: Bench) -> None:
    """
    A job whose end nobody told is told as lost within a minute.
    """
    bench.webhooks.expect("video", "v", URL)
    bench.clock.pump([30.0, 30.0, 0.0])
    (call,) = bench.taken()
    assert call.json["type"] == "video.lost"


@pytest.mark.parametrize("status", [199, 301, 302, 307, 400, 404, 409, 429, 500, 503])
def test_who_does_not_take_it_is_called_again(bench: Bench, status: int) -> None:
    """
    All but a 2xx is called again, with the same body and id, after 1 s, then 2 s, then 4 s; nobody
    is redirected.
    """
    bench.job()
    bench.done()
    (first,) = bench.taken()
    first.answer(status)
    for pause in (1.0, 2.0, 4.0):
        bench.clock.advance(pause - 0.01)
        assert bench.taken() == []
        bench.clock.advance(0.01)
        (call,) = bench.taken()
        assert (call.url, call.body) == (first.url, first.body)
        assert call.header("X-Webhook-Id") == first.header("X-Webhook-Id")
        assert call.header("X-Webhook-Timestamp") == str(int(bench.clock.seconds()))
        call.answer(status)
    bench.clock.advance(8.0)
    bench.taken()[0].answer(200)
    assert bench.kept == {}


def test_who_is_gone_is_not_called_again(bench: Bench, logged: list[LogEvent]) -> None:
    """
    410 ends it.
    """
    bench.job()
    bench.done()
    bench.taken()[0].answer(410)
    bench.clock.advance(86400.0)
    assert bench.taken() == []
    assert bench.kept == {}
    assert lines(logged, "info") == [
        "a webhook to http://hooks.example.com is given up: it answered 410"
    ]


def test_who_does_not_answer(bench: Bench, logged: list[LogEvent]) -> None:
    """
    A receiver that is not reached, or that takes longer than 10 s, is called again; no log line
    shows more of the URL than its host.
    """
    bench.job()
    bench.done()
    bench.taken()[0].answering.errback(ConnectRefused("http://hooks.example.com", "refused"))
    bench.clock.advance(1.0)
    (late,) = bench.taken()
    bench.clock.pump([1.0] * int(TIMEOUT))
    assert late.answering.called
    assert bench.taken() == []
    bench.clock.advance(2.0)
    (call,) = bench.taken()
    call.answer(200)
    told = lines(logged, "info")
    assert told == [
        "a webhook to http://hooks.example.com was not taken: refused; once more in 1.0 s",
        "a webhook to http://hooks.example.com was not taken: no response within 10 s;"
        " once more in 2.0 s",
    ]


def test_nobody_is_called_for_ever(bench: Bench, logged: list[LogEvent]) -> None:
    """
    A day after the job's end it is given up.
    """
    bench.job()
    bench.done()
    calls = 0
    for _ in range(25 * 60):
        for call in bench.taken():
            calls += 1
            call.answer(500)
        bench.clock.advance(60.0)
    assert 25 <= calls <= 40
    assert bench.kept == {}
    assert lines(logged, "warn") == [
        "a webhook to http://hooks.example.com is given up: it answered 500"
    ]


def test_not_all_at_once(bench: Bench) -> None:
    """
    At most 20 calls are under way, 10 of them to one host; as one ends the next one begins.
    """
    for number in range(60):
        bench.job(str(number), f"http://{'ab'[number % 2]}.example.com/{number}")
    for number in range(60):
        bench.done(str(number))
    calls = bench.taken()
    assert len(calls) == 20
    for call in calls:
        call.answer(200)
    assert len(bench.taken()) == 20
    assert len(bench.kept) == 40


def test_a_restart() -> None:
    """
    What was under way, or is due, is called after a restart, with the id that it had; a job that
    ends then is told, and one that is not there any more is told as lost.
    """
    bench = Bench().start()
    for id in ("over", "open", "away"):
        bench.job(id)
    bench.done("over")
    (call,) = bench.taken()
    stopping = bench.webhooks.stopService()
    assert stopping.called
    assert call.answering.called
    again = Bench(kept=bench.kept)
    again.jobs.created("video", "open", W, 1, 1_000_000.0)
    again.start()
    again.clock.advance(0)
    calls = {each.json["data"]["id"]: each for each in again.taken()}
    assert set(calls) == {"over", "away"}
    assert calls["over"].body == call.body
    assert calls["over"].header("X-Webhook-Id") == call.header("X-Webhook-Id")
    assert calls["away"].json["type"] == "video.lost"
    again.done("open")
    (third,) = again.taken()
    assert third.json["type"] == "video.completed"


def test_a_host_that_is_not_allowed_any_more(logged: list[LogEvent]) -> None:
    """
    What was allowed when it was asked for, and is not after a restart, is not called.
    """
    webhook = Webhook(kind="video", id="v", url="http://old.org/", event="e", body="{}", until=1e9)
    bench = Bench(kept={webhook.key: webhook}).start()
    bench.clock.advance(0)
    assert bench.taken() == []
    assert bench.kept == {}
    assert lines(logged, "warn") == [
        "a webhook to http://old.org is dropped: the router may not call it"
    ]


def test_nothing_is_called_before_the_start() -> None:
    """
    Jobs that end before the service runs are told when it does.
    """
    bench = Bench()
    bench.job()
    bench.done()
    bench.clock.advance(1.0)
    assert bench.taken() == []
    bench.start().clock.advance(0)
    assert len(bench.taken()) == 1


def test_a_service_that_is_started_again() -> None:
    """
    A call that a stop broke off is made anew when the service is started again.
    """
    bench = Bench().start()
    bench.job()
    bench.done()
    (call,) = bench.taken()
    bench.webhooks.stopService()
    bench.start().clock.advance(0)
    (again,) = bench.taken()
    assert again.body == call.body
    assert bench.kept["video", "v"].tries == 0


def test_a_stop_leaves_nothing() -> None:
    """
    After a stop nothing waits for a time, and nothing is called.
    """
    bench = Bench().start()
    bench.job()
    bench.done()
    bench.taken()[0].answer(500)
    bench.webhooks.stopService()
    bench.clock.advance(60.0)
    assert bench.taken() == []
    assert bench.clock.getDelayedCalls() == []


@define(eq=False)
class Rebinding:
    """A name resolver whose first answer is harmless, and the later ones a metadata service."""

    asked: int = 0

    def resolveHostName(self, receiver: Any, host: str, port: int = 0, **_: Any) -> None:
        self.asked += 1
        receiver.resolutionBegan(None)
        address = "192.0.2.1" if self.asked == 1 else "169.254.169.254"
        receiver.addressResolved(IPv4Address("TCP", address, port))
        receiver.resolutionComplete()


def test_a_name_that_resolves_to_a_metadata_service() -> None:
    """
    The address behind a name is looked at for every try: a metadata service is never connected to.
    """
    clock: Any = MemoryReactorClock()
    clock.nameResolver = Rebinding()
    jobs, pending = OpenJobs(), PendingWebhooks()
    webhooks: Webhooks = open_webhooks(pending, jobs, clock, Deadlines(clock), hosts=["name"])
    webhooks.startService()
    webhooks.expect("video", "v", "http://name/")
    jobs.created("video", "v", W, 1, 0.0)
    jobs.lost("video", "v")
    clock.advance(0)
    assert [host for host, *_ in clock.tcpClients] == ["192.0.2.1"]
    clock.pump([1.0] * 30)
    assert clock.nameResolver.asked > 2
    assert [host for host, *_ in clock.tcpClients] == ["192.0.2.1"]
    webhooks.stopService()


def test_secrets(tmp_path: Path) -> None:
    """
    The secret is the file without its last line end; no file is none, and an empty or missing one
    an error that shows its name.
    """
    path = tmp_path / "secret"
    for content, secret in ((b"s\n", b"s"), (b"s", b"s"), (b"s\n\n", b"s\n"), (b"s\r\n", b"s")):
        path.write_bytes(content)
        assert read_secret(str(path)) == secret
    assert read_secret("") is None
    path.write_bytes(b"\n")
    with pytest.raises(ValueError, match=r"is empty: .*secret"):
        read_secret(str(path))
    path.unlink()
    with pytest.raises(ValueError, match=r"No such file.*secret"):
        read_secret(str(path))
