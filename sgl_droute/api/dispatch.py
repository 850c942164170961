"""
From a request to its route, and from what became of it to an answer.

Klein has the routes; this is the way to them: `klein.resource.KleinResource` binds its map anew for
each request, to a host name that would have to be one in IDNA's sense.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from attrs import define
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from werkzeug.routing import MapAdapter

from sgl_droute.api.entry.access import Access, Doorkeeper, entered
from sgl_droute.api.entry.cors import Cors
from sgl_droute.api.http.target import admitted, below_mount
from sgl_droute.api.replies import error_reply, refuse, stamp
from sgl_droute.api.telemetry.account import Account, Accounts, begun
from sgl_droute.errors import NoWorker, RouterError

log = Logger()

# Paths whose route is remembered (count), and how long they may be for that (characters): clients
# ask for the same few again and again.
_ROUTES_KEPT = 1000
_SHORT = 200


class RouterResource(Resource):
    """
    The routes of an API as a resource, for the root of a site or any path below it.

    Args:
        api: Has a ``routes`` attribute, a `Klein`, and tells in ``access`` what each of their
            endpoints needs; what is not in it is for operators.
        accounts: Told what becomes of every request.
        door: Lets requests in.
        cors: Tells what pages of other origins may read.
    """

    isLeaf = True

    def __init__(self, api: Any, accounts: Accounts, door: Doorkeeper, cors: Cors) -> None:
        super().__init__()
        self._accounts = accounts
        self._door = door
        self._cors = cors
        self._access: Mapping[str, Access] = api.access
        self._klein: Klein = api.routes
        self._templates = {rule.endpoint: rule.rule for rule in self._klein.url_map.iter_rules()}
        self._map: MapAdapter = self._klein.url_map.bind("router")
        self._match = lru_cache(_ROUTES_KEPT)(self._map.match)

    def render(self, request: Request) -> int | bytes:
        """
        Answer *request*, once its target is one that may be passed on.
        """
        account = begun(request, self._accounts.now())
        try:
            if not getattr(request, "admitted", False):
                hosts = request.requestHeaders.getRawHeaders(b"host", [])
                request.uri = admitted(request.method, request.uri, request.clientproto, hosts)
        except RouterError as error:
            account.failed(error)
            account.status = error.status
            self._accounts.close(account)
            return error_reply(request, error)
        if request.prepath:
            prefix, request.uri = below_mount(request.uri, len(request.prepath))
            request.requestHeaders.setRawHeaders(b"X-Forwarded-Prefix", [prefix])
        endpoint, arguments = self._route(_path(request), request.method.decode("ascii"))
        account.route = self._templates[endpoint]
        self._accounts.opened(account)
        stamp(request, self._cors.stamps(request))
        answer = _Answer(request, account, self._door, self._access.get(endpoint, Access.ADMIN))
        answering = Deferred.fromCoroutine(answer.give(self._klein, endpoint, arguments))
        answering.addBoth(lambda _: self._close(request, account))
        if not answering.called:
            request.notifyFinish().addErrback(answer.client_left, answering)
        return NOT_DONE_YET

    def _close(self, request: Request, account: Account) -> None:
        if account.status == 0 and request.startedWriting:
            account.status = request.code
        account.bytes_out = account.bytes_out or request.sentLength
        self._accounts.close(account)

    def _route(self, path: str, method: str) -> tuple[str, Mapping[str, Any]]:
        match = self._match if len(path) <= _SHORT else self._map.match
        # The map takes "get" for GET, which is another method (RFC 9110 9.1) that no route has.
        endpoint, arguments = match(path, method if method.isupper() else "?")
        return str(endpoint), arguments


def _path(request: Request) -> str:
    """
    The path to be matched. Routes have one slash at the beginning, and the map would take any
    number for one: ``//health`` is no path of the router, nor is a mount without a slash behind it.
    """
    if request.prepath:
        path = b"/".join(request.postpath or ())
        path = b"/" + path if request.postpath else path
    else:
        path = unquote_to_bytes(request.path)
    text = path.decode("utf-8")
    return text if text[:1] == "/" and text[:2] != "//" else f"/.{text}"


@define(eq=False)
class _Answer:
    """
    What becomes of one request.
    """

    request: Request
    account: Account
    door: Doorkeeper
    access: Access
    left: bool = False

    async def give(self, routes: Klein, endpoint: str, arguments: Any) -> None:
        request = self.request
        try:
            with entered(self.door, request, self.access, self.account):
                body = routes.execute_endpoint(endpoint, request, **arguments)
                if isinstance(body, Deferred):
                    body = await body
        except Exception as problem:
            error = _told(request, problem)
            if self.left:
                return
            self.account.failed(error)
            body = await refuse(request, error)
        if self.left or request.finished or _handed_over(request):
            return
        if isinstance(body, bytes):
            request.write(body)
        request.finish()

    def client_left(self, _: Failure, answering: Deferred[None]) -> None:
        self.left = True
        self.account.client_left()
        answering.cancel()


def _handed_over(request: Request) -> bool:
    return bool(getattr(request.channel, "handed_over", False))


def _told(request: Request, problem: Exception) -> RouterError:
    """
    What the client is told of *problem*; one of the router's own is noted in the log.
    """
    if isinstance(problem, CancelledError):
        return NoWorker("The router is stopping", reason="stopping")
    if not isinstance(problem, RouterError):
        log.failure("{request} broke", request=_named(request))
        return RouterError("Internal error")
    return problem


def _named(request: Request) -> str:
    # Without the query, which may hold a key.
    return f"{request.method.decode('ascii')} {request.uri.partition(b'?')[0].decode('ascii')}"
