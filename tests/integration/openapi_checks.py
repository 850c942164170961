"""
What schemathesis is told of this router, in its own process: what answers must be beside what
``/openapi.json`` says, which values make requests meaningful, and how the fleet is mended.

`tests.integration.openapi_fuzz` starts it, and says in the environment what there is.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote
from zlib import crc32

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import UnsupportedMethodResponse

from sgl_droute.api.openapi.work import WISHES
from sgl_droute.errors import BadRequest
from sgl_droute.fleet.urls import normalise_worker_url

ROUTER = os.environ["FUZZED_ROUTER"]
WORKERS = os.environ["FUZZED_WORKERS"].split()
# Whether the fleet is left alone, so that nothing excuses a 5xx.
HEALTHY = os.environ["FUZZED_SCOPE"] == "inference"

# What is left of a picture that workers take for one.
_PICTURE = "data:image/png;base64,iVBORw0KGgo="
_MODEL = "nvidia/Cosmos3-Nano"
_LINKS = ("url", "reference_url", "input_image")
# Nobody listens there.
_NOBODY = "http://127.0.0.1:9"
_CHANGING = (
    *("/add_worker", "/remove_worker", "/workers", "/v1/set_lora", "/v1/merge_lora_weights"),
    *("/v1/unmerge_lora_weights", "/update_weights", "/release_memory", "/resume_memory"),
    "/weights",
)
_GENERATIONS = ("/v1/images/", "/v1/videos", "/generate", "/v1/meshes", "/rollout", "/vertex")
# The phase that goes through the wishes one by one; others have none in every other request.
_THOROUGH = (TestPhase.COVERAGE,)
_WISHES = tuple(each["name"] for each in WISHES)
_MOST = {
    "width": 99,
    "height": 99,
    "n": 2,
    "num_outputs_per_prompt": 2,
    "num_inference_steps": 20,
    "num_frames": 9,
    "seconds": 1,
    "fps": 24,
}
_NUMBER = re.compile(r"[0-9]{1,200}(\.[0-9]+)?(e\+[0-9]{1,2})?")
_SIZE = re.compile("([0-9]+)x([0-9]+)")
_MEND_EVERY = 5
_changes = 0
_dice = Random(int(os.environ.get("FUZZED_SEED", 1)))
# Routes that take any method: to them TRACE is one like others.
_ANY_METHOD = ("/v1/actions/", "/v1/realtime_video/generate")
_tally: Counter[tuple[str, int]] = Counter()


@schemathesis.check
def the_router_did_well(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """
    It did not break, and shows nobody its inside.
    """
    text = response.content[:100_000].decode("utf-8", "replace")
    assert "Traceback" not in text, text
    told = _json(text)
    if isinstance(told, dict) and "reason" in told and "request_id" in told:
        assert told["reason"] != "internal_error", text
        assert response.headers["x-request-id"] == [told["request_id"]], text
        assert not (HEALTHY and response.status_code >= 500), text


@schemathesis.check
def the_worker_did_well(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """
    With healthy workers no request that is as described ends with a 5xx, whoever says it.
    """
    if HEALTHY and response.status_code >= 500:
        mode = case.meta.generation.mode if case.meta else None
        raise AssertionError(f"{response.status_code} ({mode}): {response.content[:300]!r}")


@schemathesis.hook
def map_path_parameters(context: HookContext, path_parameters: dict[str, Any]) -> dict[str, Any]:
    """
    Every other worker is one that there is.
    """
    given = (path_parameters or {}).get("worker_id")
    if isinstance(given, str) and crc32(given.encode("utf-8", "replace")) % 2:
        return {**path_parameters, "worker_id": quote(_one_of_ours(given), safe="")}
    return path_parameters


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """
    No request has the router speak to an address outside this test; and most of those that could
    never be served, for what they wish, wish something else.
    """
    headers: Any = case.headers or {}
    if case.meta is not None and case.meta.phase.name not in _THOROUGH:
        for name in _WISHES if _one_in(2) else ():
            headers.pop(name, None)
    if _is_text(headers.get("X-Webhook-Url"), "://") and not _one_in(8):
        headers["X-Webhook-Url"] = f"{_NOBODY}/"
    if _is_text(headers.get("X-Require-Epoch"), "=") and not _one_in(8):
        headers["X-Require-Epoch"] = ">=0"
    if "X-Rollout-Size" in headers and not _one_in(4):
        headers.setdefault("X-Rollout-Batch", "batch")
    if not _one_in(4):
        _replace(case.query, ("model",), lambda text: _MODEL if text else text)
    if case.path.startswith(_GENERATIONS):
        _make_small(case.body)
        if HEALTHY:
            _spare_workers(case.body, case.path == "/rollout/generate")
    if case.path.endswith(("/add_worker", "/remove_worker", "/workers")):
        for fields in (case.query, case.body):
            _replace(fields, ("url", "worker_url"), _harmless)
    elif not _one_in(4):
        _replace(case.body, _LINKS, lambda text: _PICTURE if ":" in text else text)


@schemathesis.hook
def filter_failure(
    context: HookContext, failure: Failure, case: Case[Any], response: Response
) -> bool:
    undeclared = isinstance(failure, UnsupportedMethodResponse)
    return not (undeclared and case.path.startswith(_ANY_METHOD))


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """
    Every so often a fleet that was changed is made as it was, and at once when it serves nobody.
    """
    global _changes
    _tally[f"{case.method} {case.path}", response.status_code] += 1
    if HEALTHY:
        return
    if case.method != "GET" and case.path.startswith(_CHANGING):
        _changes += 1
        if _changes >= _MEND_EVERY:
            mend()
    elif _changes and (response.status_code == 503 or _one_in(4)):
        mend()


def mend() -> None:
    """
    Bring all workers back, and send away who came besides.
    """
    global _changes
    _changes = 0
    shown = {each["url"]: each for each in _ask("GET", "/workers")["workers"]}
    for url in shown.keys() - set(WORKERS):
        _ask("DELETE", f"/workers/{quote(url, safe='')}")
    for url in WORKERS:
        worker = shown.get(url) or _ask("POST", f"/workers?url={quote(url, safe='')}")["worker"]
        flags = [name for name in ("is_dead", "draining", "disabled") if worker[name]]
        changed: dict[str, Any] = dict.fromkeys(flags, False)
        settings = [name for name in ("concurrency", "speed") if worker[name] is not None]
        changed.update(dict.fromkeys(settings))
        if changed:
            _ask("PUT", f"/workers/{quote(url, safe='')}", changed)
    if any(each["is_sleeping"] for each in shown.values()):
        _ask("POST", "/resume_memory_occupation")


def _ask(method: str, path: str, fields: object = None) -> Any:
    data = None if fields is None else json.dumps(fields).encode()
    request = urllib.request.Request(ROUTER + path, data=data, method=method)
    request.add_header("X-Api-Key", os.environ["FUZZED_KEY"])
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return json.load(error)


def _one_of_ours(text: str) -> str:
    return WORKERS[crc32(text.encode("utf-8", "replace")) // 2 % len(WORKERS)]


def _harmless(text: str) -> str:
    try:
        url = normalise_worker_url(text)
    except BadRequest:
        return text
    return url if url in WORKERS else (_NOBODY, _one_of_ours(text))[crc32(text.encode()) % 2]


def _make_small(fields: Any) -> None:
    """
    Bring orders for much work down to what a CPU that draws all this has done at once; what is no
    order at all stays as it is.
    """
    if not isinstance(fields, dict):
        return
    for name, most in _MOST.items():
        value = fields.get(name)
        if isinstance(value, bool) or not _NUMBER.fullmatch(str(value)):
            continue
        if float(str(value)) > most:
            fields[name] = int(float(str(value))) % most + 1
    size = _SIZE.fullmatch(str(fields.get("size")))
    if size is not None:
        width, height = (int(side[-2:]) + 1 for side in size.groups())
        fields["size"] = f"{width}x{height}"
    for nested in (fields.get("parameters"), *_several(fields.get("instances"))):
        _make_small(nested)


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _spare_workers(fields: Any, rollout: bool) -> None:
    """
    Rule out what workers are known to take and then to fail at with a 500 of their own: rollouts
    without a seed, seeds of more than 64 bits, and more or fewer seeds than outputs.
    """
    if isinstance(fields, dict):
        seed = fields.get("seed")
        beyond = isinstance(seed, (int, float)) and abs(seed) >= 1 << 53
        if beyond or isinstance(seed, list) or (rollout and seed is None):
            fields["seed"] = 1


def _replace(fields: Any, names: Sequence[str], by: Callable[[str], str]) -> None:
    if isinstance(fields, dict):
        for name in names:
            value = fields.get(name)
            if isinstance(value, str):
                fields[name] = by(value)
            elif isinstance(value, list):
                fields[name] = [by(each) if isinstance(each, str) else each for each in value]


def _one_in(many: int) -> bool:
    """
    Whether chance has it so, which is the same in every run of one seed.
    """
    return _dice.randrange(many) == 0


def _is_text(value: object, within: str) -> bool:
    return isinstance(value, str) and within in value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


@atexit.register
def _tell() -> None:
    counts: dict[str, dict[str, int]] = {}
    for (route, status), count in sorted(_tally.items()):
        counts.setdefault(route, {})[str(status)] = count
    Path(os.environ["FUZZED_TALLY"]).write_text(json.dumps(counts))
