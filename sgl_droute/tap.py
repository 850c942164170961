"""
The router's command line, and the service made from it.

``twistd sglang-d-router`` and ``twist sglang-d-router`` read it through the plugin in
``twisted/plugins``. What the options mean is in `sgl_droute.settings`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import attrs
from twisted.application.service import IService
from twisted.internet.endpoints import quoteStringArgument
from twisted.logger import Logger
from twisted.python import usage

from sgl_droute.commandline import (
    CommandOptions,
    CommandService,
    check_listen,
    raise_open_files_limit,
)
from sgl_droute.errors import BadRequest
from sgl_droute.fleet.urls import normalise_worker_url
from sgl_droute.open_files import OTHER_FILES
from sgl_droute.service import RouterService
from sgl_droute.settings import RouterSettings, parse_count
from sgl_droute.simulator.children import SimulatedFleet
from sgl_droute.simulator.tap import missing_packages

log = Logger()

# Connections that may wait to be accepted: a burst of clients must not find the door shut.
_BACKLOG = 1024


def _parameters() -> list[list[Any]]:
    """
    The fields of `RouterSettings` that are options, as `usage.Options` wants them.
    """
    return [
        _parameter(name.replace("_", "-"), each.default, **each.metadata)
        for name, each in attrs.fields_dict(RouterSettings).items()
        if "read" in each.metadata
    ]


def _flags() -> list[list[Any]]:
    """
    The fields of `RouterSettings` that are on or off, as `usage.Options` wants them.
    """
    return [
        [name.replace("_", "-"), None, each.metadata["about"]]
        for name, each in attrs.fields_dict(RouterSettings).items()
        if each.metadata.keys() == {"about"}
    ]


def _parameter(
    option: str, default: object, about: str, read: Callable[[str], object]
) -> list[Any]:
    def named(value: object) -> object:
        # usage.Options reads the default too, which is no text.
        if not isinstance(value, str):
            return value
        try:
            return read(value)
        except ValueError as problem:
            raise ValueError(f"--{option}: {problem}") from problem

    return [option, None, default, about, named]


def _port(text: str) -> int:
    port = parse_count(text)
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port from 0 to 65535")
    return port


class Options(CommandOptions):
    """
    The options of ``sglang-d-router``; `settings` holds them once they are parsed.
    """

    command = "sglang-d-router"
    longdesc = "A router in front of SGLang diffusion workers."
    synopsis = "[options]"
    settings: RouterSettings

    optParameters = [  # noqa: RUF012
        ["host", None, "0.0.0.0", "Address to listen on."],
        _parameter("port", 30080, "TCP port to listen on; 0 takes a free one.", _port),
        *_parameters(),
    ]
    optFlags = [["verbose", "v", "The same as --log-level debug."], *_flags()]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["worker-urls"] = []

    def parseOptions(self, options: list[str] | None = None) -> None:
        super().parseOptions(repeated(sys.argv[1:] if options is None else options))

    def opt_listen(self, endpoint: str) -> None:
        """Twisted server endpoint to listen on, instead of host and port; repeatable."""
        self["listen"].append(endpoint)

    def opt_worker_urls(self, url: str) -> None:
        """Worker to register, http://host:port; several may follow, and it is repeatable."""
        try:
            self["worker-urls"].append(normalise_worker_url(url))
        except BadRequest as problem:
            raise usage.UsageError(f"--worker-urls: {problem}") from problem

    def postOptions(self) -> None:
        values = {name.replace("-", "_"): value for name, value in self.items()}
        known = {name: values[name] for name in attrs.fields_dict(RouterSettings)}
        if self["verbose"]:
            known["log_level"] = "debug"
        for option, *_ in _flags():
            known[option.replace("-", "_")] = bool(self[option])
        known["listen"] = self["listen"] or [self._host_and_port()]
        try:
            self.settings = RouterSettings(**known)
        except ValueError as problem:
            # attrs adds the attribute and the value behind the sentence, which names the field.
            sentence = re.sub(r"^'(\w+)'", _option_of, str(problem.args[0]))
            raise usage.UsageError(sentence) from problem

    def _host_and_port(self) -> str:
        host = quoteStringArgument(self["host"])
        return f"tcp:{self['port']}:interface={host}:backlog={_BACKLOG}"


def _option_of(field: re.Match[str]) -> str:
    return f"--{field[1].replace('_', '-')}"


def repeated(words: list[str]) -> list[str]:
    """
    *words* with every further URL behind ``--worker-urls`` given an option of its own:
    `usage.Options` would stop reading options at the first bare word.
    """
    out: list[str] = []
    listing = False
    for word in words:
        if listing and not word.startswith("-") and out[-1] != "--worker-urls":
            out.append("--worker-urls")
        elif word.startswith("-"):
            listing = word == "--worker-urls" or word.startswith("--worker-urls=")
        out.append(word)
    return out


def makeService(options: Options, reactor: Any = None) -> IService:
    """
    The whole router process as a service; not yet started.

    Args:
        reactor: For tests; the installed one if None.

    Raises:
        SystemExit: It cannot be started; the text is one line that says why.
    """
    if reactor is None:
        from twisted.internet import reactor
    settings = options.settings
    if settings.simulated_workers and missing_packages():
        options.fail("--simulated-workers needs: pip install 'sgl-droute[simulator]'")
    for description in settings.listen:
        try:
            check_listen(description)
        except Exception as problem:
            where = f"--listen {description}: " if options["listen"] else ""
            options.fail(f"{where}{problem or type(problem).__name__}")
    _check_open_files(settings)
    process = CommandService(options, settings.log_level, reactor)
    try:
        router = RouterService(reactor, settings)
    except ValueError as problem:
        options.fail(f"--state: {problem}")
    if settings.simulated_workers:
        fleet = SimulatedFleet(reactor, settings.simulated_workers, router.pool)
        fleet.setServiceParent(process)
    router.setServiceParent(process)
    return process


def run() -> None:
    """
    The installed script: ``sglang-d-router ...`` is ``twistd -n sglang-d-router ...``.
    """
    from twisted.scripts.twistd import run as twistd

    sys.argv[1:] = ["--nodaemon", "--pidfile=", Options.command, *sys.argv[1:]]
    twistd()


def _check_open_files(settings: RouterSettings) -> None:
    limit = raise_open_files_limit()
    # As many requests as are in flight may read what workers hold; each has a client besides.
    to_workers = settings.max_connections * 2
    needed = to_workers + (settings.max_clients or to_workers) + OTHER_FILES
    if limit < needed:
        log.warn(
            "{max} connections need {needed} open files, the limit is {limit}: raise it"
            " (ulimit -n, or LimitNOFILE= in a systemd unit) or lower --max-connections or"
            " --max-clients",
            max=settings.max_connections,
            needed=needed,
            limit=limit,
        )
