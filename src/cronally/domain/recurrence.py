"""``Recurrence``: the text of a rule and a zone, compiled into a pure function from an instant to the next slot.

1. ``next_ms(t)`` is strictly later than *t*, in UTC; the slots strictly increase.
2. A *wild* crontab rule (its minute or hour field begins with ``*``) fires at every instant whose local time matches.
   A *fixed* one fires once per local time: at the first of two if it is repeated, and at the first instant after the
   gap if it does not exist; slots that meet there are one. ``on_gap`` and ``on_repeat`` change that for fixed rules.
3. Equal keys, equal slots: everything that shares a key can share one timetable entry.

Answers are exact for the years 1970 to 2199 in every zone. After 2200 a zone keeps its last offset; no slot lies
before the year 1 or after 9999.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Self, get_args

from cronally.domain import spelling
from cronally.domain.crontab import CrontabFields
from cronally.domain.describe import describe
from cronally.domain.slots import Crontab, Every, Once, Since
from cronally.domain.wall import WallTimes, can_match
from cronally.domain.when import AtRule, EveryRule, parse_when
from cronally.domain.zones import OnGap, OnRepeat, Zone, load_zone
from cronally.errors import WhenError
from cronally.instants import MAX_UTC_MS, MIN_UTC_MS, UtcMs, from_datetime, to_datetime

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from cronally.domain.slots import Slots

_EPOCH: Final = UtcMs(0)
_ON_GAP: Final[tuple[str, ...]] = get_args(OnGap)
_ON_REPEAT: Final[tuple[str, ...]] = get_args(OnRepeat)
_WALL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local time is naive by nature


class Recurrence:
    """A compiled rule. Immutable; equal to another one with the same ``key``.

    Attributes: when: the text as written. tz: the zone's name. dialect: ``unix``, ``quartz`` or ``eventbridge``.
        on_gap, on_repeat: the DST choice as given. slots: the function alone, without the text it was written as.
        at_ms: the instant of an ``@at`` rule, else None; it is no slot if it lies before *starts*. is_wild: rule 2 above; False for ``@every`` and ``@at``.
        warnings: sentences for the person who creates the schedule. fields: of a crontab rule, else None.
        period_ms: of an ``@every`` rule, else None. starts_ms: no slot lies before it, or None.
        zone: compiled. times: the wall-clock times of a crontab rule, else None. fills_gaps, repeats: what the DST
        choice comes to for this rule (see ``Zone.course``).
    """

    __slots__ = (
        "at_ms",
        "dialect",
        "fields",
        "fills_gaps",
        "is_wild",
        "on_gap",
        "on_repeat",
        "period_ms",
        "repeats",
        "slots",
        "starts_ms",
        "times",
        "tz",
        "warnings",
        "when",
        "zone",
    )

    when: str
    tz: str
    dialect: str
    on_gap: OnGap
    on_repeat: OnRepeat
    at_ms: UtcMs | None
    is_wild: bool
    warnings: tuple[str, ...]
    fields: CrontabFields | None
    period_ms: int | None
    starts_ms: UtcMs | None
    zone: Zone
    times: WallTimes | None
    fills_gaps: bool
    repeats: bool
    slots: Slots

    def __init__(self, **attributes: object) -> None:
        """Use ``Recurrence.parse``."""
        put = object.__setattr__
        for name, value in attributes.items():
            put(self, name, value)

    @classmethod
    def parse(
        cls,
        when: str,
        *,
        tz: str = "UTC",
        dialect: str = "unix",
        name: str | None = None,
        on_gap: OnGap = "run",
        on_repeat: OnRepeat = "first",
        starts: datetime | None = None,
    ) -> Self:
        """Compile the text of a rule.

        Args: when: crontab fields, a nickname, ``@every D`` or ``@at T``; at most 1,000 characters. tz: an IANA name.
            name: the schedule's, for ``H``. on_gap, on_repeat: what a fixed rule does with a local time that does not
            exist or comes twice. starts: aware; no slot lies before it, and ``@every`` counts from it.
        Errors: WhenError, ZoneError; ValueError if *starts* is naive.
        """
        zone = load_zone(tz)
        for option, value, choices in (("on_gap", on_gap, _ON_GAP), ("on_repeat", on_repeat, _ON_REPEAT)):
            if value not in choices:
                raise WhenError(f"{option} cannot be {value!r}", hint=f"write one of {', '.join(choices)}")
        rule = parse_when(when, dialect=dialect, name=name)
        starts_ms = None if starts is None else _rounded_up(starts)
        at_ms: UtcMs | None = None
        slots: Slots
        times: WallTimes | None = None
        fills_gaps, repeats = on_gap == "run", on_repeat == "both"
        if isinstance(rule, EveryRule):
            anchor = _EPOCH if starts_ms is None else starts_ms
            slots = Every(rule.period_ms, anchor)
        elif isinstance(rule, AtRule):
            at_ms = rule.utc if rule.utc is not None else _resolve(rule.local_ms, zone, on_gap)
            if not MIN_UTC_MS <= at_ms <= MAX_UTC_MS:
                raise WhenError(
                    f"{when[:40]!r} lies outside the years 1 to 9999", hint="write a time within them"
                )
            slots = Once(at_ms)
        else:
            if not can_match(rule):
                raise spelling.never(rule)
            times = WallTimes(rule)
            if rule.is_wild:
                fills_gaps, repeats = False, True
            slots = Crontab(times, zone.course(fills_gaps=fills_gaps, repeats=repeats))
        if starts_ms is not None:
            slots = Since(slots, starts_ms)
        crontab = rule if isinstance(rule, CrontabFields) else None
        return cls(
            when=when,
            tz=tz,
            dialect=dialect,
            on_gap=on_gap,
            on_repeat=on_repeat,
            at_ms=at_ms,
            is_wild=crontab is not None and crontab.is_wild,
            warnings=crontab.warnings if crontab is not None else (),
            fields=crontab,
            period_ms=rule.period_ms if isinstance(rule, EveryRule) else None,
            starts_ms=starts_ms,
            zone=zone,
            times=times,
            fills_gaps=fills_gaps,
            repeats=repeats,
            slots=slots,
        )

    @property
    def key(self) -> Hashable:
        """Equal keys have equal slots."""
        return self.slots.key

    def next_ms(self, after: UtcMs) -> UtcMs | None:
        """Return the first slot strictly later than *after* (UTC ms, any value), or None if there is none."""
        return self.slots.next_ms(after)

    def latest_ms(self, before: UtcMs) -> UtcMs | None:
        """Return the newest slot strictly earlier than *before* (UTC ms, any value), or None if there is none."""
        return self.slots.latest_ms(before)

    def count_ms(self, a: UtcMs, b: UtcMs) -> int:
        """Return how many slots lie in a < slot <= b (UTC ms): closed form for ``@every``, by months for crontabs."""
        return self.slots.count_ms(a, b)

    def between_ms(self, a: UtcMs, b: UtcMs) -> Iterator[UtcMs]:
        """Return an iterator over the slots in a < slot <= b (UTC ms), in order, each computed when it is asked for."""
        return self.slots.between_ms(a, b)

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first slot strictly later than *instant*, in UTC, or None.

        Errors: ValueError if *instant* is naive.
        """
        return _shown(self.next_ms(_rounded_down(instant)))

    def latest_before(self, instant: datetime) -> datetime | None:
        """Return the newest slot strictly earlier than *instant*, in UTC, or None.

        Errors: ValueError if *instant* is naive.
        """
        return _shown(self.latest_ms(_rounded_up(instant)))

    def between(self, a: datetime, b: datetime) -> Iterator[datetime]:
        """Return an iterator over the slots in a < slot <= b, in UTC.

        Errors: ValueError if *a* or *b* is naive, at once.
        """
        return map(to_datetime, self.between_ms(_rounded_down(a), _rounded_down(b)))

    def count(self, a: datetime, b: datetime) -> int:
        """Return how many slots lie in a < slot <= b.

        Errors: ValueError if *a* or *b* is naive.
        """
        return self.count_ms(_rounded_down(a), _rounded_down(b))

    def describe(self) -> str:
        """Return the rule in one English sentence: ``At 09:00, Monday to Friday, Europe/London time``."""
        return describe(self)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Recurrence does not change; parse another one to set {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Recurrence does not change; {name} cannot be deleted")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Recurrence) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Recurrence({self.when!r}, tz={self.tz!r})"


def _rounded_down(value: datetime) -> UtcMs:
    if value.tzinfo is None or value.utcoffset() is None:
        raise ValueError(
            f"{value.isoformat()} has no UTC offset, so it names no instant; "
            "give an aware datetime, such as datetime(..., tzinfo=UTC)"
        )
    return from_datetime(value)


def _rounded_up(value: datetime) -> UtcMs:
    down = _rounded_down(value)
    return down if value.microsecond % 1000 == 0 else UtcMs(down + 1)


def _shown(slot: UtcMs | None) -> datetime | None:
    return None if slot is None else to_datetime(slot)


def _resolve(local_ms: int, zone: Zone, on_gap: OnGap) -> UtcMs:
    """Return the instant of the local time of an ``@at`` rule: the first of two, or the first after the gap."""
    second, rest = divmod(local_ms, 1000)
    utc, kind = zone.resolve(second)
    if kind != "gap":
        return UtcMs(utc * 1000 + rest)
    if on_gap == "skip":
        asked, there = (
            (_WALL_EPOCH + timedelta(seconds=local)).isoformat()
            for local in (second, utc + zone.offset_at(utc))
        )
        raise WhenError(
            f"{asked} does not exist in {zone.name}: the clock goes forward over it, and on_gap is skip",
            hint=f"write {there}, the first time after the gap, or choose on_gap run",
        )
    return UtcMs(utc * 1000)
