"""
What a worker serves, and what a request needs of one.

Pure: `sgl_droute.workers.discovery` asks workers, `sgl_droute.fleet.pool` chooses among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from attrs import evolve, frozen

# Names kept of one worker; an SGLang worker has one or two.
_MOST_NAMES = 100
# Replicas that one worker is believed to have.
_MOST_REPLICAS = 1024

# SGLang's task types: T text, I image, V video, F frames, M mesh.
_ABILITY_TASKS: Mapping[str, frozenset[str]] = {
    "image": frozenset({"T2I", "TI2I"}),
    "edit": frozenset({"I2I", "TI2I"}),
    "video": frozenset({"T2V", "I2V", "TI2V", "V2V", "F2V"}),
    "mesh": frozenset({"I2M"}),
    "action": frozenset({"VLA_ACTION"}),
}
_ABILITY_OUTPUTS: Mapping[str, frozenset[str]] = {
    "IMAGE": frozenset({"image", "edit"}),
    "VIDEO": frozenset({"video"}),
    "MESH": frozenset({"mesh"}),
    "ACTION": frozenset({"action"}),
}


@frozen
class Capabilities:
    """
    What a worker serves, as far as it is known.

    Attributes:
        abilities: Of ``image`` (from text), ``edit`` (from images), ``video``, ``mesh`` and
            ``action``; None while unknown, which counts as able to do all of them.
        model: The worker's ``model_path``; None while unknown.
        names: Model names that requests may use for it: the path, and the ids of its model cards;
            empty while unknown.
        replicas: Generations it works on at once (``dp_size``, count).
    """

    abilities: frozenset[str] | None = None
    model: str | None = None
    names: frozenset[str] = frozenset()
    replicas: int = 1

    def may_be(self, name: str) -> bool:
        """Whether it serves the model of that *name*; true as well while that is unknown."""
        return not self.names or name in self.names

    def any_of(self, abilities: frozenset[str]) -> bool | None:
        """Whether it has one of *abilities*; None while unknown."""
        return None if self.abilities is None else not self.abilities.isdisjoint(abilities)


@frozen
class RequiredEpoch:
    """
    Which weights epochs a client takes.

    Attributes:
        number: This one.
        exact: No later one.
    """

    number: int
    exact: bool = False

    def met_by(self, epoch: int | None) -> bool:
        """Whether *epoch* is one of them; None, which nobody knows, is none."""
        if epoch is None:
            return False
        return epoch == self.number if self.exact else epoch >= self.number

    def out_of_reach(self, epoch: int) -> bool:
        """Whether a model that is at *epoch* will never have it again."""
        return self.exact and epoch > self.number


@frozen
class Want:
    """
    What a request needs of its worker.

    Attributes:
        word: What it makes, for messages; empty when nothing is known of it.
        abilities: One of these is needed; empty when any worker will do.
        strict: Whether a worker known to be unable is out of the question. Otherwise it is the last
            choice, and its own answer tells the client.
        model: The model that must be served: `UNNAMED` for workers whose models are not known yet.
        session: Whether it opens a realtime session, of which a worker takes one at a time.
        slot: Whether it takes GPU time, and with that one of its worker's slots.
        kind: What it makes, one of `sgl_droute.fleet.job.KINDS`; how long that takes is learned
            for each.
        epoch: The weights epochs that will do; None for any.
    """

    word: str = ""
    abilities: frozenset[str] = frozenset()
    strict: bool = False
    model: str | None = None
    session: bool = False
    slot: bool = True
    kind: str = "other"
    epoch: RequiredEpoch | None = None

    def allows(self, capabilities: Capabilities) -> bool:
        """Whether a worker with *capabilities* may serve it at all."""
        return self.serves_model(capabilities) and not (self.strict and self.unable(capabilities))

    def unable(self, capabilities: Capabilities) -> bool:
        """Whether *capabilities* are known to lack what is needed."""
        return bool(self.abilities) and capabilities.any_of(self.abilities) is False

    def serves_model(self, capabilities: Capabilities) -> bool:
        """Whether *capabilities* have the model."""
        if self.model is None:
            return True
        return self.model in capabilities.names or (
            self.model == UNNAMED and not capabilities.names
        )


UNNAMED = ""

ANYTHING = Want()
READING = Want(slot=False)
IMAGE = Want("image", frozenset({"image"}), kind="image")
EDIT = Want("image", frozenset({"edit"}), kind="edit")
# Trainers and Vertex AI ask for images and, with frames, for videos.
SAMPLE = Want("image", frozenset({"image", "edit", "video"}), kind="rollout")
VERTEX = evolve(SAMPLE, kind="vertex")
VIDEO = Want("video", frozenset({"video"}), strict=True, kind="video")
# Some of the video models have it; none says so.
REALTIME = Want("video", frozenset({"video"}), strict=True, session=True, kind="session")
MESH = Want("mesh", frozenset({"mesh"}), strict=True, kind="mesh")
ACTION = Want("action", frozenset({"action"}), strict=True, kind="action")


def reported(model_info: Any, cards: Any, server_info: Any = None) -> Capabilities:
    """
    The capabilities in a worker's answers.

    Args:
        model_info: JSON of ``/model_info``; None when there was none.
        cards: JSON of ``/v1/models``; None when there was none.
        server_info: JSON of ``/server_info``; None when there was none.
    """
    info = model_info if isinstance(model_info, Mapping) else {}
    data = cards.get("data") if isinstance(cards, Mapping) else None
    models = [card for card in data or () if isinstance(card, Mapping)] if _listed(data) else []
    path = _text(info.get("model_path"))
    ids = [_text(card.get("id")) for card in models]
    return Capabilities(
        abilities=_abilities([info, *models]),
        model=path or next(filter(None, ids), None),
        names=frozenset(islice(filter(None, [path, *ids]), _MOST_NAMES)),
        replicas=_replicas(server_info),
    )


def _replicas(server_info: Any) -> int:
    size = server_info.get("dp_size") if isinstance(server_info, Mapping) else None
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        return 1
    return min(size, _MOST_REPLICAS)


def _abilities(reports: Iterable[Mapping[str, Any]]) -> frozenset[str] | None:
    tasks: set[str] = set()
    outputs: set[str] = set()
    for report in reports:
        tasks.update(_texts(report.get("supported_task_types")))
        tasks.update(_texts([report.get("task_type")]))
        outputs.update(_texts(report.get("output_types")))
    by_task = {name for name, needed in _ABILITY_TASKS.items() if needed & tasks}
    # Task types say more than output types, which are asked where a task type is new to us.
    if by_task:
        return frozenset(by_task)
    by_output = {name for word in outputs for name in _ABILITY_OUTPUTS.get(word, ())}
    return frozenset(by_output) or None


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if _listed(value) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _listed(value: Any) -> bool:
    return isinstance(value, (list, tuple))
