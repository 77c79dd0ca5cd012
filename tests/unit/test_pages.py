"""How the pages of docs/ are read, and when what they show is what was printed."""

import pytest

from support.pages import Commands, Elsewhere, File, is_as_shown, steps

PAGE = """\
<!-- file: a.yaml -->
```yaml
a: 1
```
```sh
one
two
```

```text
1
```
Words.
```sh
three
```
Words.
```text
not of three
```
<!-- printed by: worker -->
```text
w
```
```json
{}
```
"""


def test_a_page_is_files_commands_and_what_they_print():
    assert list(steps(PAGE)) == [
        File(2, "a.yaml", "a: 1\n"),
        Commands(5, "one\ntwo\n", "1\n"),
        Commands(14, "three\n", None),
        Elsewhere(22, "worker", "w\n"),
    ]


@pytest.mark.parametrize(
    ("shown", "printed", "is_so"),
    [
        ("a b\n", "a  b\n", True),
        ("a b\n", "a b\nc\n", False),
        ("a b\n", "a c\n", False),
        ("a … d\n", "a b c d\n", True),
        ("a … d\n", "a b c\n", False),
        ("a.c\n", "abc\n", False),
        ("…\nb\n", "b\n", True),
        ("…\nb\n…\n", "a\na\nb\nc\n", True),
        ("…\nb\n", "a\nb\nc\n", False),
        ("", "a\n", False),
    ],
)
def test_three_dots_stand_for_what_is_left_out(shown, printed, is_so):
    assert is_as_shown(shown, printed) is is_so
