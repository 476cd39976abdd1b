"""Make text of file names and of other programs safe to print and to log."""

import html
import re
import unicodedata

# Sequences that set the colours of a terminal; some libraries write them into their errors.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Clients of object stores (S3, Azure, Google) put the request and the store's answer, as XML, into their errors.
_STORE_CODE = re.compile(r"<Code>([^<]+)</Code>")
_STORE_WORDS = re.compile(r"<(?:Message|Details|AuthenticationErrorDetail)>([^<]*)<")
_REQUEST = re.compile(r"Error performing ([A-Z]+) (\S+)")
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
    """Return the text of an error of a store's client on one line.

    If it holds the store's answer, that is its code and message, and the request that was refused.
    """
    text = without_colours(str(error))
    if code := _STORE_CODE.search(text):
        request = _REQUEST.search(text)
        words = " ".join(html.unescape(each) for each in _STORE_WORDS.findall(text))
        text = f"{code[1]}: {words}{f' ({request[1]} {request[2]})' if request else ''}"
    return re.sub(r"\s+", " ", text)
