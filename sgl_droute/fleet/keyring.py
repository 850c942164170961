"""
Keys that requests may come with: what their files say, and which of them one is.

It knows neither headers nor routes, and never a key itself: only SHA-256 digests of keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from hashlib import sha256
from hmac import compare_digest, digest

from attrs import evolve, field, frozen

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_COUNT = re.compile(r"[0-9]{1,6}")
_RATE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(/s|/m)?")
# What may be repeated of a line: anything else might be a key that was put in the wrong place.
_WORD = re.compile(r"[a-z_-]{1,20}", re.IGNORECASE)
_SECONDS = {"/s": 1, "/m": 60}
_MOST_SHARE = 1000


@frozen(kw_only=True)
class Key:
    """
    One key and what it may.

    Attributes:
        name: What logs and metrics call it.
        digest: SHA-256 of the key.
        admin: Whether it is one for the fleet, and not only for generations.
        in_flight: Requests that it may have under way at once (count); 0 for any number.
        rate: Requests per second that it may make on average; 0 for any number.
        burst: Requests that it may make at once after a pause (count), if it has a rate.
        share: Turns that it has in line for one of a client with a share of 1.
        files: Whether its requests may name files on a worker.
    """

    name: str
    digest: bytes = field(repr=False)
    admin: bool = False
    in_flight: int = 0
    rate: float = 0.0
    burst: int = 0
    share: float = 1.0
    files: bool = False


@frozen
class Keyring:
    """
    The keys that are known.

    Args:
        secret: Random bytes of this process, so that nobody can aim at places in the table.

    Attributes:
        keys: All of them, each name and digest once.
        inference: Whether generations need a key.
        management: Whether there are keys for the fleet.
    """

    secret: bytes = field(repr=False)
    keys: tuple[Key, ...] = ()
    inference: bool = False
    management: bool = False
    _known: dict[bytes, Key] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        known = {self._place(key.digest): key for key in self.keys}
        object.__setattr__(self, "_known", known)

    @property
    def asks(self) -> bool:
        """Whether keys of any kind are configured."""
        return self.inference or self.management

    def find(self, presented: bytes) -> Key | None:
        """
        The key that *presented* is; None if it is none.

        How long that takes tells nothing of keys that it is not.
        """
        made = sha256(presented).digest()
        key = self._known.get(self._place(made))
        if key is None or not compare_digest(key.digest, made):
            return None
        return key

    def _place(self, of: bytes) -> bytes:
        return digest(self.secret, of, "sha256")


def keyring(secret: bytes, api: Iterable[Key] | None, admin: Iterable[Key] | None) -> Keyring:
    """
    The keys of both files; None stands for a file that is not configured.

    Raises:
        ValueError: A name or a key is in both.
    """
    mine = tuple(api or ())
    theirs = tuple(evolve(key, admin=True) for key in admin or ())
    names = {key.name for key in mine} & {key.name for key in theirs}
    same = {key.digest for key in mine} & {key.digest for key in theirs}
    for key in theirs:
        if key.name in names or key.digest in same:
            what = "a key of that name" if key.name in names else "the same key"
            raise ValueError(f"admin key {key.name}: {what} is among the keys for generations")
    return Keyring(secret, mine + theirs, api is not None, admin is not None)


def parse_keys(text: str, where: str) -> tuple[Key, ...]:
    """
    The keys in *text*, one a line: ``NAME sha256:HEX [in_flight=N] [rate=R[/s|/m]] [burst=N]
    [share=N] [files=yes]``. Empty lines, and what stands behind a ``#``, are no keys.

    Args:
        where: What errors call the text; its file.

    Raises:
        ValueError: One line that says where and what is wrong, or that there is no key at all.
    """
    keys: list[Key] = []
    lines: dict[str | bytes, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            key = _key(words)
            for what, value in (("name", key.name), ("digest", key.digest)):
                if value in lines:
                    raise ValueError(f"the {what} of line {lines[value]} once more")
                lines[value] = number
        except ValueError as problem:
            raise ValueError(f"{where}, line {number}: {problem}") from None
        keys.append(key)
    if not keys:
        raise ValueError(f"{where}: there is no key in it")
    return tuple(keys)


def _key(words: list[str]) -> Key:
    if not _NAME.fullmatch(words[0]):
        raise ValueError("a name has 1 to 64 letters, digits, dots, dashes or underscores")
    found = _DIGEST.fullmatch(words[1]) if len(words) > 1 else None
    if found is None:
        raise ValueError("behind the name there must be sha256: and 64 hexadecimal digits")
    options: dict[str, float | int | bool] = {}
    for word in words[2:]:
        name, equals, value = word.partition("=")
        if name not in _OPTIONS or not equals:
            raise ValueError(_unknown(name))
        if name in options:
            raise ValueError(f"{name} is there twice")
        options[name] = _OPTIONS[name](name, value)
    key = Key(name=words[0], digest=bytes.fromhex(found[1]), **options)  # type: ignore[arg-type]
    if key.burst and not key.rate:
        raise ValueError("burst makes no sense without rate")
    # Without a burst of its own: what the rate gives in a second.
    return evolve(key, burst=math.ceil(key.rate)) if key.rate and not key.burst else key


def _unknown(name: str) -> str:
    near = get_close_matches(name.lower(), _OPTIONS, 1, 0.5)
    known = f"did you mean {near[0]}=?" if near else f"known are {', '.join(_OPTIONS)}"
    what = f"{name}= is" if _WORD.fullmatch(name) else "there is"
    return f"{what} no option of a key; {known}"


def _count(name: str, text: str) -> int:
    if not _COUNT.fullmatch(text) or not int(text):
        raise ValueError(f"{name} must be a whole number, 1 or more")
    return int(text)


def _rate(name: str, text: str) -> float:
    found = _RATE.fullmatch(text)
    rate = float(found[1]) / _SECONDS[found[2] or "/s"] if found else 0.0
    if not rate:
        raise ValueError(f"{name} must be a number above 0, with /s or /m behind it")
    return rate


def _share(name: str, text: str) -> float:
    share = _count(name, text)
    if share > _MOST_SHARE:
        raise ValueError(f"{name} must be at most {_MOST_SHARE}")
    return float(share)


def _yes(name: str, text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"{name} must be yes or no")
    return text == "yes"


_OPTIONS: dict[str, Callable[[str, str], float | int | bool]] = {
    "in_flight": _count,
    "rate": _rate,
    "burst": _count,
    "share": _share,
    "files": _yes,
}
