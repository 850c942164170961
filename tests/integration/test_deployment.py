"""
The files in ``docs/examples`` that others deploy the router with: what they say is what runs here.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread

import pytest

from tests.integration.commands import BIN, environment, fetch, free_port, once_up, running

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PREFIX = "/opt/sgl-droute"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not here: apt install systemd",
)


def unit(name: str) -> RawConfigParser:
    """
    A file of a systemd unit.
    """
    parser = RawConfigParser(delimiters=("=",), comment_prefixes=("#", ";"), strict=True)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string((EXAMPLES / name).read_text())
    return parser


@needs_systemd
def test_the_units_are_sound(tmp_path: Path) -> None:
    """
    systemd finds nothing wrong with the units, once the program is where they say.
    """
    for path in EXAMPLES.glob("sgl-droute.*"):
        text = path.read_text().replace(f"{PREFIX}/bin", str(BIN))
        (tmp_path / path.name).write_text(text)
    units = [str(path) for path in sorted(tmp_path.iterdir())]
    assert len(units) == 2
    verified = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    broken = tmp_path / "sgl-droute.service"
    broken.write_text(broken.read_text().replace("Type=exec", "Typo=exec"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    assert "Typo" in verified.stderr


@needs_systemd
def test_the_unit_is_hardened(tmp_path: Path) -> None:
    """
    What the service may do is little: systemd's own measure stays where the documentation says.
    """
    rated = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--threshold=20",
            "--no-pager",
            str(EXAMPLES / "sgl-droute.service"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-300:]
    level = rated.stdout.rpartition("Overall exposure level")[2].split()[2]
    assert f"sgl-droute.service: {level}" in (ROOT / "docs" / "deployment.md").read_text()


def test_time_to_stop() -> None:
    """
    systemd waits longer than the router drains, and signals only the router.
    """
    service = unit("sgl-droute.service")["Service"]
    words = shlex.split(service["ExecStart"])
    drain = float(words[words.index("--drain-timeout") + 1])
    assert float(service["TimeoutStopSec"]) >= drain + 15
    assert service["KillMode"] == "mixed"
    assert int(service["LimitNOFILE"]) >= 4256  # what 1000 connections need


@contextmanager
def activated(words: list[str], listening: socket.socket, folder: Path) -> Iterator[int]:
    """
    A command that was started for a connection to *listening*, as systemd does it; its process id.
    Its log is ``log``.
    """
    start = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3);"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='x');"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", start, str(listening.fileno()), *words],
            cwd=folder,
            env=environment(),
            pass_fds=[listening.fileno()],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process.pid
    except BaseException:
        print((folder / "log").read_text())
        process.kill()
        raise
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def ask_later(port: int, path: str, body: object, answers: list[int]) -> Thread:
    """
    A request under way; the status of its answer will be the next of *answers*.
    """

    def run() -> None:
        with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            if body is None:
                connection.request("GET", path)
            else:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            answers.append(answer.status)

    thread = Thread(target=run)
    thread.start()
    return thread


def test_started_reloaded_and_restarted_as_the_unit_says(tmp_path: Path) -> None:
    """
    The unit's own command serves the socket that systemd has, reads its configuration again at its
    reload signal, and is restarted under load without one refused connection: what runs is
    finished, what comes meanwhile waits for the next process.
    """
    service = unit("sgl-droute.service")["Service"]
    reload, _, target = service["ExecReload"].rpartition(" ")
    assert (reload, target) == ("/bin/kill -HUP", "$MAINPID")
    worker, config = free_port(), tmp_path / "router.toml"
    config.write_text(f'worker-urls = ["http://127.0.0.1:{worker}"]\nqueue-size = 10\n')
    (tmp_path / "sgl-droute").mkdir()
    command = (
        service["ExecStart"]
        .replace(f"{PREFIX}/bin", str(BIN))
        .replace("/etc/sgl-droute/router.toml", str(config))
        .replace("%S", str(tmp_path))
    )
    words = shlex.split(command)
    slow = {"prompt": "x", "size": "512x512", "response_format": "b64_json"}
    simulator = (
        "twistd",
        "-n",
        "--pidfile=",
        "sglang-d-simulator",
        "--port",
        str(worker),
        "--model",
        "qwen-image",
    )
    at_worker = tmp_path / "worker"
    at_worker.mkdir()
    with (
        running(*simulator, "--port", str(worker), "--speed", "2", cwd=at_worker),
        socket.create_server(("127.0.0.1", 0), backlog=100) as listening,
    ):
        port = listening.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        once_up(f"http://127.0.0.1:{worker}/health")
        answers: list[int] = []
        with activated(words, listening, tmp_path) as process:
            assert once_up(f"{url}/liveness") == {"status": "ok"}
            config.write_text(config.read_text().replace("10", "20"))
            os.kill(process, signal.SIGHUP)
            wait_for(lambda: "changed: queue-size" in (tmp_path / "log").read_text())
            wait_for(lambda: fetch(f"{url}/health")["healthy_workers"] == 1)
            running_one = ask_later(port, "/v1/images/generations", slow, answers)
            wait_for(lambda: load_of(url) == 1)
            os.kill(process, signal.SIGTERM)
            wait_for(lambda: "Received SIGTERM" in (tmp_path / "log").read_text())
            waiting = ask_later(port, "/liveness", None, answers)
            running_one.join(60)
            assert answers == [200]
            os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        with activated(words, listening, tmp_path):
            waiting.join(60)
            assert answers == [200, 200]
            wait_for(lambda: fetch(f"{url}/health")["healthy_workers"] == 1)
    assert (tmp_path / "sgl-droute" / "state.sqlite").exists()
    assert "Traceback" not in (tmp_path / "log").read_text()


def load_of(url: str) -> int:
    [worker] = fetch(f"{url}/health_workers")["workers"]
    load: int = worker["active_requests"]
    return load


def wait_for(happened: object, timeout: float = 30) -> None:
    end = time.monotonic() + timeout
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def instructions() -> list[tuple[str, str]]:
    """
    The instructions in the container file, and what follows them.
    """
    lines = (EXAMPLES / "Containerfile").read_text().splitlines()
    parts = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in parts]


def only(word: str) -> str:
    [rest] = [rest for each, rest in instructions() if each == word]
    return rest


def test_the_container_file(tmp_path: Path) -> None:
    """
    Its commands, run here, install the router from the sources alone and start it; it is healthy by
    its own check, writes nothing but its state, and ends in order by its stop signal.

    What the router needs is not installed once more, but found where it is.
    """
    prefix, state = tmp_path / "opt", tmp_path / "state"
    source = tmp_path / "src"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(("sgl_droute", "twisted", "pyproject", "README", "LICENSE")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    port = free_port()

    def here(text: str) -> str:
        for there, own in ((PREFIX, prefix), ("/state", state), ("/src", source)):
            text = text.replace(there, str(own))
        return text.replace("30080", str(port))

    needed = BIN.parent / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    base = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(needed / "site-packages"),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # which is how pip spells that there is none
    }
    for word, rest in instructions():
        if word == "RUN":
            command = here(rest).replace("-o 10001 -g 10001 ", "")
            subprocess.run(command, shell=True, check=True, cwd=tmp_path, env=base, timeout=120)
    variables = dict(each.split("=") for each in only("ENV").split())
    words = json.loads(here(only("ENTRYPOINT"))) + json.loads(here(only("CMD")))
    files = sorted(prefix.rglob("*"))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    own = {**base, **variables, "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [*words, "--host", "127.0.0.1", "--port", str(port)],
        cwd=tmp_path,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        once_up(f"http://127.0.0.1:{port}/liveness")
        health = json.loads(here(only("HEALTHCHECK").partition(" CMD ")[2]))
        subprocess.run(health, check=True, env=own, timeout=30)
    finally:
        process.send_signal(getattr(signal, only("STOPSIGNAL")))
        log, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert "Traceback" not in log
    assert "Unable to write to plugin cache" not in log
    assert sorted(prefix.rglob("*")) == files
    assert [path.name for path in state.iterdir()] == ["router.sqlite"]
    assert list(temporary.iterdir()) == []
    assert state.stat().st_mode & 0o777 == 0o700


def test_who_runs_in_the_container() -> None:
    """
    Nobody with rights: the user is not root, and owns the state.
    """
    user, _, group = only("USER").partition(":")
    assert int(user) > 0
    owner = next(rest for word, rest in instructions() if word == "RUN" and "/state" in rest)
    assert f"-o {user} -g {group}" in owner
    assert only("VOLUME") == "/state"
