"""Files of schedules: YAML and JSON become JSON Lines, which are what the daemon reads.

    schedules:
      nightly-report: {when: "0 9 * * mon-fri", topic: "arn:aws:sns:…"}

Each schedule keeps the line it stands on, so that a problem can be shown at its place. What a schedule may say is the
daemon's to judge; here only what would not survive the way is refused.
"""

from __future__ import annotations

import json
import math
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from cronally.cli.yaml_reading import problem_of, safe_loader, too_deep_line
from cronally.domain.documents import load_json, read_string

if TYPE_CHECKING:
    from collections.abc import Iterator

Format = Literal["yaml", "json", "lines"]

MAX_SCHEDULES: Final = 10_000  # design §10; more go as JSON Lines, which are never held in memory as a whole
_EXTENSIONS: Final[dict[str, Format]] = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".jsonl": "lines",
    ".ndjson": "lines",
}
_DURATIONS: Final = ("deadline", "late_after", "spread")
_TEXTS: Final = (
    *("when", "tz", "dialect", "topic", "message", "message_structure", "subject", "group", "catch_up"),
    *("on_gap", "on_repeat", "starts", "ends", "note", *_DURATIONS),
)
_BOM: Final = b"\xef\xbb\xbf"
_BLANKS: Final = " \t\r\n"


class FileProblem(NamedTuple):
    """What is wrong, and where. line: 1-based. name: of the schedule, if it is about one."""

    line: int
    name: str | None
    reason: str


class FileSchedule(NamedTuple):
    """A schedule as its file states it."""

    line: int
    name: str
    document: dict[str, Any]


class Contents(NamedTuple):
    """What a file holds. With problems, nothing of it is to be applied."""

    schedules: list[FileSchedule]
    problems: list[FileProblem]

    def add(self, line: int, name: object, document: object) -> None:
        """Take a schedule in, or what is wrong with it."""
        reason = _defect(name, document)
        if reason is not None:
            self.problems.append(FileProblem(line, name if isinstance(name, str) else None, reason))
        elif isinstance(name, str) and isinstance(document, dict):
            self.schedules.append(FileSchedule(line, name, document))

    def lines(self) -> Iterator[bytes]:
        """Yield one JSON line per schedule, in order."""
        for _, name, document in self.schedules:
            line = {"name": name, **document}
            try:
                yield json.dumps(line, ensure_ascii=False).encode() + b"\n"
            except UnicodeEncodeError:  # half of a surrogate pair: escaped, it reaches the one who refuses it
                yield json.dumps(line).encode() + b"\n"


def format_of(path: str, head: bytes) -> Format:
    """Return how a file is written: by its extension, else by how it begins."""
    for extension, known in _EXTENSIONS.items():
        if path.lower().endswith(extension):
            return known
    text = head.removeprefix(_BOM).lstrip()
    if not text.startswith(b"{"):
        return "yaml"
    try:
        first = json.loads(text.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return "json"
    return "json" if "schedules" in first or not first else "lines"


def read_yaml(data: bytes) -> Contents:
    """Read a YAML file of schedules. Text that is not quoted and looks like an instant stays text."""
    import yaml

    contents = Contents([], [])
    loader = _yaml_loader()(data)
    try:
        too_deep = too_deep_line(data)
        if too_deep is not None:
            contents.problems.append(FileProblem(too_deep, None, "this is nested too deeply"))
            return contents
        root = loader.get_single_node()
        if root is None:
            contents.problems.append(FileProblem(1, None, "the file is empty; it needs a key 'schedules'"))
            return contents
        _read_yaml_root(loader, root, contents)
    except yaml.YAMLError as exc:
        line, reason = problem_of(exc, data)
        contents.problems.append(FileProblem(line, None, reason))
    except RecursionError:
        contents.problems.append(FileProblem(1, None, "this is nested too deeply"))
    finally:
        loader.dispose()
    return contents


def _yaml_loader() -> Any:
    base: Any = safe_loader()

    class Loader(base):  # type: ignore[misc]
        """Leaves instants as they are written: the daemon reads them, and quotes them in what it says."""

    Loader.add_constructor("tag:yaml.org,2002:timestamp", Loader.construct_yaml_str)
    return Loader


def _read_yaml_root(loader: Any, root: Any, contents: Contents) -> None:
    import yaml

    if not isinstance(root, yaml.MappingNode):
        contents.problems.append(FileProblem(root.start_mark.line + 1, None, _WRONG_SHAPE))
        return
    if not _check_root(contents, [(key.start_mark.line + 1, str(key.value)) for key, _ in root.value]):
        return
    node = root.value[0][1]
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return
    if not isinstance(node, yaml.MappingNode):
        contents.problems.append(FileProblem(node.start_mark.line + 1, None, _WRONG_SHAPE))
        return
    first_lines: dict[object, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not _check_next(contents, first_lines, line, key.value):
            continue
        if key.tag != "tag:yaml.org,2002:str":
            reason = f"a schedule's name must be text, and YAML reads {str(key.value)[:50]!r} as something else; put it in quotes"
            contents.problems.append(FileProblem(line, None, reason))
            continue
        twice = _twice(value, set())
        if twice is not None:
            contents.problems.append(
                FileProblem(twice.start_mark.line + 1, key.value, _is_twice(twice.value))
            )
            continue
        try:
            document = loader.construct_object(value, deep=True)
        except ValueError as exc:
            contents.problems.append(FileProblem(line, key.value, f"{exc}; put the text in quotes"))
            continue
        contents.add(line, key.value, document)


def _twice(node: Any, seen: set[int]) -> Any:
    """Return the key node that repeats one of its mapping, anywhere in *node*, or None."""
    import yaml

    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return None
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return next((found for item in node.value if (found := _twice(item, seen)) is not None), None)
    keys: set[object] = set()
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in keys:
                return key
            keys.add(key.value)
        found = _twice(value, seen)
        if found is not None:
            return found
    return None


def read_json(data: bytes) -> Contents:
    """Read a JSON file of schedules."""
    contents = Contents([], [])
    try:
        text = data.removeprefix(_BOM).decode()
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        contents.problems.append(FileProblem(line, None, "this is not UTF-8"))
        return contents
    try:
        _JsonFile(text, contents).read()
    except json.JSONDecodeError as exc:
        contents.problems.append(
            FileProblem(exc.lineno, None, f"this is not JSON: {exc.msg} at column {exc.colno}")
        )
    except RecursionError:
        contents.problems.append(FileProblem(1, None, "this is nested too deeply"))
    return contents


class _JsonFile:
    """Walks the two outer mappings itself, because json tells no positions of values that are right."""

    def __init__(self, text: str, contents: Contents) -> None:
        self._text = text
        self._contents = contents
        self._at = 0
        self._counted = (0, 1)  # up to here, so many lines
        self._decoder = json.JSONDecoder()

    def read(self) -> None:
        if not self._text.strip():
            self._contents.problems.append(
                FileProblem(1, None, "the file is empty; it needs a key 'schedules'")
            )
            return
        if self._peek() != "{":
            self._contents.problems.append(FileProblem(self._line(), None, _WRONG_SHAPE))
            return
        keys: list[tuple[int, str]] = []
        for line, key in self._members():
            is_first = all(earlier != "schedules" for _, earlier in keys)
            keys.append((line, key))
            if key == "schedules" and is_first and self._peek() == "{":
                self._read_schedules()
                continue
            start, value = self._line(), self._skip_value()
            if key == "schedules" and is_first and value is not None:
                self._contents.problems.append(FileProblem(start, None, _WRONG_SHAPE))
        if self._peek():
            raise json.JSONDecodeError("there is more after the end", self._text, self._at)
        _check_root(self._contents, keys)

    def _read_schedules(self) -> None:
        first_lines: dict[object, int] = {}
        for line, name in self._members():
            self._peek()
            start = self._at
            self._skip_value()
            if not _check_next(self._contents, first_lines, line, name):
                continue
            try:
                document = load_json(self._text[start : self._at].encode("utf-8", "surrogatepass"))
            except ValueError as exc:
                self._contents.problems.append(FileProblem(line, name, str(exc)))
                continue
            self._contents.add(line, name, document)

    def _members(self) -> Iterator[tuple[int, str]]:
        """Yield line and key of each member of the object at hand; the caller reads the value before the next."""
        self._take("{", "'{'")
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                raise json.JSONDecodeError("a key in double quotes is missing", self._text, self._at)
            line = self._line()
            key, self._at = read_string(self._text, self._at + 1)
            self._take(":", "':'")
            yield line, key
            if self._peek() == "}":
                self._at += 1
                return
            self._take(",", "',' or '}'")

    def _skip_value(self) -> Any:
        self._peek()
        value, self._at = self._decoder.raw_decode(self._text, self._at)
        return value

    def _peek(self) -> str:
        while self._text[self._at : self._at + 1] and self._text[self._at] in _BLANKS:
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _take(self, character: str, wanted: str) -> None:
        if self._peek() != character:
            raise json.JSONDecodeError(f"{wanted} is missing", self._text, self._at)
        self._at += 1

    def _line(self) -> int:
        self._peek()
        place, line = self._counted
        self._counted = self._at, line + self._text.count("\n", place, self._at)
        return self._counted[1]


# --- what is wrong ----------------------------------------------------------------------------------------------

_WRONG_SHAPE: Final = "the file must hold a mapping: schedules: {NAME: {when: …, topic: …}, …}"


def _check_root(contents: Contents, keys: list[tuple[int, str]]) -> bool:
    """Refuse every key but one ``schedules``; return whether all is well."""
    before = len(contents.problems)
    for number, (line, key) in enumerate(keys):
        if key == "schedules" and any(earlier == key for _, earlier in keys[:number]):
            contents.problems.append(FileProblem(line, None, _is_twice(key)))
        elif key != "schedules":
            near = get_close_matches(key, ("schedules",), n=1)
            fix = "did you mean 'schedules'?" if near else "at the top there is only 'schedules'"
            contents.problems.append(FileProblem(line, None, f"no such key: {key[:50]!r}; {fix}"))
    if not keys:
        contents.problems.append(FileProblem(1, None, "the key 'schedules' is missing"))
    return len(contents.problems) == before


def _check_next(contents: Contents, first_lines: dict[object, int], line: int, name: object) -> bool:
    """Refuse a name that was there before, and the one schedule too many; return whether to go on with it."""
    if name in first_lines:
        reason = f"line {first_lines[name]} has a schedule of the same name; leave one out"
        contents.problems.append(FileProblem(line, str(name)[:100], reason))
        return False
    first_lines[name] = line
    if len(first_lines) == MAX_SCHEDULES + 1:
        reason = (
            f"there are more than {MAX_SCHEDULES:,} schedules; write them as JSON Lines (a .jsonl file, one schedule with "
            "its name per line), which takes any number"
        )
        contents.problems.append(FileProblem(line, None, reason))
    return len(first_lines) <= MAX_SCHEDULES


def _is_twice(key: object) -> str:
    return f"the key {str(key)[:100]!r} is there twice; leave one out"


def _defect(name: object, document: object) -> str | None:
    """Say what keeps a schedule from being written as a JSON line, or text from being text."""
    if not isinstance(name, str):
        return "a schedule's name must be text; put it in quotes"
    if not isinstance(document, dict):
        return "must be a mapping such as {when: '0 9 * * *', topic: 'arn:aws:sns:…'}"
    for key, value in document.items():
        if not isinstance(key, str):
            return f"the key {str(key)[:50]!r} must be text; put it in quotes"
        if key == "name":
            return "name: the name stands before the schedule; leave it out inside"
        if not _is_plain(value, depth=2):
            return f"{key[:100]}: this cannot be a value; write text, a number, true or false, or a short list or mapping"
        if key in _TEXTS and value is not None and not isinstance(value, str):
            return _not_text(key, value)
    return None


def _is_plain(value: object, *, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(
            isinstance(key, str) and _is_plain(item, depth=depth - 1) for key, item in value.items()
        )
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(item, depth=depth - 1) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)


def _not_text(key: str, value: object) -> str:
    if isinstance(value, dict | list):
        return f"{key}: must be text; put it in quotes, such as {key}: '{json.dumps(value)[:60]}'"
    if key in _DURATIONS and not isinstance(value, bool):
        return f"{key}: must be a duration with its unit, such as 90s, 5m, 1h30m or 2d"
    kind = "true or false" if isinstance(value, bool) else "a number"
    return f"{key}: must be text, and this is read as {kind}; put it in quotes"
