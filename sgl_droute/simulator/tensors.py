"""
Tensors as a rollout answer carries them: real safetensors bytes in a map.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from math import prod

BYTES_OF = {"F32": 4, "BF16": 2, "I64": 8}
TORCH_NAME = {"F32": "torch.float32", "BF16": "torch.bfloat16", "I64": "torch.int64"}


def safetensors(
    data: bytes, shape: Sequence[int], dtype: str = "F32", name: str = "tensor"
) -> bytes:
    """
    A safetensors file with one tensor: header length, JSON header padded to 8 bytes, data.
    """
    if len(data) != prod(shape) * BYTES_OF[dtype]:
        raise ValueError(f"{len(data)} bytes are no {dtype} tensor of shape {list(shape)}")
    entry = {"dtype": dtype, "shape": list(shape), "data_offsets": [0, len(data)]}
    header = json.dumps({name: entry}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def tensor(data: bytes, shape: Sequence[int], dtype: str = "F32") -> dict[str, object]:
    """
    The map that stands for a tensor in msgpack.
    """
    return {
        "__tensor__": True,
        "data": safetensors(data, shape, dtype),
        "shape": list(shape),
        "dtype": TORCH_NAME[dtype],
    }


def noise(shape: Sequence[int], key: str) -> dict[str, object]:
    """
    A float32 tensor whose values, between 0 and 1, follow from *key*.
    """
    source = random.Random(key)
    row = struct.pack("<256f", *(source.random() for _ in range(256)))
    size = prod(shape) * BYTES_OF["F32"]
    return tensor((row * (size // len(row) + 1))[:size], shape)
