"""The heap of recurrences against a sorted list, as a state machine."""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cronally.domain.recurrence import Recurrence
from cronally.engine.timetable import Timetable
from support.work import count_calls

START = 1_795_420_800_000
RULES = [
    Recurrence.parse(when).slots
    for when in ("@every 3s", "@every 7s", "@every 1m", "* * * * *", "0 12 * * *")
] + [Recurrence.parse("@at 2026-11-23T08:00:20Z").slots]


class HeapEqualsSortedList(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.table = Timetable()
        self.members = {}
        self.taken_through = START
        self.next_id = 1

    @rule(
        recurrence=st.sampled_from(RULES),
        offset=st.sampled_from([0, 2_000]),
        topic=st.sampled_from("ab"),
        priority=st.sampled_from([5, 9]),
    )
    def join(self, recurrence, offset, topic, priority):
        id_ = self.next_id
        self.next_id += 1
        self.table.join(
            id_,
            id_ * 10,
            START + id_,
            recurrence,
            offset,
            topic=topic,
            priority=priority,
            taken_through=self.taken_through,
        )
        self.members[id_] = (recurrence, offset, topic, priority)

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def leave(self, data):
        id_ = data.draw(st.sampled_from(sorted(self.members)))
        self.table.leave(id_)
        self.table.leave(id_)
        del self.members[id_]

    @rule(ahead=st.sampled_from([0, 1_000, 3_000, 20_000, 70_000]))
    def take(self, ahead):
        through = self.taken_through + ahead
        expected = sorted(
            (slot + offset, id_)
            for id_, (recurrence, offset, _, _) in self.members.items()
            for slot in recurrence.between_ms(self.taken_through - offset, through - offset)
        )
        taken = []
        firsts = []
        for entry, slots, span in self.table.take(through):
            ids, rest = self.table.walk(span, len(self.members))
            assert rest is None
            assert slots == sorted(slots)
            firsts.append(slots[0] + entry.offset_ms)
            taken += [(slot + entry.offset_ms, id_) for slot in slots for id_ in ids]
        assert firsts == sorted(firsts)
        assert sorted(taken) == expected
        self.taken_through = through

    @rule(step=st.sampled_from([-30_000, -1_000, 0, 5_000]))
    def restart(self, step):
        self.taken_through += step
        self.table.restart(self.taken_through)

    @rule(step=st.sampled_from([0, 5_000]), since=st.sampled_from([-90_000, -7_000, 0]))
    def restart_and_find_what_was_due(self, step, since):
        self.taken_through += step
        since += self.taken_through
        found = [
            id_
            for entries in self.table.restart_in_slices(self.taken_through, since)
            for entry in entries
            for id_ in entry.ids
        ]
        assert sorted(found) == [
            id_
            for id_, (recurrence, offset, _, _) in sorted(self.members.items())
            if any(recurrence.between_ms(since - offset, self.taken_through - offset))
        ]

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def join_beside_another(self, data):
        neighbour = data.draw(st.sampled_from(sorted(self.members)))
        id_ = self.next_id
        self.next_id += 1
        self.table.join_entry(self.table.entry(neighbour), id_, id_ * 10, START + id_)
        self.members[id_] = self.members[neighbour]

    @invariant()
    def next_due_is_the_earliest(self):
        dues = [
            slot + offset
            for recurrence, offset, _, _ in self.members.values()
            if (slot := recurrence.next_ms(self.taken_through - offset)) is not None
        ]
        assert self.table.next_due() == min(dues, default=None)

    @invariant()
    def entries_come_by_their_next_due_time_and_are_not_taken(self):
        found = [
            (entry.next_fire + entry.offset_ms, id_) for entry in self.table.by_due() for id_ in entry.ids
        ]
        assert [due for due, _ in found] == sorted(due for due, _ in found)
        assert sorted(found) == sorted(
            (slot + offset, id_)
            for id_, (recurrence, offset, _, _) in self.members.items()
            if (slot := recurrence.next_ms(self.taken_through - offset)) is not None
        )
        for entry in self.table.by_due():
            assert self.table.first_ids(entry, 2) == entry.ids.tolist()[:2]

    @invariant()
    def everyone_is_where_he_belongs(self):
        assert len(self.table) == len(self.members)
        for id_, member in self.members.items():
            entry = self.table.entry(id_)
            assert (entry.recurrence, entry.offset_ms, entry.topic, entry.priority) == member
            assert (self.table.revision_id(id_), self.table.effective_from(id_)) == (id_ * 10, START + id_)
        assert 0 not in self.table
        assert self.next_id not in self.table
        distinct = {(recurrence.key, *rest) for recurrence, *rest in self.members.values()}
        assert len(list(self.table.entries())) == len(distinct)
        assert sum(len(entry.ids) for entry in self.table.entries()) == len(self.members)


TestHeapEqualsSortedList = HeapEqualsSortedList.TestCase
TestHeapEqualsSortedList.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_thousands_of_rules_are_told_apart_whoever_comes_and_goes():
    table, chance = Timetable(), Random(5)
    rules = [Recurrence.parse(f"@every {seconds}s").slots for seconds in range(1, 6_001)]
    living = {}
    for id_ in range(1, 20_001):
        number = chance.randrange(len(rules))
        if id_ % 3 == 0:
            gone = chance.choice(list(living))
            table.leave(gone)
            del living[gone]
        table.join(id_, id_, START, rules[number], 0, topic="a", priority=5, taken_through=START)
        living[id_] = number
    by_rule = {}
    for id_, number in living.items():
        by_rule.setdefault(number, []).append(id_)
    number_of = {rule: number for number, rule in enumerate(rules)}
    entries = {number_of[entry.recurrence]: [*entry.ids] for entry in table.entries()}
    assert entries == by_rule
    assert len(table) == len(living)


def test_a_restart_looks_at_each_rule_once_if_nothing_was_due():
    table = Timetable()
    for id_ in range(1, 2_001):
        rule = Recurrence.parse(f"{id_ % 60} {id_ // 60 % 24} 1 1 *", tz="Europe/London").slots
        table.join(id_, id_, START, rule, 0, topic="a", priority=5, taken_through=None)
    steps = count_calls(lambda: [*table.restart_in_slices(START, START - 60_000)])
    assert steps < 25 * 1_440
    assert table.next_due() == min(entry.next_fire for entry in table.entries())
