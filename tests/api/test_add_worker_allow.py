"""
``--add-worker-allow``: which workers may be registered.
"""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from tests.memory import MemoryRouter


@pytest.mark.parametrize("path", ["/add_worker", "/workers"])
def test_registering(path: str) -> None:
    """
    An address inside is registered, one outside is refused with 403, in every spelling, and changes
    nothing.
    """
    router = MemoryRouter(add_worker_allow=("10.0.0.0/8", "fd00::/8"))
    for url in ("http://10.1.2.3:1", "http://[fd12::1]:1", "http://[::ffff:10.1.2.4]:1"):
        assert router.ask("POST", path, json={"url": url}).status == 200, url
    before = router.ask("GET", "/list_workers").json
    assert before == {"urls": ["http://10.1.2.3:1", "http://[fd12::1]:1", "http://10.1.2.4:1"]}
    for url in (
        "http://11.1.2.3:1",
        "http://0x7f000001:1",
        "http://[::1]:1",
        "http://[::ffff:11.1.2.3]:1",
        "http://[::ffff:7f00:1]:1",
    ):
        refused = router.ask("POST", path, json={"url": url})
        assert (refused.status, refused.json["reason"]) == (403, "forbidden"), url
        assert "--add-worker-allow" in refused.json["error"]
    assert router.ask("GET", "/list_workers").json == before


def test_blocked_addresses_stay_blocked() -> None:
    """
    A network that holds a metadata service does not open it.
    """
    router = MemoryRouter(add_worker_allow=("0.0.0.0/0",))
    refused = router.ask("POST", "/add_worker?url=http://169.254.169.254")
    assert refused.status == 400
    assert "blocked" in refused.json["error"]


def test_what_the_operator_names() -> None:
    """
    Workers that the options name may be anywhere, and may be registered again.
    """
    router = MemoryRouter("a", add_worker_allow=("10.0.0.0/8",))
    assert router.ask("POST", "/add_worker?url=http://a:1").status == 200
    assert router.ask("GET", "/workers").json["workers"][0]["url"] == "http://a:1"


@pytest.mark.parametrize("options", [{}, {"add_worker_allow": ()}])
def test_without_the_option(options: dict[str, Any]) -> None:
    """
    Without networks any address may be registered.
    """
    router = MemoryRouter(**options)
    assert router.ask("POST", "/add_worker?url=http://127.0.0.1:1").status == 200


def test_other_networks_from_now_on() -> None:
    """
    The option follows the configuration without a restart.
    """
    router = MemoryRouter(add_worker_allow=("10.0.0.0/8",))
    following = router.service.following
    following.adopt(evolve(following.settings, add_worker_allow=("192.0.2.0/24",)))
    assert router.ask("POST", "/add_worker?url=http://10.0.0.1:1").status == 403
    assert router.ask("POST", "/add_worker?url=http://192.0.2.1:1").status == 200
