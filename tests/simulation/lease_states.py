"""The states of the model of leases: what the table has, and what each machine remembers.

A slot is a number whose order against the others is all that matters, so time has no end: ``normal`` makes one state of all in which
everything comes in the same order.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

_T = TypeVar("_T")


class Held(NamedTuple):
    """What a machine's engine knows of a shard that it fires.

    Fields: sent: every slot up to it is decided. is_on_record: and committed, as far as it knows. is_in_line: the store was told so.
    """

    epoch: int
    sent: int
    is_on_record: bool = True
    is_in_line: bool = False


class Beat(NamedTuple):
    """A renewal or commit that a machine has begun. age: ticks since then. is_done: by the table; the machine has not heard of it.

    Fields: watermark: None for a renewal. entries: by shard. drops: the shards that are in line from then on.
    """

    age: int = 0
    is_done: bool = False
    watermark: int | None = None
    entries: tuple[tuple[int, int, int], ...] = ()  # (shard, epoch, through)
    drops: tuple[int, ...] = ()


class Move(NamedTuple):
    """A hand-over that a machine has begun. step: what is next. owner, epoch: of the shard as it was read."""

    step: str
    shard: int
    owner: int | None
    epoch: int
    watermark: int


class Node(NamedTuple):
    """A machine: its heartbeat and what it has in memory.

    Fields: silence: for how many ticks its heartbeat has not changed. trust: for how many more it may send.
    """

    retired: bool
    watermark: int | None
    behind: tuple[int | None, ...]
    silence: int
    trust: int
    beat: Beat | None
    move: Move | None
    held: tuple[Held | None, ...]
    has_ended: bool


class Row(NamedTuple):
    """A shard in the table. through: of the journal: every slot up to it has an entry."""

    owner: int | None
    epoch: int
    watermark: int
    through: int


class State(NamedTuple):
    nodes: tuple[Node, ...]
    rows: tuple[Row, ...]
    now: int


def normal(state: State) -> State:
    """Return the one state that stands for all in which everything that still matters comes in the same order."""
    state = _without_what_is_over(state)
    slots = {state.now, 0}
    for row in state.rows:
        slots |= {row.watermark, row.through}
    for node in state.nodes:
        slots |= {slot for slot in (node.watermark, *node.behind) if slot is not None}
        if node.beat is not None and node.beat.watermark is not None:
            slots.add(node.beat.watermark)
            slots |= {through for _, _, through in node.beat.entries}
        if node.move is not None:
            slots.add(node.move.watermark)
        slots |= {held.sent for held in node.held if held is not None}
    order = sorted(slots)
    if order[-1] == len(order) - 1:
        return state
    place = {slot: number for number, slot in enumerate(order)}
    nodes = []
    for retired, watermark, behind, silence, trust, beat, move, held, has_ended in state.nodes:
        nodes.append(
            Node(
                retired,
                None if watermark is None else place[watermark],
                tuple(None if slot is None else place[slot] for slot in behind),
                silence,
                trust,
                beat and _placed(beat, place),
                move and move._replace(watermark=place[move.watermark]),
                tuple(each and each._replace(sent=place[each.sent]) for each in held),
                has_ended,
            )
        )
    rows = tuple(
        row._replace(watermark=place[row.watermark], through=place[row.through]) for row in state.rows
    )
    return State(tuple(nodes), rows, place[state.now])


def _placed(beat: Beat, place: dict[int, int]) -> Beat:
    if beat.watermark is None:
        return beat
    entries = tuple((number, epoch, place[through]) for number, epoch, through in beat.entries)
    return beat._replace(watermark=place[beat.watermark], entries=entries)


def _without_what_is_over(state: State) -> State:
    """Return the state without what nobody will ever look at."""
    rows = tuple(
        row if row.owner is None or not row.watermark else row._replace(watermark=0) for row in state.rows
    )
    nodes = []
    for me, node in enumerate(state.nodes):
        moving = -1 if node.move is None else node.move.shard
        behind = tuple(
            slot if slot is None or row.owner == me or moving == number else None
            for number, (slot, row) in enumerate(zip(node.behind, rows, strict=True))
        )
        is_over = node.retired and all(row.owner != me for row in rows)
        watermark = None if is_over else node.watermark
        silence = 0 if node.retired else node.silence
        is_as_it_was = (watermark, behind, silence) == (node.watermark, node.behind, node.silence)
        nodes.append(
            node if is_as_it_was else node._replace(watermark=watermark, behind=behind, silence=silence)
        )
    return State(tuple(nodes), rows, state.now)


def with_node(state: State, me: int, **fields: object) -> State:
    """Return the state with other *fields* of one machine."""
    return state._replace(nodes=with_item(state.nodes, me, state.nodes[me]._replace(**fields)))  # type: ignore[arg-type]


def with_item(values: tuple[_T, ...], place: int, value: _T) -> tuple[_T, ...]:
    """Return *values* with another one at a place."""
    return (*values[:place], value, *values[place + 1 :])
