"""
Calls that change or inspect the GPU process: LoRA, weights, memory, and ``/stats``.

All of them wait in the line of the generations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attrs import define, evolve

from sgl_droute.simulator.engine import Engine
from sgl_droute.simulator.journal import Call
from sgl_droute.simulator.replies import (
    GenerationFailed,
    Problem,
    Reply,
    detail,
    internal_error,
    json_reply,
    unprocessable,
)
from sgl_droute.simulator.schema import Check, Fields, check, number, parse_object, text
from sgl_droute.simulator.weights import TARGETS, WeightsRefused, digest

T = TypeVar("T")

TENSORS = "serialized_named_tensors"

LORA_SECONDS = 1.5
DISK_SECONDS = 4.0
TENSOR_SECONDS = 0.5
CHECKSUM_SECONDS = 0.5
MEMORY_SECONDS = 1.0


@define(eq=False)
class Control:
    """
    The control routes of one worker.
    """

    engine: Engine

    async def stats(self) -> Reply:
        model_path = self.engine.model.path
        try:
            await self._in_line("/stats", {}, 0.0, lambda: None)
        except GenerationFailed as error:
            disagg: dict[str, str] = {"error": str(error)}
        else:
            disagg = {"role": "monolithic", "message": "not in disagg mode"}
        return json_reply({"status": "ok", "model_path": model_path, "disagg": disagg})

    async def set_lora(self, body: bytes, content_type: str | None) -> Reply:
        given = parse_object(body, content_type)
        check(given, {}, ("lora_nickname",))
        nicknames = _many(given["lora_nickname"])
        _check_each("lora_nickname", nicknames, _required_text)
        paths = _spread(given.get("lora_path"), len(nicknames))
        _check_each("lora_path", paths, text)
        strengths = _spread(given.get("strength"), len(nicknames))
        _check_each("strength", strengths, number)
        strengths = [1.0 if one is None else float(one) for one in strengths]
        target = _target(given.get("target"))
        mode = "dynamic" if given.get("merge_mode") == "dynamic" else "merged"

        def act() -> str:
            self.engine.weights.set_adapters(nicknames, paths, target, strengths, mode)
            named = ", ".join(nicknames)
            how = ", ".join(map(str, strengths))
            return f"Successfully set LoRA adapter(s): {named} (target: {target}, strength: {how})"

        return await self._lora("/v1/set_lora", given, "Failed to set LoRA adapter", act)

    async def merge_lora(self, body: bytes, content_type: str | None) -> Reply:
        given = check(
            parse_object(body or b"{}", content_type), {"target": text, "strength": number}
        )
        target = _target(given.get("target"))
        strength = 1.0 if given.get("strength") is None else float(given["strength"])

        def act() -> str:
            self.engine.weights.merge(target, strength)
            return f"Successfully merged LoRA weights (target: {target}, strength: {strength})"

        path, complaint = "/v1/merge_lora_weights", "Failed to merge LoRA weights"
        return await self._lora(path, given, complaint, act)

    async def unmerge_lora(self, body: bytes, content_type: str | None) -> Reply:
        given = check(parse_object(body or b"{}", content_type), {"target": text})
        target = _target(given.get("target"))

        def act() -> str:
            self.engine.weights.unmerge(target)
            return f"Successfully unmerged LoRA weights (target: {target})"

        path, complaint = "/v1/unmerge_lora_weights", "Failed to unmerge LoRA weights"
        return await self._lora(path, given, complaint, act)

    async def list_loras(self) -> Reply:
        try:
            shown = await self._in_line("/v1/list_loras", {}, 0.0, self.engine.weights.adapters)
            return json_reply(shown)
        except GenerationFailed as error:
            raise detail(500, str(error)) from error

    async def update_from_disk(self, body: bytes) -> Reply:
        given = _object(body)
        weights = self.engine.weights
        return await self._update(
            "/update_weights_from_disk",
            given,
            DISK_SECONDS,
            lambda: weights.update(given.get("model_path"), _names(given.get("target_modules"))),
        )

    async def update_from_tensor(self, body: bytes) -> Reply:
        given = _object(body)
        weights = self.engine.weights
        tensors = given.get(TENSORS)
        if not isinstance(tensors, list) or not tensors:
            message = f"{TENSORS} is required"
            return json_reply({"success": False, "message": message}, 400)
        payload = json.dumps(tensors, sort_keys=True).encode()
        return await self._update(
            "/update_weights_from_tensor",
            given,
            TENSOR_SECONDS,
            lambda: weights.update_from_tensors(payload, _names(given.get("target_modules"))),
        )

    async def check_tensor(self, body: bytes) -> Reply:
        """
        Accepts what an update would; the sums of what came are in the answer.
        """
        given = _object(body)
        tensors = given.get(TENSORS) or []
        sums = [digest(json.dumps(one, sort_keys=True)) for one in _many(tensors)]
        path = "/update_weights_from_tensor_checker"
        await self._in_line(path, given, TENSOR_SECONDS, lambda: None)
        return json_reply({"success": True, "message": "Checked.", "checksums": sums})

    async def checksum(self, body: bytes) -> Reply:
        given = _object(body)
        names = _names(given.get("module_names"))
        try:
            sums = await self._in_line(
                "/get_weights_checksum",
                given,
                CHECKSUM_SECONDS,
                lambda: self.engine.weights.checksum(names),
            )
        except GenerationFailed:
            return json_reply(None)
        return json_reply(sums)

    async def release_memory(self) -> Reply:
        return await self._memory("/release_memory_occupation", self.engine.weights.sleep)

    async def resume_memory(self) -> Reply:
        return await self._memory("/resume_memory_occupation", self.engine.weights.wake)

    async def _in_line(self, path: str, given: Fields, seconds: float, act: Callable[[], T]) -> T:
        asked = {name: value for name, value in given.items() if name != TENSORS}
        return await self.engine.control(Call(path, asked, self.engine.now()), seconds, act)

    async def _lora(
        self, path: str, given: Fields, complaint: str, act: Callable[[], str]
    ) -> Reply:
        try:
            message = await self._in_line(path, given, LORA_SECONDS, act)
        except GenerationFailed as error:
            raise detail(500, f"{complaint}: {error}") from error
        return json_reply({"status": "ok", "message": message})

    async def _update(
        self, path: str, given: Fields, seconds: float, act: Callable[[], str]
    ) -> Reply:
        try:
            message = await self._in_line(path, given, seconds, act)
        except WeightsRefused as refused:
            return json_reply({"success": False, "message": refused.message}, refused.status)
        except GenerationFailed as error:
            return json_reply({"success": False, "message": str(error)}, 500)
        return json_reply({"success": True, "message": message})

    async def _memory(self, path: str, act: Callable[[], str]) -> Reply:
        def acted() -> dict[str, Any]:
            message = act()
            return {"success": True, "sleeping": self.engine.weights.sleeping, "message": message}

        try:
            return json_reply(await self._in_line(path, {}, MEMORY_SECONDS, acted))
        except GenerationFailed as error:
            return json_reply({"success": False, "message": str(error)}, 500)


def _object(body: bytes) -> dict[str, Any]:
    """
    The JSON object in *body*; what is none breaks these routes.
    """
    try:
        given = json.loads(body)
    except ValueError as error:
        raise internal_error() from error
    if not isinstance(given, dict):
        raise internal_error()
    return given


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _spread(value: Any, count: int) -> list[Any]:
    """
    *value* once for each of *count*, unless it is a list of that length.
    """
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise detail(400, "lora_nickname, lora_path and strength must have the same length")
    return value


def _names(value: object) -> Sequence[str] | None:
    return None if value is None else [str(name) for name in _many(value)]


def _target(value: object) -> str:
    target = "all" if value in (None, []) else _many(value)[0]
    if target not in TARGETS:
        raise detail(400, f"Invalid target: {target}. Valid targets: {', '.join(TARGETS)}")
    return str(target)


def _required_text(value: object) -> Problem | None:
    if value is None:
        return Problem("string_type", (), "Input should be a valid string", None)
    return text(value)


def _check_each(name: str, values: Sequence[object], check: Check) -> None:
    for value in values:
        problem = check(value)
        if problem is not None:
            raise unprocessable(evolve(problem, location=("body", name)))
