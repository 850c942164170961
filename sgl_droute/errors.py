"""
The one family of errors that a client can be told about.

It knows statuses and sentences; `sgl_droute.api.replies` turns an error into an answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

# Seconds that a client is told to stay away at most: predictions are not better than that.
_LONGEST_WAIT = 3600


class RouterError(Exception):
    """
    Something a client is told as JSON ``{"error": text, "reason": word, "request_id": id}``.

    Args:
        reason: A word of its own; that of its kind if None.

    Attributes:
        status: HTTP status of the answer.
        reason: One word for programs; those of all kinds are listed in ``docs/logs.md``.
        also: What `reason` may be besides, for single errors of this very kind.
        headers: Headers that the answer needs besides, such as ``Allow``.
        fields: What the JSON object has besides.
    """

    status = 500
    reason = "internal_error"
    also: tuple[str, ...] = ()

    def __init__(
        self,
        text: str,
        *,
        reason: str | None = None,
        headers: dict[str, str] | None = None,
        fields: dict[str, object] | None = None,
    ) -> None:
        super().__init__(text)
        if reason is not None:
            self.reason = reason
        self.headers = headers or {}
        self.fields = fields or {}

    def __copy__(self) -> RouterError:
        # Each client has headers of its own, such as the name of its job.
        twin = type(self).__new__(type(self), *self.args)
        own = {"headers": dict(self.headers), "fields": dict(self.fields)}
        twin.__dict__.update(self.__dict__, **own)
        return twin


class BadRequest(RouterError):
    """The request is malformed, or its input is not usable."""

    status = 400
    reason = "bad_request"


class NoCapableWorker(BadRequest):
    """No worker is able to serve the request at all."""

    reason = "no_capable_worker"


class Unauthorized(RouterError):
    """The request has no key that the router knows."""

    status = 401
    reason = "unauthorized"


class Forbidden(RouterError):
    """The request's key is not one for this, or nobody may do it."""

    status = 403
    reason = "forbidden"


class TooManyRequests(RouterError):
    """A limit of the request's key is reached; the reason tells which."""

    status = 429
    reason = "rate_limited"
    also = ("too_many_in_flight",)


class NotFound(RouterError):
    """The thing named by the request is not known here."""

    status = 404
    reason = "not_found"


class MethodNotAllowed(RouterError):
    """The path belongs to the router and does not take this method."""

    status = 405
    reason = "method_not_allowed"


class RequestTimeout(RouterError):
    """The client was too slow in sending its request."""

    status = 408
    reason = "client_too_slow"


class BodyTooLarge(RouterError):
    """The request body is larger than the router takes."""

    status = 413
    reason = "body_too_large"


class TargetTooLong(RouterError):
    """The request line is longer than the router takes (RFC 9112 3)."""

    status = 414
    reason = "target_too_long"


class Unprocessable(RouterError):
    """The request is well-formed, and a value in it is not one that it may have."""

    status = 422
    reason = "unprocessable"


class HeadersTooLarge(RouterError):
    """The request line and headers are larger, or more, than the router takes."""

    status = 431
    reason = "headers_too_large"


class NoStorage(RouterError):
    """The request body could not be kept until its worker takes it."""

    status = 507
    reason = "no_storage"


class Conflict(RouterError):
    """Something else is going on that it would have to wait for, and it is not to wait."""

    status = 409
    reason = "conflict"


class NotDrained(RouterError):
    """Work went on for longer than an update was to wait for it."""

    status = 504
    reason = "not_drained"


class NoTunnel(RouterError):
    """The connection of this request cannot become a tunnel."""

    status = 501
    reason = "no_tunnel"


class NoWorker(RouterError):
    """No worker can take the request now."""

    status = 503
    reason = "no_worker"
    # The last ones are those of the worker that holds what was asked for.
    also = (
        "stopping",
        "too_many_clients",
        "worker_failed",
        "worker_reset",
        "worker_unreachable",
        "worker_refused",
        "worker_untrusted",
        "worker_connect_timeout",
        "worker_timeout",
    )


class Refused(RouterError):
    """
    The line does not take the request, or does not let it go as it was asked to.

    Args:
        reason: One word for programs.
        position: Where in line it was or would have been, from 1; None for nowhere.
        retry_after: Seconds after which to ask again; None if that is not known.
    """

    status = 503
    reason = "queue_full"
    also: tuple[str, ...] = ("queue_timeout", "webhooks_full")

    def __init__(
        self,
        text: str,
        reason: str,
        *,
        position: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        seconds = (
            None if retry_after is None else math.ceil(min(max(retry_after, 1), _LONGEST_WAIT))
        )
        super().__init__(
            text,
            reason=reason,
            headers={} if seconds is None else {"Retry-After": str(seconds)},
            fields={"queue_position": position, "retry_after": seconds},
        )


class TooLate(Refused):
    """It would end behind its deadline."""

    status = 429
    reason = "deadline"
    also = ()


class DeadlinePassed(Refused):
    """Its deadline came while it waited."""

    status = 504
    reason = "deadline"
    also = ()


class PreconditionFailed(Refused):
    """It requires weights that no worker has."""

    status = 412
    reason = "epoch"
    also = ()


class Cancelled(Refused):
    """Somebody took it out of the line."""

    status = 409
    reason = "cancelled"
    also = ()


class NotWaiting(Refused):
    """It is to be taken out of the line and is at its worker, which cannot cancel."""

    status = 409
    reason = "running"
    also = ()


class NoSockets(RouterError):
    """The router itself is out of open files or ports; no worker is to blame."""

    status = 503
    reason = "no_sockets"


class NoAnswer(RouterError):
    """Workers were asked, and none gave a usable answer."""

    status = 502
    reason = "no_answer"


class WorkerFailed(RouterError):
    """
    A worker was reached, or may have been, and gave no usable answer.

    Attributes:
        worker: Its base URL.
        why: What happened, without its name.
        gone: Whether what answers next may be another process.
        refused: Whether it must be another one: nobody listened there.
    """

    status = 502
    reason = "worker_failed"
    gone = False
    refused = False

    def __init__(self, worker: str, why: str) -> None:
        super().__init__(f"Worker request failed: {worker}: {why}")
        self.worker = worker
        self.why = why


class WorkerTimeout(WorkerFailed):
    """A worker did not answer in time; it may still be at work."""

    status = 504
    reason = "worker_timeout"


class Disconnected(WorkerFailed):
    """The connection to the worker broke."""

    reason = "worker_reset"
    gone = True


class AnswerCut(Disconnected):
    """It broke in the middle of the answer's body."""

    reason = "answer_cut"


class NotConnected(Disconnected):
    """No connection to the worker came about: it has seen nothing of the request."""

    reason = "worker_unreachable"


class ConnectRefused(NotConnected):
    """Nobody listens where the worker was: it has seen nothing of the request."""

    reason = "worker_refused"
    refused = True


class UntrustedWorker(NotConnected):
    """Who listens there is not proven to be the worker: it has seen nothing of the request."""

    reason = "worker_untrusted"


class ConnectTimeout(NotConnected, WorkerTimeout):
    """No connection to the worker came about in time: it has seen nothing of the request."""

    status = 504
    reason = "worker_connect_timeout"
    gone = False


def reasons() -> dict[int, list[str]]:
    """
    Every reason that an error may have, by the status of its answer.
    """
    found: dict[int, set[str]] = {}
    for kind in _kinds(RouterError):
        found.setdefault(kind.status, set()).update((kind.reason, *kind.also))
    return {status: sorted(words) for status, words in sorted(found.items())}


def _kinds(kind: type[RouterError]) -> Iterator[type[RouterError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)
