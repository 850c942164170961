"""
The router's command line, and the service made from it.

``twistd sglang-d-router`` and ``twist sglang-d-router`` read it through the plugin in
``twisted/plugins``. What the options mean is in `sgl_droute.settings`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from sgl_droute.api.entry.unlocked import unlocked
from sgl_droute.api.telemetry.tracing import open_tracing
from sgl_droute.commandline import (
    CommandOptions,
    CommandService,
    check_listen,
    raise_open_files_limit,
)
from sgl_droute.configuration import Configuration, sources_of
from sgl_droute.open_files import OTHER_FILES
from sgl_droute.options import OPTIONS, Option, parse_worker
from sgl_droute.service import RouterService
from sgl_droute.settings import RouterSettings
from sgl_droute.simulator.children import SimulatedFleet
from sgl_droute.simulator.tap import missing_packages
from sgl_droute.state.database import StateError

log = Logger()


def _parameter(option: Option) -> list[Any]:
    """
    *option* as `usage.Options` wants it.
    """
    spelled = f"--{option.spelling}"

    def read(text: str) -> object:
        return option.from_text(text, spelled)

    # What is empty is not worth a word in the help.
    default = None if option.default in ("", ()) else option.default
    return [option.spelling, None, default, option.about, read]


def _is_flag(option: Option) -> bool:
    return isinstance(option.default, bool)


# Those that can be told more than once.
_REPEATABLE = ("listen", "worker_urls")
_FLAGS = [each for each in OPTIONS.values() if _is_flag(each)]
_PARAMETERS = [
    each for each in OPTIONS.values() if not _is_flag(each) and each.name not in _REPEATABLE
]


class Options(CommandOptions):
    """
    The options of ``sglang-d-router``; once they are parsed `configuration` holds what they, the
    environment and the file say.
    """

    command = "sglang-d-router"
    longdesc = (
        "A router in front of SGLang diffusion workers. Each option can be set in a TOML file as"
        " well, named by --config, and in the environment: SGL_DROUTE_QUEUE_SIZE for --queue-size."
        " The command line decides over the environment, and that over the file; SIGHUP has the"
        " file read again."
    )
    synopsis = "[options]"
    configuration: Configuration

    optParameters = [  # noqa: RUF012
        ["config", None, None, "TOML file with options and workers."],
        *(_parameter(each) for each in _PARAMETERS),
    ]
    optFlags = [  # noqa: RUF012
        ["verbose", "v", "The same as --log-level debug."],
        *([each.spelling, None, each.about] for each in _FLAGS),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.clear()  # of defaults: what is here was given

    @property
    def settings(self) -> RouterSettings:
        """Every option."""
        return self.configuration.settings

    def parseOptions(self, options: list[str] | None = None) -> None:
        super().parseOptions(repeated(sys.argv[1:] if options is None else options))

    def opt_listen(self, endpoint: str) -> None:
        """Twisted server endpoint to listen on, instead of host and port; repeatable."""
        self.setdefault("listen", []).append(endpoint)

    def opt_worker_urls(self, url: str) -> None:
        """Worker to register, http://host:port; several may follow, and it is repeatable."""
        try:
            self.setdefault("worker-urls", []).extend(parse_worker(url))
        except ValueError as problem:
            raise usage.UsageError(f"--worker-urls: {problem}") from problem

    def postOptions(self) -> None:
        given = {name.replace("-", "_"): value for name, value in self.items()}
        given.update({each.name: True for each in _FLAGS if each.name in given})
        given.update({name: tuple(given[name]) for name in _REPEATABLE if name in given})
        config = given.pop("config", None)
        if given.pop("verbose", False):
            given["log_level"] = "debug"
        try:
            self.configuration = sources_of(given, os.environ, config).read()
        except ValueError as problem:
            raise usage.UsageError(str(problem)) from problem


def _warn_if_unlocked(settings: RouterSettings) -> None:
    warning = unlocked(settings)
    if warning is not None:
        log.warn("{warning}", warning=warning)


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
            made = "port" in options.configuration.sources
            where = "" if made else f"--listen {description}: "
            options.fail(f"{where}{problem or type(problem).__name__}")
    _check_open_files(settings)
    process = CommandService(options, settings.log_level, reactor, settings.log_format)
    try:
        router = RouterService(reactor, configuration=options.configuration)
    except StateError as problem:
        options.fail(f"--state: {problem}")
    except ValueError as problem:
        options.fail(problem)
    _warn_if_unlocked(settings)
    router.following.call(_warn_if_unlocked)
    tracing = open_tracing(os.environ)
    if tracing is not None:
        router.trace(tracing)
    router.following.call(lambda settings: process.set_log_level(settings.log_level))
    process.on_hangup = router.reloading.reload_by_signal
    if settings.simulated_workers:
        fleet = SimulatedFleet(
            reactor, settings.simulated_workers, router.pool, router.control.networks
        )
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
