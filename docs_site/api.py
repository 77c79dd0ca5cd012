"""The reference of the admin socket: its routes as the server has them, what they take as the handlers read it, and the wire types."""

from __future__ import annotations

import ast
import inspect
import json
import re
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final, cast, get_args, get_origin

from cronally import errors
from cronally.admin import requests, wire
from cronally.admin.boundary import Boundary, _status_of
from cronally.admin.changing import Changes
from cronally.admin.paths import SYSTEM_SOCKET, read_only_socket
from cronally.admin.reading import Readings
from cronally.admin.server import AdminServer
from cronally.cli.main import EXIT_CODES
from docs_site.markdown import block, code, outside_code, plain, slug, table
from docs_site.settings import meanings_of_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SECTIONS: Final = ("Headers", "Query", "Body", "Answer")
"""What the docstring of a handler may have after its first paragraph, each with ``name: meaning.`` in it; Answer is a text."""

_HEADERS: Final = {"if_match": ["If-Match"], "idempotency_key": ["Idempotency-Key"]}
_EXAMPLE: Final = errors.ScheduleNotFound("nightly", suggestion="nightly-report")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path of the server, for one method.

    summary: what it does. sections: the others of the docstring, by SECTIONS. read: the names that its handler reads, by section.
    forms: how a parameter is written, where the handler says so.
    """

    method: str
    path: str
    summary: str
    sections: Mapping[str, str]
    read: Mapping[str, list[str]]
    forms: Mapping[str, str]

    @property
    def title(self) -> str:
        """The route as a heading."""
        return f"{self.method} {self.path}"

    def items(self, section: str) -> dict[str, str]:
        """Return what the docstring says of each name in a section."""
        parts = re.split(r"(?:^|(?<=[.;] ))([A-Za-z_-]+): ", self.sections.get(section, ""))
        return dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))


@cache
def routes() -> tuple[Route, ...]:
    """Return the routes, in the order in which the server lists them."""
    nothing = cast("Any", None)  # a server that is never started asks nobody
    server = AdminServer(nothing, nothing, nothing, socket_path="")
    app = server._app(Boundary(server.connections))
    found = []
    for route in app.router.routes():
        if route.method == "HEAD":  # aiohttp adds it to each GET
            continue
        assert route.resource is not None
        found.append(_route(route.method, route.resource.canonical, route.handler))
    return tuple(found)


def types() -> list[type]:
    """Return the dataclasses of ``wire``, in their order there."""
    return [
        one
        for one in vars(wire).values()
        if is_dataclass(one) and isinstance(one, type) and one.__module__ == wire.__name__
    ]


def kinds() -> list[type[errors.CronallyError]]:
    """Return all errors, in their order in ``errors``."""
    return [
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.CronallyError)
    ]


# --- what a handler says and reads ---------------------------------------------------------------------------------


def _route(method: str, path: str, handler: Callable[..., Any]) -> Route:
    text = inspect.getdoc(handler) or ""
    summary, *rest = re.split(rf"^({'|'.join(SECTIONS)}): ", text, flags=re.MULTILINE)
    sections = {name: " ".join(body.split()) for name, body in zip(rest[::2], rest[1::2], strict=True)}
    read: dict[str, list[str]] = {section: [] for section in SECTIONS}
    forms: dict[str, str] = {}
    for called, constants, places in _calls(handler):
        texts = [one for one in constants if isinstance(one, str)]
        if called == "query_of":
            read["Query"] += texts
        elif called == "refuse_unknown":
            read["Body"] += texts
        elif called in _HEADERS:
            read["Headers"] += _HEADERS[called]
        elif called == "get" and texts[:1] == ["If-None-Match"]:
            read["Headers"] += texts
        elif texts and (form := _form(called, constants, places)):
            forms[texts[0]] = form
    return Route(method=method, path=path, summary=summary.strip(), sections=sections, read=read, forms=forms)


def _form(called: str, constants: list[Any], named: Mapping[str, Any]) -> str:
    """Return how a parameter is written that is read by the function *called*."""
    match called:
        case "whole_number":
            return f"{named['least']:,} to {named['most']:,}, by default {named['default']:,}"
        case "flag" | "switch":
            return "`true` or `false`, by default `false`"
        case "most_fires":
            return f"1 to {wire.MAX_BACKFILL:,}"
        case "words":
            return f"of {', '.join(code(str(word)) for word in constants[-1])}; several with commas between"
    return ""


def _calls(handler: Callable[..., Any]) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """Yield the calls in a function, and in those of its class and of ``requests`` that it calls: what is called, and what with.

    Of the arguments only those are there that are known without a request.
    """
    function = inspect.unwrap(getattr(handler, "__func__", handler))
    for node in ast.walk(ast.parse(dedent(inspect.getsource(function)))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "most_fires":
            yield name, ["max"], {}
            continue
        values = [_value(one, function.__globals__) for one in node.args]
        named = {one.arg: _value(one.value, function.__globals__) for one in node.keywords if one.arg}
        yield name, [one for one in values if one is not None], named
        if isinstance(node.func, ast.Attribute):
            is_own = ast.unparse(node.func.value) == "self"
            inner = is_own and (getattr(Changes, name, None) or getattr(Readings, name, None))
        else:
            inner = getattr(requests, name, None)
        if inspect.isfunction(inner) and name not in (
            "query_of",
            "refuse_unknown",
            "whole_number",
            "words",
            "flag",
            "switch",
        ):
            yield from _calls(inner)


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """Return what an argument is, None if that needs a request."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name | ast.Attribute):
        try:
            return eval(ast.unparse(node), names)  # noqa: S307 - a name in our own code
        except (NameError, AttributeError):
            return None
    return None


# --- the pages ------------------------------------------------------------------------------------------------------


def api_page() -> str:
    """Return the page of the routes and the types of their answers."""
    lines = [
        "# HTTP API",
        "",
        (
            "The admin socket speaks HTTP/1.1 and JSON on a Unix socket. All commands but `serve`, `demo`, `restore` and the like use it and nothing else, "
            "and what they print with `--json` is what is described here."
        ),
        *block("curl --unix-socket /run/cronally/cronally.sock http://localhost/v1/status", "bash"),
        *_list(
            [
                "Instants are RFC 3339 in UTC, `2026-12-24T18:00:00Z`; durations are texts such as `90s`.",
                (
                    f"Every answer has the header `{wire.VERSION_HEADER}: {wire.WIRE_VERSION}`. A request that names another version is refused. Within a version "
                    "keys are only ever added: leave out those that you do not know."
                ),
                "A parameter or a key of a body that is not listed is refused, and so is one that is there twice.",
                (
                    "An answer that is no error is 200 unless another status is named. Errors: [Errors and exit codes](errors.md). "
                    "Sizes, numbers of connections and times: [Limits of the admin socket](../limits.md)."
                ),
                "Who may open the socket may do all of this; every change is recorded with the user id that the kernel gives.",
                (
                    f"With [`read_only_group`](settings.md#read_only_group) there is a second socket, `{Path(read_only_socket(SYSTEM_SOCKET)).name}` beside the first, for that group. It has "
                    "the same routes and answers; but takes `GET` and `HEAD` alone: every other method is refused with 403, a `ReadOnly`."
                ),
            ]
        ),
        "## Routes",
        *table(
            ["", ""],
            (
                (f"[`{one.title}`](#{slug(one.title)})", plain(one.summary.partition(". ")[0].rstrip(".")))
                for one in routes()
            ),
        ),
    ]
    for route in routes():
        lines += [f"### `{route.title}`", "", plain(route.summary), ""]
        for section in ("Headers", "Query", "Body"):
            items = route.items(section)
            if items:
                rows = ((code(name), plain(text), route.forms.get(name, "")) for name, text in items.items())
                lines += table(
                    [
                        {"Headers": "header", "Query": "parameter", "Body": "key of the body"}[section],
                        "",
                        "written",
                    ],
                    rows,
                )
            elif section in route.sections:
                lines += ["", f"Body: {_linked(route.sections[section])}", ""]
        lines += ["", f"Answer: {_linked(route.sections.get('Answer', ''))}", ""]
    lines += ["## Types", ""]
    for kind in types():
        lines += _type(kind)
    return "\n".join(lines).replace("the keys of a schedule;", "the [keys of a schedule](schedule.md);")


def errors_page() -> str:
    """Return the page of the errors."""
    lines = [
        "# Errors and exit codes",
        "",
        "A command that fails says in one sentence what is wrong and what to do, on stderr, and ends with one of these:",
        *table(["exit code", ""], ((code(str(number)), plain(text)) for number, text in EXIT_CODES.items())),
        "The admin socket answers with the same, as JSON:",
        *block(_pretty(wire.error_to_plain(_EXAMPLE)), "json"),
        (
            "`kind` is one of those below, `message` a sentence for people, `retryable` whether the same request may succeed later without a change. What else an "
            "error knows stands beside them. What HTTP itself has to refuse (no such path 404, another method 405, a body that does not come 408 or is too large "
            "413, headers 431) is a `UsageError` with that status."
        ),
        *table(
            ["kind", "exit code", "HTTP status", "retryable", ""],
            (
                (
                    code(one.__name__),
                    str(one.exit_code),
                    str(_status_of(one.__new__(one))),
                    "yes" if one.is_retryable else "no",
                    plain(_first(one)),
                )
                for one in kinds()
            ),
        ),
    ]
    return "\n".join(lines)


def _first(kind: type) -> str:
    """Return the first sentence of a docstring."""
    return re.split(r"(?<=\.)\s", inspect.getdoc(kind) or "", maxsplit=1)[0]


def _list(items: list[str]) -> list[str]:
    return ["", *(f"- {item}" for item in items), ""]


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2)


def _type(kind: type) -> list[str]:
    known = {one.name for one in fields(kind)}
    text, meanings = _parted(inspect.getdoc(kind) or "", known)
    if kind is wire.Schedule:
        meanings = meanings_of_keys() | meanings
    rows = (
        (code(one.name), _spelt(str(one.type)), _default(one), _meant(meanings.get(one.name, "")))
        for one in fields(kind)
    )
    return [f"### {kind.__name__}", "", _meant(text), "", *table(["key", "type", "default", ""], rows)]


def _parted(text: str, known: set[str]) -> tuple[str, dict[str, str]]:
    """Return what a docstring says of a type, and of each of its fields: ``name: …`` or ``name, name: …``."""
    names = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    parts = re.split(rf"(?:^|(?<=[.;]\s))((?:{names})(?:,\s(?:{names}))*):\s", " ".join(text.split()))
    meanings = {
        name: meaning.strip().rstrip(";.") + "."
        for together, meaning in zip(parts[1::2], parts[2::2], strict=True)
        for name in together.split(", ")
    }
    return parts[0].strip(), meanings


def _meant(text: str) -> str:
    """Return what a docstring says, in the words of JSON."""
    text = re.sub(r"(?<!`)\*(\w+)\*", r"`\1`", text)
    return plain(re.sub(r"\bNone\b", "null", re.sub(r"\bFalse\b", "false", text)))


def _spelt(type_: str) -> str:
    """Return the type of a field as JSON has it, its own types as links."""
    words = re.sub(r"dict\[.*?\]", "object", type_)
    words = re.sub(r"list\[(\w+)\]", r"list of \1", words)
    words = re.sub(
        r"Literal\[(.*?)\]",
        lambda match: match[1].replace(", ", " | ").replace('"', "").replace("'", ""),
        words,
    )
    alias = getattr(wire, type_, None)
    if alias is not None and get_origin(alias) is not None:
        words = " | ".join(map(str, get_args(alias)))
    spelt = {
        "str": "text",
        "int": "number",
        "float": "number",
        "bool": "true or false",
        "None": "null",
        "False": "false",
    }
    words = re.sub(r"\w+", lambda match: spelt.get(match[0], match[0]), words).replace(" | ", " or ")
    return _linked(words)


def _default(field: Any) -> str:
    if field.default_factory is not MISSING:
        return code({dict: "{}", list: "[]"}[field.default_factory])
    if field.default is MISSING:
        return ""
    return code(_pretty(field.default))


def _linked(text: str) -> str:
    """Return a text in which the names of wire types are links."""
    names = "|".join(one.__name__ for one in types())
    link = re.compile(rf"\b(?<!\.)({names})\b")
    return outside_code(
        plain(text), lambda part: link.sub(lambda match: f"[{match[1]}](#{match[1].lower()})", part)
    )
