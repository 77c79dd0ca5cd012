"""The CronJob of the Kubernetes documentation, and what clusters hold."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronally.cli.importing.found import SourceProblem
from cronally.cli.importing.kubernetes import translate
from cronally.cli.importing.planning import Choices, Placed, plan
from cronally.instants import parse_rfc3339
from support.imported import the_item, the_only

NOW = parse_rfc3339("2026-11-24T00:00:00Z")
DOCS = """\
apiVersion: batch/v1
kind: CronJob
metadata:
  name: hello
spec:
  schedule: "* * * * *"
  jobTemplate:
    spec:
      template:
        spec:
          containers:
          - name: hello
            image: busybox:1.28
            imagePullPolicy: IfNotPresent
            command:
            - /bin/sh
            - -c
            - date; echo Hello from the Kubernetes cluster
          restartPolicy: OnFailure
"""


def manifest(schedule="0 9 * * *", *, metadata=None, containers=None, **spec):
    pod = {"containers": containers or [{"name": "c", "image": "i", "args": ["x"]}]}
    job = {"schedule": schedule, "jobTemplate": {"spec": {"template": {"spec": pod}}}} | spec
    return json.dumps(
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata or {"name": "a"}, "spec": job}
    )


def only(text):
    return the_only(translate(text))


def item(text, **choices):
    return the_item(translate(text), NOW, **choices)


def test_the_example_of_the_documentation():
    found = only(DOCS)
    assert (found.line, found.name) == (1, "hello")
    assert (found.document["when"], found.document["tz"]) == ("* * * * *", "UTC")
    assert json.loads(found.document["message"]) == {
        "cronjob": "hello",
        "containers": [
            {"name": "hello", "image": "busybox:1.28", "command": ["/bin/sh", "-c", "date; echo Hello from the Kubernetes cluster"]}
        ],
    }  # fmt: skip
    assert "no timeZone" in found.remarks[0]


def test_everything_a_cronjob_says():
    found = only(
        manifest(
            timeZone="Europe/London",
            metadata={
                "name": "report",
                "namespace": "prod",
                "labels": {"app.kubernetes.io/name": "web", "flag": "", "bad key": "v"},
            },
            suspend=True,
            startingDeadlineSeconds=300,
            concurrencyPolicy="Forbid",
            containers=[{"name": "c", "image": "i", "env": [{"name": "SECRET", "value": "hunter2"}]}],
        )
    )
    assert found.name == "prod.report"
    document = found.document
    assert (document["tz"], document["paused"], document["deadline"]) == ("Europe/London", True, "5m")
    assert document["tags"] == ["app.kubernetes.io/name=web", "flag"]
    assert "hunter2" not in str(found)
    said = " ".join(found.differs + found.remarks)
    for part in (
        "concurrencyPolicy Forbid",
        "left out: bad key=v",
        "may be secrets",
        "neither command nor args",
    ):
        assert part in said


@pytest.mark.parametrize(("policy", "count"), [("Allow", 0), ("Forbid", 1), ("Replace", 1)])
def test_overlap_is_the_receivers(policy, count):
    assert (
        sum("concurrencyPolicy" in text for text in only(manifest(concurrencyPolicy=policy)).differs) == count
    )


@pytest.mark.parametrize(
    ("schedule", "when"),
    [
        ("0 9 * * 1-5", "0 9 * * 1-5"), ("5/20 ? ? * ?", "5-59/20 * * * *"), ("0 0 */2 * fri", "0 0 1-31/2 * fri"),
        ("0 0 1 * */2", "0 0 1 * 0-6/2"), ("0 0 */1 * fri", "0 0 * * fri"), ("0 0 */2,15 * 1", "0 0 1-31/2,15 * 1"),
        ("0 0 5,* * 1", "0 0 * * 1"), ("@daily", "@daily"), ("@every 1h30m", "@every 1h30m"), ("@every 1.5h", "@every 1h30m"),
        ("@every 90s500ms", "@every 1m30s"), ("@every 10ms", "@every 1s"), ("0 0 */2 * *", "0 0 */2 * *"),
    ],
)  # fmt: skip
def test_a_rule_is_written_so_that_it_means_the_same(schedule, when):
    assert only(manifest(schedule)).document["when"] == when


@pytest.mark.parametrize(
    "schedule",
    ["0 9 * * 1-5", "5/20 ? ? * ?", "0 0 */2 * fri", "0 0 1 * */2", "0 0 */1 * fri", "0 0 */2,15 * 1", "0 0 5,* * 1", "@daily", "@hourly",
     "0 0 13 * fri", "0 0 * * 1/2", "0 0 */2 * *", "0 0 1/7 * *"],
)  # fmt: skip
def test_a_cronjob_keeps_its_fires(schedule):
    one = item(manifest(schedule, timeZone="America/New_York"), keeps_dst=True)
    assert one.found.why_no_old is None
    assert one.comparison.failure is None
    assert all(fire.is_old and fire.is_ours for fire in one.comparison.next_fires)
    assert one.comparison.later == ()


RULES = st.tuples(
    st.sampled_from(("0", "5/20", "*/30", "?", "7,37")),
    st.sampled_from(("*", "9-17/4", "2", "1/6")),
    st.sampled_from(("*", "?", "*/1", "*/2", "13", "1-7", "5/7", "*/10,31", "5,*")),
    st.sampled_from(("*", "jan-jun", "2/3")),
    st.sampled_from(("*", "?", "*/1", "*/2", "fri", "1-5", "1/2", "0,3", "*/3,6")),
).map(" ".join)


@settings(max_examples=50)
@given(RULES)
def test_whatever_the_rule_a_cronjob_keeps_its_days(rule):
    one = item(manifest(rule))
    assert one.found.why_no_old is None
    assert [
        fire for fire in (*one.comparison.next_fires, *one.comparison.later) if fire.is_old != fire.is_ours
    ] == []


def test_what_the_change_of_the_clock_does_differently_is_shown_and_can_be_kept():
    gone, twice = "2027-03-14T07:00:00Z", "2027-11-07T06:30:00Z"
    for schedule, at, is_ours in (("30 2 * * *", gone, True), ("30 1 * * *", twice, False)):
        text = manifest(schedule, timeZone="America/New_York")
        [fire] = item(text).comparison.later
        assert (fire.at, fire.is_ours) == (parse_rfc3339(at), is_ours)
        assert item(text, keeps_dst=True).comparison.later == ()


def test_every_counts_from_elsewhere():
    one = item(manifest("@every 1h"))
    assert "from the last run" in one.differs[0]
    assert any("not shown" in text for text in one.remarks)


@pytest.mark.parametrize(("prefix", "zone"), [("CRON_TZ", "Asia/Tokyo"), ("TZ", "UTC")])
def test_a_zone_before_the_schedule(prefix, zone):
    found = only(manifest(f"{prefix}={zone} 0 9 * * *"))
    assert (found.document["tz"], found.document["when"]) == (zone, "0 9 * * *")


def test_lists_many_documents_and_other_kinds():
    one = json.loads(manifest())
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": [one, {"kind": "Service"}, one]})
    assert [found.name for found in translate(listed).found] == ["a", "a"]
    assert "Service" in translate(listed).remarks[0].text
    typed = json.dumps(
        {"kind": "CronJobList", "items": [{key: value for key, value in one.items() if key != "kind"}]}
    )
    assert len(translate(typed).found) == 1
    findings = translate(f"{DOCS}---\nkind: Deployment\n---\n\n---\n{DOCS}")
    assert [found.line for found in findings.found] == [1, 25]
    assert [(line, "Deployment" in text) for line, text in findings.remarks] == [(21, True)]


def test_a_list_without_cronjobs_is_empty_and_a_file_without_one_is_wrong():
    assert translate("kind: List\nitems: []\n").found == []
    with pytest.raises(SourceProblem, match="no CronJob"):
        translate("kind: Service\n")


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [("5", 1, "no manifest"), ("a: 1", 1, "no manifest"), ("[]", 1, "no manifest"), (f"{DOCS}---\nname: x", 21, "no manifest"),
     ("kind: List\nitems: [5]", 1, "no list of manifests"), ("kind: CronJob\nspec: [", 3, "not YAML")],
)  # fmt: skip
def test_what_is_no_manifest(text, line, part):
    with pytest.raises(SourceProblem, match=part) as caught:
        translate(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (manifest(metadata={"labels": {}}), "metadata.name"),
        ("kind: CronJob\nmetadata: {name: a}", "spec.schedule"),
        ("kind: CronJob\nmetadata: {name: a}\nspec: {schedule: 5}", "spec.schedule"),
        ("kind: CronJob\nmetadata: {name: a}\nspec: {schedule: '0 9 * * *'}", "containers is missing"),
        (manifest("0 9 * *"), "five fields"),
        (manifest("0 0 9 * * *"), "five fields"),
        (manifest("0 0 L * *"), "Kubernetes itself refuses 'L'"),
        (manifest("0 0 * * 1#2"), "Kubernetes itself refuses '1#2'"),
        (manifest("@every soon"), "no duration"),
        (manifest("@every"), "no duration"),
        (manifest("TZ=UTC 0 9 * * *", timeZone="UTC"), "leave one out"),
        (manifest(timeZone=5), "timeZone must be text"),
        (manifest(startingDeadlineSeconds="x"), "whole number"),
        (
            DOCS.replace(
                "spec:\n  schedule", f"spec:\n  startingDeadlineSeconds: 0x{'f' * 5_000}\n  schedule"
            ),
            "whole number",
        ),
        (manifest(containers=[{"name": "c", "command": "x"}]), "list of texts"),
        (manifest(containers=[{"name": ["x"]}]), "must be text"),
    ],
)
def test_a_bad_cronjob_is_refused_with_the_reason(text, part):
    findings = translate(text)
    assert findings.found == []
    assert part in findings.refusals[0].reason


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (manifest(timeZone="Mars/Base"), "Mars/Base"),
        (manifest("22-2 9 * * *"), "22-59"),
        (manifest("@reboot"), "@reboot"),
    ],
)
def test_what_our_rules_refuse_is_not_importable(text, part):
    result = plan([Placed("f", translate(text))], Choices(), NOW)
    assert result.items == []
    assert part in result.refused[0].refusal.reason
