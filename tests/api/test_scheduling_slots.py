"""
Slots of workers in front of a waiting line, and what clients that leave or wait do with them.
"""

from __future__ import annotations

import random

import pytest

from sgl_droute.simulator.faults import parse_orders
from tests.api.line import (
    SECONDS,
    answer,
    arrived,
    header,
    lined,
    parking_of,
    post,
    queue,
    served,
    slow,
)
from tests.integration.wire import open_files

# Slots.


def test_a_third_image_waits() -> None:
    """
    With one slot per worker the third request for two workers waits in the router, and goes out at
    the moment when one of them is done.
    """
    router = lined("a", "b")
    clients = [post(router, number) for number in range(3)]
    assert router.loads == {"http://a:1": 1, "http://b:1": 1}
    router.wait(SECONDS - 1)
    assert served(router) == ["0", "1"]
    assert arrived(router, "a") + arrived(router, "b") == 2
    router.wait(1)
    assert [client.reply is not None for client in clients] == [True, True, False]
    assert served(router) == ["0", "1", "2"]
    router.wait(SECONDS)
    assert answer(clients[2]).status == 200


def test_no_limit_unless_told() -> None:
    """
    Without the option every request goes to a worker at once.
    """
    router = lined("a", "b", worker_concurrency=0)
    for _ in range(6):
        post(router)
    assert set(router.loads.values()) == {3}
    assert queue(router)["waiting"] == []


def test_as_many_as_replicas() -> None:
    """
    With ``auto`` a worker gets as many requests at once as it says that it has replicas.
    """
    router = lined("a", worker_concurrency="auto", simulator=slow(dp_size=2))
    for number in range(3):
        post(router, number)
    assert served(router) == ["0", "1"]
    assert arrived(router, "a") == 2


@pytest.mark.parametrize("ahead", [0.5, 2.0])
def test_the_next_one_is_there_in_time(ahead: float) -> None:
    """
    With ``auto`` a worker whose speed is known gets the next request ``bind_ahead`` seconds before
    the predicted end of the one before.
    """
    router = lined("a", learned=6, worker_concurrency="auto", bind_ahead=ahead)
    for _ in range(2):
        post(router)
    router.wait(SECONDS - ahead - 0.2, step=0.1)
    assert arrived(router, "a") == 1
    router.wait(0.4, step=0.1)
    assert arrived(router, "a") == 2


def test_a_number_is_exact() -> None:
    """
    With a number nothing is given ahead.
    """
    router = lined("a", learned=6, worker_concurrency=1)
    for _ in range(2):
        post(router)
    router.wait(SECONDS - 0.2, step=0.1)
    assert arrived(router, "a") == 1


@pytest.mark.parametrize("path", ["/server_info", "/v1/models", "/some/path", "/stats"])
def test_reading_takes_no_slot(path: str) -> None:
    """
    What is only read goes to a worker though all are busy.
    """
    router = lined("a")
    clients = [post(router, number) for number in range(2)]
    reading = router.begin("GET", path)
    assert [each["state"] for each in queue(router)["running"]][1:] in ([], ["open"])
    if path != "/stats":  # that waits for the GPU, at the worker
        assert reading.reply is not None
    assert clients[1].reply is None
    assert queue(router)["waiting_count"] == 1


def test_a_limit_that_is_raised() -> None:
    """
    A limit of its own holds for one worker, and what waits goes there at once.
    """
    router = lined("a", "b")
    for number in range(5):
        post(router, number)
    told = router.ask("PUT", "/workers/http%3A%2F%2Fa%3A1", json={"concurrency": 3})
    assert told.status == 200
    router.settle()
    assert router.loads == {"http://a:1": 3, "http://b:1": 1}
    assert queue(router)["waiting_count"] == 1


def test_a_worker_that_failed_is_free() -> None:
    """
    An image that failed gives its slot back like any other.
    """
    router = lined("a")
    router.workers["a"].backstage.obey(parse_orders({"fail_generations": 1}))
    first, second = post(router), post(router)
    router.wait(SECONDS)
    assert answer(first).status == 500
    router.wait(SECONDS)
    assert answer(second).status == 200


def test_a_new_worker_gets_what_waits() -> None:
    """
    A worker that is added serves the line at once.
    """
    router = lined("a")
    for number in range(2):
        post(router, number)
    router.start_worker("b")
    router.ask("POST", "/add_worker?url=http://b:1")
    router.settle()
    assert arrived(router, "b") == 1


def test_the_line_of_a_fleet_that_is_gone() -> None:
    """
    When the last worker leaves nobody waits on.
    """
    router = lined("a")
    clients = [post(router) for _ in range(3)]
    router.ask("DELETE", "/workers/http%3A%2F%2Fa%3A1")
    router.settle()
    assert [answer(client).status for client in clients[1:]] == [503, 503]
    assert all(header(answer(client), "X-Router-Job") for client in clients[1:])


def test_who_could_not_be_reached_is_tried_no_more() -> None:
    """
    A request whose worker was not reached takes its old place again and goes to another one.
    """
    router = lined("a", "b")
    first = post(router, "first")
    [busy] = [url for url, load in router.loads.items() if load]
    idle = "b" if busy == "http://a:1" else "a"
    router.stop_worker(idle)
    clients = [post(router, name) for name in ("second", "third")]
    assert all(client.reply is None for client in clients)
    assert [each["position"] for each in queue(router)["waiting"]] == [1, 2]
    router.until(lambda: clients[1].reply is not None)
    assert served(router) == ["first", "second", "third"]
    assert {answer(client).status for client in [first, *clients]} == {200}


# Clients that leave.


def test_leaving_the_line() -> None:
    """
    A client that hangs up while it waits is gone from the line at once, and its request never
    reaches a worker.
    """
    router = lined("a")
    post(router, "first")
    second, third = post(router, "second"), post(router, "third")
    second.hang_up()
    router.settle()
    assert [each["position"] for each in queue(router)["waiting"]] == [1]
    router.until(lambda: third.reply is not None)
    router.wait(2 * SECONDS)
    assert served(router) == ["first", "third"]


def test_leaving_a_worker() -> None:
    """
    After a client hung up its worker works on, and counts as busy until the predicted end.
    """
    router = lined("a", learned=6)
    first, second = post(router, "first"), post(router, "second")
    router.wait(3)
    first.hang_up()
    router.settle()
    shown = queue(router)
    assert [each["state"] for each in shown["running"]] == ["abandoned"]
    assert shown["waiting_count"] == 1
    router.wait(SECONDS - 4)
    assert arrived(router, "a") == 1
    router.wait(1.5)
    assert arrived(router, "a") == 2
    router.until(lambda: second.reply is not None)
    assert queue(router)["running"] == []


def test_a_worker_that_answers_too_late() -> None:
    """
    A request that took longer than ``timeout`` counts until its predicted end too.
    """
    router = lined("a", learned=6, timeout=SECONDS + 1)
    router.workers["a"].backstage.obey(parse_orders({"slow": 1.5}))
    first, second = post(router, "first"), post(router, "second")
    router.wait(SECONDS + 1.5, step=0.5)
    assert answer(first).status == 504
    assert header(answer(first), "X-Router-Job")
    assert second.reply is None
    assert arrived(router, "a") == 1
    router.until(lambda: second.reply is not None)


# Bodies of requests that wait.


@pytest.mark.parametrize("size", [0, 100, 60_000, 1 << 20, 3_000_001])
@pytest.mark.parametrize("limit", [0, 32 << 20])
def test_bodies_arrive_unchanged(size: int, limit: int) -> None:
    """
    The body of a request that waited arrives as it was sent, wherever it was kept meanwhile.
    """
    router = lined("a")
    parking_of(router).limit = limit
    body = random.Random(size).randbytes(size)
    first = post(router)
    client = router.begin("POST", "/simulator/echo", data=body)
    router.wait(1)
    assert client.reply is None
    in_memory = size < 100_000  # by the stock request class, which serves here
    assert parking_of(router).held == (size if limit and in_memory else 0)
    router.until(lambda: client.reply is not None)
    assert answer(client).body == body
    assert answer(first).status == 200
    assert parking_of(router).held == 0


def test_bodies_of_clients_that_left() -> None:
    """
    Nothing is kept of the bodies of those that left the line.
    """
    router = lined("a")
    parking_of(router).limit = 100_000
    post(router)
    clients = [router.begin("POST", "/simulator/echo", data=b"x" * 60_000) for _ in range(4)]
    assert parking_of(router).held == 60_000
    before = open_files()
    for client in clients:
        client.hang_up()
    router.settle()
    assert parking_of(router).held == 0
    assert open_files() == before - 1
