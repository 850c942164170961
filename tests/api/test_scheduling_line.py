"""
The waiting line as clients see it: who comes first, limits, and rollouts.
"""

from __future__ import annotations

import json

import pytest

from tests.api.line import SECONDS, answer, arrived, batch, header, lined, post, queue, served, slow

# Order.


def test_higher_priority_first() -> None:
    """
    Who waits is served by ``X-Priority``, higher first, and within that in order of arrival.
    """
    router = lined("a")
    post(router, "first")
    clients = [
        post(router, f"{priority}.{number}", X_Priority=priority)
        for number in range(2)
        for priority in (-1, 0, 3)
    ]
    router.until(lambda: all(client.reply for client in clients))
    assert served(router) == ["first", "3.0", "3.1", "0.0", "0.1", "-1.0", "-1.1"]


def test_the_highest_priority() -> None:
    """
    Priorities beyond ``max_priority`` count as that, above and below.
    """
    router = lined("a", max_priority=2)
    post(router, "first")
    wished = {"low": -9, "lowest": -2, "two": 2, "nine": 9, "one": 1}
    clients = [post(router, name, X_Priority=each) for name, each in wished.items()]
    assert {each["priority"] for each in queue(router)["waiting"]} == {-2, 1, 2}
    router.until(lambda: all(client.reply for client in clients))
    assert served(router)[1:] == ["two", "nine", "one", "low", "lowest"]


@pytest.mark.parametrize("value", ["", "high", "1.5", "0x1", "1 2"])
def test_a_priority_that_is_none(value: str) -> None:
    """
    A priority that is no whole number is refused, and nothing is sent.
    """
    router = lined("a")
    reply = answer(post(router, X_Priority=value))
    assert reply.status == 400
    assert "X-Priority" in reply.json["error"]
    assert arrived(router, "a") == 0


def test_nobody_starves() -> None:
    """
    A minute of waiting outweighs one level of priority.
    """
    router = lined("a", simulator=slow(0.1))
    post(router, "first")
    old = post(router, "old")
    router.wait(61)
    clients = [post(router, "one", X_Priority=1), post(router, "two", X_Priority=2), old]
    router.until(lambda: all(client.reply for client in clients))
    assert served(router) == ["first", "two", "old", "one"]


def test_clients_take_turns() -> None:
    """
    With ``fair`` a client with many requests does not keep another one waiting for all of them.
    """
    router = lined("a", fair=True)
    post(router, "first")
    clients = [post(router, f"many {n}", X_Client_Id="many") for n in range(4)]
    clients += [post(router, f"few {n}", X_Client_Id="few") for n in range(2)]
    router.until(lambda: all(client.reply for client in clients))
    assert served(router)[1:] == ["many 0", "few 0", "many 1", "few 1", "many 2", "many 3"]


def test_turns_only_if_told() -> None:
    """
    Without ``fair`` the order is that of arrival, whoever asks.
    """
    router = lined("a")
    names = [f"many {n}" for n in range(3)] + ["few 0"]
    clients = [post(router, "first")]
    clients += [post(router, name, X_Client_Id=name.split()[0]) for name in names]
    router.until(lambda: all(client.reply for client in clients))
    assert served(router) == ["first", *names]


def test_keys_are_clients() -> None:
    """
    A client is known by its key before its name, and the key is shown nowhere.
    """
    router = lined("a", fair=True)
    post(router, "first")
    for number in range(2):
        post(router, number, Authorization="Bearer secret", X_Client_Id=number)
    post(router, 2, X_Client_Id="other")
    shown = queue(router)
    clients = {each["client"] for each in shown["waiting"]}
    assert len(clients) == 2
    assert "secret" not in json.dumps(shown)
    assert [each["client"] for each in shown["waiting"]][1] == "id:other"


# Limits.


def test_a_deadline_that_cannot_be_kept() -> None:
    """
    Once five requests have taught how long they take, one that would end behind its deadline is
    refused at once, with the seconds by which it would be late.
    """
    router = lined("a", learned=5)
    reply = answer(post(router, X_Deadline_Ms=4000))
    assert reply.status == 429
    assert reply.json["reason"] == "deadline"
    assert reply.json["retry_after"] == 6
    assert reply.json["queue_position"] == 1
    assert header(reply, "Retry-After") == "6"
    assert header(reply, "X-Router-Job")
    assert arrived(router, "a") == 0
    assert queue(router)["waiting_count"] == 0


def test_a_deadline_behind_others() -> None:
    """
    What runs and waits before a request counts against its deadline; what waits behind it, with
    lower priority, does not.
    """
    router = lined("a", learned=5)
    post(router)
    assert answer(post(router, X_Deadline_Ms=15_000)).status == 429
    ends = post(router, X_Deadline_Ms=21_000)
    assert ends.reply is None
    assert answer(post(router, X_Deadline_Ms=25_000)).json["retry_after"] == 5
    first = post(router, X_Deadline_Ms=25_000, X_Priority=1)
    assert first.reply is None


def test_a_deadline_that_can_be_kept() -> None:
    """
    A request in time is served as any other.
    """
    router = lined("a", learned=5)
    client = post(router, X_Deadline_Ms=10_500)
    router.wait(SECONDS)
    assert answer(client).status == 200


def test_a_guess_refuses_nobody() -> None:
    """
    With four requests learned nobody is refused for a deadline.
    """
    router = lined("a", learned=4)
    client = post(router, X_Deadline_Ms=4000)
    assert client.reply is None
    router.wait(SECONDS)
    assert answer(client).status == 200


def test_a_deadline_that_comes_in_line() -> None:
    """
    A request that still waits at its deadline gets 504, no worker sees it, and the line goes on.
    """
    router = lined("a")
    post(router, "first")
    late, patient = post(router, "late", X_Deadline_Ms=3000), post(router, "patient")
    router.wait(2.9, step=0.1)
    assert late.reply is None
    router.wait(0.2, step=0.1)
    reply = answer(late)
    assert reply.status == 504
    assert reply.json["reason"] == "deadline"
    assert reply.json["queue_position"] == 1
    assert header(reply, "X-Router-Job")
    router.until(lambda: patient.reply is not None)
    assert served(router) == ["first", "patient"]


def test_the_line_is_full() -> None:
    """
    Beyond ``queue_size`` a request is told its place and when there will be room, as learned.
    """
    router = lined("a", learned=5, queue_size=1)
    post(router)
    post(router)
    router.wait(4)
    reply = answer(post(router))
    assert reply.status == 503
    assert set(reply.error) == {"error", "reason", "queue_position", "retry_after"}
    assert reply.json["reason"] == "queue_full"
    assert reply.json["queue_position"] == 2
    assert reply.json["retry_after"] == 16
    assert header(reply, "Retry-After") == "16"
    assert header(reply, "X-Router-Job")
    router.wait(SECONDS - 4)
    assert post(router).reply is None


def test_nobody_may_wait() -> None:
    """
    With a ``queue_size`` of 0 requests are served while there is room, else refused.
    """
    router = lined("a", "b", queue_size=0)
    clients = [post(router) for _ in range(3)]
    reply = answer(clients[2])
    assert reply.status == 503
    assert int(header(reply, "Retry-After")) >= 1
    router.wait(SECONDS)
    assert [answer(client).status for client in clients] == [200, 200, 503]


def test_waiting_has_an_end() -> None:
    """
    Who has waited ``queue_timeout`` seconds is told to come again, and no worker sees the request.
    """
    router = lined("a", queue_timeout=5.0)
    post(router, "first")
    client = post(router, "second")
    router.wait(4.9, step=0.1)
    assert client.reply is None
    router.wait(0.2, step=0.1)
    reply = answer(client)
    assert reply.status == 503
    assert reply.json["reason"] == "queue_timeout"
    assert reply.json["queue_position"] == 1
    assert int(header(reply, "Retry-After")) == reply.json["retry_after"] >= 1
    router.wait(SECONDS)
    assert served(router) == ["first"]


def test_waiting_is_not_working() -> None:
    """
    The time for an answer begins when a worker gets the request.
    """
    router = lined("a", timeout=SECONDS + 2)
    clients = [post(router) for _ in range(4)]
    router.until(lambda: all(client.reply for client in clients))
    assert [answer(client).status for client in clients] == [200] * 4


def test_too_many_connections() -> None:
    """
    Beyond ``max_connections`` requests wait in the same line, by priority, though workers have no
    limit.
    """
    router = lined("a", "b", worker_concurrency=0, max_connections=1)
    clients = [post(router, n, X_Priority=n) for n in range(3)]
    assert sum(router.loads.values()) == 1
    shown = queue(router)
    assert [each["priority"] for each in shown["waiting"]] == [2, 1]
    assert shown["waiting"][0]["why"] == "1 requests are open to workers"
    router.until(lambda: all(client.reply for client in clients))
    assert served(router) == ["0", "2", "1"]


# Rollouts.


def test_a_batch_is_served_longest_first() -> None:
    """
    What waits of a batch goes out longest first, and other requests keep their places.
    """
    router = lined("a")
    clients = [post(router, "first"), *batch(router, "b", 10, 30)]
    clients += [post(router, "other"), *batch(router, "b", 20, 50)]
    router.until(lambda: all(client.reply for client in clients))
    assert served(router) == ["first", "50", "30", "other", "20", "10"]


def test_a_batch_ends_evenly() -> None:
    """
    On two workers the batch is done when an even split would be.
    """
    router = lined("a", "b", worker_concurrency=1)
    blockers = [post(router) for _ in range(2)]
    clients = batch(router, "b", 10, 10, 10, 30)
    router.wait(SECONDS)
    assert all(client.reply for client in blockers)
    router.wait(7, step=0.1)  # 30 steps take 6.1 s, all of them 12.3 s
    assert all(client.reply for client in clients)


def test_a_group_stays_together() -> None:
    """
    Requests of one ``X-Rollout-Group`` go to the same worker, until that is more than
    ``group_margin`` requests ahead of the least loaded one.
    """
    router = lined("a", "b", "c", worker_concurrency=0, group_margin=2)
    for number in range(3):
        post(router, number, X_Rollout_Group="g")
    assert sorted(router.loads.values()) == [0, 0, 3]
    post(router, X_Rollout_Group="g")
    assert sorted(router.loads.values()) == [0, 1, 3]


def test_a_group_comes_back() -> None:
    """
    The worker of a group is remembered while nobody of it is there.
    """
    router = lined("a", "b", "c")
    workers = set()
    for number in range(4):
        post(router)  # whoever else asks moves on
        client = post(router, number, X_Rollout_Group="g")
        router.wait(SECONDS)
        workers.add(header(answer(client), "X-Router-Worker"))
        router.wait(SECONDS)
    assert len(workers) == 1
