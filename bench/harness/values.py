"""
Values of command line options, read from their text.

Each raises `ArgumentTypeError` with what is wrong with the text.
"""

from __future__ import annotations

import math
import shlex
from argparse import ArgumentTypeError
from pathlib import Path

from bench.harness.arm import Arm, parse_arm
from sgl_droute.errors import BadRequest
from sgl_droute.fleet.urls import normalise_worker_url
from sgl_droute.fleet.worker import Concurrency
from sgl_droute.settings import parse_concurrency


def whole(text: str) -> int:
    """
    A whole number, 0 or more.
    """
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def count(text: str) -> int:
    """
    A whole number, 1 or more.
    """
    if whole(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not at least 1")
    return int(text)


def port(text: str) -> int:
    """
    A port, or 0.
    """
    if whole(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def positive(text: str) -> float:
    """
    A finite number above 0.
    """
    found = number(text)
    if not (math.isfinite(found) and found > 0):
        raise ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return found


def share(text: str) -> float:
    """
    A number from 0 to below 1.
    """
    found = number(text)
    if not 0 <= found < 1:
        raise ArgumentTypeError(f"{text!r} is not from 0 to below 1")
    return found


def number(text: str) -> float:
    """
    Any number.
    """
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None


def size(text: str) -> tuple[int, int]:
    """
    Width and height of ``WIDTHxHEIGHT``.
    """
    width, _, height = text.lower().partition("x")
    return count(width), count(height)


def speeds(text: str) -> tuple[float, ...]:
    """
    Numbers above 0, separated by commas.
    """
    return tuple(positive(part) for part in text.split(","))


def arm(text: str) -> Arm:
    """
    An algorithm, with ``@N`` or ``@auto`` for a limit per worker.
    """
    try:
        return parse_arm(text)
    except ValueError as problem:
        raise ArgumentTypeError(str(problem)) from None


def arms(text: str) -> tuple[Arm, ...]:
    """
    Arms separated by commas, each once.
    """
    return tuple(dict.fromkeys(arm(part) for part in text.split(",")))


def concurrency(text: str) -> Concurrency:
    """
    A limit of generations per worker: a whole number, 0 or more, or ``auto``.
    """
    try:
        return parse_concurrency(text)
    except ValueError as problem:
        raise ArgumentTypeError(str(problem)) from None


def output(text: str) -> Path:
    """
    A file in a folder that is there: figures with nowhere to go are lost time.
    """
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise ArgumentTypeError(f"there is no folder for {text}")
    return path


def url(text: str) -> str:
    """
    Base URL of a worker or router.
    """
    try:
        return normalise_worker_url(text)
    except BadRequest as problem:
        raise ArgumentTypeError(str(problem)) from None


def words(text: str) -> tuple[str, ...]:
    """
    Words as a shell splits them.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as problem:
        raise ArgumentTypeError(f"{text!r}: {problem}") from None
