"""
Updates of the fleet's weights: epochs, who is stale, and what is answered.
"""

from __future__ import annotations

from typing import Any

import pytest

from sgl_droute.fleet.loras import SET
from sgl_droute.fleet.weights import DISK, TENSOR
from sgl_droute.simulator.settings import SimulatorSettings
from tests.api.updates import (
    CHECKSUM,
    EDITS,
    IMAGE,
    IMAGES,
    QUICK,
    RELEASE,
    RESUME,
    ROLLOUT,
    VIDEOS,
    Traffic,
    answered,
    call,
    calls,
    change,
    epoch_of,
    epochs,
    fault,
    fleet,
    image,
    orders,
    restart,
    sources,
    states,
    tensors,
    update,
    updating,
    url,
    urls,
    weights,
)
from tests.memory import MemoryRouter, Reply

FOX = {"lora_nickname": "fox", "lora_path": "loras/fox"}


def told(reply: Reply) -> dict[str, Any]:
    """
    What an update was answered, without the results.
    """
    answer = reply.json
    answer.pop("results")
    return dict(answer)


# Epochs, and who is stale.


def test_an_update() -> None:
    """
    It goes to all workers as it came, and raises the epoch; all fields are told.
    """
    router = fleet(*"ab")
    reply = update(router, "new", flush_cache=True)
    assert reply.status == 200
    assert [each["worker_url"] for each in reply.json["results"]] == urls("ab")
    assert [each["status_code"] for each in reply.json["results"]] == [200, 200]
    assert told(reply) == {"epoch": 1, "consistent": True, "stale": []}
    assert [sources(router, name) for name in "ab"] == [{"new"}, {"new"}]
    assert router.workers["a"].journal.calls[-1].asked == {
        "model_path": "new",
        "flush_cache": True,
    }
    assert epochs(router) == {"a": 1, "b": 1}
    assert told(update(router, "newer"))["epoch"] == 2


@pytest.mark.parametrize(
    ("rule", "stale", "epoch"),
    [
        ({"status": 400, "body": {"success": False}}, True, 0),
        ({"status": 422}, True, 0),
        ({"status": 200, "body": {"success": False}}, True, None),
        ({"status": 500, "body": {"success": False, "message": "server is sleeping"}}, True, 0),
        ({"status": 500}, True, None),
        ({"status": 503, "body": {"error": "gone"}}, True, None),
        ({"drop": True}, True, None),
        ({"drop": True, "work": True}, True, None),
        ({"cut_after": 5}, True, None),
        ({"hang": True}, True, None),
    ],
)
def test_a_worker_that_did_not_take_it(
    rule: dict[str, Any], stale: bool, epoch: int | None
) -> None:
    """
    A worker that did not surely take what another took is stale and told as that; the fleet is not
    consistent, and the status is 200 all the same.
    """
    router = fleet(*"ab")
    fault(router, "b", **rule)
    fault(router, "b", times=9, status=400)  # nor does it later
    reply = update(router, "new")
    assert reply.status == 200
    assert told(reply) == {"epoch": 1, "consistent": False, "stale": [url("b")]}
    assert epochs(router)["a"] == 1
    assert states(router)["b"] in ("stale", "dead")
    if epoch is not None:
        assert epochs(router)["b"] == epoch
    health = router.ask("GET", "/health").json
    shown = router.ask("GET", "/workers").json["workers"]
    assert next(each["weights_epoch"] for each in shown) == 1, (shown, health)


@pytest.mark.parametrize("rule", [{"status": 400}, {"status": 500, "body": "is sleeping"}])
def test_all_refuse(rule: dict[str, Any]) -> None:
    """
    Where every worker refuses nothing changes, and nobody is stale.
    """
    router = fleet(*"ab")
    for name in "ab":
        fault(router, name, **rule)
    reply = update(router, "bad")
    assert reply.status == 200
    assert told(reply) == {"epoch": 0, "consistent": True, "stale": []}
    assert states(router) == {"a": "ready", "b": "ready"}


def test_all_fail() -> None:
    """
    Where no worker took it and none was cut, all keep their places.
    """
    router = fleet(*"ab")
    for name in "ab":
        fault(router, name, status=500)
    assert told(update(router, "bad")) == {"epoch": 0, "consistent": True, "stale": []}
    assert epoch_of(answered(router, image(router))) == "0"


@pytest.mark.parametrize("rule", [{"drop": True}, {"hang": True}, {"cut_after": 3}])
def test_nobody_knows(rule: dict[str, Any]) -> None:
    """
    A worker whose answer was cut or timed out is stale even if nobody took the update, until an
    update succeeds.
    """
    router = fleet(*"ab", timeout=5.0)
    for name in "ab":
        fault(router, name, **rule)
    reply = update(router, "half")
    if reply.json["epoch"] == 0:
        assert reply.json["stale"] == urls("ab")
        assert reply.json["consistent"] is False
        refused = answered(router, image(router))
        assert refused.status == 503
        assert "stale" in refused.json["error"]
    assert told(update(router, "new"))["stale"] == []
    assert epoch_of(answered(router, image(router))) == weights(router)["epoch"].__str__()


def test_some_modules() -> None:
    """
    A worker that missed an update of all modules is not made good by one of some.
    """
    router = fleet(*"ab")
    fault(router, "b", status=400, times=3)
    update(router, "new")
    reply = update(router, "part", target_modules=["vae"])
    assert reply.json["stale"] == [url("b")]
    assert reply.json["epoch"] == 2
    router.wait(60)
    assert states(router)["b"] == "ready"
    assert router.workers["a"].weights == router.workers["b"].weights


def test_loras_count() -> None:
    """
    A change of the LoRA set is an update; a call that changes nothing is none.
    """
    router = fleet(*"ab")
    reply = call(router, SET, FOX)
    assert told(reply) == {"epoch": 1, "consistent": True, "stale": []}
    assert epoch_of(answered(router, image(router))) == "1"
    assert told(call(router, "/v1/unmerge_lora_weights"))["epoch"] == 2


# Whom it goes to.


def test_who_is_not_called() -> None:
    """
    Sleeping, quarantined and disabled workers are not called and stand among the stale; they do not
    make the fleet inconsistent.
    """
    router = fleet("sleeps")
    call(router, RELEASE)
    for name in ("a", "dead", "off"):
        router.start_worker(name)
        router.ask("POST", f"/add_worker?url={url(name)}")
    router.wait(1)
    change(router, "dead", is_dead=True)
    change(router, "off", disabled=True)
    before = {name: orders(router, name) for name in router.workers}
    reply = update(router, "new", "?strict=true")
    assert reply.status == 200
    assert [each["worker_url"] for each in reply.json["results"]] == [url("a")]
    assert reply.json["consistent"] is True
    assert sorted(reply.json["stale"]) == sorted(urls(("sleeps", "dead", "off")))
    for name in ("sleeps", "dead"):
        assert orders(router, name) == before[name]


def test_all_asleep() -> None:
    """
    Where all sleep it is 503 that names sleep, and nothing changes.
    """
    router = fleet(*"ab")
    call(router, RELEASE)
    reply = update(router, "new")
    assert reply.status == 503
    assert "sleep" in reply.json["error"]
    assert weights(router)["epoch"] == 0
    assert weights(router)["history"] == []


def test_of_a_model() -> None:
    """
    An update of one model reaches its workers, raises its epoch, and leaves all others as they are.
    """
    router = MemoryRouter(simulator=QUICK)
    router.start_worker("flux")
    router._simulator = SimulatorSettings(model="z-image-turbo", pictures=1)
    router.start_worker("zimage")
    router.service.startService()
    for name in ("flux", "zimage"):
        router.ask("POST", f"/add_worker?url={url(name)}")
    router.wait(1)
    flux = QUICK.public_name
    reply = update(router, "new", f"?model={flux}")
    assert [each["worker_url"] for each in reply.json["results"]] == [url("flux")]
    assert told(reply) == {"epoch": 1, "consistent": True, "stale": []}
    assert epochs(router) == {"flux": 1, "zimage": 0}
    assert states(router) == {"flux": "ready", "zimage": "ready"}
    fault(router, "flux", status=400)
    both = update(router, "newer")
    assert both.json["epochs"] == {flux: 1, router._simulator.public_name: 1}
    assert both.json["consistent"] is True
    assert states(router) == {"flux": "ready", "zimage": "ready"}


def test_no_such_model() -> None:
    """
    A model that nobody serves is 404.
    """
    assert update(fleet("a"), "new", "?model=nobody").status == 404


@pytest.mark.parametrize(
    "query",
    [
        "mode=fast",
        "max_unavailable=0",
        "max_unavailable=x",
        "drain_timeout=-1",
        "drain_timeout=x",
        "verify=perhaps",
        "strict=2",
    ],
)
def test_bad_options(query: str) -> None:
    """
    An option with a value that it cannot have is 400, and nobody is called.
    """
    router = fleet("a")
    assert update(router, "new", f"?{query}").status == 400
    assert DISK not in orders(router, "a")


# Strict.


@pytest.mark.parametrize(("refusing", "status"), [("", 200), ("b", 207), ("ab", 502)])
def test_strict(refusing: str, status: int) -> None:
    """
    The status says whether all, some or none took it.
    """
    router = fleet(*"ab")
    for name in refusing:
        fault(router, name, status=400)
    assert update(router, "new", "?strict=true").status == status


@pytest.mark.parametrize("path", [SET, RELEASE, DISK])
def test_strict_meanwhile(path: str) -> None:
    """
    While another such call is under way a strict one is refused; any other waits for its turn.
    """
    router = fleet("a")
    body = FOX if path == SET else {"model_path": "first"}
    first = router.begin("POST", path, json=body)
    assert first.reply is None
    assert update(router, "new", "?strict=true").status == 409
    answered(router, first)


def test_in_order() -> None:
    """
    Updates, LoRA and sleep calls run one after the other, in order of arrival.
    """
    router = fleet(*"ab")
    paths = (DISK, SET, TENSOR, RELEASE, RESUME)
    bodies = {SET: FOX, DISK: {"model_path": "p"}, TENSOR: {"serialized_named_tensors": ["x"]}}
    clients = [router.begin("POST", path, json=bodies.get(path, {})) for path in paths]
    for client in clients:
        answered(router, client)
    made = [each for each in router.workers["a"].journal.calls if each.path in paths]
    assert [each.path for each in made] == list(paths)
    ends = [each.ended for each in made]
    for name in "ab":
        for one, other in zip(router.workers[name].journal.calls, ends, strict=False):
            assert one.ended is not None
            assert other is not None


# Modes.


def test_nothing_new_meanwhile() -> None:
    """
    No new generation goes to a worker between its update call and the answer; requests wait.
    """
    router = fleet("a")
    client = updating(router, "new")
    pictures = [image(router) for _ in range(3)]
    router.wait(2)
    assert states(router) == {"a": "updating"}
    assert all(each.reply is None for each in pictures)
    assert router.workers["a"].journal.generations_started == 0
    answered(router, client)
    assert [epoch_of(answered(router, each)) for each in pictures] == ["1"] * 3


def test_what_runs_ends_first() -> None:
    """
    An update is sent when what the worker was sent before is answered, so that answers tell their
    epoch exactly.
    """
    router = fleet("a")
    before = [image(router) for _ in range(3)]
    client = updating(router, "new")
    answered(router, client)
    assert [epoch_of(answered(router, each)) for each in before] == ["0"] * 3
    assert router.workers["a"].journal.calls[0].arrived >= 1.2


def test_fenced_waits() -> None:
    """
    A fenced update waits until all work has ended, then updates, verifies and reopens.
    """
    router = fleet(*"ab")
    before = [image(router) for _ in range(4)]
    client = updating(router, "new", "?mode=fenced")
    after = image(router)
    reply = answered(router, client)
    assert told(reply)["consistent"] is True
    assert reply.json["verified"][0]["majority"] is True
    assert [epoch_of(answered(router, each)) for each in before] == ["0"] * 4
    assert epoch_of(answered(router, after)) == "1"


def test_fenced_too_long() -> None:
    """
    If work goes on beyond the time for it nothing is updated, dispatch reopens, and it is 504.
    """
    router = fleet(*"ab")
    fault(router, "a", IMAGES, busy=60)
    pictures = [image(router) for _ in range(2)]
    reply = update(router, "new", "?mode=fenced&drain_timeout=3")
    assert reply.status == 504
    assert "Nothing was updated" in reply.json["error"]
    assert DISK not in orders(router, "b")
    assert weights(router)["epoch"] == 0
    assert states(router) == {"a": "ready", "b": "ready"}
    assert epoch_of(answered(router, image(router))) == "0"
    assert pictures


@pytest.mark.parametrize(
    ("size", "busy"), [("64x64", 15), ("64x64", 90), ("2048x2048", 0), ("2048x2048", 90)]
)
def test_fenced_waits_for_what_a_client_left(size: str, busy: float) -> None:
    """
    Work whose client has gone is waited for until it ends, whether that is sooner than it was
    predicted or later than an answer may come, and the update is made soon after that.
    """
    router = fleet(*"ab", timeout=20.0)
    fault(router, "a", IMAGES, busy=busy)
    large = {"prompt": "x", "size": size, "num_inference_steps": 20}  # 11 s
    client = router.begin("POST", IMAGES, json=large)
    router.wait(1)
    client.hang_up()
    reply = update(router, "new", "?mode=fenced&strict=true")
    assert reply.status == 200, reply
    [left] = router.workers["a"].journal.generations
    first = min(each.arrived for each in calls(router, DISK))
    assert left.ended is not None
    assert left.ended <= first <= left.ended + 20


def test_fenced_and_a_worker_that_never_ends() -> None:
    """
    A worker that does not come to an end keeps everybody from the update, and one that is
    quarantined meanwhile does not.
    """
    router = fleet(*"ab", timeout=20.0)
    fault(router, "a", "/stats", times=1000, hang=True)
    client = updating(router, "new", "?mode=fenced&drain_timeout=100")
    assert answered(router, client).status == 504
    client = updating(router, "new", "?mode=fenced&drain_timeout=100")
    router.wait(5)
    router.kill_worker("a")
    reply = answered(router, client, 60)
    assert (reply.status, reply.json["epoch"], reply.json["stale"]) == (200, 1, [url("a")])


def test_fenced_waits_for_videos() -> None:
    """
    A video that is being made is waited for.
    """
    router = fleet("a", simulator=SimulatorSettings(model="fastwan", pictures=1, video_side=64))
    video = call(router, VIDEOS, {"prompt": "x", "size": "64x64", "num_frames": 5})
    assert video.status == 200
    update(router, "new", "?mode=fenced")
    [made] = router.workers["a"].journal.generations
    [done] = [each for each in router.workers["a"].journal.calls if each.path == DISK]
    assert made.ended is not None
    assert done.arrived >= made.ended
    shown = router.ask("GET", f"{VIDEOS}/{video.json['id']}")
    assert shown.json["status"] == "completed"
    assert epoch_of(video) == epoch_of(shown) == "0"
    content = router.ask("GET", f"{VIDEOS}/{video.json['id']}/content")
    assert epoch_of(content) == "0"


@pytest.mark.parametrize("most", [1, 2])
def test_rolling(most: int) -> None:
    """
    So many workers at a time; the others work on at their old epoch, and are pending.
    """
    router = fleet(*"abc")
    client = updating(router, "new", f"?mode=rolling&max_unavailable={most}")
    traffic = Traffic(router)
    seen: set[str] = set()
    while client.reply is None:
        shown = weights(router)["workers"]
        busy = [each["state"] for each in shown]
        assert busy.count("updating") <= most
        seen.update(busy)
        traffic.wait(0.5)
    assert (
        seen == {"updating", "pending", "current"} if most == 1 else {"updating", "pending"} <= seen
    )
    traffic.end()
    assert set(traffic.check()) == {200}
    told_epochs = {epoch_of(each.client.reply) for each in traffic.sent if each.client.reply}
    assert told_epochs == {"0", "1"}


# Verify.


def test_a_minority_is_stale() -> None:
    """
    Whoever differs from most is stale from then on.
    """
    router = fleet(*"abc")
    router.workers["c"].weights.sources["vae"] = "another"
    fault(router, "c", status=400, times=9)
    reply = update(router, "new", "?verify=true", target_modules=["transformer"])
    router2 = fleet(*"abc")
    fault(router2, "c", status=200, body={"success": True}, times=9)
    lied = update(router2, "new", "?verify=true")
    assert lied.json["stale"] == [url("c")]
    assert lied.json["consistent"] is False
    [compared] = lied.json["verified"]
    assert compared["majority"] is True
    assert list(compared["differing"]) == [url("c")]
    assert states(router2)["c"] == "stale"
    assert reply.json["stale"] == [url("c")]


def test_no_majority() -> None:
    """
    Without a strict majority all that differ are stale.
    """
    router = fleet(*"ab")
    fault(router, "b", status=200, body={"success": True}, times=9)
    reply = update(router, "new", "?verify=true")
    assert reply.json["consistent"] is False
    assert reply.json["stale"] == urls("ab")


def test_other_adapters_before() -> None:
    """
    Transformers with other LoRA calls behind them are not compared, and nobody is held back.
    """
    router = fleet(*"abc")
    fault(router, "c", SET, status=400)
    call(router, SET, FOX)
    router.wait(30)
    assert states(router)["c"] == "ready"
    reply = update(router, "new", "?verify=true")
    assert reply.json["consistent"] is True
    assert reply.json["stale"] == []
    [compared] = reply.json["verified"]
    assert compared["differing"] == {}


def test_verify_now() -> None:
    """
    ``POST /weights/verify`` compares all workers at once.
    """
    router = fleet(*"abc")
    update(router, "new")
    assert call(router, "/weights/verify").json["consistent"] is True
    router.workers["b"].weights.sources["vae"] = "another"
    reply = call(router, "/weights/verify")
    assert reply.status == 200
    assert reply.json["consistent"] is False
    assert reply.json["stale"] == [url("b")]
    assert reply.json["models"][0]["differing"] == {url("b"): ["vae"]}


# What is shown.


def test_weights_shown() -> None:
    """
    ``GET /weights`` tells epoch, history, and what each worker has.
    """
    router = fleet(*"ab")
    update(router, "new", "?verify=true")
    fault(router, "b", status=400)
    update(router, "newer", "?mode=rolling")
    shown = weights(router)
    assert (shown["epoch"], shown["durable"], shown["interrupted"]) == (2, False, None)
    newer, new = shown["history"]
    assert new["results"] == {url("a"): "took", url("b"): "took"}
    assert newer["results"] == {url("a"): "took", url("b"): "refused"}
    assert newer["body"] == '{"model_path":"newer"}'
    assert newer["mode"] == "rolling"
    assert newer["seconds"] >= 4
    assert next(each["epoch"] for each in shown["workers"]) == 2


def test_history_is_bounded() -> None:
    """
    The last 50 updates are told.
    """
    router = fleet("a")
    for number in range(53):
        tensors(router, f"t{number}")
    shown = weights(router)
    assert shown["epoch"] == 53
    assert len(shown["history"]) == 50
    assert shown["history"][0]["epochs"][QUICK.public_name] == 53


@pytest.mark.parametrize("action", ["retry", "abandon"])
def test_nothing_to_resolve(action: str) -> None:
    """
    Where no update was interrupted there is nothing to be resolved.
    """
    router = fleet("a")
    assert call(router, "/weights/resolve", {"action": action}).status == 409


@pytest.mark.parametrize("body", [{}, {"action": "x"}, {"action": "retry", "more": 1}, []])
def test_no_such_action(body: object) -> None:
    """
    Anything but an action is 400.
    """
    router = fleet("a")
    client = router.begin("POST", "/weights/resolve", json=body)
    assert answered(router, client).status == 400


# What a crash broke off.


def interrupted(
    *workers: str, hanging: str = "", path: str = DISK, before: str = ""
) -> MemoryRouter:
    """
    A router that took the place of one killed after it had called all *workers*, while nobody had
    answered.

    Args:
        hanging: One that never does what it was told.
        path: What they were told.
        before: Options of the update before.
    """
    router = fleet(*workers, durable=True)
    update(router, "old", before)
    if hanging:
        fault(router, hanging, path, hang=True)
    body = {"model_path": "new"} if path == DISK else {"serialized_named_tensors": ["x"]}
    router.begin("POST", path, json=body)
    router.wait(0.25, 0.25)
    router.kill()
    router.start_again()
    router.wait(20)
    return router


def resolve(router: MemoryRouter, action: str) -> Reply:
    return call(router, "/weights/resolve", {"action": action})


def test_held_until_it_is_known() -> None:
    """
    Workers of which nobody knows whether they took an update get no work, and are shown.
    """
    router = interrupted(*"abc")
    assert set(states(router).values()) == {"stale"}
    assert set(epochs(router).values()) == {None}
    begun = weights(router)["interrupted"]
    assert begun["results"] == dict.fromkeys(urls("abc"))
    assert router.ask("POST", IMAGES, json=IMAGE).status == 503
    assert "3 stale" in router.ask("POST", IMAGES, json=IMAGE).json["error"]


# The first epoch after a crash at epoch 1: number 2 may have been told with answers of which nobody
# knows any more.
FIRST = 3


def test_told_by_sums() -> None:
    """
    Where the sums of the epoch before are known nobody needs to say: if one worker has others, the
    update counts as taken, and the rest catch up.
    """
    router = interrupted(*"abc", hanging="b", before="?verify=true")
    router.wait(30)
    assert weights(router)["interrupted"] is None
    assert states(router) == dict.fromkeys("abc", "ready")
    assert epochs(router) == dict.fromkeys("abc", FIRST)
    assert [sources(router, name) for name in "abc"] == [{"new"}] * 3


def test_retry() -> None:
    """
    ``retry`` makes the update once more, and all have it.
    """
    router = interrupted(*"abc", hanging="b")
    reply = resolve(router, "retry")
    assert told(reply) == {"epoch": FIRST, "consistent": True, "stale": []}
    assert weights(router)["interrupted"] is None
    assert states(router) == dict.fromkeys("abc", "ready")
    assert [sources(router, name) for name in "abc"] == [{"new"}] * 3


def test_accept() -> None:
    """
    ``accept`` takes what most have, under an epoch of its own, and the others catch up.
    """
    router = interrupted(*"abc", hanging="b")
    shown = resolve(router, "accept")
    assert (shown.status, shown.json["interrupted"], shown.json["epoch"]) == (200, None, FIRST)
    assert shown.json["history"][0]["note"] == "accepted as the majority has it"
    assert (states(router)["a"], states(router)["c"]) == ("ready", "ready")
    assert epoch_of(answered(router, image(router))) == str(FIRST)
    router.wait(30)
    assert states(router) == dict.fromkeys("abc", "ready")
    assert [sources(router, name) for name in "abc"] == [{"new"}] * 3


def test_accept_without_a_majority() -> None:
    """
    Where no weights are those of most workers there is nothing to accept, and nothing changes.
    """
    router = interrupted(*"ab", hanging="b")
    reply = resolve(router, "accept")
    assert (reply.status, "same weights" in reply.json["error"]) == (409, True)
    assert weights(router)["interrupted"] is not None
    assert states(router) == dict.fromkeys("ab", "stale")


def test_abandon() -> None:
    """
    ``abandon`` leaves the epoch as it was; those that were called work again when they were
    restarted, with what was before, and not earlier, whatever they are told meanwhile.
    """
    router = interrupted(*"abc")
    shown = resolve(router, "abandon")
    assert (shown.status, shown.json["interrupted"], shown.json["epoch"]) == (200, None, 1)
    router.wait(60)
    assert states(router) == dict.fromkeys("abc", "stale")
    assert "restarted" in weights(router)["workers"][0]["reason"]
    restart(router, "a")
    router.wait(30)
    assert states(router) == {"a": "ready", "b": "stale", "c": "stale"}
    assert (epochs(router)["a"], sources(router, "a")) == (1, {"old"})
    assert told(update(router, "next")) == {
        "epoch": FIRST,
        "consistent": False,
        "stale": urls("bc"),
    }


def test_tensors_cannot_be_retried() -> None:
    """
    An update from tensors cannot be sent again; it can be abandoned.
    """
    router = interrupted(*"ab", path=TENSOR)
    assert weights(router)["interrupted"] is not None
    reply = resolve(router, "retry")
    assert (reply.status, "tensors" in reply.json["error"]) == (400, True)
    assert weights(router)["interrupted"] is not None
    assert resolve(router, "abandon").status == 200


def test_nobody_to_retry() -> None:
    """
    Without any of the workers that were called there is nobody to send it to again.
    """
    router = interrupted(*"ab")
    for name in "ab":
        change(router, name, disabled=True)
    assert resolve(router, "retry").status == 503
    assert weights(router)["interrupted"] is not None


@pytest.mark.parametrize("action", ["retry", "accept", "abandon"])
def test_resolved_once(action: str) -> None:
    """
    What is resolved is so: there is nothing more to retry or to abandon.
    """
    router = interrupted(*"abc")
    assert resolve(router, action).status == 200
    assert [resolve(router, each).status for each in ("retry", "abandon")] == [409, 409]


def test_the_next_update_settles_it() -> None:
    """
    A trainer that makes its call again needs nothing else.
    """
    router = interrupted(*"abc", hanging="b")
    assert told(update(router, "new")) == {"epoch": FIRST, "consistent": True, "stale": []}
    assert weights(router)["interrupted"] is None


# Answers tell their epoch.


def test_on_answers() -> None:
    """
    Pictures, edits and rollouts tell the epoch; what takes no GPU time does not.
    """
    router = fleet(*"ab")
    update(router, "new")
    assert epoch_of(answered(router, image(router))) == "1"
    assert epoch_of(call(router, ROLLOUT, {**IMAGE, "seed": 1})) == "1"
    data = (
        b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nfox\r\n'
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\nxxxx\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    edited = answered(router, router.begin("POST", EDITS, data=data, headers=headers))
    assert epoch_of(edited) == "1", edited.body
    assert not router.ask("GET", "/v1/models").headers.hasHeader("X-Weights-Epoch")


def test_stale_may_serve() -> None:
    """
    With ``--stale-weights serve`` a stale worker works on, and its answers tell what it has.
    """
    router = fleet(*"ab", stale_weights="serve")
    fault(router, "b", status=400, times=9)
    reply = update(router, "new")
    assert reply.json["stale"] == [url("b")]
    pictures = [image(router) for _ in range(8)]
    made = {epoch_of(answered(router, each)) for each in pictures}
    assert made == {"0", "1"}


def test_required() -> None:
    """
    A request that requires an epoch waits for it, or is 412 when it can come no more.
    """
    router = fleet("a")
    waits = image(router, X_Require_Epoch=">=1")
    router.wait(5)
    assert waits.reply is None
    update(router, "new")
    assert epoch_of(answered(router, waits)) == "1"
    assert answered(router, image(router, X_Require_Epoch="=0")).status == 412
    late = image(router, X_Require_Epoch=">=9", X_Deadline_Ms="3000")
    assert answered(router, late).status == 412


def test_tensors() -> None:
    """
    Updates from tensors go through the same door.
    """
    router = fleet(*"ab")
    reply = tensors(router, "abc", "?mode=fenced&strict=true")
    assert (reply.status, reply.json["epoch"], reply.json["consistent"]) == (200, 1, True)
    assert len(sources(router, "a")) == 2
    assert router.workers["a"].weights == router.workers["b"].weights


def test_no_place_for_the_journal() -> None:
    """
    An update that cannot be noted is not made, and is 507.
    """
    router = fleet("a", durable=True)
    assert router.disk is not None
    router.disk.full = True
    reply = update(router, "new")
    assert reply.status == 507
    assert DISK not in orders(router, "a")
    router.disk.full = False
    assert told(update(router, "new")) == {"epoch": 1, "consistent": True, "stale": []}


def test_checksums_asked_once_each() -> None:
    """
    Each worker is asked for its checksums once by a verified update.
    """
    router = fleet(*"ab")
    update(router, "new", "?verify=true")
    assert [orders(router, name).count(CHECKSUM) for name in "ab"] == [1, 1]
