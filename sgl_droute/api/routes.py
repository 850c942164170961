"""
The route table: the whole API on one screen.

What a route does is written in `inference`, `owned`, `lists`, `fleetwide`, `updates`, `waiting`,
`management` and `observe`; what is no route of the router goes to a worker as it came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NoReturn

from attrs import define
from klein import Klein
from twisted.web.server import Request
from werkzeug.routing import PathConverter

from sgl_droute.api.fleetwide import FleetWide
from sgl_droute.api.inference import Inference
from sgl_droute.api.lists import Lists
from sgl_droute.api.management import Management
from sgl_droute.api.observe import Observe
from sgl_droute.api.owned import Owned
from sgl_droute.api.reading import parameter
from sgl_droute.api.tunnels import Tunnels, asks_for_tunnel
from sgl_droute.api.updates import Updates
from sgl_droute.api.waiting import Waiting
from sgl_droute.errors import MethodNotAllowed
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

# What workers answer too, whoever answers here.
_WORKERS_PATHS = ("/v1/", "/rollout/", "/vertex_generate")


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
    owned: Owned
    lists: Lists
    fleet: FleetWide
    updates: Updates
    management: Management
    observe: Observe
    tunnels: Tunnels
    waiting: Waiting

    routes = Klein()
    routes.url_map.merge_slashes = False
    routes.url_map.converters["any"] = _AnyPath

    # Work: for one worker that is able.

    @routes.route("/generate", methods=["POST"])
    async def generate(self, request: Request) -> None:
        target = _other_path(request, b"/v1/images/generations")
        await self.inference.forward(request, IMAGE, target=target, makes="image")

    @routes.route("/generate_video", methods=["POST"])
    async def generate_video(self, request: Request) -> None:
        target = _other_path(request, b"/v1/videos")
        await self.inference.forward(request, VIDEO, target=target, makes="video")

    @routes.route("/v1/images/generations", methods=["POST"])
    async def create_image(self, request: Request) -> None:
        await self.inference.forward(request, IMAGE, makes="image")

    @routes.route("/v1/images/edits", methods=["POST"])
    async def edit_image(self, request: Request) -> None:
        await self.inference.forward(request, EDIT, makes="image")

    @routes.route("/v1/videos", methods=["POST"])
    async def create_video(self, request: Request) -> None:
        await self.inference.forward(request, VIDEO, makes="video")

    @routes.route("/v1/meshes", methods=["POST"])
    async def create_mesh(self, request: Request) -> None:
        await self.inference.forward(request, MESH, makes="mesh")

    @routes.route("/rollout/generate", methods=["POST"])
    async def rollout(self, request: Request) -> None:
        await self.inference.forward(request, SAMPLE)

    @routes.route("/v1/diffusion/generate", methods=["POST"])
    async def diffusion(self, request: Request) -> None:
        await self.inference.forward(request, SAMPLE)

    @routes.route("/vertex_generate", methods=["POST"])
    async def vertex(self, request: Request) -> None:
        await self.inference.forward(request, VERTEX)

    @routes.route("/v1/actions/<any:path>")
    async def action(self, request: Request, path: str) -> None:
        if asks_for_tunnel(request):
            await self.tunnels.open(request, ACTION)
        else:
            await self.inference.forward(request, ACTION)

    @routes.route("/v1/realtime_video/generate")
    async def realtime(self, request: Request) -> None:
        if asks_for_tunnel(request):
            await self.tunnels.open(request, REALTIME)
        else:
            await self.inference.forward(request)

    # What a worker holds: for that worker.

    @routes.route("/v1/images/<id>/content", methods=["GET"])
    async def image_content(self, request: Request, id: str) -> None:
        await self.owned.content(request, "image", id)

    @routes.route("/v1/videos/<id>", methods=["GET", "DELETE"])
    async def video(self, request: Request, id: str) -> None:
        await self.owned.record(request, "video", id)

    @routes.route("/v1/videos/<id>/content", methods=["GET"])
    async def video_content(self, request: Request, id: str) -> None:
        await self.owned.content(request, "video", id)

    @routes.route("/v1/meshes/<id>", methods=["GET", "DELETE"])
    async def mesh(self, request: Request, id: str) -> None:
        await self.owned.record(request, "mesh", id)

    @routes.route("/v1/meshes/<id>/content", methods=["GET"])
    async def mesh_content(self, request: Request, id: str) -> None:
        await self.owned.content(request, "mesh", id)

    # Questions that the whole fleet answers.

    @routes.route("/v1/videos", methods=["GET"])
    async def videos(self, request: Request) -> bytes | None:
        return await self._record_or_list(request, "video", "videos")

    @routes.route("/v1/meshes", methods=["GET"])
    async def meshes(self, request: Request) -> bytes | None:
        return await self._record_or_list(request, "mesh", "meshes")

    @routes.route("/v1/models", methods=["GET"])
    async def models(self, request: Request) -> bytes:
        return await self.lists.models(request)

    @routes.route("/v1/models/<path:name>", methods=["GET"])
    async def model(self, request: Request, name: str) -> bytes:
        return await self.lists.model(request, name)

    @routes.route("/v1/list_loras", methods=["GET"])
    async def loras(self, request: Request) -> bytes:
        return await self.lists.loras(request)

    # Orders to the whole fleet.

    @routes.route("/update_weights_from_disk", methods=["POST"])
    async def update_weights_from_disk(self, request: Request) -> bytes:
        return await self.updates.update_weights(request, DISK)

    @routes.route("/update_weights_from_tensor", methods=["POST"])
    async def update_weights_from_tensor(self, request: Request) -> bytes:
        return await self.updates.update_weights(request, TENSOR)

    @routes.route("/update_weights_from_tensor_checker", methods=["POST"])
    async def update_weights_from_tensor_checker(self, request: Request) -> bytes:
        return await self.fleet.to_all(request)

    @routes.route("/get_weights_checksum", methods=["POST"])
    async def get_weights_checksum(self, request: Request) -> bytes:
        return await self.fleet.to_all(request)

    @routes.route(SET, methods=["POST"])
    async def set_lora(self, request: Request) -> bytes:
        return await self.updates.change_loras(request, SET)

    @routes.route(MERGE, methods=["POST"])
    async def merge_lora_weights(self, request: Request) -> bytes:
        return await self.updates.change_loras(request, MERGE)

    @routes.route(UNMERGE, methods=["POST"])
    async def unmerge_lora_weights(self, request: Request) -> bytes:
        return await self.updates.change_loras(request, UNMERGE)

    @routes.route("/release_memory_occupation", methods=["POST"])
    async def release_memory_occupation(self, request: Request) -> bytes:
        return await self.fleet.release_memory(request)

    @routes.route("/resume_memory_occupation", methods=["POST"])
    async def resume_memory_occupation(self, request: Request) -> bytes:
        return await self.fleet.resume_memory(request)

    @routes.route("/weights", methods=["GET"])
    def weights(self, request: Request) -> bytes:
        return self.updates.show(request)

    @routes.route("/weights/verify", methods=["POST"])
    async def verify_weights(self, request: Request) -> bytes:
        return await self.updates.verify(request)

    @routes.route("/weights/resolve", methods=["POST"])
    async def resolve_weights(self, request: Request) -> bytes:
        return await self.updates.resolve(request)

    # The waiting line.

    @routes.route("/queue", methods=["GET"])
    def queue(self, request: Request) -> bytes:
        return self.waiting.queue(request)

    @routes.route("/queue/<id>", methods=["DELETE"])
    def cancel(self, request: Request, id: str) -> bytes:
        return self.waiting.cancel(request, id)

    @routes.route("/rollouts/<path:id>", methods=["GET"])
    def rollout_batch(self, request: Request, id: str) -> bytes:
        return self.waiting.rollout(request, id)

    @routes.route("/rollouts/<path:id>", methods=["DELETE"])
    def cancel_rollout_batch(self, request: Request, id: str) -> bytes:
        return self.waiting.cancel_rollout(request, id)

    # The workers.

    @routes.route("/add_worker", methods=["POST"])
    def add_worker(self, request: Request) -> bytes:
        return self.management.add_worker(request)

    @routes.route("/remove_worker", methods=["POST"])
    def remove_worker(self, request: Request) -> bytes:
        return self.management.remove_worker(request)

    @routes.route("/workers", methods=["POST"])
    def create_worker(self, request: Request) -> bytes:
        return self.management.create(request)

    @routes.route("/workers", methods=["GET"])
    def workers(self, request: Request) -> bytes:
        return self.management.workers(request)

    @routes.route("/workers/<path:worker_id>", methods=["GET"])
    def worker(self, request: Request, worker_id: str) -> bytes:
        return self.management.worker(request, worker_id)

    @routes.route("/workers/<path:worker_id>", methods=["PUT"])
    async def change_worker(self, request: Request, worker_id: str) -> bytes:
        return await self.management.change(request, worker_id)

    @routes.route("/workers/<path:worker_id>", methods=["DELETE"])
    def delete_worker(self, request: Request, worker_id: str) -> bytes:
        return self.management.delete(request, worker_id)

    # The router.

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


def _refuse_other_methods(routes: Klein) -> None:
    """
    Answer 405 on the router's own paths: the route that takes any path would forward them.
    """
    allowed: defaultdict[str, set[str]] = defaultdict(set)
    for rule in routes.url_map.iter_rules():
        if rule.methods:
            allowed[rule.rule] |= rule.methods
    for path, methods in allowed.items():
        if path.startswith(_WORKERS_PATHS):
            methods.add("OPTIONS")
            routes.route(path, methods=["OPTIONS"], endpoint=f"OPTIONS {path}")(_preflight)
        refused = _not_allowed(", ".join(sorted(methods)))
        routes.route(path, endpoint=f"405 {path}")(refused)


async def _preflight(self: RouterAPI, request: Request, **named: str) -> None:
    # What pages of other origins may do is for the workers to say.
    await self.inference.forward(request)


def _not_allowed(allow: str) -> Callable[..., NoReturn]:
    def method_not_allowed(self: RouterAPI, request: Request, **named: str) -> NoReturn:
        method = request.method.decode("ascii")
        path = request.path.decode("ascii")
        raise MethodNotAllowed(f"{path} takes {allow}, not {method}", headers={"Allow": allow})

    return method_not_allowed


def _other_path(request: Request, path: bytes) -> bytes:
    _, question, query = request.uri.partition(b"?")
    return path + question + query


_refuse_other_methods(RouterAPI.routes)
