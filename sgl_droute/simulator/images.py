"""
``/v1/images``: generations, edits and the files they leave.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote_to_bytes

from attrs import Factory, define, evolve, frozen

from sgl_droute.fleet.cost import Shape, image_shape
from sgl_droute.simulator.content import file_reply
from sgl_droute.simulator.engine import Engine, Task
from sgl_droute.simulator.forms import Form, parse_form
from sgl_droute.simulator.pictures import Scene, fitted_size
from sgl_droute.simulator.replies import (
    GenerationFailed,
    Problem,
    Reply,
    detail,
    json_reply,
    unprocessable,
)
from sgl_droute.simulator.schema import (
    COMMON,
    Fields,
    check,
    check_values,
    clamp,
    parse_object,
    problems,
    whole,
)

SUFFIX = {"jpg": ".jpg", "jpeg": ".jpg", "png": ".png", "webp": ".webp"}
LEVELS = {"default": None, "low": 40, "medium": 60, "high": 90, "maximum": 100}
QUALITIES = ("auto", "exact", "lossless", "high", "extra-high")
DEFAULT_SEED = 42


@frozen(kw_only=True)
class Order:
    """
    A checked image request.
    """

    fields: Fields
    outputs: int
    suffix: str
    quality: int | None
    response_format: str
    sources: tuple[bytes, ...] = ()


def read_order(fields: Fields, model_format: str, default_response: str) -> Order:
    """
    What *fields* ask for.

    Raises:
        WorkerError: 400 for a value that the worker does not take.
    """
    check_values(fields)
    response_format = str(fields.get("response_format") or default_response).lower()
    if response_format not in ("url", "b64_json"):
        raise detail(400, f"response_format must be 'url' or 'b64_json', got '{response_format}'")
    quality = fields.get("quality") or "auto"
    if quality not in QUALITIES:
        raise detail(400, f"quality must be one of {', '.join(QUALITIES)}; got '{quality}'")
    if _true(fields.get("enhance_prompt")):
        raise detail(400, "enhance_prompt requires a server with a prompt enhancer.")
    transparent = fields.get("background") == "transparent"
    kind = str(fields.get("output_format") or ("png" if transparent else model_format)).lower()
    if kind not in SUFFIX:
        raise detail(400, f"output_format must be one of png, jpeg, webp; got '{kind}'")
    return Order(
        fields=fields,
        outputs=clamp(fields.get("n")),
        suffix=SUFFIX[kind],
        quality=_compression(fields),
        response_format=response_format,
    )


def _true(value: object) -> bool:
    return value is True or str(value).lower() in ("true", "1", "yes", "on")


def _compression(fields: Mapping[str, object]) -> int | None:
    given = fields.get("output_compression")
    if given is not None:
        number = clamp(given, 0, 100)
        return None if number == 75 else number
    return LEVELS.get(str(fields.get("output_quality") or "default"))


@define(eq=False)
class Images:
    """
    The image routes of one worker.
    """

    engine: Engine
    _made: dict[str, tuple[Path, ...]] = Factory(dict)

    async def generate(self, body: bytes, content_type: str | None) -> Reply:
        fields = check(parse_object(body, content_type), COMMON, ("prompt",))
        default = "b64_json" if "Cosmos3" in self.engine.model.path else "url"
        self._check_task(fields)
        order = read_order(fields, self.engine.model.image_format, default)
        if self.engine.model.tasks == ("I2I",):
            raise detail(400, "input_reference is required for I2I models.")
        return await self._answer(order, image_shape(self.engine.model.family, fields))

    async def edit(self, body: bytes, content_type: str | None) -> Reply:
        form = parse_form(body, content_type)
        fields = form.texts()
        found = problems(fields, COMMON, ("prompt",))
        if found:
            raise unprocessable(*found)
        sources = _sources(form)
        self._check_task(fields)
        if not self.engine.model.takes_images:
            raise detail(
                400, f"input_reference is not supported for {self.engine.model.tasks[0]} models."
            )
        order = read_order(fields, self.engine.model.image_format, "b64_json")
        order = evolve(order, sources=sources)
        shape = image_shape(self.engine.model.family, fields, references=len(sources))
        fitted = fitted_size(sources[-1])
        if fitted is not None and not fields.get("size"):
            shape = evolve(shape, width=fitted[0], height=fitted[1])
        return await self._answer(order, shape)

    async def content(
        self, image_id: str, variant: str | None, wanted: tuple[str | None, str | None]
    ) -> Reply:
        """
        The file of an image.

        Args:
            wanted: The Range and If-Range headers.
        """
        number = parse_variant(variant)
        if image_id not in self._made:
            raise detail(404, "Image not found")
        paths = self._made[image_id]
        if number is not None and not 0 <= number < len(paths):
            raise detail(404, f"Image variant {number} not found")
        return file_reply(paths[number or 0], *wanted, attached=False)

    def _check_task(self, fields: Fields) -> None:
        model = self.engine.model
        tasks = list(model.tasks)
        if not model.makes_images:
            raise detail(
                400, f"This pipeline does not support IMAGE output; supported task types: {tasks}"
            )
        task = fields.get("task_type")
        if task is not None and task not in tasks:
            raise detail(400, f"task_type '{task}' is not supported; supported task types: {tasks}")

    async def _answer(self, order: Order, shape: Shape) -> Reply:
        engine = self.engine
        if order.response_format == "url" and not engine.keeps_files:
            raise detail(400, "response_format='url' requires cloud storage to be configured.")
        image_id = engine.new_id()
        paths = _paths(engine.folder, image_id, order)
        task = Task(
            kind="image",
            prompt=str(order.fields["prompt"]),
            seed=order.fields.get("seed"),
            shape=shape,
            ids=(image_id,),
            make=lambda weights: self._draw(order, shape, weights, paths),
        )
        if not engine.model.many_outputs and order.outputs > 1:
            task = evolve(task, make=_no_batch)
        made = await engine.generate(task)
        data = await engine.run_in_thread(_data, order, image_id, paths, engine.keeps_files)
        if engine.keeps_files:
            self._made[image_id] = paths
        answer = {
            "id": image_id,
            "created": int(engine.now()),
            "data": data,
            "peak_memory_mb": engine.model.peak_memory_mb,
            "inference_time_s": made.inference_time,
            "usage": None,
        }
        return json_reply(answer)

    def _draw(self, order: Order, shape: Shape, weights: str, paths: Sequence[Path]) -> None:
        for number, path in enumerate(paths):
            key = scene_key(order.fields, number, len(paths), weights, order.sources)
            source = order.sources[-1] if order.sources else None
            scene = Scene(str(order.fields["prompt"]), key, shape.width, shape.height, source)
            kind = {".jpg": "jpeg", ".png": "png", ".webp": "webp"}[path.suffix]
            self.engine.studio.picture(scene, kind, order.quality, path)


def scene_key(
    fields: Mapping[str, object],
    number: int,
    outputs: int,
    weights: str,
    sources: Sequence[bytes] = (),
) -> str:
    """
    What the look of output *number* depends on beside the prompt.

    Raises:
        GenerationFailed: a list of seeds has not one seed per output.
    """
    seed = fields.get("seed")
    if isinstance(seed, list):
        if len(seed) != outputs:
            raise GenerationFailed(f"seed list has {len(seed)} entries for {outputs} outputs")
        seed = seed[number]
    else:
        seed = whole(DEFAULT_SEED if seed is None else seed) + number
    changing = ("negative_prompt", "num_inference_steps", "guidance_scale", "true_cfg_scale")
    options = [(name, fields[name]) for name in changing if fields.get(name) is not None]
    inputs = [sha256(source).hexdigest() for source in sources]
    return repr((seed, weights, options, inputs))


def parse_variant(value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        message = "Input should be a valid integer, unable to parse string as an integer"
        raise unprocessable(Problem("int_parsing", ("query", "variant"), message, value)) from None


def _paths(folder: Path, image_id: str, order: Order) -> tuple[Path, ...]:
    if order.outputs == 1:
        return (folder / f"{image_id}{order.suffix}",)
    return tuple(folder / f"{image_id}_{number}{order.suffix}" for number in range(order.outputs))


def _no_batch(weights: str) -> None:
    raise GenerationFailed("Z-Image expects one caption embedding per image")


def _data(
    order: Order, image_id: str, paths: Sequence[Path], kept: bool
) -> list[dict[str, object]]:
    return [_datum(order, image_id, number, paths, kept) for number in range(len(paths))]


def _datum(
    order: Order, image_id: str, number: int, paths: Sequence[Path], kept: bool
) -> dict[str, object]:
    as_text = order.response_format == "b64_json"
    url = f"/v1/images/{image_id}/content" + (f"?variant={number}" if len(paths) > 1 else "")
    encoded = base64.b64encode(paths[number].read_bytes()).decode() if as_text else None
    if not kept:
        paths[number].unlink()
    return {
        "b64_json": encoded,
        "url": None if as_text else url,
        "revised_prompt": order.fields["prompt"],
        "file_path": str(paths[number]) if kept else None,
        "resize": None,
    }


def _sources(form: Form) -> tuple[bytes, ...]:
    """
    The input images of an edit. Remote ones are not fetched: their URL stands for them.
    """
    uploads = tuple(upload.content for upload in form.uploads("image", "image[]"))
    linked = tuple(data_of(url) for url in form.values("url", "url[]", "image", "image[]"))
    if not uploads + linked:
        raise _missing_image()
    return uploads + linked


def _missing_image() -> Exception:
    return detail(422, "Field 'image' or 'url' is required")


def data_of(url: str) -> bytes:
    """
    The bytes in a data URL, or those of any other URL's own text.

    Raises:
        WorkerError: 400 when it is neither.
    """
    if url.startswith(("http://", "https://")):
        return url.encode()
    head, comma, payload = url.partition(",")
    if not head.startswith("data:") or not comma:
        raise detail(400, f"Failed to process image source: unsupported url '{url[:40]}'")
    try:
        return (
            base64.b64decode(payload, validate=True)
            if head.endswith(";base64")
            else unquote_to_bytes(payload)
        )
    except binascii.Error as error:
        raise detail(400, f"Failed to process image source: {error}") from error
