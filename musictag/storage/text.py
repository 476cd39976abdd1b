"""Make text of file names and of other programs safe to print and to log."""

import re
import unicodedata

# Sequences that set the colours of a terminal; some libraries write them into their errors.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# The error of an object store (S3, Azure, Google), which clients quote with the whole request.
_STORE_ERROR = re.compile(r"<Code>([^<]+)</Code>.*?<Message>([^<]*)</Message>", re.DOTALL)
# Control characters, and the separators of lines and of paragraphs U+2028 and U+2029.
_CONTROLS = ("Cc", "Zl", "Zp")
# Characters that reverse the direction of the text that follows.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, allowed: str = "") -> str:
    r"""Return the text with escapes such as `\x1b` in place of control characters, except those in `allowed`.

    A file name could otherwise change the colours or the title of a terminal, or forge lines of a log.
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if _is_control(character) and character not in allowed
        else character
        for character in text
    )


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in _CONTROLS or character in _DIRECTIONS


def without_colours(text: str) -> str:
    """Return the text of a library's error without the sequences that set colours."""
    return _COLOURS.sub("", text)


def store_reason(error: Exception) -> str:
    """Return the text of an error of a store's client on one line: code and message of the store, if it holds them."""
    text = without_colours(str(error))
    answer = _STORE_ERROR.search(text)
    return re.sub(r"\s+", " ", f"{answer[1]}: {answer[2]}" if answer else text)
