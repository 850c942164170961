"""
``GET /dashboard/stream``: what those who look at the live page are sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogEvent

from sgl_droute.api.page.recent import Recent
from sgl_droute.simulator.settings import SimulatorSettings
from tests.api.accounts import an_account
from tests.api.page_stream import Viewing, messages, seen
from tests.memory import Client

IMAGE = {"prompt": "a fox", "size": "512x512"}
VIDEO = {"prompt": "waves", "size": "832x480", "num_frames": 49}
VIDEOS = SimulatorSettings(model="cosmos3", speed=1.0)


def _image(viewing: Viewing, **headers: str) -> Client:
    return viewing.router.begin("POST", "/v1/images/generations", json=IMAGE, headers=headers)


def _video(viewing: Viewing) -> str:
    made = viewing.router.ask("POST", "/v1/videos", json=VIDEO)
    return str(made.json["id"])


def test_the_first_messages() -> None:
    """
    Who begins to look is told of the router, and then of all that there is.
    """
    viewing = Viewing("a", "b")
    viewing.wait(3)
    viewer = viewing.view()
    hello, state = viewer.events
    assert (hello.event, state.event) == ("hello", "state")
    assert set(hello.json) == {"version", "now", "started", "interval"}
    assert (hello.json["now"], hello.json["started"], hello.json["interval"]) == (3.0, 0.0, 1.0)
    whole = state.json
    assert [each["display_id"] for each in whole["workers"].values()] == ["a:1", "b:1"]
    assert (whole["fleet"]["workers"], whole["fleet"]["usable"]) == (2, 2)
    assert whole["queue"] == {"waiting_count": 0, "running_count": 0, "waiting": []}
    assert whole["requests"] == []


def test_a_request_from_its_line_to_its_end() -> None:
    """
    A request is seen in line, at its worker and among those that ended, with where its time went.
    """
    viewing = Viewing("a")
    viewing.wait(1)
    viewer = viewing.view()
    first, second = _image(viewing), _image(viewing, **{"X-Priority": "3"})
    viewing.wait(1)
    now = seen(viewer)
    [worker] = now["workers"].values()
    assert (worker["load"], worker["slots"], worker["active_requests"]) == (1, 1, 1)
    assert worker["current"]["kind"] == "image"
    assert worker["current"]["since"] == 1.0
    assert worker["current"]["end"] > worker["current"]["since"]
    [waiting] = now["queue"]["waiting"]
    assert (waiting["position"], waiting["priority"], waiting["since"]) == (1, 3, 1.0)
    assert waiting["why"] == "all of 1 workers that can take it are busy"
    assert waiting["start"] <= waiting["end"]
    assert (now["fleet"]["busy"], now["fleet"]["waiting"], now["fleet"]["running"]) == (1, 1, 1)
    assert now["fleet"]["in_flight"] == 2
    viewing.router.until(lambda: second.reply is not None)
    viewing.wait(5)
    now = seen(viewer)
    assert first.reply is not None
    assert [each["code"] for each in now["requests"]] == ["done", "done"]
    ended = now["requests"][1]
    assert (ended["path"], ended["status"]) == ("/v1/images/generations", 200)
    assert (ended["worker"], ended["kind"]) == ("http://a:1", "image")
    assert ended["queue"] > 0
    assert ended["work"] > 0
    assert ended["bytes_out"] > 0
    assert (now["fleet"]["per_minute"], now["fleet"]["failed_per_minute"]) == (2, 0)
    assert now["fleet"]["p50"] > 0
    assert next(iter(now["workers"].values()))["current"] is None


def test_a_video_shows_the_progress_that_its_worker_tells() -> None:
    """
    A video is listed with its worker, and its progress is that of the worker as soon as that was
    asked, and predicted until then.
    """
    viewing = Viewing("a", simulator=VIDEOS, job_poll_interval=3.0, worker_concurrency=2)
    viewing.wait(1)
    viewer = viewing.view()
    id, behind = _video(viewing), _video(viewing)
    viewing.wait(1)
    [first, second] = seen(viewer)["videos"]["open"]
    assert (first["id"], first["status"], first["progress"]) == (id, "in_progress", None)
    assert (second["id"], second["status"], second["progress"]) == (behind, "queued", 0)
    assert first["end"] < second["end"]
    viewing.wait(6)
    now = seen(viewer)
    first = now["videos"]["open"][0]
    assert 0 < first["progress"] < 100
    [worker] = now["workers"].values()
    assert worker["current"]["progress"] == first["progress"]
    assert worker["current"]["id"] == id
    assert worker["current"]["end"] == first["end"]
    assert (worker["jobs"], worker["queued"], worker["load"]) == (2, 1, 2)


def test_a_late_job_shows_as_one() -> None:
    """
    A prediction that has passed is not moved on: the page can tell by how much a job is late.
    """
    viewing = Viewing("a", simulator=SimulatorSettings(speed=0.01))
    viewing.wait(1)
    viewer = viewing.view()
    job = _image(viewing)
    viewing.wait(1)
    [worker] = seen(viewer)["workers"].values()
    predicted = worker["current"]["end"]
    viewing.wait(60)
    [worker] = seen(viewer)["workers"].values()
    assert job.reply is None
    assert 1.0 < predicted == worker["current"]["end"] < 60.0


def test_nothing_is_sent_twice() -> None:
    """
    While nothing happens a message has the time alone, and of the workers only those that changed.
    """
    viewing = Viewing("a", "b", "c")
    viewing.wait(2)
    viewer = viewing.view()
    viewing.wait(2)
    assert messages(viewer)[1:] == [{"now": 3.0}, {"now": 4.0}]
    _image(viewing)
    viewing.wait(1)
    last = messages(viewer)[-1]
    assert len(last["workers"]) == 1
    assert set(last) == {"now", "workers", "fleet", "queue", "charts"}


def test_one_look_for_all() -> None:
    """
    All who look are sent the same, from one look a second; nobody is looked for when nobody does.
    """
    viewing = Viewing("a")
    viewing.wait(1)
    looks: list[float] = []
    view = viewing.router.service.dashboard.view
    look = view.look
    viewing.router.service.dashboard.view = Counting(look, view.whole, looks)  # type: ignore[assignment]
    viewing.wait(3)
    assert looks == []
    first = viewing.view()
    second = viewing.view()
    _image(viewing)
    viewing.wait(2)
    assert looks == [4.0, 5.0, 6.0]
    assert messages(first)[1:] == messages(second)[1:]
    first.transport.abortConnection()
    second.transport.abortConnection()
    viewing.wait(3)
    assert len(looks) == 3


class Counting:
    """
    A view that notes when it looks.
    """

    def __init__(self, look: Any, whole: Any, looks: list[float]) -> None:
        self._look, self.whole, self._looks = look, whole, looks

    def look(self, now: float) -> str:
        self._looks.append(now)
        return str(self._look(now))


def test_the_last_quarter_of_an_hour_is_there_at_once() -> None:
    """
    Charts and sparklines are measured whether or not anybody looks, and no further back than 15
    minutes.
    """
    viewing = Viewing("a", "b", simulator=VIDEOS)
    viewing.wait(950)
    video = _video(viewing)
    viewing.wait(50)
    now = seen(viewing.view())
    points = now["charts"]["points"]
    assert (now["charts"]["step"], len(points)) == (5.0, 180)
    assert [point[0] for point in points[-3:]] == [990.0, 995.0, 1000.0]
    assert points[-1][6] == 1.0  # one worker of two was busy
    assert now["sparks"]["step"] == 10.0
    busy = [worker["current"] is not None for worker in now["workers"].values()]
    sparks = list(now["sparks"]["points"].values())
    assert [len(each) for each in sparks] == [90, 90]
    assert [each[-1] for each in sparks] == [100 * each for each in busy]
    assert [each["id"] for each in now["videos"]["open"]] == [video]


def test_a_worker_that_is_registered_anew() -> None:
    """
    A worker that was removed and added at the same address between two looks is another one: the
    page is told to forget the first.
    """
    viewing = Viewing("a")
    viewing.wait(30)
    viewer = viewing.view()
    viewing.router.service.pool.remove("http://a:1")
    viewing.router.service.pool.add("http://a:1")
    viewing.wait(1)
    last = messages(viewer)[-1]
    assert last["gone"] == list(last["workers"]) == ["http%3A%2F%2Fa%3A1"]
    assert seen(viewer)["sparks"]["points"] == {}


def test_what_only_watches_is_not_listed() -> None:
    """
    Health checks and the page's own requests are no recent requests; what an operator does is one,
    and one without a kind counts neither as done nor as failed.
    """
    viewing = Viewing("a")
    viewing.wait(1)
    viewer = viewing.view()
    for path in ("/health", "/liveness", "/dashboard", "/dashboard/app.js", "/workers", "/nothing"):
        viewing.router.begin("GET", path)
    viewing.wait(1)
    now = seen(viewer)
    assert [each["path"] for each in now["requests"]] == ["/workers", "/nothing"]
    assert (now["fleet"]["per_minute"], now["fleet"]["failed_per_minute"]) == (1, 1)


def test_long_paths_are_cut() -> None:
    """
    Of a path that a client makes up no more is sent on to all who look than can be read.
    """
    viewing = Viewing("a")
    viewer = viewing.view()
    viewing.router.begin("GET", "/v1/models/" + "x" * 5000)
    viewing.wait(1)
    [request] = seen(viewer)["requests"]
    assert len(request["path"]) == 500


def test_credentials_are_masked() -> None:
    """
    What a worker or a client says of credentials is not shown, as it is not logged.
    """
    recent = Recent()
    recent.note(an_account(code="worker_reset", error="sent Authorization: Bearer abcdef123456"))
    recent.note(an_account(path="http://me:word@router/v1/models"))
    shown = json.dumps(recent.shown(0, 2))
    assert "abcdef123456" not in shown
    assert "word@" not in shown


@pytest.mark.logs_failures
def test_a_look_that_fails(logged: list[LogEvent]) -> None:
    """
    A look that breaks is logged, and the next one is sent.
    """
    viewing = Viewing("a")
    viewing.wait(1)
    viewer = viewing.view()
    dashboard = viewing.router.service.dashboard
    view, broken = dashboard.view, Broken(dashboard.view.whole)
    dashboard.view = broken  # type: ignore[assignment]
    viewing.wait(2)
    assert len(messages(viewer)) == 1
    dashboard.view = view
    viewing.wait(1)
    assert [each["now"] for each in messages(viewer)] == [1.0, 4.0]
    assert len([event for event in logged if "log_failure" in event]) == 2


@frozen
class Broken:
    """
    A view that cannot look.
    """

    whole: Callable[[], str]

    def look(self, now: float) -> str:
        raise ValueError(now)


def test_the_streams_end_with_the_router() -> None:
    """
    A router that stops ends the streams, and nothing is looked at any more.
    """
    viewing = Viewing("a")
    viewing.wait(1)
    viewer = viewing.view()
    viewing.router.service.stopService()
    viewing.stage.settle()
    assert viewer.whole
    sent = len(messages(viewer))
    viewing.wait(3)
    assert len(messages(viewer)) == sent


_ACTIONS = st.lists(
    st.sampled_from(["image", "video", "wait", "long wait", "drain", "add", "remove", "cancel"]),
    max_size=25,
)


@settings(max_examples=30)
@given(_ACTIONS)
def test_changes_add_up_to_the_whole(actions: list[str]) -> None:
    """
    Whatever happens, who has looked for long knows the same as one who begins to look now.
    """
    viewing = Viewing("a", "b", simulator=VIDEOS)
    viewing.wait(1)
    early = viewing.view()
    for action in actions:
        _do(viewing, action)
    viewing.wait(1)
    late = viewing.view()
    known, fresh = seen(early), seen(late)
    assert len(known["requests"]) == len(fresh["requests"]) <= 100
    assert known == fresh


def _do(viewing: Viewing, action: str) -> None:
    router = viewing.router
    if action == "image":
        _image(viewing)
    elif action == "video":
        router.begin("POST", "/v1/videos", json=VIDEO)
    elif action == "drain":
        router.begin("PUT", "/workers/http%3A%2F%2Fa%3A1", json={"draining": True})
    elif action == "add":
        router.begin("POST", "/workers", json={"url": "http://a:1"})
    elif action == "remove":
        router.begin("DELETE", "/workers/http%3A%2F%2Fa%3A1")
    elif action == "cancel":
        for job in list(router.service.turns.scheduler.line.in_order())[:1]:
            router.begin("DELETE", f"/queue/{job.id}")
    else:
        viewing.wait(1 if action == "wait" else 12)
