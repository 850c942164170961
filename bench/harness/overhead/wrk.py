"""
The load: runs wrk and reads what it counted.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from attrs import frozen

from bench.harness.overhead.programs import ProgramFailed
from bench.harness.overhead.scenarios import Scenario

_MARK = "counted: "
_SPARE = 60.0
_ERRORS = ("connect", "read", "write", "status", "timeout")

# wrk's own report rounds; its script interface tells the numbers.
_SCRIPT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write('counted: ')
  io.write(string.format('{"requests": %d, "bytes": %d,', summary.requests, summary.bytes))
  io.write(string.format(' "duration": %d,', summary.duration))
  io.write(string.format(' "p50": %d,', latency:percentile(50)))
  io.write(string.format(' "p99": %d,', latency:percentile(99)))
  io.write(string.format(' "connect": %d, "read": %d, "write": %d,', e.connect, e.read, e.write))
  io.write(string.format(' "status": %d, "timeout": %d}\\n', e.status, e.timeout))
end
"""
_UPLOAD = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("x", %d)
"""


@frozen(kw_only=True)
class Counted:
    """
    What wrk counted.

    Attributes:
        requests: Answered to their end (count).
        bytes: Of answers, also of those that were not complete when the time was over.
        duration: Seconds.
        p50: Half the requests were answered within this time (seconds); p99 likewise.
        errors: Kind and number of failed requests; ``status`` is an answer of 400 or more.
    """

    requests: int
    bytes: int
    duration: float
    p50: float
    p99: float
    errors: dict[str, int]

    @property
    def problem(self) -> str:
        """
        Why this is no measurement; empty when it is one.
        """
        if self.errors:
            told = ", ".join(f"{name} {count}" for name, count in self.errors.items())
            return f"errors: {told}, of {self.requests} requests"
        return "" if self.requests else "no request was answered to its end"

    def answers(self, scenario: Scenario) -> float:
        """
        Requests that were answered, with the part that came of those that were under way at the
        end: of few large answers that is much.
        """
        if scenario.upload or scenario.size < 1 << 20:
            return float(self.requests)
        return self.bytes / scenario.size


def wrk_script(scenario: Scenario) -> str:
    """
    wrk's script for *scenario*, in Lua.
    """
    return _SCRIPT + (_UPLOAD % scenario.size if scenario.upload else "")


def read_counted(output: str) -> Counted:
    """
    What wrk printed with `wrk_script`.

    Raises:
        ValueError: It did not come to its end.
    """
    lines = [line for line in output.splitlines() if line.startswith(_MARK)]
    if not lines:
        raise ValueError(f"wrk did not count: {output.strip()[-500:]}")
    found = json.loads(lines[-1].removeprefix(_MARK))
    return Counted(
        requests=found["requests"],
        bytes=found["bytes"],
        duration=found["duration"] / 1e6,
        p50=found["p50"] / 1e6,
        p99=found["p99"] / 1e6,
        errors={name: found[name] for name in _ERRORS if found[name]},
    )


def run_wrk(scenario: Scenario, port: int, seconds: int, folder: Path) -> Counted:
    """
    Send *scenario* to *port* of 127.0.0.1.

    Raises:
        ProgramFailed: wrk did not come to its end.
    """
    script = folder / f"{scenario.name}.lua"
    script.write_text(wrk_script(scenario))
    options = ["-t1", f"-c{scenario.connections}", f"-d{seconds}s", "--timeout", "60s"]
    url = f"http://127.0.0.1:{port}{scenario.path}"
    try:
        ended = subprocess.run(
            ["wrk", *options, "-s", str(script), url],
            capture_output=True,
            text=True,
            timeout=seconds + _SPARE,
            check=False,
        )
        return read_counted(ended.stdout + ended.stderr)
    except (subprocess.TimeoutExpired, ValueError) as problem:
        raise ProgramFailed(str(problem)) from problem
