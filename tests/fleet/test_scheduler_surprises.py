"""
What did not go as predicted, by example: work that its client left, and wrong predictions.
"""

from __future__ import annotations

from collections import Counter

from sgl_droute.fleet.capabilities import EDIT, VIDEO
from sgl_droute.fleet.worker import Probe
from tests.fleet.scheduling import stage

GOOD = Probe(healthy=True)


# Abandoned work.


def test_abandoned_work_counts_until_its_predicted_end() -> None:
    """
    A worker works on for a client that left: its slot is taken for as long as was predicted.
    """
    play = stage("a", concurrency=1)
    play.submit("gone", 30)
    play.submit("next", 5)
    play.wait(10.0)
    play.abandon("gone")
    assert play.worker("a").in_flight == 0
    play.wait(19.9)
    assert "next" not in play.homes
    play.wait(0.2)
    assert play.homes["next"] == "a"
    assert play.scheduler.floor.running.keys() == {"next"}


def test_abandoned_work_is_load() -> None:
    """
    Without limits too the next job goes to whoever has not been left with work.
    """
    for algorithm in ("least-request", "least-work"):
        play = stage("a", "b", algorithm=algorithm)
        home = play.submit("gone", 30)
        play.abandon("gone")
        assert play.submit("next", 30) != home


def test_abandoned_work_of_an_idle_time() -> None:
    """
    Jobs that were left in a row have ended one after the other by the time that was predicted for
    all, also when nothing has happened since.
    """
    play = stage("a", concurrency=0)
    for number in range(3):
        play.submit(f"j{number}", 10)
        play.abandon(f"j{number}")
    play.now = 25.0
    play.wait(0.0)
    assert play.submit("new", 10) == "a"
    assert set(play.scheduler.floor.running) == {"j2", "new"}
    assert play.bounds["new"].start == 30.0


def test_abandoned_work_that_was_overtaken() -> None:
    """
    When a job ends that came after it, abandoned work must have ended.
    """
    play = stage("a")
    play.submit("gone", 100)
    play.abandon("gone")
    play.submit("behind", 1)
    play.wait(3.0)
    play.finish("behind")
    assert not play.scheduler.floor.running
    assert play.station("a").free == 0


def test_abandoned_work_is_forgotten_in_a_restart() -> None:
    """
    A new process at the same URL knows nothing of it.
    """
    play = stage("a", concurrency=1)
    play.pool.record_probe(play.worker("a"), GOOD, threshold=3)
    play.submit("gone", 100)
    play.submit("next", 1)
    play.abandon("gone")
    play.pool.record_lapse(play.worker("a"))
    play.pool.record_probe(play.worker("a"), GOOD, threshold=3)
    play.wait(0.0)
    assert play.homes["next"] == "a"
    assert play.bounds["next"].start == 0.0


def test_a_client_that_leaves_while_its_answer_arrives() -> None:
    """
    The GPU has nothing to do with that: nothing is left behind.
    """
    play = stage("a")
    play.submit("gone", 100)
    play.follow(play.scheduler.answered("gone", 1.0))
    play.abandon("gone")
    assert not play.scheduler.floor.running
    assert play.worker("a").in_flight == 0


def test_a_client_that_leaves_after_its_video_began() -> None:
    """
    The video goes on until its worker says that it is made, and that is the one end of the job.
    """
    play = stage("a")
    play.submit("video", 10, want=VIDEO)
    play.scheduler.made("video", ("video", "video"))
    play.abandon("video")
    play.now = 50.0
    play.wait(0.0)
    assert set(play.scheduler.floor.running) == {"video"}
    play.thing_ended("video")
    assert not play.scheduler.floor.running
    assert [event.name for event in play.events] == ["submitted", "bound", "ended"]


def test_clients_that_leave_the_line() -> None:
    """
    A job that waits is gone with its client.
    """
    play = stage("a", concurrency=1)
    play.submit("running")
    play.submit("gone")
    play.submit("next")
    play.abandon("gone")
    play.abandon("gone")
    play.finish("running")
    assert play.order == ["running", "next"]
    assert [event.name for event in play.events].count("abandoned") == 1


# Predictions that do not come true.


def test_overdue_jobs_are_expected_to_take_longer() -> None:
    """
    The longer a job outlives its prediction, the longer it is expected to take, and the later those
    behind it.
    """
    play = stage("a", "b", algorithm="least-work", concurrency=1)
    home = play.submit("overdue", 10)
    play.submit("other", 200)
    play.submit("next", 10)
    ends = []
    for _ in range(3):
        play.wait(30.0)
        ends.append(play.station(home).free)
    assert all(end > 30.0 * (number + 1) for number, end in enumerate(ends))
    assert all(end < 30.0 * (number + 1) * 1.6 for number, end in enumerate(ends))
    assert "next" not in play.homes


def test_jobs_wait_for_a_faster_worker() -> None:
    """
    With least-work a job waits for a busy worker where it ends sooner than on a free one, and no
    more jobs than that is true of, one behind the other.
    """
    play = stage("fast", "slow", algorithm="least-work", concurrency=1)
    play.change("slow", speed=0.2)
    homes = [play.submit(f"j{number}", 10) for number in range(8)]
    assert homes[0] == "fast"
    # The fifth would end there after 50 s, and so it does on the slow one.
    assert homes.index("slow") in (3, 4)
    assert Counter(homes) == {"fast": 1, "slow": 1, "": 6}
    play.wait(10.0)
    play.finish("j0")
    assert play.homes["j1"] == "fast"


def test_a_faster_worker_is_not_waited_for_twice() -> None:
    """
    While a job waits for a faster worker, one of another kind does not count on the same time.
    """
    play = stage("fast", "slow", algorithm="least-work", concurrency=1)
    play.change("slow", speed=0.4)
    assert play.submit("first", 10) == "fast"
    assert play.submit("image", 10) == ""
    assert play.submit("edit", 10, want=EDIT) == "slow"


def test_jobs_that_waited_for_a_faster_worker_take_what_is_free() -> None:
    """
    When the faster worker is late, it is worth waiting for no longer.
    """
    play = stage("fast", "slow", algorithm="least-work", concurrency=1)
    play.change("slow", speed=0.5)
    play.submit("first", 10)
    assert play.submit("second", 10) == "slow"
    play.finish("second", well=False)
    play.finish("first", well=False)
    play.submit("third", 4)
    assert play.submit("fourth", 10) == ""
    play.wait(60.0)
    assert play.homes["fourth"] == "slow"


def test_other_algorithms_wait_for_nobody() -> None:
    """
    Where work is not looked at, whoever is free takes the next job.
    """
    for algorithm in ("least-request", "round-robin", "random"):
        play = stage("fast", "slow", algorithm=algorithm, concurrency=1)
        play.change("slow", speed=0.01)
        assert {play.submit("j0", 10), play.submit("j1", 10)} == {"fast", "slow"}
