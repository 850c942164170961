"""
What passes through the router, as it is counted; and that nobody can add to the series at will.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from sgl_droute.api.routes import RouterAPI
from sgl_droute.api.telemetry.traffic_metrics import GONE, METHODS, NONE, OTHER, Traffic, result_of
from sgl_droute.fleet.capabilities import IMAGE, VIDEO
from sgl_droute.fleet.decisions import Event
from sgl_droute.fleet.job import KINDS, Job
from sgl_droute.fleet.jobs import EndedJob, OpenJob
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Probe
from tests.api.accounts import an_account
from tests.api.scraping import Scrape
from tests.test_log_codes import documented

W1 = "http://w1:30000"
W2 = "http://w2:30000"
IMAGES = "/v1/images/generations"


@pytest.fixture
def pool() -> Pool:
    pool = Pool()
    pool.add(W1)
    pool.add(W2)
    return pool


@pytest.fixture
def traffic(pool: Pool) -> Traffic:
    return Traffic(pool)


def scraped(traffic: Traffic) -> Scrape:
    return Scrape.parsed(generate_latest(traffic))


def ended(traffic: Traffic, **changed: Any) -> None:
    """
    Have a request end, as `an_account` has it.
    """
    traffic.request_ended(an_account(**{"code": "done", "ended": 101.22, **changed}))


def test_a_request_that_went_well(traffic: Traffic) -> None:
    """
    It counts once, with its times and bytes.
    """
    ended(traffic, expected=2.4074)
    scrape = scraped(traffic)
    labels = {"route": IMAGES, "method": "POST", "worker": W1, "code": "done", "status": "2xx"}
    assert scrape.value("sgl_droute_requests_total", **labels) == 1
    assert scrape.value("sgl_droute_request_bytes_total", route=IMAGES) == 812
    assert scrape.value("sgl_droute_response_bytes_total", route=IMAGES) == 81204
    assert scrape.value("sgl_droute_request_seconds_sum", route=IMAGES) == pytest.approx(1.22)
    assert scrape.value("sgl_droute_queue_seconds_sum", kind="image") == pytest.approx(0.0124)
    of = {"kind": "image", "worker": W1}
    assert scrape.value("sgl_droute_first_byte_seconds_sum", **of) == pytest.approx(1.2037)
    assert scrape.value("sgl_droute_prediction_ratio_sum", **of) == pytest.approx(0.5)


def test_a_request_that_reached_nothing(traffic: Traffic) -> None:
    """
    Without route, worker and answer it still counts once.
    """
    nothing: dict[str, Any] = {"ready": None, "bound": None, "answered": None}
    bare = {"route": "", "worker": None, "status": 0, "kind": "", **nothing}
    ended(traffic, code="client_gone_sending", **bare)
    scrape = scraped(traffic)
    labels = {"route": NONE, "method": "POST", "worker": NONE, "status": NONE}
    assert scrape.value("sgl_droute_requests_total", code="client_gone_sending", **labels) == 1
    assert scrape.value("sgl_droute_request_seconds_count", route=NONE) == 1
    assert list(scrape.samples("sgl_droute_queue_seconds_count")) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"status": 500},
        {"code": "answer_cut"},
        {"kind": "video"},
        {"expected": None},
        {"expected": 0.0},
        {"answered": None},
    ],
)
def test_what_says_nothing_of_predictions(traffic: Traffic, changed: dict[str, Any]) -> None:
    """
    Failures, what was not predicted, and answers that come before the work is done do not count.
    """
    ended(traffic, **{"expected": 2.0, **changed})
    assert list(scraped(traffic).samples("sgl_droute_prediction_ratio_count")) == []


def test_methods(traffic: Traffic) -> None:
    """
    A method that no route has is one of all others, whatever a client calls it.
    """
    for method in ("GET", "get", "BREW", "\xff"):
        ended(traffic, method=method)
    assert scraped(traffic).labels("sgl_droute_requests_total", "method") == {"GET", OTHER}


def a_job(how: str, took: float | None = None) -> EndedJob:
    job = OpenJob(kind="video", id="1", worker=W1, serial=1, created=0.0)
    return EndedJob(job=job, how=how, took=took)


def test_jobs_that_end(traffic: Traffic) -> None:
    """
    They count by how they ended, and their GPU time where it was told.
    """
    for job in (a_job("completed", 42.0), a_job("completed"), a_job("lost")):
        traffic.job_ended(job)
    scrape = scraped(traffic)
    of = {"kind": "video", "worker": W1}
    assert scrape.value("sgl_droute_jobs_ended_total", how="completed", **of) == 2
    assert scrape.value("sgl_droute_jobs_ended_total", how="lost", **of) == 1
    assert scrape.value("sgl_droute_job_seconds_count", **of) == 1
    assert scrape.value("sgl_droute_job_seconds_sum", **of) == 42


def happened(traffic: Traffic, name: str, time: float, **fields: Any) -> None:
    want = fields.pop("want", VIDEO)
    job = Job(id="j1", want=want, submitted=0.0)
    traffic.job_happened(Event(name, time, job, W1, **fields))


def test_predictions_of_videos(traffic: Traffic) -> None:
    """
    The GPU time that was predicted when a worker was given a video is compared with what it took,
    once, whatever was before it and whenever that is learned.
    """
    happened(traffic, "submitted", 5.0)
    happened(traffic, "bound", 10.0, start=30.0, end=50.0)
    happened(traffic, "ended", 70.0, took=25.0, reason="well")
    happened(traffic, "ended", 90.0, took=25.0, reason="well")
    scrape = scraped(traffic)
    of = {"kind": "video", "worker": W1}
    assert scrape.value("sgl_droute_prediction_ratio_count", **of) == 1
    assert scrape.value("sgl_droute_prediction_ratio_sum", **of) == 1.25


@pytest.mark.parametrize("end", ["untold", "unreached", "abandoned", "image", "unknown"])
def test_videos_that_say_nothing_of_predictions(traffic: Traffic, end: str) -> None:
    """
    Those that failed or went elsewhere do not count; images are counted with their requests.
    """
    want = IMAGE if end == "image" else VIDEO
    happened(traffic, "bound", 10.0, start=10.0, end=10.0 if end == "unknown" else 20.0, want=want)
    if end in ("unreached", "abandoned"):
        happened(traffic, end, 15.0)
    happened(traffic, "ended", 20.0, took=None if end == "untold" else 10.0, want=want)
    assert list(scraped(traffic).samples("sgl_droute_prediction_ratio_count")) == []
    assert traffic._predicted == {}


@pytest.mark.parametrize(
    ("probe", "result"),
    [
        (Probe(healthy=True), "healthy"),
        (Probe(healthy=False, gone=True), "unhealthy"),
        (Probe(healthy=False, silent=True), "timeout"),
        (Probe(healthy=False, silent=True, gone=True), "broken"),
        (Probe(healthy=False, silent=True, gone=True, refused=True), "refused"),
    ],
)
def test_health_checks(traffic: Traffic, pool: Pool, probe: Probe, result: str) -> None:
    """
    Each counts, by how it went.
    """
    assert result_of(probe) == result
    traffic.probed(pool[W2], probe)
    assert scraped(traffic).value("sgl_droute_probes_total", worker=W2, result=result) == 1


def test_a_worker_that_leaves(traffic: Traffic, pool: Pool) -> None:
    """
    Its series go with it; what ends later and was with it counts for no worker by name.
    """
    for worker in (W1, W2):
        ended(traffic, worker=worker, expected=1.0)
        traffic.probed(pool[worker], Probe(healthy=True))
    left = pool.remove(W1)
    ended(traffic, worker=W1, expected=1.0)
    traffic.job_ended(a_job("lost"))
    traffic.probed(left, Probe(healthy=True))
    scrape = scraped(traffic)
    workers = [each.labels["worker"] for each in scrape.samples() if "worker" in each.labels]
    assert set(workers) == {W2, GONE}
    assert scrape.total("sgl_droute_requests_total", worker=GONE) == 1
    assert scrape.total("sgl_droute_request_seconds_count") == 3  # by route, not by worker


ROUTES = {rule.rule for rule in RouterAPI.routes.url_map.iter_rules()}
CODES = documented()
accounts = st.fixed_dictionaries(
    {
        "method": st.sampled_from(sorted(METHODS)) | st.text(),
        "path": st.text(),
        "route": st.sampled_from(["", *sorted(ROUTES)]),
        "worker": st.none() | st.integers(0, 30).map("http://w{}:1".format),
        "status": st.sampled_from([0, 101]) | st.integers(200, 599),
        "code": st.sampled_from(CODES),
        "kind": st.sampled_from(["", *KINDS]),
        "expected": st.none() | st.floats(0, 100),
        "bound": st.none() | st.floats(100.001, 101),
        "answered": st.none() | st.floats(101, 102),
        "ended": st.floats(102, 103),
    }
)
churn = st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 30))


@given(st.lists(accounts | churn, max_size=60))
def test_labels_are_bounded(steps: list[Any]) -> None:
    """
    Whatever clients send and however workers come and go, a label has only values of a set that is
    known beforehand, and no other worker than those that are registered.
    """
    pool = Pool()
    traffic = Traffic(pool)
    requests = 0
    for step in steps:
        if isinstance(step, dict):
            traffic.request_ended(an_account(**step))
            requests += 1
        else:
            what, number = step
            url = f"http://w{number}:1"
            if what == "add":
                pool.add(url)
            elif url in pool:
                pool.remove(url)
    allowed = {
        "route": ROUTES | {NONE},
        "method": METHODS | {OTHER},
        "worker": {worker.url for worker in pool} | {NONE, GONE},
        "code": set(CODES),
        "status": {NONE, "1xx", "2xx", "3xx", "4xx", "5xx"},
        "kind": set(KINDS),
    }
    scrape = scraped(traffic)
    for sample in scrape.samples():
        for label, value in sample.labels.items():
            assert label == "le" or value in allowed[label], sample
    assert scrape.total("sgl_droute_request_seconds_count") == requests
