"""
What a file, the environment and the command line say, who decides, and what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.configuration import (
    COMMAND_LINE,
    DEFAULT,
    ENVIRONMENT,
    FILE,
    LAYERS,
    PROGRAM,
    Configuration,
    Sources,
    read_environment,
    sources_of,
    variable_of,
)
from sgl_droute.configuration_file import WorkerEntry, read_file
from sgl_droute.options import OPTIONS
from sgl_droute.settings import RouterSettings
from sgl_droute.tap import Options

ENDPOINT = "tcp:30080:interface=0.0.0.0:backlog=1024"

# One value of each option, as a file and as a variable has it, and as it is read.
VALUES: dict[str, tuple[str, str, Any]] = {
    "listen": ('["tcp:1", "unix:/a b,c"]', "tcp:1 tcp:2", ("tcp:1", "unix:/a b,c")),
    "worker_urls": ('["http://A:1/"]', "http://A:1/,http://b", ("http://a:1",)),
    "max_connections": ("7", "7", 7),
    "max_clients": ('"8"', "8", 8),
    "timeout": ("1.5", "1.5", 1.5),
    "connect_timeout": ("2", "2", 2.0),
    "idle_timeout": ('"3.5"', "3.5", 3.5),
    "read_timeout": ("4", "4", 4.0),
    "drain_timeout": ("0", "0", 0.0),
    "health_check_interval": ("5", "5", 5.0),
    "health_check_timeout": ("6", "6", 6.0),
    "readmit_after": ("9", "9", 9),
    "stale_weights": ('"serve"', "serve", "serve"),
    "health_check_failure_threshold": ("10", "10", 10),
    "routing_algorithm": ('"least-work"', "least-work", "least-work"),
    "worker_concurrency": ('"auto"', "auto", "auto"),
    "bind_ahead": ("0.25", "0.25", 0.25),
    "job_accept_timeout": ("11", "11", 11.0),
    "queue_size": ("0", "0", 0),
    "queue_timeout": ("12.5", "12.5", 12.5),
    "max_priority": ("3", "3", 3),
    "fair": ("true", "yes", True),
    "group_margin": ("4", "4", 4),
    "record": ('"flight.jsonl"', "flight.jsonl", "{folder}/flight.jsonl"),
    "strict_model": ("true", "1", True),
    "state": ('"sqlite:s.db"', "sqlite:s.db", "sqlite://{folder}/s.db"),
    "job_ttl": ("13", "13", 13.0),
    "job_poll_interval": ("14", "14", 14.0),
    "max_body_size": ('"64M"', "64M", 64 << 20),
    "log_level": ('"warning"', "WARNING", "warn"),
    "log_format": ('"json"', "json", "json"),
    "api_keys": ('"keys"', "keys", "{folder}/keys"),
    "admin_keys": ('"keys"', "keys", "{folder}/keys"),
    "allow_file_fields": ("true", "ON", True),
    "add_worker_allow": ('["10.1.2.3/8", "::1"]', "10.1.2.3/8 ::1", ("10.0.0.0/8", "::1/128")),
    "cors_origins": ('["https://a", "*"]', "https://a,*", ("https://a", "*")),
    "worker_ca": ('"keys"', "keys", "{folder}/keys"),
    "worker_certificate": ('"keys"', "keys", "{folder}/keys"),
    "webhook_hosts": ('["a.example", "10.0.0.0/8"]', "a.example 10.0.0.0/8", None),
    "webhook_secret": ('"keys"', "keys", "{folder}/keys"),
    "queue_alert": ("15", "15", 15),
    "simulated_workers": ("1", "1", 1),
}


def written(folder: Path, text: str) -> str:
    (folder / "keys").touch()
    (folder / "router.toml").write_text(text)
    return str(folder / "router.toml")


def read(
    folder: Path,
    text: str = "",
    environment: Mapping[str, str] | None = None,
    **given: Any,
) -> Configuration:
    return Sources(given, environment or {}, written(folder, text), str(folder)).read()


def refusal(folder: Path, text: str) -> str:
    """
    Why a file with that *text* is refused, without its folder.
    """
    with pytest.raises(ValueError, match=r"router\.toml") as refused:
        read(folder, text)
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence.removeprefix(f"{folder}/")


def wanted(name: str, folder: Path) -> Any:
    value = VALUES[name][2]
    if name == "webhook_hosts":
        return ("a.example", "10.0.0.0/8")
    return value.format(folder=folder) if isinstance(value, str) else value


def test_all_options_are_tried_here() -> None:
    """
    The table of these tests names every option.
    """
    assert set(VALUES) == set(attrs.fields_dict(RouterSettings))
    assert set(OPTIONS) == {*VALUES, "host", "port"}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("dashes", [True, False])
def test_an_option_in_a_file(name: str, dashes: bool, tmp_path: Path) -> None:
    """
    A file may say every option, with - or _ in its name; paths begin in the folder of the file.
    """
    key = name.replace("_", "-") if dashes else name
    made = read(tmp_path, f"{key} = {VALUES[name][0]}")
    assert getattr(made.settings, name) == wanted(name, tmp_path)
    assert type(getattr(made.settings, name)) is type(wanted(name, tmp_path))
    assert made.sources[name] == FILE
    others = set(VALUES) - {name}
    assert {made.sources[each] for each in others} == {DEFAULT}


@pytest.mark.parametrize("name", VALUES)
def test_an_option_in_the_environment(name: str, tmp_path: Path) -> None:
    """
    A variable may say every option; paths begin where the router was started, and items of a list
    stand between commas or white space.
    """
    made = read(tmp_path, "", {variable_of(name): VALUES[name][1]})
    value = getattr(made.settings, name)
    if name == "listen":
        assert value == ("tcp:1", "tcp:2")
    elif name == "worker_urls":
        assert value == ("http://a:1", "http://b")
    else:
        assert value == wanted(name, tmp_path)
    assert made.sources[name] == ENVIRONMENT


@given(st.sets(st.sampled_from(LAYERS[1:])))
def test_who_decides(tmp_path_factory: pytest.TempPathFactory, layers: set[str]) -> None:
    """
    The command line decides over the environment, and that over the file.
    """
    made = read(
        tmp_path_factory.mktemp("file"),
        "queue-size = 1" if FILE in layers else "",
        {"SGL_DROUTE_QUEUE_SIZE": "2"} if ENVIRONMENT in layers else {},
        **({"queue_size": 3} if COMMAND_LINE in layers else {}),
    )
    last = max(layers, key=LAYERS.index, default=DEFAULT)
    assert made.settings.queue_size == [10_000, 1, 2, 3][LAYERS.index(last)]
    assert made.sources["queue_size"] == last


def test_nobody_says_anything(tmp_path: Path) -> None:
    """
    An empty file is as good as none: what is left is the defaults.
    """
    for made in (read(tmp_path), Sources().read()):
        assert made.settings == RouterSettings(listen=(ENDPOINT,))
        assert set(made.sources.values()) == {DEFAULT}
        assert made.workers == ()


def test_lists_replace_each_other(tmp_path: Path) -> None:
    """
    What a list has in a later place is all that it has; an empty one empties it.
    """
    text = 'cors-origins = ["https://a"]\nworker-urls = ["http://a:1"]\n[[workers]]\nurl="http://b"'
    variables = {"SGL_DROUTE_CORS_ORIGINS": "https://b", "SGL_DROUTE_WORKER_URLS": ""}
    made = read(tmp_path, text, variables)
    assert made.settings.cors_origins == ("https://b",)
    assert (made.settings.worker_urls, made.workers) == ((), ())
    made = read(tmp_path, text, variables, worker_urls=("http://c",))
    assert made.settings.worker_urls == ("http://c",)
    assert made.workers == (WorkerEntry("http://c"),)


@pytest.mark.parametrize(
    ("text", "variables", "given", "listen", "source"),
    [
        ("port = 1", {}, {}, "tcp:1:interface=0.0.0.0:backlog=1024", FILE),
        ("port = 1", {"SGL_DROUTE_HOST": "::1"}, {}, r"tcp:1:interface=\:\:1:backlog=1024", "env"),
        ('listen = ["tcp:9"]\nport = 1', {}, {}, "tcp:9", FILE),
        ('listen = ["tcp:9"]', {}, {"port": 2}, "tcp:2:interface=0.0.0.0:backlog=1024", "line"),
        ('listen = ["tcp:9"]', {"SGL_DROUTE_PORT": "2"}, {"listen": ("tcp:8",)}, "tcp:8", "line"),
        ("port = 1", {"SGL_DROUTE_LISTEN": "tcp:8"}, {}, "tcp:8", "env"),
    ],
)
def test_where_to_listen(
    text: str,
    variables: dict[str, str],
    given: dict[str, Any],
    listen: str,
    source: str,
    tmp_path: Path,
) -> None:
    """
    Endpoints are decided by whoever names them last, be it as such or as a host and a port; one who
    names both means the endpoints.
    """
    made = read(tmp_path, text, variables, **given)
    assert made.settings.listen == (listen,)
    assert made.sources["listen"].endswith(source) or source == "env"
    assert source != "env" or made.sources["listen"] == ENVIRONMENT


def test_workers(tmp_path: Path) -> None:
    """
    A table says more of a worker than its URL; those in the list come first, and one that is in
    both is there once.
    """
    made = read(
        tmp_path,
        """
        worker-urls = ["http://a:1", "http://b:1"]
        [[workers]]
        url = "HTTP://B:1/"
        concurrency = "2"
        [[workers]]
        url = "https://c"
        concurrency = "auto"
        speed = 2
        disabled = true
        """,
    )
    assert made.workers == (
        WorkerEntry("http://a:1"),
        WorkerEntry("http://b:1", concurrency=2),
        WorkerEntry("https://c", concurrency="auto", speed=2.0, disabled=True),
    )
    assert made.settings.worker_urls == ("http://a:1", "http://b:1", "https://c")
    assert made.sources["worker_urls"] == FILE
    assert type(made.workers[2].speed) is float


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "\nqueue-sise = 1",
            "router.toml, line 2: there is no option queue-sise; did you mean queue-size?",
        ),
        (
            "wroker_urls = []",
            "router.toml, line 1: there is no option wroker_urls; did you mean worker-urls?",
        ),
        (
            "[worker]\nurl = 1",
            "router.toml, line 1: there is no table worker: options stand in none, workers in",
        ),
        ("zzz = 1", "router.toml, line 1: there is no option zzz"),
        ("verbose = true", "router.toml, line 1: there is no option verbose"),
        ("# x\nfair = 1", "router.toml, line 2: fair must be true or false: 1"),
        ('fair = "true"', "router.toml, line 1: fair must be true or false: 'true'"),
        ("port = 70000", "router.toml, line 1: port: 70000 is not a port from 0 to 65535"),
        ("queue_size = -1", "router.toml, line 1: queue_size must be >= 0: -1"),
        ("queue-size = 1.5", "router.toml, line 1: queue-size: '1.5' is not a whole number"),
        ("queue-size = true", "router.toml, line 1: queue-size must be a number: True"),
        ("queue-size = [1]", "router.toml, line 1: queue-size must be a number: [1]"),
        ("timeout = inf", "router.toml, line 1: timeout: 'inf' is not a number of seconds above 0"),
        ("timeout = 2026-01-01", "router.toml, line 1: timeout must be a number: datetime.date"),
        ("record = 5", "router.toml, line 1: record must be a text: 5"),
        ("record = '/no/such/x'", "router.toml, line 1: record: there is no folder /no/such"),
        ("api-keys = 'absent'", "router.toml, line 1: api-keys: there is no file "),
        ("state = 'redis:'", "router.toml, line 1: state: 'redis:' is not one of memory:"),
        ("max-body-size = '1X'", "router.toml, line 1: max-body-size: '1X' is not a number of"),
        ("log-level = 'loud'", "router.toml, line 1: log-level: 'loud' is not one of debug"),
        ("routing-algorithm = 'x'", "router.toml, line 1: routing-algorithm must be in ("),
        ("listen = 'tcp:1'", "router.toml, line 1: listen must be a list of texts such as ["),
        ("cors-origins = [1]", "router.toml, line 1: cors-origins must be a list of texts"),
        ("webhook-hosts = ['h:1']", "router.toml, line 1: webhook-hosts: 'h:1' is no host name"),
        ("cors-origins = ['a']", "router.toml, line 1: cors-origins: 'a' is not an origin"),
        (
            "worker-urls = ['ftp://a']",
            "router.toml, line 1: worker-urls: worker URL 'ftp://a' must",
        ),
        ("fair = true\nfair = true", "router.toml: Cannot overwrite a value (at "),
        (
            "max-clients = 1\nmax_clients = 1",
            "router.toml, line 2: max_clients is there twice, with - and with _",
        ),
        ("fair true", "router.toml: Expected '=' after a key in a key/value pair (at line 1,"),
        ("workers = 5", "router.toml, line 1: workers must be tables, each below [[workers]]"),
        ("[workers]\nurl = 'http://a'", "router.toml, line 1: workers must be tables, each below"),
        ("[[workers]]\nspeed = 1", "router.toml, line 1: a worker without url"),
        (
            "[[workers]]\nurl = 'http://a'\n[[workers]]\nurl = 'http://A/'",
            "router.toml, line 4: worker http://a is there twice",
        ),
        (
            "[[workers]]\nurl = 'http://a'\n[[workers]]\nurl = 'http://b'\nsped = 1",
            "router.toml, line 5: a worker has no sped; did you mean speed?",
        ),
        (
            "[[workers]]\nurl = 'http://a'\nqueue-size = 1",
            "router.toml, line 3: queue-size is an option of the router: it belongs before",
        ),
        ("[[workers]]\nurl = 5", "router.toml, line 2: url must be a text: 5"),
        ("[[workers]]\nurl = 'a'", "router.toml, line 2: worker URL 'a' must begin with http"),
        ("[[workers]]\nurl = 'http://169.254.169.254'", "is blocked: 169.254.169.254 is never"),
        (
            "[[workers]]\nconcurrency = -1",
            "line 2: concurrency must be a count from 0 to 1000000, or",
        ),
        (
            "[[workers]]\nconcurrency = true",
            "line 2: concurrency must be a count from 0 to 1000000",
        ),
        ("[[workers]]\nconcurrency = 1000001", "line 2: concurrency must be a count from 0 to"),
        ("[[workers]]\nspeed = 0", "line 2: speed must be a number from 0.001 to 1000: 0"),
        ("[[workers]]\nspeed = nan", "line 2: speed must be a number from 0.001 to 1000: nan"),
        ("[[workers]]\nspeed = 'fast'", "line 2: speed must be a number from 0.001 to 1000"),
        ("[[workers]]\ndisabled = 1", "line 2: disabled must be true or false: 1"),
    ],
)
def test_what_a_file_cannot_say(text: str, sentence: str, tmp_path: Path) -> None:
    """
    What makes no sense is told in one line with the file and the line, and the nearest option.
    """
    assert sentence in refusal(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """
    A file that is not there, is none, is too large or not text is refused in one sentence.
    """
    (tmp_path / "large").write_bytes(b"#" * ((1 << 20) + 1))
    (tmp_path / "latin").write_bytes(b"# \xe4")
    for name, sentence in {
        "absent": "No such file or directory",
        ".": "not a file",
        "large": "larger than 1048576 bytes",
        "latin": "not UTF-8",
    }.items():
        with pytest.raises(ValueError, match=f"{name}: {sentence}$"):
            read_file(str(tmp_path / name))
    with pytest.raises(ValueError, match="not a file"):
        read_file("/dev/zero")


@given(st.text(max_size=60))
def test_any_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """
    Whatever stands in a file, it is read or refused with one sentence.
    """
    path = tmp_path_factory.mktemp("file") / "router.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        read_file(str(path))
    except ValueError as refused:
        problem = str(refused)
    else:
        problem = str(path)
    assert problem.startswith(str(path))


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("QEUE_SIZE", "1", "variable SGL_DROUTE_QEUE_SIZE; did you mean SGL_DROUTE_QUEUE_SIZE?"),
        ("queue_size", "1", "variable SGL_DROUTE_queue_size; did you mean SGL_DROUTE_QUEUE_SIZE?"),
        ("CONFIGURATION", "x", "SGL_DROUTE_CONFIGURATION; did you mean SGL_DROUTE_CONFIG?"),
        ("QUEUE_SIZE", "", "SGL_DROUTE_QUEUE_SIZE: '' is not a whole number"),
        ("QUEUE_SIZE", "-1", "SGL_DROUTE_QUEUE_SIZE must be >= 0: -1"),
        ("FAIR", "maybe", "SGL_DROUTE_FAIR: 'maybe' is neither true nor false"),
        ("WORKER_URLS", "http://a,b", "SGL_DROUTE_WORKER_URLS: worker URL 'b' must begin with"),
        ("PORT", "-1", "SGL_DROUTE_PORT: -1 is not a port"),
    ],
)
def test_what_a_variable_cannot_say(variable: str, text: str, sentence: str) -> None:
    """
    A variable that makes no sense is named, as is the nearest one if there is none of its name.
    """
    with pytest.raises(ValueError, match="SGL_DROUTE") as refused:
        read_environment({f"SGL_DROUTE_{variable}": text, "PATH": "/bin"}, "")
    assert sentence in str(refused.value)


def test_flags_can_be_off(tmp_path: Path) -> None:
    """
    The environment takes back a flag of the file.
    """
    for text in ("false", "No", "off", "0"):
        made = read(tmp_path, "fair = true", {"SGL_DROUTE_FAIR": text})
        assert made.settings.fair is False


def test_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The command line names the file, else the environment does; it is found again from anywhere,
    and an empty name is no file.
    """
    monkeypatch.chdir(tmp_path)
    other = {"SGL_DROUTE_CONFIG": "other.toml"}
    assert sources_of({}, other, None).path == str(tmp_path / "other.toml")
    assert sources_of({}, other, "mine.toml").path == str(tmp_path / "mine.toml")
    assert sources_of({}, other, "").path == ""
    assert sources_of({}, {}, None).path == ""


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Options read the file and the environment, and what they say themselves decides.
    """
    path = written(tmp_path, "queue-size = 1\nmax-clients = 1\ntimeout = 1")
    monkeypatch.setenv("SGL_DROUTE_MAX_CLIENTS", "2")
    monkeypatch.setenv("SGL_DROUTE_TIMEOUT", "2")
    options = Options()
    options.parseOptions(["--config", path, "--timeout", "3", "-v", "--worker-urls", "http://a"])
    settings, sources = options.settings, options.configuration.sources
    assert (settings.queue_size, settings.max_clients, settings.timeout) == (1, 2, 3.0)
    assert [sources[name] for name in ("queue_size", "max_clients", "timeout", "log_level")] == [
        FILE,
        ENVIRONMENT,
        COMMAND_LINE,
        COMMAND_LINE,
    ]
    assert (settings.log_level, settings.worker_urls) == ("debug", ("http://a",))


def test_what_is_said_on_the_command_line_is_read_again(tmp_path: Path) -> None:
    """
    A configuration that is read again has the new file and the old command line.
    """
    made = read(tmp_path, "queue-size = 1\ntimeout = 1", timeout=3.0)
    written(tmp_path, "queue-size = 2\ntimeout = 2")
    again = made.again()
    assert (again.settings.queue_size, again.settings.timeout) == (2, 3.0)
    assert again.again().settings == again.settings
    written(tmp_path, "queue-size = x")
    with pytest.raises(ValueError, match=r"router\.toml: "):
        again.again()


def test_the_help_tells_of_all_options() -> None:
    """
    Every option is in the help, and so are the file, the environment and the defaults.
    """
    told = " ".join(str(Options()).split())
    for option in OPTIONS.values():
        assert f"--{option.spelling}" in told
    for text in ("--config=", "SGL_DROUTE_QUEUE_SIZE", "[default: 10000]", "SIGHUP"):
        assert text in told
    assert "[default: ]" not in told


def test_a_program_has_nobody_beside_it() -> None:
    """
    Settings that a program made are the configuration, and reading them again changes nothing.
    """
    made = Configuration.of(RouterSettings(queue_size=5, worker_urls=["http://a"]))
    assert made.again() is made
    assert (made.sources["queue_size"], made.sources["timeout"]) == (PROGRAM, DEFAULT)
    assert made.workers == (WorkerEntry("http://a"),)
