"""
The ``sglang-d-simulator`` command of ``twistd``.

Reading the options needs neither Pillow nor PyAV.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

from twisted.application.service import IService
from twisted.internet.interfaces import IReactorCore
from twisted.python import usage

from sgl_droute.commandline import CommandOptions, CommandService
from sgl_droute.simulator.faults import parse_orders
from sgl_droute.simulator.models import MODELS
from sgl_droute.simulator.settings import SimulatorSettings

NEEDED = ("PIL", "av", "msgpack")

N = TypeVar("N", int, float)


def missing_packages() -> list[str]:
    """
    The packages of the ``simulator`` extra that are not installed.
    """
    return [name for name in NEEDED if find_spec(name) is None]


def number(option: str, kind: Callable[[str], N]) -> Callable[[str], N]:
    """
    A coercer that names *option* when it complains.
    """

    def coerce(text: str) -> N:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"--{option}: not a number: {text!r}") from None

    return coerce


def _parameter(option: str, default: Any, text: str, kind: Callable[[str], Any] = str) -> list[Any]:
    coerce = kind if kind is str else number(option, kind)
    return [option, None, default, text, coerce]


class Options(CommandOptions):
    """
    The options of one simulated worker.
    """

    command = "sglang-d-simulator"
    synopsis = "[options]"
    longdesc = f"An SGLang diffusion worker without a GPU. Models: {', '.join(MODELS)}."

    optParameters = [  # noqa: RUF012  # Twisted's own spelling
        _parameter("host", "127.0.0.1", "Address to listen on."),
        _parameter("port", 30000, "TCP port; 0 takes a free one and logs it.", int),
        _parameter("listen-fd", None, "Serve on the listening socket with this descriptor.", int),
        _parameter("model", "qwen-image", "Model to pretend to serve."),
        _parameter("served-model-name", None, "Name of the model in cards and jobs."),
        _parameter("speed", 1.0, "Times faster than one H100.", float),
        _parameter("jitter", 0.0, "Random share of every duration, below 1.", float),
        _parameter("seed", 0, "Seed of that randomness.", int),
        _parameter("dp-size", 1, "Replicas, each doing one request at a time.", int),
        _parameter("load-time", 0.0, "Seconds before connections are accepted.", float),
        _parameter("warmup-time", 0.0, "Seconds of /health 503 after that.", float),
        _parameter("output-path", None, "Folder for results; a temporary one by default."),
        _parameter("journal", None, "Append what the GPU does to this file, as JSON lines."),
        _parameter("pictures", 0, "Draw so many different results only; 0 for no limit.", int),
        _parameter("video-side", 320, "Longest side of encoded video; 0 for the true size.", int),
        _parameter(
            "rollout-side", 64, "Longest side of rollout samples; 0 for the true size.", int
        ),
    ]
    optFlags = [  # noqa: RUF012
        ["verbose", None, "Log every request."],
        ["exit-with-stdin", None, "Stop when standard input ends."],
    ]

    settings: SimulatorSettings

    def __init__(self) -> None:
        super().__init__()
        self._faults: list[dict[str, object]] = []

    def opt_fault(self, document: str) -> None:
        """
        A fault document in JSON, in force from the start. May be given several times.
        """
        try:
            given = json.loads(document)
            parse_orders(given)
        except ValueError as error:
            raise usage.UsageError(f"--fault: {error}") from error
        self._faults.append(given)

    def postOptions(self) -> None:
        if self["model"] not in MODELS:
            raise usage.UsageError(f"--model: {self['model']!r} is none of {', '.join(MODELS)}")
        given = {name.replace("-", "_"): value for name, value in self.items()}
        flags = {name: bool(given[name]) for name in ("verbose", "exit_with_stdin")}
        try:
            self.settings = SimulatorSettings(**{**given, **flags, "faults": tuple(self._faults)})
        except ValueError as error:
            raise usage.UsageError(str(error.args[0])) from error


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def makeService(options: Options, reactor: IReactorCore | None = None) -> IService:
    """
    The service that *options* ask for.

    Args:
        reactor: For tests; the installed one by default.
    """
    absent = missing_packages()
    if absent:
        options.fail(f"needs {', '.join(absent)}: pip install 'sgl-droute[simulator]'")
    from sgl_droute.simulator.service import WorkerService

    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = installed
    if options.settings.exit_with_stdin:
        # Ctrl-C reaches every process of a terminal: whoever holds the other end of the pipe
        # decides when this one ends, and may still have requests for it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = CommandService(options, "info", reactor)
    WorkerService(reactor, options.settings, _kill).setServiceParent(process)
    return process
