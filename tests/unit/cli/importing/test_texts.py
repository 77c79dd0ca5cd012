import json

import pytest

from cronally.cli.importing.found import SourceProblem, decoded
from cronally.cli.importing.json_texts import read_values
from cronally.cli.importing.yaml_texts import read_documents
from cronally.cli.yaml_reading import MAX_DEPTH

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 3)}]\n  z{i}: {i}\n" for i in range(1, 60)
)


@pytest.mark.parametrize(
    ("data", "line", "part"),
    [(b"", 1, "nothing"), (b" \n\t", 1, "nothing"), (b"a\nb\x00", 2, "NUL"), (b"a\n\nb\xe9c", 3, "UTF-8")],
)
def test_what_is_no_text_is_refused_at_its_line(data, line, part):
    with pytest.raises(SourceProblem, match=part) as caught:
        decoded(data)
    assert caught.value.line == line


def test_a_byte_order_mark_is_left_out():
    assert decoded(b"\xef\xbb\xbf\xc3\xa9") == "é"


def test_yaml_mappings_know_their_line_and_instants_stay_text():
    (first, one), (second, two) = read_documents("a: 2026-01-01\nb:\n  - c: 1\n---\n---\n\nd: {e: f}\n")
    assert (first, second) == (1, 7)
    assert one == {"a": "2026-01-01", "b": [{"c": 1}]}
    assert (one["b"][0].line, two["d"].line) == (3, 7)


def test_yaml_merge_keys_give_way_to_own_keys():
    [(_, value)] = read_documents(
        "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {y: 4, <<: [{y: 5, z: 6}, *a]}\n"
    )
    assert value["b"] == {"x": 1, "y": 3}
    assert value["c"] == {"x": 1, "y": 4, "z": 6}


@pytest.mark.parametrize("text", [LAUGHS, MERGES], ids=["aliases", "merges"])
def test_what_multiplies_itself_is_read_once(text):
    assert len(read_documents(text)) == 1


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: [1\n", 2, "not YAML"),
        ("a: 1\nb: !Ref x\n", 2, "!Ref"),
        ("a: 1\nb: \x01\n", 2, "not YAML"),
        ("a: &a [*a]\n", 1, "alias"),
        ("x: 1\ny: {{ .Values.y }}\n", 2, "template"),
        ("a: 1\nb: 2\na: 3\n", 3, "twice"),
        ("a: 1\n<<: 5\n", 2, "mappings only"),
        ("a: *nothing\n", 1, "not YAML"),
        ("x: 1\na: " + "[" * (MAX_DEPTH + 1), 2, "deeply"),
        ("- " * 100_000, 1, "deeply"),  # libyaml's own reader ends the process at this
    ],
)
def test_bad_yaml_is_refused_at_its_line(text, line, part):
    with pytest.raises(SourceProblem, match=part) as caught:
        read_documents(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    "text",
    ['{"a": {"b": 1}}\n{"a": 2}', '{"a": {"b": 1}}{"a": 2}', ' {"a":\n {"b": 1}}\n\n{"a": 2}\n'],
    ids=["lines", "joined", "spread"],
)
def test_json_documents_may_follow_one_another(text):
    (_, one), (_, two) = read_values(text)
    assert (one, two) == ({"a": {"b": 1}}, {"a": 2})


def test_json_objects_know_their_line():
    [(line, value)] = read_values('\n[\n {"a": "x\\ny"},\n {"b": [{"c": 1}]}\n]')
    assert line == 2
    assert [item.line for item in value] == [3, 4]
    assert value[1]["b"][0].line == 4


def test_json_is_read_as_json_reads_it():
    value = {"text": 'é\n"\\ud83d 😀', "n": [1, -2.5, 1e9, True, False, None], "o": {"": {}}}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert read_values(text)[0][1] == value


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [('{"a": 1,\n', 2, "cut short"), ('{"a":\n nope}', 2, "not JSON"), ('{}\n{"a" 1}', 2, "not JSON"), ("[" * 100_000, 1, "deeply"),
     ("\n" + "1" * 5_000, 2, "not JSON"), ("kind: CronJob", 1, "not JSON")],
)  # fmt: skip
def test_bad_json_is_refused_at_its_line(text, line, part):
    with pytest.raises(SourceProblem, match=part) as caught:
        read_values(text)
    assert caught.value.line == line
