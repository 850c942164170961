"""
All scenarios, one after the other; within each the proxies take turns, round by round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from json import loads

from attrs import define, evolve, field

from bench.harness.overhead.figures import Hold, Outcome, Result, Sample
from bench.harness.overhead.procfs import Usage
from bench.harness.overhead.programs import Program, ProgramFailed
from bench.harness.overhead.proxies import Ground, Proxy, started
from bench.harness.overhead.scenarios import Scenario
from bench.harness.overhead.waiting import waiting
from bench.harness.overhead.wrk import run_wrk

_WARMUP = 1
_LOOK_EVERY = 0.5


@define(eq=False)
class Measure:
    """
    Measures *proxies* on *ground*.

    Args:
        seconds: Of one measurement.
        rounds: Measurements of each proxy in each scenario (count).
        hold: Seconds that the most requests are held open.
        say: Takes a line for the user.
    """

    ground: Ground
    proxies: Sequence[Proxy]
    seconds: int
    rounds: int
    hold: float
    say: Callable[[str], object]

    def run(self, scenarios: Sequence[Scenario]) -> Outcome:
        """
        All *scenarios*. What fails is told in the results, and the rest goes on.
        """
        outcome = Outcome()
        for scenario in scenarios:
            self.say(f"{scenario.name} ...")
            if scenario.group == "hold":
                outcome = evolve(outcome, holds=self._holds(scenario))
            else:
                results = (*outcome.results, *self._results(scenario))
                outcome = evolve(outcome, results=results)
        return outcome

    def _results(self, scenario: Scenario) -> list[Result]:
        with ExitStack() as closing:
            turns = [_Turns(self.ground, scenario, proxy.name) for proxy in self.proxies]
            for turn, proxy in zip(turns, self.proxies, strict=True):
                turn.start(closing, proxy)
            if scenario.window is not None:
                _measure_idle(turns, scenario.window)
            for _ in range(self.rounds):
                for turn in turns:
                    turn.take(scenario.window or self.seconds)
            return [turn.result for turn in turns]

    def _holds(self, scenario: Scenario) -> tuple[Hold, ...]:
        return tuple(self._held(scenario, proxy) for proxy in self.proxies if proxy.is_router)

    def _held(self, scenario: Scenario, proxy: Proxy) -> Hold:
        hold = Hold(proxy=proxy.name, asked=scenario.waiting)
        try:
            with started(proxy, self.ground, scenario) as program:
                hold = evolve(hold, at_rest=program.usage().resident)
                with waiting(program, self.ground.holder, scenario.waiting) as held:
                    hold = _watched(hold, program, self.hold)
                    return evolve(hold, answered=held.finish())
        except (ProgramFailed, OSError, HTTPException) as problem:
            return evolve(hold, problem=_described(problem))


@define(eq=False)
class _Turns:
    """
    One proxy in one scenario.

    Attributes:
        result: What is known so far; with a problem nothing more is measured.
    """

    ground: Ground
    scenario: Scenario
    name: str
    result: Result = field(init=False)
    program: Program | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.result = Result(scenario=self.scenario, proxy=self.name)

    def start(self, closing: ExitStack, proxy: Proxy) -> None:
        """
        Start the proxy, see that it answers well, and warm it up.
        """
        with self._trying():
            program = closing.enter_context(started(proxy, self.ground, self.scenario))
            _check(program, self.scenario)
            run_wrk(self.scenario, program.port, _WARMUP, self.ground.folder)
            self.program = program
            self.result = evolve(self.result, at_rest=program.usage().resident)

    def usage(self) -> Usage | None:
        """
        What the proxy has used; None when it is not there.
        """
        with self._trying():
            return self.program.usage() if self.program else None
        return None

    def take(self, seconds: int) -> None:
        """
        One measurement.
        """
        if self.program is None or self.result.problem:
            return
        held = waiting(self.program, self.ground.holder, self.scenario.waiting)
        with self._trying(), held:
            self._measure(self.program, seconds)

    def _measure(self, program: Program, seconds: int) -> None:
        before = program.usage()
        counted = run_wrk(self.scenario, program.port, seconds, self.ground.folder)
        after = program.usage()
        if counted.problem:
            raise ProgramFailed(counted.problem)
        sample = Sample(
            seconds=counted.duration,
            answers=counted.answers(self.scenario),
            rate=counted.requests / counted.duration,
            p50=counted.p50,
            p99=counted.p99,
            cpu=after.cpu - before.cpu,
            resident=after.resident,
            peak=after.peak,
        )
        self.result = evolve(self.result, samples=(*self.result.samples, sample))

    @contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except (ProgramFailed, OSError, HTTPException) as problem:
            self.result = evolve(self.result, problem=_described(problem))


def _measure_idle(turns: Sequence[_Turns], seconds: float) -> None:
    before = [turn.usage() for turn in turns]
    time.sleep(seconds)
    after = [turn.usage() for turn in turns]
    for turn, one, other in zip(turns, before, after, strict=True):
        if one is not None and other is not None:
            turn.result = evolve(turn.result, idle=(other.cpu - one.cpu) / seconds)


def _check(program: Program, scenario: Scenario) -> None:
    """
    Raises:
        ProgramFailed: One request of *scenario* is not answered as it must be.
    """
    body = b"x" * scenario.size if scenario.upload else None
    status, answer = program.ask(scenario.path, body, timeout=60.0)
    arrived = int(answer) if scenario.upload and answer.isdigit() else len(answer)
    if status != 200 or arrived < scenario.size:
        raise ProgramFailed(f"{scenario.path}: status {status}, {arrived} bytes")


def _watched(hold: Hold, program: Program, seconds: float) -> Hold:
    """
    *hold* after *seconds* of looking at the router's health checks.
    """
    began = time.monotonic()
    looks, unanswered, failures = 0, 0, 0
    while time.monotonic() < began + seconds:
        looks += 1
        found = _failures(program)
        unanswered += found is None
        failures = max(failures, found or 0)
        time.sleep(_LOOK_EVERY)
    used = program.usage()
    return evolve(
        hold,
        seconds=time.monotonic() - began,
        looks=looks,
        unanswered=unanswered,
        failures=failures,
        resident=used.resident,
        peak=used.peak,
    )


def _failures(program: Program) -> int | None:
    try:
        status, body = program.ask("/health_workers")
        workers = loads(body)["workers"] if status == 200 else []
        return max((int(worker["consecutive_failures"]) for worker in workers), default=None)
    except (OSError, HTTPException, ValueError, KeyError):
        return None


def _described(problem: Exception) -> str:
    return str(problem) if isinstance(problem, ProgramFailed) else repr(problem)
