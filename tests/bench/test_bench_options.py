"""
The command line of the bench scripts.
"""

from __future__ import annotations

import pytest

from bench.harness.arm import Arm
from bench.harness.options import Settings, read_settings
from sgl_droute.fleet.selection import ALGORITHMS


def read(*words: str, compare: bool = False) -> Settings:
    return read_settings("bench.py", words, compare=compare)


def test_known_command_works() -> None:
    """
    The flags that users of the earlier router know.
    """
    settings = read(
        *("--model", "Qwen/Qwen-Image", "--num-workers", "2"),
        *("--num-prompts", "20", "--max-concurrency", "4"),
    )
    assert settings.num_workers == 2
    assert settings.num_prompts == 20
    assert settings.max_concurrency == 4
    assert settings.arms == (Arm("least-request"),)
    assert settings.task == "image"
    assert settings.mix == "sizes"


def test_comparison_takes_all_algorithms() -> None:
    """
    Without a choice, each algorithm that the router has.
    """
    assert read(compare=True).arms == tuple(map(Arm, ALGORITHMS))
    chosen = read("--algorithms", "random,round-robin", compare=True)
    assert chosen.arms == (Arm("random"), Arm("round-robin"))


def test_algorithms_come_with_limits() -> None:
    """
    The same algorithm may be compared with slots and without, and each says so in its name.
    """
    names = "least-work,least-work@1,least-request@auto,least-work@0"
    arms = read("--algorithms", names, compare=True).arms
    assert [arm.concurrency for arm in arms] == [None, 1, "auto", 0]
    assert ",".join(arm.name for arm in arms) == names
    assert read("--routing-algorithm", "least-work@2").arms == (Arm("least-work", 2),)


def test_model_names_the_task() -> None:
    """
    A model that makes only videos is measured with videos.
    """
    assert read("--model", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers").task == "video"
    assert read("--model", "somebody/unheard-of").task == "image"


def test_size_means_a_fixed_mix() -> None:
    """
    One size for all requests replaces the default mix; steps go with either.
    """
    fixed = read("--size", "640x384", "--steps", "8")
    assert (fixed.mix, [shape.size for shape in fixed.shapes]) == ("fixed", [(640, 384)])
    assert {shape.steps for shape in read("--steps", "8").shapes} == {8}


def test_speeds_say_how_many_workers() -> None:
    """
    Each factor stands for a worker.
    """
    assert read("--worker-speeds", "1,1,0.5").num_workers == 3


def test_open_loop_is_not_limited_unasked() -> None:
    """
    With a request rate, the concurrency is what the arrivals make it.
    """
    assert read("--request-rate", "3", "--num-prompts", "50").max_concurrency == 50
    assert read("--request-rate", "3", "--max-concurrency", "2").max_concurrency == 2


def test_load_is_a_rate_of_simulated_workers() -> None:
    """
    The rate follows from the speed of all workers, and nothing is started that has another speed.
    """
    one = read("--load", "0.5", "--worker-speeds", "1")
    more = read("--load", "1", "--worker-speeds", "1,0.5,0.5", "--speed", "20")
    assert one.simulate
    assert one.max_concurrency == one.num_prompts
    assert one.request_rate is not None
    assert more.request_rate == pytest.approx(8 * one.request_rate)


def test_batch_is_sent_at_once() -> None:
    """
    A batch has no arrivals and no limit but its size.
    """
    settings = read("--batch", "--num-prompts", "40")
    assert (settings.batch, settings.request_rate) == ("bench", None)
    assert settings.max_concurrency == 40
    assert read("--batch", "step-7").batch == "step-7"


@pytest.mark.parametrize(
    "words",
    [
        ["--num-prompts", "0"],
        ["--max-concurrency", "two"],
        ["--request-rate", "inf"],
        ["--request-rate", "2", "--load", "0.5"],
        ["--load", "0.5", "--batch"],
        ["--load", "0.5", "--model", "somebody/unheard-of"],
        ["--load", "0.5", "--no-simulate"],
        ["--load", "0.5", "--skip-workers", "--worker-urls", "http://w:1"],
        ["--batch", "--max-concurrency", "3"],
        ["--routing-algorithm", "most-work"],
        ["--routing-algorithm", "least-work@some"],
        ["--routing-algorithm", "least-work@"],
        ["--size", "10"],
        ["--mix", "sizes", "--size", "512x512"],
        ["--mix", "steps", "--steps", "4"],
        ["--mix", "lengths"],
        ["--worker-speeds", "1,0"],
        ["--worker-speeds", "1,1", "--num-workers", "3"],
        ["--skip-workers"],
        ["--worker-urls", "http://w:1"],
        ["--skip-workers", "--worker-urls", "ftp://w"],
        ["--skip-workers", "--worker-urls", "http://w:1", "--simulate"],
        ["--skip-router"],
        ["--router-url", "http://r:1"],
        ["--skip-router", "--router-url", "http://r:1", "--worker-urls", "http://w:1"],
        ["--worker-extra-args", "'"],
        ["--num-prompt", "3"],
        ["stray"],
        ["--plot", "/no/such/folder/plot.png"],
    ],
)
def test_wrong_options_get_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """
    A wrong option ends the script with one line that names it.
    """
    with pytest.raises(SystemExit) as ended:
        read(*words)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("bench.py: ")
    assert said.count("\n") == 1


def test_running_router_suits_no_comparison() -> None:
    """
    A comparison changes the router's algorithm, so it must start the router.
    """
    with pytest.raises(SystemExit):
        read("--skip-router", "--router-url", "http://r:1", compare=True)
