"""
Videos and the slots that they take until they have ended.
"""

from __future__ import annotations

from itertools import pairwise

from sgl_droute.simulator.faults import parse_orders
from tests.api.line import BOTH, VIDEO, VIDEOS, answer, arrived, film, header, post, queue


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
