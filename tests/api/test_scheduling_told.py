"""
What answers, reports and errors tell of scheduling.
"""

from __future__ import annotations

import json
import re

import pytest

from sgl_droute.simulator.faults import parse_orders
from tests.api.line import IMAGES, SECONDS, VIDEO, VIDEOS, answer, film, header, lined, post, queue
from tests.memory import Reply


def timing(reply: Reply) -> tuple[float, float]:
    """
    Seconds in line and at the worker, as ``Server-Timing`` tells.
    """
    found = re.fullmatch(
        r"queue;dur=([0-9.]+), worker;dur=([0-9.]+)", header(reply, "Server-Timing")
    )
    assert found is not None
    return float(found[1]) / 1000, float(found[2]) / 1000


def test_what_an_answer_tells() -> None:
    """
    Answers tell the router's name for the job, the worker, and the time in line and at the worker.
    """
    router = lined("a", "b")
    router.wait(7)
    clients = [post(router) for _ in range(3)]
    router.wait(2 * SECONDS + 1, step=0.1)
    replies = [answer(client) for client in clients]
    assert len({header(reply, "X-Router-Job") for reply in replies}) == 3
    workers = [header(reply, "X-Router-Worker") for reply in replies]
    assert set(workers[:2]) == set(router.loads)
    assert workers[2] in router.loads
    assert timing(replies[0]) == pytest.approx((0, SECONDS), abs=0.2)
    assert timing(replies[2]) == pytest.approx((SECONDS, SECONDS), abs=0.2)
    assert not any(reply.headers.hasHeader("X-Router-Why") for reply in replies)


def test_what_a_video_tells() -> None:
    """
    Of a video the time at the worker is that until it was accepted.
    """
    router = film("a")
    assert timing(answer(post(router, "", VIDEOS, json=VIDEO))) == (0, 0)


def test_what_reading_tells() -> None:
    """
    So do answers to requests that take no slot, and those that workers refuse.
    """
    router = lined("a")
    for reply in (router.ask("GET", "/server_info"), router.ask("POST", "/generate", data=b"{")):
        assert header(reply, "X-Router-Worker") == "http://a:1"
        assert timing(reply) == (0, 0)


@pytest.mark.parametrize("algorithm", ["least-request", "least-work", "round-robin", "random"])
def test_why(algorithm: str) -> None:
    """
    With ``X-Router-Why: 1`` an answer tells who was chosen among whom, and what was predicted.
    """
    router = lined("a", "b", learned=6, routing_algorithm=algorithm)
    busy = post(router)
    client = post(router, X_Router_Why=1)
    router.wait(SECONDS)
    reply = answer(client)
    why = json.loads(header(reply, "X-Router-Why"))
    assert why["algorithm"] == algorithm
    assert why["chosen"] == header(reply, "X-Router-Worker")
    assert why["predicted_start"] == 0
    assert why["predicted_end"] == pytest.approx(SECONDS, rel=0.05)
    candidates = {each["worker"]: each for each in why["candidates"]}
    assert set(candidates) == set(router.loads)
    other = candidates[header(answer(busy), "X-Router-Worker")]
    assert (other["jobs"], other["room"]) == (1, False)
    assert other["predicted_end"] == pytest.approx(2 * SECONDS, rel=0.05)
    assert (candidates[why["chosen"]]["jobs"], candidates[why["chosen"]]["room"]) == (0, True)


def test_errors_name_their_job() -> None:
    """
    Whoever gets an error instead of an answer can name the job too.
    """
    router = lined("a")
    router.stop_worker("a")
    reply = answer(post(router))
    assert reply.status == 502
    assert header(reply, "X-Router-Job")
    router.ask("DELETE", "/workers/http%3A%2F%2Fa%3A1")
    reply = answer(post(router))
    assert reply.status == 503
    assert header(reply, "X-Router-Job")


def test_the_router_answers_itself() -> None:
    """
    What the router answers itself is no job.
    """
    router = lined("a")
    for path in ("/health", "/workers", "/queue", "/liveness"):
        assert not router.ask("GET", path).headers.hasHeader("X-Router-Job")


def test_what_was_learned() -> None:
    """
    Workers are shown with what was learned of them, and with nothing before that.
    """
    router = lined("a", "b")
    assert [each["learned"] for each in router.ask("GET", "/workers").json["workers"]] == [None] * 2
    router = lined("a", "b", learned=6)
    router.workers["b"].backstage.obey(parse_orders({"slow": 2.0}))
    for _ in range(16):
        clients = [post(router) for _ in "ab"]
        router.until(lambda: all(client.reply for client in clients))  # noqa: B023
    a, b = (each["learned"]["image"] for each in router.ask("GET", "/workers").json["workers"])
    assert a["samples"] == b["samples"] == 15
    assert a["error"] == pytest.approx(0, abs=0.01)
    assert a["relative_speed"] / b["relative_speed"] == pytest.approx(2, rel=0.05)


def test_a_workers_word_counts() -> None:
    """
    What a worker says that a request took is believed, not the time until its answer.
    """
    router = lined("a")
    router.workers["a"].backstage.obey(parse_orders({"rules": [{"path": IMAGES, "first_byte": 7}]}))
    for _ in range(6):
        post(router)
        router.wait(SECONDS + 8)
    post(router)
    [job] = queue(router)["running"]
    assert job["predicted_end"] == pytest.approx(SECONDS, rel=0.05)


def test_a_speed_that_an_operator_tells() -> None:
    """
    An operator's word on a worker's speed changes what is predicted.
    """
    router = lined("a", learned=6)
    router.ask("PUT", "/workers/http%3A%2F%2Fa%3A1", json={"speed": 0.5})
    post(router)
    [job] = queue(router)["running"]
    assert job["predicted_end"] == pytest.approx(2 * SECONDS, rel=0.05)
