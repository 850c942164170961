"""
What became of each request: one record, closed once and then told to those who watch.

Logs, metrics, traces and the live page are made from these records, each in a place of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field
from twisted.web.server import Request

from sgl_droute.api.replies import request_id
from sgl_droute.errors import RouterError
from sgl_droute.fleet.job import Job

DONE = "done"

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{1,256})?")

Observer = Callable[["Account"], object]


@define(eq=False, kw_only=True)
class Account:
    """
    What became of one request, or has become of it so far. Times are seconds on the reactor's
    clock.

    Attributes:
        id: Its ``X-Request-Id``.
        method: HTTP method.
        path: Path without the query.
        route: Template of its route such as ``/v1/videos/<id>``; empty for what reached none.
        address: Host that it came from.
        client: Who asks: ``key:NAME``, ``key:DIGEST``, ``id:NAME`` or ``ip:ADDRESS``.
        key: Name of the key that it came with; None without one.
        kind: What it makes, one of `sgl_droute.fleet.job.KINDS`; empty for what is no work.
        job: Its ``X-Router-Job``.
        worker: Base URL of the worker that it was sent to, the last one.
        epoch: As in ``X-Weights-Epoch``; empty where that makes no sense.
        tries: Workers that it was sent to (count).
        status: Of the answer; 0 without one.
        code: How it ended, in one word; empty while it has not.
        error: Why, in one sentence; None if all went well.
        bytes_in: Of its body, as far as that came.
        bytes_out: Of the answer's body, as far as that was written.
        began: When its head was there.
        ready: When its body was there.
        bound: When it was given to its worker.
        expected: Seconds that its worker was predicted to take.
        answered: When the head of its worker's answer was there.
        ended: When it ended.
        traceparent: What its worker gets as header of that name: the client's, or one of the
            router's own spans; None without one that makes sense.
    """

    id: str
    method: str
    path: str
    began: float
    route: str = ""
    address: str = ""
    client: str = ""
    key: str | None = None
    kind: str = ""
    job: str | None = None
    worker: str | None = None
    epoch: str = ""
    tries: int = 0
    status: int = 0
    code: str = ""
    error: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    ready: float | None = None
    bound: float | None = None
    expected: float | None = None
    answered: float | None = None
    ended: float | None = None
    traceparent: str | None = None

    def of_job(self, job: Job) -> None:
        """
        It is work, for one worker.
        """
        self.job = job.id
        self.kind = job.kind
        self.client = job.client

    def sent(self, worker: str, now: float, expected: float | None = None) -> None:
        """
        It is sent to a worker.
        """
        self.worker = worker
        self.bound = now
        self.expected = expected
        self.answered = None
        self.tries += 1

    def tunnelled(self, bytes_in: int, bytes_out: int, broken: str) -> None:
        """
        It was a WebSocket, over which so many bytes went, and which ended in order or was *broken*.
        """
        self.status = 101
        self.bytes_in, self.bytes_out = bytes_in, bytes_out
        self.code = self.code or broken

    def failed(self, error: RouterError) -> None:
        """
        It ends as *error* says; what comes first counts.
        """
        if not self.code:
            self.code = error.reason
            self.error = str(error)

    def client_left(self) -> None:
        """
        Its client hung up; what comes first counts.
        """
        if not self.code:
            self.code = f"client_gone_{self.stage}"
            self.error = "Client closed the connection"

    @property
    def stage(self) -> str:
        """``sending``, ``waiting``, ``running`` or ``reading``, from its client's point of view."""
        if self.ready is None:
            return "sending"
        if self.status or self.answered is not None:
            return "reading"
        return "waiting" if self.bound is None else "running"

    @property
    def queue(self) -> float | None:
        """Seconds from its body to its worker; None if it never had one."""
        if self.bound is None or self.ready is None:
            return None
        return self.bound - self.ready

    @property
    def work(self) -> float | None:
        """Seconds from its worker to the head of the answer; None if there was none."""
        if self.answered is None or self.bound is None:
            return None
        return self.answered - self.bound

    @property
    def transfer(self) -> float | None:
        """Seconds from the head of its worker's answer to the end; None if there was none."""
        if self.answered is None or self.ended is None:
            return None
        return self.ended - self.answered

    @property
    def total(self) -> float | None:
        """Seconds from its head to the end; None before that."""
        return None if self.ended is None else self.ended - self.began


@define(eq=False)
class Accounts:
    """
    The requests under way, and who is told of them.

    Args:
        now: The reactor's clock (seconds).
    """

    now: Callable[[], float]
    _open: dict[Account, None] = field(factory=dict, init=False)
    _at_begin: list[Observer] = field(factory=list, init=False)
    _at_end: list[Observer] = field(factory=list, init=False)

    def watch(self, observer: Observer) -> None:
        """
        Have *observer* called once with each account, when it is closed.
        """
        self._at_end.append(observer)

    def watch_begin(self, observer: Observer) -> None:
        """
        Have *observer* called with each account whose request has reached its route.
        """
        self._at_begin.append(observer)

    def opened(self, account: Account) -> None:
        """
        Take note of a request that has reached its route.
        """
        self._open[account] = None
        for observer in self._at_begin:
            observer(account)

    def close(self, account: Account) -> None:
        """
        Close *account*; without another word it is `DONE`. To be called once.
        """
        self._open.pop(account, None)
        account.code = account.code or DONE
        account.ended = self.now()
        for observer in self._at_end:
            observer(account)

    def __iter__(self) -> Iterator[Account]:
        """Those that are open, the oldest first."""
        return iter(list(self._open))

    def __len__(self) -> int:
        return len(self._open)


def begun(request: Request, now: float) -> Account:
    """
    The account of *request*, whose body is there by *now*; `account_of` has it from here on.
    """
    made: Any = request
    began = getattr(request, "began", None)
    account = made.account = Account(
        id=request_id(request).decode("latin-1"),
        method=request.method.decode("latin-1"),
        path=request.uri.partition(b"?")[0].decode("latin-1"),
        began=now if began is None else began,
        ready=now,
        address=getattr(request.getClientAddress(), "host", "") or "",
        bytes_in=getattr(request, "received", 0),
        traceparent=_traceparent(request),
    )
    return account


def account_of(request: Request) -> Account:
    """
    The account of *request*, which has reached its route.
    """
    of: Any = request
    account: Account = of.account
    return account


def _traceparent(request: Request) -> str | None:
    """
    The client's ``traceparent`` (W3C Trace Context 3.2); None without one that makes sense.
    """
    values = request.requestHeaders.getRawHeaders(b"traceparent")
    if values is None or len(values) > 1 or not _TRACEPARENT.fullmatch(values[0]):
        return None
    return values[0].decode("ascii")
