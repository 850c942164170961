"""
Weights, LoRA adapters and the sleep flag of one simulated GPU process.

Nothing is loaded: sums and messages follow from names, so that equal histories give equal sums on
any two workers.
Pure: no clock, no sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from attrs import Factory, define, frozen

from sgl_droute.simulator.models import Model
from sgl_droute.simulator.replies import GenerationFailed

TARGETS = ("all", "transformer", "transformer_2", "critic")
RESUME = "Call resume_memory_occupation first."
ASLEEP = f"Server is sleeping. {RESUME}"


class WeightsRefused(Exception):
    """
    A weight update that changed nothing.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@frozen
class Adapter:
    """
    A LoRA adapter on one module.
    """

    nickname: str
    path: str
    strength: float
    merged: bool
    mode: str


def digest(*pieces: object) -> str:
    return sha256("\0".join(map(str, pieces)).encode()).hexdigest()


@define
class Weights:
    """
    What generations of one worker depend on beside the request.

    Attributes:
        sources: Where each module's weights come from.
        loaded: Path of every adapter ever loaded, by nickname.
        active: Adapters in force, by module.
        adapted: Modules whose parameter names a LoRA call has changed for good.
    """

    model: Model
    sources: dict[str, str]
    loaded: dict[str, str] = Factory(dict)
    active: dict[str, list[Adapter]] = Factory(dict)
    adapted: set[str] = Factory(set)
    sleeping: bool = False

    @classmethod
    def of(cls, model: Model) -> Weights:
        """
        The weights that *model* starts with.
        """
        return cls(model, dict.fromkeys(model.modules, model.path))

    @property
    def transformers(self) -> list[str]:
        return [name for name in self.sources if name.startswith("transformer")]

    def fingerprint(self) -> str:
        """
        A short sum of all that changes results.
        """
        adapters = [
            (name, one.path, one.strength)
            for name, many in sorted(self.active.items())
            for one in many
        ]
        return digest(sorted(self.sources.items()), adapters)[:16]

    def checksum(self, names: Sequence[str] | None) -> dict[str, str]:
        """
        The sum of each module in *names*, or of all.
        """
        return {name: self._sum(name) for name in (self.sources if names is None else names)}

    def _sum(self, name: str) -> str:
        if name not in self.sources:
            return "not_found"
        merged = [(a.path, a.strength) for a in self.active.get(name, []) if a.merged]
        return digest(name, self.sources[name], name in self.adapted, merged)

    def update(self, model_path: object, names: Sequence[str] | None) -> str:
        """
        Take *names* (default: all modules) from *model_path* and return the worker's message.

        Raises:
            WeightsRefused: with the worker's status; nothing has changed.
        """
        if self.sleeping:
            raise WeightsRefused(
                500, f"Cannot update weights while the server is sleeping. {RESUME}"
            )
        if not isinstance(model_path, str) or not model_path:
            raise WeightsRefused(400, "model_path is required")
        wanted = list(self.sources) if names is None else list(names)
        unknown = [name for name in wanted if name not in self.sources]
        if unknown:
            known = ", ".join(self.sources)
            raise WeightsRefused(
                400, f"Module(s) not found in pipeline: {', '.join(unknown)}. Available: {known}"
            )
        if "missing" in model_path:
            raise WeightsRefused(400, f"No safetensors files found for {wanted[0]} in {model_path}")
        self.sources.update(dict.fromkeys(wanted, model_path))
        return f"Updated {len(wanted)} modules ({', '.join(wanted)})."

    def update_from_tensors(self, payload: bytes, names: Sequence[str] | None) -> str:
        """
        Take *names* (default: the transformers) from *payload*, known by its sum.
        """
        if self.sleeping:
            raise WeightsRefused(
                500, f"Cannot update weights while the server is sleeping. {RESUME}"
            )
        wanted = self.transformers if names is None else list(names)
        unknown = [name for name in wanted if name not in self.sources]
        if unknown:
            raise WeightsRefused(400, f"Module(s) not found in pipeline: {', '.join(unknown)}")
        source = f"tensors:{sha256(payload).hexdigest()}"
        self.sources.update(dict.fromkeys(wanted, source))
        return f"Updated {len(wanted)} modules ({', '.join(wanted)})."

    def set_adapters(
        self,
        nicknames: Sequence[str],
        paths: Sequence[str | None],
        target: str,
        strengths: Sequence[float],
        mode: str,
    ) -> None:
        """
        Replace the adapters of *target* by the named ones.

        Raises:
            GenerationFailed: a nickname without a path is not loaded. The parameter names have
                changed all the same.
        """
        modules = self._targeted(target)
        self.adapted.update(modules)
        for nickname, path in zip(nicknames, paths, strict=True):
            if path is None and nickname not in self.loaded:
                raise GenerationFailed(
                    f"Adapter {nickname} not found in the pipeline. "
                    "Please provide lora_path to load it."
                )
            if path is not None:
                self.loaded[nickname] = path
        adapters = [
            Adapter(nickname, self.loaded[nickname], strength, mode != "dynamic", mode)
            for nickname, strength in zip(nicknames, strengths, strict=True)
        ]
        self.active.update({module: list(adapters) for module in modules})

    def merge(self, target: str, strength: float) -> None:
        """
        Merge the adapters of *target* into the weights again, at *strength*.
        """
        for module in self._targeted(target):
            self.active[module] = [
                Adapter(one.nickname, one.path, strength, True, "merged")
                for one in self.active.get(module, [])
            ]

    def unmerge(self, target: str) -> None:
        """
        Take every adapter out of *target*; loaded ones stay loaded.
        """
        for module in self._targeted(target):
            self.active.pop(module, None)

    def adapters(self) -> dict[str, object]:
        """
        The answer of ``/v1/list_loras``.
        """
        return {
            "loaded_adapters": [{"nickname": n, "path": p} for n, p in self.loaded.items()],
            "active": {name: [_shown(many)] for name, many in self.active.items() if many},
        }

    def sleep(self) -> str:
        was, self.sleeping = self.sleeping, True
        return "already sleeping" if was else "released GPU memory (moved active modules to CPU)"

    def wake(self) -> str:
        was, self.sleeping = self.sleeping, False
        return "resumed GPU memory (moved active modules to GPU)" if was else "already awake"

    def _targeted(self, target: str) -> list[str]:
        return [name for name in self.transformers if target in ("all", name)]


def _shown(adapters: Sequence[Adapter]) -> dict[str, object]:
    first = adapters[0]
    return {
        "nickname": ",".join(one.nickname for one in adapters),
        "nicknames": [one.nickname for one in adapters],
        "path": first.path,
        "merged": first.merged,
        "mode": "merged" if first.merged else "dynamic",
        "strength": first.strength,
        "strengths": [one.strength for one in adapters],
    }
