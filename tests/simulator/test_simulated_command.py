"""
The command that starts a simulated worker, as its own process.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from sgl_droute.simulator.tap import Options, makeService

COMMAND = [sys.executable, "-m", "twisted", "sglang-d-simulator"]
TWISTD = [
    sys.executable,
    "-c",
    "from twisted.scripts.twistd import run; run()",
    "-n",
    "--pidfile=",
    "sglang-d-simulator",
]
PATIENCE = 60.0


@contextmanager
def running(folder: Path, *options: str, **how: Any) -> Iterator[subprocess.Popen[str]]:
    """
    A worker process that ends with the block, whatever happens in it.
    """
    process = subprocess.Popen(
        [*TWISTD, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        **how,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def announced(process: subprocess.Popen[str]) -> str:
    """
    The URL in the line that says where the worker is.
    """
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"Simulating \S+ at (http://\S+)", line)
        if found:
            return found[1]
    raise AssertionError("the worker ended without a word")


def complaint(*options: str) -> str:
    """
    What the command writes to standard error before it fails.
    """
    done = subprocess.run([*TWISTD, *options], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode != 0
    return done.stderr


def test_starts_and_stops(tmp_path: Path) -> None:
    """
    The worker says where it is, answers, stops on SIGTERM, and removes its folder.
    """
    with running(tmp_path, "--port", "0", "--model", "z-image") as process:
        with urlopen(f"{announced(process)}/model_info") as answer:
            assert b"Tongyi-MAI/Z-Image" in answer.read()
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    assert list(tmp_path.iterdir()) == []


def test_ends_with_standard_input(tmp_path: Path) -> None:
    """
    With --exit-with-stdin the worker ends when its parent's end of the pipe closes.
    """
    options = ("--port", "0", "--exit-with-stdin")
    with running(tmp_path, *options, stdin=subprocess.PIPE) as process:
        announced(process)
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        assert process.wait(PATIENCE) == 0


def test_inherited_socket(tmp_path: Path) -> None:
    """
    With --listen-fd the worker serves on a socket that its parent already listens on.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = str(listening.fileno())
        with running(tmp_path, "--listen-fd", number, pass_fds=[listening.fileno()]):
            port = listening.getsockname()[1]
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE) as answer:
                assert answer.status == 200


def test_taken_port() -> None:
    """
    A taken port is one line on standard error, under both of Twisted's starters.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        lines = complaint("--port", str(port)).splitlines()
        done = subprocess.run(
            [*COMMAND, "--port", str(port)], capture_output=True, text=True, timeout=PATIENCE
        )
    reason = "[Errno 98] Address already in use."
    expected = f"sglang-d-simulator: Couldn't listen on 127.0.0.1:{port}: {reason}"
    assert lines == [expected]
    assert done.stderr.splitlines() == [expected]
    assert done.returncode != 0


def test_wrong_options_are_one_line() -> None:
    """
    A wrong option of the command line is one line on standard error.
    """
    (line,) = complaint("--speed", "fast").splitlines()
    assert line == "sglang-d-simulator: --speed: not a number: 'fast'"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--nonsense"], "--nonsense"),
        (["--model", "gpt"], "--model: 'gpt' is none of flux.1-dev"),
        (["--speed", "0"], "speed"),
        (["--port", "70000"], "port"),
        (["--fault", '{"rulez":1}'], "--fault: unknown fields"),
        (["--jitter", "1"], "jitter"),
    ],
)
def test_refused_options(options: list[str], text: str) -> None:
    """
    Every refusal names its option in one line.
    """
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(options)
    message = str(caught.value.code)
    assert message.startswith("sglang-d-simulator: ")
    assert text in message
    assert "\n" not in message


def test_options_become_settings() -> None:
    """
    Options arrive in the settings with their types.
    """
    options = Options()
    options.parseOptions(["--port", "0", "--speed", "2.5", "--verbose", "--fault", '{"dead":true}'])
    settings = options.settings
    assert (settings.port, settings.speed, settings.verbose) == (0, 2.5, True)
    assert settings.faults == ({"dead": True},)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without the extra's packages one line says what to install.
    """
    monkeypatch.setitem(sys.modules, "av", None)
    options = Options()
    options.parseOptions([])
    with pytest.raises(SystemExit, match=re.escape("pip install 'sgl-droute[simulator]'")):
        makeService(options)


def test_importing_the_options_is_light() -> None:
    """
    Reading options imports none of the extra's packages.
    """
    code = (
        "import sys, sgl_droute.simulator.tap; "
        "print([n for n in ('PIL', 'av', 'msgpack') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
