"""
The scripts as users start them, with simulated workers, and what they leave behind: nothing.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from bench.harness.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120.0

FAKE_SGLANG = """#!{python}
import os, sys
def option(name):
    return sys.argv[sys.argv.index(name) + 1]
assert sys.argv[1] == "serve" and os.environ["CUDA_VISIBLE_DEVICES"] in ("0", "1")
os.execv(sys.executable, [sys.executable, "-m", "twisted", "--log-format=text",
    "sglang-d-simulator", "--speed={speed}", "--port", option("--port")])
"""
FAKE_SMI = "#!/bin/sh\necho 0, Test GPU\necho 1, Test GPU\n"


def command(script: str, *words: str) -> list[str]:
    return [sys.executable, f"bench/{script}.py", *words]


def run(
    script: str, *words: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(script, *words),
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def processes_with(text: str) -> list[str]:
    """
    Command lines of running processes that hold *text*.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


def test_router_bench_writes_its_results(tmp_path: Path) -> None:
    """
    Two simulated workers and six prompts: a table, a JSON file with every request, a PNG.
    """
    output, plot = tmp_path / "result.json", tmp_path / "plot.png"
    ended = run(
        "bench_router",
        *("--simulate", "--model", "Qwen/Qwen-Image", "--num-workers", "2"),
        *("--num-prompts", "6", "--max-concurrency", "3", "--speed", "100", "--progress"),
        *("--output-file", str(output), "--plot", str(plot)),
    )
    assert ended.returncode == 0, ended.stderr
    assert "| least-request |  6 |      0 |" in ended.stdout
    assert "6/6" in ended.stderr
    written: dict[str, Any] = json.loads(output.read_text())
    (result,) = written["results"]
    assert [request["index"] for request in result["requests"]] == list(range(6))
    assert all(request["status"] == 200 for request in result["requests"])
    assert sum(result["served"].values()) == 6
    assert written["settings"]["num_workers"] == 2
    assert written["versions"]["python"]
    with Image.open(plot) as image:
        image.verify()
        assert image.format == "PNG"


def test_comparison_measures_each_algorithm_alike(tmp_path: Path) -> None:
    """
    Every arm gets the same requests in the same order.
    """
    output, plot = tmp_path / "result.json", tmp_path / "plot.png"
    ended = run(
        "bench_routing_algorithms",
        *("--algorithms", "least-work@1,round-robin,random@auto", "--worker-speeds", "1,0.5"),
        *("--mix", "scheduling", "--load", "0.5", "--num-prompts", "4", "--speed", "200"),
        *("--output-file", str(output), "--plot", str(plot)),
    )
    assert ended.returncode == 0, ended.stderr
    results = json.loads(output.read_text())["results"]
    names = [result["algorithm"] for result in results]
    assert names == ["least-work@1", "round-robin", "random@auto"]
    requests = [[each["request"] for each in result["requests"]] for result in results]
    assert requests[0] == requests[1] == requests[2]
    with Image.open(plot) as image:
        image.verify()


def test_least_work_leaves_the_slow_worker_out(tmp_path: Path) -> None:
    """
    One request at a time, and one of two workers is 20 times slower: whoever counts requests gives
    it every other one, whoever learns how long they take soon none.
    """
    output = tmp_path / "result.json"
    ended = run(
        "bench_routing_algorithms",
        *("--algorithms", "least-work,least-request,round-robin", "--worker-speeds", "1,0.05"),
        *("--model", "flux.1-dev", "--size", "256x256", "--speed", "50", "--num-prompts", "20"),
        *("--max-concurrency", "1", "--router-warmup", "20", "--response-format", "url"),
        *("--output-file", str(output)),
    )
    assert ended.returncode == 0, ended.stderr
    results = json.loads(output.read_text())["results"]
    by_work, by_count, in_turns = (list(result["served"].values()) for result in results)
    assert by_work == [20, 0]
    assert by_count == in_turns == [10, 10]


def test_batch_waits_in_the_router(tmp_path: Path) -> None:
    """
    A batch for a worker with one slot is known to the router as a whole: the shortest come last.
    """
    output = tmp_path / "result.json"
    ended = run(
        "bench_router",
        *("--simulate", "--routing-algorithm", "least-work@1", "--num-workers", "1"),
        *("--model", "flux.1-dev", "--mix", "scheduling", "--batch", "--num-prompts", "20"),
        *("--speed", "50", "--response-format", "url", "--output-file", str(output)),
    )
    assert ended.returncode == 0, ended.stderr
    assert "all at once as batch 'bench'" in ended.stdout
    assert "over bound" in ended.stdout
    (result,) = json.loads(output.read_text())["results"]
    last = max(result["requests"], key=lambda request: request["finished"])
    assert last["request"]["size"] == "512x512"


def test_sglang_workers_are_started_and_ended(tmp_path: Path) -> None:
    """
    With GPUs and the sglang command, real workers are started, each on a GPU of its own.
    """
    speed = f"200.{uuid4().int}"  # in these command lines only
    for name, text in (
        ("sglang", FAKE_SGLANG.format(python=sys.executable, speed=speed)),
        ("nvidia-smi", FAKE_SMI),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = run("bench_router", "--num-prompts", "4", "--size", "64x64", env=env)
    assert ended.returncode == 0, ended.stderr
    assert "2 sglang workers" in ended.stdout
    assert "Workers are simulated" not in ended.stdout
    assert processes_with(speed) == []


def test_worker_that_dies_is_shown(tmp_path: Path) -> None:
    """
    A worker that ends while it loads ends the bench, with the end of the worker's log.
    """
    for name, text in (
        ("sglang", "#!/bin/sh\necho out of memory\nexit 3\n"),
        ("nvidia-smi", FAKE_SMI),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = run("bench_router", "--num-prompts", "1", env=env)
    assert ended.returncode == 1
    assert "worker 0" in ended.stderr
    assert "out of memory" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_unreachable_router_is_one_line() -> None:
    """
    A running router that does not answer ends the bench with one line that names it.
    """
    url = f"http://127.0.0.1:{free_port()}"
    ended = run("bench_router", "--skip-router", "--router-url", url)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"bench_router.py: {url}/list_workers: ConnectionRefusedError")
    assert ended.stderr.count("\n") == 1


def test_failed_requests_fail_the_bench() -> None:
    """
    Errors are in the table with their status, and in the exit status.
    """
    ended = run(
        "bench_router",
        *("--simulate", "--num-prompts", "2", "--size", "9000x9000", "--warmup", "0"),
    )
    assert ended.returncode == 1
    assert "| HTTP 500: Internal Server Error | least-request |        2 |" in ended.stdout
    assert "requests failed" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_children_end_with_the_bench(number: signal.Signals) -> None:
    """
    However the bench ends, workers and router end too.
    """
    mark = f"http://{uuid4().hex}.invalid:1"  # in these command lines only
    bench = subprocess.Popen(
        command("bench_router", "--simulate", "--speed", "0.1", "--num-workers", "1",
                "--warmup", "0", f"--router-extra-args=--worker-urls={mark}"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=_hear_interrupts,
    )  # fmt: skip
    try:
        assert bench.stdout is not None
        worker = next(line for line in bench.stdout if line.startswith("Waiting")).split()[-1]
        assert _eventually(lambda: len(processes_with(mark)) >= 3)
        bench.send_signal(number)
        bench.communicate(timeout=30.0)
    finally:
        bench.kill()
        bench.communicate()
    assert bench.returncode == (-9 if number == signal.SIGKILL else 130)
    assert _eventually(lambda: processes_with(mark) == [])
    assert _eventually(lambda: not _answers(worker))


def _hear_interrupts() -> None:
    # Whoever runs these tests in the background has them, and their children, ignore SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _eventually(true: Callable[[], bool]) -> bool:
    """
    Whether *true()* becomes so within half a minute. Other processes tell nobody, so it asks again.
    """
    deadline = time.monotonic() + 30.0
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _answers(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as trial:
        return trial.connect_ex((host, int(port))) == 0
