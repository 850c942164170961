"""
A configuration that is read again: what follows it at once, what needs a restart, and what is
refused without a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent

from sgl_droute.configuration import sources_of
from sgl_droute.errors import BadRequest
from sgl_droute.reloading import NEED_RESTART, Following, Reloaded
from sgl_droute.service import RouterService
from sgl_droute.settings import RouterSettings
from tests.api.test_keyfiles import entry

READ_WHEN_USED = {
    "drain_timeout",  # at the stop
    "job_accept_timeout",  # with each request, as the next two
    "max_priority",
    "queue_timeout",
    "log_level",  # by the process, see test_tap
    "worker_urls",  # see the tests of workers
}


class Process:
    """
    A router whose file can be written anew.

    Attributes:
        router: Made from the file, not started.
        path: The file.
    """

    def __init__(self, folder: Path, text: str = "", **given: Any) -> None:
        self.path = folder / "router.toml"
        self.path.write_text(text)
        configuration = sources_of(given, {}, str(self.path)).read()
        self.reactor = MemoryReactorClock()
        self.router = RouterService(self.reactor, configuration=configuration)

    def reloaded(self, text: str) -> Reloaded:
        """What comes of *text* as the file."""
        self.path.write_text(text)
        return self.router.reloading.reload()

    @property
    def urls(self) -> list[str]:
        return [worker.url for worker in self.router.pool]


def of(router: RouterService) -> Any:
    """The parts of *router*, private ones too."""
    return router


# One other value for each option that can change, as a file has it, and where it is then in force.
FOLLOWED: dict[str, tuple[str, Callable[[Any], Any], Any]] = {
    "max_clients": ("77", lambda router: next(iter(router._sites)).max_clients, 77),
    "max_connections": ("9", lambda router: router.turns.scheduler.rules.max_running, 9),
    "timeout": ("31", lambda router: router.control.broadcasts.client.timeout, 31.0),
    "connect_timeout": ("2", lambda router: router.control.roads.probes.connect_timeout, 2.0),
    "idle_timeout": ("3", lambda router: next(iter(router._sites)).idle_timeout, 3.0),
    "read_timeout": ("4", lambda router: next(iter(router._sites)).read_timeout, 4.0),
    "max_body_size": ("'1K'", lambda router: next(iter(router._sites)).max_body_size, 1024),
    "health_check_interval": ("6", lambda router: router.control.monitor.interval, 6.0),
    "health_check_timeout": ("7", lambda router: router.control.monitor.client.timeout, 7.0),
    "health_check_failure_threshold": ("8", lambda router: router.control.monitor.threshold, 8),
    "readmit_after": ("5", lambda router: router.control.monitor.readmit, 5),
    "stale_weights": ("'serve'", lambda router: router.pool.epochs.tolerant, True),
    "routing_algorithm": (
        "'least-work'",
        lambda router: router.turns.scheduler.floor.placement.by_work,
        True,
    ),
    "worker_concurrency": ("3", lambda router: router.turns.scheduler.rules.concurrency, 3),
    "bind_ahead": ("0.5", lambda router: router.turns.scheduler.floor.rules.bind_ahead, 0.5),
    "queue_size": ("11", lambda router: router.turns.scheduler.rules.queue_size, 11),
    "fair": ("true", lambda router: router.turns.scheduler.line.fair, True),
    "group_margin": (
        "4",
        lambda router: router.turns.scheduler.floor.placement.group_margin,
        4,
    ),
    "strict_model": ("true", lambda router: router.turns.scheduler.rules.strict_model, True),
    "job_poll_interval": ("1.5", lambda router: router.control.jobs.interval, 1.5),
    "allow_file_fields": ("true", lambda router: router._door.file_fields, True),
    "api_keys": ("'keys'", lambda router: router._door.keyring.inference, True),
    "admin_keys": ("'keys'", lambda router: router._door.keyring.management, True),
    "add_worker_allow": (
        "['10.0.0.0/8']",
        lambda router: router.control.networks.limit("http://unnamed:1"),
        True,
    ),
    "cors_origins": ("['https://a']", lambda router: router._cors.origins, ("https://a",)),
    "webhook_hosts": (
        "['a.example']",
        lambda router: router.control.webhooks.hosts.have("http://a.example"),
        True,
    ),
    "webhook_secret": ("'keys'", lambda router: bool(router.control.webhooks.secret), True),
    "queue_alert": ("12", lambda router: router.telemetry.reporter.alarm.threshold, 12),
}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(entry("one", "sk-one"))
    return path


def changeable() -> Iterator[str]:
    for each in attrs.fields(RouterSettings):
        if each.name not in NEED_RESTART | READ_WHEN_USED:
            yield each.name


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("name", list(changeable()))
def test_every_option_that_can_change_does(name: str, tmp_path: Path) -> None:
    """
    What the file says anew of an option is in force at once where it is used, and was not before.
    """
    text, look, expected = FOLLOWED[name]
    process = Process(tmp_path)
    assert look(of(process.router)) != expected
    reloaded = process.reloaded(f"{name.replace('_', '-')} = {text}")
    assert reloaded == Reloaded(changed=(name,))
    assert look(of(process.router)) == expected
    assert process.reloaded("") == Reloaded(changed=(name,))
    assert look(of(process.router)) != expected


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("name", list(changeable()))
def test_every_option_holds_from_the_start(name: str, tmp_path: Path) -> None:
    """
    What the file says of an option when the router is made is in force where it is used.
    """
    text, look, expected = FOLLOWED[name]
    process = Process(tmp_path, f"{name.replace('_', '-')} = {text}")
    assert look(of(process.router)) == expected


@pytest.mark.parametrize("name", sorted(NEED_RESTART - {"worker_ca", "worker_certificate"}))
def test_what_needs_a_restart(name: str, tmp_path: Path) -> None:
    """
    An option that a running router cannot change stays as it is, and is told of, here and in what
    is shown, until the file says again what is in force.
    """
    values = {
        "job_ttl": "3",
        "listen": "['tcp:1']",
        "log_format": "'json'",
        "record": "'flight.jsonl'",
        "simulated_workers": "1",
        "state": "'sqlite:s.db'",
    }
    process = Process(tmp_path)
    before = process.router.settings
    spelled = name.replace("_", "-")
    assert process.reloaded(f"{spelled} = {values[name]}") == Reloaded(needs_restart=(name,))
    assert process.router.settings == before
    shown = process.router.reloading.shown()
    assert shown["needs_restart"] == [spelled]
    assert shown["options"][spelled]["after_restart"] != shown["options"][spelled]["value"]
    assert process.reloaded("") == Reloaded()
    assert process.router.reloading.shown()["needs_restart"] == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("queue-sise = 1", "line 1: there is no option queue-sise; did you mean queue-size?"),
        ("fair = true\ntimeout = -1", "line 2: timeout: '-1' is not a number of seconds above 0"),
        ("api-keys = 'nowhere'", "there is no file"),
        ("webhook-hosts = ['!']\nfair = true", "line 1: webhook-hosts: '!' is no host name"),
        ("webhook-secret = 'empty'", "The webhook secret is empty"),
        ("admin-keys = 'broken'", "broken, line 1"),
    ],
)
def test_a_broken_file_changes_nothing(text: str, sentence: str, tmp_path: Path) -> None:
    """
    What cannot be read or had is refused with one sentence, and all stays as it was.
    """
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "broken").write_text("what is this\n")
    process = Process(tmp_path, "queue-size = 5")
    before, shown = process.router.settings, process.router.reloading.shown()
    with pytest.raises(BadRequest, match="The configuration stays as it was: ") as refused:
        process.reloaded(text)
    assert sentence in str(refused.value)
    assert process.router.settings == before
    assert process.router.reloading.shown() == shown
    assert process.reloaded("queue-size = 6").changed == ("queue_size",)


def test_the_command_line_keeps_the_last_word(tmp_path: Path) -> None:
    """
    A file that changes an option that the command line decided changes nothing.
    """
    process = Process(tmp_path, "queue-size = 5", queue_size=7)
    assert process.reloaded("queue-size = 6") == Reloaded()
    assert process.router.settings.queue_size == 7
    shown = process.router.reloading.shown()["options"]["queue-size"]
    assert shown == {"value": 7, "source": "command line", "changeable": True}


def test_workers_come_change_and_go(tmp_path: Path) -> None:
    """
    A worker that the file names anew is registered, one that it names no more drains and leaves,
    and what it says anew of one holds; one that was added by hand is left alone.
    """
    process = Process(tmp_path, "worker-urls = ['http://a', 'http://b']")
    process.router.pool.add("http://hand")
    text = "[[workers]]\nurl = 'http://b'\nspeed = 2.0\n[[workers]]\nurl = 'http://c'\n"
    reloaded = process.reloaded(text)
    assert reloaded == Reloaded(added=("http://c",), removed=("http://a",), modified=("http://b",))
    assert process.urls == ["http://b", "http://hand", "http://c"]
    assert process.router.pool["http://b"].speed == 2.0
    assert process.reloaded(text) == Reloaded()


def test_a_busy_worker_drains_before_it_leaves(tmp_path: Path) -> None:
    """
    A worker that the file names no more ends what it has first, and comes back as a new one if it
    is named again before.
    """
    process = Process(tmp_path, "worker-urls = ['http://a']")
    pool = process.router.pool
    with pool.visit(pool["http://a"]):
        assert process.reloaded("") == Reloaded(removed=("http://a",))
        assert pool["http://a"].state == "draining"
        assert process.reloaded("worker-urls = ['http://a']").added == ("http://a",)
        assert pool["http://a"].state != "draining"
    assert process.urls == ["http://a"]


def test_what_an_operator_said_stays(tmp_path: Path) -> None:
    """
    A file that says the same of a worker as before does not undo what an operator said since.
    """
    text = "[[workers]]\nurl = 'http://a'\nconcurrency = 2\n"
    process = Process(tmp_path, text)
    pool = process.router.pool
    pool.change(pool["http://a"], lambda worker: attrs.evolve(worker, concurrency=5))
    process.reloaded(text + "# a comment\n")
    assert pool["http://a"].concurrency == 5
    process.reloaded(text.replace("2", "3"))
    assert [worker.concurrency for worker in pool] == [3]


def test_health_checks_keep_the_new_pace_at_once(tmp_path: Path) -> None:
    """
    A shorter interval does not wait for the end of a longer one.
    """
    process = Process(tmp_path, "worker-urls = ['http://127.0.0.1:9']\nhealth-check-interval = 900")
    monitor = of(process.router).control.monitor
    asked: list[float] = []

    def check(worker: object) -> Deferred[None]:
        asked.append(process.reactor.seconds())
        return succeed(None)

    monitor.check = check
    monitor.startService()
    process.reloaded("worker-urls = ['http://127.0.0.1:9']\nhealth-check-interval = 2")
    process.reactor.pump([1.0] * 5)
    assert asked == [0.0, 2.0, 4.0]
    monitor.stopService()


def test_a_signal_logs_what_is_wrong(tmp_path: Path, logged: list[LogEvent]) -> None:
    """
    Nobody waits for the answer to a signal: it is in the log, what changed as well as an error.
    """
    process = Process(tmp_path)
    process.path.write_text("queue-size = 5\nlog-format = 'json'")
    process.router.reloading.reload_by_signal()
    process.path.write_text("nonsense")
    process.router.reloading.reload_by_signal()
    told = [event for event in logged if event["log_namespace"] == "sgl_droute.reloading"]
    assert str(told[0]["what"]) == "changed: queue-size; needs a restart: log-format"
    assert "The configuration stays as it was" in str(told[1]["problem"])


@pytest.mark.logs_failures
def test_one_part_that_breaks_does_not_stop_the_others(logged: list[LogEvent]) -> None:
    """
    All parts but the broken one follow, and the failure is logged.
    """
    following = Following(RouterSettings())
    seen: list[int] = []

    def breaks(settings: RouterSettings) -> None:
        raise ZeroDivisionError

    following.call(breaks)
    following.call(lambda settings: seen.append(settings.queue_size))
    following.adopt(RouterSettings(queue_size=3))
    assert seen == [3]
    assert any("does not follow" in str(event["log_format"]) for event in logged)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """
    Of keys only the files are told, and of URLs nothing that could be a password.
    """
    (tmp_path / "keys").write_text(entry("one", "sk-one"))
    process = Process(tmp_path, "api-keys = 'keys'", listen=("tcp:1:interface=h",))
    text = str(process.router.reloading.shown())
    assert str(tmp_path / "keys") in text
    assert "sk-one" not in text
    assert "sha256" not in text
