"""
A server that stands for the router where only the page is looked at: its files, a stream that a
`MockFleet` plays, and actions that do what they say.

Run it with ``python -m tests.dashboard.mock_router --workers 30 --port 8123``.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import sgl_droute
from tests.dashboard.mock_fleet import MockFleet

FILES = Path(sgl_droute.__file__).parent / "dashboard"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
TYPES |= {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)


class MockRouter(ThreadingHTTPServer):
    """
    Serves the page, below any *prefix*.

    Attributes:
        alter: Called with each message of the stream, to change it.
        key: The key that is asked for, none if it is empty.
        mute: While it is set, streams are cut and none begins.
        calls: Actions that were asked for: method, path, body.
        answers: Status and body for actions on a path, instead of what would be done.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, workers: int, *, port: int = 0, prefix: str = "", busy: float = 0.9) -> None:
        super().__init__(("127.0.0.1", port), _Exchange)
        self.fleet = MockFleet(workers, time.time(), busy)
        self.prefix = prefix
        self.alter: Callable[[dict[str, Any]], object] = lambda message: None
        self.key = ""
        self.mute = threading.Event()
        self.calls: list[tuple[str, str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.news = threading.Condition()
        self.message: dict[str, Any] = {}
        self.number = 0
        self._over = threading.Event()

    def begin(self) -> None:
        """
        Play and serve, in threads of their own.
        """
        for work in (self._play, self.serve_forever):
            threading.Thread(target=work, daemon=True).start()

    def end(self) -> None:
        """
        Stop, and cut the streams.
        """
        self._over.set()
        self.mute.set()
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        """
        Where the page is.
        """
        return f"http://127.0.0.1:{self.server_address[1]}{self.prefix}/dashboard"

    def _play(self) -> None:
        while not self._over.wait(1.0):
            self.step()

    def step(self) -> None:
        """
        Send what is new now, before its time.
        """
        with self.news:
            self.message = self.fleet.step(time.time())
            self.number += 1
            self.news.notify_all()


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: MockRouter

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.removeprefix(self.server.prefix)
        if path == "/dashboard/stream":
            self._stream()
        elif path == "/dashboard":
            self._file("index.html")
        elif path.startswith("/dashboard/"):
            self._file(path.removeprefix("/dashboard/"))
        else:
            self._answer(404, {"error": f"No such path: {path}", "reason": "not_found"})

    def do_POST(self) -> None:
        self._act()

    def do_PUT(self) -> None:
        self._act()

    def do_DELETE(self) -> None:
        self._act()

    def _file(self, name: str) -> None:
        file = FILES / name
        if not file.is_file() or file.parent != FILES:
            self._answer(404, {"error": "Not found", "reason": "not_found"})
            return
        body = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", TYPES[file.suffix])
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        self.wfile.write(body)

    def _admitted(self) -> bool:
        if self.server.key in ("", self.headers.get("Authorization", "").removeprefix("Bearer ")):
            return True
        self._answer(401, {"error": "A key is needed for this", "reason": "unauthorized"})
        return False

    def _stream(self) -> None:
        if not self._admitted():
            return
        if self.server.mute.is_set():
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            self._send("hello", self.server.fleet.hello(time.time()))
            with self.server.news:
                message, seen = self.server.fleet.whole(), self.server.number
                self._send_state(message)
            while not self.server.mute.is_set():
                with self.server.news:
                    while self.server.number == seen:
                        self.server.news.wait(0.2)
                        if self.server.mute.is_set():
                            raise ConnectionAbortedError
                    message, seen = self.server.message, self.server.number
                    self._send_state(message)
        except OSError:
            pass
        self.close_connection = True

    def _send_state(self, message: dict[str, Any]) -> None:
        message = json.loads(json.dumps(message))
        self.server.alter(message)
        self._send("state", message)

    def _send(self, event: str, data: Any) -> None:
        self.wfile.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _act(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        path = self.path.removeprefix(self.server.prefix)
        self.server.calls.append((self.command, path, body))
        if not self._admitted():
            return
        path = urlsplit(path).path
        with self.server.news:
            status, answer = self.server.answers.get(path) or self._change(path, body or {})
        self._answer(status, answer)

    def _change(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        fleet = self.server.fleet
        if path == "/workers":
            if "169.254" in body["url"]:
                reason = f"worker URL '{body['url']}' is blocked: 169.254.169.254 is never a worker"
                return 400, {"error": reason, "reason": "bad_request"}
            return 200, {"status": "success", "worker": fleet.add(body["url"])}
        if path.endswith("_memory_occupation"):
            asleep = path.startswith("/release")
            results = []
            for worker in fleet.workers.values():
                worker.update(is_sleeping=asleep, state="sleeping" if asleep else "ready")
                result = {"success": True, "sleeping": asleep}
                results.append({"worker_url": worker["url"], "status_code": 200, "body": result})
            return 200, {"results": results}
        if path.startswith("/queue/"):
            id = path.removeprefix("/queue/")
            fleet.waiting = [turn for turn in fleet.waiting if turn["id"] != id]
            return 200, {"status": "success", "id": id, "state": "cancelled"}
        id = path.removeprefix("/workers/")
        worker = fleet.workers.get(id, {})
        if not worker:
            return 404, {"error": "No such worker", "reason": "not_found"}
        if self.command == "DELETE":
            if parse_qs(urlsplit(self.path).query).get("drain") and worker["current"]:
                worker.update(draining=True, state="draining")
                return 200, {"status": "success", "worker_id": id, "state": "draining"}
            fleet.remove(id)
            return 200, {"status": "success", "worker_id": id, "state": "removed"}
        worker.update(body)
        state = "dead" if worker["is_dead"] else "disabled" if worker["disabled"] else "ready"
        worker["state"] = "draining" if worker["draining"] else state
        return 200, {"status": "success", "worker": worker}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=30)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--busy", type=float, default=0.9)
    options = parser.parse_args()
    router = MockRouter(options.workers, port=options.port, busy=options.busy)
    router.begin()
    print(router.url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
