"""
Calls the webhooks of jobs that are over, until somebody takes the call or it is too late.

When each is called is up to `sgl_droute.fleet.webhooks`. A receiver is not trusted: it is not
followed elsewhere, and what it answers is not read beyond its status.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from pathlib import Path
from secrets import token_hex
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from twisted.web.server import Request

from sgl_droute.errors import BadRequest, Refused, RouterError, WorkerFailed
from sgl_droute.fleet.jobs import EndedJob, OpenJobs
from sgl_droute.fleet.webhook import Webhook
from sgl_droute.fleet.webhook_hosts import HEADER, Hosts, split_webhook_url
from sgl_droute.fleet.webhooks import PendingWebhooks
from sgl_droute.workers.agent import WorkerAgent
from sgl_droute.workers.bodies import AtOnce
from sgl_droute.workers.client import Call, WorkerClient
from sgl_droute.workers.deadlines import Deadlines

log = Logger()

# Calls that wait for their job, or to be taken (count).
MOST_PENDING = 10_000
# Seconds that a receiver may take, to connect included.
TIMEOUT = 10.0

# A receiver that answers this wants no more of it (RFC 9110 15.5.11).
_GONE = 410
# Bytes of an answer that are read, so that its connection can serve again.
_MOST_READ = 1 << 16
# Seconds between looks for jobs whose end nobody told, and that a client is told to stay away.
_LOOK = 60.0
_STAY_AWAY = 60.0


@define(eq=False)
class Webhooks(Service):
    """
    Calls webhooks while it runs.

    Args:
        pending: What is to be called.
        jobs: Tells which jobs are over.
        hosts: Where calls may go.
        client: Makes the calls, on connections of their own.
        clock: Provides the time, as seconds since 1970.
        secret: What calls are signed with; None if they are not.
        close: Closes the client's connections.
    """

    pending: PendingWebhooks
    jobs: OpenJobs
    hosts: Hosts
    client: WorkerClient
    clock: Any
    secret: bytes | None = field(default=None, repr=False)
    close: Callable[[], Deferred[Any] | None] = lambda: None
    _looks: LoopingCall = field(init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _calling: set[Deferred[None]] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._looks = LoopingCall(self.look)
        self._looks.clock = self.clock
        self.jobs.watch(self._job_ended)

    # What clients want.

    def wanted(self, request: Request) -> str | None:
        """
        The URL that the client of *request*, which makes a job, wants called; None if it wants
        none. Workers do not see it: its header is taken away.

        Raises:
            BadRequest: It may not be called.
            Refused: Too many calls wait.
        """
        values = request.requestHeaders.getRawHeaders(b"x-webhook-url")
        if values is None:
            return None
        request.requestHeaders.removeHeader(b"x-webhook-url")
        if len(values) > 1:
            raise BadRequest(f"The request has {len(values)} {HEADER} headers")
        base, target = split_webhook_url(values[0].decode("latin-1"))
        if not self.hosts.have(base):
            raise BadRequest(
                f"{HEADER}: the router may not call {base}: see its option webhook-hosts"
            )
        if len(self.pending) >= MOST_PENDING:
            why = f"{len(self.pending)} webhooks wait already"
            raise Refused(why, "webhooks_full", retry_after=_STAY_AWAY)
        return base + target

    def expect(self, kind: str, id: str, url: str) -> None:
        """
        Have *url*, as `wanted` told it, called when the job with that *id* is over; to be called
        before anybody else learns of the job.
        """
        self.pending.expect(kind, id, url, f"evt_{token_hex(16)}")

    # What becomes of jobs.

    def look(self) -> None:
        """
        Have those called whose jobs are not open any more without anybody having told of their end:
        while the router was away, or because there were too many.
        """
        for webhook in self.pending.expected():
            if self.jobs.get(*webhook.key) is None:
                self.pending.end(*webhook.key, "lost", {}, self.clock.seconds())
        self._arm()

    def _job_ended(self, ended: EndedJob) -> None:
        self.pending.job_ended(ended, self.clock.seconds())
        self._arm()

    # Calls.

    def startService(self) -> None:
        """
        Begin with what is due.
        """
        super().startService()
        self._looks.start(_LOOK)

    def stopService(self) -> Deferred[Any]:
        """
        Break off the calls under way, which are made anew by the next run if the state is kept; the
        result comes when they have ended.
        """
        super().stopService()
        if self._looks.running:
            self._looks.stop()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        calling = list(self._calling)
        for each in calling:
            each.cancel()
        return DeferredList(calling).addCallback(lambda _: self.close())

    def _arm(self) -> None:
        """
        Come back when the next call is due.
        """
        due = self.pending.next_due()
        if due is None or not self.running:
            return
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= due:
                return
            self._timer.cancel()
        self._timer = self.clock.callLater(max(0.0, due - self.clock.seconds()), self._call_due)

    def _call_due(self) -> None:
        while self.running:
            webhook = self.pending.take(self.clock.seconds())
            if webhook is None:
                break
            calling = Deferred.fromCoroutine(self._call(webhook))
            if not calling.called:
                self._calling.add(calling)
                calling.addBoth(self._called, calling)
        self._arm()

    def _called(self, _: object, calling: Deferred[None]) -> None:
        self._calling.discard(calling)
        self._call_due()

    async def _call(self, webhook: Webhook) -> None:
        """
        One try; what came of it is noted, and nothing is raised.
        """
        base, target = split_webhook_url(webhook.url)
        if not self.hosts.have(base):
            log.warn("a webhook to {base} is dropped: the router may not call it", base=base)
            self.pending.forget(webhook)
            return
        try:
            status = await self._status(webhook, base, target)
        except CancelledError:
            self.pending.put_back(webhook)
        except RouterError as problem:
            why = problem.why if isinstance(problem, WorkerFailed) else str(problem)
            self._not_taken(webhook, base, why)
        except Exception:
            log.failure("calling a webhook broke")
            self._not_taken(webhook, base, "the router failed")
        else:
            if 200 <= status < 300:
                log.debug("the webhook of {kind} {id} was taken", kind=webhook.kind, id=webhook.id)
                self.pending.forget(webhook)
            elif status == _GONE:
                log.info("a webhook to {base} is given up: it answered 410", base=base)
                self.pending.forget(webhook)
            else:
                self._not_taken(webhook, base, f"it answered {status}")

    async def _status(self, webhook: Webhook, base: str, target: str) -> int:
        body = webhook.body.encode("ascii")
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "sgl-droute",
            "X-Webhook-Id": webhook.event,
            "X-Webhook-Timestamp": str(int(self.clock.seconds())),
        }
        if self.secret is not None:
            headers["X-Signature"] = signature(self.secret, body)
        raw = Headers({name: [value] for name, value in headers.items()})
        call = Call(b"POST", base, target.encode("ascii"), raw, AtOnce(body))
        return (await self.client.fetch(call, limit=_MOST_READ, whole=False)).status

    def _not_taken(self, webhook: Webhook, base: str, why: str) -> None:
        now = self.clock.seconds()
        after = self.pending.failed(webhook, now)
        if after is None:
            log.warn("a webhook to {base} is given up: {why}", base=base, why=why)
        else:
            log.info(
                "a webhook to {base} was not taken: {why}; once more in {pause} s",
                base=base,
                why=why,
                pause=after.due - now,
            )


def signature(secret: bytes, body: bytes) -> str:
    """
    The ``X-Signature`` of *body*.
    """
    return f"sha256={hmac.new(secret, body, 'sha256').hexdigest()}"


def read_secret(path: str) -> bytes | None:
    """
    The secret in the file at *path*, without the line's end; None if *path* is empty.

    Raises:
        ValueError: There is none to be had.
    """
    if not path:
        return None
    try:
        secret = Path(path).read_bytes().removesuffix(b"\n").removesuffix(b"\r")
    except OSError as problem:
        raise ValueError(f"The webhook secret cannot be read: {problem}") from problem
    if not secret:
        raise ValueError(f"The webhook secret is empty: {path}")
    return secret


def open_webhooks(
    pending: PendingWebhooks,
    jobs: OpenJobs,
    reactor: Any,
    deadlines: Deadlines,
    *,
    hosts: Iterable[str],
    secret_file: str = "",
    agent: IAgent | None = None,
) -> Webhooks:
    """
    Webhooks to *hosts*, signed with what is in *secret_file*.

    Args:
        reactor: Provides TCP, time and a name resolver.
        deadlines: Where limits of time are kept.
        hosts: As `Hosts.of` reads them; nobody may be called if there are none.
        secret_file: Calls are not signed if it is empty.
        agent: What carries the calls; connections of their own if None.

    Raises:
        ValueError: A host or the secret makes no sense; one sentence says why.
    """
    allowed, secret = Hosts.of(hosts), read_secret(secret_file)
    own = WorkerAgent(reactor, TIMEOUT, deadlines)
    client = WorkerClient(agent or own, reactor, TIMEOUT, deadlines)
    return Webhooks(pending, jobs, allowed, client, reactor, secret, own.close)
