"""
The waiting line while weights are updated, and jobs that require a weights epoch, by example.
"""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from sgl_droute.errors import (
    DeadlinePassed,
    NoWorker,
    PreconditionFailed,
    Refused,
    RouterError,
)
from sgl_droute.fleet.capabilities import EDIT, IMAGE, READING, VIDEO, RequiredEpoch, Want
from sgl_droute.fleet.epochs import Epochs
from sgl_droute.fleet.forecast import prospects
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.rules import Rules
from sgl_droute.fleet.scheduler import Scheduler
from sgl_droute.fleet.speeds import Rate, Speeds
from sgl_droute.fleet.weights import DISK, Actual, Update
from sgl_droute.fleet.worker import Probe
from tests.fleet.scheduling import Stage, able, here, stage, url_of

ALL = 1000


def ready(*names: str, **rules: Any) -> Stage:
    """
    As `stage`, of workers that are known to be in service.
    """
    play = stage(*names, **rules)
    for name in names:
        play.pool.record_probe(play.worker(name), Probe(healthy=True), threshold=3)
    return play


def close(play: Stage, *models: str | None) -> None:
    """
    An update has begun for all workers of these models; of those that have said nothing if none is
    named.
    """
    play.pool.epochs.closed = frozenset(models or [None])
    play.pool.judge()
    play.wait(0.0)


def reopen(play: Stage) -> None:
    play.pool.epochs.closed = frozenset()
    play.pool.epochs.pending.clear()
    play.pool.judge()
    play.wait(0.0)


def updating(play: Stage, *names: str) -> None:
    """
    An update is on its way to these workers, and to no other.
    """
    play.pool.epochs.updating = {play.worker(name).serial for name in names}
    play.pool.judge()
    play.wait(0.0)


def take(play: Stage, *names: str, waiting: tuple[str, ...] = ()) -> None:
    """
    These workers of one model took an update; the turn of those *waiting* is still to come.
    """
    epochs = play.pool.epochs
    model = play.worker(names[0]).capabilities.model
    before, update = epochs.desired(model), Update(epochs.next_number(), DISK)
    for name in waiting:
        epochs.pending[play.worker(name).serial] = before
    epochs.set(model, before.updated(update))
    for name in names:
        epochs.updating.discard(play.worker(name).serial)
        play.change(name, actual=play.worker(name).actual.took(update, epochs.desired(model)))
    play.pool.judge()
    play.wait(0.0)


def turn(play: Stage, *names: str) -> None:
    """
    The turn of those who waited has come: they took the update too.
    """
    epochs = play.pool.epochs
    for name in names:
        worker = play.worker(name)
        epochs.pending.pop(worker.serial)
        desired = epochs.desired(worker.capabilities.model)
        play.change(name, actual=Actual(has=desired.numbers))
    play.wait(0.0)


def at_least(number: int, want: Want = IMAGE) -> Want:
    return evolve(want, epoch=RequiredEpoch(number))


def exactly(number: int, want: Want = IMAGE) -> Want:
    return evolve(want, epoch=RequiredEpoch(number, exact=True))


def refusal(play: Stage, want: Want = IMAGE, **facts: Any) -> RouterError:
    with pytest.raises(RouterError) as refused:
        play.submit("refused", want=want, **facts)
    assert "refused" not in play.scheduler.line
    return refused.value


# While workers are updated.


def test_requests_wait_for_an_update() -> None:
    """
    While all workers are being updated new requests wait, and are served when that is over.
    """
    play = ready("a", "b")
    close(play)
    assert [play.submit(id) for id in ("one", "two")] == ["", ""]
    play.wait(60.0)
    assert not play.dropped
    reopen(play)
    assert sorted(play.homes.values()) == ["a", "b"]


def test_those_who_are_not_updated_serve() -> None:
    """
    In an update of some nobody waits while another worker has room.
    """
    play = ready("a", "b", concurrency=1)
    updating(play, "a")
    assert play.submit("one") == "b"
    assert play.submit("two") == ""
    updating(play, "b")
    assert play.homes["two"] == "a"
    assert play.submit("three") == ""
    play.finish("one")
    assert "three" not in play.homes


@pytest.mark.parametrize("facet", ["draining", "disabled", "asleep", "dead"])
def test_nobody_waits_for_those_who_are_out(facet: str) -> None:
    """
    Workers that get no work after the update either are not waited for.
    """
    play = ready("a")
    close(play)
    play.submit("waiting")
    play.change("a", **{facet: True})
    play.wait(0.0)
    assert isinstance(play.dropped["waiting"], NoWorker)
    assert isinstance(refusal(play), NoWorker)


def test_nobody_waits_for_the_stale() -> None:
    """
    When only stale workers are there a new request is refused, and the text says what they lack and
    where that is shown; those in line wait on. A worker that is updated again is waited for.
    """
    play = ready("a", "b")
    play.change("b", asleep=True)
    close(play)
    play.submit("waiting")
    take(play, "b")
    reopen(play)
    assert play.worker("a").state == "stale"
    error = refusal(play)
    assert isinstance(error, NoWorker)
    assert str(error) == (
        "No eligible workers available in the pool: 1 stale, 1 sleeping. Stale workers lack weights"
        " or adapters that the fleet has: see GET /weights"
    )
    assert error.reason == "no_worker"
    play.wait(100.0)
    assert not play.dropped
    updating(play, "a")
    assert play.submit("new") == ""
    take(play, "a")
    assert set(play.homes) == {"waiting", "new"}


def test_the_line_has_its_limits() -> None:
    """
    The size of the line, the longest wait and the deadline count as always; cancelling works.
    """
    play = ready("a", "b", queue_size=3)
    close(play)
    play.submit("deadline", 30.0, deadline=5.0)
    play.submit("expires", 30.0, expires=7.0)
    play.submit("cancelled", 30.0)
    error = refusal(play)
    assert isinstance(error, Refused)
    assert (error.reason, error.status) == ("queue_full", 503)
    assert error.headers["Retry-After"] == "45", "both will work again"
    play.cancel("cancelled")
    play.wait(6.0)
    assert isinstance(play.dropped["deadline"], DeadlinePassed)
    play.wait(1.0)
    error = play.dropped["expires"]
    assert isinstance(error, Refused)
    assert error.reason == "queue_timeout"
    assert len(play.scheduler.line) == 0


def test_their_length_is_that_of_their_model() -> None:
    """
    How long a job will take is reckoned though nobody can take it, so the longest of a batch still
    goes first.
    """
    play = ready("a", concurrency=1)
    able(play.pool, "a", "T2I", model="m")
    close(play, "m")
    for work in (1.0, 5.0, 3.0):
        play.submit(f"{work}", work, batch="b")
    assert play.scheduler.line.seconds() == pytest.approx(9.0)
    reopen(play)
    for id in ("5.0", "3.0", "1.0"):
        assert here(play, "a") == [id]
        play.finish(id, well=False)


def test_nothing_is_foretold() -> None:
    """
    Nobody is refused for a deadline while those who might serve it in time are updated.
    """
    play = ready("a", "b", concurrency=1, learned={"a": 1.0, "b": 1.0})
    updating(play, "a")
    play.submit("running", 100.0)
    assert play.submit("urgent", 1.0, deadline=30.0) == ""
    updating(play)
    assert play.homes["urgent"] == "a"
    assert refusal(play, deadline=1.5).status == 429


def test_videos_are_not_handed_over_to_nobody() -> None:
    """
    A job whose time in line is over stays while nobody can take it, and goes when somebody can.
    """
    play = ready("a", concurrency=1)
    play.submit("running")
    close(play)
    play.submit("video", want=VIDEO, hand_over=2.0)
    play.wait(10.0)
    assert play.homes == {"running": "a"}
    reopen(play)
    play.wait(1.0)
    assert play.homes["video"] == "a"


def test_a_job_that_was_not_brought_to_its_worker() -> None:
    """
    It waits for the others if they are being updated, and for nobody if it may not go there.
    """
    play = ready("a", "b")
    homes = {id: play.submit(id) for id in ("one", "two")}
    updating(play, *(name for name in "ab" if name != homes["one"]))
    assert play.unreached("one") == ""
    updating(play)
    assert play.homes["one"] == homes["two"]
    play.finish("one")
    close(play)
    assert play.unreached("two") == ""
    play.pool.remove(url_of(homes["one"]))
    play.wait(0.0)
    assert isinstance(play.dropped["two"], NoWorker)


def test_whoever_is_back_first_does_not_get_all() -> None:
    """
    Without a limit of its own a worker gets no more of those that waited than it works on at once,
    until all are back: then they share.
    """
    play = ready("a", "b", "c")
    close(play)
    for number in range(9):
        play.submit(f"{number}")
    play.pool.epochs.updating = {play.worker(name).serial for name in "bc"}
    reopen(play)
    assert here(play, "a") == ["0"]
    play.finish("0")
    assert here(play, "a") == ["1"]
    assert play.submit("late") == ""
    updating(play, "c")
    assert (len(here(play, "a")), len(here(play, "b"))) == (1, 1)
    updating(play)
    assert [len(here(play, name)) for name in "abc"] == [3, 3, 3]


def test_reading_is_not_held_back() -> None:
    """
    What takes no slot goes to a worker that is back though others are not.
    """
    play = ready("a", "b")
    close(play)
    play.submit("image")
    assert [play.submit(id, want=READING) for id in ("one", "two")] == ["", ""]
    play.pool.epochs.updating = {play.worker("b").serial}
    reopen(play)
    assert sorted(here(play, "a")) == ["image", "one", "two"]


def two_models() -> Stage:
    play = ready("a", "b", concurrency=1)
    able(play.pool, "a", "T2I", model="org/a")
    able(play.pool, "b", "T2I", model="org/b")
    return play


def test_other_models_go_on() -> None:
    """
    What waits for the update of its model holds up nobody of another model, in line or not.
    """
    play = two_models()
    close(play, "org/a")
    for number in range(3):
        assert play.submit(f"a{number}", want=evolve(IMAGE, model="org/a")) == ""
    other = evolve(IMAGE, model="org/b")
    assert play.submit("b0", want=other) == "b"
    assert play.submit("b1", want=other) == ""
    play.finish("b0")
    assert play.homes["b1"] == "b"
    reopen(play)
    assert play.homes["a0"] == "a"


def test_nobody_is_given_to_the_unable_meanwhile() -> None:
    """
    Images go to a worker for videos only when there is no other; not while the others are updated.
    """
    play = ready("image", "video")
    able(play.pool, "image", "T2I", model="m")
    able(play.pool, "video", "T2V", model="v")
    close(play, "m")
    assert play.submit("image") == ""
    assert play.submit("video", want=VIDEO) == "video"
    reopen(play)
    assert play.homes["image"] == "image"
    play.change("image", draining=True)
    assert play.submit("last choice") == "video"


def test_the_unable_are_waited_for_too() -> None:
    """
    Where nobody is able an image waits for the worker whose answer tells its client so.
    """
    play = ready("video")
    able(play.pool, "video", "T2V", model="v")
    close(play, "v")
    assert play.submit("image", want=EDIT) == ""
    reopen(play)
    assert play.homes["image"] == "video"
    assert play.submit("later", want=exactly(1, EDIT)) == ""
    take(play, "video")
    assert play.homes["later"] == "video"


# Required epochs.


def test_only_those_who_meet_it() -> None:
    """
    In an update that goes from worker to worker each job goes to one that has the weights that it
    requires, whatever others are idle.
    """
    play = ready("a", "b", "c", "d")
    take(play, "a", "b", waiting=("c", "d"))
    for number in range(6):
        assert play.submit(f"new{number}", want=at_least(1)) in "ab"
        assert play.submit(f"same{number}", want=exactly(1)) in "ab"
        assert play.submit(f"old{number}", want=exactly(0)) in "cd"
        assert play.submit(f"any{number}", want=at_least(0)) in "abcd"
    assert [len(here(play, name)) for name in "abcd"] == [6, 6, 6, 6]


def test_it_waits_until_an_update_brings_it() -> None:
    """
    A job for a later epoch waits, others pass it, and it goes to the first worker that has it.
    """
    play = ready("a", "b", concurrency=1)
    take(play, "a", "b")
    assert play.submit("later", want=at_least(2)) == ""
    assert play.submit("much later", want=exactly(3)) == ""
    assert sorted([play.submit("one"), play.submit("two", want=exactly(1))]) == ["a", "b"]
    for id in ("one", "two"):
        play.finish(id)
    play.wait(1000.0)
    assert not play.dropped
    assert "later" not in play.homes
    take(play, "b", waiting=("a",))
    assert play.homes["later"] == "b"
    assert play.submit("old", want=exactly(1)) == "a"


@pytest.mark.parametrize("facet", [{"dead": True}, {"asleep": True}, {"draining": True}])
def test_it_waits_for_those_who_are_away(facet: dict[str, bool]) -> None:
    """
    A worker that has the weights and may come back is waited for while others without them are
    there; alone it is not.
    """
    play = ready("a", "b")
    take(play, "b", waiting=("a",))
    play.change("b", **facet)
    assert play.submit("waiting", want=at_least(1)) == ""
    play.change("a", disabled=True)
    play.wait(0.0)
    assert isinstance(play.dropped["waiting"], NoWorker)
    error = refusal(play, at_least(1))
    assert isinstance(error, NoWorker)
    assert error.reason == "no_worker"


def test_an_epoch_that_has_passed() -> None:
    """
    What no worker will have any more is refused at once, and the text says what is there.
    """
    play = ready("a", "b")
    take(play, "a", "b")
    take(play, "a", "b")
    error = refusal(play, exactly(1))
    assert isinstance(error, PreconditionFailed)
    assert error.status == 412
    assert str(error) == "It requires the weights epoch =1, and the fleet is at 2"
    assert (error.reason, error.fields) == ("epoch", {"queue_position": None, "retry_after": None})
    assert [(event.name, event.reason) for event in play.events][-1] == ("refused", "epoch")
    assert play.submit("this", want=exactly(2))


def test_an_epoch_that_passes() -> None:
    """
    A job in line is let go as soon as an update has left its epoch behind, each with headers of its
    own; while a worker's turn is still to come it is served there.
    """
    play = ready("a", "b", concurrency=1)
    homes = [play.submit(id, want=exactly(0)) for id in ("one", "two")]
    for id in ("first", "second"):
        play.submit(id, want=exactly(0))
    take(play, "a", waiting=("b",))
    play.finish("one" if homes[0] == "a" else "two")
    assert not play.dropped
    assert "first" not in play.homes
    play.finish("one" if homes[0] == "b" else "two")
    assert play.homes["first"] == "b"
    play.submit("third", want=exactly(0))
    turn(play, "b")
    assert set(play.dropped) == {"second", "third"}
    errors = [play.dropped[id] for id in ("second", "third")]
    assert all(isinstance(error, PreconditionFailed) for error in errors)
    errors[0].headers["X-Router-Job"] = "second"
    assert errors[1].headers == {}
    assert [str(error) for error in errors] == [str(errors[0])] * 2


def test_a_stale_worker_keeps_nothing_back() -> None:
    """
    That a worker which missed the update still has an older epoch is no reason to wait for it,
    unless such workers are used: then they serve it.
    """
    play = ready("a", "b")
    take(play, "a")
    assert play.worker("b").epoch == 0
    assert isinstance(refusal(play, exactly(0)), PreconditionFailed)
    play = Stage(Scheduler(Pool(Epochs(tolerant=True)), Speeds(Rate(1.0)), Rules()))
    for name in ("a", "b"):
        play.pool.record_probe(play.pool.add(url_of(name)), Probe(healthy=True), threshold=3)
    take(play, "a")
    assert [play.submit(f"{number}", want=exactly(0)) for number in range(2)] == ["b", "b"]
    assert play.submit("new", want=at_least(1)) == "a"


def test_a_turn_that_is_still_to_come() -> None:
    """
    A worker that has the older weights until its turn comes is waited for while it is taken out,
    and no longer than until then.
    """
    play = ready("a", "b")
    play.change("b", disabled=True)
    take(play, "a", waiting=("b",))
    assert play.submit("one", want=exactly(0)) == ""
    play.change("b", disabled=False)
    play.wait(0.0)
    assert play.homes["one"] == "b"
    play.change("b", disabled=True)
    assert play.submit("two", want=exactly(0)) == ""
    play.wait(60.0)
    assert not play.dropped
    reopen(play)
    assert isinstance(play.dropped["two"], PreconditionFailed)


def test_its_deadline_passes() -> None:
    """
    When a job has waited as long as it may for an epoch that nobody has it is told that; if only
    room was lacking, or the end of an update of those who have it, what is always told.
    """
    play = ready("a", concurrency=1)
    take(play, "a")
    play.submit("deadline", want=at_least(2), deadline=play.now + 5.0)
    play.submit("expires", want=exactly(9), expires=play.now + 5.0)
    play.submit("running")
    play.submit("no room", want=at_least(1), deadline=play.now + 5.0)
    play.submit("no time", want=exactly(1), expires=play.now + 5.0)
    play.wait(5.0)
    for id, shown in {"deadline": ">=2", "expires": "=9"}.items():
        error = play.dropped[id]
        assert isinstance(error, PreconditionFailed)
        sentence = f"It waited 5.0 s for the weights epoch {shown}, and the fleet is at 1"
        assert str(error) == sentence
        assert error.fields["queue_position"] is not None
    assert isinstance(play.dropped["no room"], DeadlinePassed)
    assert play.dropped["no time"].reason == "queue_timeout"
    close(play)
    play.submit("updated", want=at_least(1), deadline=play.now + 5.0)
    play.wait(5.0)
    assert isinstance(play.dropped["updated"], DeadlinePassed)


def test_its_deadline_passes_while_those_who_have_it_are_away() -> None:
    """
    Who has been taken out has nothing to offer.
    """
    play = ready("a", "b")
    take(play, "b", waiting=("a",))
    play.change("b", draining=True)
    play.submit("deadline", want=at_least(1), deadline=play.now + 5.0)
    play.wait(5.0)
    assert isinstance(play.dropped["deadline"], PreconditionFailed)


def test_epochs_of_several_models() -> None:
    """
    Epochs are compared within the models that may serve: a model that is behind may still come
    there, and an epoch that all have passed is refused with all of theirs.
    """
    play = two_models()
    for _ in range(3):
        take(play, "a")
    take(play, "b")
    assert play.submit("any", want=exactly(2)) == ""
    named = evolve(exactly(2), model="org/a")
    assert "at 3" in str(refusal(play, named))
    take(play, "b")
    assert play.homes["any"] == "b"
    assert str(refusal(play, exactly(0))).endswith("the fleet is at 2 and 3")


def test_an_unable_worker_does_not_stand_in() -> None:
    """
    That a worker for videos has the epoch brings it no images while one for images may come there.
    """
    play = ready("image", "video")
    able(play.pool, "image", "T2I", model="m")
    able(play.pool, "video", "T2V", model="v")
    take(play, "video")
    assert play.submit("image", want=at_least(1)) == ""
    assert play.submit("video", want=at_least(1, VIDEO)) == "video"
    take(play, "image")
    assert play.homes["image"] == "image"


def test_a_job_with_an_epoch_that_was_not_brought_to_its_worker() -> None:
    """
    It waits for another that gets there; if its epoch has passed with that worker it is refused.
    """
    play = ready("a", "b")
    take(play, "a", waiting=("b",))
    for id in ("new", "old"):
        play.submit(id, want=at_least(1) if id == "new" else exactly(0))
    assert play.homes == {"new": "a", "old": "b"}
    assert play.unreached("new") == ""
    turn(play, "b")
    assert play.homes["new"] == "b"
    with pytest.raises(PreconditionFailed):
        play.unreached("old")
    assert [(event.name, event.reason) for event in play.events][-1] == ("dropped", "epoch")


def test_few_indexes_for_many_epochs() -> None:
    """
    However many epochs are required, there is an index for those alone in which workers differ, and
    only while they do.
    """
    play = ready("a", "b", "c")
    desks = play.scheduler.floor.desks
    for number in range(100):
        play.submit(f"{number}", want=at_least(1 + number))
        play.submit(f"exactly {number}", want=exactly(1 + number))
    [desk] = desks._desks.values()
    assert not desk._required
    take(play, "b", "c", waiting=("a",))
    assert 1 <= len(desk._required) <= 4
    assert [play.homes.get(id) in ("b", "c") for id in ("0", "1", "exactly 0")] == [1, 0, 1]
    turn(play, "a")
    assert not desk._required
    assert play.submit("more", want=at_least(1)) == "a"
    assert not desk._required
    take(play, "b", "c", waiting=("a",))
    for _ in range(2):
        take(play, "b", "c")
    assert {play.homes[f"{number}"] for number in (1, 2, 3)} <= {"b", "c"}
    for number in (2, 3, 4):
        assert play.submit(f"at least {number}", want=at_least(number)) in "bc"
    assert len(desk._required) <= 2, "the others are at 1"
    assert len(desks) == 1


def test_those_who_wait_for_weights_are_in_nobodys_way() -> None:
    """
    With a line of jobs that nobody can serve others are still served at once, as in an empty one.
    """
    play = ready("a", "b", concurrency=1)
    for number in range(50):
        play.submit(f"waiting{number}", want=at_least(1 + number))
    assert play.scheduler.line.resting
    assert play.submit("one") in "ab"
    assert play.submit("two") in "ab"
    assert play.submit("three") == ""
    play.finish("one")
    assert "three" in play.homes
    assert len(play.scheduler.line) == 50


def test_what_they_are_told_they_wait_for() -> None:
    """
    Who asks how it stands in line learns what it waits for.
    """
    play = ready("a", "b")
    play.submit("later", want=at_least(1))
    close(play)
    play.submit("now")
    why = {each.job.id: each.why for each in prospects(play.scheduler, play.now, ALL)}
    assert why == {
        "later": "no worker has the weights epoch >=1",
        "now": "the workers that can take it are being updated",
    }
    play.submit("next")
    play.pool.epochs.updating = {play.worker("b").serial}
    reopen(play)
    why = {each.job.id: each.why for each in prospects(play.scheduler, play.now, ALL)}
    assert why["next"] == "others that can take it are being updated"


@pytest.mark.parametrize("algorithm", ["least-request", "least-work", "round-robin", "random"])
def test_every_algorithm_keeps_to_it(algorithm: str) -> None:
    """
    Whatever the routing algorithm, epochs are minded and the line flows again.
    """
    play = ready(*"abcd", algorithm=algorithm)
    close(play)
    for number in range(12):
        play.submit(f"{number}", want=at_least(1))
        play.submit(f"any{number}")
    reopen(play)
    play.pool.epochs.updating = set()
    take(play, "c", "d", waiting=("a", "b"))
    assert {play.homes[f"{number}"] for number in range(12)} == {"c", "d"}
    assert len(play.homes) == 24
