"""
The whole HTTP face of a simulated worker.

Every route only names the work; :mod:`sgl_droute.simulator.exchange` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from attrs import define
from klein import Klein
from klein.interfaces import IKleinRequest
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect

from sgl_droute.simulator.backstage import Backstage
from sgl_droute.simulator.control import Control
from sgl_droute.simulator.discovery import Discovery
from sgl_droute.simulator.exchange import Exchange, Exchanges, headers_of, path_of
from sgl_droute.simulator.images import Images
from sgl_droute.simulator.meshes import Meshes
from sgl_droute.simulator.replies import JSON, Reply, as_json
from sgl_droute.simulator.rollout import Rollout, Vertex
from sgl_droute.simulator.videos import Videos

DECLARED_FIRST = ("POST", "GET", "DELETE")


def body(request: Request) -> bytes:
    content = request.content
    assert content is not None
    content.seek(0)
    whole: bytes = content.read()
    return whole


def header(request: Request, name: str) -> str | None:
    value: str | None = request.requestHeaders.getRawHeaders(name, [None])[-1]
    return value


def content_type(request: Request) -> str | None:
    return header(request, "content-type")


def query(request: Request) -> dict[str, str]:
    """
    The last value of every query parameter.
    """
    return {
        name.decode("utf-8", "replace"): values[-1].decode("utf-8", "replace")
        for name, values in request.args.items()
    }


def ranges(request: Request) -> tuple[str | None, str | None]:
    return header(request, "range"), header(request, "if-range")


async def not_found() -> Reply:
    return Reply(404, JSON, as_json({"detail": "Not Found"}))


async def not_allowed(allowed: str) -> Reply:
    return Reply(405, JSON, as_json({"detail": "Method Not Allowed"}), {"allow": allowed})


async def redirected(location: str) -> Reply:
    return Reply(307, None, b"", {"location": location})


@define(eq=False)
class Routes:
    """
    The route table of one worker.
    """

    exchange: Exchanges
    discovery: Discovery
    images: Images
    videos: Videos
    meshes: Meshes
    rollout: Rollout
    vertex: Vertex
    control: Control
    backstage: Backstage

    app = Klein()
    app.url_map.merge_slashes = False

    @app.handle_errors(NotFound, MethodNotAllowed, RequestRedirect)
    def no_route(self, request: IRequest, failure: Failure) -> Exchange:
        assert isinstance(request, Request)
        mapper = IKleinRequest(request).mapper
        path = path_of(request)
        if mapper.allowed_methods(path):
            return self.exchange(not_allowed, _first_allowed(mapper.allowed_methods(path)))
        bare = path.rstrip("/")
        if path != bare and bare and mapper.allowed_methods(bare):
            return self.exchange(redirected, _without_slash(request))
        return self.exchange(not_found)

    @app.handle_errors(HTTPException)
    def no_such_thing(self, request: IRequest, failure: Failure) -> Exchange:
        return self.exchange(not_found)

    @app.route("/liveness", methods=["GET"])
    def liveness(self, request: Request) -> Exchange:
        return self.exchange(self.discovery.liveness)

    @app.route("/health", methods=["GET"])
    @app.route("/health_generate", methods=["GET"])
    def health(self, request: Request) -> Exchange:
        return self.exchange(self.discovery.health)

    @app.route("/server_info", methods=["GET"])
    def server_info(self, request: Request) -> Exchange:
        return self.exchange(self.discovery.server_info)

    @app.route("/model_info", methods=["GET"])
    def model_info(self, request: Request) -> Exchange:
        return self.exchange(self.discovery.model_info)

    @app.route("/v1/model_info", methods=["GET"])
    def short_model_info(self, request: Request) -> Exchange:
        return self.exchange(self.discovery.short_model_info)

    @app.route("/models", methods=["GET"])
    def old_models(self, request: Request) -> Exchange:
        return self.exchange(self.discovery.old_models)

    @app.route("/v1/models", methods=["GET"])
    def models(self, request: Request) -> Exchange:
        return self.exchange(self.discovery.models)

    @app.route("/v1/models/<path:name>", methods=["GET"])
    def model(self, request: Request, name: str) -> Exchange:
        return self.exchange(self.discovery.model, name)

    @app.route("/metrics", methods=["GET"])
    def metrics(self, request: Request) -> Exchange:
        return self.exchange(self.discovery.metrics)

    @app.route("/stats", methods=["GET"])
    def stats(self, request: Request) -> Exchange:
        return self.exchange(self.control.stats)

    @app.route("/v1/images/generations", methods=["POST"])
    def generate_image(self, request: Request) -> Exchange:
        return self.exchange(self.images.generate, body(request), content_type(request))

    @app.route("/v1/images/edits", methods=["POST"])
    def edit_image(self, request: Request) -> Exchange:
        return self.exchange(self.images.edit, body(request), content_type(request))

    @app.route("/v1/images/<name>/content", methods=["GET"])
    def image_content(self, request: Request, name: str) -> Exchange:
        return self.exchange(
            self.images.content, name, query(request).get("variant"), ranges(request)
        )

    @app.route("/v1/videos", methods=["POST"])
    def create_video(self, request: Request) -> Exchange:
        return self.exchange(self.videos.create, body(request), content_type(request))

    @app.route("/v1/videos", methods=["GET"])
    def list_videos(self, request: Request) -> Exchange:
        return self.exchange(self.videos.list, query(request))

    @app.route("/v1/videos/<name>", methods=["GET"])
    def get_video(self, request: Request, name: str) -> Exchange:
        return self.exchange(self.videos.get, name)

    @app.route("/v1/videos/<name>", methods=["DELETE"])
    def delete_video(self, request: Request, name: str) -> Exchange:
        return self.exchange(self.videos.delete, name)

    @app.route("/v1/videos/<name>/content", methods=["GET"])
    def video_content(self, request: Request, name: str) -> Exchange:
        return self.exchange(
            self.videos.content, name, query(request).get("variant"), ranges(request)
        )

    @app.route("/v1/meshes", methods=["POST"])
    def create_mesh(self, request: Request) -> Exchange:
        return self.exchange(self.meshes.create, body(request), content_type(request))

    @app.route("/v1/meshes", methods=["GET"])
    def list_meshes(self, request: Request) -> Exchange:
        return self.exchange(self.meshes.list, query(request))

    @app.route("/v1/meshes/<name>", methods=["GET"])
    def get_mesh(self, request: Request, name: str) -> Exchange:
        return self.exchange(self.meshes.get, name)

    @app.route("/v1/meshes/<name>", methods=["DELETE"])
    def delete_mesh(self, request: Request, name: str) -> Exchange:
        return self.exchange(self.meshes.delete, name)

    @app.route("/v1/meshes/<name>/content", methods=["GET"])
    def mesh_content(self, request: Request, name: str) -> Exchange:
        return self.exchange(self.meshes.content, name, ranges(request))

    @app.route("/rollout/generate", methods=["POST"])
    def roll_out(self, request: Request) -> Exchange:
        return self.exchange(self.rollout.generate, body(request), content_type(request))

    @app.route("/vertex_generate", methods=["POST"])
    def predict(self, request: Request) -> Exchange:
        return self.exchange(self.vertex.generate, body(request), content_type(request))

    @app.route("/v1/set_lora", methods=["POST"])
    def set_lora(self, request: Request) -> Exchange:
        return self.exchange(self.control.set_lora, body(request), content_type(request))

    @app.route("/v1/merge_lora_weights", methods=["POST"])
    def merge_lora(self, request: Request) -> Exchange:
        return self.exchange(self.control.merge_lora, body(request), content_type(request))

    @app.route("/v1/unmerge_lora_weights", methods=["POST"])
    def unmerge_lora(self, request: Request) -> Exchange:
        return self.exchange(self.control.unmerge_lora, body(request), content_type(request))

    @app.route("/v1/list_loras", methods=["GET"])
    def list_loras(self, request: Request) -> Exchange:
        return self.exchange(self.control.list_loras)

    @app.route("/update_weights_from_disk", methods=["POST"])
    def update_from_disk(self, request: Request) -> Exchange:
        return self.exchange(self.control.update_from_disk, body(request))

    @app.route("/update_weights_from_tensor", methods=["POST"])
    def update_from_tensor(self, request: Request) -> Exchange:
        return self.exchange(self.control.update_from_tensor, body(request))

    @app.route("/update_weights_from_tensor_checker", methods=["POST"])
    def check_tensor(self, request: Request) -> Exchange:
        return self.exchange(self.control.check_tensor, body(request))

    @app.route("/get_weights_checksum", methods=["POST"])
    def checksum(self, request: Request) -> Exchange:
        return self.exchange(self.control.checksum, body(request))

    @app.route("/release_memory_occupation", methods=["POST"])
    def release_memory(self, request: Request) -> Exchange:
        return self.exchange(self.control.release_memory)

    @app.route("/resume_memory_occupation", methods=["POST"])
    def resume_memory(self, request: Request) -> Exchange:
        return self.exchange(self.control.resume_memory)

    @app.route("/simulator/faults", methods=["GET"])
    def faults(self, request: Request) -> Exchange:
        return self.exchange(self.backstage.faults)

    @app.route("/simulator/faults", methods=["POST"])
    def set_faults(self, request: Request) -> Exchange:
        return self.exchange(self.backstage.set_faults, body(request))

    @app.route("/simulator/faults", methods=["DELETE"])
    def clear_faults(self, request: Request) -> Exchange:
        return self.exchange(self.backstage.clear_faults)

    @app.route("/simulator/log", methods=["GET"])
    def log(self, request: Request) -> Exchange:
        return self.exchange(self.backstage.log, query(request))

    @app.route("/simulator/log", methods=["DELETE"])
    def clear_log(self, request: Request) -> Exchange:
        return self.exchange(self.backstage.clear_log)

    @app.route("/simulator/bytes", methods=["GET"])
    def bytes_of_any_size(self, request: Request) -> Exchange:
        return self.exchange(self.backstage.sized, query(request))

    @app.route("/simulator/echo", methods=["POST"])
    def echo(self, request: Request) -> Exchange:
        return self.exchange(self.backstage.echo, request.content, headers_of(request))


class Root(Resource):
    """
    Klein's routes, behind a check that Klein does not make quietly: paths must be UTF-8.
    """

    isLeaf = True

    def __init__(self, routes: Routes) -> None:
        super().__init__()
        self._routes = routes
        self._klein = routes.app.resource()

    def render(self, request: Request) -> Any:
        try:
            unquote_to_bytes(request.path).decode()
        except UnicodeDecodeError:
            return self._routes.exchange(not_found).render(request)
        return self._klein.render(request)


def _first_allowed(methods: Iterable[str]) -> str:
    """
    The method of the first route declared for a path: the only one that FastAPI names.
    """
    return next(method for method in DECLARED_FIRST if method in methods)


def _without_slash(request: Request) -> str:
    """
    The absolute URL of *request* without its trailing slash, on the host that its client named.
    """
    target, mark, rest = request.uri.decode("latin-1").partition("?")
    host = header(request, "host") or "127.0.0.1"
    return f"http://{host}{target.rstrip('/')}{mark}{rest}"
