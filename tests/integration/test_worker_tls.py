"""
Workers over TLS: who is believed to be one, and whom workers believe, on every road to them.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.defer import Deferred
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from sgl_droute.errors import NotConnected, UntrustedWorker
from sgl_droute.workers.tls import WorkerTLS
from tests.integration.certificates import HOST, Authority, key_pem, server_context
from tests.integration.commands import ran
from tests.integration.fleet import ask
from tests.integration.sockets import Router, eventually, running_router, scripted_worker
from tests.integration.websocket_peer import (
    PATIENCE,
    WebSocketWorker,
    websocket_worker,
    with_websocket,
)
from tests.memory import Reply


@asynccontextmanager
async def served(
    context: ssl.SSLContext, **options: Any
) -> AsyncIterator[tuple[Router, WebSocketWorker]]:
    """
    A worker that serves with *context*, and a router with *options* in front of it.
    """
    async with websocket_worker(tls=context) as worker, running_router(**options) as router:
        router.service.pool.add(worker.url)
        yield router, worker


async def on_every_road(router: Router) -> tuple[Reply, Reply, str, Any]:
    """
    What came of a request, of a call to the whole fleet, of a health check and of a WebSocket.
    """
    [worker] = router.service.pool
    await router.service.control.monitor.check_anew(worker)
    [worker] = router.service.pool
    answer = await ask(router.url, "GET", "/some/path")
    called = await ask(router.url, "POST", "/get_weights_checksum")

    def talk(websocket: ClientConnection) -> Any:
        websocket.send("hello")
        return websocket.recv(PATIENCE)

    try:
        talked = await with_websocket(router.port, "/echo", talk)
    except InvalidStatus as refused:
        talked = refused.response
    return answer, called, worker.last_error, talked


async def refused_everywhere(router: Router, sentence: str) -> None:
    """
    Assert that no road leads to the worker, and that each says *sentence*.
    """
    answer, called, last_error, talked = await on_every_road(router)
    assert (answer.status, answer.json["reason"]) == (502, "worker_untrusted")
    [worker] = router.service.pool
    assert answer.json["error"] == f"Worker request failed: {worker.url}: {sentence}"
    [result] = called.json["results"]
    assert sentence in str(result)
    assert sentence in last_error
    assert talked.status_code == 502
    assert sentence in talked.body.decode()


@pytest_twisted.ensureDeferred
async def test_a_worker_that_is_trusted(tmp_path: Path) -> None:
    """
    With ``--worker-ca`` a worker's certificate is checked against that file, on every road.
    """
    authority = Authority(tmp_path)
    context = server_context(authority.issued(HOST))
    async with served(context, worker_ca=str(authority.file)) as (router, worker):
        answer, called, last_error, talked = await on_every_road(router)
        assert answer.status == 200
        assert called.json["results"][0]["status_code"] == 200
        assert last_error == ""
        assert talked == "hello"
        await eventually(lambda: worker.closings == [(1000, "")])
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_a_worker_with_a_certificate_of_its_own(identity: Path) -> None:
    """
    A self-signed certificate is trusted if it is given itself.
    """
    async with served(server_context(identity), worker_ca=str(identity)) as (router, _):
        answer, *_, talked = await on_every_road(router)
        assert answer.status == 200
        assert talked == "hello"


UNTRUSTED: dict[str, tuple[Callable[[Authority], Path], str]] = {
    "another authority": (
        lambda authority: Authority(authority.folder, "other").issued(HOST),
        "its certificate is signed by nobody who is trusted (--worker-ca)",
    ),
    "another host": (
        lambda authority: authority.issued("w1.example.com", "127.0.0.2", "*.0.0.1"),
        "its certificate is not one for 127.0.0.1",
    ),
    "no name at all": (
        lambda authority: authority.nameless(),
        "its certificate is not one for 127.0.0.1",
    ),
    "expired": (lambda authority: authority.expired(HOST), "its certificate has expired"),
    "not valid yet": (lambda authority: authority.early(HOST), "its certificate is not valid yet"),
}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("made", "sentence"), UNTRUSTED.values(), ids=UNTRUSTED.keys())
async def test_a_worker_that_is_not_trusted(
    made: Callable[[Authority], Path], sentence: str, tmp_path: Path
) -> None:
    """
    A certificate that does not prove who the worker is ends every connection to it, with 502 and a
    sentence that names worker and reason; the worker sees no handshake of a WebSocket.
    """
    authority = Authority(tmp_path)
    context = server_context(made(authority))
    async with served(context, worker_ca=str(authority.file)) as (router, worker):
        await refused_everywhere(router, sentence)
        assert worker.handshakes == []


@pytest_twisted.ensureDeferred
async def test_the_systems_authorities_do_not_count_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    ``--worker-ca`` is in the place of the system's authorities, which hold without it.
    """
    system, own = Authority(tmp_path, "system"), Authority(tmp_path, "own")
    monkeypatch.setenv("SSL_CERT_FILE", str(system.file))
    context = server_context(system.issued(HOST))
    async with served(context) as (router, _):
        answer, *_ = await on_every_road(router)
        assert answer.status == 200
    async with served(context, worker_ca=str(own.file)) as (router, _):
        await refused_everywhere(router, UNTRUSTED["another authority"][1])


@pytest_twisted.ensureDeferred
async def test_the_next_worker_is_tried(tmp_path: Path) -> None:
    """
    A worker that is not trusted has seen nothing of a request, so another one gets it.
    """
    authority = Authority(tmp_path)
    good, bad = (server_context(made) for made in (authority.issued(HOST), authority.expired(HOST)))
    async with (
        websocket_worker(tls=good) as worker,
        served(bad, worker_ca=str(authority.file)) as (router, _),
    ):
        router.service.pool.add(worker.url)
        for _ in range(2):
            answer = await ask(router.url, "GET", "/x")
            assert answer.status == 200
            assert answer.headers.getRawHeaders("X-Router-Worker") == [worker.url]


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("between", [False, True])
async def test_a_worker_that_asks_for_a_certificate(
    version: ssl.TLSVersion, between: bool, tmp_path: Path
) -> None:
    """
    It gets the one of ``--worker-certificate``, with those between it and one that it trusts.
    """
    authority, clients = Authority(tmp_path), Authority(tmp_path, "clients")
    issuer = Authority(tmp_path, "between", clients.ca.create_child_ca()) if between else clients
    options = {
        "worker_ca": str(authority.file),
        "worker_certificate": str(issuer.issued("router.example.com")),
    }
    context = server_context(authority.issued(HOST), asks=clients.file, newest=version)
    async with served(context, **options) as (router, _):
        answer, called, last_error, talked = await on_every_road(router)
        assert answer.status == 200
        assert called.json["results"][0]["status_code"] == 200
        assert last_error == ""
        assert talked == "hello"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shown", [False, True])
async def test_a_worker_that_does_not_take_the_certificate(
    version: ssl.TLSVersion, shown: bool, tmp_path: Path
) -> None:
    """
    Without a certificate that it trusts no road leads to it; with TLS 1.2, where that is told
    before anything is sent, the answer says why.
    """
    authority, clients = Authority(tmp_path), Authority(tmp_path, "clients")
    options = {"worker_ca": str(authority.file)}
    if shown:
        options["worker_certificate"] = str(authority.issued("router.example.com"))
    context = server_context(authority.issued(HOST), asks=clients.file, newest=version)
    async with served(context, **options) as (router, worker):
        answer, called, last_error, talked = await on_every_road(router)
        [registered] = router.service.pool
        assert answer.status == 502
        assert answer.json["error"].startswith(f"Worker request failed: {registered.url}: ")
        assert "results" in called.json
        assert last_error != ""
        assert talked.status_code == 502
        assert worker.handshakes == []
        if version is ssl.TLSVersion.TLSv1_2:
            taken = "it does not take the router's certificate (--worker-certificate): "
            sentence = taken if shown else "it may want a certificate (--worker-certificate): "
            assert sentence in answer.json["error"]
            assert answer.json["reason"] == "worker_unreachable"
            assert sentence in last_error
            assert sentence in talked.body.decode()


@pytest_twisted.ensureDeferred
async def test_a_worker_that_speaks_no_tls() -> None:
    """
    An ``https`` URL of a worker that serves ``http`` is told as such.
    """
    async with (
        scripted_worker() as worker,
        running_router(worker.url.replace("http:", "https:")) as router,
    ):
        probe = await worker.connection(0, b"\x16\x03")
        asking = Deferred.fromCoroutine(ask(router.url, "GET", "/x"))
        for connection in (probe, await worker.connection(1, b"\x16\x03")):
            connection.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        answer = await asking
        assert (answer.status, answer.json["reason"]) == (502, "worker_unreachable")
        assert ": TLS: wrong version number" in answer.json["error"]


def broken_files(folder: Path) -> dict[str, tuple[str, Path, str]]:
    """
    Options with files that are no good: option, file, sentence.
    """
    authority = Authority(folder)
    made = authority.ca.issue_cert("router.example.com")
    other = authority.ca.issue_cert("router.example.com")
    own = made.cert_chain_pems[0].bytes()

    def file(name: str, *parts: bytes) -> Path:
        path = folder / name
        path.write_bytes(b"".join(parts))
        return path

    key = load_pem_private_key(made.private_key_pem.bytes(), None)
    certificate = "worker-certificate"
    return {
        "no certificate": ("worker-ca", file("a", b"hello\n"), "there is no certificate in it"),
        "empty": ("worker-ca", file("b"), "there is no certificate in it"),
        "half of one": ("worker-ca", file("c", own[:200]), "there is no certificate in it"),
        "no key": (certificate, file("d", own), "there is no private key in it"),
        "key of another": (
            certificate,
            file("e", own, other.private_key_pem.bytes()),
            "its key is not that of its first certificate",
        ),
        "encrypted key": (
            certificate,
            file("f", own, key_pem(key, b"secret")),
            "its key is encrypted, and nobody is there to ask",
        ),
        "only a key": (
            certificate,
            file("g", made.private_key_pem.bytes()),
            "there is no certificate in it",
        ),
    }


BROKEN = (
    "no certificate",
    "empty",
    "half of one",
    "no key",
    "key of another",
    "encrypted key",
    "only a key",
)


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files(kind: str, tmp_path: Path) -> None:
    """
    What is wrong with a file is told in one line that names the option and the file.
    """
    files = broken_files(tmp_path)
    assert set(files) == set(BROKEN)
    option, path, sentence = files[kind]
    words = {"worker-ca": "ca", "worker-certificate": "certificate"}
    with pytest.raises(ValueError, match=r"^--") as failed:
        WorkerTLS.read(**{words[option]: str(path)})
    assert str(failed.value) == f"--{option}: {path}: {sentence}"


def test_a_broken_file_at_the_start(tmp_path: Path) -> None:
    """
    It ends the start of the router with one line, before it listens.
    """
    (tmp_path / "ca.pem").write_text("hello\n")
    ended = ran("sglang-d-router", "--port", "0", "--worker-ca", "ca.pem", cwd=tmp_path)
    assert ended.returncode != 0
    path = tmp_path / "ca.pem"
    line = f"sglang-d-router: --worker-ca: {path}: there is no certificate in it\n"
    assert ended.stderr == line


def test_hosts_with_an_underscore(tmp_path: Path) -> None:
    """
    A worker whose name is no host name in the strict sense can be connected to over TLS: clusters
    have such names.
    """
    made = WorkerTLS.read(str(Authority(tmp_path).file)).connection_to("gpu_1.local")
    connection = made.clientConnectionForTLS(None)
    assert connection.get_servername() == b"gpu_1.local"
    failed = made.failed("https://gpu_1.local", ValueError("odd."))
    assert isinstance(failed, NotConnected)
    assert not isinstance(failed, UntrustedWorker)
    assert failed.why == "odd"
