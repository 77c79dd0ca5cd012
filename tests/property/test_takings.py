"""Crowds that are taken at once and become fires in portions, while schedules come and go: a state machine."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cronally.domain.recurrence import Recurrence
from cronally.engine.takings import Takings
from cronally.engine.timetable import Timetable

START = 1_795_420_800_000
RULES = [Recurrence.parse(when).slots for when in ("@every 2s", "@every 3s", "@every 6s")]


class PortionsOfCrowds(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.table = Timetable()
        self.takings = Takings(self.table)
        self.now = START
        self.through = START
        self.members = {}
        self.untaken = set()  # (due, -priority, topic, id, slot)
        self.next_id = 1

    @rule(
        recurrence=st.sampled_from(RULES),
        topic=st.sampled_from("ab"),
        priority=st.sampled_from([5, 9]),
        count=st.integers(1, 70),
    )
    def join(self, recurrence, topic, priority, count):
        for _ in range(count):
            self.put(self.next_id, recurrence, topic, priority)
            self.next_id += 1

    def put(self, id_, recurrence, topic, priority):
        keys = {"topic": topic, "priority": priority, "taken_through": self.through}
        self.table.join(id_, id_, START, recurrence, 0, **keys)
        self.members[id_] = (recurrence, topic, priority)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), comes_back=st.booleans())
    def leave(self, data, comes_back):
        id_ = data.draw(st.sampled_from(sorted(self.members)))
        self.takings.forget(self.table.entry(id_), id_)
        self.table.leave(id_)
        member = self.members.pop(id_)
        self.untaken = {each for each in self.untaken if each[3] != id_}
        if comes_back:  # what was taken before is not its own any more
            self.put(id_, *member)

    @rule(ahead=st.sampled_from([0, 1_000, 4_000]))
    def take(self, ahead):
        through = max(self.through, self.now + ahead)
        for id_, (recurrence, topic, priority) in self.members.items():
            for slot in recurrence.between_ms(self.through, through):
                self.untaken.add((slot, -priority, topic, id_, slot))
        for entry, slots, span in self.table.take(through):
            for slot in slots:
                self.takings.add(entry, slot, span)
        self.through = through

    @rule(step=st.sampled_from([0, 500, 3_000]))
    def pass_time(self, step):
        self.now += step

    @rule(most=st.sampled_from([1, 7, 60, 500]))
    def serve(self, most):
        portions = self.takings.take(self.now, most)
        served = [(crowd, id_) for crowd, ids in portions for id_ in ids]
        assert len(served) == min(most, len(self.untaken))
        for crowd, id_ in served:
            _, topic, priority = self.members[id_]
            one = (crowd.due_time, -priority, topic, id_, crowd.slot)
            assert one in self.untaken
            best = min(self.rank(each) for each in self.untaken)
            assert self.rank(one) == best
            self.untaken.remove(one)

    def rank(self, one):
        due, priority = one[:2]
        return (self.now, priority) if due <= self.now else (due, priority)

    @invariant()
    def it_knows_what_is_left(self):
        assert self.takings.earliest_due() == min((each[0] for each in self.untaken), default=None)
        assert bool(self.takings) >= bool(self.untaken)
        for id_ in list(self.members)[:3]:
            slots = [each[4] for each in self.untaken if each[3] == id_]
            assert self.takings.first_slot(self.table.entry(id_), id_) == min(slots, default=None)


TestPortionsOfCrowds = PortionsOfCrowds.TestCase
TestPortionsOfCrowds.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
