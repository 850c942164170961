"""
The route table: the whole API on one screen.

What a route does is written in `inference`, `management` and `observe`; what is no route of the
router goes to a worker as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from attrs import define
from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from werkzeug.exceptions import BadHost
from werkzeug.routing import PathConverter

from sgl_droute.api.inference import Inference
from sgl_droute.api.management import Management
from sgl_droute.api.observe import Observe
from sgl_droute.api.replies import error_reply, refuse
from sgl_droute.api.target import admitted, below_mount
from sgl_droute.errors import (
    BadRequest,
    MethodNotAllowed,
    NoWorker,
    RouterError,
    WorkerFailed,
)

log = Logger()


class _AnyPath(PathConverter):
    """Matches what is left of a path, also when that is empty or begins with a slash."""

    regex = ".*?"
    part_isolating = False


@define(eq=False)
class RouterAPI:
    """
    The HTTP API of one router.
    """

    inference: Inference
    management: Management
    observe: Observe

    routes = Klein()
    routes.url_map.merge_slashes = False
    routes.url_map.converters["any"] = _AnyPath

    @routes.route("/generate", methods=["POST"])
    async def generate(self, request: Request) -> None:
        target = _other_path(request, b"/v1/images/generations")
        await self.inference.forward(request, target)

    @routes.route("/generate_video", methods=["POST"])
    async def generate_video(self, request: Request) -> None:
        await self.inference.forward(request, _other_path(request, b"/v1/videos"))

    @routes.route("/update_weights_from_disk", methods=["POST"])
    async def update_weights_from_disk(self, request: Request) -> bytes:
        return await self.management.to_all_workers(request)

    @routes.route("/add_worker", methods=["POST"])
    def add_worker(self, request: Request) -> bytes:
        return self.management.add_worker(request)

    @routes.route("/remove_worker", methods=["POST"])
    def remove_worker(self, request: Request) -> bytes:
        return self.management.remove_worker(request)

    @routes.route("/list_workers", methods=["GET"])
    def list_workers(self, request: Request) -> bytes:
        return self.observe.list_workers(request)

    @routes.route("/liveness", methods=["GET"])
    def liveness(self, request: Request) -> bytes:
        return self.observe.liveness(request)

    @routes.route("/health", methods=["GET"])
    def health(self, request: Request) -> bytes:
        return self.observe.health(request)

    @routes.route("/health_generate", methods=["GET"])
    def health_generate(self, request: Request) -> bytes:
        return self.observe.health(request)

    @routes.route("/health_workers", methods=["GET"])
    def health_workers(self, request: Request) -> bytes:
        return self.observe.health_workers(request)

    @routes.route("/<any:path>")
    async def elsewhere(self, request: Request, path: str) -> None:
        await self.inference.forward(request)

    @routes.handle_errors(RouterError)
    async def _refused(self, request: Any, failure: Failure) -> bytes | None:
        assert isinstance(failure.value, RouterError)
        if isinstance(failure.value, WorkerFailed):
            log.warn("{request} failed: {error}", request=_named(request), error=failure.value)
        else:
            log.info("{request} refused: {error}", request=_named(request), error=failure.value)
        return await refuse(request, failure.value)

    @routes.handle_errors(CancelledError)
    async def _stopped(self, request: Any, failure: Failure) -> bytes | None:
        return await refuse(request, NoWorker("The router is stopping"))

    @routes.handle_errors(Exception)
    async def _broken(self, request: Any, failure: Failure) -> bytes | None:
        log.failure("{request} broke", failure, request=_named(request))
        return await refuse(request, RouterError("Internal error"))


class RouterResource(Resource):
    """
    The API as a resource, for the root of a site or any path below it.
    """

    isLeaf = True

    def __init__(self, api: RouterAPI) -> None:
        super().__init__()
        self._klein = api.routes.resource()

    def render(self, request: Request) -> int | bytes:
        """
        Answer *request*, once its target is one that may be passed on.
        """
        try:
            self._admit(request)
            self._klein.render(request)
        except RouterError as error:
            return error_reply(request, error)
        except BadHost:
            # Klein matches routes with the host name at hand, which has to be one in IDNA's sense.
            return error_reply(request, BadRequest("Malformed Host header"))
        return NOT_DONE_YET

    def _admit(self, request: Request) -> None:
        hosts = request.requestHeaders.getRawHeaders(b"host", [])
        target = admitted(request.method, request.uri, request.clientproto, hosts)
        prefix, request.uri = below_mount(target, len(request.prepath or ()))
        if prefix:
            request.requestHeaders.setRawHeaders(b"X-Forwarded-Prefix", [prefix])
        if not request.postpath or request.postpath[0][:1] in (b"", b"/"):
            # Klein drops slashes at the beginning, would take //health for /health, and finds no
            # route for a mount without a slash behind it. None of these is a path of the router.
            request.postpath = [b".", *(request.postpath or ())]


def _refuse_other_methods(routes: Klein) -> None:
    """
    Answer 405 on the router's own paths: the route that takes any path would forward them.
    """
    allowed = {rule.rule: rule.methods for rule in routes.url_map.iter_rules() if rule.methods}
    for path, methods in allowed.items():
        routes.route(path, endpoint=f"405 {path}")(_not_allowed(", ".join(sorted(methods))))


def _not_allowed(allow: str) -> Callable[[RouterAPI, Request], NoReturn]:
    def method_not_allowed(self: RouterAPI, request: Request) -> NoReturn:
        method = request.method.decode("ascii")
        path = request.path.decode("ascii")
        raise MethodNotAllowed(f"{path} takes {allow}, not {method}", headers={"Allow": allow})

    return method_not_allowed


def _other_path(request: Request, path: bytes) -> bytes:
    _, question, query = request.uri.partition(b"?")
    return path + question + query


def _named(request: Request) -> str:
    # Without the query, which may hold a key.
    return f"{request.method.decode('ascii')} {request.uri.partition(b'?')[0].decode('ascii')}"


_refuse_other_methods(RouterAPI.routes)
