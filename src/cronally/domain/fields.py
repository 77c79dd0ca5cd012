"""The fields a crontab is made of: their names, ranges and words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # each is one of the constants below
class FieldSpec:
    """One field of a dialect.

    Attributes: name: as in WhenError.field. low, high: the numbers it takes, both inclusive. names: words for numbers,
        the first of them standing for ``first_name``. last: where ``*`` ends (6 for days of the week, where 7 is Sunday
        again). values: every plain text of one value, and that value. full: the set ``*`` stands for, normalised.
    """

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    first_name: int = 0
    last: int = field(init=False)
    values: dict[str, int] = field(init=False)
    full: int = field(init=False)

    def __post_init__(self) -> None:
        numbers = range(self.low, self.high + 1)
        values = {text: number for number in numbers for text in (str(number), f"{number:02d}")}
        for number, word in enumerate(self.names, self.first_name):
            values |= {word: number, word.upper(): number}
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "last", 6 if self.is_weekday and self.low == 0 else self.high)
        object.__setattr__(self, "full", self.normal((2 << self.last) - (1 << self.low)))

    @property
    def is_weekday(self) -> bool:
        return self.name == "day-of-week"

    @property
    def is_day(self) -> bool:
        """Whether this is one of the two fields that choose days."""
        return self.name in {"day-of-month", "day-of-week"}

    @property
    def wraps_to_sunday(self) -> bool:
        """Whether 0 and 7 are both Sunday."""
        return self.is_weekday and self.low == 0

    def normal(self, values: int) -> int:
        """Return the set with days of the week counted from Sunday, 0 to 6; other sets as they are."""
        if not self.is_weekday:
            return values
        return (values | values >> 7) & 0x7F if self.low == 0 else values >> 1

    def word(self, number: int, like: str = "") -> str:
        """Write *number*: as a name where there are names and *like* is one, else in figures."""
        if self.names and like[:1].isalpha():
            name = self.names[(number - self.first_name) % len(self.names)]
            return name.upper() if like.isupper() else name
        return str(number)


SECOND: Final = FieldSpec(name="second", low=0, high=59)
MINUTE: Final = FieldSpec(name="minute", low=0, high=59)
HOUR: Final = FieldSpec(name="hour", low=0, high=23)
DAY: Final = FieldSpec(name="day-of-month", low=1, high=31)
MONTH: Final = FieldSpec(name="month", low=1, high=12, names=MONTHS, first_name=1)
WEEKDAY: Final = FieldSpec(name="day-of-week", low=0, high=7, names=WEEKDAYS)
WEEKDAY_FROM_1: Final = FieldSpec(name="day-of-week", low=1, high=7, names=WEEKDAYS, first_name=1)
YEAR: Final = FieldSpec(name="year", low=1970, high=2199)  # EventBridge's range; Quartz stops at 2099
WEEKDAY_FROM_1.values.update(L=7, l=7)  # Quartz, EventBridge: the last day of the week, Saturday
