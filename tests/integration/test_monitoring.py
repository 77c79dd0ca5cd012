"""deploy/: what the alerts and the dashboard ask for is there, and the alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import thread_time

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from cronally.admin.exposition import CATALOGUE, exposed
from cronally.engine.figures import ClusterFigures, CredentialsState, LeaseFigures, QuotaUse
from cronally.engine.membership import MachineState, Sharing
from cronally.instants import UtcMs
from support.recording_publisher import TOPIC_GONE
from support.rig import TOPIC, running_engine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process uses is told on Linux alone")
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here; .ci/run gets it"
)

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/cronally.rules.yml"
FIXTURES = ROOT / "deploy/prometheus/cronally.rules.test.yml"
DASHBOARD = ROOT / "deploy/grafana/cronally.json"
PAGE = ROOT / "docs/metrics.md"

_LIVING = MachineState("a-1", "a", (0, 1), 0.0, 8_000, 0, UtcMs(0), True, False, False)
CLUSTER = ClusterFigures(
    8_000, Sharing((_LIVING,), 62, (0, 1), 6.5, None), 0.0, 0.3, LeaseFigures(9, 0, {}, 0), 12.5, 40.0
)

_NAME = re.compile(r"\b(?:cronally|process)_[a-z_]+")
_SELECTED = re.compile(r"\{([^{}]*)\}")
_LABEL = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\"")
_SUFFIXES = ("_bucket", "_sum", "_count")
_OF_PROMETHEUS = {"instance", "job"}  # which it adds to what it scrapes


def alerts():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


def expressions():
    yield from ((rule["alert"], rule["expr"]) for rule in alerts())
    for panel in panels():
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))


def documented():
    """Return the rows of the page's table, by metric: kind, labels, meaning."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    return {name: (kind, labels, meaning) for name, kind, labels, meaning in rows}


def promtool(*arguments, given=""):
    """Run it and return what it says of *given*."""
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
async def figures():
    """All there is to tell: a topic that refuses, quotas, credentials that expire."""
    async with running_engine(script=lambda *_: TOPIC_GONE) as rig:
        rig.reporting._quotas = lambda: [QuotaUse("us-east-1", False, 30_000.0, 30_000.0, 10.0, 5, 0)]
        rig.reporting._credentials = lambda: CredentialsState(True, rig.clock.wall())
        rig.reporting._cluster = lambda: CLUSTER
        await rig.add("a", "0 9 * * *")
        await rig.clock.advance(60)
        yield await rig.reporting.figures()


@pytest.fixture
def scraped(figures):
    """The samples of a scrape: label names by sample name."""
    found = {}
    for family in parse(b"".join(exposed(figures, is_openmetrics=False)).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


async def test_the_dashboard_and_the_alerts_ask_for_metrics_and_labels_that_there_are(scraped):
    for where, expression in expressions():
        names = set(_NAME.findall(re.sub(r"\"[^\"]*\"", '""', expression)))
        assert names <= scraped.keys(), where
        labels = {label for part in _SELECTED.findall(expression) for label in _LABEL.findall(part)}
        for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            labels |= {label.strip() for label in grouped.split(",")}
        known = set().union(*(scraped[name] for name in names), _OF_PROMETHEUS) if names else _OF_PROMETHEUS
        assert labels <= known, where


async def test_every_metric_is_in_a_scrape_and_none_that_the_catalogue_does_not_name(scraped):
    own = {name for name in scraped if name.startswith("cronally_")}
    histograms = {name for name, one in CATALOGUE.items() if one.kind == "histogram"}
    expected = (CATALOGUE.keys() - histograms) | {f"{name}{end}" for name in histograms for end in _SUFFIXES}
    assert own == expected
    for name, one in CATALOGUE.items():
        if name not in histograms:
            assert scraped[name] == set(one.labels), name


async def test_with_a_store_in_a_file_there_is_nothing_of_machines(figures):
    text = b"".join(exposed(replace(figures, cluster=None), is_openmetrics=False)).decode()
    shown = {family.name for family in parse(text)}
    own = {family.name for family in parse(b"".join(exposed(figures, is_openmetrics=False)).decode())}
    names = [*CATALOGUE]
    several = {name.removesuffix("_total") for name in names[names.index("cronally_machines") :]}
    assert own - shown == several


async def test_labels_have_few_values_and_name_no_schedule(figures):
    text = b"".join(exposed(figures, is_openmetrics=False)).decode()
    labels = {label for one in CATALOGUE.values() for label in one.labels}
    assert labels == {
        *("version", "python", "tzdata", "state", "reason", "kind", "outcome", "topic", "region", "way"),
        *("driver", "item"),
    }
    assert "cronally_topic_refusing_seconds{topic=" in text
    assert len(text.splitlines()) < 500


async def test_the_most_there_can_be_to_tell_is_told_in_short_steps(figures):
    # Design §4: no step holds the event loop for 10 ms. Nothing of it depends on how many schedules there are.
    some = figures.quotas[0]
    figures = replace(
        figures,
        refusing=tuple(figures.refusing[0]._replace(topic=f"{TOPIC}-{number}") for number in range(20)),
        quotas=tuple(
            some._replace(region=f"us-east-{n}", is_fifo=fifo) for n in range(30) for fifo in (False, True)
        ),
    )
    took_s = []
    for _ in range(5):
        parts = exposed(figures, is_openmetrics=True)
        steps, end = [], thread_time()
        for _part in parts:
            begin, end = end, thread_time()
            steps.append(end - begin)
        took_s.append(max(steps))
    assert min(took_s) < 0.005
    assert len(steps) > len(CATALOGUE)


async def test_every_metric_is_documented_as_the_code_describes_it(scraped):
    table = {
        name: (one.kind, ", ".join(f"`{label}`" for label in one.labels), one.help)
        for name, one in CATALOGUE.items()
    }
    rows = documented()
    process = {name for name in scraped if name.startswith("process_")}
    assert {name: row for name, row in rows.items() if name in table} == table
    assert rows.keys() == table.keys() | process
    assert list(table) == [name for name in rows if name in table]


def test_every_alert_says_what_is_wrong_and_what_to_do_and_has_its_row():
    page = PAGE.read_text()
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description", "action"}, rule["alert"]
        assert all(len(text) > 20 for text in rule["annotations"].values()), rule["alert"]
        assert f"| `{rule['alert']}` | {rule['labels']['severity']} |" in page, rule["alert"]
    assert len(re.findall(r"^\| `Cronally\w+` \|", page, re.MULTILINE)) == len(alerts())


def test_every_alert_is_shown_to_fire_and_not_to_fire():
    shown = {}
    for test in yaml.safe_load(FIXTURES.read_text())["tests"]:
        for one in test["alert_rule_test"]:
            shown.setdefault(one["alertname"], set()).add(bool(one["exp_alerts"]))
    assert shown == {rule["alert"]: {True, False} for rule in alerts()}


@needs_promtool
def test_promtool_finds_the_rules_right_and_the_alerts_fire_as_shown():
    promtool("check", "rules", RULES)
    promtool("test", "rules", FIXTURES)


@needs_promtool
def test_promtool_can_read_what_the_dashboard_asks_for(tmp_path):
    asked = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    rules = [
        {"record": f"asked_{number}", "expr": one.replace("$__rate_interval", "1m")}
        for number, one in enumerate(asked)
    ]
    file = tmp_path / "asked.yml"
    file.write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))
    promtool("check", "rules", file)


@needs_promtool
async def test_promtool_finds_a_scrape_well_formed(figures):
    text = b"".join(exposed(figures, is_openmetrics=False)).decode()
    assert promtool("check", "metrics", given=text) == ""


def test_panels_are_told_apart_and_lie_beside_one_another():
    taken = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + line)
            for column in range(place["w"])
            for line in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in panels()]
    titles = [panel["title"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)
