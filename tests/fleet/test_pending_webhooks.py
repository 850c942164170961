"""
Webhooks: what they tell, when they are tried, and how many at once.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sgl_droute.fleet.jobs import OpenJobs
from sgl_droute.fleet.webhook import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    PATIENCE,
    Webhook,
    body_of,
    tried_in_vain,
)
from sgl_droute.fleet.webhooks import PendingWebhooks

URL = "http://h/hook"


def hook(**fields: Any) -> Webhook:
    return Webhook(**{"kind": "video", "id": "v", "url": URL, "event": "evt_1", **fields})


@given(
    start=st.floats(0, 2e9),
    lateness=st.lists(st.floats(0, 10.0), min_size=1, max_size=50),
)
def test_the_schedule(start: float, lateness: list[float]) -> None:
    """
    However late each try ends, the pause before the next one is 1 s, then twice the last one, and
    never more than an hour; the last try is within 24 h of the end of the job.
    """
    webhook: Webhook | None = hook(body="{}", due=start, until=start + PATIENCE)
    pauses = []
    tries = 0
    while webhook is not None:
        assert webhook.due <= start + PATIENCE
        assert webhook.tries == tries
        now = webhook.due + lateness[tries % len(lateness)]
        webhook = tried_in_vain(webhook, now)
        if webhook is not None:
            pauses.append(webhook.due - now)
        tries += 1
    assert pauses[0] == pytest.approx(FIRST_PAUSE, abs=1e-6)
    for before, after in pairwise(pauses):
        assert after == pytest.approx(min(2 * before, LONGEST_PAUSE), abs=1e-5)
    assert 30 <= tries <= 36


def test_after_a_long_time_away() -> None:
    """
    A call whose time passed while the router was away is tried once more, and not again.
    """
    assert tried_in_vain(hook(body="{}", due=1.0, until=2.0), 1e9) is None


def test_what_is_told() -> None:
    """
    The kind of event, the time, and of the job what its worker told, without where it is kept.
    """
    fields = {
        "id": "v",
        "status": "completed",
        "model": "m",
        "seconds": "4",
        "size": "832x480",
        "completed_at": 1_790_000_031,
        "inference_time_s": 29.4,
        "file_path": "/srv/outputs/v.mp4",
        "url": "http://worker:30000/x",
    }
    assert json.loads(body_of("evt_1", "video", "v", "completed", fields, 1_790_000_032.9)) == {
        "id": "evt_1",
        "type": "video.completed",
        "created_at": 1_790_000_032,
        "data": {
            "id": "v",
            "kind": "video",
            "status": "completed",
            "model": "m",
            "size": "832x480",
            "seconds": "4",
            "completed_at": 1_790_000_031,
            "inference_time_s": 29.4,
        },
    }


def test_why_it_failed() -> None:
    """
    A failed job's error is told, as long as it is short.
    """
    fields = {"status": "failed", "error": {"message": "x" * 5000, "code": None}}
    told = json.loads(body_of("e", "mesh", "m", "failed", fields, 0.0))
    assert told["type"] == "mesh.failed"
    assert told["data"]["error"] == {"message": "x" * 1000, "code": None}


@given(
    st.dictionaries(
        st.sampled_from(["model", "error", "size", "created_at", "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text("a\ud800\n\u2028"),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    )
)
def test_whatever_a_worker_tells(fields: dict[str, Any]) -> None:
    """
    Whatever a worker tells, the body is strict JSON in ASCII, and not long.
    """
    body = body_of("e", "video", "v", "completed", fields, 0.0)
    told = json.loads(body, parse_constant=lambda text: pytest.fail(text))
    assert body.isascii()
    assert len(body) < 1 << 17
    assert "other" not in told["data"]
    assert all(
        math.isfinite(value) for value in told["data"].values() if isinstance(value, float | int)
    )


def test_a_job_that_is_deleted() -> None:
    """
    Nobody is called for a job that its client deleted.
    """
    jobs, pending = OpenJobs(), PendingWebhooks()
    jobs.watch(lambda ended: pending.job_ended(ended, 5.0))
    for name in ("deleted", "lost"):
        pending.expect("video", name, URL, f"evt_{name}")
        jobs.created("video", name, "http://w:1", 1, 0.0)
    jobs.deleted("video", "deleted", 1.0)
    jobs.worker_lost("http://w:1", 1)
    webhook = pending.take(5.0)
    assert webhook is not None
    assert webhook.id == "lost"
    assert json.loads(webhook.body)["type"] == "video.lost"
    assert pending.take(1e9) is None
    assert len(pending) == 1


def test_one_host_leaves_room_for_others() -> None:
    """
    Of 20 calls at once at most 10 go to one host, and hosts take turns.
    """
    pending = PendingWebhooks()
    for number in range(30):
        name = "slow" if number < 25 else "quick"
        pending.expect("video", str(number), f"http://{name}/{number}", "e")
        pending.end("video", str(number), "lost", {}, 0.0)
    taken: list[Webhook] = []
    while (webhook := pending.take(0.0)) is not None:
        taken.append(webhook)
    assert Counter(each.url.split("/")[2] for each in taken) == {"slow": 10, "quick": 5}
    pending.failed(taken[0], 0.0)
    webhook = pending.take(0.0)
    assert webhook is not None
    assert webhook.url.startswith("http://slow/")
    assert pending.take(0.0) is None


def test_of_a_job_only_the_first_end_counts() -> None:
    """
    What was told as the end of a job is told at every try, whatever comes later.
    """
    pending = PendingWebhooks()
    pending.expect("video", "v", URL, "evt_1")
    pending.end("video", "v", "completed", {}, 1.0)
    pending.end("video", "v", "lost", {}, 2.0)
    pending.expect("video", "v", "http://other/", "evt_2")
    webhook = pending.take(3.0)
    assert webhook is not None
    assert (webhook.url, webhook.event) == (URL, "evt_1")
    assert '"video.completed"' in webhook.body


class Pending(RuleBasedStateMachine):
    """
    Whatever comes of calls, in whatever order, with restarts between: no call is lost that was
    neither taken nor given up, none is made twice at a time, none before it is due, and not too
    many are under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.kept: dict[tuple[str, str], Webhook] = {}
        self.taken: list[Webhook] = []
        self.wanted: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self.pending = PendingWebhooks(most_at_once=3, most_at_a_host=2)
        self.pending.restore(self.kept.values())
        self.pending.on_change = self._changed
        self.taken = []

    def _changed(self, kind: str, id: str, webhook: Webhook | None) -> None:
        if webhook is None:
            del self.kept[kind, id]
        else:
            self.kept[kind, id] = webhook

    @rule(id=st.sampled_from("abcdefgh"), host=st.sampled_from("xyz"))
    def expect(self, id: str, host: str) -> None:
        if id not in self.wanted:
            self.pending.expect("video", id, f"http://{host}/", f"evt_{id}")
            self.wanted.add(id)

    @rule(id=st.sampled_from("abcdefgh"))
    def end(self, id: str) -> None:
        self.pending.end("video", id, "completed", {}, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 60.0, 7200.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        webhook = self.pending.take(self.now)
        if webhook is not None:
            assert webhook.over
            assert webhook.due <= self.now
            assert webhook.key not in [each.key for each in self.taken]
            self.taken.append(webhook)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), result=st.sampled_from(["failed", "put_back", "forget"]))
    def end_of_a_call(self, data: st.DataObject, result: str) -> None:
        webhook = data.draw(st.sampled_from(self.taken))
        self.taken.remove(webhook)
        if result == "failed":
            if self.pending.failed(webhook, self.now) is None:
                assert self.now + FIRST_PAUSE > webhook.until - LONGEST_PAUSE
                self.wanted.discard(webhook.id)
        elif result == "put_back":
            self.pending.put_back(webhook)
        else:
            self.pending.forget(webhook)
            self.wanted.discard(webhook.id)

    @rule()
    def restart(self) -> None:
        self._begin()

    @invariant()
    def not_too_many(self) -> None:
        assert len(self.taken) <= 3
        assert all(n <= 2 for n in Counter(each.url for each in self.taken).values())

    @invariant()
    def none_is_lost(self) -> None:
        assert {id for _, id in self.kept} == self.wanted
        assert len(self.pending) == len(self.wanted)

    def teardown(self) -> None:
        """All that are over are taken in the end, none twice."""
        for webhook in self.taken:
            self.pending.forget(webhook)
        over = {each.id for each in self.kept.values() if each.over}
        self.now += 1e6
        told = []
        while (call := self.pending.take(self.now)) is not None:
            told.append(call.id)
            self.pending.forget(call)
        assert sorted(told) == sorted(over)


TestPending = Pending.TestCase
