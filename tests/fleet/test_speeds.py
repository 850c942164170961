"""
What is learned of the speed of workers: laws, and how well it does on a usual mixture of work.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from random import Random
from statistics import mean

import pytest
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from sgl_droute.fleet.capabilities import Capabilities
from sgl_droute.fleet.demand import Asked
from sgl_droute.fleet.fit import line
from sgl_droute.fleet.job import KINDS, UNKNOWN, Known
from sgl_droute.fleet.measured import YEAR
from sgl_droute.fleet.speeds import LEARNED, Rate, Speeds
from sgl_droute.fleet.worker import Worker

FLUX = "black-forest-labs/FLUX.1-dev"
QWEN = "Qwen/Qwen-Image"
PACE = 2.6e-5
FIXED = 0.3

# 512x512 in 20 steps, 768x768 in 20, 1024x1024 in 25 and 1536x1536 in 35, in shares of 100.
MIXTURE = [
    Asked("image", {"size": f"{side}x{side}", "num_inference_steps": steps})
    for side, steps in ((512, 20), (768, 20), (1024, 25), (1536, 35))
]
SHARES = (15, 25, 45, 15)


def a_worker(number: int = 0, model: str | None = FLUX, speed: float | None = None) -> Worker:
    return Worker(
        url=f"http://w{number}:1",
        serial=number,
        capabilities=Capabilities(model=model),
        speed=speed,
    )


def amount(demand: Asked) -> float:
    work = demand.work(FLUX)
    assert work is not None
    return work


def truth(demand: Asked, factor: float = 1.0) -> float:
    return factor * (PACE * amount(demand) + FIXED)


def off(speeds: Speeds, worker: Worker, factor: float = 1.0) -> float:
    """
    Mean relative error of predictions over the mixture, for a worker *factor* times as slow.
    """
    errors = [
        share * abs(speeds.seconds(worker, "image", each) / truth(each, factor) - 1)
        for each, share in zip(MIXTURE, SHARES, strict=True)
    ]
    return sum(errors) / sum(SHARES)


def teach(
    speeds: Speeds,
    worker: Worker,
    count: int,
    rng: Random,
    *,
    factor: float = 1.0,
    noise: float = 0.05,
    outliers: float = 0.02,
) -> None:
    for _ in range(count):
        [demand] = rng.choices(MIXTURE, SHARES)
        stray = 10 if rng.random() < outliers else 1
        seconds = truth(demand, factor) * rng.lognormvariate(0, noise) * stray
        speeds.learn(worker, "image", demand, seconds)


def taught(factors: Sequence[float], count: int, seed: int) -> tuple[Speeds, list[Worker]]:
    """
    Speeds after *count* requests spread at random over workers *factors* times as slow as usual.
    """
    rng = Random(seed)
    speeds = Speeds()
    workers = [a_worker(number) for number in range(len(factors))]
    for _ in range(count):
        number = rng.randrange(len(workers))
        teach(speeds, workers[number], 1, rng, factor=factors[number])
    return speeds, workers


def over_seeds(measure: Callable[[int], float]) -> float:
    return mean(measure(seed) for seed in range(20))


numbers = st.one_of(
    st.floats(), st.floats(1e-3, 1e9), st.sampled_from([0.0, -1.0, 1e-300, 1e300, math.inf, 5e-324])
)
lessons = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from([None, FLUX, QWEN]),
        st.sampled_from([None, 0.5, 1e-300, 1e300]),
        st.sampled_from(["image", "video"]),
        st.one_of(st.none(), numbers),
        numbers,
    ),
    max_size=40,
)


@given(lessons, numbers)
def test_always_a_time(
    taught: list[tuple[int, str | None, float | None, str, float | None, float]],
    work: float,
) -> None:
    """
    Whatever was learned, a prediction is above 0 and a year at most, and more work takes no less.
    """
    speeds = Speeds()
    for number, model, speed, kind, done, seconds in taught:
        speeds.learn(a_worker(number, model, speed), kind, Known(done), seconds)
    for number, model, speed, kind in {each[:4] for each in taught} | {(9, None, None, "mesh")}:
        worker = a_worker(number, model, speed)
        rate = speeds.rate(worker, kind)
        assert 0 < rate.pace < math.inf
        assert 0 <= rate.fixed < math.inf
        for demand in (Known(work), UNKNOWN):
            assert 0 < speeds.seconds(worker, kind, demand) <= YEAR
            assert 0 < speeds.length(model, kind, demand) <= YEAR
        assert 0 < speeds.usual(worker, kind) <= YEAR
        assert rate.seconds(2.0) >= rate.seconds(1.0)
        error = speeds.error(worker)
        assert error is None or error >= 0
        json.dumps(speeds.shown(worker))


@given(st.floats(1e-6, 1e3), st.floats(0, 10), st.lists(st.floats(0.2, 10), min_size=8))
def test_pace_and_fixed_part_are_told_apart(pace: float, share: float, works: list[float]) -> None:
    """
    From exact measurements of work that differs, pace and fixed part are found, also where the
    fixed part is ten times the rest.
    """
    works = works[:15]
    average = mean(works)
    assume(mean((work / average - 1) ** 2 for work in works) > 0.2)
    assume(sum(abs(work / average - 1) > 0.2 for work in works) > 5)
    fixed = share * average * pace
    found = line([(work, pace * work + fixed) for work in works], 0.0)
    for work in works:
        assert found[0] * work + found[1] == pytest.approx(pace * work + fixed, rel=0.02)


@given(
    st.floats(1e-3, 1e4),
    st.lists(st.floats(0.97, 1.03), min_size=8, max_size=8),
    st.lists(st.floats(0.01, 100), min_size=7, max_size=7),
    st.randoms(use_true_random=False),
)
def test_most_measurements_decide(
    seconds: float, good: list[float], bad: list[float], rng: Random
) -> None:
    """
    Of 15 measurements of the same work, whatever 7 say moves the prediction no further than the
    others lie apart.
    """
    factors = good + bad
    rng.shuffle(factors)
    speeds = Speeds()
    worker = a_worker()
    for factor in factors:
        speeds.learn(worker, "image", Known(5.0), seconds * factor)
    predicted = speeds.seconds(worker, "image", Known(5.0))
    assert min(good) - 1e-6 <= predicted / seconds <= max(good) + 1e-6


@given(st.integers(0, 10_000), st.sets(st.integers(0, 14), max_size=4), st.sampled_from([0.05, 20]))
def test_stray_measurements_hardly_count(seed: int, strays: set[int], factor: float) -> None:
    """
    Up to 4 in 15 measurements that are 20 times too long or short move predictions for a mixture
    of work by less than 15 %.
    """
    rng = Random(seed)
    speeds = Speeds()
    worker = a_worker()
    for number in range(15):
        [demand] = rng.choices(MIXTURE, SHARES)
        seconds = truth(demand) * rng.lognormvariate(0, 0.05)
        speeds.learn(worker, "image", demand, seconds * (factor if number in strays else 1))
    assert off(speeds, worker) < 0.15


def test_one_measurement() -> None:
    """
    One measurement is enough for requests of its size, on every worker of that model.
    """
    speeds = Speeds()
    speeds.learn(a_worker(0), "image", Known(100.0), 7.0)
    assert speeds.seconds(a_worker(0), "image", Known(100.0)) == pytest.approx(7.0)
    assert speeds.seconds(a_worker(1), "image", Known(200.0)) == pytest.approx(14.0)
    assert speeds.rate(a_worker(0), "image").samples == 1
    assert speeds.rate(a_worker(1), "image").samples == 0


def test_nothing_learned() -> None:
    """
    While nothing is known a request takes what it would on the GPU of the prior: FLUX.1-dev needs
    6.7 s for an image of 1024x1024 in 50 steps.
    """
    speeds = Speeds()
    worker = a_worker()
    assert speeds.seconds(worker, "image", Asked("image", {})) == pytest.approx(6.7, rel=0.02)
    assert speeds.rate(worker, "image") == speeds.prior
    assert not speeds.learned(worker, "image")
    assert speeds.error(worker) is None
    assert speeds.shown(worker) == {}
    assert speeds.saved(worker.url) is None


def test_accurate_on_a_mixture() -> None:
    """
    With 5 % noise and 2 % strays predictions on 8 workers are off by less than 3 % on average after
    200 requests, also where a quarter of the workers takes twice as long, or half of them.
    """
    for factors in ([1] * 8, [1] * 6 + [2] * 2, [1] * 4 + [2] * 4):

        def measure(seed: int, factors: Sequence[float] = factors) -> float:
            speeds, workers = taught(factors, 200, seed)
            return mean(off(speeds, *each) for each in zip(workers, factors, strict=True))

        assert over_seeds(measure) < 0.03


def test_accurate_soon() -> None:
    """
    After 32 requests on 8 equal workers predictions are off by less than 4 % on average.
    """

    def measure(seed: int) -> float:
        speeds, workers = taught([1] * 8, 32, seed)
        return mean(off(speeds, each) for each in workers)

    assert over_seeds(measure) < 0.04


def test_a_slow_worker_is_found_out() -> None:
    """
    Three measurements show that a worker of a known model takes twice as long, and a single one
    counts for less.
    """

    def measure(count: int, seed: int) -> float:
        speeds, _ = taught([1] * 8, 100, seed)
        slow = a_worker(99)
        teach(speeds, slow, count, Random(seed), factor=2, outliers=0)
        return off(speeds, slow, 2)

    assert over_seeds(lambda seed: measure(3, seed)) < 0.05
    assert 0.2 < over_seeds(lambda seed: measure(1, seed)) < 0.4


@pytest.mark.parametrize("factor", [0.5, 2, 4])
def test_a_change_of_speed_is_followed(factor: float) -> None:
    """
    Eleven requests after a worker has become slower or faster predictions are right again.
    """

    def measure(seed: int) -> float:
        rng = Random(seed)
        speeds = Speeds()
        teach(speeds, a_worker(), 40, rng)
        teach(speeds, a_worker(), 11, rng, factor=factor)
        return off(speeds, a_worker(), factor)

    assert over_seeds(measure) < 0.05


def test_own_fixed_part() -> None:
    """
    A worker with a pace of its own and the usual fixed part is predicted by its own measurements.
    """
    speeds, _ = taught([1] * 8, 200, seed=1)
    several = a_worker(99)
    for demand in MIXTURE * 3:
        speeds.learn(several, "image", demand, PACE / 4 * amount(demand) + FIXED)
    for demand in MIXTURE:
        expected = pytest.approx(PACE / 4 * amount(demand) + FIXED, rel=0.02)
        assert speeds.seconds(several, "image", demand) == expected


def test_fixed_part_of_the_model() -> None:
    """
    A worker that was only seen at work of one size has the fixed part of its model.
    """
    speeds, _ = taught([1] * 8, 200, seed=1)
    worker = a_worker(99)
    for _ in range(10):
        speeds.learn(worker, "image", MIXTURE[2], truth(MIXTURE[2]))
    assert speeds.seconds(worker, "image", MIXTURE[0]) == pytest.approx(truth(MIXTURE[0]), rel=0.06)


def test_told_speed() -> None:
    """
    With a speed told by an operator a worker takes the usual time of its model by that speed,
    whatever was measured of it, and its measurements count in the usual time as such.
    """
    speeds, workers = taught([1] * 4, 100, seed=1)
    told = a_worker(99, speed=0.5)
    usual = speeds.length(FLUX, "image", MIXTURE[2])
    assert speeds.seconds(told, "image", MIXTURE[2]) == pytest.approx(2 * usual)
    teach(speeds, told, 64, Random(1), factor=2, outliers=0)
    usual = speeds.length(FLUX, "image", MIXTURE[2])
    assert usual == pytest.approx(truth(MIXTURE[2]), rel=0.05)
    assert speeds.seconds(told, "image", MIXTURE[2]) == pytest.approx(2 * usual)
    assert off(speeds, evolve(told, speed=None), 2) < 0.05
    assert off(speeds, workers[0]) < 0.05


def test_learned() -> None:
    """
    A prediction may be relied on from the fifth measurement of that worker, model and kind; with a
    told speed from the fifth of that model on any worker.
    """
    speeds = Speeds()
    for count in range(LEARNED):
        assert not speeds.learned(a_worker(), "image")
        assert not speeds.learned(a_worker(1, speed=2.0), "image")
        speeds.learn(a_worker(), "image", Known(5.0), 1.0 + count)
    assert speeds.learned(a_worker(), "image")
    assert speeds.learned(a_worker(1, speed=2.0), "image")
    assert not speeds.learned(a_worker(1), "image")
    assert not speeds.learned(a_worker(), "video")
    assert not speeds.learned(a_worker(0, QWEN), "image")
    assert not speeds.learned(a_worker(1, QWEN, speed=2.0), "image")


def test_another_model() -> None:
    """
    A worker that serves another model starts anew, and what was known of it with the first is gone.
    """
    speeds = Speeds()
    teach(speeds, a_worker(), 20, Random(1))
    before = speeds.rate(a_worker(), "image")
    other = a_worker(0, QWEN)
    assert speeds.rate(other, "image").samples == 0
    assert speeds.error(other) is None
    assert speeds.shown(other) == {}
    speeds.learn(other, "image", Known(5.0), 1.0)
    assert speeds.rate(other, "image").samples == 1
    assert speeds.rate(a_worker(), "image").samples == 0
    assert speeds.rate(a_worker(), "image").pace == pytest.approx(before.pace, rel=0.1)


def test_what_resembles_it_most() -> None:
    """
    Of a kind never seen another kind of the same model tells, of a model never seen another one.
    """
    speeds = Speeds()
    speeds.learn(a_worker(0, QWEN), "video", Known(100.0), 50.0)
    speeds.learn(a_worker(1, FLUX), "image", Known(100.0), 7.0)
    assert speeds.rate(a_worker(2, FLUX), "video").seconds(100) == pytest.approx(7)
    assert speeds.rate(a_worker(2, "new"), "video").seconds(100) == pytest.approx(50)
    assert speeds.rate(a_worker(2, "new"), "mesh") == speeds.prior
    assert speeds.length(None, "image", Known(200.0)) == pytest.approx(14)
    assert speeds.length("any name", "video", Known(10.0)) == pytest.approx(5)


def test_unknown_work_is_the_average() -> None:
    """
    A request of which nothing is known counts as the average of its model and kind, of its kind, or
    as one that names nothing but its prompt.
    """
    speeds = Speeds()
    assert speeds.work(FLUX, "image", UNKNOWN) == Asked("image", {}).work(FLUX)
    assert speeds.work(FLUX, "mesh", Known(math.nan)) == speeds.work(None, "session", Known(-1))
    for work in (100.0, 200.0, 600.0):
        speeds.learn(a_worker(), "image", Known(work), work)
    assert speeds.work(FLUX, "image", UNKNOWN) == pytest.approx(300)
    assert speeds.work(QWEN, "image", UNKNOWN) == pytest.approx(300)
    assert speeds.usual(a_worker(), "image") == pytest.approx(300)
    assert speeds.work(FLUX, "image", Known(7.0)) == 7.0


def test_unknown_work_teaches_where_all_is_unknown() -> None:
    """
    Meshes, of which nothing can be read, still have a usual duration; but where there are requests
    of known work the others teach nothing.
    """
    speeds = Speeds()
    for seconds in (200.0, 237.0, 260.0, 9000.0, 230.0):
        speeds.learn(a_worker(), "mesh", UNKNOWN, seconds)
    assert speeds.usual(a_worker(), "mesh") == pytest.approx(237, rel=0.05)
    assert speeds.learned(a_worker(), "mesh")
    teach(speeds, a_worker(), 20, Random(1))
    before = speeds.rate(a_worker(), "image")
    for _ in range(20):
        speeds.learn(a_worker(), "image", UNKNOWN, 1000.0)
    assert speeds.rate(a_worker(), "image") == before


def test_no_time_teaches_nothing() -> None:
    """
    What is no duration is not learned.
    """
    speeds = Speeds()
    for seconds in (0.0, -1.0, math.nan, math.inf):
        speeds.learn(a_worker(), "image", Known(5.0), seconds)
    assert speeds.rate(a_worker(), "image") == speeds.prior


def test_error() -> None:
    """
    The error is that of predictions made before what they foretold was learned: the median, near
    the noise of the measurements, and large once the worker has changed its speed.
    """
    speeds = Speeds()
    rng = Random(1)
    worker = a_worker()
    teach(speeds, worker, 40, rng)
    error = speeds.error(worker)
    assert error is not None
    assert 0.01 < error < 0.1
    teach(speeds, worker, 9, rng, factor=4)
    error = speeds.error(worker)
    assert error is not None
    assert error > 0.5


def test_shown() -> None:
    """
    The API shows per kind how many measurements there are, pace, fixed part, speed relative to the
    usual one of the model, and error.
    """
    speeds, workers = taught([1, 1, 1, 1, 1, 2], 400, seed=1)
    shown = speeds.shown(workers[5])
    assert list(shown) == ["image"]
    values = shown["image"]
    assert isinstance(values, dict)
    assert values["samples"] == 15
    assert values["seconds_per_unit"] == pytest.approx(2 * PACE, rel=0.06)
    assert values["fixed_seconds"] == pytest.approx(2 * FIXED, rel=0.3)
    assert values["relative_speed"] == pytest.approx(0.5, rel=0.08)
    assert values["error"] < 0.1


def test_forget() -> None:
    """
    Of a worker that has left only what it taught about its model stays.
    """
    speeds = Speeds()
    teach(speeds, a_worker(), 20, Random(1))
    speeds.forget(a_worker().url)
    speeds.forget("http://never:1")
    assert speeds.rate(a_worker(), "image").samples == 0
    assert off(speeds, a_worker()) < 0.05


def test_changes_are_told() -> None:
    """
    Everything that is learned is told with the worker and the kind, and nothing else is.
    """
    told: list[tuple[str, str]] = []
    speeds = Speeds(on_change=lambda url, kind: told.append((url, kind)))
    speeds.learn(a_worker(), "image", Known(5.0), 1.0)
    speeds.learn(a_worker(), "video", Known(5.0), 1.0)
    speeds.learn(a_worker(), "image", UNKNOWN, 1.0)
    speeds.learn(a_worker(), "image", Known(5.0), -1.0)
    assert told == [("http://w0:1", "image"), ("http://w0:1", "video")]


def test_kept_is_bounded() -> None:
    """
    However many workers and models come and go, what is kept stays bounded.
    """
    speeds = Speeds()
    for number in range(10_500):
        speeds.learn(a_worker(number, f"model {number % 400}"), "image", Known(5.0), 1.0)
    assert len(speeds._workers) == 10_000
    assert len(speeds._models) == 256
    assert speeds.rate(a_worker(0, "model 0"), "image").samples == 0
    assert speeds.rate(a_worker(10_499, "model 99"), "image").samples == 1


@given(st.integers(0, 1000), st.integers(1, 40), st.sampled_from([None, 0.5]))
def test_a_restart_changes_little(seed: int, count: int, speed: float | None) -> None:
    """
    Predictions of a worker are the same after a restart but for rounding, and from what is saved of
    one worker another one of that model is predicted as well.
    """
    speeds = Speeds()
    worker = a_worker(speed=speed)
    teach(speeds, worker, min(count, 15), Random(seed), outliers=0)
    text = speeds.saved(worker.url)
    assert text is not None
    assert len(text) <= 2000
    again = Speeds(on_change=lambda url, kind: pytest.fail("nothing new was learned"))
    again.restore(worker.url, text)
    for each in (worker, a_worker(9)):
        assert again.seconds(each, "image", MIXTURE[2]) == pytest.approx(
            speeds.seconds(each, "image", MIXTURE[2]), rel=0.15
        )
    assert again.learned(worker, "image") == speeds.learned(worker, "image")
    assert json.loads(again.saved(worker.url) or "") == json.loads(text)


def test_a_fleet_is_restored() -> None:
    """
    After a restart of the router with 20 workers, five of them slow, all are predicted as before.
    """
    factors = [1] * 15 + [2] * 5
    speeds, workers = taught(factors, 600, seed=1)
    again = Speeds()
    for worker in workers:
        again.restore(worker.url, speeds.saved(worker.url) or "")
    errors = [off(again, *each) for each in zip(workers, factors, strict=True)]
    assert mean(errors) < 0.03
    assert off(again, a_worker(99)) < 0.2


def test_many_kinds_are_saved_short() -> None:
    """
    What is saved of a worker that makes everything stays below 2000 characters, with something of
    every kind; a model whose name alone is longer is not saved.
    """
    speeds = Speeds()
    worker = a_worker()
    for kind in KINDS:
        for number in range(15):
            speeds.learn(worker, kind, Known(123456.789 + number), 1234.56789)
    text = speeds.saved(worker.url)
    assert text is not None
    assert len(text) <= 2000
    assert set(json.loads(text)["kinds"]) == set(KINDS)
    endless = a_worker(1, "m" * 3000)
    speeds.learn(endless, "image", Known(5.0), 1.0)
    assert speeds.saved(endless.url) is None


def test_what_is_newer_is_kept() -> None:
    """
    What was saved does not replace what has been measured since.
    """
    speeds = Speeds()
    speeds.learn(a_worker(), "image", Known(5.0), 1.0)
    text = speeds.saved("http://w0:1") or ""
    again = Speeds()
    again.learn(a_worker(), "image", Known(5.0), 3.0)
    again.restore("http://w0:1", text)
    assert again.seconds(a_worker(), "image", Known(5.0)) == pytest.approx(3.0)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["model", "speed", "kinds", "image"]), inner, max_size=4),
    ),
)
broken = st.one_of(
    st.text(),
    json_values.map(json.dumps),
    st.fixed_dictionaries(
        {
            "model": st.one_of(st.just(FLUX), json_values),
            "speed": st.one_of(st.none(), json_values),
            "kinds": st.one_of(
                json_values,
                st.fixed_dictionaries({"image": st.lists(st.lists(json_values, max_size=3))}),
            ),
        }
    ).map(json.dumps),
    st.sampled_from(
        ["[" * 1900, '{"model":null,"speed":1e400,"kinds":{"image":[[1,1]]}}', "9" * 9999]
    ),
)


@given(broken)
def test_broken_savings_are_ignored(text: str) -> None:
    """
    Whatever stands where something was saved, restoring it never fails and leaves predictions sane.
    """
    speeds = Speeds()
    speeds.restore("http://w0:1", text)
    assert 0 < speeds.seconds(a_worker(), "image", MIXTURE[0]) <= YEAR
    speeds.learn(a_worker(), "image", MIXTURE[0], 1.0)
    assert 0 < speeds.seconds(a_worker(1), "image", MIXTURE[0]) <= YEAR


@pytest.mark.parametrize("work", [0.0, -1.0, math.nan, math.inf, -math.inf, 1e300])
def test_seconds_of_any_work(work: float) -> None:
    """
    A rate makes a time of at least a microsecond and at most a year of anything.
    """
    assert 1e-6 <= Rate(1.0, 0.0).seconds(work) <= YEAR
