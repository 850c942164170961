"""
The commands of this package as child processes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.harness.ports import free_port as free_port

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent.parent


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "default", "COLUMNS": "80"}


def ran(*words: str, cwd: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """
    A command of the virtual environment, run to its end.
    """
    return subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _hear_interrupts() -> None:
    # What shells start in the background ignores them, and so do its children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def running(*words: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """
    A command of the virtual environment, ended by SIGTERM at the latest; its log is ``log``, and
    shown if the block fails.
    """
    with (cwd / "log").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / words[0]), *words[1:]],
            cwd=cwd,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=_hear_interrupts,
        )
    try:
        yield process
    except BaseException:
        print(f"{' '.join(words)} (status {process.poll()}):", (cwd / "log").read_text(), sep="\n")
        raise
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)


def fetch(
    url: str,
    *,
    data: bytes | None = None,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Any:
    """
    The JSON that *url* answers.
    """
    sent = {} if data is None else {"Content-Type": "application/json"}
    sent.update(headers or {})
    request = urllib.request.Request(url, data=data, headers=sent, method=method)
    with urllib.request.urlopen(request, timeout=30, context=tls) as response:
        return json.load(response)


def once_up(url: str, timeout: float = 60, tls: ssl.SSLContext | None = None) -> Any:
    """
    The first JSON that *url* answers with a good status, tried until then.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            return fetch(url, tls=tls)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def memory_of(pid: int) -> int:
    """
    Resident memory of a process (bytes).
    """
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def alive(pid: int) -> bool:
    """
    Whether a process runs (a zombie does not).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def children_of(pid: int) -> list[int]:
    """
    The child processes of a process.
    """
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in listed.split()]
