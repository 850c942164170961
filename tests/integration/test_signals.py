"""
Signals to the commands: the first one drains, the second one ends at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_twisted
from attrs import frozen
from twisted.internet import error
from twisted.internet.task import deferLater

from tests.integration.answers import Answer, parse_answers
from tests.integration.commands import alive, children_of, fetch, free_port, once_up, ran, running
from tests.integration.sockets import (
    GET,
    Connection,
    connect,
    eventually,
    reactor,
    scripted_worker,
)
from tests.integration.test_commands import MODULE, SCRIPT, TWIST, TWISTD

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
LIVENESS = b"GET /liveness HTTP/1.1\r\nHost: router\r\n\r\n"
ALIVE = b'{"status":"ok"}'
# A good five seconds of a simulated worker.
STEPS = 3750
COMMANDS = [TWISTD, TWIST, MODULE, SCRIPT]
TERM, INT = signal.SIGTERM, signal.SIGINT


@frozen
class Busy:
    """
    A router process in front of a worker that has a request and has not answered.

    Attributes:
        client: Who asked.
        worker: The worker's end of that request.
    """

    process: subprocess.Popen[str]
    port: int
    client: Connection
    worker: Connection

    async def ended(self) -> int:
        """
        The return code, once the process has ended.
        """
        await eventually(lambda: self.process.poll() is not None, 10)
        return int(self.process.returncode)

    async def stop(self, number: signal.Signals) -> None:
        """
        Send a signal and return once no new connections are taken.
        """
        self.process.send_signal(number)
        await refusing(self.port)


async def refusing(port: int) -> None:
    """
    Return once connections to *port* are refused; fail after 10 s.
    """
    for _ in range(1000):
        try:
            trial = await connect(port)
        except error.ConnectionRefusedError:
            return
        except error.ConnectError:
            continue  # it was in line for a port that has just closed
        trial.transport.abortConnection()
        await trial.until_closed()
        await deferLater(reactor, 0.01)
    raise AssertionError("connections are taken on and on")


@asynccontextmanager
async def busy(
    folder: Path, *options: str, command: tuple[str, ...] = SCRIPT
) -> AsyncIterator[Busy]:
    port = free_port()
    async with scripted_worker() as worker:
        where = ("--host", "127.0.0.1", "--port", str(port), "--worker-urls", worker.url)
        with running(*command, *where, *options, cwd=folder) as process:
            once_up(f"http://127.0.0.1:{port}/liveness")
            await worker.connection()  # the health check
            client = await connect(port)
            client.write(GET)
            try:
                yield Busy(process, port, client, await worker.connection(1))
            finally:
                process.kill()
                client.transport.abortConnection()


def only_answer(client: Connection) -> Answer:
    """
    The one answer that *client* has, whole.
    """
    [answer], rest = parse_answers(client.received)
    assert rest == b""
    return answer


@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
@pytest_twisted.ensureDeferred
async def test_the_first_signal_drains(
    command: tuple[str, ...], number: signal.Signals, tmp_path: Path
) -> None:
    """
    SIGTERM and SIGINT refuse new connections, close idle ones and let a running answer end; then
    the process ends by that signal, without complaints.
    """
    async with busy(tmp_path, command=command) as router:
        idle = await connect(router.port)
        idle.write(LIVENESS)
        await idle.until_received(ALIVE)
        await router.stop(number)
        await idle.until_closed()
        assert not idle.reset
        assert router.process.poll() is None
        router.worker.write(HEAD + b"fine")
        await router.client.until_closed()
        assert not router.client.reset
        answer = only_answer(router.client)
        assert (answer.body, answer.closes) == (b"fine", True)
        assert await router.ended() == -number
    log = (tmp_path / "log").read_text()
    assert "stopping: answers running: " in log
    assert "stopping: all answers have ended" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("second", [TERM, INT])
@pytest.mark.parametrize("first", [TERM, INT])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
@pytest_twisted.ensureDeferred
async def test_the_second_signal_ends(
    command: tuple[str, ...], first: signal.Signals, second: signal.Signals, tmp_path: Path
) -> None:
    """
    During the drain another SIGTERM or SIGINT ends the process at once, by that signal.
    """
    async with busy(tmp_path, command=command) as router:
        await router.stop(first)
        assert router.process.poll() is None
        router.process.send_signal(second)
        assert await router.ended() == -second
        await router.client.until_closed()
        assert router.client.received == b""


@pytest.mark.parametrize("patience", ["0", "0.3"])
@pytest_twisted.ensureDeferred
async def test_late_answers_are_cut(patience: str, tmp_path: Path) -> None:
    """
    An answer that has not ended within ``--drain-timeout`` is reset, at 0 at once, and the process
    ends as ever.
    """
    async with busy(tmp_path, "--drain-timeout", patience) as router:
        router.worker.write(HEAD + b"fi")
        await router.client.until_received(b"fi")
        router.process.terminate()
        await router.client.until_closed()
        assert router.client.reset
        assert await router.ended() == -TERM
    assert "stopping: answers cut: 1" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
@pytest_twisted.ensureDeferred
async def test_a_hangup(command: tuple[str, ...], tmp_path: Path) -> None:
    """
    SIGHUP has the file read again, however the router was started; what is under way is answered,
    and the signals that end it still do.
    """
    file = tmp_path / "router.toml"
    file.write_text("queue-size = 5")
    async with busy(tmp_path, "--config", str(file), command=command) as router:
        file.write_text("queue-size = 7")
        router.process.send_signal(signal.SIGHUP)
        await eventually(lambda: "changed: queue-size" in (tmp_path / "log").read_text())
        router.worker.write(HEAD + b"fine")
        await router.client.until_received(b"fine")
        asked = await connect(router.port)
        asked.write(b"GET /config HTTP/1.1\r\nHost: router\r\n\r\n")
        await asked.until_received(b'"queue-size":{"value":7,"source":"file"')
        router.process.send_signal(TERM)
        assert await router.ended() == -TERM


@pytest_twisted.ensureDeferred
async def test_other_signals(tmp_path: Path) -> None:
    """
    Signals that mean nothing to the router do what they do to any program.
    """
    async with busy(tmp_path) as router:
        router.process.send_signal(signal.SIGUSR2)
        assert await router.ended() == -signal.SIGUSR2


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "lambda *_: None"])
@pytest_twisted.ensureDeferred
async def test_an_interrupt_that_is_not_ours(handler: str, tmp_path: Path) -> None:
    """
    SIGINT stays ignored where it was ignored at the start, as in the background of a shell script,
    and with whom it was, as under a debugger; during the drain too.
    """
    before = f"import signal; signal.signal(signal.SIGINT, {handler});"
    script = ("python", "-c", f"{before} from sgl_droute.tap import run; run()")
    async with busy(tmp_path, command=script) as router:
        router.process.send_signal(INT)
        await router.stop(TERM)
        router.process.send_signal(INT)
        router.worker.write(HEAD + b"fine")
        await router.client.until_closed()
        assert only_answer(router.client).body == b"fine"
        assert await router.ended() == -TERM


@pytest_twisted.ensureDeferred
async def test_a_daemon(tmp_path: Path) -> None:
    """
    A router in the background drains at ``kill $(cat twistd.pid)`` and takes that file away.
    """
    port = free_port()
    async with scripted_worker() as worker:
        where = ("--host", "127.0.0.1", "--port", str(port), "--worker-urls", worker.url)
        assert ran("twistd", "sglang-d-router", *where, cwd=tmp_path).returncode == 0
        pid = int((tmp_path / "twistd.pid").read_text())
        try:
            once_up(f"http://127.0.0.1:{port}/liveness")
            await worker.connection()
            client = await connect(port)
            client.write(GET)
            at_worker = await worker.connection(1)
            os.kill(pid, TERM)
            await refusing(port)
            assert alive(pid)
            at_worker.write(HEAD + b"fine")
            await client.until_closed()
            assert only_answer(client).body == b"fine"
            await eventually(lambda: not alive(pid), 10)
            assert not (tmp_path / "twistd.pid").exists()
        finally:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest_twisted.ensureDeferred
async def test_the_state_is_written_last(tmp_path: Path) -> None:
    """
    What changes during the drain is in the state file when the process has ended.
    """
    state = f"sqlite://{tmp_path}/state"
    async with busy(tmp_path, "--state", state) as router:
        late = await connect(router.port)
        # Once the first request is answered, the beginning of the second has arrived as well.
        late.write(LIVENESS + b"POST /workers?url=http://late:1 HTTP/1.1\r\nHost: x\r\n")
        await late.until_received(ALIVE)
        await router.stop(TERM)
        late.write(b"Content-Length: 0\r\n\r\n")
        await late.until_closed()
        assert [answer.status for answer in parse_answers(late.received)[0]] == [200, 200]
        router.worker.write(HEAD + b"fine")
        assert await router.ended() == -TERM
    port = free_port()
    with running(*SCRIPT, "--port", str(port), "--state", state, cwd=tmp_path):
        assert "http://late:1" in once_up(f"http://127.0.0.1:{port}/list_workers")["urls"]


@pytest_twisted.ensureDeferred
async def test_an_interrupt_at_the_keyboard(tmp_path: Path) -> None:
    """
    Ctrl-C reaches simulated workers too; they live on until their running answers have ended.
    """
    port = free_port()
    script = ("python", "-c", "import os; os.setsid(); from sgl_droute.tap import run; run()")
    with running(*script, "--port", str(port), "--simulated-workers", "2", cwd=tmp_path) as process:
        once_up(f"http://127.0.0.1:{port}/v1/models")
        children = children_of(process.pid)
        assert len(children) == 2
        client = await connect(port)
        body = json.dumps({"prompt": "a fox", "size": "512x512", "num_inference_steps": STEPS})
        client.write(
            b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body.encode())
        )
        await eventually(lambda: _in_flight(port) == 1)
        os.killpg(process.pid, INT)
        await refusing(port)
        assert client.received == b""
        await client.until_closed(30)
        assert only_answer(client).status == 200
        await eventually(lambda: process.poll() is not None, 10)
        assert process.returncode == -INT
        assert [child for child in children if alive(child)] == []


def _in_flight(port: int) -> int:
    workers = fetch(f"http://127.0.0.1:{port}/health_workers")["workers"]
    return sum(each["active_requests"] for each in workers)
