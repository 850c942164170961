"""
Which fields of a request name a file on its worker.

Workers write to and read from paths that requests tell them, in fields that are top-level ones,
those of models, or parameters of a sampler. Their names change with releases, so a field is known
by the words of its name, and one too many is better than one that is missed. How bodies are read
is not known here.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

# Longer names (characters) are no field's.
LONGEST_NAME = 256

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")

_PATH_WORDS = frozenset(
    {"dir", "directories", "directory", "dirs", "file", "filename", "filenames", "files"}
    | {"folder", "folders", "path", "paths"}
)
# As the last word of a name: what is shown to a model.
_MEDIA_WORDS = frozenset(
    {"audio", "audios", "image", "images", "img", "mask", "masks", "picture", "pictures"}
    | {"ref", "reference", "references", "refs", "uri", "uris", "url", "urls", "video", "videos"}
)
_MEDIA_NAMES = frozenset({"first_frame", "last_frame"})
# Lists of numbers, or files with such.
_NUMBERS = frozenset(
    {"action", "actions", "camera_to_world", "extrinsics", "frustum_geometry", "intrinsics"}
)
_IDS = frozenset({"id", "request_id"})
# What is read by models and people.
_PROSE = frozenset({"caption", "negative_prompt", "prompt", "prompts", "task", "text"})
# Said of media beside them, or media themselves as text.
_BESIDE_MEDIA = frozenset(
    {"b64_json", "base64", "data", "detail", "dtype", "format", "media_type", "mime_type"}
    | {"name", "role", "shape", "type", "values"}
)
# Workers make objects of these, of some also where they are lists of names and values.
_OBJECTS = frozenset(
    {"extra_args", "extra_body", "extra_json", "extra_params"}
    | {"input", "observation", "parameters", "runtime"}
)

# A worker takes these for what they are, wherever it looks at them; it knows no other spelling.
_NO_FILE = re.compile(r"https?://[^/\\?#\s]|data:[a-z]+(/[a-z0-9.+-]+)?[;,]")
_ABOVE = re.compile(r"[/\\]\.\.([/\\]|$)")
# What looks like a path, and is no base64.
_PATH = re.compile(r"\s*(file:|(/|\.{1,2}/|~)\S*\.[A-Za-z0-9]{1,16}\s*\Z)", re.IGNORECASE)
_NO_NAME = re.compile(r"-?[0-9]{1,20}(\.[0-9]{0,20})?|true|false|null|none|", re.IGNORECASE)


class Meaning(Enum):
    """
    What the text in a field may be to a worker.

    Attributes:
        PATH: A path, whatever it is.
        MEDIA: A path, unless it is a URL of the web or the data itself.
        NUMBERS: A path, unless it is JSON.
        ID: A part of the name of a file.
        PROSE: Never anything but text.
        OBJECT: JSON.
        BESIDE: Nothing where media are expected.
        OTHER: Not known; perhaps JSON, and a path if it looks like one.
    """

    PATH = 1
    MEDIA = 2
    NUMBERS = 3
    ID = 4
    PROSE = 5
    OBJECT = 6
    BESIDE = 7
    OTHER = 8


# Of these what is within a list or an object means the same.
WITHIN = (Meaning.PATH, Meaning.MEDIA)


def meaning(name: str) -> Meaning:
    """
    What the text in the field *name* may be.
    """
    return _meaning(name) if len(name) <= LONGEST_NAME else Meaning.OTHER


@lru_cache(2000)
def _meaning(name: str) -> Meaning:
    lower = name.strip().lower()
    words = [word.lower() for word in _WORDS.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    if not _PATH_WORDS.isdisjoint(words):
        return Meaning.PATH
    if lower in _MEDIA_NAMES or lower.startswith("observation.images"):
        return Meaning.MEDIA
    if words and words[-1] in _MEDIA_WORDS:
        return Meaning.MEDIA
    return _meaning_of_known(lower)


def _meaning_of_known(name: str) -> Meaning:
    if name in _NUMBERS:
        return Meaning.NUMBERS
    if name in _PROSE:
        return Meaning.PROSE
    if name in _OBJECTS:
        return Meaning.OBJECT
    if name in _IDS:
        return Meaning.ID
    return Meaning.BESIDE if name in _BESIDE_MEDIA else Meaning.OTHER


def within(outer: Meaning | None, means: Meaning) -> Meaning:
    """
    What a text means in a field that *means* so by its own name, in a list or an object that means
    *outer*.
    """
    if outer is None or means is Meaning.PATH:
        return means
    if outer is Meaning.PATH or means not in (Meaning.BESIDE, Meaning.ID, Meaning.PROSE):
        return outer
    return means


def names_file(text: str, means: Meaning) -> bool:
    """
    Whether *text*, or what it goes on with, names a file in a field that *means* so.
    """
    if means is Meaning.PATH:
        return bool(text)
    if means is Meaning.MEDIA:
        if _NO_NAME.fullmatch(text):
            return False
        return not _NO_FILE.match(text) or _ABOVE.search(text) is not None
    if means is Meaning.NUMBERS:
        return text.strip()[:1] not in ("", "[", "{")
    if means is Meaning.ID:
        return "/" in text or "\\" in text
    if means is Meaning.PROSE:
        return False
    return _PATH.match(text) is not None


def may_be_json(text: str) -> bool:
    """
    Whether a worker may read fields from *text*, or from what it goes on with.
    """
    return text.lstrip()[:1] in ("", "{", "[", '"')
