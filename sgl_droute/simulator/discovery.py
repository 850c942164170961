"""
What a worker tells of itself without asking its GPU: health, model cards, metrics.
"""

from __future__ import annotations

from attrs import define

from sgl_droute.simulator.engine import Engine
from sgl_droute.simulator.replies import Reply, WorkerError, json_reply

VERSION = "0.5.23"
METRICS = "text/plain; version=0.0.4; charset=utf-8"


@define(eq=False)
class Discovery:
    """
    The discovery routes of one worker.

    Attributes:
        warming: Whether the worker is still warming up.
        open_requests: Requests that wait for their answer.
    """

    engine: Engine
    warming: bool = False
    open_requests: int = 0

    async def liveness(self) -> Reply:
        return json_reply({"status": "ok"})

    async def health(self) -> Reply:
        if self.engine.gpu.dead is not None:
            return json_reply({"status": "unhealthy", "error": self.engine.gpu.dead}, 503)
        if self.warming:
            return Reply(503, None, b"")
        return json_reply({"status": "ok"})

    async def server_info(self) -> Reply:
        settings = self.engine.settings
        return json_reply(
            {
                "model_path": settings.served.path,
                "served_model_name": settings.public_name,
                "tp_size": 1,
                "dp_size": settings.dp_size,
                "version": VERSION,
            }
        )

    async def model_info(self) -> Reply:
        model = self.engine.model
        return json_reply(
            {
                "model_path": model.path,
                "is_generation": True,
                "model_type": "diffusion",
                "architectures": [model.pipeline],
                "has_image_understanding": False,
                "has_audio_understanding": False,
                **self._tasks(),
                "output_types": model.output_types,
                "is_image_gen": model.makes_images,
            }
        )

    async def short_model_info(self) -> Reply:
        return json_reply({"model_path": self.engine.model.path})

    async def old_models(self) -> Reply:
        model = self.engine.model
        return json_reply(
            {
                "model_path": model.path,
                "num_gpus": 1,
                **self._tasks(),
                "dit_precision": "bf16",
                "vae_precision": "fp32",
                "vae_decode_precision": "bf16",
                "pipeline_name": model.pipeline,
                "pipeline_class": model.pipeline,
            }
        )

    async def models(self) -> Reply:
        return json_reply({"object": "list", "data": [self._card()]})

    async def model(self, name: str) -> Reply:
        if name != self.engine.settings.public_name:
            error = {
                "message": f"The model '{name}' does not exist",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }
            raise WorkerError(json_reply({"error": error}, 404))
        return json_reply(self._card())

    async def metrics(self) -> Reply:
        journal = self.engine.journal
        failed = sum(entry.failed for entry in journal.generations)
        lines = [
            *_metric("gauge", "diffusion_num_queue_reqs", "", self.engine.gpu.waiting),
            *_metric("gauge", "diffusion_num_running_reqs", "", self.engine.gpu.running),
            "# TYPE sglang:diffusion_requests_total counter",
            _sample("success", journal.generations_finished - failed),
            _sample("error", failed),
            *_metric("counter", "http_requests_total", "", journal.requests),
            *_metric("gauge", "http_requests_active", "", self.open_requests),
        ]
        return Reply(200, METRICS, ("\n".join(lines) + "\n").encode())

    def _tasks(self) -> dict[str, object]:
        tasks = self.engine.model.tasks
        return {"task_type": tasks[0], "supported_task_types": list(tasks)}

    def _card(self) -> dict[str, object]:
        model, name = self.engine.model, self.engine.settings.public_name
        return {
            "id": name,
            "object": "model",
            "created": int(self.engine.now()),
            "owned_by": "sglang",
            "root": name,
            "parent": None,
            "max_model_len": None,
            "num_gpus": 1,
            **self._tasks(),
            "dit_precision": "bf16",
            "vae_precision": "fp32",
            "pipeline_name": model.pipeline,
            "pipeline_class": model.pipeline,
        }


def _metric(kind: str, name: str, labels: str, value: int) -> list[str]:
    return [f"# TYPE sglang:{name} {kind}", f"sglang:{name}{labels} {float(value)}"]


def _sample(status: str, value: int) -> str:
    labels = f'status="{status}",is_warmup="false"'
    return f"sglang:diffusion_requests_total{{{labels}}} {float(value)}"
