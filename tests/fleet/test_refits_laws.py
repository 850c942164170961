"""
What holds for weights whatever happens, in whatever order: a worker that gets work has what its
epoch says.

Workers here are dictionaries that do what real ones do; the router's part of the fleet's memory and
the catching up are the real ones. Left out, as nothing can be known of them: a lost call that a
worker carries out after the next one that it answers, what an operator accepts by `accept`, and a
worker that answers 500 to an update that nobody else took, which counts as not taken.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping
from copy import deepcopy
from typing import Any

from attrs import define, evolve, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sgl_droute.errors import Disconnected
from sgl_droute.fleet.capabilities import Capabilities
from sgl_droute.fleet.checksums import Weighed, compared
from sgl_droute.fleet.epochs import worked_at
from sgl_droute.fleet.loras import MERGE, SET, UNMERGE, LoraCall
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.refit import Refit, Verdict
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.weights import DISK, TENSOR, Adaptation, Change, Update, modules_of
from sgl_droute.fleet.worker import Probe, Worker, quarantined, same_process
from sgl_droute.workers.broadcast import Result
from sgl_droute.workers.catchup import Behind, CatchUp

GOOD = Probe(healthy=True)
PARTS = ("transformer", "vae")
TARGETS = ("transformer", "transformer_2")
MODELS = {"a": "A", "b": "A", "c": "A", "d": "B", "e": "B"}
NAMES = st.sampled_from(sorted(MODELS))
VERDICTS = st.sampled_from(
    [Verdict.TOOK] * 4 + [Verdict.REFUSED, Verdict.FAILED, Verdict.LOST, Verdict.LOST]
)
UPSETS = (
    "late",
    "late",
    "removed",
    "lapsed",
    "silent",
    "quarantined",
    "barred",
    "disabled",
    "enabled",
    "enabled",
    "asleep",
    "awake",
    "awake",
)
# How much of a call a worker did, where nobody knows that; "later" is all of it.
DEEDS = st.sampled_from(["nothing", "some", "all", "later"])
OUTCOMES = st.one_of(
    st.just(dict.fromkeys(MODELS, (Verdict.TOOK, "all"))),
    st.fixed_dictionaries({name: st.tuples(VERDICTS, DEEDS) for name in MODELS}),
)

State = tuple[dict[str, str], dict[str, str]]


def url_of(name: str) -> str:
    return f"http://{name}:1"


@define(eq=False)
class Process:
    """
    What a worker truly has.
    """

    model: str
    parts: dict[str, str] = field(factory=dict)
    adapters: dict[str, tuple[str, bool]] = field(factory=dict)
    wrapped: bool = False
    asleep: bool = False
    late: list[Change] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.parts = dict.fromkeys(PARTS, f"{self.model}0")

    def reach(self) -> None:
        """
        Do what is still in its queue.
        """
        for change in self.late:
            self.do(change)
        self.late = []

    def do(self, change: Change, *, partly: bool = False) -> None:
        if isinstance(change, Update):
            for part in PARTS[:1] if partly else PARTS:
                if change.modules is None or {part, ""} & change.modules:
                    self.parts[part] = label_of(change)
            return
        call, self.wrapped = change.call, True
        for target in TARGETS[:1] if partly else TARGETS:
            if not {target, "all"} & call.targets:
                continue
            if call.path == SET:
                self.adapters[target] = (str(call.body["lora_nickname"]), True)
            elif target in self.adapters:
                self.adapters[target] = (self.adapters[target][0], call.path == MERGE)

    @property
    def state(self) -> State:
        return dict(self.parts), {at: name for at, (name, on) in self.adapters.items() if on}

    @property
    def sums(self) -> dict[str, str]:
        on = self.state[1].get("transformer", "")
        names = ".lora" if self.wrapped else ""
        return {**self.parts, "transformer": f"{self.parts['transformer']}{names} {on}"}


def label_of(update: Update) -> str:
    return update.source or f"tensors {update.body.decode()}"


def adapters_of(changes: Iterable[Change]) -> set[str]:
    """
    The targets for which *changes* set adapters.
    """
    calls = [each.call for each in changes if isinstance(each, Adaptation)]
    targets = [call.targets for call in calls if call.path == SET]
    return {at for at in TARGETS if any({at, "all"} & each for each in targets)}


class Pause:
    """
    A wait during which anything may happen.
    """

    def __await__(self) -> Generator[None, None, None]:
        yield


@define(eq=False)
class Wire:
    """
    Sends calls of a catch-up to processes; they go as `deeds` say.
    """

    processes: Mapping[str, Process]
    outcome: tuple[Verdict, str] = (Verdict.TOOK, "all")

    async def update(self, worker: Worker, update: Update) -> Result:
        return await self._send(worker, update)

    async def adapt(self, worker: Worker, call: LoraCall) -> Result:
        return await self._send(worker, Adaptation(0, call))

    async def checksums(self, worker: Worker) -> Mapping[str, str]:
        process = self.processes[worker.url]
        process.reach()
        sums = process.sums
        await Pause()
        if self.outcome[0] is Verdict.LOST or self.processes[worker.url] is not process:
            raise Disconnected(worker.url, "cut")
        return sums

    async def _send(self, worker: Worker, change: Change) -> Result:
        process = self.processes[worker.url]
        process.reach()
        await Pause()
        verdict, deed = self.outcome
        if self.processes[worker.url] is not process:
            verdict, deed = Verdict.LOST, "nothing"
        if process.asleep:
            verdict = Verdict.REFUSED
        carry_out(process, change, verdict, deed)
        return {
            Verdict.TOOK: Result(worker.url, 200, {"success": True}),
            Verdict.REFUSED: Result(worker.url, 400, {"success": False}),
            Verdict.FAILED: Result(worker.url, 500, {}),
            Verdict.LOST: Result(worker.url, 502, {}, answered=False, unknown=True),
        }[verdict]


def carry_out(process: Process, change: Change, verdict: Verdict, deed: str) -> None:
    """
    What a worker does of whose call that is known.
    """
    if verdict is Verdict.TOOK or (verdict in (Verdict.FAILED, Verdict.LOST) and deed == "all"):
        process.do(change)
    elif isinstance(change, Adaptation):
        process.wrapped = True
    if verdict in (Verdict.FAILED, Verdict.LOST) and deed == "some":
        process.do(change, partly=True)
    if verdict is Verdict.LOST and deed == "later":
        process.late.append(change)


class Nobody:
    """
    No request is outstanding.
    """

    async def none(self, worker: Worker) -> None:
        await Pause()


@define(eq=False)
class Sending:
    """
    An update under way.
    """

    refit: Refit
    change: Change  # with the label of its tensors
    workers: list[Worker]
    rolling: bool
    todo: dict[str, tuple[Verdict, str]]
    called: dict[str, tuple[Worker, Process]] = field(factory=dict)


@define(eq=False)
class Bringing:
    """
    A catch-up under way.
    """

    worker: Worker
    steps: Any
    desired: Any


class RefitsMachine(RuleBasedStateMachine):
    """
    Any order of updates, failures, restarts and crashes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.processes: dict[str, Process] = {}
        self.wire = Wire(self.processes)
        self.requests: list[tuple[Worker, Process, State]] = []
        self.tensors: dict[int, bytes] = {}
        self.states: dict[str, list[State]] = {
            model: [Process(model).state] for model in ("A", "B")
        }
        self.logs: dict[str, list[Change]] = {"A": [], "B": []}
        self._start()
        self._write()

    def _start(self) -> None:
        self.pool = Pool()
        self.refits = Refits(self.pool)
        self.catch_up = CatchUp(
            self.refits,
            self.wire,  # type: ignore[arg-type]
            Nobody(),  # type: ignore[arg-type]
            self._written,
        )
        self.sending: Sending | None = None
        self.bringing: dict[int, Bringing] = {}

    @initialize(unknown=st.sets(NAMES, max_size=2), missing=st.sets(NAMES, max_size=2))
    def a_fleet(self, unknown: set[str], missing: set[str]) -> None:
        for name in sorted(set(MODELS) - missing):
            self.register(name)
            self.check(name)
            if name not in unknown:
                self.learn(name)
        self._write()

    def teardown(self) -> None:
        self._round_trip()
        self._stop()

    def _stop(self) -> None:
        for bringing in self.bringing.values():
            bringing.steps.close()

    # The router's file.

    def _write(self) -> None:
        self.disk = json.dumps(self.refits.saved())
        self.listed = [(each.url, each.dead, each.asleep, each.disabled) for each in self.pool]

    async def _written(self) -> None:
        await Pause()
        self._write()

    @rule()
    def write(self) -> None:
        self._write()

    def _round_trip(self) -> None:
        """
        What is read back is what was written, apart from what is only known for a process that was
        there all the time.
        """
        saved = json.loads(json.dumps(self.refits.saved()))
        again = Refits(Pool())
        again.restore(saved)
        for worker in self.pool:
            again.pool.add(worker.url)
        told = json.loads(json.dumps(again.saved()))
        unfinished = again.interrupted.unfinished if again.interrupted else []
        for each in [*saved["workers"].values(), *told["workers"].values()]:
            each["epoch"] = None  # which process is there is to be seen
        if saved["begun"] is None:
            assert told == saved
        assert set(unfinished) <= set((saved["begun"] or {}).get("outcomes", ()))
        assert told["models"] == saved["models"]
        assert told["number"] == saved["number"]

    @rule(restarted=st.sets(NAMES))
    def crash(self, restarted: set[str]) -> None:
        self._round_trip()
        self._stop()
        if self.sending is not None:
            for url, (_, process) in self.sending.called.items():
                verdict, deed = self.sending.todo[url]
                carry_out(process, self.sending.change, verdict, deed)
        saved, listed = self.disk, self.listed
        self._start()
        self.refits.restore(json.loads(saved))
        for name in restarted & {name for name in MODELS if url_of(name) in self.processes}:
            self.processes[url_of(name)] = Process(MODELS[name])
        for url, dead, asleep, disabled in listed:
            worker = self.pool.add(url)
            if dead:
                self.pool.change(worker, lambda now: quarantined(now, "dead"))
            self.pool.change(
                worker,
                lambda now, asleep=asleep, disabled=disabled: evolve(  # type: ignore[misc]
                    now, asleep=asleep, disabled=disabled
                ),
            )
        self.refits.all_back()
        for model, states in self.states.items():
            epoch = self.pool.epochs.desired(model).epoch
            assert epoch < len(states)
            del states[epoch + 1 :], self.logs[model][epoch:]
        self.requests.clear()
        self._write()

    # Workers.

    @rule(name=NAMES, what=st.sampled_from(UPSETS))
    def upset(self, name: str, what: str) -> None:
        url = url_of(name)
        if url not in self.pool:
            self.register(name)
        elif what == "late":
            self.processes[url].reach()
        elif what == "removed":
            self.pool.remove(url)
        elif what == "lapsed":
            self._checked(url, Probe(healthy=False, silent=True, gone=True))
        elif what == "silent":
            self._checked(url, Probe(healthy=False, silent=True))
        elif what in ("quarantined", "barred"):
            barred = what == "barred"
            self.pool.change(self.pool[url], lambda now: quarantined(now, "so", barred=barred))
        elif what in ("disabled", "enabled"):
            disabled = what == "disabled"
            self.pool.change(self.pool[url], lambda now: evolve(now, disabled=disabled))
        elif self.sending is None:
            asleep = what == "asleep"
            self.processes[url].asleep = asleep
            self.pool.change(self.pool[url], lambda now: evolve(now, asleep=asleep))

    def register(self, name: str) -> None:
        self.processes[url_of(name)] = Process(MODELS[name])
        self.pool.add(url_of(name))

    @rule(name=NAMES, how=st.sampled_from(["gone", "refused", "registered", "lapsed"]))
    def restart(self, name: str, how: str) -> None:
        url = url_of(name)
        if url not in self.pool:
            return
        self.processes[url] = Process(MODELS[name])
        if how == "registered":
            self.pool.add(url)
        elif how == "lapsed":
            self.pool.record_lapse(self.pool[url], restarted=True)
        else:
            bad = Probe(healthy=False, silent=True, gone=True, refused=how == "refused")
            self._checked(url, bad)
            self.pool.record_lapse(self.pool[url])

    def check(self, name: str) -> None:
        if url_of(name) in self.pool:
            self._checked(url_of(name), GOOD)

    @rule(silent=st.sets(NAMES, max_size=3), unknown=st.sets(NAMES, max_size=1))
    def check_all(self, silent: set[str], unknown: set[str]) -> None:
        for name in sorted(set(MODELS) - silent):
            worker = self._at(name)
            if worker is not None and worker.barred:
                self.restart(name, "registered")
            self.check(name)
            self.check(name)
            if name not in unknown:
                self.learn(name)

    def learn(self, name: str) -> None:
        worker = self._at(name)
        if worker is not None and not worker.lapsed:
            model = MODELS[name]
            self.pool.record_capabilities(
                worker, Capabilities(frozenset({"image"}), model, frozenset({model}))
            )

    def _at(self, name: str) -> Worker | None:
        here = url_of(name) in self.pool
        return self.pool[url_of(name)] if here else None

    def _checked(self, url: str, probe: Probe) -> None:
        self.pool.record_probe(self.pool[url], probe, threshold=3, readmit=2)

    # Updates.

    @precondition(lambda self: self.sending is None and len(self.pool) > 0)
    @rule(
        path=st.sampled_from([DISK, DISK, TENSOR]),
        modules=st.sampled_from([None, None, ["transformer"], ["vae"]]),
        outcomes=OUTCOMES,
        mode=st.sampled_from(["broadcast", "fenced", "rolling"]),
        whole=st.booleans(),
        name=st.sampled_from([None, None, "A", "B"]),
    )
    def update(
        self, path: str, modules: Any, outcomes: Any, mode: str, whole: bool, name: Any
    ) -> None:
        number = self.pool.epochs.next_number()
        fields = {"target_modules": modules} if modules else {}
        if path == DISK:
            body = json.dumps({"model_path": f"p{number}.{len(self.tensors)}", **fields}).encode()
            change = Update(number, path, body, modules_of(path, fields))
        else:
            change = Update(number, path, b"", modules_of(path, fields))
        self._begin(change, outcomes, mode, name)
        if whole and self.sending:
            self.go_on([*range(5)], True)

    @precondition(lambda self: self.sending is None and len(self.pool) > 0)
    @rule(
        path=st.sampled_from([SET, SET, SET, MERGE, UNMERGE]),
        nickname=st.sampled_from("xyz"),
        part=st.sampled_from(["all", "all", *TARGETS]),
        outcomes=OUTCOMES,
        mode=st.sampled_from(["broadcast", "fenced", "rolling"]),
        whole=st.booleans(),
    )
    def adapt(
        self, path: str, nickname: str, part: str, outcomes: Any, mode: str, whole: bool
    ) -> None:
        body = {"target": part}
        if path == SET:
            body |= {"lora_nickname": nickname, "lora_path": f"p/{nickname}"}
        elif path == MERGE and not self._set(part):
            path = UNMERGE
        number = self.pool.epochs.next_number()
        self._begin(Adaptation(number, LoraCall(path, body)), outcomes, mode, None)
        if whole and self.sending:
            self.go_on([*range(5)], True)

    def _set(self, part: str) -> bool:
        """
        Whether all that a merge of *part* is for has been set by all workers: another one could
        have an adapter there, switched off, that it never should have got.
        """
        wanted = {part} if part in TARGETS else set(TARGETS)
        return all(wanted <= adapters_of(log) for log in self.logs.values())

    @precondition(lambda self: self.sending is None and self.refits.interrupted)
    @rule(outcomes=OUTCOMES, abandon=st.booleans())
    def resolve(self, outcomes: Any, abandon: bool) -> None:
        refit = self.refits.interrupted
        assert refit is not None
        if abandon:
            self.refits.abandon()
            return
        if isinstance(refit.change, Update) and not refit.change.replayable:
            return
        change = evolve(refit.change, number=self.pool.epochs.next_number())
        self._begin(change, outcomes, "broadcast", None, only=refit.unfinished)

    def _begin(
        self, change: Change, outcomes: Any, mode: str, name: Any, only: list[str] | None = None
    ) -> None:
        workers = [
            worker
            for worker in self.pool
            if worker.takes_orders
            and not worker.disabled
            and (name is None or worker.capabilities.may_be(name))
            and (only is None or worker.url in only)
        ]
        if not workers:
            return
        todo = {worker.url: outcomes[worker.url[7]] for worker in workers}
        body = change.body if isinstance(change, Update) else b"{}"
        refit = self.refits.begin(change, "/path", body, mode, workers, 1.0)
        if isinstance(change, Update) and not change.replayable:
            self.tensors[change.number] = b"%d" % len(self.tensors)
            change = evolve(change, body=self.tensors[change.number])
        self.sending = Sending(refit, change, workers, mode == "rolling", todo)
        if mode == "fenced":
            self.refits.close(refit)
        self._write()
        if mode != "rolling":
            for worker in workers:
                self.refits.hold(worker)

    @precondition(lambda self: self.sending is not None and self.sending.workers)
    @rule(pick=st.integers(0, 4))
    def call(self, pick: int) -> None:
        sending = self.sending
        assert sending is not None
        worker = sending.workers[pick % len(sending.workers)]
        self.refits.hold(worker)
        if worker.serial in self.bringing:
            return
        sending.workers.remove(worker)
        then = self.pool.still(worker)
        if then is None or not then.takes_orders:
            self.pool.epochs.forget(worker.serial)
            self.pool.judge_one(worker)
            return
        self.refits.calling(sending.refit, then)
        self._write()
        process = self.processes[worker.url]
        process.reach()
        sending.called[worker.url] = (then, process)

    @precondition(lambda self: self.sending is not None)
    @rule(order=st.permutations(range(5)), end=st.booleans())
    def go_on(self, order: list[int], end: bool) -> None:
        """Carry the update on, to its end if no catch-up stands in its way."""
        sending = self.sending
        assert sending is not None
        for pick in order:
            if sending.workers:
                self.call(pick)
                self._note_epochs()
        if end and not sending.workers:
            for pick in order:
                if sending.called:
                    self.answer(pick)
                    self._note_epochs()
            self.end()

    @precondition(lambda self: self.sending is not None and self.sending.called)
    @rule(pick=st.integers(0, 4))
    def answer(self, pick: int) -> None:
        sending = self.sending
        assert sending is not None
        url = sorted(sending.called)[pick % len(sending.called)]
        then, process = sending.called.pop(url)
        verdict, deed = sending.todo[url]
        if process.asleep:
            verdict = Verdict.REFUSED
        if self.processes.get(url) is not process and verdict is not Verdict.TOOK:
            verdict = Verdict.LOST
        if verdict is Verdict.FAILED and not self._some_take(sending):
            deed = "nothing"
        carry_out(process, sending.change, verdict, deed)
        self.refits.ended_at(sending.refit, then, verdict)

    @staticmethod
    def _some_take(sending: Sending) -> bool:
        """
        Whether somebody of each model has taken it by now: no one else need.
        """
        return sending.refit.models <= set(sending.refit.reached)

    @precondition(lambda self: self.sending and not (self.sending.workers or self.sending.called))
    @rule()
    def end(self) -> None:
        assert self.sending is not None
        self.refits.end(self.sending.refit, 1.0)
        self.sending = None

    @precondition(lambda self: self.sending is None)
    @rule(model=st.sampled_from([None, "A", "B"]), silent=st.sets(NAMES))
    def verify(self, model: str | None, silent: set[str]) -> None:
        weighed = []
        for worker in self.pool:
            asked = worker.capabilities.model == model and not (worker.dead or worker.stale)
            if asked and worker.url[7] not in silent:
                process = self.processes[worker.url]
                process.reach()
                self.refits.sums[worker.serial] = process.sums
                weighed.append(Weighed(worker.url, process.sums, worker.actual.history))
        if weighed:
            self.refits.compared(model, compared(weighed))

    # Catching up, as `sgl_droute.workers.readiness` has it done.

    @rule(name=NAMES)
    def bring(self, name: str) -> None:
        worker = self._at(name)
        if worker is None or worker.serial in self.bringing or not self._behind(worker):
            return
        if worker.capabilities.model is None:
            self.learn(name)
        desired = self.pool.epochs.of(worker)
        steps = self.catch_up.bring(worker)
        self.bringing[worker.serial] = Bringing(worker, steps, desired)

    @precondition(lambda self: self.bringing)
    @rule(
        pick=st.integers(0, 4),
        outcome=st.tuples(VERDICTS, DEEDS),
        steps=st.sampled_from([1, 1, 2, 10]),
    )
    def step(self, pick: int, outcome: tuple[Verdict, str], steps: int) -> None:
        serial = sorted(self.bringing)[pick % len(self.bringing)]
        bringing = self.bringing[serial]
        for _ in range(steps):
            self.wire.outcome = outcome if steps == 1 else (Verdict.TOOK, "all")
            if not self._step(bringing):
                return

    @rule()
    def recover(self) -> None:
        """Have all well that can be."""
        self.check_all(set(), set())
        self.wire.outcome = (Verdict.TOOK, "all")
        for bringing in list(self.bringing.values()):
            while self._step(bringing):
                pass
        if self.sending is not None:
            self.go_on([*range(5)], True)
        for name in MODELS:
            if self._at(name) is not None:
                self.upset(name, "enabled")
                self.upset(name, "awake")
        self.bring_all(set())

    @rule(but=st.sets(NAMES, max_size=1))
    def bring_all(self, but: set[str]) -> None:
        """Have all that are behind brought up to date, without any failure."""
        self.wire.outcome = (Verdict.TOOK, "all")
        for name in sorted(set(MODELS) - but):
            self.bring(name)
            worker = self._at(name)
            bringing = None if worker is None else self.bringing.get(worker.serial)
            while bringing is not None and self._step(bringing):
                pass

    def _step(self, bringing: Bringing) -> bool:
        """Whether there is more to do."""
        serial = bringing.worker.serial
        try:
            bringing.steps.send(None)
        except StopIteration:
            del self.bringing[serial]
            now = self.pool.still(bringing.worker)
            assert now is not None
            if self.pool.epochs.of(now) is bringing.desired:
                assert not now.stale, "it would be brought up to date again, for ever"
            return False
        except Behind:
            del self.bringing[serial]
            return False
        finally:
            self._note_epochs()
        return True

    def _behind(self, worker: Worker) -> bool:
        held = self.sending is not None and worker.url in self.sending.todo
        return worker.stale and worker.takes_orders and not worker.lapsed and not held

    # Requests.

    @rule(name=NAMES)
    def request(self, name: str) -> None:
        worker = self._at(name)
        if worker is not None and worker.eligible:
            process = self.processes[worker.url]
            self.requests.append((worker, process, process.state))

    @precondition(lambda self: self.requests)
    @rule(pick=st.integers(0, 100))
    def answer_request(self, pick: int) -> None:
        """
        The stamp names what the worker had, alone if it had nothing else meanwhile.
        """
        then, process, state = self.requests.pop(pick % len(self.requests))
        now = self.pool.still(then)
        stamp = worked_at(then, now)
        epoch = stamp.split("-")[0]
        model = MODELS[then.url[7]]
        if then.capabilities.model is not None:
            assert self.states[model][int(epoch)] == state
        same = self.processes.get(then.url) is process
        if same and now is not None and same_process(now, then) and process.state != state:
            assert stamp != epoch

    # What holds.

    @invariant()
    def epochs_are_what_was_taken(self) -> None:
        self._note_epochs()

    def _note_epochs(self) -> None:
        """
        Follow what is desired, and see that a worker just started would get it.
        """
        for model, states in self.states.items():
            desired = self.pool.epochs.desired(model)
            new = desired.epoch - len(states) + 1
            assert 0 <= new <= 1
            if new:
                log = self.logs[model]
                change = self._raised(desired.numbers, desired.loras_number, log)
                log.append(change)
                fresh = Process(model)
                for each in sorted(log, key=lambda each: each.number):
                    fresh.do(self._labelled(each))
                states.append(fresh.state)
            fresh = Process(model)
            for update in desired.updates:
                fresh.do(self._labelled(update))
            for call in desired.loras.calls:
                fresh.do(Adaptation(0, call))
            assert fresh.state == states[-1]
            for later, update in enumerate(desired.updates, 1):
                for other in desired.updates[later:]:
                    assert other.modules is not None
                    assert update.modules is None or not update.modules <= other.modules

    def _raised(self, numbers: frozenset[int], loras: int, log: list[Change]) -> Change:
        known = {change.number for change in log}
        refits = [self.refits.under_way, self.refits.interrupted, *reversed(self.refits.history)]
        for refit in refits:
            if refit is not None and refit.change.number in (numbers | {loras}) - known:
                return refit.change
        raise AssertionError("the epoch went up and no change was made")

    def _labelled(self, change: Change) -> Change:
        if isinstance(change, Update) and not change.replayable:
            return evolve(change, body=self.tensors[change.number])
        return change

    @invariant()
    def the_eligible_have_what_their_epoch_says(self) -> None:
        for worker in self.pool:
            model = worker.capabilities.model
            if worker.eligible and model is not None:
                process = self.processes[worker.url]
                assert worker.epoch is not None
                assert process.state == self.states[model][worker.epoch], worker.url
                assert not process.late or _settled(process), worker.url


def _settled(process: Process) -> bool:
    """
    Whether what is in its queue would change nothing.
    """
    then = deepcopy(process)
    then.reach()
    return then.state == process.state


RefitsMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestRefitsMachine = RefitsMachine.TestCase
