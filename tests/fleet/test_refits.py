"""
An update step by step: what it does to epochs and workers, and what is left of one that was broken
off.
"""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from sgl_droute.fleet.capabilities import Capabilities
from sgl_droute.fleet.checksums import Weighed, compared
from sgl_droute.fleet.loras import MERGE, SET, LoraCall, LoraSet
from sgl_droute.fleet.modules import ALL, NONE
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refit import Refit, Verdict
from sgl_droute.fleet.refits import MOST_HISTORY, Refits
from sgl_droute.fleet.weights import DISK, TENSOR, Actual, Adaptation, Change, Update
from sgl_droute.fleet.worker import Probe, Worker, quarantined

TOOK, EXEMPT, REFUSED = Verdict.TOOK, Verdict.EXEMPT, Verdict.REFUSED
FAILED, LOST = Verdict.FAILED, Verdict.LOST
GOOD = Probe(healthy=True)
X = LoraCall(SET, {"lora_nickname": "x", "lora_path": "p/x"})
Y = LoraCall(SET, {"lora_nickname": "y", "lora_path": "p/y"})
MERGED = LoraCall(MERGE, {})
BODY = b'{"model_path": "/w"}'
DIT = frozenset({"dit"})


class Fleet:
    """
    Workers named by letters, of model ``m`` unless told otherwise, and their updates.
    """

    def __init__(self, names: str = "ab", model: str | None = "m") -> None:
        self.pool = Pool()
        self.refits = Refits(self.pool)
        self.changes = 0
        self.refits.watch(self._changed)
        for name in names:
            self.join(name, model)

    def __getitem__(self, name: str) -> Worker:
        return self.pool[f"http://{name}:1"]

    @property
    def states(self) -> str:
        return " ".join(worker.state for worker in self.pool)

    @property
    def epoch(self) -> int:
        return self.pool.epochs.desired("m").epoch

    def join(self, name: str, model: str | None = "m") -> Worker:
        worker = self.pool.add(f"http://{name}:1")
        self.learn(name, model)
        self.pool.record_probe(worker, GOOD, threshold=3)
        return self[name]

    def learn(self, name: str, model: str | None) -> None:
        names = frozenset() if model is None else frozenset({model})
        self.pool.record_capabilities(self[name], Capabilities(model=model, names=names))

    def restart(self, name: str) -> None:
        self.pool.record_lapse(self[name], restarted=True)
        self.pool.record_probe(self[name], GOOD, threshold=3)

    def disk(self, modules: frozenset[str] | None = ALL) -> Update:
        return Update(self.pool.epochs.next_number(), DISK, BODY, modules)

    def adaptation(self, call: LoraCall) -> Adaptation:
        return Adaptation(self.pool.epochs.next_number(), call)

    def begin(self, change: Change, names: str = "", mode: str = "broadcast") -> Refit:
        workers = [self[name] for name in names] or list(self.pool)
        return self.refits.begin(change, "/path", BODY, mode, workers, 5.0)

    def call(self, refit: Refit, name: str) -> Worker:
        self.refits.hold(self[name])
        self.refits.calling(refit, self[name])
        return self[name]

    def make(self, change: Change, **verdicts: Verdict) -> Refit:
        """
        An update that all workers named are called for at once, from beginning to end.
        """
        refit = self.begin(change, "".join(verdicts))
        called = {name: self.call(refit, name) for name in verdicts}
        for name, verdict in verdicts.items():
            self.refits.ended_at(refit, called[name], verdict)
        self.refits.end(refit, 2.0)
        return refit

    def after_crash(self) -> Fleet:
        saved = json.loads(json.dumps(self.refits.saved()))
        again = Fleet("")
        again.refits.restore(saved)
        for worker in self.pool:
            again.pool.add(worker.url)
        again.refits.all_back()
        for worker in self.pool:
            again.pool.record_probe(worker, GOOD, threshold=3)
        return again

    def _changed(self) -> None:
        self.changes += 1


# An update, from its beginning to its end.


def test_until_its_turn_a_worker_goes_on() -> None:
    """
    A worker that is not called yet works with what it has, though others have the update already;
    when its turn comes it gets no more work.
    """
    fleet = Fleet()
    refit = fleet.begin(fleet.disk())
    assert fleet.states == "ready ready"
    called = fleet.call(refit, "a")
    assert fleet.states == "updating ready"
    fleet.refits.ended_at(refit, called, TOOK)
    assert fleet.states == "ready ready"
    assert (fleet["a"].epoch, fleet["b"].epoch, fleet.epoch) == (1, 0, 1)
    fleet.refits.hold(fleet["b"])
    assert fleet.states == "ready updating"
    fleet.refits.ended_at(refit, fleet.call(refit, "b"), TOOK)
    fleet.refits.end(refit, 2.0)
    assert fleet.states == "ready ready"
    assert fleet["b"].epoch == 1


def test_never_called() -> None:
    """
    A worker whose turn never came is stale once the update is over, if anybody took it.
    """
    fleet = Fleet()
    refit = fleet.begin(fleet.disk())
    fleet.refits.ended_at(refit, fleet.call(refit, "a"), TOOK)
    fleet.refits.end(refit, 2.0)
    assert fleet.states == "ready stale"
    assert refit.outcomes == {"http://a:1": TOOK}


def test_closed() -> None:
    """
    A fleet that is closed for an update gives no work to anybody of its models, nor to those that
    may be of them, from its beginning to its end.
    """
    fleet = Fleet()
    fleet.join("n", "n")
    fleet.join("u", None)
    refit = fleet.begin(fleet.disk(), "ab")
    fleet.refits.close(refit)
    assert fleet.states == "updating updating ready updating"
    fleet.refits.ended_at(refit, fleet.call(refit, "a"), TOOK)
    assert fleet["a"].state == "updating"
    fleet.refits.end(refit, 2.0)
    assert not any(worker.updating for worker in fleet.pool)
    assert fleet["a"].eligible


@pytest.mark.parametrize(
    ("verdict", "state", "actual"),
    [
        (TOOK, "ready", Actual(epoch=1, has=frozenset({1}), source="/w", calls=1)),
        (EXEMPT, "stale", Actual(epoch=None, calls=1)),
        (REFUSED, "stale", Actual(calls=1)),
        (FAILED, "stale", Actual(epoch=None, torn=ALL, calls=1)),
        (LOST, "stale", Actual(epoch=None, torn=ALL, calls=1)),
    ],
)
def test_verdicts(verdict: Verdict, state: str, actual: Actual) -> None:
    """
    If anybody took the update, who did not is stale; and what a worker has that failed, or may have
    taken it, nobody knows.
    """
    fleet = Fleet()
    fleet.make(fleet.disk(), a=TOOK, b=verdict)
    assert fleet["b"].state == state
    assert fleet["b"].actual == actual


def test_nobody_took_it() -> None:
    """
    An update that all workers refused, or answered with a failure, never was.
    """
    fleet = Fleet("abc")
    fleet.make(fleet.disk(), a=REFUSED, b=FAILED)
    assert fleet.epoch == 0
    assert fleet.states == "ready ready ready"
    assert [worker.epoch for worker in fleet.pool] == [0, 0, 0]


def test_lost_and_nobody_took_it() -> None:
    """
    Who may have taken an update that nobody else took gets no work; the epoch stays.
    """
    fleet = Fleet()
    fleet.make(fleet.disk(), a=REFUSED, b=LOST)
    assert fleet.epoch == 0
    assert fleet.states == "ready stale"


def test_failed_before_others_took_it() -> None:
    """
    What a failure means depends on the others: the worker is held until they have answered.
    """
    fleet = Fleet()
    refit = fleet.begin(fleet.disk())
    a, b = fleet.call(refit, "a"), fleet.call(refit, "b")
    fleet.refits.ended_at(refit, a, FAILED)
    assert fleet["a"].state == "updating"
    assert fleet["a"].actual.known
    fleet.refits.ended_at(refit, b, TOOK)
    fleet.refits.end(refit, 2.0)
    assert fleet.states == "stale ready"
    assert fleet["a"].actual.torn is ALL


def test_only_its_models() -> None:
    """
    An update of one model raises no other's epoch.
    """
    fleet = Fleet()
    fleet.join("n", "n")
    refit = fleet.make(fleet.disk(), a=TOOK, b=TOOK)
    assert fleet.states == "ready ready ready"
    assert fleet.pool.epochs.desired("n").epoch == 0
    assert refit.reached["m"] == 1
    assert "n" not in refit.reached


def test_taken_by_who_has_not_said_its_model() -> None:
    """
    A worker that has not said what it serves may be of any model: all that were called count as
    updated, and models yet to be told of need the update too.
    """
    fleet = Fleet()
    fleet.join("u", None)
    fleet.make(fleet.disk(), u=TOOK, b=REFUSED)
    assert fleet.epoch == 1
    assert fleet["b"].state == "stale"
    assert fleet["u"].state == "ready"
    assert fleet.pool.epochs.desired("other").epoch == 1


def test_what_it_took_may_be_for_something_else() -> None:
    """
    A worker that says that it serves something else is judged by what that is to have, and of what
    it took for another model nobody knows what that made of this one.
    """
    fleet = Fleet("a")
    fleet.join("u", None)
    fleet.make(fleet.disk(), a=TOOK, u=TOOK)
    fleet.learn("u", "m")
    assert fleet["u"].state == "ready"
    fleet.make(fleet.disk(DIT), a=TOOK, u=TOOK)
    fleet.learn("u", "n")
    assert fleet["u"].state == "stale"
    assert fleet["u"].actual.torn == DIT


def test_told_of() -> None:
    """
    What is told of an update: when, how, of whom, how long, and its body up to a length.
    """
    fleet = Fleet("a")
    refit = fleet.refits.begin(
        fleet.disk(), "/p", b"\xff" + b"x" * 5000, "rolling", [*fleet.pool], 7.0
    )
    assert fleet.refits.under_way is refit
    called = fleet.call(refit, "a")
    assert refit.unfinished == [called.url]
    fleet.refits.ended_at(refit, called, TOOK)
    fleet.refits.end(refit, 2.5)
    assert (refit.path, refit.mode, refit.when, refit.seconds) == ("/p", "rolling", 7.0, 2.5)
    assert refit.body == "\N{REPLACEMENT CHARACTER}" + "x" * 4095
    assert (refit.outcomes, refit.unfinished) == ({called.url: TOOK}, [])
    assert fleet.refits.under_way is None
    assert list(fleet.refits.history) == [refit]


def test_history() -> None:
    """
    The last updates are told of, but for those that called nobody.
    """
    fleet = Fleet("a")
    refits = [fleet.make(fleet.disk(), a=TOOK) for _ in range(MOST_HISTORY + 1)]
    fleet.refits.end(fleet.begin(fleet.disk()), 1.0)
    assert list(fleet.refits.history) == refits[1:]


def test_changes_are_told() -> None:
    """
    Every step is told, to be kept before the next one.
    """
    fleet = Fleet()
    refits = fleet.refits
    refit = fleet.begin(fleet.disk())
    seen = [fleet.changes]
    called = fleet.call(refit, "a")
    seen.append(fleet.changes)
    refits.ended_at(refit, called, TOOK)
    seen.append(fleet.changes)
    refits.end(refit, 1.0)
    seen.append(fleet.changes)
    assert sorted(set(seen)) == seen


# Restarts meanwhile.


def test_restarted_after_it_took_it() -> None:
    """
    A worker that was restarted after it took the update has forgotten it.
    """
    fleet = Fleet()
    refit = fleet.begin(fleet.disk())
    a, b = fleet.call(refit, "a"), fleet.call(refit, "b")
    fleet.restart("b")
    for then in (a, b):
        fleet.refits.ended_at(refit, then, TOOK)
    fleet.refits.end(refit, 1.0)
    assert fleet.states == "ready stale"
    assert fleet["b"].actual == Actual()


def test_left_during_the_call() -> None:
    """
    An update counts as made if a worker took it that has left meanwhile.
    """
    fleet = Fleet()
    refit = fleet.begin(fleet.disk())
    then = fleet.call(refit, "a")
    fleet.pool.remove(then.url)
    fleet.refits.ended_at(refit, then, TOOK)
    fleet.refits.end(refit, 1.0)
    assert fleet.epoch == 1
    assert fleet.states == "stale"


def test_may_be_another_process_during_the_call() -> None:
    """
    Of a worker that may have been restarted while it was called nobody knows what it has; while
    that is so its answer does not bring it to the epoch.
    """
    fleet = Fleet()
    refit = fleet.begin(fleet.disk())
    then = fleet.call(refit, "a")
    fleet.pool.record_lapse(fleet["a"])
    fleet.refits.ended_at(refit, then, TOOK)
    fleet.refits.end(refit, 1.0)
    assert fleet.epoch == 1
    assert fleet["a"].state == "stale"
    assert fleet["a"].epoch is None


def test_sent_to_a_new_process() -> None:
    """
    A call to a worker that surely was restarted goes to a process that has nothing yet.
    """
    fleet = Fleet("a")
    fleet.make(fleet.disk(), a=TOOK)
    fleet.pool.record_lapse(fleet["a"], restarted=True)
    fleet.refits.sent(fleet["a"])
    assert fleet["a"].actual == Actual(calls=2)
    assert not fleet["a"].restarted


# Adapters.


def test_who_missed_a_lora_call_is_stale() -> None:
    """
    Workers that took the call go on; the others get nothing until they have caught up.
    """
    fleet = Fleet()
    fleet.make(fleet.adaptation(X), a=TOOK)
    assert fleet.states == "ready stale"
    fleet.refits.given_loras(fleet["b"], fleet.pool.epochs.desired("m"), [X])
    assert fleet.states == "ready ready"
    assert fleet["a"].actual.history == fleet["b"].actual.history
    assert fleet["b"].epoch == 1


def test_catching_up_with_yesterday() -> None:
    """
    A worker that took a set which is no longer the fleet's stays stale.
    """
    fleet = Fleet()
    fleet.make(fleet.adaptation(X), a=TOOK)
    yesterday = fleet.pool.epochs.desired("m")
    fleet.make(fleet.adaptation(Y), a=TOOK)
    fleet.refits.given_loras(fleet["b"], yesterday, [X])
    assert fleet.states == "ready stale"


def test_a_stale_worker_that_takes_a_whole_set() -> None:
    """
    A call that gives the whole set brings any worker up to date; one that builds on others only
    those who had these.
    """
    fleet = Fleet()
    fleet.make(fleet.adaptation(X), a=TOOK)
    fleet.make(fleet.adaptation(MERGED), a=TOOK, b=TOOK)
    assert fleet.states == "ready stale"
    fleet.make(fleet.adaptation(Y), a=TOOK, b=TOOK)
    assert fleet.states == "ready ready"


def test_a_lora_call_that_changes_nothing() -> None:
    """
    It raises no epoch, and who refused it is not stale.
    """
    fleet = Fleet()
    refit = fleet.make(fleet.adaptation(MERGED), a=TOOK, b=REFUSED)
    assert (fleet.epoch, refit.reached) == (0, {})
    assert fleet.states == "ready ready"


def test_no_use_for_adapters() -> None:
    """
    A worker whose pipeline takes no adapters has all that it needs.
    """
    fleet = Fleet()
    fleet.make(fleet.adaptation(X), a=TOOK, b=EXEMPT)
    assert fleet.states == "ready ready"
    assert fleet["b"].epoch == 1


def test_restarted_after_a_lora_call() -> None:
    """
    A worker that was restarted after it took the call has forgotten it.
    """
    fleet = Fleet()
    fleet.make(fleet.adaptation(X), a=TOOK, b=TOOK)
    fleet.restart("b")
    assert fleet.states == "ready stale"


def test_new_and_returned_workers_are_stale() -> None:
    """
    With a LoRA set in force, who joins or was out of reach gets no work before it has the set.
    """
    fleet = Fleet("a")
    fleet.make(fleet.adaptation(X), a=TOOK)
    fleet.join("c")
    assert fleet.states == "ready stale"
    fleet.pool.record_lapse(fleet["a"])
    assert fleet["a"].state == "stale"
    desired = fleet.pool.epochs.desired("m")
    fleet.refits.given_loras(fleet["a"], desired, [X])
    assert fleet["a"].state == "stale"
    fleet.pool.record_probe(fleet["a"], GOOD, threshold=3)
    fleet.refits.given_loras(fleet["a"], desired, [X])
    assert fleet["a"].state == "ready"


def test_back_from_quarantine_with_a_set_in_force() -> None:
    """
    Whoever was quarantined may have been restarted: it catches up before it gets work.
    """
    fleet = Fleet()
    fleet.make(fleet.adaptation(X), a=TOOK, b=TOOK)
    fleet.pool.change(fleet["a"], lambda now: quarantined(now, "by hand"))
    fleet.join("a")
    assert fleet.states == "stale ready"


# Catching up, and proofs.


def test_replayed() -> None:
    """
    A worker that takes all updates that it lacked gets work again.
    """
    fleet = Fleet()
    fleet.make(fleet.disk(), a=TOOK, b=REFUSED)
    fleet.make(fleet.disk(DIT), a=TOOK, b=REFUSED)
    for update in fleet.pool.epochs.desired("m").missing(fleet["b"].actual):
        assert fleet["b"].state == "stale"
        fleet.refits.replayed(fleet["b"], update)
    assert fleet.states == "ready ready"
    assert fleet["b"].epoch == 2


def test_not_replayed() -> None:
    """
    What a worker made of a call without an answer nobody knows.
    """
    fleet = Fleet()
    update = fleet.disk(DIT)
    fleet.make(update, a=TOOK, b=REFUSED)
    fleet.refits.not_replayed(fleet["b"], update)
    assert fleet["b"].actual.torn == DIT
    fleet.refits.not_replayed(fleet["b"], fleet.adaptation(X))
    assert fleet["b"].actual.loras is None


def test_of_another_process() -> None:
    """
    What is found out about a process is not held of its successor.
    """
    fleet = Fleet()
    update = fleet.disk()
    fleet.make(update, a=TOOK, b=REFUSED)
    then = fleet["b"]
    fleet.restart("b")
    now, refits = fleet["b"], fleet.refits
    refits.replayed(then, update)
    refits.not_replayed(then, update)
    refits.given_loras(then, fleet.pool.epochs.desired("m"), [X])
    refits.proven(then)
    refits.differs(then)
    refits.begun_anew(then)
    assert fleet["b"] == now


def test_proven() -> None:
    """
    Checksums show that a worker has what it is to have: it gets work.
    """
    fleet = Fleet()
    fleet.make(fleet.disk(), a=TOOK, b=LOST)
    fleet.refits.proven(fleet["b"])
    assert fleet.states == "ready ready"
    assert fleet["b"].epoch == 1


def test_proven_of_yesterday() -> None:
    """
    Who is shown to have what was desired before has that, and lacks what came since.
    """
    fleet = Fleet()
    fleet.make(fleet.disk(), a=TOOK, b=LOST)
    yesterday = fleet.pool.epochs.desired("m")
    fleet.make(fleet.disk(DIT), a=TOOK, b=REFUSED)
    fleet.refits.proven(fleet["b"], yesterday)
    assert fleet["b"].state == "stale"
    assert fleet["b"].actual.known
    missing = fleet.pool.epochs.desired("m").missing(fleet["b"].actual)
    assert [update.number for update in missing] == [2]


def test_differs() -> None:
    """
    A worker whose checksums are others has something unknown, and gets no work.
    """
    fleet = Fleet()
    fleet.make(fleet.disk(), a=TOOK, b=TOOK)
    fleet.refits.differs(fleet["b"])
    assert fleet.states == "ready stale"
    assert (fleet["b"].actual.torn, fleet["b"].epoch) == (ALL, None)


def test_begun_anew() -> None:
    """
    A worker of which nothing is known is to get all of it.
    """
    fleet = Fleet()
    fleet.make(fleet.disk(), a=TOOK, b=TOOK)
    fleet.refits.begun_anew(fleet["b"])
    assert fleet.states == "ready stale"
    assert fleet["b"].actual.has == frozenset()


def test_sums_are_of_what_a_worker_has() -> None:
    """
    Checksums that a worker told are forgotten when it is sent a change, and when it leaves; not
    with a change that is not of its weights.
    """
    fleet = Fleet()
    a, b = fleet["a"], fleet["b"]
    fleet.refits.sums.update({a.serial: {"vae": "1"}, b.serial: {"vae": "1"}})
    fleet.pool.change(a, lambda now: evolve(now, disabled=True))
    assert set(fleet.refits.sums) == {a.serial, b.serial}
    fleet.refits.sent(fleet["a"])
    assert set(fleet.refits.sums) == {b.serial}
    fleet.pool.remove(b.url)
    assert not fleet.refits.sums


def test_refer() -> None:
    """
    Known sums of a model add up, and raise no epoch.
    """
    fleet = Fleet()
    fleet.refits.refer("m", {"vae": ("1", "")})
    fleet.refits.refer("m", {"dit": ("2", "")})
    changes = fleet.changes
    fleet.refits.refer("m", {"dit": ("2", "")})
    desired = fleet.pool.epochs.desired("m")
    assert (desired.epoch, desired.sums) == (0, {"vae": ("1", ""), "dit": ("2", "")})
    assert fleet.changes == changes


def test_compared() -> None:
    """
    Who differs from most gets no work, and what most have is the measure; who left is no error.
    """
    fleet = Fleet("abc")
    values = {"http://a:1": "1", "http://b:1": "1", "http://c:1": "2", "http://gone:1": "2"}
    told = [
        Weighed(url, {"vae": value}, "") for url, value in [*values.items(), ("http://d:1", "1")]
    ]
    fleet.refits.compared("m", compared(told))
    assert fleet.states == "ready ready stale"
    assert fleet.pool.epochs.desired("m").sums == {"vae": ("1", "")}


# What a crash of the router broke off.


def interrupted(*names: str, update: Update | None = None) -> Fleet:
    """
    A fleet of which these were called, and nobody had answered, when the router crashed.
    """
    fleet = Fleet()
    refit = fleet.begin(update or fleet.disk())
    for name in names:
        fleet.call(refit, name)
    again = fleet.after_crash()
    assert again.refits.interrupted is not None
    return again


def notes(fleet: Fleet) -> list[str]:
    return [refit.note for refit in fleet.refits.history]


def test_interrupted() -> None:
    """
    An update of which nobody knows what came of it stays an open question, and those that may have
    taken it get no work.
    """
    fleet = interrupted("a")
    assert fleet.states == "stale ready"
    assert fleet.epoch == 0
    assert fleet["a"].epoch is None
    assert fleet.refits.interrupted.unfinished == ["http://a:1"]  # type: ignore[union-attr]


def test_broken_off_with_nobody_called() -> None:
    """
    An update that nobody was called for never was.
    """
    fleet = Fleet()
    fleet.begin(fleet.disk())
    again = fleet.after_crash()
    assert again.refits.interrupted is None
    assert again.states == "ready ready"


def test_broken_off_after_somebody_took_it() -> None:
    """
    An update that anybody took is made: the others catch up.
    """
    fleet = Fleet()
    refit = fleet.begin(fleet.disk())
    then = fleet.call(refit, "a")
    fleet.call(refit, "b")
    fleet.refits.ended_at(refit, then, TOOK)
    again = fleet.after_crash()
    assert again.refits.interrupted is None
    assert again.epoch == 1
    assert notes(again) == ["interrupted by a restart of the router"]
    again.refits.proven(again["a"])
    assert again.states == "ready stale"


def test_roll_forward() -> None:
    """
    Rolled forward the update counts as taken: whoever has not taken it is to catch up.
    """
    fleet = interrupted("a")
    fleet.refits.roll_forward()
    assert (fleet.epoch, fleet.states) == (1, "stale stale")
    assert fleet.refits.interrupted is None
    assert notes(fleet) == ["rolled forward after a restart of the router"]
    for name in "ab":
        for update in fleet.pool.epochs.desired("m").missing(fleet[name].actual):
            fleet.refits.replayed(fleet[name], update)
    assert fleet.states == "ready ready"


def test_retried() -> None:
    """
    Sent once more it is an open question no longer; without any question nothing happens.
    """
    fleet = interrupted("a")
    for _ in range(2):
        fleet.refits.retried()
    assert fleet.refits.interrupted is None
    assert notes(fleet) == ["sent once more"]


def test_abandon() -> None:
    """
    Abandoned the update never was: the epoch stays, and those that may have taken it get no work
    until they are restarted.
    """
    fleet = interrupted("a")
    fleet.refits.abandon()
    assert (fleet.epoch, fleet.states) == (0, "stale ready")
    assert fleet["a"].actual.stranded
    fleet.refits.proven(fleet["a"])
    assert fleet["a"].state == "stale"
    fleet.restart("a")
    assert fleet.states == "ready ready"


def test_followed_by_another_one() -> None:
    """
    A later update that is taken ends the question.
    """
    fleet = interrupted("a")
    fleet.make(fleet.disk(), a=TOOK, b=TOOK)
    assert fleet.refits.interrupted is None
    assert notes(fleet) == ["followed by another one", ""]
    assert fleet.states == "ready ready"


def test_made_good() -> None:
    """
    The question ends when it is known what each worker has, and when those have left of which it
    is not.
    """
    fleet = interrupted("a", "b")
    fleet.refits.proven(fleet["a"])
    assert fleet.refits.interrupted is not None
    fleet.pool.remove("http://b:1")
    assert fleet.refits.interrupted is None
    assert notes(fleet) == ["made good"]


def test_accept_what_was_interrupted() -> None:
    """
    Where most have taken the interrupted update it counts as made, and the others are stale.
    """
    fleet = interrupted("a", "b")
    fleet.refits.accept("m", ["http://a:1"], {"vae": ("1", "")}, changed=True)
    assert (fleet.epoch, fleet.states) == (1, "ready stale")
    assert fleet["a"].epoch == 1
    assert fleet.pool.epochs.desired("m").sums == {"vae": ("1", "")}


def test_accept_what_nobody_sent() -> None:
    """
    Weights that nobody sent through the router have an epoch of their own when they are accepted,
    and nobody is held to have them but those that agree.
    """
    fleet = Fleet("abc")
    for name in "abc":
        fleet.refits.differs(fleet[name])
    fleet.refits.accept("m", ["http://a:1", "http://b:1"], {"vae": ("1", "")}, changed=True)
    assert (fleet.epoch, fleet.states) == (1, "ready ready stale")
    assert (fleet["a"].epoch, fleet["c"].epoch) == (1, None)


def test_accept_what_was_desired() -> None:
    """
    What was desired all the time has the epoch that it had.
    """
    fleet = Fleet("ab")
    fleet.refits.differs(fleet["b"])
    for changed in (False, True):
        fleet.refits.accept("m", ["http://a:1"], {"vae": ("1", "")}, changed=changed)
        assert (fleet.epoch, fleet.states) == (0, "ready stale")


# What survives a restart.


def test_all_of_it_comes_back() -> None:
    """
    What is saved after a restart of the router is what was saved before it.
    """
    fleet = Fleet()
    fleet.make(fleet.disk(), a=TOOK, b=LOST)
    fleet.make(fleet.adaptation(X), a=TOOK, b=REFUSED)
    fleet.make(Update(fleet.pool.epochs.next_number(), TENSOR, b"", DIT), a=TOOK)
    again = fleet.after_crash()
    saved, before = again.refits.saved(), fleet.refits.saved()
    for each in (saved, before):
        for worker in each["workers"].values():
            del worker["epoch"]
    assert saved == before


def test_what_is_saved_of_workers() -> None:
    """
    Nothing is saved of a worker that is there for one run only, nor of one of which nothing is
    known.
    """
    fleet = Fleet("a")
    fleet.join("u", None)
    passing = fleet.pool.add("http://passing:1", lasting=False)
    fleet.refits.differs(fleet.pool[passing.url])
    assert list(fleet.refits.saved()["workers"]) == ["http://a:1"]


def test_unsure_after_a_restart() -> None:
    """
    After a restart of the router a worker that had something is stale until that is proven; one
    that was at the start is there in any case.
    """
    fleet = Fleet()
    fleet.join("n", "n")
    fleet.make(fleet.disk(), a=TOOK, b=TOOK)
    again = fleet.after_crash()
    assert again.states == "stale stale ready"
    again.refits.proven(again["a"])
    assert again["a"].state == "ready"
    assert again["a"].epoch == 1


def test_all_models_need_a_set() -> None:
    """
    A LoRA set that was kept from before is needed by all models, with a number of its own.
    """
    fleet = Fleet("")
    fleet.refits.inherit(LoraSet().after(X))
    fleet.join("a")
    assert (fleet.epoch, fleet.states) == (1, "stale")
    fleet.refits.given_loras(fleet["a"], fleet.pool.epochs.desired("m"), [X])
    assert fleet["a"].state == "ready"
    assert fleet["a"].actual.torn == NONE
