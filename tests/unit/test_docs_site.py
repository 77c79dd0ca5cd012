"""The site of the documentation: all pages are in its menu, links lead somewhere, and the reference says what the code has."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml

from cronally.admin.limits import MAX_FIRES
from cronally.cli.main import COMMANDS
from cronally.config import MEANINGS, written_in_files
from cronally.domain.spec import DOCUMENT_KEYS
from docs_site import api, commands, reference, settings
from docs_site.markdown import code, plain, slug
from docs_site.places import FOLDERS, links, on_site, pages, target_of, with_links_of_site

ROOT = Path(__file__).resolve().parents[2]
PAGES = list(pages(ROOT))
MADE = reference.pages(ROOT)


def in_menu(entry):
    """Return the pages that an entry of the menu has, with those below it."""
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in in_menu(value)]


def anchors(text):
    """Return the anchors of a page's headings."""
    found = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", found, re.MULTILINE)}


def test_every_page_is_in_the_menu_and_every_entry_is_a_page():
    menu = in_menu(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    folders = tuple(name.rpartition("/")[0] + "/" for name in FOLDERS)
    there_are = {on_site(page) for page in PAGES} | MADE.keys()
    assert len(menu) == len(set(menu))
    assert {page for page in there_are if page not in FOLDERS and not page.startswith(folders)} - set(
        menu
    ) == set()
    assert set(menu) - there_are == set()


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page):
    wrong = []
    for link in links((ROOT / page).read_text()):
        path, anchor = target_of(link, page)
        target = ROOT / path
        if not path:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", MADE)
def test_links_of_a_page_that_is_made_lead_somewhere(page):
    texts = MADE | {on_site(path): (ROOT / path).read_text() for path in PAGES}
    for link in links(MADE[page]):
        path, anchor = target_of(link, page)
        assert path in texts, link
        assert not anchor or anchor in anchors(texts[path]), link


def test_links_are_those_of_the_site():
    text = "[a](docs/topics.md#create) [b](LICENSE) [c](docs/adr) `[d](docs/topics.md)` [e](https://example.com/x.md) [f](#x)"
    assert with_links_of_site(text, "README.md") == (
        "[a](topics.md#create) b [c](adr/README.md) `[d](docs/topics.md)` [e](https://example.com/x.md) [f](#x)"
    )
    assert with_links_of_site("[a](../../README.md) [b](http.md)", "docs/cookbook/email.md") == (
        "[a](../index.md) [b](http.md)"
    )
    assert with_links_of_site("![a](../docs/x.svg)", "benchmarks/README.md") == "![a](x.svg)"


def test_every_command_and_option_has_its_place():
    texts = dict(commands.pages())
    for name in COMMANDS:
        text = texts[commands.place(name)]
        assert text.startswith(f"# cronally {name}\n")
        assert "`--help`" in text
    assert "`--catch-up`" in texts["reference/commands/add.md"]
    assert "[`cronally set`](set.md)" in texts["reference/commands/add.md"]


def test_every_setting_and_every_key_of_a_schedule_is_there():
    text = settings.settings_page()
    for key in MEANINGS:
        assert f"\n## `{written_in_files(key)}`\n" in text
        [default] = re.findall(rf"^\|.*\| `CRONALLY_{key.upper()}` \|.*\| (.+) \|$", text, re.MULTILINE)
        assert default != "–", f"{key}: end its meaning with [default: …]"
    rows = re.findall(r"^\| `(\w+)` \|", settings.schedule_page(), re.MULTILINE)
    assert rows == list(DOCUMENT_KEYS)


@pytest.mark.parametrize("route", api.routes(), ids=lambda route: route.title)
def test_the_docstring_of_a_handler_says_what_it_takes(route):
    help_ = "give its handler a docstring with Headers:, Query:, Body: and Answer:, as the others in admin/reading.py and changing.py have"
    assert route.summary, help_
    assert route.sections.get("Answer"), help_
    for section in ("Headers", "Query", "Body"):
        assert set(route.items(section)) >= set(route.read[section]), f"{section}: {help_}"
        free = section == "Body" and not route.read["Body"]  # a document, or lines of them
        assert free or set(route.items(section)) == set(route.read[section]), (
            f"{section}: it reads nothing else"
        )
    assert f"\n### `{route.title}`\n" in MADE["reference/api.md"]


def test_the_socket_for_reading_alone_is_told_of():
    assert "`cronally-ro.sock` beside the first" in MADE["reference/api.md"]
    assert "settings.md#read_only_group" in MADE["reference/api.md"]


def test_what_a_parameter_may_be_is_read_in_the_handler():
    by_title = {route.title: route.forms for route in api.routes()}
    assert by_title["GET /v1/schedules/{name}"] == {"fires": f"0 to {MAX_FIRES:,}, by default 3"}
    assert by_title["GET /v1/fires"]["state"].startswith("of `published`, `pending`")
    assert by_title["POST /v1/backup"] == {"force": "`true` or `false`, by default `false`"}


@pytest.mark.parametrize("kind", api.types(), ids=lambda kind: kind.__name__)
def test_every_type_of_an_answer_is_there_with_all_its_keys(kind):
    assert inspect.getdoc(kind)
    text = MADE["reference/api.md"]
    [section] = re.findall(rf"^### {kind.__name__}$(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(kind.__dataclass_fields__)


def test_every_error_is_there():
    found = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", MADE["reference/errors.md"], re.MULTILINE)
    assert [name for name, *_ in found] == [kind.__name__ for kind in api.kinds()]
    assert ("ScheduleNotFound", "4", "404") in found
    assert ("RevisionConflict", "5", "412") in found


def test_text_that_is_no_markdown_is_shown_as_it_is():
    assert plain("a  *b*_c_ <d>\n`*e*`") == r"a \*b\*\_c\_ &lt;d&gt; `*e*`"
    assert code("a`b") == "`` a`b ``"
    assert slug("7. Keep them in git, and `deploy`") == "7-keep-them-in-git-and-deploy"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[`cronally.json`](../deploy/grafana/cronally.json)", "`cronally.json`"),
        (
            "[`_receiver.py`](../benchmarks/_receiver.py) and [log](log.md)",
            "`_receiver.py` and [log](log.md)",
        ),
        ("[`log.md`](log.md)", "[`log.md`](log.md)"),
        ("`[log](../deploy/x)` stays", "`[log](../deploy/x)` stays"),
        ("```\n[log](../deploy/x)\n```", "```\n[log](../deploy/x)\n```"),
    ],
)
def test_a_link_may_have_code_in_it_and_code_has_no_link_in_it(written, shown):
    assert with_links_of_site(written, "docs/metrics.md") == shown
