"""
``/v1/meshes``: as videos, without progress.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, define

from sgl_droute.fleet.cost import image_shape
from sgl_droute.simulator.background import list_reply, start_work
from sgl_droute.simulator.content import file_reply
from sgl_droute.simulator.engine import Engine, Task
from sgl_droute.simulator.forms import parse_form
from sgl_droute.simulator.images import data_of, scene_key
from sgl_droute.simulator.jobs import Job, Jobs
from sgl_droute.simulator.replies import (
    Reply,
    detail,
    internal_error,
    json_reply,
)
from sgl_droute.simulator.schema import COMMON, Fields, check, parse_object

FORMATS = ("glb", "obj")


def shown(job: Job) -> dict[str, object]:
    """
    *job* as the worker shows it.
    """
    done = job.completed is not None
    return {
        "id": job.id,
        "object": "mesh",
        "model": job.model,
        "status": job.status,
        "progress": 100 if done else 0,
        "created_at": int(job.created),
        "format": job.paths[0].suffix[1:],
        "url": None,
        "completed_at": int(job.completed) if job.completed is not None else None,
        "expires_at": None,
        "error": None if job.error is None else {"message": job.error},
        "file_path": str(job.paths[0]) if done else None,
        "file_size_bytes": job.paths[0].stat().st_size if done else None,
        "peak_memory_mb": job.peak_memory_mb,
        "inference_time_s": job.inference_time,
    }


@define(eq=False)
class Meshes:
    """
    The mesh routes of one worker.
    """

    engine: Engine
    jobs: Jobs = Factory(Jobs)

    async def create(self, body: bytes, content_type: str | None) -> Reply:
        fields, source = _read(body, content_type)
        if not self.engine.model.makes_meshes:
            raise internal_error()
        suffix = str(fields.get("format") or fields.get("output_format") or "glb").lower()
        if suffix not in FORMATS:
            raise detail(400, f"format must be one of glb, obj; got '{suffix}'")
        job_id = self.engine.new_id()
        job = Job(
            id=job_id,
            model=self.engine.settings.public_name,
            created=self.engine.now(),
            paths=(self.engine.folder / f"{job_id}.{suffix}",),
        )
        shape = image_shape(self.engine.model.family, fields, references=1)
        task = Task(
            kind="mesh",
            prompt=str(fields.get("prompt") or ""),
            seed=fields.get("seed"),
            shape=shape,
            ids=(job.id,),
            make=lambda weights: self._shape(job, fields, source, weights),
        )
        reply = json_reply(shown(job))
        start_work(self.engine, self.jobs, job, task)
        return reply

    async def list(self, query: Mapping[str, str]) -> Reply:
        return list_reply(self.jobs, query, shown)

    async def get(self, job_id: str) -> Reply:
        return json_reply(shown(self._job(job_id)))

    async def delete(self, job_id: str) -> Reply:
        self._job(job_id)
        return json_reply({**shown(self.jobs.forget(job_id)), "status": "deleted"})

    async def content(self, job_id: str, wanted: tuple[str | None, str | None]) -> Reply:
        job = self._job(job_id)
        path = job.output(None)
        if path is None:
            raise detail(
                404, "Generation is still in-progress" if job.error is None else "Mesh not found"
            )
        return file_reply(path, *wanted, attached=True)

    def _job(self, job_id: str) -> Job:
        try:
            return self.jobs[job_id]
        except KeyError:
            raise detail(404, "Mesh not found") from None

    def _shape(self, job: Job, fields: Fields, source: bytes, weights: str) -> None:
        key = scene_key(fields, 0, 1, weights, [source])
        self.engine.studio.mesh(key, job.paths[0])


def _read(body: bytes, content_type: str | None) -> tuple[Fields, bytes]:
    """
    The fields of a mesh request and its input image.
    """
    if "multipart/form-data" not in (content_type or "").lower():
        fields = check(parse_object(body, content_type), COMMON)
        if not isinstance(fields.get("input_image"), str):
            raise detail(422, "Field 'input_image' is required")
        return fields, data_of(fields["input_image"])
    form = parse_form(body, content_type)
    fields = form.texts()
    uploads = form.uploads("image", "image[]", "input_image")
    links = form.values("url", "url[]")
    if not uploads and not links:
        raise detail(422, "Field 'image' or 'url' is required")
    return fields, uploads[0].content if uploads else data_of(links[0])
