"""What travels over the admin socket: one dataclass per answer, and the JSON they are written in.

The JSON of an answer is what ``--json`` prints. Instants are RFC 3339 UTC texts, durations texts such as ``90s``.
Within one ``WIRE_VERSION`` keys are only ever added; a reader leaves out those it does not know.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

from cronally import errors
from cronally.admin.answer_types import AnswerType, answer_type, keys_of
from cronally.errors import AdminError, CronallyError, WireVersionMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

WIRE_VERSION: Final = 1
VERSION_HEADER: Final = "Cronally-Wire"
MAX_BODY_BYTES: Final = 1_048_576  # four times the largest message SNS takes; also of one line of an apply
MAX_PAGE: Final = 1_000
MAX_DIFFERENCES: Final = 10_000  # of a dry run of apply: as many schedules as a YAML file may have
MAX_COMING: Final = 200  # slots of an overview
MAX_AT_ONCE: Final = 200  # schedules of one request that changes many
MAX_RETRY: Final = 1_000  # fires of one retry
MAX_BACKFILL: Final = 1_000_000  # fires of one backfill, if the caller allows so many
_MAX_KEY_CHARS: Final = 200
_MAX_FIELD_CHARS: Final = 500  # of an error

Outcome = Literal["created", "changed", "unchanged"]

STATE_KEYS: Final = (
    "name",
    "paused",
    "next_fire",
    "offset",
    "error",
    "revision",
    "pending",
    "owner",
    "effective_from",
    "created_at",
    "changed_at",
    "warnings",
    "next_fires",
)
"""The keys of a schedule's JSON that are not part of its document."""


@answer_type
class Schedule(AnswerType):
    """A schedule: the keys of a file, defaults written out, and its state.

    paused: False, or ``{"since", "until", "note", "by"}``. next_fires: the next slots; empty if it will not fire.
    error: what SNS last said against it. pending: its fires still to be published. offset: how long after its slot a
    fire is due, by its spread and name. next_fire: the first of them, None if there is none. revision: grows
    with every change. owner: of the apply that made it, None if a command did. effective_from: it has no slots at or before it.
    created_at, changed_at: when that was. warnings: what may surprise about its rule.
    """

    name: str
    when: str
    tz: str
    topic: str
    paused: dict[str, Any] | Literal[False] = False
    next_fire: str | None = None
    error: str | None = None
    dialect: str = "unix"
    message: str | None = None
    message_structure: str | None = None
    subject: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    group: str | None = None
    catch_up: str = "latest"
    deadline: str = "1d"
    late_after: str | None = None
    on_gap: str = "run"
    on_repeat: str = "first"
    spread: str = "0s"
    priority: int = 5
    starts: str | None = None
    ends: str | None = None
    tags: list[str] = field(default_factory=list)
    note: str | None = None
    revision: int = 0
    pending: int = 0
    offset: str = "0s"
    owner: str | None = None
    effective_from: str | None = None
    created_at: str | None = None
    changed_at: str | None = None
    warnings: list[str] = field(default_factory=list)
    next_fires: list[str] = field(default_factory=list)


@answer_type
class SchedulesPage(AnswerType):
    """Schedules by name. next: the name to ask for as ``after``, None on the last page. now: the daemon's clock."""

    schedules: list[Schedule]
    next: str | None = None
    now: str | None = None


@answer_type
class PutReply(AnswerType):
    """The outcome of a PUT, and the schedule as it is now."""

    outcome: Outcome
    schedule: Schedule


@answer_type
class PauseReply(AnswerType):
    """A schedule at rest, and how many fires of it are still to be published."""

    schedule: Schedule
    pending: int


@answer_type
class RemoveReply(AnswerType):
    """A schedule that is gone, and how many fires of it are still to be published."""

    name: str
    pending: int


@answer_type
class ManyReply(AnswerType):
    """What a change of many schedules did to them. Those that are neither *done* nor *refused* are to be asked for again.

    done: name, how many of its fires are still to be published (``pending``), and ``schedule`` as it is now, None if it is gone.
    refused: name, and the ``error`` because of which nothing was done to it. error: why others are not told of, and of those it is
    not known whether it was done; None: their turn has not come.
    """

    done: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None


@answer_type
class MoveReply(AnswerType):
    """A schedule with its new name, and as it was *before*."""

    before: Schedule
    schedule: Schedule


@answer_type
class RunReply(AnswerType):
    """The id of a manual fire, which is durable."""

    fire_id: str


@answer_type
class BackfillReply(AnswerType):
    """What a backfill made, or (as a dry run) would make; its fires are durable.

    slots: of the rule in the time asked for, from first to last. backfilled: those that became fires. already: those that
    had been backfilled before. fires: ids of the first of the new fires.
    """

    name: str
    tz: str
    slots: int
    backfilled: int
    already: int
    first: str | None = None
    last: str | None = None
    fires: list[str] = field(default_factory=list)


@answer_type
class NextReply(AnswerType):
    """The next slots of a schedule's rule."""

    fires: list[str]
    tz: str = "UTC"


@answer_type
class Fire(AnswerType):
    """What became of one slot, or of ``count`` consecutive ones from fire_time to last_fire_time.

    kind: ``scheduled``, ``manual`` or ``backfill``. state: of the journal. reason: why it was skipped. attempts: to publish it.
    released_at: when its request was written. published_at: when SNS had accepted it. lateness_us: from when it was due to its
    release. maybe_published: an attempt ended without an answer, so a receiver may have it. last_error: what SNS last said.
    """

    fire_id: str
    schedule: str
    fire_time: str
    kind: str
    state: str
    reason: str | None = None
    attempts: int = 0
    released_at: str | None = None
    published_at: str | None = None
    lateness_us: int | None = None
    maybe_published: bool = False
    last_error: str | None = None
    last_fire_time: str | None = None
    count: int = 1


@answer_type
class FiresPage(AnswerType):
    """Journal entries, newest first.

    next: what to ask for as ``before``, None on the last page. is_complete: False while a machine that shares a store with others, and
    has not been there for long, still reads older entries; they are missing then.
    """

    fires: list[Fire]
    next: str | None = None
    is_complete: bool = True


@answer_type
class Change(AnswerType):
    """One change of one schedule: who did what, and when.

    by: ``uid 1000 (anna)`` as the kernel and the machine said it then, or ``cronally`` for what the daemon does by itself. action: the
    command (``set`` for ``edit``, too). schedule, revision: its name and revision number after it. before, after: its documents without
    the keys that have their defaults, None where there was none; ``name`` is in them if it changed, ``paused`` and ``owner`` if those
    did. What changes no more than these has nothing else in them, and a command that changes nothing of the schedule (``run``) has None in
    both. detail: ``owner`` of an apply, ``drop_pending``, ``fire_id`` of a run, how many ``fires`` and the ids of the ``first`` and
    ``last`` of a retry or backfill.
    """

    at: str
    by: str
    action: str
    schedule: str
    revision: int
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@answer_type
class ChangesPage(AnswerType):
    """Changes, newest first, perhaps fewer than were asked for. next: what to ask for as ``before``, None on the last page."""

    changes: list[Change]
    next: str | None = None


@answer_type
class RetryReply(AnswerType):
    """Which fires were made pending again, or (as a dry run) would be.

    Ids are in the order of fire times. pending: those that are pending already. fires: as a dry run, the first 20 fires to
    retry as they are.
    """

    retried: list[str]
    pending: list[str] = field(default_factory=list)
    fires: list[Fire] = field(default_factory=list)


@answer_type
class FieldMatch(AnswerType):
    """One field of a rule beside one instant. written: in the rule. value: the instant's. is_match: they agree."""

    field: str
    written: str
    value: str
    is_match: bool


@answer_type
class Why(AnswerType):
    """Why a schedule has a fire at an instant, or has none.

    local: the wall clock there, with its offset. asked_as: how a local time was read, if that needs a word. fate: a
    state of the journal; ``upcoming``, ``unsettled`` (due, not on record yet), ``pruned`` (too old), ``unknown`` (no record) or ``none``
    (no slot). text: the same, a sentence. is_slot: the present rule has a slot there. days: how the two day fields go
    together, if both are set. bounds: what keeps the schedule from firing there. fires: the journal's rows about it.
    """

    name: str
    at: str
    local: str
    tz: str
    when: str
    fate: str
    text: str
    is_slot: bool = False
    reason: str = ""
    asked_as: str | None = None
    fields: list[FieldMatch] = field(default_factory=list)
    days: str | None = None
    dst: str | None = None
    bounds: list[str] = field(default_factory=list)
    due: str | None = None
    previous: str | None = None
    following: str | None = None
    fires: list[Fire] = field(default_factory=list)


@answer_type
class Problem(AnswerType):
    """What is wrong with a line (1-based) of an apply. name: the schedule's, if it could be read."""

    line: int
    reason: str
    name: str | None = None


@answer_type
class Difference(AnswerType):
    """What an apply would do to one schedule. action: ``create``, ``change`` or ``remove``.

    before, after: its document without the keys that have their defaults; None where there is none. ``paused`` is in it
    if it is paused. next_before, next_after: its next slots.
    """

    action: Literal["create", "change", "remove"]
    name: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    next_before: list[str] = field(default_factory=list)
    next_after: list[str] = field(default_factory=list)


@answer_type
class ApplyReply(AnswerType):
    """What an apply did, or (is_dry_run) would do; with problems, nothing. problem_count: all there are, also those not listed.

    differences: of a dry run, the first by name; the counts are of all.
    """

    created: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    is_dry_run: bool = False
    differences: list[Difference] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0


@answer_type
class Load(AnswerType):
    """What shares a quota of SNS: how many messages are due in each minute. quota_per_s: 0 for no limit."""

    region: str
    is_fifo: bool
    quota_per_s: float
    minutes: list[int]


@answer_type
class Forecast(AnswerType):
    """The messages of the 24 hours from *starts_at*, a full minute, on; paused schedules are left out."""

    starts_at: str
    loads: list[Load]


@answer_type
class Status(AnswerType):
    """How the daemon is. journal: slots per state. lateness_us: p50, p99, max; None before the first fire.

    lateness_histogram: ``{"le_us", "count"}`` for each bucket: scheduled fires since the start that left at the first attempt, at
    most so many microseconds late and more than the bucket before; the last bucket has no bound (null).
    zone_change: ``{"old", "new", "names", "count"}``: the schedules whose next fires another version of tzdata moved (the
    first 20 names), as found when the daemon started; None if there are none. pruned_through: journal entries of slots due
    at or before it may be gone; None if none were pruned. size_bytes: what the store uses. journal_keep, journal_max_bytes:
    how long (as ``30d``) and up to what size of the store the journal is kept. store_warning: what is wrong with the
    place where the store lies, or None.
    refusing: ``{"topic", "since", "error", "pending", "next_probe"}`` for each topic for which SNS refuses everything, the
    longest first, the first 20 of refusing_count.
    machines: of a store that several machines share, ``{"id", "host", "is_self", "state", "shards", "heartbeat_age_ms", "lease_ms",
    "lag_ms", "started_at"}`` for each; state is ``alive``, ``leaving`` or ``gone``, shards how many it drives, lag_ms how far the oldest
    watermark of those is behind. free_shards: how many nobody drives now. trusted_for_ms: for how long this machine may send if it
    cannot renew its lease. has_history: whether all of the journal can be listed here; after a start older entries are still being read.
    All null for a store of one machine, as is table_error, what the table says while it does not answer.
    """

    version: str
    tzdata: str
    started_at: str
    now: str
    is_ready: bool
    not_ready_because: str | None = None
    store: str = ""
    schedules: int = 0
    paused: int = 0
    failing: int = 0
    pending: int = 0
    journal: dict[str, int] = field(default_factory=dict)
    watermark: str | None = None
    next_fire: str | None = None
    in_flight: int = 0
    lateness_us: dict[str, int] | None = None
    lateness_histogram: list[dict[str, int | None]] = field(default_factory=list)
    stand_in: str | None = None
    zone_change: dict[str, Any] | None = None
    pruned_through: str | None = None
    size_bytes: int = 0
    journal_keep: str = ""
    journal_max_bytes: int = 0
    store_warning: str | None = None
    refusing: list[dict[str, Any]] = field(default_factory=list)
    refusing_count: int = 0
    machines: list[dict[str, Any]] | None = None
    free_shards: int | None = None
    trusted_for_ms: int | None = None
    has_history: bool | None = None
    table_error: str | None = None


@answer_type
class Coming(AnswerType):
    """A slot to come. due: when it is due, which is later than its fire time if the schedule is spread."""

    schedule: str
    fire_time: str
    due: str
    tz: str
    topic: str


@answer_type
class Overview(AnswerType):
    """What a live view shows, which costs little however much is stored. Its keys mean what they mean in a status.

    ended: slots by the final state that they came to since the daemon started.
    coming: the next slot of each of the schedules that come first, by when it is due; what is due within some seconds is
    planned already, and not among them. oldest_pending_due: when the fire was due that is pending for the longest; None if
    none is.
    """

    version: str
    started_at: str
    now: str
    not_ready_because: str | None
    schedules: int
    paused: int
    failing: int
    pending: int
    oldest_pending_due: str | None
    in_flight: int
    watermark: str
    ended: dict[str, int]
    lateness_us: dict[str, int] | None
    refusing: list[dict[str, Any]]
    refusing_count: int
    coming: list[Coming]


@answer_type
class Topic(AnswerType):
    """A topic that schedules name, or that has pending fires.

    schedules: how many name it; failing: of them those SNS refused last, with error what it said of one of them. pending: fires
    still to be published to it. refusing: ``{"since", "error", "next_probe"}`` while SNS refuses everything for it, else None.
    """

    topic: str
    schedules: int
    failing: int = 0
    pending: int = 0
    error: str | None = None
    refusing: dict[str, Any] | None = None


@answer_type
class TopicsPage(AnswerType):
    """Topics in use, by ARN. next: what to ask for as ``after``, None on the last page."""

    topics: list[Topic]
    next: str | None = None


@answer_type
class Copy(AnswerType):
    """What a backup holds. watermark: every slot due at or before it is in its journal; None before the first."""

    file: str
    size_bytes: int
    schedules: int
    journal: int
    pending: int = 0
    watermark: str | None = None
    schema: int = 0


Answer = (
    Schedule
    | SchedulesPage
    | PutReply
    | PauseReply
    | RemoveReply
    | ManyReply
    | MoveReply
    | RunReply
    | BackfillReply
    | RetryReply
    | NextReply
    | FiresPage
    | ChangesPage
    | ApplyReply
    | Forecast
    | Status
    | Overview
    | TopicsPage
    | Why
    | Copy
)
_Wire = TypeVar("_Wire", bound=AnswerType)
_TYPES: Final = (*get_args(Answer), Fire, Change, FieldMatch, Problem, Difference, Topic, Load, Coming)
_NESTED: Final[dict[tuple[type, str], type]] = {
    (SchedulesPage, "schedules"): Schedule,
    (PutReply, "schedule"): Schedule,
    (PauseReply, "schedule"): Schedule,
    (Forecast, "loads"): Load,
    (MoveReply, "before"): Schedule,
    (MoveReply, "schedule"): Schedule,
    (Overview, "coming"): Coming,
    (FiresPage, "fires"): Fire,
    (ChangesPage, "changes"): Change,
    (TopicsPage, "topics"): Topic,
    (RetryReply, "fires"): Fire,
    (Why, "fires"): Fire,
    (Why, "fields"): FieldMatch,
    (ApplyReply, "problems"): Problem,
    (ApplyReply, "differences"): Difference,
}


def to_plain(value: Any) -> Any:
    """Return a wire object (or a list of them) as plain JSON values."""
    if isinstance(value, _TYPES):
        return {key: to_plain(getattr(value, key)) for key in keys_of(type(value))}
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[_Wire], plain: object) -> _Wire:
    """Return the *kind* that *plain* states; unknown keys are left out. Errors: AdminError."""
    if not isinstance(plain, dict):
        raise AdminError(f"the daemon's answer is not understood: it is no {kind.__name__}")
    values = {key: plain[key] for key in keys_of(kind) if key in plain}
    for (owner, key), inner in _NESTED.items():
        if owner is kind and key in values:
            given = values[key]
            values[key] = (
                [from_plain(inner, item) for item in given]
                if isinstance(given, list)
                else from_plain(inner, given)
            )
    try:
        return kind(**values)
    except TypeError as exc:
        raise AdminError(f"the daemon's answer is not understood: {exc}") from None


# --- errors -----------------------------------------------------------------------------------------------------


def error_to_plain(exc: CronallyError) -> dict[str, Any]:
    """Return ``{"error": …}``: kind, message, exit code, whether to retry, and the error's own fields, cut if long."""
    fields = {
        key: value[:_MAX_FIELD_CHARS] if isinstance(value, str) else value
        for key, value in vars(exc).items()
        if not key.startswith("_") and isinstance(value, str | int | float | None)
    }
    own = {
        "kind": type(exc).__name__,
        "message": str(exc),
        "exit_code": exc.exit_code,
        "retryable": exc.is_retryable,
    }
    return {"error": fields | own}


def error_from_plain(plain: Mapping[str, Any]) -> CronallyError:
    """Return the error that ``error_to_plain`` wrote, as the class it had; its message and exit code are kept.

    A class this version does not know becomes the nearest one with that exit code.
    """
    kind = getattr(errors, str(plain.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, CronallyError)):
        kind = _BY_EXIT_CODE.get(plain.get("exit_code"), CronallyError)
    exc: CronallyError = kind.__new__(kind)
    exc.args = (str(plain.get("message", "the daemon refused and did not say why")),)
    fields = {
        key: value for key, value in plain.items() if key not in ("kind", "message", "exit_code", "retryable")
    }
    vars(exc).update(fields)
    return exc


_BY_EXIT_CODE: Final[dict[object, type[CronallyError]]] = {
    2: errors.UsageError,
    3: errors.AdminError,
    4: errors.ScheduleNotFound,
    5: errors.Conflict,
    70: errors.InternalError,
}


def check_key(key: str) -> None:
    """Refuse what cannot be an idempotency key. Errors: UsageError."""
    if not (0 < len(key) <= _MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise errors.UsageError(f"an idempotency key has 1 to {_MAX_KEY_CHARS} printable ASCII characters")


def check_version(theirs: str | None) -> None:
    """Refuse a peer that speaks another version. theirs: its header. Errors: WireVersionMismatch."""
    if theirs != str(WIRE_VERSION):
        raise WireVersionMismatch(theirs=theirs, ours=WIRE_VERSION)
