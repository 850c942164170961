"""
The official OpenAI client, unchanged, through the router to a simulated worker.
"""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

from openai import OpenAI
from PIL import Image

from tests.integration.commands import free_port, once_up, running


def test_an_image(tmp_path: Path) -> None:
    """
    ``images.generate`` gives a valid image of the size asked for, and ``models.list`` the model.
    """
    port = free_port()
    words = ("sglang-d-router", "--port", str(port), "--simulated-workers", "1")
    with running(*words, cwd=tmp_path):
        once_up(f"http://127.0.0.1:{port}/v1/models")
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        with client:
            [model] = client.models.list().data
            made = client.images.generate(
                model=model.id,
                prompt="a lighthouse at dusk",
                size="512x512",
                response_format="b64_json",
                output_format="webp",
            )
    assert made.data is not None
    encoded = made.data[0].b64_json
    assert encoded is not None
    image = Image.open(BytesIO(base64.b64decode(encoded)))
    image.load()
    assert (image.format, image.size) == ("WEBP", (512, 512))
    colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None
    assert len(colours) > 100
