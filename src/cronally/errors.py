"""Every exception Cronally raises on purpose.

Each says what is wrong, where, and what to do next. Two class attributes answer the caller's questions:
``exit_code`` (design §10) and ``is_retryable`` (may the same call succeed later without a change?).
Fields first: the message is built from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN_PATTERNS = 5  # of a list in a sentence


def printable(text: str) -> str:
    """Return *text* on one line, with a code for each character that is not to be seen or changes how others are.

    So what somebody else wrote can be shown in a terminal and in a log: no control, no line or direction of its own.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


class CronallyError(Exception):
    """Root of the tree. Its text is printable, whatever it quotes."""

    exit_code: ClassVar[int] = 1
    is_retryable: ClassVar[bool] = False

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(CronallyError):
    """The caller gave something that cannot be accepted; nothing was changed."""

    exit_code = 2


class WhenError(UsageError, ValueError):
    """The text of a rule cannot be accepted.

    Attributes: reason: what is wrong, a sentence. hint: what to write instead, never empty.
        field: ``second minute hour day-of-month month day-of-week year``, or None. column: 1-based, or None.
    """

    def __init__(
        self, reason: str, *, hint: str, field: str | None = None, column: int | None = None
    ) -> None:
        self.reason, self.hint, self.field, self.column = reason, hint, field, column
        place = " ".join(
            part for part in (field and f"in the {field} field", column and f"at column {column}") if part
        )
        super().__init__(f"{reason}{f' ({place})' if place else ''}; {hint}")


class ZoneError(UsageError, ValueError):
    """An IANA time zone that tzdata does not have. Attributes: name: as given. suggestion: the nearest name or None."""

    def __init__(self, name: str, *, suggestion: str | None = None) -> None:
        self.name, self.suggestion = name, suggestion
        fix = f"did you mean {suggestion}?" if suggestion else "use an IANA name such as Europe/London or UTC"
        super().__init__(f"unknown time zone {name[:100]!r}; {fix}")


class FieldError(UsageError):
    """A field of a schedule (name, topic, message, …) that cannot be accepted.

    Attributes: field: the key as in a file for ``apply``. reason: a sentence with the right form in it.
    """

    def __init__(self, field: str, reason: str) -> None:
        self.field, self.reason = field, reason
        super().__init__(f"{field}: {reason}")


class TopicNotAllowed(FieldError):  # noqa: N818 - says the state
    """The operator's list has no place for a topic. Attributes: topic. patterns: the list."""

    def __init__(self, topic: str, patterns: Sequence[str]) -> None:
        self.topic, self.patterns = topic, tuple(patterns)
        more = len(patterns) - _SHOWN_PATTERNS
        shown = f"{', '.join(patterns[:_SHOWN_PATTERNS])}{f' and {more:,} more' if more > 0 else ''}"
        super().__init__(
            "topic",
            f"{topic[:400]} is not among the topics that this daemon may publish to (sns.topics: {shown}); use one of those, "
            "or have its operator add this one",
        )


class ConfigError(UsageError):
    """A setting that cannot be accepted. Attributes: key, source: the file, variable or flag it came from."""

    def __init__(self, key: str, source: str, reason: str) -> None:
        self.key, self.source, self.reason = key, source, reason
        super().__init__(f"{key} from {source}: {reason}")


class ScheduleNotFound(CronallyError):  # noqa: N818 - the name users see in the API
    """No schedule has that name. Attributes: name. suggestion: the nearest existing name or None."""

    exit_code = 4

    def __init__(self, name: str, *, suggestion: str | None = None) -> None:
        self.name, self.suggestion = name, suggestion
        fix = f"did you mean {suggestion!r}?" if suggestion else "'cronally ls' lists those there are"
        super().__init__(f"no schedule is named {name!r}; {fix}")


class NoScheduleMatches(CronallyError):  # noqa: N818 - the name users see in the API
    """Nothing is selected. name: a name or glob; None if only tags were asked for."""

    exit_code = 4

    def __init__(self, name: str | None, *, tags: Sequence[str] = ()) -> None:
        self.name = name
        what = "no schedule" if name is None else f"no schedule matches {name[:100]!r}"
        tagged = f" has the tag {' and '.join(map(repr, tags))}" if tags else ""
        joined = f"{what} and{tagged}" if name is not None and tags else f"{what}{tagged}"
        super().__init__(f"{joined}; 'cronally ls' lists those there are")


class FireNotFound(CronallyError):  # noqa: N818 - the name users see in the API
    """Nothing is on record for a fire id. Attributes: fire_id. schedule: its name. suggestion: the nearest one, or None."""

    exit_code = 4

    def __init__(self, fire_id: str, schedule: str, *, suggestion: str | None = None) -> None:
        self.fire_id, self.schedule, self.suggestion = fire_id, schedule, suggestion
        fix = (
            f"is its schedule {suggestion!r}?"
            if suggestion
            else f"'cronally history {schedule}' lists those there are"
        )
        super().__init__(f"no fire is on record as {fire_id!r}; {fix}")


class Conflict(CronallyError):  # noqa: N818 - the name users see in the API
    """The change clashes with what is there; nothing was changed."""

    exit_code = 5


class RevisionConflict(Conflict):
    """The schedule is not at the revision the caller expected. Attributes: name, expected, found: revision numbers."""

    def __init__(self, name: str, *, expected: int, found: int) -> None:
        self.name, self.expected, self.found = name, expected, found
        super().__init__(
            f"{name!r} is at revision {found}, not {expected}; read it again and repeat the change"
        )


class StoreError(CronallyError):
    """The store could not do it; nothing was half-done."""


class StoreBusy(StoreError):  # noqa: N818 - says the state, as sqlite does
    """Another writer held the store too long."""

    is_retryable = True


class StoreFull(StoreError):  # noqa: N818 - says the state
    """No space is left for the store."""

    is_retryable = True


class StoreLocked(StoreError):  # noqa: N818 - says the state
    """Another daemon has this store open. Attributes: path. pid: the holder's, or None if it cannot be read."""

    def __init__(self, path: str, pid: int | None, *, fix: str | None = None) -> None:
        self.path, self.pid = path, pid
        super().__init__(
            f"{path} is in use by another cronally daemon{f' (pid {pid})' if pid else ''}; "
            f"{fix or 'stop that one, or give this one a store of its own with --store'}"
        )


class StoreCorrupt(StoreError):  # noqa: N818 - says the state
    """The store's file is damaged. Attributes: path, detail: what the check said."""

    def __init__(self, path: str, detail: str) -> None:
        self.path, self.detail = path, detail
        super().__init__(
            f"{path} is damaged ({detail}); stop the daemon if it runs, and put a backup in its place with "
            f"'cronally restore FILE --store sqlite:{path}' (the damaged file is kept)"
        )


class SchemaMismatch(StoreError):  # noqa: N818 - says the state
    """The store was written by a newer Cronally. Attributes: path, found, wanted: schema versions."""

    def __init__(self, path: str, *, found: int, wanted: int) -> None:
        self.path, self.found, self.wanted = path, found, wanted
        super().__init__(
            f"{path} has schema version {found} and this cronally knows up to {wanted}; "
            "start the newer cronally that wrote it"
        )


class ShardElsewhere(StoreError):  # noqa: N818 - says the state
    """Another machine drives the shard, or will in a moment; nothing was done. Attributes: shard: its number."""

    is_retryable = True

    def __init__(self, shard: int) -> None:
        self.shard = shard
        super().__init__(f"shard {shard} of the store is not this machine's at the moment; try again")


class LeaseLost(StoreError):  # noqa: N818 - says the state
    """Another machine has taken over, or the table did not answer for a whole lease: this incarnation is over."""

    is_retryable = True

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"this machine's lease is lost: {reason}; it joins anew as soon as the table answers"
        )


class BackupFailed(CronallyError):  # noqa: N818 - says the state
    """A backup was not written; nothing is left of it. Attributes: path, reason."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"the backup {path} cannot be written: {reason}")


class BackupUnusable(CronallyError):  # noqa: N818 - says the state
    """A file cannot be restored; nothing was changed. Attributes: path, reason."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} cannot be restored: {reason}; nothing was changed")


class PublishError(CronallyError):
    """Something about publishing that is not one entry's outcome: credentials, the stand-in, a queue."""


class CredentialsInvalid(PublishError):  # noqa: N818 - says the state
    """The AWS chain gave no usable credentials."""


class AwsRefused(PublishError):  # noqa: N818 - says the state
    """AWS refused a call that is not a fire's. Attributes: action: the call as IAM names it. resource: what it is about. code: AWS's."""

    def __init__(self, reason: str, *, action: str, resource: str, code: str) -> None:
        self.action, self.resource, self.code = action, resource, code
        super().__init__(reason)


class AwsInputRefused(AwsRefused):
    """AWS refused what the caller gave: a name, a URL, an address."""

    exit_code = 2


class AwsUnreachable(PublishError):  # noqa: N818 - says the state
    """No answer, or none that can be understood. Attributes: action: the call as IAM names it. reason: what was seen."""

    is_retryable = True

    def __init__(self, action: str, reason: str) -> None:
        self.action, self.reason = action, reason
        super().__init__(
            f"no answer of AWS to {action}: {reason}; look at the network, at AWS_ENDPOINT_URL and at the proxy settings, and "
            "run it again"
        )


class AdminError(CronallyError):
    """The daemon could not be reached or did not answer as one."""

    exit_code = 3


class DaemonUnreachable(AdminError):  # noqa: N818 - says the state
    """Nothing answers on the socket. Attributes: socket: its path. reason: what the system said."""

    def __init__(self, socket: str, reason: str) -> None:
        self.socket, self.reason = socket, reason
        super().__init__(
            f"no cronally daemon answers at {socket} ({reason}); start one with 'cronally serve', "
            "or name its socket with --socket or CRONALLY_SOCKET"
        )


class HostUnreachable(AdminError):  # noqa: N818 - says the state
    """No way through ssh to a daemon of another machine. Attributes: host: as it was named. reason: what ssh said. fix."""

    def __init__(self, host: str, reason: str, *, fix: str) -> None:
        self.host, self.reason, self.fix = host, reason, fix
        super().__init__(f"no cronally daemon is reached at {host}: {reason}; {fix}")


class WireVersionMismatch(AdminError):  # noqa: N818 - says the state
    """Client and daemon speak different versions. Attributes: theirs: as given, None if not said. ours."""

    def __init__(self, *, theirs: str | None, ours: int) -> None:
        self.theirs, self.ours = theirs, ours
        super().__init__(
            f"the other side speaks version {theirs[:20] if theirs else 'unknown'} of the admin socket and this "
            f"cronally version {ours}; use the same release of cronally for both"
        )


class ReadOnly(CronallyError):  # noqa: N818 - says the state
    """A socket for reading alone was asked for more. Attributes: request: its method and path."""

    def __init__(self, request: str) -> None:
        self.request = request
        super().__init__(
            f"this socket is for reading alone, and {request} is more than that; ask somebody who may make changes, or, if you "
            "may, name the daemon's other socket with --socket"
        )


class NotReady(CronallyError):  # noqa: N818 - says the state
    """The daemon is starting, stopping or cannot commit; the change was not made."""

    is_retryable = True


class InternalError(CronallyError):
    """A broken invariant: a bug in Cronally."""

    exit_code = 70
