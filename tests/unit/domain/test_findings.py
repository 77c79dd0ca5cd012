import pytest

from cronally.domain.allowed import NOT_ALLOWED
from cronally.domain.findings import (
    Health,
    clock_finding,
    credentials_finding,
    disk_finding,
    offset_finding,
    principal_of,
    quota_finding,
    simulated,
    topic_finding,
    tzdata_finding,
)
from cronally.domain.topic_reports import TopicState
from cronally.instants import parse_rfc3339

OK, WARNING, FAILED = Health.OK, Health.WARNING, Health.FAILED
NOW = parse_rfc3339("2026-11-24T12:00:00Z")
MIB = 1 << 20
TOPIC = "arn:aws:sns:eu-west-1:123456789012:reports"
FIFO = "arn:aws:sns:eu-west-1:123456789012:orders.fifo"
THERE = TopicState(TOPIC, exists=True)
ABSENT = TopicState(TOPIC)
UNKNOWN = TopicState(TOPIC, problem="may not look")


def judged(finding, health, part):
    assert finding.health is health, finding
    assert part in f"{finding.text} -> {finding.fix}", finding
    assert (finding.fix is None) is (health is OK)


@pytest.mark.parametrize(
    ("now", "is_synchronised", "health", "part"),
    [
        ("2026-11-24T12:00:00Z", True, OK, "NTP keeps it right"),
        ("2026-11-24T12:00:00Z", None, OK, "does not tell"),
        ("2026-11-24T12:00:00Z", False, WARNING, "chrony"),
        ("1970-01-01T00:00:05Z", True, FAILED, "before this version was made"),
    ],
)
def test_the_clock(now, is_synchronised, health, part):
    released_at = parse_rfc3339("2026-11-23T00:00:00Z")
    judged(
        clock_finding(now=parse_rfc3339(now), released_at=released_at, is_synchronised=is_synchronised),
        health,
        part,
    )


@pytest.mark.parametrize(
    ("version", "now", "daemon", "health", "part"),
    [
        ("2026f", "2026-11-24T00:00:00Z", None, OK, "2026f"),
        ("2026f", "2026-11-24T00:00:00Z", "2026f", OK, "2026f"),
        ("2026f", "2027-06-30T00:00:00Z", None, OK, "2026f"),
        ("2026f", "2027-07-01T00:00:00Z", None, WARNING, "at least 6 months old"),
        ("2024a", "2026-11-24T00:00:00Z", None, WARNING, "at least 22 months old"),
        ("2026f", "2026-11-24T00:00:00Z", "2026a", WARNING, "restart the daemon"),
        ("odd", "2026-11-24T00:00:00Z", None, OK, "odd"),
    ],
)
def test_zone_data(version, now, daemon, health, part):
    judged(tzdata_finding(version, now=parse_rfc3339(now), daemon_version=daemon), health, part)


@pytest.mark.parametrize(
    ("free", "used", "most", "health", "part"),
    [
        (5_000 * MIB, 100 * MIB, 2_048 * MIB, OK, "free"),
        (2_012 * MIB, 100 * MIB, 2_048 * MIB, OK, "free"),
        (2_011 * MIB, 100 * MIB, 2_048 * MIB, WARNING, "may still grow by 1.9 GiB"),
        (65 * MIB, 4_000 * MIB, 2_048 * MIB, OK, "free"),
        (63 * MIB, 4_000 * MIB, 2_048 * MIB, FAILED, "nothing is sent"),
    ],
)
def test_the_disk(free, used, most, health, part):
    judged(disk_finding("/x/store.db", free_bytes=free, store_bytes=used, max_bytes=most), health, part)


@pytest.mark.parametrize(
    ("is_temporary", "is_renewed", "expires", "health", "part"),
    [
        (False, False, None, OK, "AKIA…MPLE from the environment, which do not expire"),
        (True, True, "2026-11-24T13:00:00Z", OK, "until 2026-11-24T13:00:00Z, renewed before that"),
        (True, False, "2026-11-24T13:00:00Z", WARNING, "stops sending when they expire"),
        (True, False, None, WARNING, "temporary: a daemon cannot renew them"),
        (True, True, "2026-11-24T11:59:00Z", FAILED, "expired at 2026-11-24T11:59:00Z"),
    ],
)
def test_credentials(is_temporary, is_renewed, expires, health, part):
    found = credentials_finding(
        key="AKIAIOSFODNN7EXAMPLE",
        source="the environment",
        is_temporary=is_temporary,
        is_renewed=is_renewed,
        expires_at=None if expires is None else parse_rfc3339(expires),
        now=NOW,
    )
    judged(found, health, part)
    assert "IOSFODNN7" not in found.text


@pytest.mark.parametrize(
    ("offset_s", "trip_s", "health", "part"),
    [
        (0.4, 0.1, OK, "agrees with ours"),
        (-1.9, 0.1, OK, "agrees with ours"),
        (2.5, 2.0, OK, "agrees with ours"),
        (3.0, 0.1, WARNING, "our clock is 3 s behind"),
        (-200, 0.1, WARNING, "our clock is 200 s ahead"),
        (-241, 0.1, FAILED, "5 minutes off"),
        (86_400, 0.1, FAILED, "our clock is 86400 s behind"),
    ],
)
def test_the_clock_of_aws(offset_s, trip_s, health, part):
    judged(offset_finding("eu-west-1", "https://sns", offset_s=offset_s, trip_s=trip_s), health, part)


@pytest.mark.parametrize(
    ("topic", "state", "decision", "refused", "health", "parts"),
    [
        (TOPIC, THERE, "allowed", None, OK, ["sns:Publish is allowed", "nothing was sent", "the topic is there"]),
        (TOPIC, UNKNOWN, "allowed", None, OK, ["whether it is there was not tested"]),
        (TOPIC, THERE, None, None, OK, ["sns:Publish itself was not tested", f"topics check {TOPIC}"]),
        (TOPIC, UNKNOWN, None, None, WARNING, ["not tested: may not look", f"topics check {TOPIC}", '"sns:Publish"']),
        (TOPIC, THERE, "implicitDeny", None, FAILED, ["do not allow sns:Publish", "attach this policy to role/x", TOPIC]),
        (TOPIC, THERE, "explicitDeny", None, FAILED, ["forbids sns:Publish", "remove the Deny statement"]),
        (TOPIC, ABSENT, "allowed", None, FAILED, ["no such topic", "topics create reports --region eu-west-1"]),
        (FIFO, TopicState(FIFO), None, None, FAILED, ["topics create orders.fifo --fifo --region eu-west-1"]),
        (TOPIC, THERE, "allowed", "KMSDisabled: off", FAILED, ["SNS refuses all that the daemon sends: KMSDisabled"]),
        (TOPIC, THERE, None, "AuthorizationError: no", FAILED, ["AuthorizationError", "attach this policy"]),
        (TOPIC, ABSENT, None, "NotFound: no", FAILED, ["NotFound", "topics create reports"]),
        (TOPIC, THERE, None, NOT_ALLOWED, FAILED, ["not among the topics of sns.topics", "SIGHUP"]),
    ],
)  # fmt: skip
def test_a_topic(topic, state, decision, refused, health, parts):
    found = topic_finding(topic, state=state, decision=decision, who="role/x", refused=refused)
    for part in parts:
        judged(found, health, part)


@pytest.mark.parametrize(
    ("quota", "busiest", "health", "part"),
    [
        (30_000, 15_000, OK, "30,000 messages a second; the busiest minute of the coming day, 09:00, has 15,000: 0.5 s if they are due at one instant"),
        (300, 3_000, OK, "10.0 s"),
        (300, 3_001, WARNING, "--spread"),
        (0, 1_000_000, OK, "no pacing"),
    ],
)  # fmt: skip
def test_the_quota_beside_the_busiest_minute(quota, busiest, health, part):
    judged(quota_finding("us-east-1", quota_per_s=quota, busiest=busiest, minute="09:00"), health, part)


def test_what_a_simulation_says_is_read_by_topic():
    whole = {"EvalActionName": "sns:Publish", "EvalResourceName": TOPIC, "EvalDecision": "allowed"}
    parts = {
        "EvalResourceName": "*",
        "EvalDecision": "implicitDeny",
        "ResourceSpecificResults": [{"EvalResourceName": FIFO, "EvalResourceDecision": "explicitDeny"}],
    }
    found = simulated({"EvaluationResults": [whole, parts]})
    assert (found[TOPIC], found[FIFO]) == ("allowed", "explicitDeny")
    assert simulated({}) == {}


@pytest.mark.parametrize(
    ("arn", "expected"),
    [
        ("arn:aws:iam::123456789012:user/team/anna", "arn:aws:iam::123456789012:user/team/anna"),
        ("arn:aws:sts::123456789012:assumed-role/cronally/i-0abc", "arn:aws:iam::123456789012:role/cronally"),
        ("arn:aws-cn:sts::123456789012:assumed-role/r/s", "arn:aws-cn:iam::123456789012:role/r"),
        ("arn:aws:iam::123456789012:root", None),
        ("arn:aws:sts::123456789012:federated-user/anna", None),
    ],
)
def test_the_principal_whose_policies_hold(arn, expected):
    assert principal_of(arn) == expected
