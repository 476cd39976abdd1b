"""Open text of any Unicode encoding, and guess the encoding of other text for a message."""

import codecs
import contextlib
import io
import re
from collections.abc import Iterator
from typing import IO

import charset_normalizer

# The order matters: the mark of UTF-32 begins with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# "track_id" in UTF-16 without a byte order mark: every second byte is 0.
_UTF_16_BEGINS = {(False, True): "utf-16-le", (True, False): "utf-16-be"}
# Bytes of text from which an encoding is guessed.
_GUESS_BYTES = 1 << 16
# Letters and punctuation of Western European languages in cp1252, apart from ASCII. Those of Cyrillic and Greek are the
# same bytes, but of these, more than two follow each other in most words.
_WESTERN_LETTERS = "àáâãäåæçéèêëíìîïñóòôöõøœúùûüýÿß"
_WESTERN_LETTERS += _WESTERN_LETTERS.replace("ß", "").upper()
_WESTERN = re.compile(rf"[{_WESTERN_LETTERS}«»„“”‘’–—…°€¿¡\x00-\x7f]*")  # noqa: RUF001
_NO_WESTERN_WORD = re.compile(rf"[{_WESTERN_LETTERS}]{{3}}")


@contextlib.contextmanager
def decoded(stream: IO[bytes]) -> Iterator[io.TextIOWrapper]:
    """Yield an open file as text. Bytes that are not UTF-8 become surrogates, which `validation` reports."""
    begin = stream.read(4)
    stream.seek(0)
    marked = (encoding for mark, encoding in _BYTE_ORDER_MARKS.items() if begin.startswith(mark))
    zeros = (not any(begin[::2]), not any(begin[1::2]))
    encoding = next(marked, _UTF_16_BEGINS.get(zeros, "utf-8-sig") if len(begin) == 4 else "utf-8-sig")
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    text = io.TextIOWrapper(stream, encoding, errors, newline="")
    try:
        yield text
    finally:
        text.detach()  # otherwise its end would close the file


def guess_encoding(stream: IO[bytes]) -> str | None:
    """Return a guess of the encoding of the lines that are not UTF-8; None if there is none, or no guess."""
    sample = bytearray()
    for line in stream:
        if not _is_utf8(line):
            sample += line
        if len(sample) > _GUESS_BYTES:
            break
    if not sample:
        return None
    if _is_western(bytes(sample)):
        return "cp1252"
    best = charset_normalizer.from_bytes(bytes(sample)).best()
    if best is None:
        return None
    # Several encodings of one language may fit; this one is by far the most frequent.
    return "cp1252" if "cp1252" in best.could_be_from_charset else best.encoding


def _is_western(sample: bytes) -> bool:
    """Return whether text is cp1252 of a Western European language, which `charset_normalizer` misses in names."""
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return bool(_WESTERN.fullmatch(text)) and not _NO_WESTERN_WORD.search(text)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
