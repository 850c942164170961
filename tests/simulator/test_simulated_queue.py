"""
The line in front of a simulated GPU.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from sgl_droute.simulator.gpu import GPU
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.testing import MemoryWorker

FOX = {"prompt": "a fox", "size": "1024x1024"}
SMALL = {"prompt": "a fox", "size": "64x64", "num_inference_steps": 1}


@pytest.fixture
def worker() -> MemoryWorker:
    return MemoryWorker(SimulatorSettings(model="flux.1-dev"))


def test_one_at_a_time_in_order_of_arrival(worker: MemoryWorker) -> None:
    """
    The second request begins when the first ends, and its own time does not count the wait.
    """
    first = worker.post("/v1/images/generations", FOX)
    second = worker.post("/v1/images/generations", FOX)
    worker.advance(6.6)
    assert (first.status, second.status) == (None, None)
    worker.advance(0.2)
    assert (first.status, second.status) == (200, None)
    worker.advance(6.7)
    assert second.status == 200
    assert second.json["inference_time_s"] == pytest.approx(6.7)


def test_control_calls_wait_in_line(worker: MemoryWorker) -> None:
    """
    ``/stats`` and LoRA calls wait for the generations before them; health, models and jobs do not.
    """
    worker.post("/v1/images/generations", {"prompt": "a fox"})
    lora = worker.post("/v1/set_lora", {"lora_nickname": "x", "lora_path": "p"})
    stats = worker.get("/stats")
    assert worker.get("/health").json == {"status": "ok"}
    assert worker.get("/v1/models").status == 200
    assert worker.get("/v1/videos").status == 200
    worker.advance(6.8)
    assert (lora.status, stats.status) == (None, None)
    worker.advance(1.5)
    assert lora.status == 200
    worker.advance(0.0)
    assert stats.json["disagg"]["role"] == "monolithic"


def test_replicas_take_turns() -> None:
    """
    Two replicas work on two requests at once; the third waits.
    """
    worker = MemoryWorker(SimulatorSettings(model="flux.1-dev", dp_size=2))
    answers = [worker.post("/v1/images/generations", {"prompt": "a fox"}) for _ in range(3)]
    worker.advance(6.8)
    assert [answer.status for answer in answers] == [200, 200, None]
    worker.finish(answers[2])


def test_speed_and_size() -> None:
    """
    Durations follow the cost rule, divided by the speed.
    """
    worker = MemoryWorker(SimulatorSettings(model="flux.1-dev", speed=10))
    plain = worker.finish(worker.post("/v1/images/generations", {"prompt": "x"}))
    assert plain.json["inference_time_s"] == pytest.approx(0.67)
    few = {"prompt": "x", "num_inference_steps": 25, "n": 2}
    assert worker.finish(worker.post("/v1/images/generations", few)).json[
        "inference_time_s"
    ] == pytest.approx(0.67, rel=0.05)


def test_jitter_is_seeded() -> None:
    """
    Workers with equal seeds jitter alike, others differ.
    """

    def times(seed: int) -> list[float]:
        settings = SimulatorSettings(model="flux.2-klein", jitter=0.3, seed=seed)
        worker = MemoryWorker(settings)
        answers = [worker.post("/v1/images/generations", SMALL) for _ in range(3)]
        return [worker.finish(answer).json["inference_time_s"] for answer in answers]

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_queue_is_unbounded(worker: MemoryWorker) -> None:
    """
    A worker never refuses for load.
    """
    answers = [worker.post("/v1/images/generations", SMALL) for _ in range(50)]
    assert all(answer.status is None for answer in answers)
    assert worker.worker.gpu.waiting == 49
    assert {worker.finish(answer).status for answer in answers} == {200}


def test_warmup_holds_requests() -> None:
    """
    While warming up, /health is an empty 503, information is given, and all else is held.
    """
    worker = MemoryWorker(SimulatorSettings(warmup_time=10.0))
    health = worker.get("/health")
    assert (health.status, health.body) == (503, b"")
    open_paths = ("/liveness", "/model_info", "/server_info", "/metrics")
    assert {worker.get(path).status for path in open_paths} == {200}
    held = [worker.get(path) for path in ("/v1/models", "/v1/model_info", "/nowhere")]
    assert [answer.status for answer in held] == [None, None, None]
    worker.advance(10.0)
    assert [answer.status for answer in held] == [200, 200, 404]
    assert worker.get("/health").status == 200


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=12))
def test_order_of_arrival_is_the_order_of_work(arrivals: list[tuple[int, int]]) -> None:
    """
    However arrivals and durations mix, work is done in order of arrival, one piece after the other.
    """
    clock, begun, ended = Clock(), [], []

    def begin(number: int, seconds: int) -> float:
        begun.append((number, clock.seconds()))
        return float(seconds)

    gpu = GPU(clock)
    for number, (pause, seconds) in enumerate(arrivals):
        for _ in range(pause):
            clock.advance(1.0)
        gpu.generate(
            lambda n=number, s=seconds: begin(n, s),  # type: ignore[misc]
            lambda n=number: ended.append((n, clock.seconds())),  # type: ignore[misc]
        )
    for _ in range(200):
        clock.advance(1.0)
    assert [number for number, _ in begun] == [number for number, _ in ended]
    assert [number for number, _ in ended] == list(range(len(arrivals)))
    assert all(end <= start for (_, end), (_, start) in zip(ended, begun[1:], strict=False))
    assert (gpu.waiting, gpu.running) == (0, 0)


def test_control_calls_visit_every_replica() -> None:
    """
    With two replicas a control call waits for the work before it on both.
    """
    worker = MemoryWorker(SimulatorSettings(model="flux.1-dev", dp_size=2))
    for _ in range(2):
        worker.post("/v1/images/generations", {"prompt": "a fox"})
    stats = worker.get("/stats")
    worker.advance(6.6)
    assert stats.status is None
    worker.finish(stats)
