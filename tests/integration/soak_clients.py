"""
Clients of a soak: all kinds of requests, checked byte by byte, some of them left at any moment.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.integration.outcomes import Outcome, outcome
from tests.integration.sockets import reactor

# A router that takes longer than this for anything is stuck: all its limits here are far shorter.
STUCK = 30.0
# What a worker or a router may say while workers come and go.
EXPECTED = (200, 404, 502, 503, 504)

_PATTERN = bytes(range(256)) * (1 << 15)
_POLLS = 20
_IMAGE = {"size": "64x64", "num_inference_steps": 4}
_VIDEO = {"size": "64x64", "num_frames": 5, "num_inference_steps": 4}


@frozen
class Whim:
    """
    What a client does instead of waiting for its answer.

    Attributes:
        leaves: The transport's method it leaves by; None to stay.
        after: Seconds until then.
        dawdles: Seconds during which it reads nothing once its answer has begun.
    """

    leaves: str | None = None
    after: float = 0.0
    dawdles: float = 0.0


PATIENT = Whim()


class _Visit(Protocol):
    """
    One connection for one request; `left` fires when it is closed.

    Attributes:
        in_order: Whether that was a farewell; otherwise it was cut.
    """

    transport: Any

    def __init__(self, request: bytes, whim: Whim) -> None:
        self.left: Deferred[None] = Deferred()
        self.in_order = False
        self.parts: list[bytes] = []
        self._request = request
        self._whim = whim
        self._timers: list[Any] = []

    def connectionMade(self) -> None:
        self.transport.write(self._request)
        if self._whim.leaves is not None:
            self._later(self._whim.after, self._whim.leaves)
        self._later(STUCK, "abortConnection")

    def dataReceived(self, data: bytes) -> None:
        if not self.parts and self._whim.dawdles:
            self.transport.pauseProducing()
            self._later(self._whim.dawdles, "resumeProducing")
        self.parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self.in_order = reason.check(ConnectionDone) is not None
        self.left.callback(None)

    def _later(self, seconds: float, what: str) -> None:
        self._timers.append(reactor.callLater(seconds, getattr(self.transport, what)))


@define(eq=False)
class Visitors:
    """
    Sends requests to the router at a port of 127.0.0.1, and keeps the score.

    Attributes:
        name: Begins the ids of its requests.
        score: How many requests ended how, by kind and ending (count).
        wrong: What no client may ever see, in words.
        once: Ids of the requests that no two workers may get, nor one of them twice.
    """

    name: str
    port: int
    random: Random
    score: Counter[tuple[str, str]] = field(factory=Counter)
    wrong: list[str] = field(factory=list)
    once: set[bytes] = field(factory=set)
    _number: int = 0

    async def any(self, *, patient: bool = False) -> None:
        """
        One visit of a random kind.

        Args:
            patient: Whether it waits for whatever comes.
        """
        kinds = (self._image, self._echo, self._bytes, self._chunks, self._video, self._lists)
        await self.random.choice(kinds)(PATIENT if patient else self._whim())

    async def each(self) -> None:
        """
        One patient visit of each kind.
        """
        for kind in (self._image, self._echo, self._bytes, self._chunks, self._video, self._lists):
            await kind(PATIENT)

    def endings(self) -> Counter[str]:
        """
        How many requests ended how (count).
        """
        total: Counter[str] = Counter()
        for (_, ending), count in self.score.items():
            total[ending] += count
        return total

    def _whim(self) -> Whim:
        drawn = self.random.random()
        if drawn < 0.25:
            ways = ("abortConnection", "loseConnection", "loseWriteConnection")
            return Whim(self.random.choice(ways), self.random.expovariate(10.0))
        return Whim(dawdles=self.random.random()) if drawn < 0.35 else PATIENT

    # Kinds.

    async def _image(self, whim: Whim) -> None:
        wish = {**_IMAGE, "prompt": f"{self.name} {self._number}", "response_format": "b64_json"}
        body = json.dumps(wish).encode()
        await self._post("image", "/v1/images/generations", body, whim, _is_json)

    async def _echo(self, whim: Whim) -> None:
        body = self.random.randbytes(self.random.choice((10, 10_000, 100_000, 3_000_000)))
        await self._post("echo", "/simulator/echo", body, whim, lambda got: got == body)

    async def _bytes(self, whim: Whim) -> None:
        await self._get_bytes("bytes", 0, whim)

    async def _chunks(self, whim: Whim) -> None:
        await self._get_bytes("chunks", 1, whim)

    async def _get_bytes(self, kind: str, chunked: int, whim: Whim) -> None:
        size = self.random.choice((0, 10, 60_000, 70_000, 4_000_000))
        target = f"/simulator/bytes?size={size}&chunked={chunked}"
        await self._visit(kind, "GET", target, b"", whim, lambda got: got == _PATTERN[:size])

    async def _lists(self, whim: Whim) -> None:
        target = self.random.choice(("/v1/models", "/v1/videos", "/workers"))
        await self._visit("lists", "GET", target, b"", whim, _is_json)

    async def _video(self, whim: Whim) -> None:
        wish = {**_VIDEO, "prompt": f"{self.name} {self._number}"}
        body = json.dumps(wish).encode()
        made = await self._post("video", "/v1/videos", body, whim, _is_json)
        if made is None or made.status != 200:
            return
        path = f"/v1/videos/{json.loads(made.body)['id']}"
        for _ in range(_POLLS):
            await deferLater(reactor, 0.05)
            seen = await self._visit("poll", "GET", path, b"", whim, _is_json)
            if seen is None or seen.status != 200:
                return
            if json.loads(seen.body)["status"] == "completed":
                break
        else:
            return
        await self._visit("content", "GET", f"{path}/content", b"", whim, lambda got: bool(got))
        if self.random.random() < 0.5:
            await self._visit("delete", "DELETE", path, b"", PATIENT, _is_json)

    # One request.

    async def _post(
        self, kind: str, target: str, body: bytes, whim: Whim, good: Callable[[bytes], bool]
    ) -> Outcome | None:
        return await self._visit(kind, "POST", target, body, whim, good)

    async def _visit(
        self,
        kind: str,
        method: str,
        target: str,
        body: bytes,
        whim: Whim,
        good: Callable[[bytes], bool],
    ) -> Outcome | None:
        """
        The answer; None if there is none that is whole.

        Args:
            good: Whether this is the body of a worker's answer 200.
        """
        self._number += 1
        id = b"%s-%d" % (self.name.encode(), self._number)
        if method == "POST":
            self.once.add(id)
        visit = _Visit(_request(method, target, id, body), whim)
        started = reactor.seconds()
        await self._went(visit)
        seen = outcome(b"".join(visit.parts), method=method)
        if reactor.seconds() - started > STUCK - 1:
            self._complain(kind, target, "stuck")
        elif whim.leaves is None:
            self._judge(kind, target, seen, visit, good)
        ending = str(seen.status) if seen.whole else "left" if whim.leaves is not None else "cut"
        self.score[kind, ending] += 1
        return seen if seen.whole else None

    async def _went(self, visit: _Visit) -> None:
        factory = Factory.forProtocol(lambda: visit)
        factory.noisy = False
        await TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(factory)
        await visit.left

    def _judge(
        self, kind: str, target: str, seen: Outcome, visit: _Visit, good: Callable[[bytes], bool]
    ) -> None:
        if not seen.whole:
            if visit.in_order:
                self._complain(kind, target, f"{seen}, and closed in order")
        elif seen.status not in EXPECTED:
            self._complain(kind, target, f"answered {seen.status} {seen.body[:200]!r}")
        elif seen.status == 200 and not good(seen.body):
            self._complain(kind, target, f"wrong body of {len(seen.body)} bytes")

    def _complain(self, kind: str, target: str, what: str) -> None:
        self.wrong.append(f"{self.name}-{self._number} {kind} {target}: {what}")


def _request(method: str, target: str, id: bytes, body: bytes) -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: router",
        "Connection: close",
        f"X-Request-Id: {id.decode()}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
