import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musictag.storage.text import printable, store_reason, without_colours


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("爵士 café.mp3", "爵士 café.mp3"),
        ("\x1b[31mred\x1b[0m.mp3", r"\x1b[31mred\x1b[0m.mp3"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb\nc\x9bd", r"a\rb\nc\x9bd"),
        ("song\u202e3pm.exe", r"song\u202e3pm.exe"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("a\\x1b", "a\\x1b"),
        ("\u200d\u00a0", "\u200d\u00a0"),
    ],
)
def test_control_characters_are_escaped_and_others_are_kept(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_printable_text_has_no_control_character(text: str) -> None:
    assert not any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in printable(text))
    assert len(printable(text).splitlines()) <= 1
    assert printable(printable(text)) == printable(text)


def test_line_breaks_may_be_allowed() -> None:
    assert printable("a\tb\nc\x1b", "\n\t") == "a\tb\nc\\x1b"


def test_colours_of_a_library_are_removed() -> None:
    assert without_colours("\x1b[36mray::f()\x1b[39m (pid=1): \x1b[1;31mfailed\x1b[m") == "ray::f() (pid=1): failed"


def test_reason_of_a_store_is_its_code_and_message_and_the_request() -> None:
    client = "Generic S3 error\n  Error performing GET http://s3/music in 3ms - 403 Forbidden\n"
    xml = "<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access\nDenied</Message><Details>it&#39;s"
    answer = f"{client}{xml} hers</Details></Error>"
    assert store_reason(OSError(answer)) == "AccessDenied: Access Denied it's hers (GET http://s3/music)"
    assert store_reason(OSError("\x1b[31mno\n  answer\x1b[m")) == "no answer"
