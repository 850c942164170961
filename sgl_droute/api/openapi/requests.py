"""
What workers take from clients. They take more fields than these, and ignore most others; values
that no worker can make anything of are ruled out here, though the router judges none of them.
"""

from __future__ import annotations

from sgl_droute.api.openapi.words import (
    NUMBER,
    TEXT,
    TRUTH,
    Schema,
    about,
    either,
    listed,
    one_of,
    or_null,
    whole,
)

_SIDE = whole(1, 4096, description="Pixels. Workers take more, until their memory is full.")
_SIDE_TEXT = "([1-9][0-9]{0,2}|[1-3][0-9]{3}|40[0-8][0-9]|409[0-6])"
_SEED = whole(0, (1 << 53) - 1, description="Workers fail at seeds of more than 64 bits.")
_SAMPLING: dict[str, Schema] = {
    "prompt": TEXT,
    "negative_prompt": or_null(TEXT),
    "model": or_null(about(TEXT, "Chooses among workers that serve several models.")),
    "size": {
        "type": ["string", "null"],
        "pattern": f"^{_SIDE_TEXT}x{_SIDE_TEXT}$",
        "description": "WIDTHxHEIGHT in pixels.",
    },
    "num_inference_steps": or_null(whole(1, 1000)),
    "guidance_scale": or_null(NUMBER),
    "true_cfg_scale": or_null(NUMBER),
    "seed": or_null(about(_SEED, "Equal requests give equal results; 42 without one.")),
}
_SIDES = {"width": or_null(_SIDE), "height": or_null(_SIDE)}
_OUTPUTS = whole(1, 10, description="Not every model makes more than one at a time.")
_PICTURES: dict[str, Schema] = {
    "n": or_null(_OUTPUTS),
    "response_format": one_of("url", "b64_json"),
    "output_format": one_of("png", "jpeg", "webp"),
    "output_quality": one_of("default", "low", "medium", "high", "maximum"),
    "output_compression": or_null(whole(0, 100)),
    "background": one_of("auto", "transparent", "opaque"),
    "quality": one_of("auto", "exact", "lossless", "high", "extra-high"),
}
_FILMS: dict[str, Schema] = {
    "n": or_null(_OUTPUTS),
    "seconds": whole(1, 60, description="4 without it."),
    "fps": or_null(whole(1, 240)),
    "num_frames": or_null(whole(1, 1000)),
}


def _order(required: tuple[str, ...], **fields: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": fields}


def _form(required: tuple[str, ...], **fields: Schema) -> Schema:
    """As `_order`; a form has no null."""
    return _order(required, **{name: _without_null(each) for name, each in fields.items()})


def _without_null(schema: Schema) -> Schema:
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return {**schema, "type": next(kind for kind in kinds if kind != "null")}
    return schema


_UPLOAD: Schema = {"type": "string", "format": "binary"}
_LINK: Schema = {
    "type": "string",
    "pattern": "^(https?://|data:image/)",
    "description": "`http://...`, `https://...` or `data:...`; workers fetch it.",
}

REQUESTS: dict[str, Schema] = {
    "ImageRequest": _order(("prompt",), **_SAMPLING, **_SIDES, **_PICTURES),
    "EditRequest": {
        **_form(("prompt",), **_SAMPLING, **_PICTURES, image=_UPLOAD, url=_LINK),
        "anyOf": [{"required": ["image"]}, {"required": ["url"]}],
    },
    "VideoRequest": _order(("prompt",), **_SAMPLING, **_SIDES, **_FILMS, reference_url=_LINK),
    "VideoForm": _form(
        ("prompt",),
        **{**_SAMPLING, "prompt": {"type": "string", "minLength": 1}},
        **_SIDES,
        **_FILMS,
        input_reference=_UPLOAD,
    ),
    "MeshRequest": _order(
        ("input_image",), **_SAMPLING, input_image=_LINK, format=one_of("glb", "obj")
    ),
    "MeshForm": _form(("image",), **_SAMPLING, image=_UPLOAD, format=one_of("glb", "obj")),
    "RolloutRequest": {
        **_order(
            ("prompt", "seed"),
            **{**_SAMPLING, "seed": _SEED},
            **_SIDES,
            num_frames=or_null(whole(1, 1000)),
            num_outputs_per_prompt=or_null(whole(1, 16)),
            rollout=TRUTH,
            rollout_noise_level=NUMBER,
            rollout_debug_mode=TRUTH,
            rollout_return_dit_trajectory=TRUTH,
            rollout_return_denoising_env=TRUTH,
        ),
        "description": "Without `seed` workers generate, and then fail.",
    },
    "VertexRequest": _order(
        ("instances",),
        instances=listed(_order(("prompt",), prompt=TEXT)),
        parameters=_order((), **_SIDES, guidance_scale=or_null(NUMBER)),
    ),
    "LoraRequest": _order(
        ("lora_nickname",),
        lora_nickname=either(TEXT, listed(TEXT)),
        lora_path=either(TEXT, listed(TEXT)),
        target=one_of("all", "transformer", "transformer_2", "critic"),
        strength=either(NUMBER, listed(NUMBER)),
        merge_mode=one_of("auto", "merge", "dynamic"),
    ),
    "LoraChange": _order(
        (),
        target=one_of("all", "transformer", "transformer_2", "critic"),
        strength=NUMBER,
    ),
    "DiskUpdate": _order(
        ("model_path",),
        model_path=about(TEXT, "A folder on the workers, or the id of a repository."),
        flush_cache=TRUTH,
        target_modules=or_null(listed(TEXT)),
    ),
    "TensorUpdate": _order(
        ("serialized_named_tensors",),
        serialized_named_tensors=listed(TEXT),
        payload_gpu_uuids=listed(TEXT),
        load_format=or_null(TEXT),
        target_modules=or_null(listed(TEXT)),
    ),
    "ChecksumRequest": _order((), module_names=or_null(listed(TEXT))),
}
