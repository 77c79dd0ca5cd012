import json
import re

import pytest

from cronally.cli.files import MAX_SCHEDULES, Contents, format_of, read_json, read_yaml

YAML = b"""\
# comment
schedules:
  a: {when: "0 9 * * *", topic: t}

  b:
    when: "@daily"
    topic: t
    starts: 2026-12-24T18:00:00Z
    priority: 7
    tags: [x, y]
    attributes: {n: 5, k: v}
    paused: {until: 2026-12-25, note: hm}
"""


def places(contents):
    return [(problem.line, problem.name) for problem in contents.problems]


def reason(contents):
    assert len(contents.problems) == 1, contents.problems
    assert contents.schedules == [] or contents.problems
    return contents.problems[0].reason


@pytest.mark.parametrize(
    ("path", "head", "expected"),
    [
        ("x.yaml", b"{", "yaml"),
        ("x.YML", b"{", "yaml"),
        ("x.json", b"a:", "json"),
        ("x.jsonl", b"a:", "lines"),
        ("x.ndjson", b"", "lines"),
        ("-", b"schedules:\n", "yaml"),
        ("-", b"", "yaml"),
        ("-", b'\n {\n"schedules": {}}', "json"),
        ("-", b'{"schedules": {}}', "json"),
        ("-", b'\xef\xbb\xbf{"schedules": {}}\n', "json"),
        ("-", b"{}", "json"),
        ("-", b'{"name": "a"}\n{"name": "b"}', "lines"),
        ("-", b'{"when": "x"}\n', "lines"),
        ("-", b'{"name": tru', "json"),
        ("-", b"[" * 5, "yaml"),
        ("x", b'{"a":' + b"[" * 100_000, "json"),
    ],
)
def test_format(path, head, expected):
    assert format_of(path, head) == expected


def test_yaml_schedules_keep_their_lines_and_instants_stay_text():
    contents = read_yaml(YAML)
    assert contents.problems == []
    assert [(s.line, s.name) for s in contents.schedules] == [(3, "a"), (5, "b")]
    assert contents.schedules[1].document == {
        "when": "@daily",
        "topic": "t",
        "starts": "2026-12-24T18:00:00Z",
        "priority": 7,
        "tags": ["x", "y"],
        "attributes": {"n": 5, "k": "v"},
        "paused": {"until": "2026-12-25", "note": "hm"},
    }


def test_yaml_merge_keys_and_aliases():
    contents = read_yaml(b"schedules:\n  a: &a {when: w, topic: t}\n  b: {<<: *a, when: x}\n  c: *a\n")
    assert contents.problems == []
    assert [s.document for s in contents.schedules] == [
        {"when": "w", "topic": "t"},
        {"when": "x", "topic": "t"},
        {"when": "w", "topic": "t"},
    ]


def test_json_schedules_keep_their_lines():
    text = json.dumps({"schedules": {"a": {"when": "w"}, "b": {"when": "é", "tags": ["x"]}}}, indent=1)
    contents = read_json(text.encode())
    assert contents.problems == []
    assert [(s.line, s.name) for s in contents.schedules] == [(3, "a"), (6, "b")]
    assert contents.schedules[1].document == {"when": "é", "tags": ["x"]}


@pytest.mark.parametrize(
    "data",
    [
        b'{"schedules": {}}',
        b' \n{ "schedules" : { } }\n',
        b'\xef\xbb\xbf{"schedules":{}}',
        b'{"schedules": null}',
    ],
)
def test_json_without_schedules(data):
    assert read_json(data) == ([], [])


@pytest.mark.parametrize("data", [b"schedules: {}", b"schedules:\n", b"schedules: ~"])
def test_yaml_without_schedules(data):
    assert read_yaml(data) == ([], [])


def test_lines_are_json_with_the_name_first():
    contents = read_yaml("schedules: {a: {when: é}, b: {when: y}}".encode())
    assert list(contents.lines()) == [
        '{"name": "a", "when": "é"}\n'.encode(),
        b'{"name": "b", "when": "y"}\n',
    ]


def test_half_a_surrogate_pair_reaches_the_daemon_escaped():
    contents = read_json(b'{"schedules": {"a": {"message": "\\ud800"}}}')
    assert list(contents.lines()) == [b'{"name": "a", "message": "\\ud800"}\n']


@pytest.mark.parametrize(
    ("data", "line", "name", "part"),
    [
        (b"", 1, None, "empty"),
        (b"# nothing\n", 1, None, "empty"),
        (b"- a\n", 1, None, "must hold a mapping"),
        (b"text", 1, None, "must hold a mapping"),
        (b"{}", 1, None, "'schedules' is missing"),
        (b"schedules: [1]\n", 1, None, "must hold a mapping"),
        (b"\nschedule: {}\n", 2, None, "did you mean 'schedules'"),
        (b"schedules: {}\nversion: 1\n", 2, None, "at the top there is only"),
        (b"schedules: {}\nschedules: {}\n", 2, None, "twice"),
        (b"schedules:\n  a: {when: x}\n  b: {}\n  a: {}\n", 4, "a", "line 2 has"),
        (b"schedules:\n  a:\n    when: x\n    when: y\n", 4, "a", "'when' is there twice"),
        (b"schedules:\n  a: {attributes: {k: 1, k: 2}}\n", 2, "a", "'k' is there twice"),
        (b"schedules:\n  12: {when: x}\n", 2, None, "put it in quotes"),
        (b"schedules:\n  on: {when: x}\n", 2, None, "put it in quotes"),
        (b"schedules:\n  a: text\n", 2, "a", "must be a mapping"),
        (b"schedules:\n  a:\n", 2, "a", "must be a mapping"),
        (b"schedules:\n  a: {message: 5}\n", 2, "a", "message: must be text.*number; put it in quotes"),
        (b"schedules:\n  a: {message: yes}\n", 2, "a", "true or false; put it in quotes"),
        (b"schedules:\n  a: {message: 12:30}\n", 2, "a", "put it in quotes"),
        (b"schedules:\n  a: {message: {k: v}}\n", 2, "a", 'in quotes, such as message: \'{"k": "v"}\''),
        (b"schedules:\n  a: {deadline: 90}\n", 2, "a", "90s, 5m"),
        (b"schedules:\n  a: {name: a}\n", 2, "a", "name: the name stands before"),
        (b"schedules:\n  a: {1: a}\n", 2, "a", "key '1' must be text"),
        (b"schedules:\n  a: {tags: [[[1]]]}\n", 2, "a", "tags: this cannot be a value"),
        (b"schedules:\n  a: {priority: .nan}\n", 2, "a", "priority: this cannot be a value"),
        (b"schedules:\n  a: {tags: !!set {x}}\n", 2, "a", "tags: this cannot be a value"),
        (b"schedules:\n  a: &a {tags: [*a]}\n", 2, None, "recursive"),
        (b"schedules:\n  a: {tags: !!python/none x}\n", 2, None, "not YAML.*constructor"),
        (b"schedules:\n  a: {? [x] : y}\n", 2, None, "not YAML"),
        (b"schedules:\n  a: *nothing\n", 2, None, "not YAML.*alias"),
        (b"schedules:\n\ta: {}\n", 2, None, "not YAML"),
        (b"schedules: {\n", 2, None, "not YAML"),
        (b"schedules: {}\n---\nschedules: {}\n", 2, None, "not YAML"),
        (b"a\xff", 1, None, "not YAML"),
        (b"schedules:\n  a: " + b"[" * 100_000, 2, None, "nested too deeply"),
        (
            b"schedules:\n" + b"".join(b" " * n + b"a:\n" for n in range(1, 300)),
            101,
            None,
            "nested too deeply",
        ),
        (b"schedules:\n  a: {when: \x01}\n", 2, None, "not YAML"),
    ],
)
def test_yaml_problems_have_a_place(data, line, name, part):
    contents = read_yaml(data)
    assert places(contents) == [(line, name)]
    assert re.search(part, reason(contents)), reason(contents)


@pytest.mark.parametrize(
    ("data", "line", "name", "part"),
    [
        (b"", 1, None, "empty"),
        (b"[]", 1, None, "must hold a mapping"),
        (b"{}", 1, None, "'schedules' is missing"),
        (b'\n{"schedules": []}', 2, None, "must hold a mapping"),
        (b'{"schedules": 5}', 1, None, "must hold a mapping"),
        (b'{"x": 1,\n"schedules": {"a": {}}}', 1, None, "at the top"),
        (b'{"schedules": {},\n"x": 1}', 2, None, "at the top"),
        (b'{"schedules": {},\n"schedules": {}}', 2, None, "twice"),
        (b'{"schedules": {"a": {},\n"a": {}}}', 2, "a", "line 1 has"),
        (b'{"schedules": {\n"a": {"when": 1, "when": 2}}}', 2, "a", "twice"),
        (b'{"schedules": {\n"a": {"priority": NaN}}}', 2, "a", "no JSON number"),
        (b'{"schedules": {\n"a": {"message": {}}}}', 2, "a", "put it in quotes"),
        (b'{"schedules": {\n"a": []}}', 2, "a", "must be a mapping"),
        (b'{"schedules": {\n"a": {"x": }}}', 2, None, "not JSON"),
        (b'{"schedules": {\n"a": {}', 2, None, "',' or '}' is missing at column 8"),
        (b'{"schedules": {"a": {},}}', 1, None, "a key in double quotes"),
        (b'{"schedules": {a: {}}}', 1, None, "a key in double quotes"),
        (b'{"schedules" {}}', 1, None, "':' is missing"),
        (b'{"schedules": {}} x', 1, None, "more after the end"),
        (b'{"schedules": {}}\n{}', 2, None, "more after the end"),
        (b'{"sch', 1, None, "not JSON"),
        (b'{\n"schedules": {"\xff": {}}}', 2, None, "not UTF-8"),
        (b'{"schedules": {"a": ' + b"[" * 100_000, 1, None, "nested too deeply"),
    ],
)
def test_json_problems_have_a_place(data, line, name, part):
    contents = read_json(data)
    assert places(contents) == [(line, name)]
    assert part in reason(contents)


@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_more_than_10_000_schedules_are_pointed_to_json_lines(read):
    def file(count):
        return json.dumps({"schedules": {f"s{number}": {} for number in range(count)}}).encode()

    contents = read(file(MAX_SCHEDULES + 5))
    assert len(contents.problems) == 1
    assert "JSON Lines" in contents.problems[0].reason
    if read is read_json:
        assert read(file(MAX_SCHEDULES)).problems == []


def test_every_problem_is_found_not_only_the_first():
    contents = read_yaml(b"schedules:\n  a: x\n  b: {message: 1}\n  c: {when: w}\n  d: y\n")
    assert places(contents) == [(2, "a"), (3, "b"), (5, "d")]


def test_a_name_from_json_is_text_by_nature():
    contents = Contents([], [])
    contents.add(1, 5, {})
    assert "must be text" in contents.problems[0].reason
