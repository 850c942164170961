"""
Which fields name files on a worker, by their names and texts.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.fleet.naming import Meaning, may_be_json, meaning, names_file


@pytest.mark.parametrize(
    ("means", "names"),
    [
        (
            Meaning.PATH,
            "output_path video_path image_path perf_dump_path lora_path model_path control_path"
            " upscaling_model_path frame_interpolation_model_path action_stats_path prompt_path"
            " output_file_name condition_path file_paths outputPath OUTPUT_PATH output-path path_2",
        ),
        (
            Meaning.MEDIA,
            "input_reference reference_url video_url image_url input_image image video url url[]"
            " image[] images uri first_frame image_1 observation.images.cam_high mask",
        ),
        (Meaning.NUMBERS, "action frustum_geometry intrinsics"),
        (Meaning.ID, "id request_id"),
        (Meaning.PROSE, "prompt negative_prompt task"),
        (Meaning.OBJECT, "extra_body extra_params observation parameters"),
        (
            Meaning.OTHER,
            "size model seed profile profile_all_stages response_format num_frames domain_name"
            " condition_video_keep video_cfg_scale user quality lora_nickname",
        ),
    ],
)
def test_what_fields_mean(means: Meaning, names: str) -> None:
    """
    A field is known by the words of its name, however they are joined.
    """
    for name in names.split():
        assert meaning(name) is means, name


@pytest.mark.parametrize(
    ("means", "text", "is_file"),
    [
        (Meaning.PATH, "", False),
        (Meaning.PATH, "out", True),
        (Meaning.PATH, "https://example.com/x", True),
        (Meaning.MEDIA, "", False),
        (Meaning.MEDIA, "https://example.com/a.png", False),
        (Meaning.MEDIA, "http://example.com/a/../b.png", True),
        (Meaning.MEDIA, "https://example.com/..%2fb.png", False),
        (Meaning.MEDIA, "http:///etc/passwd", True),
        (Meaning.MEDIA, "HTTP://example.com/a.png", True),
        (Meaning.MEDIA, " https://example.com/a.png", True),
        (Meaning.MEDIA, "data:image/png;base64,iVBORw0KGgo=", False),
        (Meaning.MEDIA, "data:video/mp4,x", False),
        (Meaning.MEDIA, "data:/../etc/passwd", True),
        (Meaning.MEDIA, "data:image/png;/../../etc/passwd", True),
        (Meaning.MEDIA, "file:///etc/passwd", True),
        (Meaning.MEDIA, "/etc/passwd", True),
        (Meaning.MEDIA, "secret.png", True),
        (Meaning.MEDIA, "3", False),
        (Meaning.MEDIA, "true", False),
        (Meaning.NUMBERS, "[[1, 2]]", False),
        (Meaning.NUMBERS, ' {"action": []}', False),
        (Meaning.NUMBERS, "rows.npy", True),
        (Meaning.ID, "3c0e7f3e-5f0e", False),
        (Meaning.ID, "../x", True),
        (Meaning.PROSE, "/etc/passwd is a file.", False),
        (Meaning.OTHER, "file:///etc/passwd", True),
        (Meaning.OTHER, "/srv/adapters/a.safetensors", True),
        (Meaning.OTHER, "../a.png", True),
        (Meaning.OTHER, "/9j/4AAQSkZJRgABAQ==", False),
        (Meaning.OTHER, "black-forest-labs/FLUX.1-dev", False),
        (Meaning.OTHER, "1024x1024", False),
    ],
)
def test_which_texts_name_files(means: Meaning, text: str, is_file: bool) -> None:
    """
    URLs of the web and data are no files where media are expected; nothing else is so there.
    """
    assert names_file(text, means) == is_file


@given(st.text(max_size=40), st.sampled_from(list(Meaning)), st.text(max_size=300))
def test_any_name_and_text(name: str, means: Meaning, text: str) -> None:
    """
    Every name means something, and for every text there is an answer.
    """
    assert meaning(name) in Meaning
    assert names_file(text, means) in (True, False)
    assert may_be_json(text) in (True, False)
