"""What ``doctor`` finds, and how it is judged. Pure: what was measured comes in, a sentence goes out."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.domain.allowed import NOT_ALLOWED
from cronally.domain.sizes import format_size
from cronally.domain.topic_policies import publish_policy
from cronally.instants import UtcMs, format_utc, to_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cronally.domain.topic_reports import TopicState

# AWS takes a signature for 5 minutes in general (IAM User Guide, signing); a request is on its way for a while.
MAX_OFFSET_S: Final = 240.0
_NOTABLE_OFFSET_S: Final = 2.0  # a Date header has whole seconds, and the answer takes a part of one
_LEAST_FREE_BYTES: Final = 64 << 20  # the store's log alone may grow to this
_OLD_MONTHS: Final = 6  # IANA releases zone data several times a year
_SOON_S: Final = 900.0  # botocore renews what expires within 15 minutes, if it can
_MISSED_S: Final = 10.0  # design §4: what waits longer for quota is journalled as pending
_MAY_SIMULATE: Final = "iam:SimulatePrincipalPolicy"


class Health(StrEnum):
    """How bad it is: ``failed`` keeps fires from going out, ``warning`` may, or not yet."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(NamedTuple):
    """One line of ``doctor``. fix: what to do; None if nothing is to be done."""

    check: str
    health: Health
    text: str
    fix: str | None = None


def ok(check: str, text: str) -> Finding:
    return Finding(check, Health.OK, text)


def warning(check: str, text: str, fix: str) -> Finding:
    return Finding(check, Health.WARNING, text, fix)


def failed(check: str, text: str, fix: str) -> Finding:
    return Finding(check, Health.FAILED, text, fix)


# --- the machine ------------------------------------------------------------------------------------------------


def clock_finding(*, now: UtcMs, released_at: UtcMs, is_synchronised: bool | None) -> Finding:
    """Judge the machine's clock. released_at: no clock that says less can be right. is_synchronised: what the kernel says."""
    if now < released_at:
        return failed(
            "clock",
            f"it says {format_utc(now)}, before this version was made: the daemon will not believe it",
            "set the clock, and keep it right with chrony or systemd-timesyncd",
        )
    if is_synchronised is None:
        return ok(
            "clock", f"it says {format_utc(now)}; whether NTP keeps it right, this system does not tell"
        )
    if not is_synchronised:
        return warning(
            "clock",
            "the kernel calls it unsynchronised: nothing keeps it right, and fires leave by it",
            "run chrony or systemd-timesyncd ('timedatectl set-ntp true'); in a container, see to it on the host",
        )
    return ok("clock", "NTP keeps it right, says the kernel")


def tzdata_finding(version: str, *, now: UtcMs, daemon_version: str | None) -> Finding:
    """Judge the zone data. version: IANA's, such as ``2026f``. daemon_version: what the daemon uses, if one answers."""
    if daemon_version not in (None, version):
        return warning(
            "tzdata",
            f"{version} is installed, and the daemon uses {daemon_version}",
            "restart the daemon; it says which schedules move",
        )
    match = re.match(r"\d{4}", version)
    today = to_datetime(now)
    months = 0 if match is None else (today.year - int(match[0]) - 1) * 12 + today.month - 1
    if months >= _OLD_MONTHS:
        return warning(
            "tzdata",
            f"{version} is at least {months} months old: some country may have changed its clocks since",
            "pip install --upgrade tzdata, and restart the daemon",
        )
    return ok("tzdata", version)


def disk_finding(path: str, *, free_bytes: int, store_bytes: int, max_bytes: int) -> Finding:
    """Judge the space for the store at *path*. max_bytes: up to which it may grow."""
    free = f"{format_size(free_bytes)} free"
    if free_bytes < _LEAST_FREE_BYTES:
        return failed(
            "disk",
            f"{free} beside {path}: without space nothing can be put on record, and then nothing is sent",
            "make room, or move the store with --store",
        )
    growth = max(0, max_bytes - store_bytes)
    if free_bytes < growth + _LEAST_FREE_BYTES:
        return warning(
            "disk",
            f"{free}, and the store may still grow by {format_size(growth)} (to {format_size(max_bytes)})",
            "make room, or lower max_size of [journal] in the settings",
        )
    return ok("disk", f"{free}; the store has {format_size(store_bytes)} of at most {format_size(max_bytes)}")


# --- AWS --------------------------------------------------------------------------------------------------------


def credentials_finding(
    *, key: str, source: str, is_temporary: bool, is_renewed: bool, expires_at: UtcMs | None, now: UtcMs
) -> Finding:
    """Judge credentials that were found. key: the access key id. is_renewed: the chain renews them before they expire."""
    text = f"{key[:4]}…{key[-4:]} from {source}"
    if expires_at is not None and expires_at <= now:
        return failed(
            "credentials", f"{text}, expired at {format_utc(expires_at)}", "renew them, or use a role"
        )
    if expires_at is not None and is_renewed:
        return ok("credentials", f"{text}, until {format_utc(expires_at)}, renewed before that")
    if is_temporary and not is_renewed:
        until = f"until {format_utc(expires_at)}" if expires_at is not None else "temporary"
        return warning(
            "credentials",
            f"{text}, {until}: a daemon cannot renew them, and stops sending when they expire",
            "give the daemon a role or a profile, whose credentials are renewed",
        )
    return ok("credentials", f"{text}, which do not expire")


def offset_finding(region: str, url: str, *, offset_s: float, trip_s: float) -> Finding:
    """Judge how far our clock is from that of AWS. offset_s: theirs less ours. trip_s: how long asking took."""
    check = f"endpoint {region}"
    ahead = "behind" if offset_s > 0 else "ahead"
    text = f"{url} answers; our clock is {abs(offset_s):.0f} s {ahead}"
    if abs(offset_s) > MAX_OFFSET_S:
        return failed(
            check,
            f"{text}, and AWS refuses signatures that are 5 minutes off",
            "set the clock; until then signing goes by the clock of SNS, and fires go by the wrong one",
        )
    if abs(offset_s) > _NOTABLE_OFFSET_S + trip_s / 2:
        return warning(check, f"{text}: fires leave by it", "set the clock, and keep it right with NTP")
    return ok(check, f"{url} answers, and its clock agrees with ours")


def topic_finding(
    topic: str, *, state: TopicState, decision: str | None, who: str, refused: str | None
) -> Finding:
    """Judge whether the daemon may publish to a topic.

    decision: what IAM's simulation says (allowed, implicitDeny, explicitDeny), None if it could not be asked. who: for whom.
    refused: what SNS says to the daemon while it refuses everything.
    """
    check = f"topic {topic}"
    policy = f"attach this policy to {who}: {publish_policy([topic])}"
    if refused is not None and refused.startswith("KMS"):
        region, account = topic.split(":")[3:5]
        keys = [f"{topic.partition(':sns:')[0]}:kms:{region}:{account}:key/KEY-ID"]
        policy = f"attach this policy to {who}, with the id of the topic's key: {publish_policy([topic], keys=keys)}"
    is_absent = state.problem is None and not state.exists
    name, region = topic.rpartition(":")[2], topic.split(":")[3]
    create = f"cronally topics create {name}{' --fifo' if name.endswith('.fifo') else ''} --region {region}"
    if refused == NOT_ALLOWED:
        return failed(
            check,
            "schedules name it, and the daemon holds their fires back: it is not among the topics of sns.topics",
            "add it there and have the daemon read its settings again (SIGHUP), or give the schedules another topic",
        )
    if refused is not None:
        is_denial = "authoriz" in refused.lower() or "denied" in refused.lower()
        fix = (
            create
            if is_absent
            else policy
            if is_denial
            else f"mend that; 'cronally topics check {topic}' tries it"
        )
        return failed(check, f"SNS refuses all that the daemon sends: {refused}", fix)
    if is_absent:
        return failed(check, "there is no such topic", create)
    if decision == "explicitDeny":
        return failed(
            check,
            f"a policy of {who} forbids sns:Publish (by {_MAY_SIMULATE})",
            "remove the Deny statement, or except this topic from it",
        )
    if decision not in (None, "allowed"):
        text = f"the policies of {who} do not allow sns:Publish (by {_MAY_SIMULATE}, which leaves out the topic's own policy)"
        return failed(check, text, policy)
    if decision == "allowed":
        seen = (
            "the topic is there"
            if state.exists
            else "whether it is there was not tested (sns:GetTopicAttributes)"
        )
        return ok(check, f"sns:Publish is allowed (by {_MAY_SIMULATE}; nothing was sent); {seen}")
    check_it = f"'cronally topics check {topic}' sends a test message"
    if state.exists:
        untested = f"sns:Publish itself was not tested ({_MAY_SIMULATE} did not tell): {check_it}"
        return ok(check, f"it is there and may be looked at; {untested}")
    return warning(
        check, f"not tested: {str(state.problem).partition('; ')[0]}", f"{check_it}; if it may not, {policy}"
    )


def quota_finding(way: str, *, quota_per_s: float, busiest: int, minute: str) -> Finding:
    """Judge the quota of a *way* (a region, and whether its topics are FIFO) by the busiest minute of the coming day.

    quota_per_s: messages a second, 0 for no pacing. busiest: messages in that minute; all of them may be due at one instant.
    """
    check = f"quota {way}"
    if not quota_per_s:
        return ok(check, "there is no pacing ([sns.quota] says 0)")
    drain_s = busiest / quota_per_s
    text = (
        f"{quota_per_s:,.0f} messages a second; the busiest minute of the coming day, {minute}, has {busiest:,}: {drain_s:.1f} s "
        "if they are due at one instant"
    )
    if drain_s > _MISSED_S:
        return warning(
            check,
            f"{text}, and what would wait longer than {_MISSED_S:g} s becomes pending",
            "'cronally forecast' shows which --spread would flatten it; or have AWS raise the quota, and say so in [sns.quota]",
        )
    return ok(check, text)


def simulated(reply: Mapping[str, object]) -> dict[str, str]:
    """Return what an answer to SimulatePrincipalPolicy says, by the ARN of the resource."""
    found: dict[str, str] = {}
    for result in _mappings(reply.get("EvaluationResults")):
        found[str(result.get("EvalResourceName"))] = str(result.get("EvalDecision"))
        for one in _mappings(result.get("ResourceSpecificResults")):
            found[str(one.get("EvalResourceName"))] = str(one.get("EvalResourceDecision"))
    return found


def _mappings(value: object) -> Iterable[Mapping[str, object]]:
    return value if isinstance(value, list) else ()


def principal_of(arn: str) -> str | None:
    """Return the user or role whose policies hold for the caller *arn* of STS; None for the root user and the like.

    A role's path is not in the ARN of its sessions: one with a path cannot be named.
    """
    match = re.fullmatch(r"arn:(aws[a-z-]*):sts::(\d{12}):assumed-role/([^/]+)/.*", arn)
    if match is not None:
        partition, account, role = match.groups()
        return f"arn:{partition}:iam::{account}:role/{role}"
    return arn if re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:(user|role)/.+", arn) else None
