"""
The official OpenAI client, unchanged, through a router with several workers.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import av
import httpx2
import pytest
from openai import NotFoundError, OpenAI
from PIL import Image

from tests.integration.commands import fetch, free_port, once_up, running

# The client calls its own videos deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SHORT = {"num_frames": 8, "fps": 8}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A router with three simulated workers, as a process of its own."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    words = ("sglang-d-router", "--port", str(port), "--simulated-workers", "3")
    with running(*words, cwd=tmp_path_factory.mktemp("router")):
        once_up(f"{base}/liveness")
        end = time.monotonic() + 90
        while [each["state"] for each in fetch(f"{base}/workers")["workers"]] != ["ready"] * 3:
            assert time.monotonic() < end
        yield base


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def completed(client: OpenAI, id: str) -> Any:
    """
    The video once it is completed.
    """
    end = time.monotonic() + 90
    while (video := client.videos.retrieve(id)).status != "completed":
        assert video.status in ("queued", "in_progress")
        assert time.monotonic() < end
    return video


def test_a_video(client: OpenAI) -> None:
    """
    ``videos.create``, ``retrieve``, ``download_content`` and ``delete`` follow one job to its file
    and its end, whichever worker has it.
    """
    made = client.videos.create(prompt="a fox", size="1280x720", seconds="4", extra_body=SHORT)
    assert (made.object, made.status) == ("video", "queued")
    video = completed(client, made.id)
    assert (video.id, video.progress, video.size) == (made.id, 100, "1280x720")
    content = client.videos.download_content(made.id).read()
    with av.open(BytesIO(content), "r") as film:
        assert len(list(film.decode(video=0))) == SHORT["num_frames"]
    gone = client.videos.delete(made.id)
    assert gone.id == made.id
    with pytest.raises(NotFoundError) as unknown:
        client.videos.retrieve(made.id)
    assert unknown.value.body == "Unknown video_id"


def test_a_list_that_pages_by_itself(client: OpenAI, url: str) -> None:
    """
    ``videos.list`` goes through the pages of all workers by itself: each video once, the newest
    first or last.
    """
    made = [client.videos.create(prompt=f"{n}", extra_body=SHORT).id for n in range(10)]
    for id in made:
        completed(client, id)
    loads = [each["jobs"] for each in fetch(f"{url}/workers")["workers"]]
    assert loads == [0, 0, 0]
    for order in ("asc", "desc"):
        listed = list(client.videos.list(limit=3, order=order))
        assert sorted(video.id for video in listed) == sorted(made)
        times = [video.created_at for video in listed]
        assert times == sorted(times, reverse=order == "desc")
    first = client.videos.list(limit=3)
    assert (len(first.data), first.has_more) == (3, True)
    for id in made:
        client.videos.delete(id)
    assert list(client.videos.list()) == []


def test_images(client: OpenAI) -> None:
    """
    ``images.generate`` gives URLs of this router, from which the image can be had; ``images.edit``
    takes a file.
    """
    made = client.images.generate(
        prompt="a fox", size="512x512", n=2, output_format="png", response_format="url"
    )
    assert made.data is not None
    for part in made.data:
        assert part.url is not None
        answer = httpx2.get(httpx2.URL(str(client.base_url)).join(part.url))
        assert Image.open(BytesIO(answer.content)).size == (512, 512)
    source = BytesIO()
    Image.new("RGB", (256, 256), "teal").save(source, "PNG")
    edited = client.images.edit(
        image=("fox.png", source.getvalue()), prompt="a red fox", size="512x512"
    )
    assert edited.data is not None
    encoded = edited.data[0].b64_json
    assert encoded is not None
    assert Image.open(BytesIO(b64decode(encoded))).size == (512, 512)


def test_models(client: OpenAI) -> None:
    """
    ``models.list`` gives the one model of three workers once; ``models.retrieve`` finds it by its
    name with a slash, and says what does not exist.
    """
    [model] = client.models.list().data
    assert "/" in model.id
    assert client.models.retrieve(model.id).id == model.id
    with pytest.raises(NotFoundError) as unknown:
        client.models.retrieve("me/none")
    assert unknown.value.body == "The model 'me/none' does not exist"


def test_a_video_from_an_image(client: OpenAI) -> None:
    """
    ``videos.create`` with a file sends a form, which crosses as it is.
    """
    source = BytesIO()
    Image.new("RGB", (256, 256), "teal").save(source, "PNG")
    made = client.videos.create(
        prompt="a fox", input_reference=("fox.png", source.getvalue()), extra_body=SHORT
    )
    assert completed(client, made.id).id == made.id
    client.videos.delete(made.id)
