"""
The route table: the whole API on one screen.

Each route says whom it is for: ``everyone``, a ``client`` with a key for generations, or an
``operator`` with one for the fleet. What a route does is written in `inference`, `owned`, `lists`,
`fleetwide`, `updates`, `waiting`, `management` and `observe`; what is no route of the router goes
to a worker as it came.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, NoReturn, TypeVar

from attrs import define
from klein import Klein
from twisted.web.server import Request
from werkzeug.routing import PathConverter

from sgl_droute.api.configuration_api import ConfigurationAPI
from sgl_droute.api.entry.access import Access
from sgl_droute.api.entry.cors import Cors
from sgl_droute.api.events import Events
from sgl_droute.api.fleetwide import FleetWide
from sgl_droute.api.inference import Inference
from sgl_droute.api.lists import Lists
from sgl_droute.api.management import Management
from sgl_droute.api.observe import Observe
from sgl_droute.api.openapi.document import document
from sgl_droute.api.owned import Owned
from sgl_droute.api.page.dashboard import Dashboard
from sgl_droute.api.reading import parameter
from sgl_droute.api.replies import reply
from sgl_droute.api.telemetry.exposition import Exposition
from sgl_droute.api.tunnels import Tunnels, asks_for_tunnel
from sgl_droute.api.updates import Updates
from sgl_droute.api.waiting import Waiting
from sgl_droute.errors import BadRequest, MethodNotAllowed
from sgl_droute.fleet.capabilities import (
    ACTION,
    EDIT,
    IMAGE,
    MESH,
    REALTIME,
    SAMPLE,
    VERTEX,
    VIDEO,
)
from sgl_droute.fleet.loras import MERGE, SET, UNMERGE
from sgl_droute.fleet.weights import DISK, TENSOR

_ANYTHING = "/<any:path>"
_UP = re.compile(r"(?:^|[/\\])\.\.?(?:[/\\]|$)")
_ANY_METHOD = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class _AnyPath(PathConverter):
    """Matches what is left of a path, also when that is empty or begins with a slash."""

    regex = ".*?"
    part_isolating = False


Handler = TypeVar("Handler", bound=Callable[..., Any])


def _answer_options(routes: Klein, declared: dict[str, Access], path: str, methods: str) -> None:
    endpoint = f"OPTIONS {path}"
    routes.route(path, methods=["OPTIONS"], endpoint=endpoint)(_options(methods))
    declared[endpoint] = Access.OPEN


def _options(methods: str) -> Callable[..., bytes]:
    def options(self: RouterAPI, request: Request, **named: str) -> bytes:
        return self.cors.answer(request, methods)

    return options


def declaring(
    routes: Klein, declared: dict[str, Access], access: Access
) -> Callable[..., Callable[[Handler], Handler]]:
    """
    A decorator for handlers: ``@...(path, *methods)`` makes a route of *routes* that needs
    *access*, which *declared* has by the name of the handler. Without methods it takes any but
    ``OPTIONS``, which is answered.
    """

    def at(path: str, *methods: str) -> Callable[[Handler], Handler]:
        def declare(handler: Handler) -> Handler:
            if not methods:  # of routes that take a method the first one gets it
                _answer_options(routes, declared, path, ", ".join(sorted(_ANY_METHOD)))
            declared[handler.__name__] = access
            taken: dict[str, Any] = {"methods": methods} if methods else {}
            routes.route(path, **taken)(handler)
            return handler

        return declare

    return at


@define(eq=False)
class RouterAPI:
    """
    The HTTP API of one router.
    """

    inference: Inference
    owned: Owned
    lists: Lists
    fleet: FleetWide
    updates: Updates
    management: Management
    observe: Observe
    tunnels: Tunnels
    waiting: Waiting
    cors: Cors
    events: Events
    configuration: ConfigurationAPI
    exposition: Exposition
    dashboard: Dashboard

    routes = Klein()
    access: ClassVar[dict[str, Access]] = {}
    everyone = declaring(routes, access, Access.OPEN)
    client = declaring(routes, access, Access.INFERENCE)
    operator = declaring(routes, access, Access.ADMIN)
    routes.url_map.merge_slashes = False
    routes.url_map.converters["any"] = _AnyPath

    # Work: for one worker that is able.

    @client("/generate", "POST")
    async def generate(self, request: Request) -> None:
        target = _other_path(request, b"/v1/images/generations")
        await self.inference.forward(request, IMAGE, target=target, makes="image")

    @client("/generate_video", "POST")
    async def generate_video(self, request: Request) -> None:
        target = _other_path(request, b"/v1/videos")
        await self.inference.forward(request, VIDEO, target=target, makes="video")

    @client("/v1/images/generations", "POST")
    async def create_image(self, request: Request) -> None:
        await self.inference.forward(request, IMAGE, makes="image")

    @client("/v1/images/edits", "POST")
    async def edit_image(self, request: Request) -> None:
        await self.inference.forward(request, EDIT, makes="image")

    @client("/v1/videos", "POST")
    async def create_video(self, request: Request) -> None:
        await self.inference.forward(request, VIDEO, makes="video")

    @client("/v1/meshes", "POST")
    async def create_mesh(self, request: Request) -> None:
        await self.inference.forward(request, MESH, makes="mesh")

    @client("/rollout/generate", "POST")
    async def rollout(self, request: Request) -> None:
        await self.inference.forward(request, SAMPLE)

    @client("/v1/diffusion/generate", "POST")
    async def diffusion(self, request: Request) -> None:
        await self.inference.forward(request, SAMPLE)

    @client("/vertex_generate", "POST")
    async def vertex(self, request: Request) -> None:
        await self.inference.forward(request, VERTEX)

    @client("/v1/actions/<any:path>")
    async def action(self, request: Request, path: str) -> None:
        if _UP.search(path):  # a proxy before a worker might follow it to an operator's route
            raise BadRequest("A path below /v1/actions/ must not go up")
        if asks_for_tunnel(request):
            await self.tunnels.open(request, ACTION)
        else:
            await self.inference.forward(request, ACTION)

    @client("/v1/realtime_video/generate")
    async def realtime(self, request: Request) -> None:
        if asks_for_tunnel(request):
            await self.tunnels.open(request, REALTIME)
        else:
            await self.inference.forward(request)

    # What a worker holds: for that worker.

    @client("/v1/images/<id>/content", "GET")
    async def image_content(self, request: Request, id: str) -> None:
        await self.owned.content(request, "image", id)

    @client("/v1/videos/<id>", "GET", "DELETE")
    async def video(self, request: Request, id: str) -> None:
        await self.owned.record(request, "video", id)

    @client("/v1/videos/<id>/content", "GET")
    async def video_content(self, request: Request, id: str) -> None:
        await self.owned.content(request, "video", id)

    @client("/v1/meshes/<id>", "GET", "DELETE")
    async def mesh(self, request: Request, id: str) -> None:
        await self.owned.record(request, "mesh", id)

    @client("/v1/meshes/<id>/content", "GET")
    async def mesh_content(self, request: Request, id: str) -> None:
        await self.owned.content(request, "mesh", id)

    # Questions that the whole fleet answers.

    @client("/v1/videos", "GET")
    async def videos(self, request: Request) -> bytes | None:
        return await self._record_or_list(request, "video", "videos")

    @client("/v1/meshes", "GET")
    async def meshes(self, request: Request) -> bytes | None:
        return await self._record_or_list(request, "mesh", "meshes")

    @client("/v1/models", "GET")
    async def models(self, request: Request) -> bytes:
        return await self.lists.models(request)

    @client("/v1/models/<path:name>", "GET")
    async def model(self, request: Request, name: str) -> bytes:
        return await self.lists.model(request, name)

    @operator("/v1/list_loras", "GET")
    async def loras(self, request: Request) -> bytes:
        return await self.lists.loras(request)

    # Orders to the whole fleet.

    @operator("/update_weights_from_disk", "POST")
    async def update_weights_from_disk(self, request: Request) -> bytes:
        return await self.updates.update_weights(request, DISK)

    @operator("/update_weights_from_tensor", "POST")
    async def update_weights_from_tensor(self, request: Request) -> bytes:
        return await self.updates.update_weights(request, TENSOR)

    @operator("/update_weights_from_tensor_checker", "POST")
    async def update_weights_from_tensor_checker(self, request: Request) -> bytes:
        return await self.fleet.to_all(request)

    @operator("/get_weights_checksum", "POST")
    async def get_weights_checksum(self, request: Request) -> bytes:
        return await self.fleet.to_all(request)

    @operator(SET, "POST")
    async def set_lora(self, request: Request) -> bytes:
        return await self.updates.change_loras(request, SET)

    @operator(MERGE, "POST")
    async def merge_lora_weights(self, request: Request) -> bytes:
        return await self.updates.change_loras(request, MERGE)

    @operator(UNMERGE, "POST")
    async def unmerge_lora_weights(self, request: Request) -> bytes:
        return await self.updates.change_loras(request, UNMERGE)

    @operator("/release_memory_occupation", "POST")
    async def release_memory_occupation(self, request: Request) -> bytes:
        return await self.fleet.release_memory(request)

    @operator("/resume_memory_occupation", "POST")
    async def resume_memory_occupation(self, request: Request) -> bytes:
        return await self.fleet.resume_memory(request)

    @operator("/weights", "GET")
    def weights(self, request: Request) -> bytes:
        return self.updates.show(request)

    @operator("/weights/verify", "POST")
    async def verify_weights(self, request: Request) -> bytes:
        return await self.updates.verify(request)

    @operator("/weights/resolve", "POST")
    async def resolve_weights(self, request: Request) -> bytes:
        return await self.updates.resolve(request)

    # The waiting line.

    @operator("/queue", "GET")
    def queue(self, request: Request) -> bytes:
        return self.waiting.queue(request)

    @operator("/queue/<id>", "DELETE")
    def cancel(self, request: Request, id: str) -> bytes:
        return self.waiting.cancel(request, id)

    @operator("/rollouts/<path:id>", "GET")
    def rollout_batch(self, request: Request, id: str) -> bytes:
        return self.waiting.rollout(request, id)

    @operator("/rollouts/<path:id>", "DELETE")
    def cancel_rollout_batch(self, request: Request, id: str) -> bytes:
        return self.waiting.cancel_rollout(request, id)

    # The workers.

    @operator("/add_worker", "POST")
    async def add_worker(self, request: Request) -> bytes:
        return await self.management.add_worker(request)

    @operator("/remove_worker", "POST")
    def remove_worker(self, request: Request) -> bytes:
        return self.management.remove_worker(request)

    @operator("/workers", "POST")
    async def create_worker(self, request: Request) -> bytes:
        return await self.management.create(request)

    @operator("/workers", "GET")
    def workers(self, request: Request) -> bytes:
        return self.management.workers(request)

    @operator("/workers/<path:worker_id>", "GET")
    def worker(self, request: Request, worker_id: str) -> bytes:
        return self.management.worker(request, worker_id)

    @operator("/workers/<path:worker_id>", "PUT")
    async def change_worker(self, request: Request, worker_id: str) -> bytes:
        return await self.management.change(request, worker_id)

    @operator("/workers/<path:worker_id>", "DELETE")
    def delete_worker(self, request: Request, worker_id: str) -> bytes:
        return self.management.delete(request, worker_id)

    # The router.

    @operator("/list_workers", "GET")
    def list_workers(self, request: Request) -> bytes:
        return self.observe.list_workers(request)

    @everyone("/liveness", "GET")
    def liveness(self, request: Request) -> bytes:
        return self.observe.liveness(request)

    @everyone("/health", "GET")
    def health(self, request: Request) -> bytes:
        return self.observe.health(request)

    @everyone("/health_generate", "GET")
    def health_generate(self, request: Request) -> bytes:
        return self.observe.health(request)

    @operator("/health_workers", "GET")
    def health_workers(self, request: Request) -> bytes:
        return self.observe.health_workers(request)

    @operator("/metrics", "GET")
    async def metrics(self, request: Request) -> bytes:
        return await self.exposition.router(request)

    @operator("/engine_metrics", "GET")
    async def engine_metrics(self, request: Request) -> bytes:
        return await self.exposition.engines(request)

    @operator("/events", "GET")
    async def stream_events(self, request: Request) -> None:
        await self.events.stream(request)

    @operator("/config", "GET")
    def config(self, request: Request) -> bytes:
        return self.configuration.show(request)

    @operator("/reload", "POST")
    def reload(self, request: Request) -> bytes:
        return self.configuration.reload(request)

    @client("/openapi.json", "GET")
    def openapi(self, request: Request) -> bytes:
        return reply(request, _described())

    # The live page.

    @everyone("/dashboard", "GET")
    def page(self, request: Request) -> bytes:
        return self.dashboard.page(request)

    @everyone("/dashboard/", "GET")
    def page_as_folder(self, request: Request) -> bytes:
        return self.dashboard.elsewhere(request)

    @everyone("/dashboard/<path:name>", "GET")
    def page_file(self, request: Request, name: str) -> bytes:
        return self.dashboard.file(request, name)

    @operator("/dashboard/stream", "GET")
    async def page_stream(self, request: Request) -> None:
        await self.dashboard.stream(request)

    @operator(_ANYTHING)
    async def elsewhere(self, request: Request, path: str) -> None:
        if asks_for_tunnel(request):
            await self.tunnels.open(request)
        else:
            await self.inference.forward(request)

    async def _record_or_list(self, request: Request, kind: str, collection: str) -> bytes | None:
        named = parameter(request, f"{kind}_id", "id", "job_id")
        if named is None:
            return await self.lists.jobs(request, collection)
        await self.owned.record(request, kind, named)
        return None


@cache
def _described() -> dict[str, Any]:
    return document(RouterAPI)


def _answer_other_methods(api: type[RouterAPI]) -> None:
    """
    Answer ``OPTIONS``, and 405, on the paths that take some methods only; the route that takes any
    path would forward them.
    """
    rules = list(api.routes.url_map.iter_rules())
    forwarded = {rule.rule for rule in rules if rule.methods is None}
    allowed: defaultdict[str, set[str]] = defaultdict(set)
    needed: dict[str, Access] = {}
    for rule in rules:
        if rule.rule in forwarded:
            continue
        allowed[rule.rule] |= rule.methods or set()
        access = api.access[rule.endpoint]
        needed[rule.rule] = min(access, needed.get(rule.rule, access))
    for path, methods in allowed.items():
        listed = ", ".join(sorted(methods | {"OPTIONS"}))
        _answer_options(api.routes, api.access, path, listed)
        refused = f"405 {path}"
        api.routes.route(path, endpoint=refused)(_not_allowed(listed))
        api.access[refused] = needed[path]


def _not_allowed(allow: str) -> Callable[..., NoReturn]:
    def method_not_allowed(self: RouterAPI, request: Request, **named: str) -> NoReturn:
        method = request.method.decode("ascii")
        path = request.path.decode("ascii")
        raise MethodNotAllowed(f"{path} takes {allow}, not {method}", headers={"Allow": allow})

    return method_not_allowed


def _other_path(request: Request, path: bytes) -> bytes:
    _, question, query = request.uri.partition(b"?")
    return path + question + query


_answer_other_methods(RouterAPI)
