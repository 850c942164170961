"""
Requests that wait for a worker's slot: their order, their limits, and what their answers tell.
"""

from __future__ import annotations

import json
import random
import re
from itertools import pairwise
from typing import Any

import pytest

from sgl_droute.simulator.faults import parse_orders
from sgl_droute.simulator.settings import SimulatorSettings
from tests.api.line import (
    IMAGES,
    SECONDS,
    answer,
    arrived,
    batch,
    header,
    lined,
    parking_of,
    post,
    queue,
    served,
    slow,
)
from tests.integration.wire import open_files
from tests.memory import MemoryRouter, Reply

VIDEOS = "/v1/videos"
VIDEO = {"prompt": "a fox runs", "size": "64x64", "num_frames": 5}
# The video above takes 77 s, an image on a worker that makes both 25.7 s.
FILMS = SimulatorSettings(model="fastwan", speed=0.0001, video_side=64)
BOTH = SimulatorSettings(model="cosmos3", speed=0.001, pictures=1, video_side=64)

STEPS = {"num_inference_steps": 10}


# Slots.


def test_a_third_image_waits() -> None:
    """
    With one slot per worker the third request for two workers waits in the router, and goes out at
    the moment when one of them is done.
    """
    router = lined("a", "b")
    clients = [post(router, number) for number in range(3)]
    assert router.loads == {"http://a:1": 1, "http://b:1": 1}
    router.wait(SECONDS - 1)
    assert served(router) == ["0", "1"]
    assert arrived(router, "a") + arrived(router, "b") == 2
    router.wait(1)
    assert [client.reply is not None for client in clients] == [True, True, False]
    assert served(router) == ["0", "1", "2"]
    router.wait(SECONDS)
    assert answer(clients[2]).status == 200


def test_no_limit_unless_told() -> None:
    """
    Without the option every request goes to a worker at once.
    """
    router = lined("a", "b", worker_concurrency=0)
    for _ in range(6):
        post(router)
    assert set(router.loads.values()) == {3}
    assert queue(router)["waiting"] == []


def test_as_many_as_replicas() -> None:
    """
    With ``auto`` a worker gets as many requests at once as it says that it has replicas.
    """
    router = lined("a", worker_concurrency="auto", simulator=slow(dp_size=2))
    for number in range(3):
        post(router, number)
    assert served(router) == ["0", "1"]
    assert arrived(router, "a") == 2


@pytest.mark.parametrize("ahead", [0.5, 2.0])
def test_the_next_one_is_there_in_time(ahead: float) -> None:
    """
    With ``auto`` a worker whose speed is known gets the next request ``bind_ahead`` seconds before
    the predicted end of the one before.
    """
    router = lined("a", learned=6, worker_concurrency="auto", bind_ahead=ahead)
    for _ in range(2):
        post(router)
    router.wait(SECONDS - ahead - 0.2, step=0.1)
    assert arrived(router, "a") == 1
    router.wait(0.4, step=0.1)
    assert arrived(router, "a") == 2


def test_a_number_is_exact() -> None:
    """
    With a number nothing is given ahead.
    """
    router = lined("a", learned=6, worker_concurrency=1)
    for _ in range(2):
        post(router)
    router.wait(SECONDS - 0.2, step=0.1)
    assert arrived(router, "a") == 1


@pytest.mark.parametrize("path", ["/server_info", "/v1/models", "/some/path", "/stats"])
def test_reading_takes_no_slot(path: str) -> None:
    """
    What is only read goes to a worker though all are busy.
    """
    router = lined("a")
    clients = [post(router, number) for number in range(2)]
    reading = router.begin("GET", path)
    assert [each["state"] for each in queue(router)["running"]][1:] in ([], ["open"])
    if path != "/stats":  # that waits for the GPU, at the worker
        assert reading.reply is not None
    assert clients[1].reply is None
    assert queue(router)["waiting_count"] == 1


def test_a_limit_that_is_raised() -> None:
    """
    A limit of its own holds for one worker, and what waits goes there at once.
    """
    router = lined("a", "b")
    for number in range(5):
        post(router, number)
    told = router.ask("PUT", "/workers/http%3A%2F%2Fa%3A1", json={"concurrency": 3})
    assert told.status == 200
    router.settle()
    assert router.loads == {"http://a:1": 3, "http://b:1": 1}
    assert queue(router)["waiting_count"] == 1


def test_a_worker_that_failed_is_free() -> None:
    """
    An image that failed gives its slot back like any other.
    """
    router = lined("a")
    router.workers["a"].backstage.obey(parse_orders({"fail_generations": 1}))
    first, second = post(router), post(router)
    router.wait(SECONDS)
    assert answer(first).status == 500
    router.wait(SECONDS)
    assert answer(second).status == 200


def test_a_new_worker_gets_what_waits() -> None:
    """
    A worker that is added serves the line at once.
    """
    router = lined("a")
    for number in range(2):
        post(router, number)
    router.start_worker("b")
    router.ask("POST", "/add_worker?url=http://b:1")
    router.settle()
    assert arrived(router, "b") == 1


def test_the_line_of_a_fleet_that_is_gone() -> None:
    """
    When the last worker leaves nobody waits on.
    """
    router = lined("a")
    clients = [post(router) for _ in range(3)]
    router.ask("DELETE", "/workers/http%3A%2F%2Fa%3A1")
    router.settle()
    assert [answer(client).status for client in clients[1:]] == [503, 503]
    assert all(header(answer(client), "X-Router-Job") for client in clients[1:])


def test_who_could_not_be_reached_is_tried_no_more() -> None:
    """
    A request whose worker was not reached takes its old place again and goes to another one.
    """
    router = lined("a", "b")
    first = post(router, "first")
    [busy] = [url for url, load in router.loads.items() if load]
    idle = "b" if busy == "http://a:1" else "a"
    router.stop_worker(idle)
    clients = [post(router, name) for name in ("second", "third")]
    assert all(client.reply is None for client in clients)
    assert [each["position"] for each in queue(router)["waiting"]] == [1, 2]
    router.until(lambda: clients[1].reply is not None)
    assert served(router) == ["first", "second", "third"]
    assert {answer(client).status for client in [first, *clients]} == {200}


# Order.


def test_higher_priority_first() -> None:
    """
    Who waits is served by ``X-Priority``, higher first, and within that in order of arrival.
    """
    router = lined("a")
    post(router, "first")
    clients = [
        post(router, f"{priority}.{number}", X_Priority=priority)
        for number in range(2)
        for priority in (-1, 0, 3)
    ]
    router.until(lambda: all(client.reply for client in clients))
    assert served(router) == ["first", "3.0", "3.1", "0.0", "0.1", "-1.0", "-1.1"]


def test_the_highest_priority() -> None:
    """
    Priorities beyond ``max_priority`` count as that, above and below.
    """
    router = lined("a", max_priority=2)
    post(router, "first")
    wished = {"low": -9, "lowest": -2, "two": 2, "nine": 9, "one": 1}
    clients = [post(router, name, X_Priority=each) for name, each in wished.items()]
    assert {each["priority"] for each in queue(router)["waiting"]} == {-2, 1, 2}
    router.until(lambda: all(client.reply for client in clients))
    assert served(router)[1:] == ["two", "nine", "one", "low", "lowest"]


@pytest.mark.parametrize("value", ["", "high", "1.5", "0x1", "1 2"])
def test_a_priority_that_is_none(value: str) -> None:
    """
    A priority that is no whole number is refused, and nothing is sent.
    """
    router = lined("a")
    reply = answer(post(router, X_Priority=value))
    assert reply.status == 400
    assert "X-Priority" in reply.json["error"]
    assert arrived(router, "a") == 0


def test_nobody_starves() -> None:
    """
    A minute of waiting outweighs one level of priority.
    """
    router = lined("a", simulator=slow(0.1))
    post(router, "first")
    old = post(router, "old")
    router.wait(61)
    clients = [post(router, "one", X_Priority=1), post(router, "two", X_Priority=2), old]
    router.until(lambda: all(client.reply for client in clients))
    assert served(router) == ["first", "two", "old", "one"]


def test_clients_take_turns() -> None:
    """
    With ``fair`` a client with many requests does not keep another one waiting for all of them.
    """
    router = lined("a", fair=True)
    post(router, "first")
    clients = [post(router, f"many {n}", X_Client_Id="many") for n in range(4)]
    clients += [post(router, f"few {n}", X_Client_Id="few") for n in range(2)]
    router.until(lambda: all(client.reply for client in clients))
    assert served(router)[1:] == ["many 0", "few 0", "many 1", "few 1", "many 2", "many 3"]


def test_turns_only_if_told() -> None:
    """
    Without ``fair`` the order is that of arrival, whoever asks.
    """
    router = lined("a")
    names = [f"many {n}" for n in range(3)] + ["few 0"]
    clients = [post(router, "first")]
    clients += [post(router, name, X_Client_Id=name.split()[0]) for name in names]
    router.until(lambda: all(client.reply for client in clients))
    assert served(router) == ["first", *names]


def test_keys_are_clients() -> None:
    """
    A client is known by its key before its name, and the key is shown nowhere.
    """
    router = lined("a", fair=True)
    post(router, "first")
    for number in range(2):
        post(router, number, Authorization="Bearer secret", X_Client_Id=number)
    post(router, 2, X_Client_Id="other")
    shown = queue(router)
    clients = {each["client"] for each in shown["waiting"]}
    assert len(clients) == 2
    assert "secret" not in json.dumps(shown)
    assert [each["client"] for each in shown["waiting"]][1] == "id:other"


# Limits.


def test_a_deadline_that_cannot_be_kept() -> None:
    """
    Once five requests have taught how long they take, one that would end behind its deadline is
    refused at once, with the seconds by which it would be late.
    """
    router = lined("a", learned=5)
    reply = answer(post(router, X_Deadline_Ms=4000))
    assert reply.status == 429
    assert reply.json["reason"] == "deadline"
    assert reply.json["retry_after"] == 6
    assert reply.json["queue_position"] == 1
    assert header(reply, "Retry-After") == "6"
    assert header(reply, "X-Router-Job")
    assert arrived(router, "a") == 0
    assert queue(router)["waiting_count"] == 0


def test_a_deadline_behind_others() -> None:
    """
    What runs and waits before a request counts against its deadline; what waits behind it, with
    lower priority, does not.
    """
    router = lined("a", learned=5)
    post(router)
    assert answer(post(router, X_Deadline_Ms=15_000)).status == 429
    ends = post(router, X_Deadline_Ms=21_000)
    assert ends.reply is None
    assert answer(post(router, X_Deadline_Ms=25_000)).json["retry_after"] == 5
    first = post(router, X_Deadline_Ms=25_000, X_Priority=1)
    assert first.reply is None


def test_a_deadline_that_can_be_kept() -> None:
    """
    A request in time is served as any other.
    """
    router = lined("a", learned=5)
    client = post(router, X_Deadline_Ms=10_500)
    router.wait(SECONDS)
    assert answer(client).status == 200


def test_a_guess_refuses_nobody() -> None:
    """
    With four requests learned nobody is refused for a deadline.
    """
    router = lined("a", learned=4)
    client = post(router, X_Deadline_Ms=4000)
    assert client.reply is None
    router.wait(SECONDS)
    assert answer(client).status == 200


def test_a_deadline_that_comes_in_line() -> None:
    """
    A request that still waits at its deadline gets 504, no worker sees it, and the line goes on.
    """
    router = lined("a")
    post(router, "first")
    late, patient = post(router, "late", X_Deadline_Ms=3000), post(router, "patient")
    router.wait(2.9, step=0.1)
    assert late.reply is None
    router.wait(0.2, step=0.1)
    reply = answer(late)
    assert reply.status == 504
    assert reply.json["reason"] == "deadline"
    assert reply.json["queue_position"] == 1
    assert header(reply, "X-Router-Job")
    router.until(lambda: patient.reply is not None)
    assert served(router) == ["first", "patient"]


def test_the_line_is_full() -> None:
    """
    Beyond ``queue_size`` a request is told its place and when there will be room, as learned.
    """
    router = lined("a", learned=5, queue_size=1)
    post(router)
    post(router)
    router.wait(4)
    reply = answer(post(router))
    assert reply.status == 503
    assert set(reply.json) == {"error", "reason", "queue_position", "retry_after"}
    assert reply.json["reason"] == "queue_full"
    assert reply.json["queue_position"] == 2
    assert reply.json["retry_after"] == 16
    assert header(reply, "Retry-After") == "16"
    assert header(reply, "X-Router-Job")
    router.wait(SECONDS - 4)
    assert post(router).reply is None


def test_nobody_may_wait() -> None:
    """
    With a ``queue_size`` of 0 requests are served while there is room, else refused.
    """
    router = lined("a", "b", queue_size=0)
    clients = [post(router) for _ in range(3)]
    reply = answer(clients[2])
    assert reply.status == 503
    assert int(header(reply, "Retry-After")) >= 1
    router.wait(SECONDS)
    assert [answer(client).status for client in clients] == [200, 200, 503]


def test_waiting_has_an_end() -> None:
    """
    Who has waited ``queue_timeout`` seconds is told to come again, and no worker sees the request.
    """
    router = lined("a", queue_timeout=5.0)
    post(router, "first")
    client = post(router, "second")
    router.wait(4.9, step=0.1)
    assert client.reply is None
    router.wait(0.2, step=0.1)
    reply = answer(client)
    assert reply.status == 503
    assert reply.json["reason"] == "queue_timeout"
    assert reply.json["queue_position"] == 1
    assert int(header(reply, "Retry-After")) == reply.json["retry_after"] >= 1
    router.wait(SECONDS)
    assert served(router) == ["first"]


def test_waiting_is_not_working() -> None:
    """
    The time for an answer begins when a worker gets the request.
    """
    router = lined("a", timeout=SECONDS + 2)
    clients = [post(router) for _ in range(4)]
    router.until(lambda: all(client.reply for client in clients))
    assert [answer(client).status for client in clients] == [200] * 4


def test_too_many_connections() -> None:
    """
    Beyond ``max_connections`` requests wait in the same line, by priority, though workers have no
    limit.
    """
    router = lined("a", "b", worker_concurrency=0, max_connections=1)
    clients = [post(router, n, X_Priority=n) for n in range(3)]
    assert sum(router.loads.values()) == 1
    shown = queue(router)
    assert [each["priority"] for each in shown["waiting"]] == [2, 1]
    assert shown["waiting"][0]["why"] == "1 requests are open to workers"
    router.until(lambda: all(client.reply for client in clients))
    assert served(router) == ["0", "2", "1"]


# Videos.


def film(*workers: str, **options: Any) -> MemoryRouter:
    return lined(*workers, **{"simulator": FILMS, **options})


def test_a_video_is_accepted_in_time() -> None:
    """
    A video that waits is given to its worker over its limit after ``job_accept_timeout``.
    """
    router = film("a", job_accept_timeout=15.0)
    first, second = (post(router, n, VIDEOS, json=VIDEO) for n in range(2))
    assert answer(first).json["status"] == "queued"
    router.wait(14.9, step=0.1)
    assert second.reply is None
    router.wait(0.2, step=0.1)
    assert answer(second).json["status"] == "queued"
    assert header(answer(second), "Server-Timing").startswith("queue;dur=15")


def test_no_gpu_waits_for_a_poll() -> None:
    """
    While others wait, a video that should have ended is asked about soon and again: its worker gets
    the next one within a twentieth of its time, however seldom the router asks otherwise.
    """
    router = film("a", job_accept_timeout=1000.0, job_poll_interval=60.0)
    clients = [post(router, n, VIDEOS, json=VIDEO) for n in range(8)]
    journal = router.workers["a"].journal
    router.until(lambda: journal.generations_finished == 1)
    answer(clients[0])
    router.ask("GET", f"{VIDEOS}/{answer(clients[0]).json['id']}")  # what a video takes is learned
    router.until(lambda: journal.generations_finished == 8)
    made = list(journal.generations)[1:]
    gaps = [later.started - (before.ended or 0.0) for before, later in pairwise(made)]
    assert len(gaps) == 6
    assert all(0 <= gap <= made[0].duration / 20 + 1.1 for gap in gaps)


def test_a_video_goes_where_it_ends_first() -> None:
    """
    What is handed over goes to the worker with the earliest predicted end.
    """
    router = film("a", "b", job_accept_timeout=5.0, job_poll_interval=1.0)
    for _ in range(2):
        for _ in "ab":
            answer(post(router, "", VIDEOS, json=VIDEO))
        router.wait(90)
    long, short = ({**VIDEO, "num_frames": frames} for frames in (161, 5))
    replies = [answer(post(router, "", VIDEOS, json=each)) for each in (long, short)]
    third = post(router, "", VIDEOS, json=short)
    router.wait(6)
    assert header(answer(third), "X-Router-Worker") == header(replies[1], "X-Router-Worker")


def test_a_video_is_not_refused_by_its_wait() -> None:
    """
    A video whose hand-over comes at once never waits.
    """
    router = film("a", job_accept_timeout=0.0)
    clients = [post(router, n, VIDEOS, json=VIDEO) for n in range(3)]
    assert [answer(client).status for client in clients] == [200] * 3


def test_a_video_keeps_its_slot() -> None:
    """
    A worker with a video is busy until that has ended, though its request was answered at once and
    nobody asks how it is.
    """
    router = film("a", simulator=BOTH, job_poll_interval=1.0)
    video = {**VIDEO, "num_frames": 5}
    answer(post(router, "video", VIDEOS, json=video))
    client = post(router, "image")
    router.wait(51)
    assert arrived(router, "a") == 1
    router.wait(3)
    assert arrived(router, "a") == 2
    router.until(lambda: client.reply is not None)


def test_a_clients_poll_frees_the_slot() -> None:
    """
    A client that asks for its video finds it done, and the next one gets its slot.
    """
    router = film("a", simulator=BOTH, job_poll_interval=1000.0)
    video = answer(post(router, "video", VIDEOS, json=VIDEO)).json["id"]
    post(router, "image")
    while not router.workers["a"].journal.generations_finished:
        router.wait(0.05, step=0.05)
    assert arrived(router, "a") == 1
    assert router.ask("GET", f"{VIDEOS}/{video}").json["status"] == "completed"
    router.settle()
    assert arrived(router, "a") == 2


def test_a_deleted_video_keeps_its_slot() -> None:
    """
    A worker works on at a video that was deleted, and is busy for so long as that was predicted.
    """
    router = film("a", simulator=BOTH, job_poll_interval=1.0)
    answer(post(router, 0, VIDEOS, json=VIDEO))
    router.wait(60)  # that taught how long one takes
    video = answer(post(router, 1, VIDEOS, json=VIDEO)).json["id"]
    assert router.ask("DELETE", f"{VIDEOS}/{video}").status == 200
    client = post(router, "image")
    router.wait(48)
    assert arrived(router, "a") == 2
    router.wait(8)
    assert arrived(router, "a") == 3
    router.until(lambda: client.reply is not None)


def test_a_failed_video_gives_its_slot_back() -> None:
    """
    So does one that failed.
    """
    router = film("a", simulator=BOTH, job_poll_interval=1.0)
    router.workers["a"].backstage.obey(parse_orders({"fail_generations": 1}))
    answer(post(router, 0, VIDEOS, json=VIDEO))
    client = post(router, "image")
    router.wait(55)
    assert arrived(router, "a") == 2
    router.wait(30)
    assert answer(client).status == 200


def test_a_restarted_worker_has_its_slots_back() -> None:
    """
    The videos of a worker that forgot them hold no slot.
    """
    router = film("a", simulator=BOTH, job_poll_interval=1.0)
    answer(post(router, 0, VIDEOS, json=VIDEO))
    client = post(router, "image")
    router.start_worker("a")
    router.wait(3)
    assert arrived(router, "a") == 1
    router.until(lambda: client.reply is not None)
    assert queue(router)["running"] == []


def test_a_video_that_a_worker_refuses() -> None:
    """
    A request for a video that its worker does not take holds nothing.
    """
    router = film("a")
    refused = answer(post(router, 0, VIDEOS, json={"num_frames": "many"}))
    assert refused.status == 400
    assert answer(post(router, 1, VIDEOS, json=VIDEO)).status == 200


# Clients that leave.


def test_leaving_the_line() -> None:
    """
    A client that hangs up while it waits is gone from the line at once, and its request never
    reaches a worker.
    """
    router = lined("a")
    post(router, "first")
    second, third = post(router, "second"), post(router, "third")
    second.hang_up()
    router.settle()
    assert [each["position"] for each in queue(router)["waiting"]] == [1]
    router.until(lambda: third.reply is not None)
    router.wait(2 * SECONDS)
    assert served(router) == ["first", "third"]


def test_leaving_a_worker() -> None:
    """
    After a client hung up its worker works on, and counts as busy until the predicted end.
    """
    router = lined("a", learned=6)
    first, second = post(router, "first"), post(router, "second")
    router.wait(3)
    first.hang_up()
    router.settle()
    shown = queue(router)
    assert [each["state"] for each in shown["running"]] == ["abandoned"]
    assert shown["waiting_count"] == 1
    router.wait(SECONDS - 4)
    assert arrived(router, "a") == 1
    router.wait(1.5)
    assert arrived(router, "a") == 2
    router.until(lambda: second.reply is not None)
    assert queue(router)["running"] == []


def test_a_worker_that_answers_too_late() -> None:
    """
    A request that took longer than ``timeout`` counts until its predicted end too.
    """
    router = lined("a", learned=6, timeout=SECONDS + 1)
    router.workers["a"].backstage.obey(parse_orders({"slow": 1.5}))
    first, second = post(router, "first"), post(router, "second")
    router.wait(SECONDS + 1.5, step=0.5)
    assert answer(first).status == 504
    assert header(answer(first), "X-Router-Job")
    assert second.reply is None
    assert arrived(router, "a") == 1
    router.until(lambda: second.reply is not None)


# Rollouts.


def test_a_batch_is_served_longest_first() -> None:
    """
    What waits of a batch goes out longest first, and other requests keep their places.
    """
    router = lined("a")
    clients = [post(router, "first"), *batch(router, "b", 10, 30)]
    clients += [post(router, "other"), *batch(router, "b", 20, 50)]
    router.until(lambda: all(client.reply for client in clients))
    assert served(router) == ["first", "50", "30", "other", "20", "10"]


def test_a_batch_ends_evenly() -> None:
    """
    On two workers the batch is done when an even split would be.
    """
    router = lined("a", "b", worker_concurrency=1)
    blockers = [post(router) for _ in range(2)]
    clients = batch(router, "b", 10, 10, 10, 30)
    router.wait(SECONDS)
    assert all(client.reply for client in blockers)
    router.wait(7, step=0.1)  # 30 steps take 6.1 s, all of them 12.3 s
    assert all(client.reply for client in clients)


def test_a_group_stays_together() -> None:
    """
    Requests of one ``X-Rollout-Group`` go to the same worker, until that is more than
    ``group_margin`` requests ahead of the least loaded one.
    """
    router = lined("a", "b", "c", worker_concurrency=0, group_margin=2)
    for number in range(3):
        post(router, number, X_Rollout_Group="g")
    assert sorted(router.loads.values()) == [0, 0, 3]
    post(router, X_Rollout_Group="g")
    assert sorted(router.loads.values()) == [0, 1, 3]


def test_a_group_comes_back() -> None:
    """
    The worker of a group is remembered while nobody of it is there.
    """
    router = lined("a", "b", "c")
    workers = set()
    for number in range(4):
        post(router)  # whoever else asks moves on
        client = post(router, number, X_Rollout_Group="g")
        router.wait(SECONDS)
        workers.add(header(answer(client), "X-Router-Worker"))
        router.wait(SECONDS)
    assert len(workers) == 1


# What answers tell.


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


# Bodies of requests that wait.


@pytest.mark.parametrize("size", [0, 100, 60_000, 1 << 20, 3_000_001])
@pytest.mark.parametrize("limit", [0, 32 << 20])
def test_bodies_arrive_unchanged(size: int, limit: int) -> None:
    """
    The body of a request that waited arrives as it was sent, wherever it was kept meanwhile.
    """
    router = lined("a")
    parking_of(router).limit = limit
    body = random.Random(size).randbytes(size)
    first = post(router)
    client = router.begin("POST", "/simulator/echo", data=body)
    router.wait(1)
    assert client.reply is None
    in_memory = size < 100_000  # by the stock request class, which serves here
    assert parking_of(router).held == (size if limit and in_memory else 0)
    router.until(lambda: client.reply is not None)
    assert answer(client).body == body
    assert answer(first).status == 200
    assert parking_of(router).held == 0


def test_bodies_of_clients_that_left() -> None:
    """
    Nothing is kept of the bodies of those that left the line.
    """
    router = lined("a")
    parking_of(router).limit = 100_000
    post(router)
    clients = [router.begin("POST", "/simulator/echo", data=b"x" * 60_000) for _ in range(4)]
    assert parking_of(router).held == 60_000
    before = open_files()
    for client in clients:
        client.hang_up()
    router.settle()
    assert parking_of(router).held == 0
    assert open_files() == before - 1
