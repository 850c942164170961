"""
Owners: an id leads to the worker that issued it last, for as long as it is used, or to nobody.
"""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sgl_droute.fleet.owners import DOUBTED, LONGEST_ID, MOST_UNKNOWN, Entry, Owners

KINDS = st.sampled_from(["image", "video", "mesh"])
IDS = st.sampled_from(["a", "b", "c", "d", "e"])
WORKERS = st.sampled_from(["http://w1:1", "http://w2:1"])
EPOCHS = st.sampled_from(["", "7", "7-8", "unknown"])
LIVES = st.integers(-1, 3)
TTL = 100.0


def told(owners: Owners) -> list[tuple[str, str, Entry | None]]:
    changes: list[tuple[str, str, Entry | None]] = []
    owners.on_change = lambda *change: changes.append(change)
    return changes


def test_the_last_worker_to_issue_it() -> None:
    """
    An id belongs to whoever issued it last, and kinds do not mix.
    """
    owners = Owners(TTL)
    owners.learn("video", "x", "http://w1:1", 0.0)
    owners.learn("video", "x", "http://w2:1", 1.0)
    assert owners.owner("video", "x", 2.0) == "http://w2:1"
    assert owners.owner("mesh", "x", 2.0) is None
    owners.forget("video", "x")
    owners.forget("video", "x")
    assert owners.owner("video", "x", 2.0) is None


def test_a_use_prolongs() -> None:
    """
    An id lives its time after every use, however small the steps, and then no longer.
    """
    owners = Owners(TTL)
    owners.learn("video", "x", "http://w1:1", 0.0)
    now = 0.0
    for _ in range(1000):
        now += 0.9
        assert owners.owner("video", "x", now) == "http://w1:1"
    assert owners.owner("video", "x", now + TTL) == "http://w1:1"
    assert owners.owner("video", "x", now + 2.02 * TTL) is None


def test_the_least_used_goes_first() -> None:
    """
    A use saves an id from being dropped for another, be it ever so soon after the last.
    """
    owners = Owners(TTL, most=2)
    for id in ("a", "b"):
        owners.learn("image", id, "http://w1:1", 0.0)
    owners.owner("image", "a", 0.1)
    owners.learn("image", "c", "http://w1:1", 0.2)
    assert owners.owner("image", "b", 0.3) is None
    assert owners.owner("image", "a", 0.3) == "http://w1:1"


def test_polls_are_not_told_one_by_one() -> None:
    """
    A use is told once it is a hundredth of the time to live behind the last one told.
    """
    owners = Owners(TTL)
    changes = told(owners)
    owners.learn("video", "x", "http://w1:1", 0.0)
    for tenth in range(1, 31):
        owners.owner("video", "x", tenth / 10)
    assert changes == [
        ("video", "x", Entry("http://w1:1", 0.0)),
        ("video", "x", Entry("http://w1:1", 1.1)),
        ("video", "x", Entry("http://w1:1", 2.2)),
    ]


def test_every_change_is_told() -> None:
    """
    Another worker, an end by age, by number and by hand: each is told once.
    """
    owners = Owners(TTL, most=2)
    changes = told(owners)
    owners.learn("image", "a", "http://w1:1", 0.0)
    owners.learn("image", "a", "http://w2:1", 0.0)
    owners.learn("image", "b", "http://w2:1", 50.0)
    owners.learn("image", "c", "http://w2:1", 60.0)
    owners.forget("image", "b")
    owners.learn("image", "d", "http://w1:1", 162.0)
    assert changes == [
        ("image", "a", Entry("http://w1:1", 0.0)),
        ("image", "a", Entry("http://w2:1", 0.0)),
        ("image", "b", Entry("http://w2:1", 50.0)),
        ("image", "c", Entry("http://w2:1", 60.0)),
        ("image", "a", None),
        ("image", "b", None),
        ("image", "c", None),
        ("image", "d", Entry("http://w1:1", 162.0)),
    ]


def test_epochs() -> None:
    """
    What an id was made at is kept, and told, until it is learned otherwise; who knows nothing of it
    says nothing against it. Another worker's thing is another one.
    """
    owners = Owners(TTL)
    changes = told(owners)
    owners.learn("video", "x", "http://w1:1", 0.0)
    owners.learn("video", "x", "http://w1:1", 0.1, epoch="7")
    owners.learn("video", "x", "http://w1:1", 0.2)
    owners.learn("video", "x", "http://w1:1", 0.3, epoch="7")
    owners.learn("video", "x", "http://w1:1", 50.0)
    owners.learn("video", "x", "http://w1:1", 50.1, epoch="7-8")
    owners.learn("video", "x", "http://w2:1", 50.2)
    assert changes == [
        ("video", "x", Entry("http://w1:1", 0.0)),
        ("video", "x", Entry("http://w1:1", 0.1, "7")),
        ("video", "x", Entry("http://w1:1", 50.0, "7")),
        ("video", "x", Entry("http://w1:1", 50.1, "7-8")),
        ("video", "x", Entry("http://w2:1", 50.2)),
    ]


def test_epochs_are_kept_once() -> None:
    """
    Thousands of ids of an epoch hold one text of it, learned or restored.
    """
    owners = Owners(TTL)
    owners.restore([("video", "old", Entry("http://w1:1", 0.0, "".join(["7", "-8"])))])
    owners.learn("video", "new", "http://w1:1", 0.0, epoch="".join(["7", "-8"]))
    owners.learn("video", "later", "http://w1:1", 0.0)
    owners.learn("video", "later", "http://w1:1", 0.0, epoch="".join(["7", "-8"]))
    entries = [owners.entry("video", id) for id in ("old", "new", "later")]
    assert len({id(entry.epoch) for entry in entries if entry is not None}) == 1


def test_lives() -> None:
    """
    The process that had an id last is known, and not told: it is news of this run only. Who does
    not know it says nothing against it.
    """
    owners = Owners(TTL)
    changes = told(owners)
    lives = []
    for life in (-1, 3, -1, 4):
        owners.learn("video", "x", "http://w1:1", 0.0, life=life)
        entry = owners.entry("video", "x")
        assert entry is not None
        lives.append(entry.life)
    assert lives == [-1, 3, 3, 4]
    assert len(changes) == 1
    owners.learn("video", "x", "http://w1:1", 0.0, epoch="7")
    assert owners.entry("video", "x") == Entry("http://w1:1", 0.0, "7", 4)
    owners.learn("video", "x", "http://w2:1", 0.0, life=0)
    assert owners.entry("video", "x") == Entry("http://w2:1", 0.0, "", 0)


def test_a_use_does_not_change_what_is_known() -> None:
    """
    However often an id is asked for, its epoch and process stay known.
    """
    owners = Owners(TTL)
    owners.learn("video", "x", "http://w1:1", 0.0, epoch="7", life=2)
    assert owners.owner("video", "x", 50.0) == "http://w1:1"
    assert owners.entry("video", "x") == Entry("http://w1:1", 50.0, "7", 2)


def test_doubt() -> None:
    """
    What may have been deleted is in doubt whatever is heard of it later, until it is learned from
    another worker or anew.
    """
    owners = Owners(TTL)
    owners.doubt("video", "x")
    assert owners.entry("video", "x") is None
    owners.learn("video", "x", "http://w1:1", 0.0, epoch="7", life=2)
    owners.doubt("video", "x")
    for epoch, life in (("", -1), ("", 2), ("", 3), ("8", 3)):
        owners.learn("video", "x", "http://w1:1", 0.0, epoch=epoch, life=life)
        entry = owners.entry("video", "x")
        assert entry is not None
        assert entry.life == DOUBTED
    owners.learn("video", "x", "http://w2:1", 0.0, life=5)
    assert owners.entry("video", "x") == Entry("http://w2:1", 0.0, "", 5)
    owners.forget("video", "x")
    owners.learn("video", "x", "http://w2:1", 0.0, life=5)
    assert owners.entry("video", "x") == Entry("http://w2:1", 0.0, "", 5)


def test_restored_lives() -> None:
    """
    After a restart of the router nobody knows which process had an id.
    """
    owners = Owners(TTL)
    lived = {"a": 3, "b": DOUBTED}
    owners.restore(
        ("video", id, Entry("http://w1:1", 0.0, "7", life)) for id, life in lived.items()
    )
    assert [owners.entry("video", id) for id in lived] == [Entry("http://w1:1", 0.0, "7")] * 2


def test_restored_entries() -> None:
    """
    What was kept comes back without being told again, the oldest going first.
    """
    owners = Owners(TTL, most=2)
    changes = told(owners)
    owners.restore(
        [
            ("video", "new", Entry("http://w1:1", 90.0)),
            ("video", "oldest", Entry("http://w1:1", 10.0)),
            ("mesh", "old", Entry("http://w2:1", 20.0)),
        ]
    )
    assert changes == [("video", "oldest", None)]
    assert owners.owner("video", "new", 90.5) == "http://w1:1"
    assert owners.owner("mesh", "old", 130.0) is None
    assert changes[1:] == [("mesh", "old", None)]
    assert len(owners) == 1


def test_a_clock_that_was_wrong() -> None:
    """
    An entry from the future lives no longer than others once it is used.
    """
    owners = Owners(TTL)
    owners.restore([("video", "x", Entry("http://w1:1", 1e9))])
    assert owners.owner("video", "x", 0.0) == "http://w1:1"
    assert owners.owner("video", "x", 1.02 * TTL) is None


@pytest.mark.parametrize("id", ["", "x" * (LONGEST_ID + 1), "\ud800", "a\nb"])
def test_ids_that_are_not_kept(id: str) -> None:
    """
    What no worker issues as an id takes no memory and spoils no file.
    """
    owners = Owners(TTL)
    owners.learn("video", id, "http://w1:1", 0.0)
    owners.unknown("video", id, 0.0)
    assert owners.owner("video", id, 0.0) is None
    assert not owners.is_unknown("video", id, 0.0)


def test_every_worker_said_no() -> None:
    """
    A no is believed for 5 s, unless somebody has the id after all or a new worker may have it.
    """
    owners = Owners(TTL)
    owners.unknown("video", "x", 10.0)
    assert owners.is_unknown("video", "x", 14.9)
    assert not owners.is_unknown("mesh", "x", 14.9)
    assert not owners.is_unknown("video", "x", 15.0)
    owners.unknown("video", "x", 20.0)
    owners.clear_unknown()
    assert not owners.is_unknown("video", "x", 20.0)
    owners.unknown("video", "x", 20.0)
    assert not owners.is_unknown("video", "x", 19.0)
    owners.unknown("video", "x", 20.0)
    owners.learn("video", "x", "http://w1:1", 20.0)
    assert not owners.is_unknown("video", "x", 20.0)
    owners.unknown("video", "x", 21.0)
    assert not owners.is_unknown("video", "x", 21.0)


def test_made_up_ids_are_bounded() -> None:
    """
    Clients that ask for ids nobody has push out each other's, the oldest first.
    """
    owners = Owners(TTL)
    for number in range(MOST_UNKNOWN + 1):
        owners.unknown("video", str(number), 0.0)
    assert not owners.is_unknown("video", "0", 0.0)
    assert owners.is_unknown("video", "1", 0.0)


class OwnersMachine(RuleBasedStateMachine):
    """
    Any order of learning, asking, forgetting and restarting, beside a plain list of uses.
    """

    MOST = 4

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.owners = Owners(TTL, most=self.MOST, on_change=self.changed)
        self.issued: dict[tuple[str, str], str] = {}
        self.used: dict[tuple[str, str], float] = {}
        self.order: list[tuple[str, str]] = []
        self.kept: dict[tuple[str, str], Entry] = {}
        self.known: dict[tuple[str, str], tuple[str, int]] = {}

    def changed(self, kind: str, id: str, entry: Entry | None) -> None:
        if entry is None:
            del self.kept[kind, id]
            del self.known[kind, id]
        else:
            entry = evolve(entry, life=-1)
            assert self.kept.get((kind, id)) != entry
            self.kept[kind, id] = entry

    def use(self, key: tuple[str, str]) -> None:
        self.used[key] = self.now
        self.order = [*(each for each in self.order if each != key), key][-self.MOST :]

    @rule(seconds=st.sampled_from([0.0, 0.3, 0.9, 1.1, 30.0, TTL, 1.02 * TTL]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(kind=KINDS, id=IDS, worker=WORKERS, epoch=EPOCHS, life=LIVES)
    def learn(self, kind: str, id: str, worker: str, epoch: str, life: int) -> None:
        self.owners.owner(kind, "nobody's", self.now)  # drops what is too old
        epoch_before, life_before = self.known.get((kind, id), ("", -1))
        if self.issued.get((kind, id)) != worker:
            epoch_before, life_before = "", -1
        self.known[kind, id] = (
            epoch or epoch_before,
            life_before if life == -1 or life_before == DOUBTED else life,
        )
        self.owners.learn(kind, id, worker, self.now, epoch=epoch, life=life)
        self.issued[kind, id] = worker
        self.use((kind, id))
        assert not self.owners.is_unknown(kind, id, self.now)

    @rule(kind=KINDS, id=IDS)
    def ask(self, kind: str, id: str) -> None:
        key = (kind, id)
        found = self.owners.owner(kind, id, self.now)
        assert found in (None, self.issued.get(key))
        if key in self.issued:
            silence = self.now - self.used[key]
            recent = key in self.order
            assert found is not None or silence > TTL or not recent
            assert found is None or (silence <= 1.01 * TTL + 1e-6 and recent)
        if found is not None:
            self.use(key)

    @rule(kind=KINDS, id=IDS)
    def doubt(self, kind: str, id: str) -> None:
        self.owners.doubt(kind, id)
        if (kind, id) in self.known:
            self.known[kind, id] = (self.known[kind, id][0], DOUBTED)

    @rule(kind=KINDS, id=IDS)
    def forget(self, kind: str, id: str) -> None:
        self.owners.forget(kind, id)
        self.issued.pop((kind, id), None)
        if (kind, id) in self.order:
            self.order.remove((kind, id))

    @rule(kind=KINDS, id=IDS)
    def nobody_has_it(self, kind: str, id: str) -> None:
        assume(self.owners.owner(kind, id, self.now) is None)
        self.owners.unknown(kind, id, self.now)
        assert self.owners.is_unknown(kind, id, self.now)

    @rule()
    def restart(self) -> None:
        self.owners = Owners(TTL, most=self.MOST, on_change=self.changed)
        self.owners.restore((kind, id, entry) for (kind, id), entry in self.kept.items())
        self.order = sorted(self.kept, key=lambda key: self.kept[key].used)
        self.known = {key: (epoch, -1) for key, (epoch, _) in self.known.items()}

    @invariant()
    def what_was_told_is_what_is_kept(self) -> None:
        assert len(self.owners) == len(self.kept) <= self.MOST
        assert self.known.keys() == self.kept.keys()
        for key, told in self.kept.items():
            epoch, life = self.known[key]
            assert self.owners.entry(*key) == evolve(told, epoch=epoch, life=life)
            assert told.epoch == epoch


TestOwnersMachine = OwnersMachine.TestCase
