"""
What large answers cost the router's memory.
"""

from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path

from sgl_droute.simulator.backstage import pattern
from tests.integration.commands import free_port, memory_of, once_up, running

SIZE = 1 << 30
ROUTER = ("twistd", "-n", "--pidfile=", "sglang-d-router")
SIMULATOR = ("twistd", "-n", "--pidfile=", "sglang-d-simulator")


def test_a_gigabyte_to_a_slow_reader(tmp_path: Path) -> None:
    """
    While a client takes 1 GB, slowly at first, the router's memory stays where it was, and every
    byte arrives.
    """
    worker, router = free_port(), free_port()
    (tmp_path / "worker").mkdir()
    simulator = (*SIMULATOR, "--port", str(worker))
    words = (*ROUTER, "--port", str(router), "--worker-urls", f"http://127.0.0.1:{worker}")
    with running(*simulator, cwd=tmp_path / "worker"), running(*words, cwd=tmp_path) as process:
        once_up(f"http://127.0.0.1:{worker}/health")
        once_up(f"http://127.0.0.1:{router}/v1/models")
        before = most = memory_of(process.pid)
        with socket.create_connection(("127.0.0.1", router)) as client:
            target = b"/simulator/bytes?size=%d" % SIZE
            client.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            received = client.recv(1 << 16)
            head, _, body = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            arrived, digest, steps = len(body), hashlib.sha256(body), 0
            while part := client.recv(1 << 20):
                arrived += len(part)
                digest.update(part)
                steps += 1
                if steps < 20:
                    time.sleep(0.05)
                if steps % 50 == 0:
                    most = max(most, memory_of(process.pid))
        assert arrived == SIZE
        assert digest.hexdigest() == _expected(SIZE)
        assert most - before < 20 << 20, f"{(most - before) >> 20} MiB more"


def _expected(size: int) -> str:
    digest = hashlib.sha256()
    for part in pattern(size, 1 << 20):
        digest.update(part)
    return digest.hexdigest()
