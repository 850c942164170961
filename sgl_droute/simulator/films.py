"""
Encodes the videos that a simulated worker 'generates': short H.264 MP4 files. Needs PyAV.
"""

from __future__ import annotations

import math
from fractions import Fraction
from io import BytesIO

import av
from attrs import evolve
from PIL import Image, ImageDraw

from sgl_droute.simulator.pictures import Scene, draw

SMALLEST_SIDE = 16


def film_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """
    Even sides of the same aspect ratio, none above *longest* (0: no limit).
    """
    scale = min(1.0, longest / max(width, height)) if longest else 1.0
    sides = (max(SMALLEST_SIDE, round(side * scale / 2) * 2) for side in (width, height))
    return next(sides), next(sides)


def film_file(scene: Scene, frames: int, fps: int, longest: int = 320) -> bytes:
    """
    An MP4 of *frames* frames: a slow pan over the picture of *scene*, and a bar that tells time.
    """
    width, height = film_size(scene.width, scene.height, longest)
    margin = max(2, width // 8)
    backdrop = draw(evolve(scene, width=width + margin, height=height))
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"preset": "ultrafast", "crf": "25"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.thread_count = 1
        for number in range(frames):
            frame = av.VideoFrame.from_image(_frame(backdrop, width, height, number / frames))
            frame.pts = number
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _frame(backdrop: Image.Image, width: int, height: int, time: float) -> Image.Image:
    shift = round((backdrop.width - width) * (1 - math.cos(math.tau * time)) / 2)
    frame = backdrop.crop((shift, 0, shift + width, height))
    bar = max(2, height // 60)
    ImageDraw.Draw(frame).rectangle([0, height - bar, width * time, height], fill=(255, 252, 240))
    return frame
