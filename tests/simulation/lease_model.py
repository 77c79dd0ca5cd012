"""Every order in which a few machines can do what the protocol of leases has them do (design §12), and whether a promise is broken in one.

1. The search goes through all states that can be reached, the nearest first. In each step one machine does one thing, or time passes. A
   machine that is not chosen stands still: a crash, a pause, a slow network and a lost answer are all the same here. So is a late look at
   the others: everybody sees a heartbeat at once, and retires when he comes to it.
2. A tick is a second, the one that the margin of trust is. In each tick one slot of each shard is due.
3. What is decided by looking at the clock and the table, ``engine/leases.py`` decides. The table, the engines and the order of their
   writes are told here, in the words of ``SharedStore``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.engine.leases import Leases, is_free, trusted_until
from cronally.engine.records import Machine, Shard
from cronally.instants import UtcMs
from simulation.lease_states import Beat, Held, Move, Node, Row, State, normal, with_item, with_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Flaw(Enum):
    """A protocol that is not ours: what it does otherwise."""

    TAKES_WITHOUT_RETIRING = "a silent machine's shards are taken, and its commits are not refused"
    NEVER_RETIRES = "nobody is ever retired"
    TRUSTS_FROM_THE_END = "trust counts from when the renewal was answered"
    SENDS_WITHOUT_TRUST = "nobody looks at the lease before sending"
    RETIRES_WHATEVER_VERSION = "retiring does not depend on the version that was seen"
    RETIRES_TOO_SOON = "silence counts two ticks before the end of the lease"
    COMMITS_UNFENCED = "a commit does not depend on not being retired"
    EPOCH_STAYS = "a take-over leaves the epoch as it is"
    TAKES_UNCONDITIONALLY = "a take-over does not depend on who owns the shard by now"
    TAKES_WITH_ITS_OWN_WATERMARK = "the taker says its own watermark, not the one that was handed over"
    FORGETS_BEHIND = "the taker does not say that the shard is behind"
    SAYS_BEHIND_AFTERWARDS = "the taker says so once the shard is its own"
    ENDS_BEHIND_AT_ONCE = "the shard counts as in line before a commit has said so"
    ENDS_BEHIND_WITH_ANY_COMMIT = "a commit that was on its way brings the shard in line"
    ENDS_BEHIND_EARLY = "a commit brings the shard in line though it is still behind the machine"
    GIVES_IN_LINE = "a shard that is being given is not said to be behind before the engine lets go of it"
    HOLDS_BEFORE_ITS_COMMIT = "a shard that is being given is said to be behind while a commit is on its way"
    GIVES_UNCOMMITTED = "a shard is given with what was sent and is not on record"
    SENDS_WHAT_IT_GIVES = "a shard that is being given is still fired"


class Broken(Exception):  # noqa: N818 - says the state
    """A promise is broken."""


@dataclass
class Model:
    """The protocol with some machines and shards.

    lease: ticks. most_takes: how often each shard is taken at most. is_settled: it begins with the shards shared among the machines.
    has_crash: the first of them was retired then, and what it had last is a slot behind what the others have. is_dead: it does nothing
        any more; otherwise it has only not heard of it.
    """

    machines: int = 2
    shards: int = 1
    lease: int = 2
    most_takes: int = 3
    is_settled: bool = False
    has_crash: bool = False
    is_dead: bool = False
    flaw: Flaw | None = None
    _silent: dict[int, bool] = field(default_factory=dict)

    def first(self) -> State:
        nobody = Node(
            retired=False,
            watermark=None,
            behind=(None,) * self.shards,
            trust=self._trust(0),
            silence=0,
            beat=None,
            move=None,
            held=(None,) * self.shards,
            has_ended=False,
        )
        nodes, rows = [nobody] * self.machines, [Row(None, 0, 0, 0)] * self.shards
        now = int(self.has_crash)
        for number in range(self.shards if self.is_settled else 0):
            owner = number % self.machines
            through = now if owner else 0
            rows[number] = Row(owner, 1, 0, through)
            held = with_item(nodes[owner].held, number, Held(1, through, is_in_line=True))
            nodes[owner] = nodes[owner]._replace(watermark=through, held=held)
        if self.has_crash:
            held = (None,) * self.shards if self.is_dead else nodes[0].held
            nodes[0] = nodes[0]._replace(retired=True, trust=0, has_ended=self.is_dead, held=held)
        return State(tuple(nodes), tuple(rows), now)

    def _trust(self, age: int) -> int:
        """Return for how many ticks more a machine may send whose renewal began *age* ticks ago."""
        return max(0, round(trusted_until(float(-age), self.lease * 1_000)))

    # --- steps --------------------------------------------------------------------------------------------------------

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield all that may happen next. Errors: Broken."""
        yield "a second passes", self.tick(state)
        for me, node in enumerate(state.nodes):
            if not node.has_ended:
                yield from self.steps_of(state, me, node)

    def tick(self, state: State) -> State:
        """Return the state a second later."""
        nodes = []
        for node in state.nodes:
            beat = node.beat and node.beat._replace(age=min(node.beat.age + 1, self.lease))
            silence = min(node.silence + 1, self.lease)
            nodes.append(node._replace(trust=max(0, node.trust - 1), silence=silence, beat=beat))
        return State(tuple(nodes), state.rows, state.now + 1)

    def steps_of(self, state: State, me: int, node: Node) -> Iterator[tuple[str, State]]:
        """Yield what a machine may do next. Errors: Broken."""
        if node.beat is None:
            yield self._begins_to_commit(state, me, node)
        elif node.beat.is_done:
            yield f"{me} hears that it is done", self._hears(state, me, node, node.beat)
        else:
            yield self._is_committed(state, me, node, node.beat)
        if node.move is None:
            yield from self._begins_to_take(state, me, node)
            yield from self._begins_to_give(state, me, node)
        elif node.move.step in ("hold", "let go"):
            yield from self._is_given(state, me, node, node.move)
        else:
            yield self._is_moved(state, me, node, node.move)
        yield from self._retires(state, me)
        yield from self._fires(state, me, node)

    def _retires(self, state: State, me: int) -> Iterator[tuple[str, State]]:
        if self.flaw in (Flaw.TAKES_WITHOUT_RETIRING, Flaw.NEVER_RETIRES):
            return
        for other, node in enumerate(state.nodes):
            if other != me and not node.retired and self._is_silent(node.silence):
                yield f"{me} retires {other}", with_node(state, other, retired=True)

    def _is_silent(self, silence: int) -> bool:
        if self.flaw is Flaw.RETIRES_WHATEVER_VERSION:
            return True  # of a version that was the last one for as long as need be, long ago
        if self.flaw is Flaw.RETIRES_TOO_SOON:
            return silence >= self.lease - 2
        if silence not in self._silent:
            machine = self._machine("other")
            leases = Leases("me")
            leases.hear([machine], 0.0)
            self._silent[silence] = bool(leases.silent([machine], float(silence)))
        return self._silent[silence]

    def _begins_to_commit(self, state: State, me: int, node: Node) -> tuple[str, State]:
        fired = [(number, held) for number, held in enumerate(node.held) if held is not None]
        if not fired:
            return f"{me} begins to renew", with_node(state, me, beat=Beat())
        beat = Beat(
            watermark=min(held.sent for _, held in fired),
            entries=tuple((number, held.epoch, held.sent) for number, held in fired),
            drops=tuple(number for number, held in fired if held.is_in_line),
        )
        return f"{me} begins to commit", with_node(state, me, beat=beat)

    def _begins_to_take(self, state: State, me: int, node: Node) -> Iterator[tuple[str, State]]:
        for number, row in enumerate(state.rows):
            if node.held[number] is not None or row.epoch >= self.most_takes:
                continue
            owner = None if row.owner is None else self._heartbeat(state, row.owner)
            by_id = {} if owner is None else {owner.id: owner}
            can_take = is_free(Shard(number, owner and owner.id, row.epoch, None), by_id)
            if self.flaw is Flaw.TAKES_WITHOUT_RETIRING and row.owner not in (None, me):
                can_take = self._is_silent(state.nodes[row.owner or 0].silence)
            if not can_take:
                continue
            watermark: int = row.watermark if owner is None else owner.watermark_of(number) or 0
            if self.flaw is Flaw.TAKES_WITH_ITS_OWN_WATERMARK and node.watermark is not None:
                watermark = node.watermark
            is_first = self.flaw not in (Flaw.FORGETS_BEHIND, Flaw.SAYS_BEHIND_AFTERWARDS)
            move = Move("say behind" if is_first else "take", number, row.owner, row.epoch, watermark)
            yield f"{me} begins to take {number}", with_node(state, me, move=move)

    def _begins_to_give(self, state: State, me: int, node: Node) -> Iterator[tuple[str, State]]:
        for number, held in enumerate(node.held):
            if held is None:
                continue
            if self.flaw is Flaw.GIVES_IN_LINE:
                move = Move("let go", number, me, held.epoch, 0)
                yield f"{me} begins to give {number}", with_node(state, me, move=move)
                continue
            move = Move("hold", number, me, held.epoch, 0)
            out_of_line = with_item(node.held, number, held._replace(is_in_line=False))
            yield f"{me} begins to give {number}", with_node(state, me, move=move, held=out_of_line)

    def _is_given(self, state: State, me: int, node: Node, move: Move) -> Iterator[tuple[str, State]]:
        number, held = move.shard, node.held[move.shard]
        if move.step == "hold":
            if node.retired:
                yield f"{me} finds that it is retired", _ended(state, me)
            elif node.beat is None or self.flaw is Flaw.HOLDS_BEFORE_ITS_COMMIT:
                behind = with_item(node.behind, number, self._watermark(state, number))
                held_back = with_node(state, me, behind=behind, silence=0, move=move._replace(step="let go"))
                yield f"{me} says that {number} stays behind", held_back
        elif held is not None and (held.is_on_record or self.flaw is Flaw.GIVES_UNCOMMITTED):
            left = held if self.flaw is Flaw.SENDS_WHAT_IT_GIVES else None
            given = move._replace(step="give", watermark=held.sent)
            after = with_node(state, me, move=given, held=with_item(node.held, number, left))
            yield f"{me} lets go of {number}", after

    def _fires(self, state: State, me: int, node: Node) -> Iterator[tuple[str, State]]:
        is_trusted = node.trust > 0 or self.flaw is Flaw.SENDS_WITHOUT_TRUST
        for number, held in enumerate(node.held):
            if held is None:
                continue
            is_giving = node.move is not None and node.move.shard == number
            if not held.is_in_line and not is_giving:
                behind = node.behind
                if self.flaw is Flaw.ENDS_BEHIND_AT_ONCE and not node.retired:
                    behind = with_item(behind, number, None)
                in_line = with_item(node.held, number, held._replace(is_in_line=True))
                yield f"{me} has {number} in line", with_node(state, me, held=in_line, behind=behind)
            if held.sent < state.now and is_trusted:
                sent = with_item(node.held, number, held._replace(sent=state.now, is_on_record=False))
                yield f"{me} sends of {number}", with_node(state, me, held=sent)

    # --- at the table -------------------------------------------------------------------------------------------------

    def _is_committed(self, state: State, me: int, node: Node, beat: Beat) -> tuple[str, State]:
        if node.retired and self.flaw is not Flaw.COMMITS_UNFENCED:
            return f"{me} finds that it is retired", _ended(state, me)
        watermark, behind, rows = node.watermark, node.behind, state.rows
        if beat.watermark is not None:
            rows = _with_entries(state, me, beat)
            watermark = beat.watermark if watermark is None else max(watermark, beat.watermark)
            drops: Iterable[int] = beat.drops
            if self.flaw is Flaw.ENDS_BEHIND_WITH_ANY_COMMIT:
                drops = [number for number, held in enumerate(node.held) if held and held.is_in_line]
            for number in drops:
                if beat.watermark >= watermark or self.flaw is Flaw.ENDS_BEHIND_EARLY:
                    behind = with_item(behind, number, None)
        done = with_node(
            state._replace(rows=rows),
            me,
            beat=beat._replace(is_done=True),
            watermark=watermark,
            behind=behind,
            silence=0,
        )
        return f"what {me} has begun is done", done

    def _hears(self, state: State, me: int, node: Node, beat: Beat) -> State:
        began_ago = 0 if self.flaw is Flaw.TRUSTS_FROM_THE_END else beat.age
        held = node.held
        for number, epoch, through in beat.entries:
            there = held[number]
            if there is not None and (there.epoch, there.sent) == (epoch, through):
                held = with_item(held, number, there._replace(is_on_record=True))
        return with_node(state, me, beat=None, trust=max(node.trust, self._trust(began_ago)), held=held)

    def _is_moved(self, state: State, me: int, node: Node, move: Move) -> tuple[str, State]:
        row = state.rows[move.shard]
        is_as_read = (row.owner, row.epoch) == (move.owner, move.epoch)
        if move.step == "say behind":
            if node.retired:
                return f"{me} finds that it is retired", _ended(state, me)
            behind = with_item(node.behind, move.shard, move.watermark)
            step = "take in" if self.flaw is Flaw.SAYS_BEHIND_AFTERWARDS else "take"
            after = with_node(state, me, behind=behind, silence=0, move=move._replace(step=step))
            return f"{me} says that {move.shard} is behind", after
        if move.step == "take in":
            held = with_item(node.held, move.shard, Held(move.epoch, move.watermark))
            return f"{me} takes {move.shard} in", with_node(state, me, move=None, held=held)
        if not is_as_read and not (move.step == "take" and self.flaw is Flaw.TAKES_UNCONDITIONALLY):
            return f"{me} finds {move.shard} taken", with_node(state, me, move=None)
        if move.step == "give":
            rows = with_item(state.rows, move.shard, row._replace(owner=None, watermark=move.watermark))
            return f"{me} gives {move.shard}", with_node(state._replace(rows=rows), me, move=None)
        epoch = move.epoch if self.flaw is Flaw.EPOCH_STAYS else move.epoch + 1
        if epoch <= row.epoch:
            raise Broken("an epoch has two owners")
        rows = with_item(state.rows, move.shard, Row(me, epoch, move.watermark, row.through))
        step = "say behind" if self.flaw is Flaw.SAYS_BEHIND_AFTERWARDS else "take in"
        taken = with_node(state._replace(rows=rows), me, move=move._replace(step=step, epoch=epoch))
        return f"{me} takes {move.shard}", taken

    def _machine(self, id_: str) -> Machine:
        return Machine(id_, id_, 1, 0, None, {}, self.lease * 1_000, 0, UtcMs(0))

    def _heartbeat(self, state: State, me: int) -> Machine:
        node = state.nodes[me]
        behind = {number: UtcMs(slot) for number, slot in enumerate(node.behind) if slot is not None}
        watermark = None if node.watermark is None else UtcMs(node.watermark)
        return self._machine(str(me))._replace(watermark=watermark, behind=behind, is_retired=node.retired)

    # --- promises -----------------------------------------------------------------------------------------------------

    def check(self, state: State) -> None:
        """Errors: Broken."""
        for number, row in enumerate(state.rows):
            firing = [node for node in state.nodes if node.held[number] is not None]
            if len(firing) > 1:
                epochs = {held.epoch for node in firing if (held := node.held[number])}
                if len(epochs) < len(firing):
                    raise Broken("an epoch has two owners")
                may_send = [node.trust > 0 or self.flaw is Flaw.SENDS_WITHOUT_TRUST for node in firing]
                if sum(may_send) > 1:
                    raise Broken("two machines may send for one shard")
            watermark = self._watermark(state, number)
            if watermark is not None and watermark > row.through:
                raise Broken("a watermark is beyond a slot without an entry")

    def _watermark(self, state: State, number: int) -> int | None:
        """Return the watermark with which a shard would be taken if its owner was retired now."""
        row = state.rows[number]
        if row.owner is None:
            return row.watermark
        node = state.nodes[row.owner]
        behind = node.behind[number]
        return node.watermark if behind is None else behind

    def check_that_all_ends_settled(self, state: State) -> None:
        """See that each machine that can still commit settles every slot if the others stand still. Errors: Broken."""
        alone = replace(self, most_takes=1_000)
        for me, node in enumerate(state.nodes):
            if not node.retired and not node.has_ended and not alone.settles_all(state, me):
                raise Broken(f"slots are lost when {me} alone lives")

    def settles_all(self, state: State, me: int) -> bool:
        """Whether a machine that works on alone has every slot on record after a while, and its watermark behind it."""
        for _ in range(2 * self.lease + 4):
            for _ in range(12 * self.shards):
                is_recorded = all(row.owner == me and row.through == state.now for row in state.rows)
                is_kept = all(self._watermark(state, number) == state.now for number in range(self.shards))
                if is_recorded and is_kept:
                    return True
                choices = dict(self.steps_of(state, me, state.nodes[me]))
                state = choices[min(choices, key=_urgency)]
            state = self.tick(state)
        return False


_FIRST: Final = (
    "hears",
    "is done",
    "retires",
    "looks",
    "finds",
    "says",
    "lets go",
    "takes",
    "gives",
    "in line",
    "sends",
)
_LAST: Final = ("begins to take", "begins to commit", "begins to renew", "begins to give")


def _urgency(label: str) -> int:
    """Return the place of a step of a machine that works alone."""
    return next(place for place, verb in enumerate(_FIRST + _LAST) if verb in label)


def _with_entries(state: State, me: int, beat: Beat) -> tuple[Row, ...]:
    """Return the rows once the entries of a commit are on record. Errors: Broken."""
    rows = state.rows
    for number, epoch, through in beat.entries:
        row = rows[number]
        if through > row.through:
            if state.nodes[me].retired:
                raise Broken("a retired machine has committed")
            if (row.owner, row.epoch) != (me, epoch):
                raise Broken("a machine has committed for a shard that is another's")
            rows = with_item(rows, number, row._replace(through=through))
    return rows


def _ended(state: State, me: int) -> State:
    """Return the state after an incarnation has learnt that it is over."""
    nothing = (None,) * len(state.rows)
    return with_node(state, me, beat=None, move=None, trust=0, held=nothing, has_ended=True)


# --- the search -------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What a search came to. states: how many it saw. is_all: there are no others. broken: the promise, and the steps that lead there."""

    states: int
    is_all: bool
    broken: str | None = None
    steps: tuple[str, ...] = ()


def search(model: Model, *, most_states: int, settle_every: int = 0) -> Found:
    """Go through the states of *model*, the nearest first, until a promise is broken or so many were seen.

    settle_every: of so many states one is tried for whether all ends settled; 0: none.
    """
    first = model.first()
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    todo = deque([first])
    state = last = first
    try:
        while todo:
            state = last = todo.popleft()
            for label, after in model.steps(state):
                following = normal(after)
                if following in came_from:
                    continue
                came_from[following] = (state, label)
                last = following
                model.check(following)
                if settle_every and len(came_from) % settle_every == 0:
                    model.check_that_all_ends_settled(following)
                if len(came_from) >= most_states:
                    return Found(len(came_from), is_all=False)
                todo.append(following)
    except Broken as broken:
        return Found(len(came_from), False, str(broken), tuple(_steps_to(last, came_from)))
    return Found(len(came_from), is_all=True)


def _steps_to(state: State, came_from: dict[State, tuple[State, str] | None]) -> list[str]:
    steps: list[str] = []
    before = came_from[state]
    while before is not None:
        state, label = before
        steps.append(label)
        before = came_from[state]
    return steps[::-1]
