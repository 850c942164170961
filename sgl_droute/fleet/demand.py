"""
How much work a request asks for, read from the fields of its body.

The rule is in `sgl_droute.fleet.cost`; here is which fields count on which route. Nothing is
judged: a worker refuses what it does not take.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from attrs import define, evolve, field

from sgl_droute.fleet.cost import (
    GENERIC,
    MOST_COUNT,
    Family,
    Shape,
    as_count,
    as_number,
    cost,
    family_of,
    image_shape,
    video_shape,
)

_IMAGE = (
    "width",
    "height",
    "size",
    "n",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "negative_prompt",
)
_VIDEO = (*_IMAGE, "num_frames", "fps", "seconds", "num_outputs_per_prompt")
_SAMPLE = tuple(name for name in _VIDEO if name not in ("size", "n", "seconds"))
# An edit has no width and height: its size is given, or follows the input image.
_EDIT = tuple(name for name in _IMAGE if name not in ("width", "height"))
_READ: Mapping[str, tuple[str, ...]] = {
    "image": _IMAGE,
    "edit": _EDIT,
    "video": _VIDEO,
    "rollout": _SAMPLE,
    "vertex": _SAMPLE,
}

# Objects whose fields count like those beside them; later ones win.
_VIDEO_EXTRAS = ("extra_body", "extra_json", "extra_params")
_ROLLOUT_EXTRAS = ("extra_sampling_params",)
_PARAMETERS = "parameters"
_INSTANCES = "instances"

FIELDS = frozenset((*_VIDEO, *_VIDEO_EXTRAS, *_ROLLOUT_EXTRAS, _PARAMETERS, _INSTANCES))
"""Top-level fields of a body that say how much work it is; no other is looked at."""

# Outputs of a rollout, which workers do not limit.
_MOST_OUTPUTS = 1024
# Characters of a value, and of an object that is given as JSON text.
_LONGEST = 40
_LONGEST_OBJECT = 1 << 16

_Small = float | str


@define(eq=False)
class Asked:
    """
    The `Demand` of a request.

    Args:
        kind: One of `sgl_droute.fleet.job.KINDS`.
        fields: Of its body, whatever they hold; only the numbers that count are kept. None when
            the body could not be read.
        references: Input images that came with it (count).
    """

    kind: str
    fields: Mapping[str, object] | None
    references: int = 0
    _outputs: int = field(default=1, init=False)
    _works: dict[str | None, float | None] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.fields, Mapping) or self.kind not in _READ:
            self.fields = None
            return
        given = self.fields
        if self.kind == "video":
            given = {**_merged(given, _VIDEO_EXTRAS), **given}
        elif self.kind == "rollout":
            given = {**given, **_merged(given, _ROLLOUT_EXTRAS)}
            self._outputs = _outputs(given.get("num_outputs_per_prompt"))
        elif self.kind == "vertex":
            self._outputs = _outputs(given.get(_INSTANCES))
            given = as_object(given.get(_PARAMETERS))
        self.fields = _small(given, _READ[self.kind])

    def work(self, model: str | None) -> float | None:
        """
        Work in units of `sgl_droute.fleet.cost` for the family of *model*; None if nothing is
        known of the request.
        """
        if model not in self._works:
            self._works[model] = self._work(GENERIC if model is None else family_of(model))
        return self._works[model]

    def _work(self, family: Family) -> float | None:
        if self.fields is None:
            return None
        return cost(family, self._shape(family, self.fields))

    def _shape(self, family: Family, fields: Mapping[str, object]) -> Shape:
        references = min(max(self.references, 0), MOST_COUNT)
        if self.kind in ("image", "edit"):
            return image_shape(family, fields, references=references)
        if self.kind == "video":
            return video_shape(family, fields, references=references)
        # A sample is what its model makes: here the worker has no default but the model's own.
        frames = as_count(fields.get("num_frames")) or family.frames
        if max(frames, family.frames) == 1:
            shape = image_shape(family, fields, references=references)
        else:
            film = {**fields, "num_frames": frames}
            shape = video_shape(family, film, references=references)
        return evolve(shape, outputs=self._outputs)


def _merged(given: Mapping[str, object], names: tuple[str, ...]) -> dict[str, object]:
    """
    The fields in the objects of those *names*.
    """
    merged: dict[str, object] = {}
    for name in names:
        merged.update(as_object(given.get(name)))
    return merged


def as_object(value: object) -> Mapping[str, object]:
    """
    *value* as an object, which a form gives as JSON text; empty if it is none.
    """
    if isinstance(value, str) and len(value) <= _LONGEST_OBJECT:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}


def _small(given: Mapping[str, object], names: tuple[str, ...]) -> dict[str, _Small]:
    """
    What *given* says under those *names*, as far as it is a number, a size or, for a negative
    prompt, there at all.
    """
    found = ((name, _value(name, given.get(name))) for name in names)
    return {name: value for name, value in found if value is not None}


def _value(name: str, value: object) -> _Small | None:
    if name == "negative_prompt":
        return "" if isinstance(value, str) else None
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else None
    return as_number(value)


def _outputs(value: object) -> int:
    """
    How many *value* is or holds, from 1 to 1024.
    """
    number = as_number(len(value) if isinstance(value, (list, tuple)) else value)
    return 1 if number is None else int(min(max(number, 1), _MOST_OUTPUTS))
