"""
Webhooks and events over real sockets: a receiver, and a router that is killed and started again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_twisted
from attrs import define
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from sgl_droute.state.opening import open_store
from tests.integration.commands import free_port
from tests.integration.fleet import VIDEO, ask, made, router_process, running_fleet, standing
from tests.integration.sockets import connect, eventually, reactor

WAN = "wan2.1-t2v-1.3b"
SECRET = b"a secret"


@define(eq=False)
class Call:
    """What a receiver got: the path, the headers that a receiver looks at, the body."""

    path: str
    id: str
    signature: str
    body: bytes


class Receiver(Resource):
    """
    Takes calls, the first *refused* of them with a redirect to itself.
    """

    isLeaf = True

    def __init__(self, refused: int = 0) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._refused = refused

    def render_POST(self, request: Request) -> bytes:
        body = request.content.read()  # type: ignore[union-attr]
        id, signature = (request.getHeader(name) or "" for name in ("X-Webhook-Id", "X-Signature"))
        self.calls.append(Call(request.uri.decode(), id, signature, body))
        if len(self.calls) <= self._refused:
            request.setHeader("Location", "/elsewhere")
            request.setResponseCode(307)
        return b""


@asynccontextmanager
async def receiving(port: int, receiver: Receiver) -> AsyncIterator[None]:
    """
    *receiver* on that port of 127.0.0.1.
    """
    site = Site(receiver, reactor=reactor)
    site.noisy = False
    listening = await TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(site)
    try:
        yield
    finally:
        await listening.stopListening()


def kept(state: str) -> list[str]:
    """
    The bodies of the webhooks in a state file.
    """
    store = open_store(state, reactor, job_ttl=86400.0, max_owners=100)
    return [webhook.body for webhook in store.load().webhooks]


def is_genuine(call: Call) -> bool:
    expected = "sha256=" + hmac.new(SECRET, call.body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, call.signature)


@pytest_twisted.ensureDeferred
async def test_a_receiver_is_called_after_a_kill(tmp_path: Path) -> None:
    """
    A receiver that was away when its job ended is called by the next run of the router, once, with
    what became of the job and a signature.
    """
    port, hook = free_port(), free_port()
    state = f"sqlite:///{tmp_path}/router.sqlite"
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    receiver = Receiver()
    async with standing(WAN) as [station]:
        words = [
            *("--port", str(port), "--worker-urls", station.url, "--state", state),
            *("--webhook-hosts", "127.0.0.0/8", "--webhook-secret", "secret"),
            *("--job-poll-interval", "0.1"),
        ]
        async with router_process(tmp_path, *words) as process:
            headers = {"X-Webhook-Url": f"http://127.0.0.1:{hook}/done?x=1"}
            url = f"http://127.0.0.1:{port}"
            answer = await ask(url, "POST", "/v1/videos", json=VIDEO, headers=headers)
            assert answer.status == 200, answer.body
            await eventually(lambda: bool(kept(state)) and bool(kept(state)[0]))
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        (body,) = kept(state)
        async with receiving(hook, receiver), router_process(tmp_path, *words):
            await eventually(lambda: bool(receiver.calls) and not kept(state))
        (call,) = receiver.calls
    assert call.path == "/done?x=1"
    assert call.body == body.encode()
    assert is_genuine(call)
    told = json.loads(call.body)
    assert told["id"] == call.id
    assert told["type"] == "video.completed"
    assert told["data"]["id"] == answer.json["id"]
    assert station.url not in body


@pytest_twisted.ensureDeferred
async def test_a_receiver_is_called_until_it_takes_it() -> None:
    """
    A redirect is not followed but tried again, and workers do not see who is to be called.
    """
    port = free_port()
    receiver = Receiver(refused=1)
    options: dict[str, Any] = {"webhook_hosts": ("127.0.0.1",), "job_poll_interval": 0.1}
    async with running_fleet(WAN, **options) as fleet, receiving(port, receiver):
        await made(fleet, "/v1/videos", VIDEO)
        received = {"X-Webhook-Url": f"http://127.0.0.1:{port}/hook"}
        answer = await fleet.ask("POST", "/generate_video", json=VIDEO, headers=received)
        assert answer.status == 200, answer.body
        await eventually(lambda: len(receiver.calls) == 2)
        names = {
            name.lower()
            for each in fleet.stations[0].worker.journal.received
            for name, _ in each.headers
        }
    first, second = receiver.calls
    assert (first.path, second.path) == ("/hook", "/hook")
    assert (first.id, first.body) == (second.id, second.body)
    assert first.signature == ""
    assert "x-request-id" in names
    assert "x-webhook-url" not in names


@pytest_twisted.ensureDeferred
async def test_whom_the_router_may_not_call() -> None:
    """
    Without hosts to call, a job with a webhook is refused before any worker hears of it.
    """
    async with running_fleet(WAN) as fleet:
        fleet.stations[0].worker.journal.clear()
        for path in ("/v1/videos", "/generate_video", "/v1/meshes"):
            headers = {"X-Webhook-Url": "http://127.0.0.1:9/hook"}
            answer = await fleet.ask("POST", path, json=VIDEO, headers=headers)
            assert (answer.status, answer.json["reason"]) == (400, "bad_request")
        assert fleet.stations[0].asked == []


@pytest_twisted.ensureDeferred
async def test_events_of_a_router() -> None:
    """
    A client is told of the jobs that end; when the router stops, its answer ends as it should.
    """
    async with running_fleet(WAN, job_poll_interval=0.1) as fleet:
        client = await connect(fleet.router.port)
        client.write(b"GET /events?types=job HTTP/1.1\r\nHost: r\r\n\r\n")
        await client.until(lambda: b"event: hello\n" in client.received)
        id = await made(fleet, "/v1/videos", VIDEO)
        await client.until(lambda: b"event: job.completed\n" in client.received)
    await client.until(lambda: client.closed is not None)
    assert id.encode() in client.received
    assert client.received.endswith(b"\r\n0\r\n\r\n")
    assert not client.reset
