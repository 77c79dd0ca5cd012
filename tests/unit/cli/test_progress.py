from __future__ import annotations

import pytest

from cronally.cli.progress import bar_text


@pytest.mark.parametrize(
    ("done", "total", "width", "expected"),
    [
        (1, 4, 30, "[####             ]  25%  1 of"),
        (4, 4, 30, "[#################] 100%  1 of"),
        (9, 4, 30, "[#################] 100%  1 of"),
        (1, 4, 200, f"[{'#' * 10}{' ' * 30}]  25%  1 of"),
        (1, 4, 12, " 25%  1 of"),
        (1, 4, 5, " 25% "),
        (1, None, 30, "1 of"),
        (0, 0, 30, "1 of"),
    ],
)
def test_a_bar_takes_the_room_that_there_is(done, total, width, expected):
    assert bar_text(done, total, "1 of", width) == expected
