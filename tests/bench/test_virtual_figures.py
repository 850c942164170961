"""
What a run comes to, how low orderings get, and whether targets are met.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from bench.harness.virtual.arms import Arm
from bench.harness.virtual.figures import Figures, figures, lower_bound, mean
from bench.harness.virtual.orders import Order, alone, one_line, references
from bench.harness.virtual.report import document, report
from bench.harness.virtual.study import Result
from bench.harness.virtual.targets import Verdict, verdicts
from bench.harness.virtual.workloads import Request, workloads

requests_lists = st.lists(
    st.builds(Request, st.floats(0, 50), st.just("image"), st.just(1.0), st.floats(0.1, 20)),
    min_size=1,
    max_size=30,
).map(lambda requests: sorted(requests, key=lambda request: request.at))
speeds_lists = st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=1, max_size=4)
ORDERS: dict[str, Order] = {
    "first": lambda request: (request.at,),
    "shortest": lambda request: (request.seconds,),
    "longest": lambda request: (-request.seconds,),
}


def request(at: float, seconds: float, patience: float | None = None) -> Request:
    return Request(at, "image", 1.0, seconds, patience)


@given(requests_lists, speeds_lists, st.sampled_from(sorted(ORDERS)))
def test_nobody_beats_the_lower_bound(
    requests: list[Request], speeds: list[float], order: str
) -> None:
    """
    Whatever the order, the last request ends no sooner than the bound.
    """
    ends = one_line(requests, speeds, ORDERS[order])
    assert max(ends) >= lower_bound(requests, speeds) * (1 - 1e-9)


def test_lower_bound_of_a_batch() -> None:
    """
    The work over the total speed, or the longest one on the fastest worker.
    """
    assert lower_bound([request(0, 6.0), request(0, 6.0)], [1.0, 0.5]) == pytest.approx(8.0)
    assert lower_bound([request(0, 1.0), request(0, 12.0)], [1.0, 2.0]) == pytest.approx(6.0)


def test_one_line_serves_in_order() -> None:
    """
    The free worker takes the next in order, the faster one first.
    """
    requests = [request(0, 4.0), request(1, 4.0), request(1, 2.0)]
    shortest = ORDERS["shortest"]
    assert one_line(requests, [1.0], shortest) == [4.0, 10.0, 6.0]
    assert one_line(requests, [1.0, 2.0], shortest) == [2.0, 4.0, 3.0]


@given(requests_lists)
def test_references_are_no_faster_than_alone(requests: list[Request]) -> None:
    """
    On workers of speed 1, no order serves a request sooner than if it were alone.
    """
    floor = alone(requests)
    for ends in references(requests, [1.0, 1.0]).values():
        assert all(end >= least - 1e-9 for end, least in zip(ends, floor, strict=True))


def test_figures_leave_out_who_may_leave() -> None:
    """
    Those who stay are the same in every run; of them the latencies and the makespan are.
    """
    requests = [request(1.0, 2.0), request(2.0, 3.0), request(3.0, 1.0, patience=1.0)]
    made = figures(requests, [3.0, 8.0, 40.0], [1.0], left=1)
    assert made.p50 == pytest.approx(4.0)
    assert made.makespan == pytest.approx(7.0)
    assert made.over_bound == pytest.approx(7.0 / 5.0)
    assert made.left == pytest.approx(1 / 3)
    assert made.p99_late is None


def test_late_figures_leave_out_the_first() -> None:
    """
    What is slow only while nothing is known does not show among the late ones.
    """
    requests = [request(float(at), 1.0) for at in range(1000)]
    ends = [at + (90.0 if at < 200 else 1.0) for at in range(1000)]
    made = figures(requests, ends, [1.0])
    assert made.p99 == pytest.approx(90.0)
    assert made.p99_late == pytest.approx(1.0)


def of(p99: float, *, late: float | None = None, over: float = 1.0) -> Figures:
    return Figures(p50=1.0, p99=p99, p99_late=late, makespan=100 * over, over_bound=over)


def test_mean_is_of_each_figure() -> None:
    """
    None where one of the runs has none.
    """
    several = mean([of(1.0, late=2.0), of(3.0)])
    assert several.p99 == pytest.approx(2.0)
    assert several.p99_late is None
    assert mean([of(1.0, late=2.0), of(3.0, late=4.0)]).p99_late == pytest.approx(3.0)


def results(change: Callable[[str, Arm, Figures], Figures]) -> list[Result]:
    """
    Results that reach every target just so, after *change*.
    """
    made = []
    for workload in workloads():
        arms = {}
        for slots in (0, 1):
            arms[Arm("least-request", slots, "exact")] = of(100.0, late=100.0, over=1.0)
            arms[Arm("least-work", slots, "exact")] = of(68.0, late=68.0, over=1.06)
            arms[Arm("least-work", slots, "30 % wrong")] = of(103.0, late=68.0, over=1.03)
            arms[Arm("least-work", slots, "learned")] = of(90.0, late=74.8, over=1.03)
        arms = {arm: change(workload.name, arm, figures) for arm, figures in arms.items()}
        runs = {arm: [figures] for arm, figures in arms.items()}
        made.append(Result(workload=workload, arms=arms, references={"alone": of(5.0)}, runs=runs))
    return made


def missed(judged: list[Verdict]) -> list[str]:
    assert all(each.met is not None for each in judged)
    return [each.target for each in judged if not each.met]


def test_targets_are_met_at_their_bounds() -> None:
    """
    Figures just within every bound meet every target.
    """
    assert missed(verdicts(results(lambda name, arm, figures: figures))) == []


@pytest.mark.parametrize(
    ("workload", "arm", "changes", "word"),
    [
        ("a-8-0.85", Arm("least-work", 0, "exact"), {"p99": 81.0}, "a-8-0.85, no slots, exact"),
        ("b-8", Arm("least-work", 0, "exact"), {"p99": 69.0}, "b-8"),
        ("c-32-batch", Arm("least-work", 1, "exact"), {"over_bound": 1.07}, "c-32-batch"),
        ("a-8-0.85", Arm("least-work", 0, "learned"), {"p99_late": 76.0}, "learned from nothing"),
        ("d", Arm("least-work", 0, "30 % wrong"), {"p99": 104.0}, "p99 of least-work at most"),
        ("e", Arm("least-work", 1, "30 % wrong"), {"makespan": 104.0}, "makespan of least-work"),
    ],
)
def test_target_is_missed(workload: str, arm: Arm, changes: dict[str, float], word: str) -> None:
    """
    A figure above its bound misses that target and no other, and is told.
    """

    def change(name: str, which: Arm, figures: Figures) -> Figures:
        return evolve(figures, **changes) if (name, which) == (workload, arm) else figures

    judged = verdicts(results(change))
    assert [word in target for target in missed(judged)] == [True]
    assert "missed" in report(results(change))


def test_what_was_not_simulated_is_not_judged() -> None:
    """
    Targets of workloads that were left out are neither met nor missed.
    """
    judged = verdicts([])
    assert {each.met for each in judged} == {None}
    assert {each.measured for each in judged} == {"not measured"}


def test_report_and_document_hold_everything() -> None:
    """
    Each workload has its table with a row per arm and reference; programs get each seed's figures.
    """
    made = results(lambda name, arm, figures: figures)
    text = report(made)
    for workload in workloads():
        assert f"{workload.name}: {workload.title}" in text
    assert text.count("| least-work") == 6 * len(made)
    assert text.count("| alone") == len(made)
    whole = document(made, [], [], {"bench": "simulate.py"})
    first = whole["workloads"][0]  # type: ignore[index]
    assert first["arms"][0]["seeds"][0]["p99"] == 100.0
    assert whole["bench"] == "simulate.py"


def test_same_figures_have_one_row() -> None:
    """
    Where what is known of the work makes no difference, and not where it does.
    """
    same = results(lambda name, arm, figures: of(50.0))
    assert report(same).count("| least-work") == 2 * len(same)
    assert report(same).count(" any |") == 4 * len(same)


def test_refusals_are_shown() -> None:
    """
    A run that did not serve everybody cannot pass for one that did.
    """

    def change(name: str, arm: Arm, figures: Figures) -> Figures:
        return evolve(figures, refused=2.0) if name == "d" and not arm.slots else figures

    assert report(results(change)).count("2 requests of a run were refused") == 4
    assert "refused" not in report(results(lambda name, arm, figures: figures))
