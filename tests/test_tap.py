"""
Options and the service made from them, without a process.
"""

from __future__ import annotations

import gc
import math
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent

from sgl_droute.api.http.site import RouterSite
from sgl_droute.commandline import CommandService, spare_the_collector
from sgl_droute.open_files import OTHER_FILES, clients_that_fit, open_files_limit
from sgl_droute.service import RouterService
from sgl_droute.settings import (
    RouterSettings,
    parse_concurrency,
    parse_count,
    parse_level,
    parse_patience,
    parse_seconds,
    parse_size,
)
from sgl_droute.tap import Options, makeService, repeated


def options(*words: str) -> Options:
    parsed = Options()
    parsed.parseOptions(list(words))
    return parsed


def test_defaults() -> None:
    """
    Without options the router listens on every address, port 30080, with the documented values.
    """
    assert options().settings == RouterSettings(
        listen=("tcp:30080:interface=0.0.0.0:backlog=1024",),
        worker_urls=(),
        max_connections=1000,
        max_clients=0,
        timeout=1800.0,
        connect_timeout=5.0,
        idle_timeout=300.0,
        read_timeout=60.0,
        drain_timeout=60.0,
        health_check_interval=10.0,
        health_check_timeout=5.0,
        health_check_failure_threshold=3,
        routing_algorithm="least-request",
        worker_concurrency=0,
        bind_ahead=1.0,
        job_accept_timeout=20.0,
        queue_size=10_000,
        queue_timeout=0.0,
        max_priority=10,
        fair=False,
        group_margin=2,
        record="",
        max_body_size=536_870_912,
        log_level="info",
        simulated_workers=0,
    )


def test_every_option(tmp_path: Path) -> None:
    """
    Each option arrives in the settings.
    """
    record = str(tmp_path / "flight.jsonl")
    settings = options(
        *("--host", "::1", "--port", "0", "--max-connections", "7", "--timeout", "1.5"),
        *("--connect-timeout", "2", "--idle-timeout", "3", "--read-timeout", "4"),
        *("--health-check-interval", "5", "--health-check-timeout", "6"),
        *("--health-check-failure-threshold", "8", "--routing-algorithm", "random"),
        *("--max-body-size", "2G", "--verbose", "--simulated-workers", "3"),
        *("--max-clients", "9", "--drain-timeout", "0", "--worker-concurrency", "auto"),
        *("--bind-ahead", "0", "--job-accept-timeout", "0", "--queue-size", "0"),
        *("--queue-timeout", "11.5", "--max-priority", "0", "--fair", "--group-margin", "0"),
        *("--record", record),
        *("--worker-urls", "http://A:1/", "http://b:2", "--worker-urls=https://c"),
    ).settings
    assert settings == RouterSettings(
        listen=("tcp:0:interface=\\:\\:1:backlog=1024",),
        worker_urls=("http://a:1", "http://b:2", "https://c"),
        max_connections=7,
        max_clients=9,
        timeout=1.5,
        connect_timeout=2.0,
        idle_timeout=3.0,
        read_timeout=4.0,
        drain_timeout=0.0,
        health_check_interval=5.0,
        health_check_timeout=6.0,
        health_check_failure_threshold=8,
        routing_algorithm="random",
        worker_concurrency="auto",
        bind_ahead=0.0,
        job_accept_timeout=0.0,
        queue_size=0,
        queue_timeout=11.5,
        max_priority=0,
        fair=True,
        group_margin=0,
        record=record,
        max_body_size=2 << 30,
        log_level="debug",
        simulated_workers=3,
    )


def test_flags_are_booleans() -> None:
    """
    What is on or off is true or false, given or not.
    """
    for words, expected in ([], False), (["--fair", "--strict-model"], True):
        settings = options(*words).settings
        assert (settings.fair, settings.strict_model) == (expected, expected)
        assert (type(settings.fair), type(settings.strict_model)) == (bool, bool)


@pytest.mark.parametrize(
    ("text", "read"), [("0", 0), (" 12", 12), ("auto", "auto"), ("AUTO", "auto")]
)
def test_concurrency(text: str, read: int | str) -> None:
    """
    A concurrency is a count, or ``auto`` in any case.
    """
    assert options("--worker-concurrency", text).settings.worker_concurrency == read


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--worker-concurrency", "-1"], "--worker-concurrency: '-1' is not a whole number"),
        (["--worker-concurrency", "1.5"], "--worker-concurrency: '1.5' is not a whole number"),
        (["--worker-concurrency", "all"], "'all' is not a whole number, 0 or more, or auto"),
        (["--bind-ahead", "-0.1"], "--bind-ahead: '-0.1' is not a number of seconds, 0 or more"),
        (["--job-accept-timeout", "nan"], "--job-accept-timeout: 'nan' is not a number"),
        (["--queue-timeout", "inf"], "--queue-timeout: 'inf' is not a number of seconds"),
        (["--queue-size", "-1"], "--queue-size must be >= 0: -1"),
        (["--max-priority", "-1"], "--max-priority must be >= 0: -1"),
        (["--group-margin", "-1"], "--group-margin must be >= 0: -1"),
        (["--record", "/no/such/folder/x"], "--record: there is no folder /no/such/folder"),
        (["--record", "/dev/null/x"], "--record: there is no folder /dev/null"),
        (["--record", "/"], "--record: / is a folder, not a file"),
    ],
)
def test_values_out_of_range(words: list[str], sentence: str) -> None:
    """
    A bad value is refused before anything starts, in one line that names its option.
    """
    with pytest.raises(SystemExit) as refused:
        options(*words)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_record_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A record named by a relative path is in the folder where the router was started, wherever it
    goes from there; an existing file is as good as a new one.
    """
    monkeypatch.chdir(tmp_path)
    assert options("--record", "x.jsonl").settings.record == str(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").touch()
    assert options("--record", "x.jsonl").settings.record == str(tmp_path / "x.jsonl")
    assert options("--record", "").settings.record == ""


def test_listen_replaces_host_and_port() -> None:
    """
    Endpoints given by ``--listen`` are the only ones.
    """
    settings = options("--port", "1", "--listen", "unix:/x", "--listen", "tcp:2").settings
    assert settings.listen == ("unix:/x", "tcp:2")


@pytest.mark.parametrize(
    ("words", "expanded"),
    [
        ([], []),
        (["--worker-urls", "a", "b"], ["--worker-urls", "a", "--worker-urls", "b"]),
        (["--worker-urls=a", "b", "-v"], ["--worker-urls=a", "--worker-urls", "b", "-v"]),
        (
            ["--worker-urls", "a", "b", "--port", "1", "--worker-urls", "c"],
            ["--worker-urls", "a", "--worker-urls", "b", "--port", "1", "--worker-urls", "c"],
        ),
        (["--port", "1", "a"], ["--port", "1", "a"]),
    ],
)
def test_lists_of_urls(words: list[str], expanded: list[str]) -> None:
    """
    Words behind ``--worker-urls`` become options of their own, and no others do.
    """
    assert repeated(words) == expanded


@given(st.lists(st.lists(st.from_regex(r"[a-z:/]{1,8}", fullmatch=True), min_size=1), max_size=4))
def test_any_grouping_of_urls(groups: list[list[str]]) -> None:
    """
    However URLs are spread over repeated options, all arrive in order.
    """
    words = [word for group in groups for word in ("--worker-urls", *group)]
    assert repeated(words)[1::2] == [url for group in groups for url in group]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("64k", 65536),
        ("512M", 536_870_912),
        ("2G", 2 << 30),
        ("1T", 1 << 40),
        ("1KiB", 1024),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """
    Suffixes are powers of 1024.
    """
    assert parse_size(text) == size


@given(st.text(max_size=12))
def test_any_value(text: str) -> None:
    """
    A reader gives a value in its range or a `ValueError` with one sentence.
    """
    for read in (
        parse_size,
        parse_seconds,
        parse_patience,
        parse_count,
        parse_concurrency,
        parse_level,
    ):
        try:
            value = read(text)
        except ValueError:
            continue
        assert read is not parse_seconds or (isinstance(value, float) and 0 < value < math.inf)
        assert read is not parse_patience or (isinstance(value, float) and 0 <= value < math.inf)
        assert read is not parse_concurrency or value == "auto" or int(value) >= 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0.0},
        {"timeout": float("inf")},
        {"max_connections": 0},
        {"max_clients": -1},
        {"drain_timeout": -1.0},
        {"drain_timeout": float("inf")},
        {"health_check_failure_threshold": 0},
        {"routing_algorithm": "fastest"},
        {"worker_urls": ["http://169.254.169.254"]},
        {"simulated_workers": -1},
        {"log_level": "loud"},
        {"worker_concurrency": -1},
        {"worker_concurrency": True},
        {"worker_concurrency": "many"},
        {"bind_ahead": -1.0},
        {"job_accept_timeout": float("inf")},
        {"queue_size": -1},
        {"queue_timeout": float("nan")},
        {"max_priority": -1},
        {"group_margin": -1},
        {"record": "/no/such/folder/x"},
    ],
)
def test_settings_check_themselves(wrong: dict[str, object]) -> None:
    """
    A record with a value outside its range cannot be made.
    """
    with pytest.raises(ValueError, match=r"\w+"):
        RouterSettings(**wrong)  # type: ignore[arg-type]


class _Taken(Service):
    def privilegedStartService(self) -> None:
        raise CannotListenError("any", 1, OSError("in use"))

    startService = privilegedStartService


@pytest.mark.parametrize("start", ["privilegedStartService", "startService"])
def test_a_port_that_is_taken_late(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A port taken between the check and the start ends the program with one line too.
    """
    told = StringIO()
    monkeypatch.setattr(sys, "__stderr__", told)
    service = CommandService(Options(), "info", MemoryReactorClock())
    service.addService(_Taken())
    with pytest.raises(SystemExit) as ended:
        getattr(service, start)()
    assert ended.value.code == 1
    assert told.getvalue() == "sglang-d-router: Couldn't listen on any:1: in use.\n"


@given(st.integers(OTHER_FILES + 2, 1 << 20), st.integers(1, 1 << 20))
def test_clients_that_fit(limit: int, max_connections: int) -> None:
    """
    Clients, connections to workers and what else is open stay below the limit, and at least half
    of it is for clients.
    """
    clients = clients_that_fit(limit, max_connections)
    free = limit - OTHER_FILES
    assert clients >= free / 2
    assert clients + min(max_connections, free // 2) == free


@pytest.mark.parametrize(
    ("limit", "max_connections", "clients"),
    [(20_000, 1000, 18_744), (20_000, 9000, 10_744), (1024, 1000, 384), (256, 1000, 1), (0, 1, 1)],
)
def test_clients_that_fit_some_limits(limit: int, max_connections: int, clients: int) -> None:
    """
    Usual limits leave room for far more clients than requests in flight, low ones for half.
    """
    assert clients_that_fit(limit, max_connections) == clients


class _Slow(Service):
    """Stops when the test says so."""

    def __init__(self, name: str, stops: list[str]) -> None:
        self._name = name
        self._stops = stops
        self.stopped: Deferred[None] = Deferred()

    def stopService(self) -> Deferred[None]:
        self._stops.append(self._name)
        return self.stopped


def test_services_stop_in_turn() -> None:
    """
    A service of a command stops when the one added after it has stopped.
    """
    stops: list[str] = []
    service = CommandService(Options(), "info", MemoryReactorClock())
    first, second = _Slow("first", stops), _Slow("second", stops)
    for each in (first, second):
        each.setServiceParent(service)
    service.startService()
    done: list[object] = []
    service.stopService().addBoth(done.append)
    assert stops == ["second"]
    second.stopped.callback(None)
    assert stops == ["second", "first"]
    assert done == []
    first.stopped.callback(None)
    assert done == [None]


@pytest.mark.logs_failures
def test_a_service_that_does_not_stop_well(logged: list[LogEvent]) -> None:
    """
    A service that fails to stop is logged, and the others stop all the same.
    """
    stops: list[str] = []
    service = CommandService(Options(), "info", MemoryReactorClock())
    first, second = _Slow("first", stops), _Slow("second", stops)
    for each in (first, second):
        each.setServiceParent(service)
    second.stopped.errback(OSError("broken"))
    first.stopped.callback(None)
    done: list[object] = []
    service.stopService().addBoth(done.append)
    assert (stops, done) == (["second", "first"], [None])
    assert any("did not stop well" in str(event.get("log_format")) for event in logged)


def test_make_service_takes_a_reactor() -> None:
    """
    With a reactor given, the installed one is left alone.
    """
    reactor = MemoryReactorClock()
    service = makeService(options("--port", "0"), reactor)
    service.startService()
    [listening] = reactor.tcpServers
    assert listening[0] == 0
    service.stopService()


@pytest.mark.parametrize(
    ("given", "most"), [(0, clients_that_fit(open_files_limit(), 5)), (12, 12)], ids=["0", "12"]
)
def test_most_clients(given: int, most: int) -> None:
    """
    Without a number of its own the limit for clients is what the limit of open files leaves.
    """
    settings = RouterSettings(max_clients=given, max_connections=5)
    assert RouterService(MemoryReactorClock(), settings).site().max_clients == most


def test_one_limit_for_all_ports() -> None:
    """
    The ports of a router share one site, and so one limit for clients.
    """
    reactor = MemoryReactorClock()
    service = RouterService(reactor, RouterSettings(listen=["tcp:1", "tcp:2"]))
    service.startService()
    [site, other] = [listening[1] for listening in reactor.tcpServers]
    assert isinstance(site, RouterSite)
    assert site is other
    service.stopService()


def test_the_collector_is_spared() -> None:
    """
    What is there when the program starts is never looked at again by the garbage collector.
    """
    before = gc.get_threshold()
    try:
        spare_the_collector()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] > before[0]
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_keys_that_are_taken_away(logged: list[LogEvent], tmp_path: Path) -> None:
    """
    A router that a reload leaves without keys warns of it as at its start.
    """
    digest = "0" * 64
    (tmp_path / "keys").write_text(f"a sha256:{digest}")
    file = tmp_path / "router.toml"
    file.write_text('listen = ["tcp:0"]\napi-keys = "keys"')
    process: Any = makeService(options("--config", str(file)), MemoryReactorClock())

    def warned() -> list[str]:
        return [each["warning"] for each in logged if "warning" in each]

    assert warned() == []
    file.write_text('listen = ["tcp:0"]')
    process.on_hangup()
    (warning,) = warned()
    assert warning.startswith("Listening on tcp:0 without --api-keys and --admin-keys:")
