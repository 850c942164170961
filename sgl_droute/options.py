"""
What a router process can be told, and how each option is read: from text, as the command line and
the environment have it, or from a value of a TOML file.

What options do is written in `sgl_droute.settings`, and which of those who say something decides,
in `sgl_droute.configuration`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import attrs
from attrs import field, frozen

from sgl_droute.errors import BadRequest
from sgl_droute.fleet.urls import normalise_worker_url
from sgl_droute.settings import (
    RouterSettings,
    parse_count,
    parse_input,
    parse_record,
    parse_words,
)
from sgl_droute.state.address import parse_state

HOST = "0.0.0.0"
PORT = 30080

_FLAGS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


@frozen(eq=False)
class Option:
    """
    One option.

    Attributes:
        name: As in `RouterSettings`.
        default: Its value if nobody says anything.
        about: What it does, in a sentence.
        read: Its value from a text, or one item of a list as a list.
        check: Gives a value back if it may have it.
    """

    name: str
    default: Any
    about: str
    read: Callable[[str], Any] = field(repr=False)
    check: Callable[[Any], Any] = field(default=lambda value: value, repr=False)

    @property
    def spelling(self) -> str:
        """Its name on the command line and in files."""
        return self.name.replace("_", "-")

    def from_text(self, text: str, spelled: str, folder: str = "") -> Any:
        """
        Its value as *text* says it; the items of a list stand between commas or white space.

        Args:
            spelled: What errors call it.
            folder: Where relative paths begin; the working directory if empty.

        Raises:
            ValueError: It has no such value; one sentence that names it.
        """
        if isinstance(self.default, tuple):
            return self._items(parse_words(text), spelled)
        return self._checked(lambda: self.read(self._placed(text, folder)), spelled)

    def from_toml(self, value: Any, spelled: str, folder: str) -> Any:
        """
        Its value as a TOML file says it; arguments and errors as of `from_text`.
        """
        if isinstance(self.default, tuple):
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise ValueError(f'{spelled} must be a list of texts such as ["..."]: {value!r}')
            return self._items(value, spelled)
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise ValueError(f"{spelled} must be true or false: {value!r}")
            return value
        of_numbers = isinstance(self.default, (int, float))
        if of_numbers and isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.from_text(str(value), spelled)
        if not isinstance(value, str):
            wanted = "a number" if of_numbers else "a text"
            raise ValueError(f"{spelled} must be {wanted}: {value!r}")
        return self.from_text(value, spelled, folder)

    def checked(self, value: Any, spelled: str) -> Any:
        """
        *value*, which has been read, if it is in its range; errors as of `from_text`.
        """
        return self._checked(lambda: value, spelled)

    def _items(self, texts: list[str] | tuple[str, ...], spelled: str) -> Any:
        return self._checked(
            lambda: tuple(item for text in texts for item in self.read(text)), spelled
        )

    def _checked(self, read: Callable[[], Any], spelled: str) -> Any:
        try:
            return self.check(read())
        except ValueError as problem:
            # What checks an attribute adds more behind the sentence, which may begin with its name.
            sentence = str(problem.args[0])
            named = re.sub(rf"^'?{self.name}'?(?= must )", lambda _: spelled, sentence)
            text = named if named != sentence else f"{spelled}: {sentence}"
            raise ValueError(text) from problem

    def _placed(self, text: str, folder: str) -> str:
        """
        *text*, with the path that it names beginning in *folder*.
        """
        if not (folder and text):
            return text
        if self.read in (parse_input, parse_record):
            return os.path.join(folder, text)
        if self.read is parse_state and re.match(r"sqlite:[^/]", text):
            return "sqlite://" + os.path.join(os.path.abspath(folder), text[len("sqlite:") :])
        return text


def parse_port(text: str) -> int:
    """
    A TCP port; 0 for any that is free.

    Raises:
        ValueError: The text is none.
    """
    port = parse_count(text)
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port from 0 to 65535")
    return port


def parse_flag(text: str) -> bool:
    """
    Whether *text* says that something is on: ``true``, ``yes``, ``on``, ``1``, or their opposites.

    Raises:
        ValueError: It says neither.
    """
    if text.lower() not in _FLAGS:
        raise ValueError(f"{text!r} is neither true nor false")
    return _FLAGS[text.lower()]


def parse_worker(text: str) -> tuple[str, ...]:
    """
    One worker's URL.

    Raises:
        ValueError: No worker can have it.
    """
    try:
        return (normalise_worker_url(text),)
    except BadRequest as problem:
        raise ValueError(str(problem)) from problem


def nearest(name: str, known: list[str]) -> str:
    """
    What of *known* may have been meant by *name*, for the end of an error; empty for nothing.
    """
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _option(attribute: attrs.Attribute[Any]) -> Option:
    def check(value: Any) -> Any:
        value = attribute.converter(value) if callable(attribute.converter) else value
        if attribute.validator is not None:
            attribute.validator(None, attribute, value)
        return value

    name, default, told = attribute.name, attribute.default, attribute.metadata
    read = parse_flag if isinstance(default, bool) else told.get("read", _OTHERS.get(name))
    assert read is not None, name
    return Option(name, default, told.get("about", _ABOUT.get(name, "")), read, check)


_OTHERS: dict[str, Callable[[str], Any]] = {
    "listen": lambda text: (text,),
    "worker_urls": parse_worker,
}
_ABOUT = {
    "listen": "Twisted server endpoints to listen on, instead of host and port.",
    "worker_urls": "Workers to register, http://host:port.",
}

# All options by their names; host and port stand for an endpoint.
OPTIONS: dict[str, Option] = {
    "host": Option("host", HOST, "Address to listen on.", str),
    "port": Option("port", PORT, "TCP port to listen on; 0 takes a free one.", parse_port),
    **{each.name: _option(each) for each in attrs.fields(RouterSettings)},
}
