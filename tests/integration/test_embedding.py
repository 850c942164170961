"""
The router inside other Twisted programs.
"""

from __future__ import annotations

import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import pytest_twisted
from PIL import Image
from twisted.application.service import MultiService
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Site

from sgl_droute import RouterRequest, RouterService, RouterSettings
from tests.integration.commands import fetch, free_port, once_up, running
from tests.integration.sockets import connect, reactor, scripted_worker

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def test_the_example_in_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The documented application serves its own page, and the whole router below a path: health, an
    image made by a worker, and links that lead back through that path.
    """
    worker, port = free_port(), free_port()
    (tmp_path / "worker").mkdir()
    simulator = ("twistd", "-n", "--pidfile=", "sglang-d-simulator", "--speed", "1000")
    example = ("twistd", "-n", "--pidfile=", "-y", str(EXAMPLES / "embedded.tac"))
    monkeypatch.setenv("WORKER_URLS", f"http://127.0.0.1:{worker}")
    monkeypatch.setenv("LISTEN", f"tcp:{port}:interface=127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    with running(*simulator, "--port", str(worker), cwd=tmp_path / "worker"):
        once_up(f"http://127.0.0.1:{worker}/health")
        with running(*example, cwd=tmp_path):
            healthy = once_up(f"{url}/diffusion/health")
            assert healthy["status"] == "healthy"
            assert healthy["total_workers"] == healthy["healthy_workers"] == 1
            with urllib.request.urlopen(f"{url}/") as page:
                assert page.read() == b"My own page\n"
            made = fetch(
                f"{url}/diffusion/generate",
                data=b'{"prompt": "a fox", "size": "64x64"}',
            )
            with urllib.request.urlopen(f"{url}/diffusion{made['data'][0]['url']}") as content:
                assert Image.open(BytesIO(content.read())).size == (64, 64)
            # The mount itself is the workers' root, with and without a slash.
            for root in ("/diffusion", "/diffusion?x=1", "/diffusion/"):
                with pytest.raises(HTTPError, match="404") as missing:
                    fetch(f"{url}{root}")
                assert b"Not Found" in missing.value.read()
                missing.value.close()
            # Followed by the client, this redirect ends at the router again.
            assert fetch(f"{url}/diffusion/v1/models/")["object"] == "list"


@pytest_twisted.ensureDeferred
async def test_as_a_child_of_any_service() -> None:
    """
    A router is started and stopped with the service it was added to, and listens where it is told.
    """
    parent = MultiService()
    port = free_port()
    settings = RouterSettings(listen=[f"tcp:{port}:interface=127.0.0.1"])
    RouterService(reactor, settings).setServiceParent(parent)
    parent.startService()
    client = await connect(port)
    client.write(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.until_received(b'{"status":"ok"}')
    client.transport.loseConnection()
    await client.until_closed()
    await parent.stopService()


async def _mounted(worker_url: str, request_factory: Any) -> tuple[RouterService, Any]:
    settings = RouterSettings(worker_urls=[worker_url], health_check_interval=3600)
    router = RouterService(reactor, settings)
    router.startService()
    root, below = Resource(), Resource()
    root.putChild(b"a", below)
    below.putChild(b"b", router.resource())
    site = Site(root)
    site.noisy = False
    if request_factory is not None:
        site.requestFactory = request_factory
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    return router, await endpoint.listen(site)


async def _mount_test(request_factory: Any) -> None:
    async with scripted_worker() as worker:
        router, port = await _mounted(worker.url, request_factory)
        await worker.connection()
        client = await connect(port.getHost().port)
        body = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n"
        head = (
            b"POST /a/b//v1%2Fimages/edits?a=%20b? HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n"
        )
        client.write(head + b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
        at_worker = await worker.connection(1, b"--x--\r\n")
        assert at_worker.received.startswith(b"POST //v1%2Fimages/edits?a=%20b? HTTP/1.1\r\n")
        assert b"\r\nX-Forwarded-Prefix: /a/b\r\n" in at_worker.received
        assert at_worker.received.endswith(b"\r\n\r\n" + body)
        at_worker.write(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: " + worker.url.encode() + b"/y\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        assert b"\r\nLocation: http://x/a/b/y\r\n" in await client.until_received(b"\r\n\r\n")
        client.transport.loseConnection()
        await client.until_closed()
        await port.stopListening()
        await router.stopService()


@pytest_twisted.ensureDeferred
async def test_below_a_path_of_another_site() -> None:
    """
    Mounted below a path, the router sends on the raw target below it, and bodies as they came.
    """
    await _mount_test(RouterRequest)


@pytest_twisted.ensureDeferred
async def test_on_a_site_with_the_stock_request_class() -> None:
    """
    The router works with the stock request class too.
    """
    await _mount_test(None)
