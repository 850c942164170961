"""
Whose requests may name files on workers: what of it stands in the way of a request.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgpack  # type: ignore[import-untyped]
import pytest
from attrs import evolve
from twisted.internet.interfaces import IDelayedCall

from sgl_droute.simulator.settings import SimulatorSettings
from tests.keys import bearing, key_file
from tests.memory import Client, MemoryRouter, Reply

WISH = {"prompt": "a fox", "size": "64x64", "num_frames": 5}
PATHS = (
    "/generate",
    "/generate_video",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
    "/v1/meshes",
    "/rollout/generate",
    "/v1/diffusion/generate",
    "/vertex_generate",
    "/v1/actions/generate",
    "/v1/realtime_video/generate",
)


def part(name: str, value: bytes, file: str = "") -> bytes:
    shown = f'; filename="{file}"' if file else ""
    head = f'Content-Disposition: form-data; name="{name}"{shown}'
    return b"--bound\r\n%b\r\n\r\n%b\r\n" % (head.encode(), value)


def form(*parts: bytes) -> tuple[str, bytes]:
    return "multipart/form-data; boundary=bound", b"".join(parts) + b"--bound--\r\n"


def jsoned(**fields: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps({**WISH, **fields}).encode()


PLAIN = part("prompt", b"x")
# Which field is found, and in what: type and body of a request.
NAMED: dict[str, tuple[str, tuple[str, bytes]]] = {
    "json": ("output_path", jsoned(output_path="/tmp")),
    "input": ("input_reference", jsoned(input_reference="/etc/passwd.png")),
    "perf": ("perf_dump_path", jsoned(perf_dump_path="/tmp/x.json")),
    "model": ("upscaling_model_path", jsoned(upscaling_model_path="owner/repo")),
    "lora": ("lora_path", jsoned(lora_path="/srv/a.safetensors")),
    "loras": ("path", jsoned(loras=[{"path": "owner/repo", "scale": 1}])),
    "nested": ("output_path", jsoned(extra_body={"extra_params": {"output_path": "x"}})),
    "in text": ("output_path", jsoned(extra_body=json.dumps({"output_path": "x"}))),
    "instances": ("image_url", jsoned(instances=[{"image_url": "file:///a.png"}])),
    "no type": ("output_path", ("text/plain", jsoned(output_path="/tmp")[1])),
    "multipart": ("output_path", form(PLAIN, part("output_path", b"/tmp"))),
    "file name": ("filename", form(PLAIN, part("image", b"png", "../a.png"))),
    "form": (
        "output_path",
        ("application/x-www-form-urlencoded", urlencode({"output_path": "/tmp"}).encode()),
    ),
    "msgpack": (
        "image_path",
        ("application/msgpack", msgpack.packb({"input": {"image_path": "/a.png"}})),
    ),
    "large": ("output_path", jsoned(x="y" * 300_000, output_path="/tmp")),
}


def locked(tmp_path: Path, *lines: str, **options: Any) -> MemoryRouter:
    """
    A router with one worker, with keys for generations as *lines* say, and one for the fleet.
    """
    made = MemoryRouter(
        "w",
        simulator=SimulatorSettings(model="cosmos3", speed=50.0),
        api_keys=key_file(tmp_path / "api", *(lines or ("web", "trusted files=yes"))),
        admin_keys=key_file(tmp_path / "admin", "root"),
        **options,
    )
    made.service.startService()
    made.settle()
    return made


def sent(router: MemoryRouter, path: str, request: tuple[str, bytes], key: str) -> Reply:
    kind, body = request
    client = router.begin("POST", path, data=body, headers={**bearing(key), "Content-Type": kind})
    if client.reply is None:
        router.wait(60.0)
    assert client.reply is not None, client.failure
    return client.reply


def asked(router: MemoryRouter) -> list[str]:
    """Targets of what a client had the worker do."""
    received = router.workers["w"].journal.received
    return [each.target for each in received if each.method == "POST"]


@pytest.mark.parametrize(("field", "request_sent"), NAMED.values(), ids=NAMED.keys())
def test_a_request_that_names_a_file(
    field: str, request_sent: tuple[str, bytes], tmp_path: Path
) -> None:
    """
    A key for generations gets 403 that names the field and the key; no worker sees the request, and
    it never was in line. With ``files=yes``, and with a key for the fleet, it goes to a worker.
    """
    router = locked(tmp_path)
    refused = sent(router, "/v1/videos", request_sent, "web")
    assert (refused.status, refused.json["reason"]) == (403, "forbidden")
    assert refused.json["field"] == field
    assert f"{field} names a file on a worker, which key web may not" in refused.json["error"]
    assert not refused.headers.hasHeader("X-Router-Job")
    assert asked(router) == []
    for key in ("trusted", "root"):
        assert sent(router, "/v1/videos", request_sent, key).status != 403
    assert asked(router) == ["/v1/videos", "/v1/videos"]


@pytest.mark.parametrize("path", PATHS)
def test_every_way_to_generate(path: str, tmp_path: Path) -> None:
    """
    Each route for generations refuses such a request, whether a worker could serve it or not.
    """
    router = locked(tmp_path)
    refused = sent(router, path, jsoned(output_path="/tmp"), "web")
    assert (refused.status, refused.json.get("field")) == (403, "output_path")
    assert asked(router) == []


def test_requests_that_name_none(tmp_path: Path) -> None:
    """
    Requests as most are go to a worker as they came.
    """
    router = locked(tmp_path)
    for request in (
        jsoned(),
        jsoned(reference_url="https://example.com/a.png", output_path=""),
        form(PLAIN, part("size", b"64x64"), part("num_frames", b"5")),
    ):
        answer = sent(router, "/v1/videos", request, "web")
        assert answer.status == 200, answer.body
    received = router.workers["w"].journal.received
    assert [each.target for each in received if each.method == "POST"] == ["/v1/videos"] * 3


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """
    A body that the router cannot search is refused with 400, and not passed on.
    """
    router = locked(tmp_path)
    for body in (b"[1]", b'{"a": "b', json.dumps({"output_path": "x"}).encode("utf-16")):
        refused = sent(router, "/v1/videos", ("application/json", body), "web")
        assert (refused.status, refused.json["reason"]) == (400, "bad_request")
        assert "as its key asks for" in refused.json["error"]
    assert asked(router) == []


def test_the_option(tmp_path: Path) -> None:
    """
    ``--allow-file-fields`` lets every key name files, and follows the configuration.
    """
    router = locked(tmp_path, allow_file_fields=True)
    assert sent(router, "/v1/videos", jsoned(output_path="/tmp"), "web").status == 200
    following = router.service.following
    following.adopt(evolve(following.settings, allow_file_fields=False))
    assert sent(router, "/v1/videos", jsoned(output_path="/tmp"), "web").status == 403


@pytest.mark.parametrize("admin", [False, True])
def test_without_keys_for_generations(admin: bool, tmp_path: Path) -> None:
    """
    Where generations need no key, whoever may generate may name files.
    """
    options: dict[str, Any] = {"admin_keys": key_file(tmp_path / "admin", "root")} if admin else {}
    router = MemoryRouter("w", simulator=SimulatorSettings(model="cosmos3", speed=50.0), **options)
    router.service.startService()
    router.settle()
    assert sent(router, "/v1/videos", jsoned(output_path="/tmp"), "").status == 200


def at_turn(router: MemoryRouter, number: int, do: Callable[[], object]) -> list[int]:
    """
    Have *do* called at the turn of the reactor of that number; the turns so far, which are added
    to.
    """
    turns: list[int] = []
    later = router.clock.callLater

    def call_later(
        delay: float,
        callable: Callable[..., object],  # noqa: A002
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        if delay == 0:
            turns.append(len(turns))
            if len(turns) == number:
                later(0, do)
        return later(delay, callable, *args, **kw)

    router.clock.callLater = call_later  # type: ignore[method-assign]
    return turns


LARGE = json.dumps({**WISH, "x": ["y" * 10] * 200_000}).encode()


def test_a_large_body_is_searched_in_steps(tmp_path: Path) -> None:
    """
    While a large body is searched the router goes on: others are answered meanwhile.
    """
    router = locked(tmp_path)
    others: list[Any] = []
    turns = at_turn(router, 10, lambda: others.append(router.begin("GET", "/liveness")))
    refused = sent(router, "/v1/videos", ("text/plain", LARGE[:-1] + b', "a_path": "b"}'), "web")
    assert (refused.status, refused.json["field"]) == (403, "a_path")
    assert len(turns) > 15
    [other] = others
    assert other.reply.status == 200


def test_a_client_that_leaves_while_its_body_is_searched(tmp_path: Path) -> None:
    """
    The search ends, nothing goes to a worker, and its key has nothing under way any more.
    """
    router = locked(tmp_path, "web in_flight=1", "trusted files=yes")
    clients: list[Client] = []

    def leave() -> None:
        clients[0].hang_up()
        router._front.flush()

    turns = at_turn(router, 10, leave)
    settle, router.settle = router.settle, lambda: None  # type: ignore[method-assign]
    headers = {**bearing("web"), "Content-Type": "application/json"}
    clients.append(router.begin("POST", "/v1/videos", data=LARGE, headers=headers))
    router.settle = settle  # type: ignore[method-assign]
    settle()
    assert 10 <= len(turns) < 15
    assert clients[0].reply is None
    assert asked(router) == []
    assert sent(router, "/v1/videos", jsoned(), "web").status == 200
