"""
The log of a router process, from its start to its end.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands import alive, fetch, free_port, once_up, ran, running
from tests.integration.test_commands import SCRIPT, TWIST, TWISTD

_REQUEST = "sgl_droute.request"


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of requests in a log in JSON, which has nothing but JSON."""
    told = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in told if line["logger"] == _REQUEST]


def raw(port: int, data: bytes) -> None:
    """Send *data*, and read all that comes."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


@pytest.mark.parametrize("command", [TWISTD, TWIST, SCRIPT])
def test_json(tmp_path: Path, command: tuple[str, ...]) -> None:
    """
    In JSON all lines are JSON, and each request has one, the refused ones too; a stop loses none.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    words = ("--port", str(port), "--log-format", "json")
    with running(*command, *words, cwd=tmp_path):
        once_up(f"{url}/liveness")
        fetch(f"{url}/workers")
        raw(port, b"GET http://user:s3cret@host/x HTTP/1.1\r\nHost: x y\r\n\r\n")
        for n in range(50):
            raw(
                port,
                b"GET /workers?key=s3cret HTTP/1.1\r\nHost: x\r\nX-Request-Id: r%d\r\n\r\n" % n,
            )
    lines = lines_of(tmp_path / "log")
    assert [line["code"] for line in lines] == ["done", "bad_request"] + ["done"] * 50
    assert [line["id"] for line in lines[2:]] == [f"r{n}" for n in range(50)]
    assert {line.get("path") for line in lines[2:]} == {"/workers"}
    assert "s3cret" not in (tmp_path / "log").read_text()


def test_nobody_else_writes_lines(tmp_path: Path) -> None:
    """
    What clients send makes one line of text per request, whatever it holds.
    """
    port = free_port()
    with running(*TWISTD, "--port", str(port), cwd=tmp_path):
        once_up(f"http://127.0.0.1:{port}/liveness")
        for sent in (b"a\x0bb", b"a\xc2\x85b", b'a" code=done', b"a\xe2\x80\xa8b"):
            raw(port, b"GET /workers HTTP/1.1\r\nHost: x\r\nX-Request-Id: %b\r\n\r\n" % sent)
    text = (tmp_path / "log").read_text()
    assert len([line for line in text.splitlines() if f"[{_REQUEST}#" in line]) == 4
    assert all(line.startswith("20") for line in text.splitlines())


def test_in_the_background(tmp_path: Path) -> None:
    """
    In the background the log is in its file, which SIGUSR1 turns over.
    """
    port, file = free_port(), tmp_path / "router.log"
    words = ("--logfile", str(file), "--pidfile", "pid", "sglang-d-router", "--port", str(port))
    started = ran("twistd", *words, "--log-format", "json", cwd=tmp_path)
    assert started.returncode == 0, started.stderr
    pid = int((tmp_path / "pid").read_text())
    try:
        once_up(f"http://127.0.0.1:{port}/liveness")
        fetch(f"http://127.0.0.1:{port}/workers")
        _until(lambda: len(lines_of(file)) == 1)
        os.kill(pid, signal.SIGUSR1)
        _until(lambda: (tmp_path / "router.log.1").exists())
        fetch(f"http://127.0.0.1:{port}/queue")
    finally:
        os.kill(pid, signal.SIGTERM)
        _until(lambda: not alive(pid))
    assert [line["path"] for line in lines_of(tmp_path / "router.log.1")] == ["/workers"]
    assert [line["path"] for line in lines_of(file)] == ["/queue"]


def _until(there: Any) -> None:
    for _ in range(1000):
        if there():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about within 20 s")
