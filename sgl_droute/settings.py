"""
Every option of the router, with its unit and default, in one frozen record.

The command line is made from these fields (`sgl_droute.tap`); other programs fill the record
themselves. What an option does is decided where it is used.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Any, Literal

import attrs
from attrs import field, frozen
from attrs.validators import ge, in_, le

from sgl_droute.errors import BadRequest
from sgl_droute.fleet.selection import ALGORITHMS
from sgl_droute.fleet.urls import normalise_worker_url
from sgl_droute.fleet.webhook_hosts import Hosts
from sgl_droute.fleet.worker import Concurrency
from sgl_droute.state.address import parse_state

STALE_WEIGHTS = ("hold", "serve")
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warn", "error", "critical")

_ORIGIN = re.compile(r"https?://[^/?#@\s]+")
_SIZE = re.compile(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """
    Bytes from ``512M``, ``64k``, ``2G`` or a plain number; the units are powers of 1024.

    Raises:
        ValueError: The text is none of these.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a number of bytes such as 1000000, 64K, 512M or 2G")
    return int(match[1]) * _UNITS[match[2].upper()]


def parse_level(text: str) -> str:
    """
    One of `LOG_LEVELS`; ``warning`` is another word for ``warn``.

    Raises:
        ValueError: The text is no level.
    """
    level = {"warning": "warn"}.get(text.lower(), text.lower())
    if level not in LOG_LEVELS:
        raise ValueError(f"{text!r} is not one of debug, info, warning, error, critical")
    return level


def parse_seconds(text: str) -> float:
    """
    A finite number of seconds above zero.

    Raises:
        ValueError: The text is none.
    """
    seconds = _number_of_seconds(text)
    if not math.isfinite(seconds) or seconds <= 0:
        raise ValueError(f"{text!r} is not a number of seconds above 0")
    return seconds


def parse_patience(text: str) -> float:
    """
    A finite number of seconds, 0 or more.

    Raises:
        ValueError: The text is none.
    """
    seconds = _number_of_seconds(text)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{text!r} is not a number of seconds, 0 or more")
    return seconds


def _number_of_seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of seconds") from None


def parse_count(text: str) -> int:
    """
    A whole number.

    Raises:
        ValueError: The text is none.
    """
    if not re.fullmatch(r"[+-]?\d{1,15}", text.strip()):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def parse_concurrency(text: str) -> Concurrency:
    """
    A whole number, 0 or more, or ``auto``.

    Raises:
        ValueError: The text is none of these.
    """
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if not re.fullmatch(r"\d{1,15}", word):
        raise ValueError(f"{text!r} is not a whole number, 0 or more, or auto")
    return int(word)


def parse_record(text: str) -> str:
    """
    The absolute path of the file that *text* names; an empty text is no file and stays empty.

    Raises:
        ValueError: There is no folder for it, or it names a folder.
    """
    path = os.path.abspath(text) if text else ""
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise ValueError(f"there is no folder {folder}")
    if folder and (text.endswith("/") or os.path.isdir(path)):
        raise ValueError(f"{path} is a folder, not a file")
    return path


def parse_input(text: str) -> str:
    """
    The absolute path of the file that *text* names; an empty text is no file and stays empty.

    Raises:
        ValueError: There is no such file.
    """
    path = os.path.abspath(text) if text else ""
    if path and not os.path.isfile(path):
        raise ValueError(f"there is no file {path}")
    return path


def parse_words(text: str) -> tuple[str, ...]:
    """
    The words in *text*, between commas or white space.
    """
    return tuple(word for word in re.split(r"[\s,]+", text) if word)


def parse_networks(text: str) -> tuple[str, ...]:
    """
    The networks in *text*, as `parse_words`, each in its usual spelling: ``10.0.0.0/8``.

    Raises:
        ValueError: One of them is none.
    """
    return tuple(str(ip_network(word, strict=False)) for word in parse_words(text))


def parse_origins(text: str) -> tuple[str, ...]:
    """
    The web origins in *text*, as `parse_words`, in lower case; ``*`` is any.

    Raises:
        ValueError: One of them is none.
    """
    words = parse_words(text.lower())
    for word in words:
        if word != "*" and not _ORIGIN.fullmatch(word):
            raise ValueError(f"{word!r} is not an origin such as https://studio.example.com")
    return words


def parse_hosts(text: str) -> tuple[str, ...]:
    """
    The hosts of webhooks in *text*, as `parse_words`.

    Raises:
        ValueError: One of them is none, nor a network.
    """
    words = parse_words(text)
    Hosts.of(words)
    return words


def _positive(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{attribute.name} must be a finite number above 0, not {value!r}")


def _not_negative(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{attribute.name} must be a finite number, 0 or more, not {value!r}")


def _concurrency(instance: object, attribute: attrs.Attribute[object], value: object) -> None:
    counts = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not (counts or value == "auto"):
        raise ValueError(f"{attribute.name} must be a count, 0 or more, or 'auto', not {value!r}")


def _option(default: Any, about: str, read: Callable[[str], object], validator: Any = None) -> Any:
    return field(default=default, validator=validator, metadata={"about": about, "read": read})


def _seconds(default: float, about: str) -> Any:
    return _option(default, about, parse_seconds, _positive)


def _patience(default: float, about: str) -> Any:
    return _option(default, about, parse_patience, _not_negative)


def _count(default: int, about: str) -> Any:
    return _option(default, about, parse_count, ge(0))


def _flag(about: str) -> Any:
    return field(default=False, metadata={"about": about})


def _place(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    parse_state(value)


def _file(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    parse_record(value)


def _input(about: str) -> Any:
    return _option("", about, parse_input, _readable)


def _words(about: str, read: Callable[[str], tuple[str, ...]] = parse_words) -> Any:
    def known(
        instance: object, attribute: attrs.Attribute[tuple[str, ...]], values: tuple[str, ...]
    ) -> None:
        read(",".join(values))

    none: tuple[str, ...] = ()
    metadata = {"about": about, "read": read}
    return field(default=none, converter=_texts, validator=known, metadata=metadata)


def _readable(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    parse_input(value)


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _urls(values: Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(normalise_worker_url(value) for value in values))
    except BadRequest as problem:
        raise ValueError(str(problem)) from problem


@frozen(kw_only=True)
class RouterSettings:
    """
    What a router is told. Times are seconds, sizes bytes.

    Attributes:
        listen: Twisted server endpoint strings to listen on; none means that only
            `RouterService.resource` serves.
        worker_urls: Workers registered at start.
        simulated_workers: Workers without a GPU to start as child processes and register (count).

    Raises:
        ValueError: A value outside its range, or a URL that no worker can have.
    """

    listen: tuple[str, ...] = field(default=(), converter=_texts)
    worker_urls: tuple[str, ...] = field(default=(), converter=_urls)
    max_connections: int = _option(
        1000, "Requests in flight to workers at once; more wait in order.", parse_count, ge(1)
    )
    max_clients: int = _count(
        0, "Client connections open at once; 0 for what the limit of open files leaves."
    )
    timeout: float = _seconds(1800.0, "Seconds a worker may take to its first answer byte.")
    connect_timeout: float = _seconds(5.0, "Seconds to open a connection to a worker.")
    idle_timeout: float = _seconds(
        300.0, "Seconds of silence inside an answer, and for a client that takes no byte of it."
    )
    read_timeout: float = _seconds(
        60.0, "Seconds for a request's headers to arrive, and of silence inside its body."
    )
    drain_timeout: float = _patience(
        60.0,
        "Seconds that running answers have to end when the router is stopped; 0 cuts them at once.",
    )
    health_check_interval: float = _seconds(10.0, "Seconds between health checks.")
    health_check_timeout: float = _seconds(5.0, "Seconds a health check may take.")
    readmit_after: int = _count(
        0, "Good health checks in a row that end a quarantine; 0 for never."
    )
    stale_weights: str = _option(
        "hold",
        "What workers get that missed a weight update: hold keeps work from them, serve does not.",
        str,
        in_(STALE_WEIGHTS),
    )
    health_check_failure_threshold: int = _option(
        3, "Health checks failed in a row that quarantine a worker.", parse_count, ge(1)
    )
    routing_algorithm: str = _option(
        "least-request", f"One of {', '.join(ALGORITHMS)}.", str, in_(tuple(ALGORITHMS))
    )
    worker_concurrency: int | Literal["auto"] = _option(
        0,
        "Generations that a worker is given at once: a count, auto for one per replica, or 0 for"
        " any number. With a limit the others wait in the router.",
        parse_concurrency,
        _concurrency,
    )
    bind_ahead: float = _patience(
        1.0,
        "With auto, seconds before a job's predicted end that its worker is given the next one.",
    )
    job_accept_timeout: float = _patience(
        20.0,
        "Seconds that a video or mesh job waits before a worker is given it over its limit; 0 for"
        " at once.",
    )
    queue_size: int = _count(
        10_000, "Requests that may wait in the router; more are refused with 503."
    )
    queue_timeout: float = _patience(
        0.0, "Seconds that a request may wait in the router before it gets 503; 0 for any time."
    )
    max_priority: int = _count(
        10, "Highest priority that X-Priority can ask for; what is higher counts as this."
    )
    fair: bool = _flag("Serve clients that wait with the same priority in turns.")
    group_margin: int = _count(
        2,
        "Jobs more than the least loaded worker that a worker may have and still get the next"
        " request of its X-Rollout-Group.",
    )
    record: str = _option(
        "",
        "File to write every decision and outcome to, as JSON lines; none if empty.",
        parse_record,
        _file,
    )
    strict_model: bool = _flag("Answer 404 to a model name that no worker serves.")
    state: str = _option(
        "memory:", "What survives a restart: memory: or sqlite:///path/file.", parse_state, _place
    )
    job_ttl: float = _seconds(
        7 * 86400.0, "Seconds after its last use that it is forgotten which worker has an id."
    )
    job_poll_interval: float = _seconds(
        5.0, "Seconds between the router's own questions about unfinished jobs."
    )
    max_body_size: int = _option(
        512 << 20, "Largest request body in bytes; K, M and G suffixes.", parse_size, ge(1)
    )
    log_level: str = _option(
        "info", "One of debug, info, warning, error, critical.", parse_level, in_(LOG_LEVELS)
    )
    log_format: str = _option("text", "text, or json: one object a line.", str, in_(LOG_FORMATS))
    api_keys: str = _input("File of keys for generations; none are asked for if empty.")
    admin_keys: str = _input("File of keys for the fleet; none are asked for if empty.")
    allow_file_fields: bool = _flag(
        "Let keys for generations name files on workers in their requests."
    )
    add_worker_allow: tuple[str, ...] = _words(
        "Networks whose addresses workers may have, as 10.0.0.0/8,fd00::/8; any if empty.",
        parse_networks,
    )
    cors_origins: tuple[str, ...] = _words(
        "Origins whose pages may call the router from a browser; * for any.", parse_origins
    )
    worker_ca: str = _input(
        "File of certificates (PEM) that workers' certificates are checked against; the system's"
        " if empty."
    )
    worker_certificate: str = _input(
        "File with the certificate and key (PEM) that the router shows to workers."
    )
    webhook_hosts: tuple[str, ...] = _words(
        "Hosts that X-Webhook-Url may name: names, *.example.com, or networks; none if empty.",
        parse_hosts,
    )
    webhook_secret: str = _input("File with the secret that webhooks are signed with.")
    queue_alert: int = _count(
        0, "Requests waiting from which on GET /events tells of a long line; 0 for never."
    )
    simulated_workers: int = _option(
        0, "Simulated workers to start and register.", parse_count, [ge(0), le(1000)]
    )
