"""
The workers of a benchmark: started here, simulated or real, or running already.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from bench.harness.children import Child, ChildFailed, Children
from bench.harness.client import Caller
from bench.harness.machine import GPU, gpus, why_simulated
from bench.harness.options import Settings
from bench.harness.ports import WorkerPorts, is_free, listening_sockets, worker_ports
from bench.harness.together import together
from sgl_droute.simulator.models import MODELS

# A simulated worker draws only so many different pictures: drawing must not be what is measured.
PICTURES = 16
HEALTH_INTERVAL = 0.2
HEALTH_TIMEOUT = 10.0


@define(eq=False)
class Fleet:
    """
    Workers that take requests.

    Attributes:
        kind: ``simulated``, ``sglang`` or ``running``.
        urls: Their base URLs.
    """

    kind: str
    urls: tuple[str, ...]
    _children: tuple[Child, ...] = field(default=())

    def check_running(self) -> None:
        """
        Raises:
            ChildFailed: A worker that was started here is gone.
        """
        for child in self._children:
            child.check_running()


def how_simulated(settings: Settings) -> str | None:
    """
    Why the workers of a benchmark are simulated; None when they are not.

    Raises:
        ValueError: The simulator does not know the model.
    """
    why = "asked for" if settings.simulate else None
    if settings.simulate is None and not settings.skip_workers:
        why = why_simulated()
    if why is not None and settings.known_model is None:
        raise ValueError(
            f"workers are simulated ({why}), and --model {settings.model} is none of"
            f" {', '.join(MODELS)}"
        )
    return why


def start_simulated(children: Children, settings: Settings) -> Fleet:
    """
    Simulated workers; they end when their standard input does.
    """
    speeds = settings.worker_speeds or (1.0,) * settings.num_workers
    started, urls = [], []
    with ExitStack() as closing:
        for number, listening in enumerate(listening_sockets(len(speeds))):
            closing.enter_context(listening)
            command = simulator_command(settings, number, speeds[number])
            started.append(
                children.start(f"worker {number}", command, inherited=[listening.fileno()])
            )
            urls.append(f"http://127.0.0.1:{listening.getsockname()[1]}")
    return Fleet("simulated", tuple(urls), tuple(started))


def simulator_command(settings: Settings, number: int, speed: float) -> list[str]:
    """
    Runs simulated worker *number* on the socket that is descriptor 3.
    """
    model = next(name for name, model in MODELS.items() if model == settings.known_model)
    options = {
        "listen-fd": "3",
        "model": model,
        "speed": f"{settings.speed * speed:g}",
        "jitter": f"{settings.jitter:g}",
        "seed": str(settings.seed + number),
        "pictures": str(PICTURES),
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    return [*twist(), "sglang-d-simulator", "--exit-with-stdin", *arguments]


def start_sglang(children: Children, settings: Settings, folder: Path) -> Fleet:
    """
    ``sglang serve`` workers on this machine.

    Args:
        folder: Where they keep results.

    Raises:
        ValueError: There are too few GPUs or ports.
    """
    ports = worker_ports(settings.num_workers, settings.worker_base_port, is_free)
    devices = shared_out(gpus(), settings.num_workers, settings.num_gpus_per_worker)
    started = [
        children.start_guarded(
            f"worker {number}",
            sglang_command(settings, own, folder / f"outputs-{number}"),
            env={"CUDA_VISIBLE_DEVICES": devices[number]} if devices else None,
        )
        for number, own in enumerate(ports)
    ]
    urls = tuple(f"http://127.0.0.1:{own.http}" for own in ports)
    return Fleet("sglang", urls, tuple(started))


def sglang_command(settings: Settings, ports: WorkerPorts, outputs: Path) -> list[str]:
    """
    Runs one real worker.
    """
    model = settings.known_model if settings.model in MODELS else None
    options = {
        "model-path": model.path if model is not None else settings.model,
        "host": "127.0.0.1",
        "port": ports.http,
        "strict-ports": "true",
        "master-port": ports.master,
        "scheduler-port": ports.scheduler,
        "num-gpus": settings.num_gpus_per_worker,
        "output-path": outputs,
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    # Its counters say how many generations it had.
    return ["sglang", "serve", *arguments, "--enable-metrics", *settings.worker_extra_args]


def shared_out(found: Sequence[GPU], workers: int, each: int) -> list[str]:
    """
    ``CUDA_VISIBLE_DEVICES`` for each worker; nothing when no GPU was found.

    Raises:
        ValueError: There are too few.
    """
    if not found:
        return []
    if len(found) < workers * each:
        raise ValueError(
            f"{workers} workers with {each} GPUs each need {workers * each} GPUs, "
            f"this machine has {len(found)}"
        )
    names = [gpu.name for gpu in found]
    return [",".join(names[start : start + each]) for start in range(0, workers * each, each)]


async def wait_until_healthy(
    caller: Caller, urls: Sequence[str], timeout: float, running: Any
) -> None:
    """
    Wait for ``GET /health`` of all *urls* to be 200.

    Args:
        running: Has `check_running`, which raises when there is nothing more to wait for.

    Raises:
        ChildFailed: It did, or *timeout* seconds have passed.
    """
    deadline = caller.reactor.seconds() + timeout
    await together(_until_healthy(caller, url, deadline, running) for url in urls)


async def _until_healthy(caller: Caller, url: str, deadline: float, running: Any) -> None:
    last = "no answer"
    while caller.reactor.seconds() < deadline:
        running.check_running()
        try:
            answer = await caller.get(f"{url}/health", HEALTH_TIMEOUT)
        except CancelledError:
            raise
        except Exception as error:
            last = type(error).__name__
        else:
            if answer.status == 200:
                return
            last = answer.complaint()
        await deferLater(caller.reactor, HEALTH_INTERVAL)
    running.check_running()
    raise ChildFailed(f"{url} was not ready in time: {last}")


def twist() -> list[str]:
    """
    Runs a Twisted plugin with its log as text on standard output.
    """
    return [sys.executable, "-m", "twisted", "--log-format=text"]
