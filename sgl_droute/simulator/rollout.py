"""
``/rollout/generate`` and ``/vertex_generate``: the routes of trainers and of Vertex AI.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from math import prod
from typing import Any

import msgpack  # type: ignore[import-untyped]
from attrs import define, evolve
from twisted.internet.defer import Deferred, DeferredList

from sgl_droute.fleet.cost import Shape, image_shape, video_shape
from sgl_droute.simulator.engine import Engine, Task
from sgl_droute.simulator.images import scene_key
from sgl_droute.simulator.pictures import Scene, picture_file
from sgl_droute.simulator.replies import (
    GenerationFailed,
    Problem,
    Reply,
    WorkerError,
    detail,
    internal_error,
    json_reply,
    missing,
    unprocessable,
)
from sgl_droute.simulator.schema import (
    COMMON,
    ROLLOUT,
    Fields,
    check,
    check_values,
    parse_object,
    whole,
)
from sgl_droute.simulator.tensors import noise

CHANNELS = 3
LATENT_CHANNELS = 16
LATENT_SCALE = 8
MOST_VALUES = 1 << 28


@define(eq=False)
class Rollout:
    """
    Synchronous generations with tensors in their answers.
    """

    engine: Engine

    async def generate(self, body: bytes, content_type: str | None) -> Reply:
        fields = check(parse_object(body, content_type), ROLLOUT, ("prompt",))
        try:
            check_values(fields)
        except WorkerError as error:
            text = bytes(error.reply.body).decode() if isinstance(error.reply.body, bytes) else ""
            raise detail(400, f"Invalid sampling params: {text[11:-2]}") from error
        shape = _shape(self.engine, fields)
        ids = tuple(self.engine.new_id() for _ in range(shape.outputs))
        task = Task(
            kind="rollout",
            prompt=str(fields["prompt"]),
            seed=fields.get("seed"),
            shape=shape,
            ids=ids,
            make=lambda weights: [
                {"request_id": id, **self._sample(number, fields, shape, weights)}
                for number, id in enumerate(ids)
            ],
        )
        try:
            made = await self.engine.generate(task)
        except GenerationFailed as error:
            raise detail(500, str(error)) from error
        if fields.get("seed") is None:
            raise internal_error()
        for sample in made.result:
            sample["inference_time_s"] = made.inference_time
        packed = await self.engine.run_in_thread(msgpack.packb, made.result)
        return Reply(200, "application/msgpack", packed)

    def _sample(self, number: int, fields: Fields, shape: Shape, weights: str) -> dict[str, Any]:
        key = f"{fields['prompt']} {scene_key(fields, number, shape.outputs, weights)}"
        width, height = self._side(shape.width), self._side(shape.height)
        latents = [
            max(1, -(-shape.frames // 4)),
            LATENT_CHANNELS,
            -(-height // LATENT_SCALE),
            -(-width // LATENT_SCALE),
        ]
        if shape.steps * prod(latents) > MOST_VALUES:
            raise GenerationFailed("CUDA out of memory.")
        debug = fields.get("rollout_debug_mode", True)
        trajectory = fields.get("rollout_return_dit_trajectory", False)
        names = ("variance_noises", "prev_sample_means", "noise_std_devs")
        return {
            "prompt": fields["prompt"],
            "seed": None if fields.get("seed") is None else whole(fields["seed"]) + number,
            "generated_output": self._output(key, shape, width, height),
            "rollout_log_probs": noise([shape.steps], f"log {key}"),
            "rollout_debug_tensors": {n: noise([shape.steps, *latents], n + key) for n in names}
            if debug
            else None,
            "denoising_env": None,
            "dit_trajectory": noise([shape.steps + 1, *latents], f"dit {key}")
            if trajectory
            else None,
            "inference_time_s": None,
            "peak_memory_mb": self.engine.model.peak_memory_mb,
        }

    def _side(self, side: int) -> int:
        longest = self.engine.settings.rollout_side
        return min(side, longest) if longest else side

    def _output(self, key: str, shape: Shape, width: int, height: int) -> dict[str, object]:
        if self.engine.faults.rollout_bytes is not None:
            return noise([max(1, self.engine.faults.rollout_bytes // 4)], key)
        if shape.fps is None:
            return noise([CHANNELS, height, width], key)
        return noise([CHANNELS, shape.frames, height, width], key)


def _shape(engine: Engine, fields: Fields) -> Shape:
    video = engine.model.makes_videos and not engine.model.makes_images
    make = video_shape if video else image_shape
    shape = make(engine.model.family, fields)
    wanted = fields.get("num_outputs_per_prompt")
    return evolve(shape, outputs=max(1, whole(wanted or 1)))


def _vertex_problems(given: Fields) -> Iterator[Problem]:
    if "instances" not in given:
        yield missing(("body", "instances"), given)
        return
    instances, parameters = given["instances"], given.get("parameters")
    where = ("body", "instances")
    if not isinstance(instances, list):
        yield Problem("list_type", where, "Input should be a valid list", instances)
        return
    strays = [(where, one) for one in instances if not isinstance(one, dict)]
    if not isinstance(parameters, dict | None):
        strays.append((("body", "parameters"), parameters))
    for location, value in strays:
        yield Problem("dict_type", location, "Input should be a valid dictionary", value)


@define(eq=False)
class Vertex:
    """
    Vertex AI's way to ask for several images at once.
    """

    engine: Engine

    async def generate(self, body: bytes, content_type: str | None) -> Reply:
        given = parse_object(body, content_type)
        found = list(_vertex_problems(given))
        if found:
            raise unprocessable(*found)
        parameters = given.get("parameters") or {}
        each = [
            Deferred.fromCoroutine(self._predict({**parameters, **instance}))
            for instance in given["instances"]
        ]
        results = await DeferredList(each)
        return json_reply({"predictions": [result for _, result in results]})

    async def _predict(self, fields: Fields) -> dict[str, object]:
        try:
            check(fields, COMMON, ("prompt",))
            shape = image_shape(self.engine.model.family, fields)
            task = Task(
                kind="vertex",
                prompt=str(fields["prompt"]),
                seed=fields.get("seed"),
                shape=shape,
                make=lambda weights: _picture(fields, shape, weights),
            )
            made = await self.engine.generate(task)
        except (GenerationFailed, WorkerError) as error:
            return {"error": str(error)}
        return {"output": base64.b64encode(made.result).decode()}


def _picture(fields: Fields, shape: Shape, weights: str) -> bytes:
    key = scene_key(fields, 0, 1, weights)
    return picture_file(Scene(str(fields["prompt"]), key, shape.width, shape.height), "jpeg")
