"""
The waiting line: priority with ageing, turns between clients, batches longest first.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable
from itertools import count
from types import FunctionType
from typing import Any

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sgl_droute.fleet.capabilities import ANYTHING, IMAGE, VIDEO, Want
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.line import Key, Line, key_of

Place = tuple[float, int]


def job(
    number: int,
    *,
    submitted: float | None = None,
    priority: int = 0,
    length: float = 1.0,
    client: str = "",
    batch: str | None = None,
    group: str | None = None,
    want: Want = ANYTHING,
    share: float = 1.0,
) -> Job:
    """
    The job ``j<number>``, submitted at second *number* unless told otherwise.
    """
    made = Job(
        id=f"j{number}",
        submitted=float(number) if submitted is None else submitted,
        priority=priority,
        client=client,
        batch=batch,
        group=group,
        want=want,
        share=share,
    )
    made.number = number
    made.length = length
    return made


def line_of(*jobs: Job, fair: bool = False) -> Line:
    line = Line(fair=fair)
    for each in jobs:
        line.put(each)
    return line


def numbers(jobs: Iterable[Job]) -> list[int]:
    return [each.number for each in jobs]


def served(line: Line) -> list[int]:
    """
    The numbers of the jobs as they come when the first is taken again and again.
    """
    order = []
    while line:
        first = next(line.in_order())
        line.take(first)
        order.append(first.number)
    return order


def test_first_come_first_served() -> None:
    """
    Jobs of one priority are served in the order in which they came.
    """
    assert served(line_of(job(1), job(2), job(3))) == [1, 2, 3]


def test_jobs_of_the_same_moment_in_order_of_arrival() -> None:
    """
    Where the clock does not tell jobs apart their numbers do.
    """
    jobs = [job(number, submitted=5.0) for number in (2, 1, 3)]
    assert numbers(line_of(*jobs).in_order()) == [1, 2, 3]


def test_higher_priority_first() -> None:
    """
    A job of higher priority passes those that wait.
    """
    assert served(line_of(job(1), job(2, priority=1), job(3, priority=2))) == [3, 2, 1]


def test_sixty_seconds_of_waiting_make_up_for_a_level() -> None:
    """
    A job is passed by one of the next priority that comes 59 s later, and not by one that comes
    61 s later.
    """
    waiting = job(1, submitted=0.0)
    sooner, later = (
        job(2, submitted=59.0, priority=1),
        job(3, submitted=61.0, priority=1),
    )
    assert served(line_of(waiting, sooner, later)) == [2, 1, 3]


def test_priorities_below_the_usual() -> None:
    """
    A negative priority waits for those that come up to 60 s later.
    """
    jobs = [job(1, priority=-1), job(2), job(62)]
    assert served(line_of(*jobs)) == [2, 1, 62]


def test_only_the_jobs_of_some_keys() -> None:
    """
    The jobs that one worker may take are found without those that it may not, in order over all
    their keys.
    """
    jobs = [job(1, want=IMAGE), job(2, want=VIDEO), job(3, want=IMAGE), job(4)]
    line = line_of(*jobs)
    image, video, any_worker = (key_of(jobs[index]) for index in (0, 1, 3))
    assert line.wants() == [image, video, any_worker]
    assert numbers(line.in_order([image, any_worker])) == [1, 3, 4]
    assert numbers(line.in_order([video])) == [2]
    assert numbers(line.in_order([])) == []
    assert numbers(line.in_order([(IMAGE, frozenset({"http://a:1"}))])) == []


def test_who_waits() -> None:
    """
    The line knows its jobs by id, by batch and by their expected seconds, until they leave.
    """
    one, two, three = job(1, length=2.0, batch="b"), job(2, length=0.5), job(3, batch="b")
    line = line_of(three, one, two)
    assert (len(line), "j2" in line, line.get("j2")) == (3, True, two)
    assert line.of_batch("b") == [one, three]
    assert line.seconds() == pytest.approx(3.5)
    assert line.remove("j2") is two
    line.take(three)
    assert (len(line), "j2" in line, line.get("j2")) == (1, False, None)
    assert line.of_batch("b") == [one]
    assert line.seconds() == pytest.approx(2.0)
    assert line.remove("j1") is one
    assert line.of_batch("b") == []
    assert line.seconds() == 0.0


def test_the_seconds_before_a_new_job() -> None:
    """
    What a job would have before it is all that wants the same, of its priority or a higher one.
    """
    line = line_of(
        job(1, length=1.0, want=IMAGE),
        job(2, length=2.0, want=IMAGE, priority=1),
        job(3, length=4.0, want=IMAGE, priority=2),
        job(4, length=8.0, want=VIDEO),
    )
    for priority, seconds in enumerate([7.0, 6.0, 4.0, 0.0]):
        new = job(9, want=IMAGE, priority=priority)
        assert line.seconds_ahead(new) == pytest.approx(seconds)
    assert line.seconds_ahead(job(9)) == 0.0


def test_jobs_that_do_not_wait() -> None:
    """
    Nobody leaves twice, nobody waits twice.
    """
    one = job(1)
    line = line_of(one)
    with pytest.raises(ValueError, match="j1"):
        line.put(one)
    line.take(one)
    assert line.remove("j1") is None
    with pytest.raises(KeyError):
        line.take(one)


def test_a_batch_is_served_longest_first() -> None:
    """
    Of a rollout batch the longest job is served first, equally long ones as they came.
    """
    lengths = [1.0, 9.0, 5.0, 9.0]
    jobs = [job(index, batch="b", length=length) for index, length in enumerate(lengths)]
    assert served(line_of(*jobs)) == [1, 3, 2, 0]


def test_a_batch_keeps_its_places() -> None:
    """
    The longest job of a batch fills the batch's first place, and nobody else is moved by that,
    nor when it has been served or has left.
    """
    jobs = [job(1, batch="b", length=1.0), job(2), job(3, batch="b", length=9.0), job(4)]
    assert served(line_of(*jobs)) == [3, 2, 1, 4]
    line = line_of(*jobs)
    line.remove("j3")
    assert numbers(line.in_order()) == [2, 1, 4]


def test_two_batches_do_not_pass_each_other() -> None:
    """
    The order of the batches' places is that of arrival, whichever has the longer jobs.
    """
    first = [job(number, batch="a", length=number) for number in (1, 2)]
    second = [job(number, batch="b", length=10.0 * number) for number in (3, 4)]
    assert served(line_of(*first, *second)) == [2, 1, 4, 3]


def test_a_batch_is_ordered_within_a_priority() -> None:
    """
    A short job of higher priority is not held back by its batch.
    """
    jobs = [job(1, batch="b", length=9.0), job(2, batch="b", length=1.0, priority=1)]
    assert served(line_of(*jobs)) == [2, 1]


def test_groups_of_a_batch_stay_together() -> None:
    """
    Among equally long jobs of a batch a group is served in a row, in order of its first job; a
    longer one is still served first.
    """
    groups = {1: "x", 2: "y", 3: None, 4: "x", 5: "y"}
    jobs = [job(number, batch="b", group=group) for number, group in groups.items()]
    longer = job(6, batch="b", group="y", length=2.0)
    assert served(line_of(*jobs, longer)) == [6, 1, 4, 2, 5, 3]


def test_clients_in_turns() -> None:
    """
    With fair turns a client with one job waits for one job of a client with many.
    """
    jobs = [job(number, client="a") for number in (1, 2, 3)] + [job(4, client="b")]
    assert served(line_of(*jobs, fair=True)) == [1, 4, 2, 3]
    assert served(line_of(*jobs)) == [1, 2, 3, 4]


def test_a_new_client_joins_at_the_end_of_the_round() -> None:
    """
    Who comes anew is served after all that wait for their turn, and so is who was just served.
    """
    line = line_of(*(job(number, client=client) for number, client in enumerate("aabb")), fair=True)
    line.take(next(line.in_order()))
    line.put(job(4, client="c"))
    assert served(line) == [2, 1, 4, 3]


def test_who_had_the_turn_has_the_last_one() -> None:
    """
    A job taken out of turn is its client's turn all the same.
    """
    jobs = [job(number, client=client) for number, client in enumerate("abbcc")]
    line = line_of(*jobs, fair=True)
    assert numbers(line.in_order()) == [0, 1, 3, 2, 4]
    line.take(jobs[1])
    assert numbers(line.in_order()) == [0, 3, 2, 4]
    line.take(jobs[4])
    assert numbers(line.in_order()) == [0, 2, 3]


def test_who_leaves_unserved_moves_no_turn() -> None:
    """
    A client whose first job leaves has its turn still.
    """
    jobs = [job(number, client=client) for number, client in enumerate("aabb")]
    line = line_of(*jobs, fair=True)
    line.remove("j0")
    assert served(line) == [1, 2, 3]


def test_turns_do_not_pass_priorities() -> None:
    """
    Turns are taken within a priority: nobody's job of higher priority waits for them.
    """
    jobs = [job(1, client="a", priority=1), job(2, client="b"), job(3, client="a", priority=1)]
    assert served(line_of(*jobs, fair=True)) == [1, 3, 2]


def test_turns_fill_the_places_of_their_priority() -> None:
    """
    Against jobs of other keys a (key, priority) keeps its places, whoever fills them.
    """
    jobs = [job(number, client="a", want=IMAGE) for number in (1, 2, 4)]
    jobs += [job(3, client="v", want=VIDEO), job(5, client="b", want=IMAGE)]
    assert served(line_of(*jobs, fair=True)) == [1, 5, 3, 2, 4]


def test_shares() -> None:
    """
    A client with a share of 3 has three turns for one of a client with a share of 1, and without
    fair turns shares mean nothing.
    """
    jobs = [job(number, client="b") for number in (1, 2, 3)]
    jobs += [job(number, client="a", share=3.0) for number in (4, 5, 6, 7, 8)]
    assert served(line_of(*jobs, fair=True)) == [1, 4, 5, 6, 2, 7, 8, 3]
    assert served(line_of(*jobs)) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_turn_that_was_begun_goes_on() -> None:
    """
    Who comes while a client is in the middle of its turn waits for the rest of it, and no more.
    """
    line = line_of(*(job(number, client="a", share=3.0) for number in range(6)), fair=True)
    line.take(next(line.in_order()))
    line.put(job(6, client="b"))
    assert served(line) == [1, 2, 6, 3, 4, 5]


def test_a_share_that_changes() -> None:
    """
    The share of a client's latest job is the client's: a turn of before is cut to it.
    """
    line = line_of(*(job(number, client="a", share=3.0) for number in range(3)), fair=True)
    line.put(job(3, client="b"))
    assert numbers(line.in_order()) == [0, 1, 2, 3]
    line.put(job(4, client="a", share=1.0))
    assert numbers(line.in_order()) == [0, 3, 1, 2, 4]


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.integers(1, 40))
def test_shares_are_kept(shares: list[int], services: int) -> None:
    """
    Of clients that never run out of jobs each is served its shares in every round.
    """
    line = Line(fair=True)
    numbering = count()
    for _ in range(max(shares)):
        for client, share in enumerate(shares):
            line.put(job(next(numbering), client=str(client), share=float(share)))
    had = [0] * len(shares)
    for _ in range(services):
        first = next(line.in_order())
        line.take(first)
        had[int(first.client)] += 1
        line.put(job(next(numbering), client=first.client, share=first.share))
        rounds = [services / share for services, share in zip(had, shares, strict=True)]
        assert max(rounds) - min(rounds) <= 1


def test_batches_within_a_clients_own_order() -> None:
    """
    With fair turns a batch is served longest first among the jobs of its client, and its length
    does not move the turns.
    """
    jobs = [job(number, client="a", batch="b", length=number) for number in (1, 2, 3)]
    jobs += [job(4, client="c"), job(5, client="c")]
    assert served(line_of(*jobs, fair=True)) == [3, 4, 2, 5, 1]


@given(st.booleans())
def test_a_job_that_comes_back_has_its_place(fair: bool) -> None:
    """
    A job whose worker was not reached stands where it stood, though it may use fewer workers now.
    """
    jobs = [job(number) for number in (1, 2, 3)]
    line = line_of(*jobs, fair=fair)
    line.take(jobs[1])
    jobs[1].without = frozenset({"http://a:1"})
    line.put(jobs[1])
    assert numbers(line.in_order()) == [1, 2, 3]
    assert line.wants() == [(ANYTHING, frozenset()), key_of(jobs[1])]


def test_a_job_of_a_batch_that_comes_back_has_the_place_it_filled() -> None:
    """
    The longest job of a batch was served on the batch's first place, and has that again.
    """
    jobs = [job(1, batch="b", length=1.0), job(2), job(3, batch="b", length=9.0)]
    line = line_of(*jobs)
    line.take(jobs[2])
    jobs[2].without = frozenset({"http://a:1"})
    line.put(jobs[2])
    assert served(line) == [3, 2, 1]


def test_a_job_that_comes_back_stands_as_before_in_its_clients_order() -> None:
    """
    With fair turns a job that was served on another's place keeps its own among those of its
    client.
    """
    jobs = [job(number, client=client) for number, client in enumerate("bbbaa")]
    line = line_of(*jobs, fair=True)
    assert numbers(line.in_order()) == [0, 3, 1, 4, 2]
    line.take(jobs[1])
    line.put(jobs[1])
    assert numbers(line.in_order()) == [0, 3, 1, 4, 2]


def test_a_turn_that_was_not_used_comes_back() -> None:
    """
    The clients of jobs that come back have their turns again, in the order in which they were.
    """
    jobs = [job(number, client=client) for number, client in enumerate("abcab")]
    line = line_of(*jobs, fair=True)
    for _ in range(2):
        line.take(next(line.in_order()))
    assert numbers(line.in_order()) == [2, 3, 4]
    line.put(jobs[1])
    assert numbers(line.in_order()) == [1, 2, 3, 4]
    line.put(jobs[0])
    assert numbers(line.in_order()) == [0, 1, 2, 3, 4]


@given(
    st.booleans(),
    st.lists(
        st.builds(
            dict,
            priority=st.integers(0, 1),
            length=st.sampled_from([1.0, 2.0]),
            client=st.sampled_from("ab"),
            batch=st.sampled_from([None, "p", "q"]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 3),
    st.data(),
)
def test_taking_and_putting_back_changes_nothing(
    fair: bool, fields: list[dict[str, Any]], share: int, data: st.DataObject
) -> None:
    """
    When some were taken, in any order, and have come back, in any order, all stand as before.
    """
    shares = {"a": float(share), "b": 1.0}
    jobs = [job(number, share=shares[each["client"]], **each) for number, each in enumerate(fields)]
    line = line_of(*jobs, fair=fair)
    before = numbers(line.in_order())
    taken = data.draw(st.lists(st.sampled_from(jobs), unique=True))
    for each in taken:
        line.take(each)
    for each in data.draw(st.permutations(taken)):
        line.put(each)
    assert numbers(line.in_order()) == before


SOME_JOBS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(-1, 3), st.sampled_from([IMAGE, VIDEO])),
    min_size=2,
    max_size=20,
)


@given(SOME_JOBS)
def test_nobody_starves(arrivals: list[tuple[int, int, Want]]) -> None:
    """
    A job is passed only by jobs of higher priority, that came less than 60 s later for each level.
    """
    jobs = [
        job(number, submitted=float(submitted), priority=priority, want=want)
        for number, (submitted, priority, want) in enumerate(sorted(arrivals, key=lambda a: a[0]))
    ]
    order = list(line_of(*jobs).in_order())
    for index, passed in enumerate(order):
        for passing in order[:index]:
            if passing.number > passed.number:
                levels = passing.priority - passed.priority
                assert levels > 0
                # At exactly 60 s who came first is first.
                assert passing.submitted - passed.submitted < 60.0 * levels


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), st.data())
def test_everybody_is_served_once_in_a_round(clients: list[str], data: st.DataObject) -> None:
    """
    With fair turns, between two services of a client each other that waits all the while is served
    exactly once; more often only if the first had nothing to be served meanwhile.
    """
    coming = [job(number, client=client) for number, client in enumerate(clients)]
    line = Line(fair=True)
    services: list[str] = []
    waiting: list[set[str]] = []  # after each service
    while coming or line:
        if coming and (not line or data.draw(st.booleans())):
            line.put(coming.pop(0))
            continue
        first = next(line.in_order())
        if first.client in services:
            last = len(services) - 1 - services[::-1].index(first.client)
            all_the_while = set.intersection(*waiting[last:])
            for other in all_the_while - {first.client}:
                turns = services[last:].count(other)
                assert turns == 1 or (turns > 1 and first.client not in all_the_while)
        line.take(first)
        services.append(first.client)
        waiting.append({each.client for each in line.in_order()})


def parts(line: Line) -> int:
    """
    How many objects hang on *line*.
    """
    found: dict[int, object] = {}
    look_at: list[object] = [line]
    while look_at:
        each = look_at.pop()
        if id(each) not in found and not isinstance(each, (type, FunctionType)):
            found[id(each)] = each
            look_at += gc.get_referents(each)
    return len(found)


@given(SOME_JOBS, st.booleans())
def test_an_empty_line_keeps_nothing(arrivals: list[tuple[int, int, Want]], fair: bool) -> None:
    """
    When all have left, no key, client, batch or group stays behind, and of jobs that ended nothing.
    """
    line = Line(fair=fair)
    for number, (submitted, priority, want) in enumerate(arrivals):
        name = str(number % 3)
        line.put(
            job(
                number,
                submitted=float(submitted),
                priority=priority,
                want=want,
                client=name,
                batch=name,
                group=name,
                length=0.1 * number,
            )
        )
    for number in range(0, len(arrivals), 2):
        line.remove(f"j{number}")
    while line:
        line.take(next(line.in_order()))
    assert (line.wants(), line.of_batch("0"), line.seconds()) == ([], [], 0.0)
    assert list(line.in_order()) == []
    assert parts(line) == parts(Line(fair=fair))


def test_a_long_line_keeps_only_those_that_wait() -> None:
    """
    A line that never empties does not grow: clients, batches, groups and jobs that left are
    forgotten.
    """
    line = Line(fair=True)
    sizes = []
    for number in range(600):
        name = str(number)
        line.put(job(4 * number, client=name, batch=name, group=name))
        line.put(job(4 * number + 1, client="always", batch="always", group=name))
        line.put(job(4 * number + 2, client="always", batch=name))
        line.put(job(4 * number + 3, client="always"))
        while len(line) > 20:
            line.take(next(line.in_order()))
        if number in (300, 599):
            sizes.append(parts(line))
    assert sizes[1] <= 1.1 * sizes[0]


@define
class Row:
    """A job as the definition has it: it owns a place, and one among its client's jobs."""

    job: Job
    key: Key
    place: Place
    own: Place
    turn: int
    left: int
    first: int
    served: bool = False


class LineMachine(RuleBasedStateMachine):
    """
    The line against its definition: rows that are sorted anew at each look.

    A job that leaves changes places with the one whose place it fills.
    """

    @initialize(fair=st.booleans(), shares=st.booleans())
    def start(self, fair: bool, shares: bool) -> None:
        self.fair = fair
        self.shares = shares
        self.line = Line(fair=fair)
        self.now = 0.0
        self.numbers = count(1)
        self.turns_given = count(1)
        self.rows: list[Row] = []
        self.gone: list[Row] = []
        self.turns: dict[tuple[Key, int, str], tuple[int, int]] = {}

    # The definition. A client's turn has a number, and so many jobs left to be served in it.

    def share_of(self, client: str) -> int:
        return {"a": 1, "b": 2, "c": 3}[client] if self.fair and self.shares else 1

    def share(self, row: Row) -> int:
        return self.share_of(row.job.client)

    def nth_round(self, row: Row, nth: int) -> int:
        left = self.turns[self.round(row)][1]
        return 0 if nth < left else 1 + (nth - left) // self.share(row)

    def client(self, row: Row) -> str:
        return row.job.client if self.fair else ""

    def round(self, row: Row) -> tuple[Key, int, str]:
        return row.key, row.job.priority, self.client(row)

    def own_order(self, rows: list[Row]) -> list[tuple[Place, Row]]:
        """The jobs of one client in one level, with the places that they fill among themselves."""
        batches = defaultdict(list)
        for row in rows:
            batches[row.job.batch or row.job.id].append(row)
        filled: list[tuple[Place, Row]] = []
        for batch in batches.values():
            longest = sorted(batch, key=lambda r: (-r.job.length, r.first, r.job.number))
            filled += zip(sorted(row.own for row in batch), longest, strict=True)
        return sorted(filled, key=lambda pair: pair[0])

    def in_order(self) -> list[tuple[Place, Row]]:
        levels = defaultdict(list)
        for row in self.rows:
            levels[row.key, row.job.priority].append(row)
        filled: list[tuple[Place, Row]] = []
        for rows in levels.values():
            clients = defaultdict(list)
            for row in rows:
                clients[self.round(row)].append(row)
            turns = []
            for each, its in clients.items():
                turns += [
                    (self.nth_round(row, nth), self.turns[each][0], nth, row)
                    for nth, (_, row) in enumerate(self.own_order(its))
                ]
            turns.sort(key=lambda turn: turn[:3])
            order = [row for _, _, _, row in turns]
            filled += zip(sorted(row.place for row in rows), order, strict=True)
        return sorted(filled, key=lambda pair: pair[0])

    def leave(self, row: Row, *, served: bool) -> None:
        place = next(place for place, each in self.in_order() if each is row)
        own = next(
            own
            for own, each in self.own_order(
                [each for each in self.rows if self.round(each) == self.round(row)]
            )
            if each is row
        )
        whose = next(each for each in self.rows if each.place == place)
        whose.place, row.place = row.place, place
        whose = next(
            each for each in self.rows if each.own == own and self.round(each) == self.round(row)
        )
        whose.own, row.own = row.own, own
        self.rows.remove(row)
        self.gone.append(row)
        row.turn, row.left = self.turns[self.round(row)]
        row.served = served
        if all(self.round(each) != self.round(row) for each in self.rows):
            del self.turns[self.round(row)]
        elif served and row.left > 1:
            self.turns[self.round(row)] = row.turn, row.left - 1
        elif served:
            self.turns[self.round(row)] = next(self.turns_given), self.share(row)

    def come(self, row: Row) -> None:
        present = self.turns.get(self.round(row))
        if present is None:
            self.turns[self.round(row)] = row.turn, 1 if row.served else row.left
        elif row.turn < present[0]:
            self.turns[self.round(row)] = row.turn, 1
        elif row.turn == present[0] and row.served:
            self.turns[self.round(row)] = row.turn, min(self.share(row), present[1] + 1)
        same = [
            each.first
            for each in self.rows
            if self.round(each) == self.round(row)
            and row.job.group is not None
            and (each.job.batch, each.job.group) == (row.job.batch, row.job.group)
        ]
        row.first = same[0] if same else row.job.number
        self.rows.append(row)

    # What happens.

    @rule(
        waited=st.sampled_from([0.0, 1.0, 30.0, 61.0]),
        priority=st.sampled_from([0, 0, 1, 2]),
        length=st.sampled_from([1.0, 1.0, 2.0, 7.5]),
        client=st.sampled_from("abc"),
        batch=st.sampled_from([None, None, "p", "q"]),
        group=st.sampled_from([None, "x", "y"]),
        want=st.sampled_from([ANYTHING, ANYTHING, VIDEO]),
    )
    def put(
        self,
        waited: float,
        priority: int,
        length: float,
        client: str,
        batch: str | None,
        group: str | None,
        want: Want,
    ) -> None:
        self.now += waited
        number = next(self.numbers)
        new = job(
            number,
            submitted=self.now,
            priority=priority,
            length=length,
            client=client,
            share=float(self.share_of(client)),
            batch=batch,
            group=group,
            want=want,
        )
        place = (self.now - 60.0 * priority, number)
        self.line.put(new)
        turn = next(self.turns_given)
        self.come(Row(new, key_of(new), place, place, turn, self.share_of(client), number))

    @precondition(lambda self: self.rows)
    @rule(nth=st.integers(0, 3))
    def take(self, nth: int) -> None:
        row = [row for _, row in self.in_order()][min(nth, len(self.rows) - 1)]
        self.line.take(row.job)
        self.leave(row, served=True)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def take_any(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        self.line.take(row.job)
        self.leave(row, served=True)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        assert self.line.remove(row.job.id) is row.job
        self.leave(row, served=False)

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), fewer_workers=st.booleans())
    def put_back(self, data: st.DataObject, fewer_workers: bool) -> None:
        row = data.draw(st.sampled_from(self.gone))
        self.gone.remove(row)
        if fewer_workers:
            row.job.without |= {"http://a:1"}
            row.key = key_of(row.job)
        self.line.put(row.job)
        self.come(row)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.gone))
        self.gone.remove(row)

    @invariant()
    def is_as_defined(self) -> None:
        rows = [row for _, row in self.in_order()]
        assert numbers(self.line.in_order()) == [row.job.number for row in rows]
        assert [self.line.position(row.job) for row in rows] == list(range(1, len(rows) + 1))
        for row in rows:
            before = [
                other.job.length
                for other in rows
                if other.key == row.key and other.job.priority >= row.job.priority
            ]
            assert self.line.seconds_ahead(row.job) == pytest.approx(sum(before))
        assert set(self.line.wants()) == {row.key for row in rows}
        for key in sorted(self.line.wants(), key=repr):
            expected = [row.job.number for row in rows if row.key == key]
            assert numbers(self.line.in_order([key])) == expected
        assert len(self.line) == len(rows)
        assert self.line.seconds() == pytest.approx(sum(row.job.length for row in rows))
        for batch in ("p", "q"):
            expected = sorted(row.job.number for row in rows if row.job.batch == batch)
            assert numbers(self.line.of_batch(batch)) == expected

    @invariant()
    def without_turns_and_batches_in_order_of_arrival(self) -> None:
        for key in sorted(self.line.wants(), key=repr):
            for priority in range(3):
                level = [
                    each.number
                    for each in self.line.in_order([key])
                    if each.priority == priority and each.batch is None and not self.fair
                ]
                assert level == sorted(level)


TestLineMachine = LineMachine.TestCase
