"""Sizes as users write them."""

import pytest

from cronally.domain.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size", "written"),
    [
        ("2GiB", 2 << 30, "2 GiB"),
        ("512 MiB", 512 << 20, "512 MiB"),
        ("1536MiB", 1536 << 20, "1.5 GiB"),
        ("1TiB", 1 << 40, "1 TiB"),
        ("1023B", 1023, "1023 B"),
        ("0B", 0, "0 B"),
    ],
)
def test_a_size_is_read_and_written(text, size, written):
    assert parse_size(text) == size
    assert format_size(size) == written


@pytest.mark.parametrize("text", ["", "2", "2GB", "2gib", "1.5GiB", "-1GiB", "GiB", "2  GiB", "٢GiB"])
def test_what_is_no_size_is_refused_with_the_form(text):
    with pytest.raises(ValueError, match="write it as 512MiB"):
        parse_size(text)
