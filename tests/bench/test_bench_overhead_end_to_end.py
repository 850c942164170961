"""
The overhead benchmark as users start it, and the programs that it starts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image

from bench.harness.overhead.figures import figures
from bench.harness.overhead.measure import Measure
from bench.harness.overhead.programs import ProgramFailed, running
from bench.harness.overhead.proxies import BACKEND, ROUTER, Ground, backend, found, proxies
from bench.harness.overhead.scenarios import KB, Scenario
from bench.harness.overhead.waiting import waiting
from bench.harness.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120.0

needs_wrk = pytest.mark.skipif(found("wrk") is None, reason="wrk is not installed")
needs_nginx = pytest.mark.skipif(found("nginx") is None, reason="nginx is not installed")


def command(*words: str) -> list[str]:
    return [sys.executable, "bench/bench_overhead.py", *words]


def run(*words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({} if path is None else {"PATH": path})}
    return subprocess.run(
        command(*words),
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def processes_with(text: str) -> list[str]:
    """
    Command lines of running processes that hold *text*.
    """
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(file.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return [line for line in lines if text in line]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """
    Three workers without nginx.
    """
    with backend(tmp_path, 3, 1024, look=lambda program: None) as here:
        yield here


@needs_wrk
def test_measures_and_writes(tmp_path: Path) -> None:
    """
    One second each of small answers and uploads: every proxy that is installed has its figures, in
    the tables, the JSON file and the picture.
    """
    output, plot = tmp_path / "x.json", tmp_path / "x.png"
    ended = run(
        *("--only", "1k-32", "upload-4", "--seconds", "1", "--rounds", "1"),
        *("--json", str(output), "--plot", str(plot)),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    document = json.loads(output.read_text())
    here = ["router", *(peer for peer in ("nginx", "haproxy") if found(peer))]
    measured = [(each["scenario"]["name"], each["proxy"]) for each in document["results"]]
    assert measured == [(name, proxy) for name in ("1k-32", "upload-4") for proxy in here]
    assert document["problems"] == []
    for each in document["results"]:
        figures = each["figures"]
        assert figures["cpu"] > 0
        assert 0 < figures["p50"] <= figures["p99"]
        assert 0 < figures["resident"] <= figures["peak"]
        assert f"{figures['cpu']:.0f}" in ended.stdout
    with Image.open(plot) as picture:
        assert picture.format == "PNG"


@needs_wrk
def test_profile_shows_layers() -> None:
    """
    The profile names the layers with their shares.
    """
    ended = run("--profile", "--seconds", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Klein, werkzeug" in ended.stdout
    assert "sgl_droute.api" in ended.stdout
    assert "function calls each" in ended.stdout


@needs_wrk
def test_a_router_that_does_not_start_is_told() -> None:
    """
    It spoils its own figures only: the status is 1 and the end of its log is shown.
    """
    broken = f"{sys.executable} -c 'raise SystemExit(\"no router today\")'"
    ended = run("--only", "1k-1", "--seconds", "1", "--rounds", "1", "--router-command", broken)
    assert ended.returncode == 1
    assert "INVALID 1k-1 router" in ended.stdout
    assert "no router today" in ended.stdout


def test_wrk_is_needed(tmp_path: Path) -> None:
    """
    Without wrk one line says so, and nothing is started.
    """
    if Path("/usr/sbin/wrk").exists() or Path("/usr/local/sbin/wrk").exists():
        pytest.skip("wrk is where it is always found")
    ended = run(path=str(tmp_path))
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "bench_overhead.py: needs wrk, which is not installed (Debian package wrk)"
    ]


@needs_wrk
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_it(number: signal.Signals, tmp_path: Path) -> None:
    """
    However it is ended, all that it started ends too.
    """
    mark = f"--max-body-size={uuid4().int % 10**9 + 10**9}"
    router = f"{sys.executable} -m twisted sglang-d-router {mark}"
    words = ["--only", "1k-1", "--seconds", "30", "--router-command", router]
    bench = subprocess.Popen(
        command(*words),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_hear_interrupts,
    )
    try:
        _wait(lambda: len(processes_with(mark)) >= 2)
        bench.send_signal(number)
        bench.wait(timeout=LIMIT)
    finally:
        bench.kill()
        bench.wait()
    assert bench.returncode == (-9 if number == signal.SIGKILL else 130)
    _wait(lambda: not processes_with(str(tmp_path)) and not processes_with(mark))
    left = list(tmp_path.iterdir())
    for folder in left:
        shutil.rmtree(folder)
    # Only a killed program cannot clear up behind itself.
    assert not left or number == signal.SIGKILL


def _hear_interrupts() -> None:
    # Whoever runs these tests in the background has them, and their children, ignore SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass within 60 s"
        time.sleep(0.05)


@pytest.mark.parametrize("nginx", [pytest.param(True, marks=needs_nginx), False])
def test_backend_does_as_it_must(nginx: bool, tmp_path: Path) -> None:
    """
    Under each address it is well, answers the size asked for, and counts the bytes of an upload.
    """
    look = found if nginx else lambda program: None
    with backend(tmp_path, 3, 1024, look=look) as ground:
        hosts = [each.rpartition(":")[0] for each in ground.workers]
        assert hosts == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        for address in ground.workers:
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=10.0) as client:
                client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        worker = ground.holder
        worker.port = int(ground.workers[0].rpartition(":")[2])
        for size in (1, 2048):
            status, body = worker.ask(f"/{size}k")
            assert (status, len(body)) == (200, size * KB)
        status, answer = worker.ask("/upload", b"x" * 300_000)
        assert status == 200
        # nginx counts the header block too.
        assert 300_000 <= int(answer) < 301_000
        assert worker.ask("/v1/models")[0] == 404


def test_waiting_requests_are_held_and_answered(ground: Ground) -> None:
    """
    All that were opened are with the backend, and all have their answer when it is told.
    """
    with waiting(ground.holder, ground.holder, 250) as held:
        assert ground.holder.ask("/held") == (200, b"250")
        assert held.finish() == 250
    assert ground.holder.ask("/held") == (200, b"0")


def test_a_cut_answer_is_none(ground: Ground) -> None:
    """
    A client whose connection is closed without an answer counts as not answered.
    """
    port = free_port()
    command = [sys.executable, str(BACKEND), str(port), "127.0.0.1"]
    with running("other", command, port, ground.folder) as other:
        with waiting(other, other, 3) as held:
            for process in other.processes():
                os.kill(process, signal.SIGKILL)
            held.holder = ground.holder
            assert held.finish() == 0
        with pytest.raises(ProgramFailed, match="other ended"):
            _wait(other.check_running)


@needs_wrk
def test_requests_beside_waiting_ones(ground: Ground) -> None:
    """
    Every proxy is measured in each round with as many requests waiting as the scenario says; a
    hold of a second ends with all of them answered.
    """
    measured = proxies([ROUTER])[0]
    beside = Scenario(name="beside", group="waiting", connections=2, waiting=50)
    hold = Scenario(name="hold", group="hold", connections=0, waiting=60)
    said: list[str] = []
    outcome = Measure(ground, measured, 1, 2, 1.0, said.append).run([beside, hold])
    assert outcome.problems() == []
    assert said == ["beside ...", "hold ..."]
    assert [len(each.samples) for each in outcome.results] == [2] * len(measured)
    assert all(figures(each) is not None for each in outcome.results)
    (held,) = outcome.holds
    assert held.well
    assert (held.proxy, held.asked, held.answered) == ("router", 60, 60)
    assert held.seconds >= 1.0
