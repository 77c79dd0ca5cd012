"""The reference of the settings and of a schedule's keys."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, Final

import typer

from cronally.admin import wire
from cronally.cli.main import command
from cronally.cli.manual import meaning
from cronally.config import MEANINGS, load_config, written_in_files
from cronally.domain.spec import DOCUMENT_KEYS
from cronally.errors import ConfigError
from docs_site.markdown import block, code, plain, slug, table

_ENVIRON: Final = {"HOME": "/home/ann"}  # so that defaults do not depend on who makes the site
_WRONG: Final = "?"  # no setting takes it, but for paths
# Options that are spelt otherwise than the keys they set.
_KEYS: Final = {"attribute": "attributes", "tag": "tags"}


def settings_page() -> str:
    """Return the page of the daemon's settings."""
    flags = {one.name: max(one.opts, key=len) for one in _params("serve")}
    lines = [
        "# Settings",
        "",
        (
            "A flag of `serve` goes before a variable, that before the file that `--config` or "
            "`CRONALLY_CONFIG` names, and that before the default. A key that is not here is refused, with the nearest one that is."
        ),
        "",
        *table(
            ["in a file", "variable", "flag", "default"],
            (
                (
                    f"[`{written_in_files(key)}`](#{slug(written_in_files(key))})",
                    code(_variable(key)),
                    code(flags[key]) if key in flags else "–",
                    plain(_without_default(text)[1] or "–"),
                )
                for key, text in MEANINGS.items()
            ),
        ),
    ]
    for key, text in MEANINGS.items():
        refused = _refusal(key)
        lines += [f"## `{written_in_files(key)}`", "", plain(_without_default(text)[0]), ""]
        if refused is not None:
            lines += [f"`{_variable(key)}={_WRONG}` is refused:", *block(refused)]
    return "\n".join(lines)


def _variable(key: str) -> str:
    return f"CRONALLY_{key.upper()}"


def _refusal(key: str) -> str | None:
    """Return what is said of a wrong value, which has the right form in it; None of a setting that takes any text."""
    try:
        load_config({**_ENVIRON, _variable(key): _WRONG}, {})
    except ConfigError as exc:
        return str(exc)
    return None


def schedule_page() -> str:
    """Return the page of the keys of a schedule: of a file for apply, and of the body of a PUT."""
    said = meanings_of_keys()
    options = {
        _KEYS.get(one.name, one.name): max(one.opts, key=len)
        for one in _params("add")
        if one.param_type_name == "option"
    }
    defaults = {one.name: _default(one) for one in fields(wire.Schedule)}
    rows = []
    for key in DOCUMENT_KEYS:
        text, default = _without_default(said[key])
        rows.append(
            (
                f"`{key}`",
                code(options[key]) if key in options else "–",
                plain(default or defaults[key]),
                plain(text),
            )
        )
    return "\n".join(
        [
            "# Keys of a schedule",
            "",
            (
                "A file for [`cronally apply`](commands/apply.md) and the body of a [PUT](api.md) have these keys; `when` and `topic` must be there, and "
                "a key that is not here is refused. Durations are written as `90s`, `2h`, `1d`, instants as `2026-12-24T18:00:00Z`. What can be "
                "written for `when` is in [When a rule fires](../semantics.md)."
            ),
            *table(["key", "option of `add`", "default", ""], rows),
        ]
    )


def meanings_of_keys() -> dict[str, str]:
    """Return what the help of ``add`` says of each key of a schedule."""
    asked = command("add")
    ctx = typer.Context(asked, info_name="add", **asked.context_settings)
    return {_KEYS.get(one.name, one.name): meaning(one, ctx) for one in asked.get_params(ctx)}


def _params(name: str) -> list[Any]:
    asked = command(name)
    return list(asked.get_params(typer.Context(asked, info_name=name, **asked.context_settings)))


def _without_default(text: str) -> tuple[str, str]:
    """Return what is said of an option or setting, and its default, which may be the empty text."""
    found = re.search(r" *\[default: (.*?)\]", text)
    return (text, "") if found is None else (text.replace(found[0], ""), found[1])


def _default(field: Any) -> str:
    """Return the default of a key of an answer, a dash if it has none."""
    if field.default is None or not isinstance(field.default, str | int):
        return "–"
    return str(field.default).lower()
