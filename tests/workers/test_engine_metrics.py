"""
The workers' own metrics, put together.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from treq.testing import RequestTraversalAgent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from sgl_droute.fleet.worker import Probe
from sgl_droute.workers.engine_metrics import LARGEST_SCRAPE, LONGEST_LINE, UP, Merged
from tests.api.scraping import Scrape
from tests.memory import MemoryRouter

A, B, X = "http://a:1", "http://b:1", "http://x:1"


class Odd(Resource):
    """
    A worker that answers every request so; never if that is None.
    """

    isLeaf = True

    def __init__(self, body: bytes | None, status: int = 200) -> None:
        super().__init__()
        self.body, self.status = body, status
        self.asked: list[Request] = []

    def render_GET(self, request: Request) -> bytes | int:
        self.asked.append(request)
        request.setResponseCode(self.status)
        return NOT_DONE_YET if self.body is None else self.body


def with_odd(odd: Odd, *workers: str) -> MemoryRouter:
    """
    A router with simulated *workers* and one odd one.
    """
    router = MemoryRouter(*workers, registered=(*workers, "x"))
    router.network.agents[X.encode()] = RequestTraversalAgent(odd)
    return router


def answered(router: MemoryRouter) -> bytes:
    client = router.begin("GET", "/engine_metrics")
    if client.reply is None:
        router.wait(10)
    assert client.reply is not None
    assert client.reply.status == 200, client.reply.body
    kind = "text/plain; version=0.0.4; charset=utf-8"
    assert client.reply.headers.getRawHeaders("content-type") == [kind]
    return client.reply.body


def scraped(router: MemoryRouter) -> Scrape:
    return Scrape.parsed(answered(router))


def merged(**texts: str) -> Merged:
    """
    What workers that have names instead of URLs expose.
    """
    merged = Merged()
    for worker, text in texts.items():
        merged.add(worker, list(text_string_to_metric_families(text)))
    return merged


def test_all_workers() -> None:
    """
    Each family is there once, with a series for each worker.
    """
    router = MemoryRouter("a", "b")
    scrape = scraped(router)
    for name in ("sglang:diffusion_num_queue_reqs", "sglang:http_requests_total", UP):
        assert scrape.labels(name, "worker") == {A, B}
    assert scrape.total(UP) == 2
    assert scrape.families["sglang:diffusion_requests"].type == "counter"
    of = {"status": "success", "is_warmup": "false"}
    assert scrape.value("sglang:diffusion_requests_total", worker=A, **of) == 0


def test_no_workers() -> None:
    """
    Without workers it is empty, and no error.
    """
    assert set(scraped(MemoryRouter()).families) == {UP}


@pytest.mark.parametrize(
    "odd",
    [
        Odd(b"", 404),
        Odd(b"", 500),
        Odd(b"<html>hello</html>"),
        Odd(b"a{ 1\n"),
        Odd(b"a 1\n" * (LARGEST_SCRAPE // 4) + b"\n"),
        Odd(b'a{x="%b"} 1\n' % (b"y" * LONGEST_LINE)),
        Odd(b"\xff\xfe\x00"),
        Odd(None),
    ],
    ids=["off", "broken", "html", "torn", "large", "long line", "binary", "hanging"],
)
def test_a_worker_without_metrics(odd: Odd) -> None:
    """
    A worker that gives none, or none that can be read, is told so; the others are there.
    """
    scrape = scraped(with_odd(odd, "a"))
    assert scrape.value(UP, worker=X) == 0
    assert scrape.value(UP, worker=A) == 1
    assert scrape.labels("sglang:http_requests_total", "worker") == {A}


def test_workers_that_are_gone() -> None:
    """
    One that nobody listens for is told so; a quarantined one is not even asked.
    """
    odd = Odd(b"a 1\n")
    router = with_odd(odd, "a", "b")
    router.stop_worker("b")
    pool = router.service.pool
    pool.record_probe(pool[X], Probe(healthy=False), threshold=1)
    scrape = scraped(router)
    assert [scrape.value(UP, worker=worker) for worker in (A, B, X)] == [1, 0, 0]
    assert odd.asked == []


def test_who_asks_meanwhile() -> None:
    """
    Two who ask at the same time cost a worker one question, and both get all of the answer.
    """
    text = b"".join(b'a{x="%d"} 1\n' % number for number in range(1200))
    odd = Odd(None)
    router = with_odd(odd)
    one, two = (router.begin("GET", "/engine_metrics") for _ in range(2))
    assert len(odd.asked) == 1
    odd.asked[0].write(text)
    odd.asked[0].finish()
    router.settle()
    for client in (one, two):
        assert client.reply is not None
        assert Scrape.parsed(client.reply.body).total("a", worker=X) == 1200


def test_a_client_that_leaves() -> None:
    """
    It takes nothing from one who asked with it, and a later one asks anew.
    """
    odd = Odd(None)
    router = with_odd(odd)
    one, two = (router.begin("GET", "/engine_metrics") for _ in range(2))
    one.hang_up()
    router.settle()
    odd.asked[0].write(b"a 1\n")
    odd.asked[0].finish()
    router.settle()
    assert two.reply is not None
    assert Scrape.parsed(two.reply.body).value("a", worker=X) == 1
    router.begin("GET", "/engine_metrics")
    assert len(odd.asked) == 2


def test_labels() -> None:
    """
    The worker is a label; one that was called so before is kept under another name.
    """
    text = 'a{worker="7"} 1\na{worker="7",exported_worker="8"} 2\na{x="1"} 3 1700000000000\n'
    (family,) = merged(w=text).families.values()
    assert [(each.labels, each.value, each.timestamp) for each in family.samples] == [
        ({"worker": "w", "exported_worker": "7"}, 1, None),
        ({"worker": "w", "exported_worker": "8", "exported_exported_worker": "7"}, 2, None),
        ({"worker": "w", "x": "1"}, 3, None),
    ]


def test_types() -> None:
    """
    A family that workers have as different types is that of the first; nobody can say that a
    worker is up but the router.
    """
    families = merged(
        a="# HELP m About m.\n# TYPE m gauge\nm 1\n# TYPE n_total counter\nn_total 1\n",
        b="# TYPE m histogram\nm_count 1\n# TYPE n_total gauge\nn_total 2\n",
        c=f'# TYPE m gauge\nm 3\n{UP}{{worker="http://other"}} 1\n',
    ).families
    assert families["m"].documentation == "About m."
    assert [each.labels["worker"] for each in families["m"].samples] == ["a", "c"]
    assert [each.labels["worker"] for each in families["n_total"].samples] == ["a"]
    assert UP not in families


LINES = st.sampled_from(
    [
        "# HELP a_total help",
        "# TYPE a_total counter",
        'a_total{x="1",y="q\\"\\n"} 1 NaN',
        "# TYPE h histogram",
        'h_bucket{le="+Inf"} 4',
        "h_count 4",
        "1s{} NaN",
        "",
    ]
)


@given(st.lists(LINES | st.text(max_size=20), max_size=8).map("\n".join))
def test_any_text(text: str) -> None:
    """
    Whatever a worker says is its metrics: the answer is one that can be read, with all that the
    others say.
    """
    body = answered(with_odd(Odd(text.encode("utf-8", "replace")), "a"))
    families = list(text_string_to_metric_families(body.decode("utf-8")))
    up = {each.labels["worker"]: each.value for each in families[0].samples}
    assert up in ({A: 1, X: 0}, {A: 1, X: 1})
    assert "sglang:http_requests_active" in {family.name for family in families}
