"""
``GET /metrics``: how the fleet is at the moment of a scrape, and the forms that it comes in.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily

from sgl_droute.api.telemetry.exposition import _encoded, encoder_for
from sgl_droute.api.telemetry.fleet_metrics import STATES, name_of
from sgl_droute.fleet.capabilities import Capabilities
from sgl_droute.fleet.worker import Worker
from sgl_droute.simulator.settings import SimulatorSettings
from tests.api.scraping import Scrape
from tests.memory import MemoryRouter

IMAGE = {"prompt": "a fox", "size": "64x64"}
VIDEO = {"prompt": "a fox runs", "size": "64x64", "num_frames": 5}
A, B = "http://a:1", "http://b:1"
OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
METRICS = {
    *("sgl_droute_requests", "sgl_droute_request_bytes", "sgl_droute_response_bytes"),
    *("sgl_droute_request_seconds", "sgl_droute_queue_seconds", "sgl_droute_first_byte_seconds"),
    *("sgl_droute_prediction_ratio", "sgl_droute_reactor_lag_seconds"),
    *("sgl_droute_in_flight", "sgl_droute_waiting", "sgl_droute_waiting_work_seconds"),
    *("sgl_droute_jobs", "sgl_droute_jobs_ended", "sgl_droute_job_seconds"),
    *("sgl_droute_client_connections", "sgl_droute_probes"),
    *("sgl_droute_workers", "sgl_droute_worker_state", "sgl_droute_worker_info"),
    *("sgl_droute_worker_in_flight", "sgl_droute_worker_jobs", "sgl_droute_worker_failures"),
    *("sgl_droute_worker_backlog_seconds", "sgl_droute_worker_weights_epoch"),
    *("sgl_droute_weights_epoch", "sgl_droute_build_info"),
}


def started(*workers: str, **options: Any) -> MemoryRouter:
    router = MemoryRouter(*workers, **options)
    router.service.startService()
    router.settle()
    return router


def scraped(router: MemoryRouter) -> Scrape:
    answer = router.ask("GET", "/metrics")
    assert answer.status == 200, answer.body
    return Scrape.parsed(answer.body)


def test_an_empty_fleet() -> None:
    """
    Every metric is there before there is a worker or a request; what needs no label is a number.
    """
    scrape = scraped(MemoryRouter())
    assert {name for name in scrape.families if name.startswith("sgl_droute")} == METRICS
    for name in ("waiting", "waiting_work_seconds", "jobs", "client_connections"):
        assert scrape.value(f"sgl_droute_{name}") == 0
    assert scrape.value("sgl_droute_reactor_lag_seconds_count") == 0
    assert [scrape.value("sgl_droute_workers", state=state) for state in STATES] == [0] * 9
    assert scrape.value("sgl_droute_in_flight") == 1  # the scrape


def test_the_process() -> None:
    """
    The metrics of the process have the names that all dashboards know.
    """
    scrape = scraped(MemoryRouter())
    assert (scrape.value("process_resident_memory_bytes") or 0) > 1_000_000
    assert (scrape.value("process_open_fds") or 0) > 2
    assert (scrape.value("process_cpu_seconds_total") or 0) > 0
    assert scrape.labels("python_gc_collections_total", "generation") == {"0", "1", "2"}
    (build,) = scrape.samples("sgl_droute_build_info")
    assert set(build.labels) == {"version", "python", "twisted"}


def test_requests_and_workers() -> None:
    """
    A request shows while it waits, while a worker has it, and when it has ended.
    """
    router = started("a", worker_concurrency=1)
    first = router.begin("POST", "/v1/images/generations", json=IMAGE)
    second = router.begin("POST", "/v1/images/generations", json=IMAGE)
    during = scraped(router)
    assert during.value("sgl_droute_in_flight") == 3
    assert during.value("sgl_droute_waiting") == 1
    assert (during.value("sgl_droute_waiting_work_seconds") or 0) > 0
    assert during.value("sgl_droute_worker_in_flight", worker=A) == 1
    assert (during.value("sgl_droute_worker_backlog_seconds", worker=A) or 0) > 0
    router.until(lambda: first.reply is not None and second.reply is not None)
    after = scraped(router)
    assert after.value("sgl_droute_waiting") == 0
    assert after.value("sgl_droute_worker_in_flight", worker=A) == 0
    assert after.total("sgl_droute_requests_total", worker=A, code="done", status="2xx") == 2
    assert after.value("sgl_droute_queue_seconds_count", kind="image") == 2
    assert (after.value("sgl_droute_queue_seconds_sum", kind="image") or 0) > 0
    assert after.value("sgl_droute_prediction_ratio_count", kind="image", worker=A) == 2
    assert after.total("sgl_droute_requests_total", route="/metrics") == 1


def test_refusals_and_strange_requests() -> None:
    """
    Refusals count by their reason; paths that the router does not know count together.
    """
    router = started()
    for path in ("/v1/images/generations", "/x/1", "/x/2?y=3"):
        assert router.ask("POST", path, json=IMAGE).status == 503
    router.ask("DELETE", "/health")
    scrape = scraped(router)
    of = {"code": "no_worker", "status": "5xx", "worker": "none"}
    assert scrape.total("sgl_droute_requests_total", route="/v1/images/generations", **of) == 1
    assert scrape.total("sgl_droute_requests_total", route="/<any:path>", **of) == 2
    refused = {"route": "/health", "code": "method_not_allowed", "method": "DELETE"}
    assert scrape.total("sgl_droute_requests_total", **refused) == 1


def test_videos() -> None:
    """
    A video counts while it is open; then how it ended, its GPU time, and how well its end was
    predicted.
    """
    router = started("a", simulator=SimulatorSettings(model="fastwan", speed=0.001))
    of = {"kind": "video", "worker": A}
    for number in (1, 2):
        assert router.ask("POST", "/v1/videos", json=VIDEO).status == 200
        during = scraped(router)
        assert during.value("sgl_droute_jobs") == 1
        assert during.value("sgl_droute_worker_jobs", worker=A) == 1
        router.until(lambda: not len(router.service.holdings.jobs))
        after = scraped(router)
        assert after.value("sgl_droute_jobs_ended_total", how="completed", **of) == number
        assert after.value("sgl_droute_job_seconds_count", **of) == number
    assert after.value("sgl_droute_prediction_ratio_count", **of) == 2
    # The second one was predicted from the first.
    assert after.value("sgl_droute_prediction_ratio_bucket", le="1.1", **of) == 1
    assert after.value("sgl_droute_prediction_ratio_bucket", le="0.9", **of) == 0


def test_states() -> None:
    """
    Each worker is in one state, of all that there are; the fleet has as many as it has workers.
    """
    router = started("a", "b")
    router.ask("PUT", "/workers/http%3A%2F%2Fb%3A1", json={"disabled": True})
    scrape = scraped(router)
    assert scrape.value("sgl_droute_workers", state="ready") == 1
    assert scrape.value("sgl_droute_workers", state="disabled") == 1
    for worker, state in ((A, "ready"), (B, "disabled")):
        assert scrape.value("sgl_droute_worker_state", worker=worker, state=state) == 1
        assert scrape.total("sgl_droute_worker_state", worker=worker) == 1
    assert scrape.total("sgl_droute_workers") == 2
    new = Worker(url=A, serial=1)
    proven = evolve(new, proven=True)
    facets: list[dict[str, Any]] = [
        {flag: True}
        for flag in ("dead", "disabled", "draining", "asleep", "updating", "stale", "unreached")
    ]
    words = {new.state, proven.state, *(evolve(proven, **facet).state for facet in facets)}
    assert set(STATES) == words


def test_health_checks() -> None:
    """
    They count by result, and failures in a row show until one goes well.
    """
    router = started("a", "b", health_check_interval=10.0)
    router.stop_worker("b")
    router.wait(10)
    scrape = scraped(router)
    assert scrape.value("sgl_droute_probes_total", worker=A, result="healthy") == 2
    assert scrape.value("sgl_droute_probes_total", worker=B, result="refused") == 1
    assert scrape.value("sgl_droute_worker_failures", worker=A) == 0
    assert scrape.value("sgl_droute_worker_failures", worker=B) == 1


def test_epochs() -> None:
    """
    What a model is to have and what each worker has; nothing of a worker of which that is not sure.
    """
    router = started("a", "b")
    client = router.begin("POST", "/update_weights_from_disk", json={"model_path": "/weights/2"})
    router.until(lambda: client.reply is not None)
    assert client.reply is not None
    assert client.reply.status == 200
    scrape = scraped(router)
    model = "Qwen/Qwen-Image"
    assert scrape.value("sgl_droute_weights_epoch", model=model) == 1
    assert scrape.value("sgl_droute_worker_weights_epoch", worker=A) == 1
    assert scrape.value("sgl_droute_worker_info", worker=B, model=model) == 1
    pool = router.service.pool
    pool.record_lapse(pool[B])
    later = scraped(router)
    assert later.labels("sgl_droute_worker_weights_epoch", "worker") == {A}


def test_workers_that_leave() -> None:
    """
    Nothing of a removed worker is left, so that those who come and go do not add up.
    """
    router = started("a", "b")
    router.ask("POST", "/add_worker", params={"url": "http://c:1"})
    client = router.begin("POST", "/v1/images/generations", json=IMAGE)
    router.until(lambda: client.reply is not None)
    before = scraped(router)
    assert "http://c:1" in before.labels("sgl_droute_worker_state", "worker")
    for url in (A, B, "http://c:1"):
        assert router.ask("POST", "/remove_worker", params={"url": url}).status == 200
    labelled = [
        each.labels["worker"] for each in scraped(router).samples() if "worker" in each.labels
    ]
    assert set(labelled) == {"none"}


def test_lag() -> None:
    """
    How late the reactor is is measured while the router runs.
    """
    router = started()
    router.wait(5, step=0.5)
    assert scraped(router).value("sgl_droute_reactor_lag_seconds_bucket", le="0.001") == 10
    router.clock.advance(3.0)
    scrape = scraped(router)
    assert scrape.value("sgl_droute_reactor_lag_seconds_count") == 11
    assert scrape.value("sgl_droute_reactor_lag_seconds_sum") == 2.5


def test_open_metrics() -> None:
    """
    A client that prefers OpenMetrics gets that, and it is valid and has the same series.
    """
    router = started("a")
    client = router.begin("POST", "/v1/images/generations", json=IMAGE)
    router.until(lambda: client.reply is not None)
    answer = router.ask("GET", "/metrics", headers={"Accept": OPEN_METRICS})
    kind = answer.headers.getRawHeaders("content-type", [""])[0]
    assert kind.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert answer.body.endswith(b"\n# EOF\n")
    assert answer.body.count(b"# EOF") == 1
    open_one, plain = Scrape.parsed(answer.body, open_metrics=True), scraped(router)
    assert {each.name for each in open_one.samples()} == {each.name for each in plain.samples()}


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "text/plain;version=0.0.4",
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;version=2.\xe9",
        "application/openmetrics-text;version=0.0.1",
        ";;=,",
    ],
)
def test_the_plain_format(accept: str | None) -> None:
    """
    Whoever asks for nothing else, or for nonsense, gets the text format.
    """
    headers = {} if accept is None else {"Accept": accept.encode("latin-1")}
    answer = MemoryRouter().ask("GET", "/metrics", headers=headers)
    assert answer.status == 200
    kind = "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers.getRawHeaders("content-type") == [kind]
    assert Scrape.parsed(answer.body).value("sgl_droute_waiting") == 0


def test_head() -> None:
    """
    HEAD answers without a body.
    """
    answer = MemoryRouter().ask("HEAD", "/metrics")
    assert (answer.status, answer.body) == (200, b"")


def test_routers_of_one_process() -> None:
    """
    Each has its own numbers.
    """
    one, other = started("a"), started("a", "b")
    one.ask("GET", "/v1/models")
    assert scraped(one).total("sgl_droute_requests_total", route="/v1/models") == 1
    assert scraped(other).total("sgl_droute_requests_total") == 0
    assert scraped(other).total("sgl_droute_workers") == 2


@pytest.mark.parametrize("path", ["/metrics", "/engine_metrics"])
def test_operators_only(path: str, tmp_path: Path) -> None:
    """
    Where there are keys, metrics need one of an operator.
    """
    for name in ("api", "admin"):
        digest = sha256(f"{name}-key".encode()).hexdigest()
        (tmp_path / name).write_text(f"{name} sha256:{digest}\n")
        (tmp_path / name).chmod(0o600)
    keys = {"api_keys": str(tmp_path / "api"), "admin_keys": str(tmp_path / "admin")}
    router = started(**keys)
    told = {
        key: router.ask("GET", path, headers={"Authorization": f"Bearer {key}"}).status
        for key in ("api-key", "admin-key")
    }
    assert told == {"api-key": 403, "admin-key": 200}
    assert router.ask("GET", path).status == 401


def test_names_of_models() -> None:
    """
    Workers choose their models' names: any text can be told, and no more than a line of it.
    """
    assert name_of(None) == "unknown"
    assert name_of("a" * 1000) == "a" * 200
    assert name_of("half \ud83d") == "half ?"
    router = MemoryRouter("a")
    pool = router.service.pool
    pool.record_capabilities(pool[A], Capabilities(model='"\\\n\ud83d'))
    assert scraped(router).labels("sgl_droute_worker_info", "model") == {'"\\\n?'}


@pytest.mark.parametrize("accept", [b"", OPEN_METRICS.encode()])
def test_large_families(accept: bytes) -> None:
    """
    A family with many series is written in pieces, which make the same text as in one.
    """
    families: list[Metric] = []
    for number, size in enumerate((0, 1, 500, 501, 1250)):
        family = GaugeMetricFamily(f"family_{number}", "# It\nhas lines.", labels=("number",))
        for value in range(size):
            family.add_metric([str(value)], value)
        families.append(family)

    class Collector:
        def collect(self) -> list[Metric]:
            return families

    registry = CollectorRegistry()
    registry.register(Collector())
    encode, _ = encoder_for(accept)
    for _ in range(2):
        parts: list[bytes] = []
        steps = sum(1 for _ in _encoded(families, encode, parts))
        assert steps == 1 + 1 + 1 + 2 + 3
        assert b"".join(parts) == encode(registry).removesuffix(b"# EOF\n")
