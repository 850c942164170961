"""
Pages of other origins: what browsers are told of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from sgl_droute.settings import parse_origins
from sgl_droute.simulator.settings import SimulatorSettings
from tests.keys import bearing, key_file
from tests.memory import MemoryRouter, Reply

STUDIO = "https://studio.example.com"
OTHER = "https://evil.example.com"
EXPOSED = (
    "Content-Range, ETag, Retry-After, Server-Timing, X-Request-Id, X-Router-Job, X-Router-Why,"
    " X-Router-Worker, X-Weights-Epoch, X-Workers-Missing"
)
# Answers of the router, of a worker, of a worker in the end, and an error: method, path, options.
ANSWERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "router": ("GET", "/health", {}),
    "list": ("GET", "/v1/models", {}),
    "worker": ("POST", "/v1/videos", {"json": {"prompt": "x", "size": "64x64", "num_frames": 5}}),
    "worker's error": ("POST", "/v1/videos", {"json": {}}),
    "anything": ("GET", "/server_info", {}),
    "error": ("GET", "/v1/videos/none", {}),
    "wrong method": ("GET", "/generate", {}),
}


def started(**options: Any) -> MemoryRouter:
    router = MemoryRouter("w", simulator=SimulatorSettings(model="cosmos3", speed=50.0), **options)
    router.service.startService()
    router.settle()
    return router


def told(answer: Reply) -> dict[str, list[str]]:
    """
    What *answer* says to a browser about other origins; ``Vary`` as a set of words.
    """
    headers = {name.decode().lower(): values for name, values in answer.headers.getAllRawHeaders()}
    return {
        name: [value.decode() for value in values]
        for name, values in headers.items()
        if name.startswith("access-control-") or name == "vary"
    }


def asked(router: MemoryRouter, kind: str, origin: str | None) -> Reply:
    method, path, options = ANSWERS[kind]
    headers = {} if origin is None else {"Origin": origin}
    return router.ask(method, path, headers=headers, **options)


@pytest.mark.parametrize("kind", ANSWERS)
def test_off(kind: str) -> None:
    """
    Without the option no answer allows a page anything: a worker's own permission, for everybody
    and with credentials, does not get through.
    """
    router = started()
    allowed = {name for name in told(asked(router, kind, STUDIO)) if name != "vary"}
    assert allowed == set()
    worker = router.workers["w"].journal.received
    if kind == "worker":
        assert ("Origin", STUDIO) in [
            (name.title(), value) for name, value in dict(worker[-1].headers).items()
        ]


@pytest.mark.parametrize("kind", ANSWERS)
def test_listed(kind: str) -> None:
    """
    Pages of a listed origin may read every answer, errors too, and some headers besides; others may
    not. What is kept of an answer is for that origin only.
    """
    router = started(cors_origins=(STUDIO, "http://localhost:5173"))
    assert told(asked(router, kind, STUDIO)) == {
        "access-control-allow-origin": [STUDIO],
        "access-control-expose-headers": [EXPOSED],
        "vary": ["Origin"],
    }
    for other in (OTHER, "null", f"{STUDIO}.evil.com", "http://studio.example.com", None):
        assert told(asked(router, kind, other)) == {"vary": ["Origin"]}, other


@pytest.mark.parametrize("kind", ANSWERS)
def test_any(kind: str) -> None:
    """
    With ``*`` pages of all origins may read, never with credentials.
    """
    router = started(cors_origins=("*",))
    for origin in (STUDIO, OTHER, "null", None):
        answer = told(asked(router, kind, origin))
        answer.pop("vary", None)  # of a worker, to which it is no matter
        assert answer == {
            "access-control-allow-origin": ["*"],
            "access-control-expose-headers": [EXPOSED],
        }


def preflight(router: MemoryRouter, path: str, origin: str, method: str = "POST") -> Reply:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return router.ask("OPTIONS", path, headers=headers)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/images/generations", "OPTIONS, POST"),
        ("/v1/videos/some-id", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/videos", "GET, HEAD, OPTIONS, POST"),
        ("/some/path", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
    ],
)
@pytest.mark.parametrize("origins", [(STUDIO,), ("*",)])
def test_preflights(path: str, methods: str, origins: tuple[str, ...]) -> None:
    """
    The router itself answers a browser's question before a request: with the methods of the path
    and the headers that it asks for, keys among them. No worker sees it.
    """
    router = started(cors_origins=origins)
    before = len(router.workers["w"].journal.received)
    answer = preflight(router, path, STUDIO)
    assert answer.status == 204
    asked_for = told(answer)
    assert asked_for["access-control-allow-origin"] == list(origins)
    assert asked_for["access-control-allow-methods"] == [methods]
    assert asked_for["access-control-allow-headers"] == ["authorization,content-type"]
    assert asked_for["access-control-max-age"] == ["7200"]
    assert "access-control-allow-credentials" not in asked_for
    assert asked_for.get("vary", []) == ([] if origins == ("*",) else ["Origin"])
    assert len(router.workers["w"].journal.received) == before


@pytest.mark.parametrize("origins", [(), (STUDIO,)])
def test_preflights_of_others(origins: tuple[str, ...]) -> None:
    """
    They are answered, and allow nothing.
    """
    router = started(cors_origins=origins)
    answer = preflight(router, "/v1/videos", OTHER)
    assert answer.status == 204
    assert {name for name in told(answer) if name != "vary"} == set()


def test_with_keys(tmp_path: Path) -> None:
    """
    A browser's question needs no key, which it never has; the request behind it does, and a page
    may read why it was refused.
    """
    router = started(
        cors_origins=(STUDIO,),
        api_keys=key_file(tmp_path / "api", "web rate=1/m burst=1"),
        admin_keys=key_file(tmp_path / "admin", "root"),
    )
    for path in ("/v1/videos", "/workers", "/some/path"):
        for _ in range(3):
            assert preflight(router, path, STUDIO).status == 204
    page = {"Origin": STUDIO}
    refused = router.ask("GET", "/v1/models", headers=page)
    assert refused.status == 401
    assert told(refused)["access-control-allow-origin"] == [STUDIO]
    answer = router.ask("GET", "/v1/models", headers={**page, **bearing("web")})
    assert answer.status == 200
    assert told(answer)["access-control-allow-origin"] == [STUDIO]
    limited = router.ask("GET", "/v1/models", headers={**page, **bearing("web")})
    assert limited.status == 429
    assert told(limited)["access-control-allow-origin"] == [STUDIO]


def test_pages_do_not_manage_the_fleet() -> None:
    """
    A page of another site, listed or not, does not get to routes for the fleet from a browser.
    """
    router = started(cors_origins=(STUDIO, "*"))
    headers = {"Origin": STUDIO, "Sec-Fetch-Site": "cross-site"}
    refused = router.ask("POST", "/add_worker?url=http://10.0.0.1:1", headers=headers)
    assert refused.status == 403
    assert router.ask("GET", "/v1/models", headers=headers).status == 200


def test_other_origins_from_now_on() -> None:
    """
    The option follows the configuration without a restart.
    """
    router = started(cors_origins=(STUDIO,))
    following = router.service.following
    following.adopt(evolve(following.settings, cors_origins=(OTHER,)))
    assert told(asked(router, "router", OTHER))["access-control-allow-origin"] == [OTHER]
    assert told(asked(router, "router", STUDIO)) == {"vary": ["Origin"]}


def test_spellings() -> None:
    """
    Browsers write origins in lower case and without a path.
    """
    assert parse_origins("https://Studio.Example.com, *") == ("https://studio.example.com", "*")
    for wrong in ("studio.example.com", "https://a/", "https://a/path", "ftp://a", "https://"):
        with pytest.raises(ValueError, match="not an origin"):
            parse_origins(wrong)
