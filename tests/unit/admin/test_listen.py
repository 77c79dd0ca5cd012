"""Where metrics may be served."""

import pytest

from cronally.admin.listen import parse_listen


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("127.0.0.1:9464", "127.0.0.1:9464"),
        ("localhost:9464", "127.0.0.1:9464"),
        ("127.0.0.53:80", "127.0.0.53:80"),
        ("[::1]:9464", "[::1]:9464"),
        (" 127.0.0.1:65535 ", "127.0.0.1:65535"),
    ],
)
def test_an_address_of_this_machine_is_taken(text, written):
    assert str(parse_listen(text)) == written


@pytest.mark.parametrize(
    "text", ["0.0.0.0:9464", "10.0.0.5:9464", "[::]:9464", "[fe80::1]:9464", "[::ffff:10.0.0.1]:9464"]
)
def test_an_address_that_others_reach_is_refused_with_the_reason(text):
    with pytest.raises(ValueError, match=r"could be reached from other machines.*write 127\.0\.0\.1:9464"):
        parse_listen(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:9e3"),
        *("::1:9464", "example.com:9464", "*:9464", "[::1%lo]:9464", "127.0.0.1:٣"),
    ],
)
def test_what_is_no_address_says_how_to_write_one(text):
    with pytest.raises(ValueError, match=r"write (it as )?127\.0\.0\.1:9464"):
        parse_listen(text)
