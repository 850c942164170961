"""
Keys over real sockets: large bodies that are not read for nothing, and a process that reads its
configuration and its keys again.
"""

from __future__ import annotations

import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted

from tests.api.test_keyfiles import entry
from tests.integration.answers import parse_answers
from tests.integration.commands import fetch, free_port, once_up, running
from tests.integration.sockets import OK, PATIENCE, connect, running_router, scripted_worker
from tests.integration.test_commands import SCRIPT, TWIST, TWISTD

KEY = "sk-user"
LENGTH = b"Content-Length: 100000000\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n"


def head(*lines: bytes) -> bytes:
    return b"POST /v1/images/edits HTTP/1.1\r\nHost: router\r\n" + b"".join(lines) + b"\r\n"


@pytest.mark.parametrize("how", [LENGTH, CHUNKS], ids=["length", "chunks"])
@pytest.mark.parametrize("key", [b"", b"X-Api-Key: sk-unknown\r\n"], ids=["none", "unknown"])
@pytest_twisted.ensureDeferred
async def test_a_large_body_is_not_read_for_nothing(how: bytes, key: bytes, tmp_path: Path) -> None:
    """
    Without a key that is known, a large body, or one of unknown length, is refused when the head
    is there, and the connection is closed behind the answer.
    """
    (tmp_path / "api").write_text(entry("web", KEY))
    async with (
        scripted_worker() as worker,
        running_router(worker.url, api_keys=str(tmp_path / "api")) as router,
    ):
        client = await connect(router.port)
        client.write(head(how, key))
        await client.until_received(b'"reason":"unauthorized"')
        [answer], rest = parse_answers(client.received)
        assert answer.status == 401
        assert rest == b""
        client.transport.loseWriteConnection()
        await client.until_closed()
        assert not any(b"/v1/images" in each.received for each in worker.connections)


@pytest_twisted.ensureDeferred
async def test_a_large_body_with_a_key_gets_through(tmp_path: Path) -> None:
    """
    With a key that is known it is read and passed on, without the key.
    """
    (tmp_path / "api").write_text(entry("web", KEY))
    form = (
        b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n'
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        + b"p" * 200_000
        + b"\r\n--b--\r\n"
    )
    async with (
        scripted_worker() as worker,
        running_router(worker.url, api_keys=str(tmp_path / "api")) as router,
    ):
        client = await connect(router.port)
        lines = b"Content-Length: %d\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        client.write(head(lines % len(form), b"X-Api-Key: sk-user\r\n") + form)
        there = await worker.connection(1, b"\r\n--b--\r\n")
        assert b"sk-user" not in there.received
        there.write(OK)
        await client.until_received(b"\r\n\r\nok")


def eventually(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("command", [SCRIPT, TWISTD, TWIST], ids=lambda words: words[0])
def test_a_process_reads_its_file_again(command: tuple[str, ...], tmp_path: Path) -> None:
    """
    SIGHUP has the file read again, a broken one changes nothing, and the process goes on.
    """
    port, file = free_port(), tmp_path / "router.toml"
    text = f"port = {port}\nhost = '127.0.0.1'\nqueue-size = 5\n"
    file.write_text(text)
    url = f"http://127.0.0.1:{port}"

    def size() -> int:
        value: int = fetch(f"{url}/config")["options"]["queue-size"]["value"]
        return value

    with running(*command, "--config", str(file), cwd=tmp_path) as process:
        once_up(f"{url}/liveness")
        assert size() == 5
        file.write_text(text.replace("5\n", "6\n"))
        process.send_signal(signal.SIGHUP)
        eventually(lambda: size() == 6)
        file.write_text("queue-sise = 7")
        process.send_signal(signal.SIGHUP)
        told = "line 1: there is no option queue-sise; did you mean queue-size?"
        eventually(lambda: told in (tmp_path / "log").read_text())
        assert size() == 6
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{url}/reload", method="POST"))
        with refused.value as answer:
            assert answer.code == 400
            assert told in answer.read().decode()


def test_whom_a_warning_is_for(tmp_path: Path) -> None:
    """
    A router without keys says at its start that anybody may use it, if anybody can reach it.
    """
    for host, warned in (("0.0.0.0", True), ("127.0.0.1", False)):
        port = free_port()
        with running(*SCRIPT, "--host", host, "--port", str(port), cwd=tmp_path):
            once_up(f"http://127.0.0.1:{port}/liveness")
        told = "without --api-keys and --admin-keys: whoever reaches it may generate and manage"
        assert (told in (tmp_path / "log").read_text()) is warned


@pytest_twisted.ensureDeferred
async def test_uploads_count(tmp_path: Path) -> None:
    """
    A key has no more large bodies on their way than requests at once: one more is refused when its
    head is there, and there is room again when the client of one has left.
    """
    (tmp_path / "api").write_text(entry("web", KEY).strip() + " in_flight=1")
    key = b"X-Api-Key: sk-user\r\n"
    kind = b"Content-Type: multipart/form-data; boundary=b\r\n"
    form = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        + b"p" * 100_000
        + b"\r\n--b--\r\n"
    )
    sized = b"Content-Length: %d\r\n" % len(form)
    async with (
        scripted_worker() as worker,
        running_router(worker.url, api_keys=str(tmp_path / "api")) as router,
    ):
        first = await connect(router.port)
        first.write(head(LENGTH, key, kind, b"Expect: 100-continue\r\n"))
        await first.until_received(b"100 Continue")
        refused = await connect(router.port)
        refused.write(head(LENGTH, key, kind))
        await refused.until_received(b'"reason":"too_many_in_flight"')
        first.transport.abortConnection()
        await first.until_closed()
        client = await connect(router.port)
        client.write(head(sized, key, kind) + form)
        there = await worker.connection(1, b"\r\n--b--\r\n")
        there.write(OK)
        await client.until_received(b"\r\n\r\nok")
