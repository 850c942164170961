"""
Writes the meshes that a simulated worker 'generates': a coloured octahedron, as GLB or OBJ.
"""

from __future__ import annotations

import json
import random
import struct

CORNERS = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
FACES = [(0, 2, 4), (2, 1, 4), (1, 3, 4), (3, 0, 4), (2, 0, 5), (1, 2, 5), (3, 1, 5), (0, 3, 5)]


def _sizes(key: str) -> tuple[float, float, float]:
    chance = random.Random(key)
    return chance.uniform(0.5, 1.5), chance.uniform(0.5, 1.5), chance.uniform(0.5, 1.5)


def obj_file(key: str) -> bytes:
    """
    A Wavefront OBJ whose proportions follow from *key*.
    """
    a, b, c = _sizes(key)
    lines = [f"v {x * a:.4f} {y * b:.4f} {z * c:.4f}" for x, y, z in CORNERS]
    lines += [f"f {i + 1} {j + 1} {k + 1}" for i, j, k in FACES]
    return ("\n".join(lines) + "\n").encode()


def glb_file(key: str) -> bytes:
    """
    A binary glTF 2.0 whose proportions and colour follow from *key*.
    """
    a, b, c = _sizes(key)
    indices = struct.pack("<24H", *(corner for face in FACES for corner in face))
    places = struct.pack("<18f", *(v for x, y, z in CORNERS for v in (x * a, y * b, z * c)))
    document = json.dumps(
        _document(key, (a, b, c), len(indices), len(places)), separators=(",", ":")
    )
    text = document.encode()
    text += b" " * (-len(text) % 4)
    data = indices + places
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _document(
    key: str, sizes: tuple[float, float, float], indices: int, places: int
) -> dict[str, object]:
    chance = random.Random(f"colour {key}")
    colour = [round(chance.random(), 3), round(chance.random(), 3), round(chance.random(), 3), 1.0]
    return {
        "asset": {"version": "2.0", "generator": "sgl-droute simulator"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": colour, "metallicFactor": 0.1}}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 1}, "indices": 0, "material": 0}]}],
        "buffers": [{"byteLength": indices + places}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": indices, "target": 34963},
            {"buffer": 0, "byteOffset": indices, "byteLength": places, "target": 34962},
        ],
        "accessors": [
            {"bufferView": 0, "componentType": 5123, "count": 24, "type": "SCALAR"},
            {
                "bufferView": 1,
                "componentType": 5126,
                "count": 6,
                "type": "VEC3",
                "min": [-side for side in sizes],
                "max": list(sizes),
            },
        ],
    }
