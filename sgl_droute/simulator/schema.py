"""
What the request bodies of a worker may hold, and the complaints when they do not.

Field types are checked the lenient way of pydantic ("5" is an integer); values are judged by those
who use them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sgl_droute.fleet.cost import parsed_size
from sgl_droute.simulator.replies import Problem, WorkerError, detail, missing, unprocessable

Check = Callable[[object], Problem | None]
Fields = dict[str, Any]


def _problem(kind: str, message: str, value: object) -> Problem:
    return Problem(kind, (), message, value)


def text(value: object) -> Problem | None:
    if value is None or isinstance(value, str):
        return None
    return _problem("string_type", "Input should be a valid string", value)


def integer(value: object) -> Problem | None:
    if value is None or isinstance(value, int):
        return None
    if isinstance(value, float):
        if value.is_integer():
            return None
        message = "Input should be a valid integer, got a number with a fractional part"
        return _problem("int_from_float", message, value)
    if isinstance(value, str):
        try:
            int(value)
        except ValueError:
            message = "Input should be a valid integer, unable to parse string as an integer"
            return _problem("int_parsing", message, value)
        return None
    return _problem("int_type", "Input should be a valid integer", value)


def number(value: object) -> Problem | None:
    if value is None or isinstance(value, (int, float)):
        return None
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            message = "Input should be a valid number, unable to parse string as a number"
            return _problem("float_parsing", message, value)
        return None
    return _problem("float_type", "Input should be a valid number", value)


def truth(value: object) -> Problem | None:
    words = ("true", "false", "1", "0", "yes", "no", "on", "off")
    if value is None or isinstance(value, bool) or str(value).lower() in words:
        return None
    return _problem(
        "bool_parsing", "Input should be a valid boolean, unable to interpret input", value
    )


def integers(value: object) -> Problem | None:
    if isinstance(value, list):
        return next((problem for problem in map(integer, value) if problem), None)
    return integer(value)


COMMON: dict[str, Check] = {
    "prompt": text,
    "negative_prompt": text,
    "model": text,
    "size": text,
    "width": integer,
    "height": integer,
    "n": integer,
    "num_inference_steps": integer,
    "guidance_scale": number,
    "guidance_scale_2": number,
    "true_cfg_scale": number,
    "seed": integers,
    "num_frames": integer,
    "fps": integer,
    "output_compression": integer,
    "output_format": text,
    "enable_upscaling": truth,
    "upscaling_scale": integer,
    "enhance_prompt": truth,
    "task_type": text,
    "response_format": text,
}

ROLLOUT: dict[str, Check] = {
    **COMMON,
    "seed": integer,
    "num_outputs_per_prompt": integer,
    "rollout": truth,
    "rollout_debug_mode": truth,
    "rollout_noise_level": number,
    "rollout_return_dit_trajectory": truth,
    "rollout_return_denoising_env": truth,
}


def parse_object(body: bytes, content_type: str | None) -> Fields:
    """
    The JSON object in *body*.

    Raises:
        WorkerError: 422, as FastAPI says it.
    """
    if not body:
        raise unprocessable(missing(("body",), None))
    if content_type is not None and not _is_json(content_type):
        raise _not_an_object(body.decode("utf-8", "replace"))
    try:
        value = json.loads(body)
    except json.JSONDecodeError as error:
        raise unprocessable(
            Problem(
                "json_invalid", ("body", error.pos), "JSON decode error", {}, {"error": error.msg}
            )
        ) from error
    except ValueError as error:
        raise detail(400, "There was an error parsing the body") from error
    if not isinstance(value, dict):
        raise _not_an_object(value)
    return value


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _not_an_object(value: object) -> WorkerError:
    message = "Input should be a valid dictionary or object to extract fields from"
    return unprocessable(Problem("model_attributes_type", ("body",), message, value))


def problems(
    fields: Mapping[str, object],
    checks: Mapping[str, Check],
    required: tuple[str, ...] = (),
    *,
    missing_input: object = None,
) -> list[Problem]:
    """
    Everything in *fields* that the worker's schema refuses.

    Args:
        missing_input: What a missing field's complaint shows as input.
    """
    found = [missing(("body", name), missing_input) for name in required if name not in fields]
    if "prompt" in required and "prompt" in fields and fields["prompt"] is None:
        found.append(
            Problem("string_type", ("body", "prompt"), "Input should be a valid string", None)
        )
    for name, check in checks.items():
        problem = check(fields.get(name))
        if problem is not None:
            found.append(Problem(problem.kind, ("body", name), problem.message, problem.given))
    return found


def check(fields: Fields, checks: Mapping[str, Check], required: tuple[str, ...] = ()) -> Fields:
    """
    *fields* unless the schema refuses them.

    Raises:
        WorkerError: 422 with every violation.
    """
    found = problems(fields, checks, required, missing_input=fields)
    if found:
        raise unprocessable(*found)
    return fields


def check_values(fields: Mapping[str, object]) -> None:
    """
    Refuse sizes and counts that no pipeline takes.

    Raises:
        WorkerError: 400.
    """
    size = fields.get("size")
    if size and parsed_size(size) is None:
        raise detail(400, "size must be formatted as positive WIDTHxHEIGHT")
    for name in ("width", "height", "num_frames", "fps", "num_inference_steps"):
        value = fields.get(name)
        if value is not None and whole(value) < 1:
            raise detail(400, f"{name} must be a positive integer")


def clamp(value: object, least: int = 1, most: int = 10) -> int:
    """
    *value* as a whole number between *least* and *most*; *least* for None.
    """
    return least if value is None else min(max(whole(value), least), most)


def whole(value: object) -> int:
    """
    *value*, which has passed :func:`integer`, as an integer.
    """
    return int(value) if isinstance(value, (int, float)) else int(str(value))
