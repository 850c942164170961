"""
Updates of the fleet's weights, one at a time: what an update does to epochs and workers, step by
step, and what is to be made of one that was interrupted.

Pure: whoever sends the calls tells what came of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from attrs import define, evolve, field

from sgl_droute.fleet.capabilities import Capabilities
from sgl_droute.fleet.checksums import Comparison, Sums
from sgl_droute.fleet.epochs import Model
from sgl_droute.fleet.loras import LoraCall, LoraSet
from sgl_droute.fleet.modules import joined
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refit import Refit, Verdict
from sgl_droute.fleet.weights import Actual, Change, Desired, Update
from sgl_droute.fleet.worker import Worker, same_process

# Workers that left of which it is remembered that nobody knows what they have (count).
MOST_DEPARTED = 1000
# Ended updates that are told of, and bytes of a body that are told.
MOST_HISTORY = 50
_LONGEST_TOLD = 4096
_ACCEPTED = "accepted as the majority has it"


@define(eq=False)
class Refits:
    """
    The updates of the workers of *pool*.

    Attributes:
        sums: By serial, the checksums that a worker told since it was last changed.
        under_way: The one that is going on.
        interrupted: One that a crash of the router broke off, if nobody knows yet what came of it.
        history: Those that have ended, the latest last.
    """

    pool: Pool
    sums: dict[int, Sums] = field(factory=dict, init=False)
    under_way: Refit | None = field(default=None, init=False)
    interrupted: Refit | None = field(default=None, init=False)
    history: deque[Refit] = field(factory=lambda: deque(maxlen=MOST_HISTORY), init=False)
    _observers: list[Callable[[], object]] = field(factory=list, init=False)
    _remembered: dict[str, Actual] = field(factory=dict, init=False)
    _served: dict[str, Capabilities] = field(factory=dict, init=False)
    _departed: dict[str, Actual] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.pool.watch(self._worker_changed)

    def watch(self, observer: Callable[[], object]) -> None:
        """
        Have *observer* called when anything has changed that `saved` tells.
        """
        self._observers.append(observer)

    # An update, from its beginning to its end.

    def begin(
        self,
        change: Change,
        path: str,
        body: bytes,
        mode: str,
        workers: Collection[Worker],
        when: float,
    ) -> Refit:
        """
        Begin an update of *workers*. Nobody is called yet, and until a worker is it goes on with
        what it has.
        """
        epochs = self.pool.epochs
        models = frozenset({worker.capabilities.model for worker in workers} | {None})
        told = body[:_LONGEST_TOLD].decode("utf-8", "replace")
        refit = Refit(change, path, told, mode, when, models)
        refit.before = {model: epochs.desired(model) for model in models}
        self.under_way = refit
        epochs.pending = {worker.serial: epochs.of(worker) for worker in workers}
        self._tell()
        return refit

    def close(self, refit: Refit) -> None:
        """
        Have no worker of the update's models given work until it has ended.
        """
        self.pool.epochs.closed = refit.models
        self.pool.judge()

    def hold(self, worker: Worker) -> None:
        """
        Have *worker* given no more work: its turn has come.
        """
        self.pool.epochs.updating.add(worker.serial)
        self.pool.judge_one(worker)

    def calling(self, refit: Refit, worker: Worker) -> None:
        """
        Note that *worker* is called now, and may take the call from now on.
        """
        refit.outcomes[worker.url] = None
        self.sent(worker)
        self._tell()

    def sent(self, worker: Worker) -> None:
        """
        Note that *worker* is sent a call that changes it. If it was restarted, that goes to the new
        process.
        """

        def after(now: Worker) -> Worker:
            actual = Actual(calls=now.actual.calls) if now.restarted else now.actual
            return evolve(now, restarted=False, actual=actual.called())

        self.pool.change(worker, after)

    def ended_at(self, refit: Refit, then: Worker, verdict: Verdict) -> None:
        """
        Note what came of the call to a worker, whose record was *then* when it was called.
        """
        epochs = self.pool.epochs
        refit.outcomes[then.url] = verdict
        now = self.pool.still(then)
        if verdict is Verdict.TOOK:
            self._raise(refit, now or then)  # it may have told its model meanwhile
        epochs.pending.pop(then.serial, None)
        if verdict not in (Verdict.FAILED, Verdict.EXEMPT):  # it depends on the others
            epochs.updating.discard(then.serial)
        if now is not None and same_process(now, then):
            self.pool.change(now, lambda now: evolve(now, actual=self._after(refit, now, verdict)))
        elif now is not None and now.actual.calls > then.actual.calls and _may_have(verdict):
            # It may be the process that was called still, and may be another one.
            self._tear(refit, now)
        self.pool.judge()
        self._tell()

    def end(self, refit: Refit, seconds: float) -> None:
        """
        The update is over, well or not.
        """
        epochs = self.pool.epochs
        for worker in self.pool:
            failed = refit.outcomes.get(worker.url) is Verdict.FAILED
            model = worker.capabilities.model
            # One that was for none of them was of any when it was called.
            if failed and refit.reached and (model in refit.reached or model not in refit.models):
                self._tear(refit, worker)
            if refit.outcomes.get(worker.url) is Verdict.EXEMPT:
                self._exempt(worker)
        epochs.pending = {}
        epochs.updating = set()
        epochs.closed = frozenset()
        refit.seconds = seconds
        self.under_way = None
        if refit.outcomes:
            self.history.append(refit)
        self.pool.judge()
        self._look_at_interrupted()
        self._tell()

    # Catching up, and proofs.

    def replayed(self, then: Worker, update: Update) -> None:
        """
        Note that a worker took one of the updates that it lacked.
        """
        self._now_has(then, lambda now: now.actual.took(update, self.pool.epochs.of(now)))

    def given_loras(self, then: Worker, desired: Desired, sent: Iterable[LoraCall]) -> None:
        """
        Note that a worker took every LoRA call that was *sent* to it, which gives the set of what
        is *desired*.
        """

        def after(now: Worker) -> Actual:
            actual = now.actual
            for call in sent:
                actual = actual.lora_called(call, None)
            return evolve(actual, loras=desired.loras_number).labelled(self.pool.epochs.of(now))

        self._now_has(then, after)

    def not_replayed(self, then: Worker, change: Change) -> None:
        """
        Note that nobody knows what a worker made of a call that it lacked.
        """
        self._now_has(then, lambda now: change.lost(now.actual, self.pool.epochs.of(now)))

    def proven(self, then: Worker, desired: Desired | None = None) -> None:
        """
        Note that checksums, those in `sums`, have shown that a worker has the *desired* weights;
        by default those that it is to have now.
        """

        def after(now: Worker) -> Actual:
            latest = self.pool.epochs.of(now)
            proven = now.actual.proven(desired or latest, self.sums.get(now.serial, {}))
            return proven.labelled(latest)

        self._now_has(then, after)

    def differs(self, then: Worker) -> None:
        """
        Note that checksums have shown that a worker has other weights than the desired ones.
        """
        self._now_has(then, lambda now: evolve(now.actual, torn=None, epoch=None))

    def begun_anew(self, then: Worker) -> None:
        """
        Note that nothing is known of what a worker has: it is to get all of it.
        """
        self._now_has(then, lambda now: now.actual.begun_anew())

    def refer(self, model: Model, sums: Mapping[str, tuple[str, str]]) -> None:
        """
        Keep checksums that the desired weights of *model* have.
        """
        epochs = self.pool.epochs
        desired = epochs.desired(model)
        known = {**desired.sums, **sums}
        if known != desired.sums:
            epochs.set(model, evolve(desired, sums=known))
            self._tell()

    def compared(self, model: Model, comparison: Comparison) -> None:
        """
        Note what came of comparing the workers of *model* that seemed to have what is desired.
        """
        for url in comparison.differing:
            if url in self.pool:
                self.differs(self.pool[url])
        self.refer(model, comparison.known)

    # What a crash of the router broke off.

    def roll_forward(self) -> None:
        """
        Count the interrupted update as taken: whoever has not taken it catches up.
        """
        refit = self._settle("rolled forward after a restart of the router")
        for model in refit.models:
            self._raise_one(refit, model)
        self.pool.judge()

    def void(self) -> None:
        """
        Count the interrupted update as never made: it cannot be.
        """
        self._settle("refused when it was sent once more")

    def retried(self) -> None:
        """
        Note that workers have taken the interrupted update, which was sent once more.
        """
        if self.interrupted is not None:
            self._settle("sent once more")

    def abandon(self) -> None:
        """
        Count the interrupted update as never made; the workers that may have taken it get no work
        until they are restarted.
        """
        for url in self._settle("abandoned").unfinished:
            if url in self.pool:
                self._strand(self.pool[url])

    def accept(
        self,
        model: Model,
        agreeing: Iterable[str],
        sums: Mapping[str, tuple[str, str]],
        *,
        changed: bool,
    ) -> None:
        """
        Take what the *agreeing* workers of *model*, known by their URLs, have for the truth.

        Args:
            sums: Their checksums.
            changed: Whether that is something else than was desired so far, for all that is known:
                then it has an epoch of its own.
        """
        epochs, refit = self.pool.epochs, self.interrupted
        desired, agreeing = epochs.desired(model), set(agreeing)
        if any(w.actual.current(desired) for w in self.pool if w.url in agreeing):
            changed = False
        if changed and refit is not None and model in refit.models:
            self._raise_one(refit, model)
        elif changed:
            epochs.set(model, evolve(desired, epoch=desired.next))
            for worker in self.pool:
                if worker.capabilities.model == model and worker.url not in agreeing:
                    self.differs(worker)
        for url in agreeing:
            if url in self.pool:
                self.proven(self.pool[url])
        desired = epochs.desired(model)
        epochs.set(model, evolve(desired, sums=sums))
        self.pool.judge()
        self._look_at_interrupted(_ACCEPTED)
        self._tell()

    # What survives a restart.

    def saved(self, *, going_on: bool = False) -> dict[str, Any]:
        """
        It as a JSON object, `Pool.epochs` and what workers have included.

        Args:
            going_on: Whether more may come of which a crash of the router leaves nothing.
        """
        begun = self.under_way or self.interrupted
        return {
            **self.pool.epochs.saved(),
            "workers": {
                worker.url: {
                    **worker.actual.saved(),
                    "model": worker.capabilities.model,
                    "names": sorted(worker.capabilities.names),
                }
                for worker in self.pool
                if (worker.actual != Actual() or worker.capabilities.model) and worker.lasting
            },
            "departed": {url: actual.saved() for url, actual in self._departed.items()},
            "begun": begun and begun.saved(),
            "going_on": going_on,
            "history": [refit.saved() for refit in self.history],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """
        Know again what `saved` gave; before any worker is registered. An update that was under way
        is over if any worker took it: the others catch up. If none is known to have, it is
        `interrupted`.
        """
        epochs = self.pool.epochs
        epochs.restore(saved)
        begun = saved["begun"] and Refit.restored(saved["begun"])
        if saved["going_on"]:
            for model in {*epochs.models(), *(begun.models if begun else ())}:
                epochs.set(model, epochs.desired(model).after_a_crash())
        self.history.extend(Refit.restored(each) for each in saved["history"])
        for url, each in saved["workers"].items():
            if not isinstance(each["model"], str | None):
                raise TypeError(f"{each['model']!r} is no model")
            self._remembered[url] = Actual.restored(each)
            self._served[url] = Capabilities(model=each["model"], names=frozenset(each["names"]))
        for url, each in saved.get("departed", {}).items():
            self._departed[url] = Actual.restored(each)
        if begun is None:
            return
        refit: Refit = begun
        refit.before = {model: self.pool.epochs.desired(model) for model in refit.models}
        for url in refit.unfinished:
            actual = self._remembered.get(url, Actual(sure=False))
            self._remembered[url] = refit.change.lost(actual, self.pool.epochs.inherited)
        if refit.reached or not refit.unfinished:
            refit.note = "interrupted by a restart of the router"
            self.history.append(refit)
        else:
            self.interrupted = refit

    def inherit(self, loras: LoraSet) -> None:
        """
        Have all models need a LoRA set; before any worker is registered.
        """
        epochs = self.pool.epochs
        number = epochs.next_number()
        epochs.inherited = evolve(
            epochs.inherited, epoch=epochs.inherited.epoch + 1, loras=loras, loras_number=number
        )

    def all_back(self) -> None:
        """
        Note that all workers that were saved are registered again.
        """
        for url, actual in self._remembered.items():
            self._keep_in_mind(url, actual)
        self._remembered.clear()
        self._served.clear()
        self.pool.judge()
        self._look_at_interrupted()

    def _raise(self, refit: Refit, worker: Worker) -> None:
        model = worker.capabilities.model
        before = len(refit.reached)
        for each in refit.models if model is None else (model, None):
            self._raise_one(refit, each)
        if model is None:
            self._inherit(refit)
        if len(refit.reached) != before:
            self.pool.judge()

    def _raise_one(self, refit: Refit, model: Model) -> None:
        epochs = self.pool.epochs
        before = epochs.desired(model)
        if model in refit.reached or before.has(refit.change):
            return
        refit.before = {**refit.before, model: before}
        desired = refit.change.desired(before)
        if desired is not before:
            epochs.set(model, desired)
            refit.reached[model] = desired.epoch
            self._supersede(refit, model)

    def _inherit(self, refit: Refit) -> None:
        """
        A worker took it that may be of any model, also of one that nobody has told of yet.
        """
        epochs = self.pool.epochs
        if epochs.inherited.has(refit.change):
            return
        for model in {worker.capabilities.model for worker in self.pool}:
            epochs.set(model, epochs.desired(model))
        epochs.inherited = refit.change.desired(epochs.inherited)

    def _supersede(self, refit: Refit, model: Model) -> None:
        """
        What was interrupted cannot follow upon what came later.
        """
        before = self.interrupted
        if before is None or type(before.change) is not type(refit.change):
            return
        if model in (before.models - {None} or before.models):
            self._settle(_ACCEPTED if before is refit else "followed by another one")

    def _after(self, refit: Refit, worker: Worker, verdict: Verdict) -> Actual:
        change, actual = refit.change, worker.actual
        now = self.pool.epochs.desired(worker.capabilities.model)
        if verdict is Verdict.TOOK:
            before = refit.before.get(worker.capabilities.model, now)
            return change.took(actual, before, now)
        if verdict is Verdict.LOST:
            return change.lost(actual, now)
        return actual if verdict is Verdict.EXEMPT else change.refused(actual)

    def _tear(self, refit: Refit, worker: Worker) -> None:
        desired = self.pool.epochs.desired(worker.capabilities.model)
        self.pool.change(
            worker, lambda now: evolve(now, actual=refit.change.lost(now.actual, desired))
        )

    def _exempt(self, worker: Worker) -> None:
        desired = self.pool.epochs.desired(worker.capabilities.model)
        loras = desired.loras_number
        self.pool.change(
            worker,
            lambda now: evolve(now, actual=evolve(now.actual, loras=loras).labelled(desired)),
        )

    def _now_has(self, then: Worker, after: Callable[[Worker], Actual]) -> None:
        now = self.pool.still(then)
        if now is not None and same_process(now, then):
            self.pool.change(now, lambda now: evolve(now, actual=after(now)))
            self._look_at_interrupted()
            self._tell()

    def _learned(self, before: Worker, worker: Worker) -> None:
        """
        *worker* has said what it serves: what it took *before* may not be for that.
        """
        epochs, model, refit = self.pool.epochs, worker.capabilities.model, self.under_way
        others = epochs.of(before).updates
        if worker.serial in epochs.pending and refit is not None:
            epochs.pending[worker.serial] = refit.before.get(model, epochs.desired(model))
        desired = epochs.of(worker)
        foreign = joined(each.modules for each in others if each.number not in desired.numbers)

        def after(now: Worker) -> Worker:
            actual = now.actual
            if not (actual.calls or actual.has) and actual.loras == 0:
                return now  # it is at the start of any model
            actual = evolve(actual, torn=joined((actual.torn, foreign)))
            return evolve(now, actual=actual.labelled(desired))

        self.pool.change(worker, after)

    def _strand(self, worker: Worker) -> None:
        self.pool.change(
            worker, lambda now: evolve(now, actual=evolve(now.actual, stranded=True, sure=True))
        )

    def _settle(self, note: str) -> Refit:
        refit = self.interrupted
        assert refit is not None
        refit.note = note
        self.interrupted = None
        self.history.append(refit)
        self._tell()
        return refit

    def _look_at_interrupted(self, note: str = "made good") -> None:
        refit = self.interrupted
        if refit is None or self._remembered:
            return
        workers = (self.pool[url] for url in refit.unfinished if url in self.pool)
        if all(worker.actual.known for worker in workers):
            self._settle(note)

    def _departs(self, worker: Worker) -> None:
        """
        *worker* leaves: what comes to its place may be the same process.
        """
        actual, refit = worker.actual, self.under_way
        if refit is not None and worker.url in refit.unfinished:
            actual = refit.change.lost(actual, self.pool.epochs.of(worker))
        if not worker.restarted:
            self._keep_in_mind(worker.url, actual)

    def _keep_in_mind(self, url: str, actual: Actual) -> None:
        """
        Remember that nobody knows what the worker at *url* has, if that is so.
        """
        if not actual.known:
            self._departed[url] = evolve(actual, sure=False)
            while len(self._departed) > MOST_DEPARTED:
                del self._departed[next(iter(self._departed))]

    def _tell(self) -> None:
        for observer in self._observers:
            observer()

    def _worker_changed(self, before: Worker | None, now: Worker | None) -> None:
        if before is None and now is not None:
            departed = self._departed.pop(now.url, None)
            actual = self._remembered.pop(now.url, departed)
            served = self._served.get(now.url, now.capabilities)
            if actual is not None:
                self.pool.change(now, lambda now: evolve(now, actual=actual, capabilities=served))
            return
        assert before is not None
        if now is None:
            self._departs(before)
            self.pool.epochs.forget(before.serial)
        elif before.capabilities.model != now.capabilities.model and not self._served:
            self._learned(before, now)
        if now is None or before.actual != now.actual:
            if now is None or _changed(before.actual, now.actual):
                self.sums.pop(before.serial, None)
            self._look_at_interrupted()
            self._tell()


def _may_have(verdict: Verdict) -> bool:
    """
    Whether a worker may have done what it was told.
    """
    return verdict in (Verdict.TOOK, Verdict.LOST)


def _changed(before: Actual, now: Actual) -> bool:
    """
    Whether a worker may have other weights now.
    """
    return (before.calls, before.torn, before.has - now.has) != (now.calls, now.torn, frozenset())
