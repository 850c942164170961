"""
The commands as a user runs them.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.integration.commands import (
    BIN,
    alive,
    children_of,
    environment,
    free_port,
    once_up,
    ran,
    running,
)

TWISTD = ("twistd", "-n", "--pidfile=", "sglang-d-router")
TWIST = ("twist", "sglang-d-router")
MODULE = ("python", "-m", "twisted", "sglang-d-router")
SCRIPT = ("sglang-d-router",)
GONE = ("http://127.0.0.1:1", "http://127.0.0.1:2")


@pytest.mark.parametrize("command", [TWISTD, TWIST, MODULE, SCRIPT], ids=lambda words: words[0])
def test_every_way_to_start(command: tuple[str, ...], tmp_path: Path) -> None:
    """
    twistd, twist, the module and the script start the router with the list of workers, and it
    stops by SIGTERM without a traceback.
    """
    port = free_port()
    words = (*command, "--host", "127.0.0.1", "--worker-urls", *GONE, "--port", str(port))
    with running(*words, cwd=tmp_path) as process:
        urls = once_up(f"http://127.0.0.1:{port}/list_workers")
        assert urls == {"urls": list(GONE)}
        process.terminate()
        process.wait(30)
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "Warning" not in log
    assert not (tmp_path / "twistd.pid").exists()


def test_as_a_daemon(tmp_path: Path) -> None:
    """
    twistd without -n goes into the background and serves.
    """
    port = free_port()
    started = ran(
        "twistd", "sglang-d-router", "--port", str(port), "--worker-urls", *GONE, cwd=tmp_path
    )
    assert started.returncode == 0, started.stderr
    pid = int((tmp_path / "twistd.pid").read_text())
    try:
        assert once_up(f"http://127.0.0.1:{port}/liveness") == {"status": "ok"}
    finally:
        os.kill(pid, signal.SIGTERM)
        for _ in range(200):
            if not alive(pid):
                break
            time.sleep(0.05)
    assert not alive(pid)


WRONG = {
    "unknown option": (["--prot", "1"], "option --prot not recognized; did you mean --port?"),
    "bare word": (["http://127.0.0.1:1"], "unexpected word 'http://127.0.0.1:1'"),
    "bad worker": (["--worker-urls", "ftp://x"], "must begin with http:// or https://"),
    "blocked worker": (["--worker-urls", "http://0xa9fea9fe"], "blocked"),
    "second worker bad": (["--worker-urls", "http://a:1", "b:2"], "must begin with http"),
    "bad port": (["--port", "99999"], "--port: 99999 is not a port"),
    "port no number": (["--port", "http"], "--port: 'http' is not a whole number"),
    "bad seconds": (["--timeout", "0"], "--timeout: '0' is not a number of seconds above 0"),
    "bad patience": (["--drain-timeout", "-1"], "--drain-timeout: '-1' is not a number of seconds"),
    "bad clients": (["--max-clients", "-1"], "--max-clients must be >= 0: -1"),
    "nan": (["--idle-timeout", "nan"], "above 0"),
    "bad algorithm": (
        ["--routing-algorithm", "fastest"],
        "--routing-algorithm must be in"
        " ('least-request', 'least-work', 'round-robin', 'random') (got 'fastest')",
    ),
    "bad size": (["--max-body-size", "many"], "number of bytes"),
    "no connections": (["--max-connections", "0"], "--max-connections must be >= 1: 0"),
    "bad level": (["--log-level", "loud"], "debug, info, warning, error, critical"),
    "bad endpoint": (["--listen", "nonsense:1"], "nonsense"),
    "missing certificate": (["--listen", "ssl:0:privateKey=/no/such.pem"], "No such file"),
    "no such folder": (["--listen", "unix:/no/such/socket"], "'/no/such' is no folder"),
    "missing value": (["--port"], "--port"),
}


@pytest.mark.parametrize("command", [TWISTD, TWIST], ids=["twistd", "twist"])
@pytest.mark.parametrize(("words", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_wrong_options(
    command: tuple[str, ...], words: list[str], sentence: str, tmp_path: Path
) -> None:
    """
    What is wrong is told in exactly one line on stderr, and the exit status is not 0.
    """
    ended = ran(*command, *words, cwd=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("sglang-d-router: ")
    assert sentence in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    "command", [TWISTD, TWIST, ("twistd", "sglang-d-router")], ids=["twistd", "twist", "daemon"]
)
@pytest.mark.parametrize("option", ["--port", "--listen"])
def test_taken_port(command: tuple[str, ...], option: str, tmp_path: Path) -> None:
    """
    A taken port is told in one line, in the background too, and nothing is left running.
    """
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        value = str(port) if option == "--port" else f"tcp:{port}"
        ended = ran(*command, option, value, cwd=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.count("\n") == 1
    assert f":{port}" in ended.stderr
    assert "in use" in ended.stderr
    assert not (tmp_path / "twistd.pid").exists()


def test_version_and_help(tmp_path: Path) -> None:
    """
    The version is this package's; the help names every option with its default.
    """
    told = ran(*TWISTD, "--version", cwd=tmp_path)
    assert told.stdout == f"sglang-d-router {version('sgl-droute')}\n"
    assert told.returncode == 0
    helped = ran(*TWISTD, "--help", cwd=tmp_path).stdout
    for option in ("--worker-urls=", "--listen=", "--max-body-size=", "--simulated-workers="):
        assert option in helped


def test_log_level(tmp_path: Path) -> None:
    """
    At warning the log holds warnings only, those of Twisted included.
    """
    port = free_port()
    listening = ("--host", "127.0.0.1", "--port", str(port))
    words = (*listening, "--log-level", "warning", "--worker-urls", GONE[0])
    options = ("--health-check-failure-threshold", "1")
    with running(*TWISTD, *words, *options, cwd=tmp_path):
        once_up(f"http://127.0.0.1:{port}/liveness")
        for _ in range(200):
            if (tmp_path / "log").read_text():
                break
            time.sleep(0.05)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1
    assert "http://127.0.0.1:1 quarantined after 1 failed health checks" in lines[0]


def test_a_tls_endpoint(tmp_path: Path, identity: Path) -> None:
    """
    ``--listen ssl:...`` starts, and serves over TLS.
    """
    port = free_port()
    listen = f"ssl:{port}:privateKey={identity}:interface=127.0.0.1"
    with running(*TWISTD, "--listen", listen, cwd=tmp_path):
        trusting = ssl.create_default_context(cafile=str(identity))
        assert once_up(f"https://127.0.0.1:{port}/liveness", tls=trusting) == {"status": "ok"}


def test_a_unix_socket(tmp_path: Path) -> None:
    """
    ``--listen`` takes any endpoint, several times, instead of host and port.
    """
    path, port = tmp_path / "socket", free_port()
    listen = ("--listen", f"unix:{path}", "--listen", f"tcp:{port}:interface=127.0.0.1")
    with running(*TWISTD, *listen, cwd=tmp_path):
        once_up(f"http://127.0.0.1:{port}/liveness")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_systemd_socket(tmp_path: Path) -> None:
    """
    A socket that systemd listens on is served.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        activated = (
            "import os; os.dup2(int(os.environ['SOCKET']), 3);"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='x');"
            "from sgl_droute.tap import run; run()"
        )
        process = subprocess.Popen(
            [BIN / "python", "-c", activated, "--listen", "systemd:domain=INET:index=0"],
            cwd=tmp_path,
            env={**environment(), "SOCKET": str(listening.fileno())},
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
        )
        try:
            port = listening.getsockname()[1]
            assert once_up(f"http://127.0.0.1:{port}/liveness") == {"status": "ok"}
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_simulated_workers_end_with_the_router(end: signal.Signals, tmp_path: Path) -> None:
    """
    ``--simulated-workers`` starts and registers workers that serve, and that end with the router,
    also when it is killed.
    """
    port = free_port()
    words = ("--port", str(port), "--simulated-workers", "2", "--worker-urls", GONE[0])
    with running(*TWISTD, *words, cwd=tmp_path) as process:
        url = f"http://127.0.0.1:{port}"
        assert len(once_up(f"{url}/list_workers")["urls"]) == 3
        children = children_of(process.pid)
        assert len(children) == 2
        card = once_up(f"{url}/v1/models")["data"][0]
        assert card["owned_by"] == "sglang"
        process.send_signal(end)
        process.wait(30)
        for _ in range(600):
            if not any(alive(child) for child in children):
                break
            time.sleep(0.05)
        assert [child for child in children if alive(child)] == []


def test_simulated_workers_without_their_packages(tmp_path: Path) -> None:
    """
    Without the extra one line names the command that installs it.
    """
    # An import that fails is what a missing package looks like.
    hidden = "import sys; sys.modules['av'] = None; from sgl_droute.tap import run; run()"
    ended = ran("python", "-c", hidden, "--port", "0", "--simulated-workers", "2", cwd=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.count("\n") == 1
    assert "pip install 'sgl-droute[simulator]'" in ended.stderr


def test_open_files(tmp_path: Path) -> None:
    """
    The limit of open files is raised, with a warning when it is too low all the same.
    """
    port = free_port()
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512));"
        "from sgl_droute.tap import run; run()"
    )
    with running("python", "-c", limited, "--port", str(port), cwd=tmp_path) as process:
        once_up(f"http://127.0.0.1:{port}/liveness")
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert line.split()[3] == "512"
    assert (
        "1000 connections need 4256 open files, the limit is 512" in (tmp_path / "log").read_text()
    )
