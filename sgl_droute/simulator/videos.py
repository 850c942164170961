"""
``/v1/videos``: jobs, their list, and their files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from attrs import Factory, define

from sgl_droute.fleet.cost import HTTP_VIDEO_FPS, Shape, video_shape
from sgl_droute.simulator.background import list_reply, start_work
from sgl_droute.simulator.content import file_reply
from sgl_droute.simulator.engine import Engine, Task
from sgl_droute.simulator.forms import parse_form
from sgl_droute.simulator.images import parse_variant, scene_key
from sgl_droute.simulator.jobs import Job, Jobs
from sgl_droute.simulator.pictures import Scene
from sgl_droute.simulator.replies import (
    Problem,
    Reply,
    detail,
    json_reply,
    unprocessable,
)
from sgl_droute.simulator.schema import COMMON, Fields, check_values, problems

NESTED = ("extra_body", "extra_json", "extra_params")
INPUTS = ("reference_url", "input_reference", "video_path", "video_url", "video_reference")
OUTPUTS = "num_outputs_per_prompt"


def read_json(body: bytes) -> Fields:
    """
    The fields of a JSON video request; an unreadable body counts as an empty object.

    Raises:
        WorkerError: 400, unlike everywhere else.
    """
    try:
        given = json.loads(body)
    except ValueError:
        given = {}
    fields = _flattened(given if isinstance(given, dict) else {})
    found = problems(fields, COMMON, ("prompt",), missing_input=fields)
    if found:
        raise detail(400, f"Invalid request body: {_worded(found)}")
    return fields


def _worded(found: list[Problem]) -> str:
    count = (
        f"{len(found)} validation error{'s' if len(found) > 1 else ''} for VideoGenerationsRequest"
    )
    lines = [
        f"{problem.location[-1]}\n  {problem.message}"
        f" [type={problem.kind}, input_value={problem.given!r}]"
        for problem in found
    ]
    return "\n".join([count, *lines])


def _flattened(given: Fields) -> Fields:
    fields: Fields = {}
    for name in NESTED:
        nested = given.get(name)
        if isinstance(nested, str):
            try:
                nested = json.loads(nested)
            except ValueError:
                continue
        if isinstance(nested, dict):
            fields.update(nested)
    fields.update({name: value for name, value in given.items() if name not in NESTED})
    return fields


def read_form(body: bytes, content_type: str) -> Fields:
    """
    The fields of a multipart video request.

    Raises:
        WorkerError: 422 for a wrong type, 400 without a prompt.
    """
    form = parse_form(body, content_type)
    fields = _flattened(form.texts())
    found = problems(fields, COMMON)
    if found:
        raise unprocessable(*found)
    if not fields.get("prompt"):
        raise detail(400, "prompt is required")
    for upload in form.uploads("input_reference", "video_reference"):
        fields["input_reference"] = upload.filename
    return fields


def shown(job: Job, now: float) -> dict[str, object]:
    """
    *job* as the worker shows it.
    """
    done = job.completed is not None
    announced = str(job.paths[0]) if done else str(job.paths[0]).replace("_0.mp4", ".mp4")
    return {
        "id": job.id,
        "object": "video",
        "model": job.model,
        "status": job.status,
        "progress": job.progress(now),
        "created_at": int(job.created),
        **job.about,
        "url": None,
        "urls": [None] * len(job.paths) if done else None,
        "remixed_from_video_id": None,
        "completed_at": None if job.completed is None else int(job.completed),
        "expires_at": None,
        "error": None if job.error is None else {"message": job.error},
        "file_path": announced if job.error is None else None,
        "file_paths": [str(path) for path in job.paths] if done else None,
        "num_outputs": len(job.paths) if done else None,
        "peak_memory_mb": job.peak_memory_mb,
        "inference_time_s": job.inference_time,
        "revised_prompt": None,
        "action": None,
        "lidar": None,
    }


@define(eq=False)
class Videos:
    """
    The video routes of one worker.
    """

    engine: Engine
    jobs: Jobs = Factory(Jobs)

    async def create(self, body: bytes, content_type: str | None) -> Reply:
        multipart = "multipart/form-data" in (content_type or "").lower()
        fields = read_form(body, content_type or "") if multipart else read_json(body)
        self._check(fields)
        check_values(fields)
        references = 1 if any(fields.get(name) for name in INPUTS) else 0
        shape = video_shape(self.engine.model.family, fields, references=references)
        job = self._new_job(shape)
        task = Task(
            kind="video",
            prompt=str(fields["prompt"]),
            seed=fields.get("seed"),
            shape=shape,
            ids=(job.id,),
            make=lambda weights: self._film(job, fields, shape, weights),
        )
        reply = json_reply(shown(job, self.engine.now()))
        start_work(self.engine, self.jobs, job, task)
        return reply

    async def list(self, query: Mapping[str, str]) -> Reply:
        return list_reply(self.jobs, query, lambda job: shown(job, self.engine.now()))

    async def get(self, job_id: str) -> Reply:
        return json_reply(shown(self._job(job_id), self.engine.now()))

    async def delete(self, job_id: str) -> Reply:
        self._job(job_id)
        now = self.engine.now()
        forgotten = self.jobs.forget(job_id)
        return json_reply({**shown(forgotten, now), "status": "deleted"})

    async def content(
        self, job_id: str, variant: str | None, wanted: tuple[str | None, str | None]
    ) -> Reply:
        number = parse_variant(variant)
        job = self._job(job_id)
        if job.status in ("queued", "in_progress"):
            raise detail(404, "Generation is still in-progress")
        path = job.output(number)
        if path is None:
            raise detail(404, f"Video variant {number} not found")
        return file_reply(path, *wanted, attached=True)

    def _job(self, job_id: str) -> Job:
        try:
            return self.jobs[job_id]
        except KeyError:
            raise detail(404, "Video not found") from None

    def _check(self, fields: Fields) -> None:
        model = self.engine.model
        tasks = list(model.tasks)
        if not model.makes_videos:
            raise detail(
                400, f"This pipeline does not support VIDEO output; supported task types: {tasks}"
            )
        given = any(fields.get(name) for name in INPUTS)
        if given and not model.takes_images:
            raise detail(400, f"input_reference is not supported for {tasks[0]} models.")
        if tasks[0] == "I2V" and not given:
            raise detail(400, "input_reference is required for I2V models.")

    def _new_job(self, shape: Shape) -> Job:
        engine = self.engine
        job_id = engine.new_id()
        ends = [".mp4"] if shape.outputs == 1 else [f"_{n}.mp4" for n in range(shape.outputs)]
        return Job(
            id=job_id,
            model=engine.settings.public_name,
            created=engine.now(),
            paths=tuple(engine.folder / f"{job_id}{end}" for end in ends),
            about={
                "size": f"{shape.width}x{shape.height}",
                "seconds": str(round(shape.frames / (shape.fps or HTTP_VIDEO_FPS))),
                "quality": "standard",
            },
        )

    def _film(self, job: Job, fields: Fields, shape: Shape, weights: str) -> None:
        for number, path in enumerate(job.paths):
            key = scene_key(fields, number, len(job.paths), weights)
            scene = Scene(str(fields["prompt"]), key, shape.width, shape.height)
            self.engine.studio.film(scene, shape.frames, shape.fps or HTTP_VIDEO_FPS, path)
