"""Recognize what follows the declared audio of a file: tags and padding, or bytes that must not be ignored."""

import functools
import mmap
import re

# Fewer bytes than this are ignored at the end of a file, because some programs write slightly wrong sizes.
TOLERANCE_BYTES = 1_024
_FILE_MARKS = (b"RIFF", b"RF64", b"FORM", b"OggS", b"fLaC", b"caff", b".snd", b"wvpk", b"TTA1", b"\x1a\x45\xdf\xa3")
_LYRICS_END = re.compile(rb"LYRICS200|LYRICSEND")
_NOT_ZERO = re.compile(rb"[^\0]")


def trailing_bytes(data: mmap.mmap, begin: int) -> str | None:
    """Return an error message if the bytes from `begin` on are neither tags nor padding, else None."""
    begin = after_tags(data, begin)
    n_bytes = n_unknown_bytes(data, begin)
    if n_bytes <= TOLERANCE_BYTES:
        return None
    return (
        f"{n_bytes:,} bytes follow the declared audio at byte {begin:,} and are no known tag: split the file, or "
        "repair its header (for example by `ffmpeg -i FILE -c copy NEW`)"
    )


def n_unknown_bytes(data: mmap.mmap, begin: int) -> int:
    """Return how many bytes follow the tags from byte `begin` on; 0 if they are all zero."""
    begin = after_tags(data, begin)
    return len(data) - begin if begin < len(data) and _NOT_ZERO.search(data, begin) else 0


def other_file(data: mmap.mmap, begin: int) -> str | None:
    """Return an error message if a file of another format follows the tags from byte `begin` on, else None."""
    begin = after_tags(data, begin)
    is_file = data[begin : begin + 4] in _FILE_MARKS or data[begin + 4 : begin + 8] == b"ftyp"
    return trailing_bytes(data, begin) if is_file else None


def after_tags(data: mmap.mmap, begin: int) -> int:
    """Return the byte after all tags that follow each other from a byte on; the byte itself if there is none."""
    while (after := after_tag(data, begin)) is not None:
        begin = after
    return begin


def after_tag(data: mmap.mmap, begin: int) -> int | None:
    """Return the byte after the tag that begins at a byte, or None if none does."""
    head = data[begin : begin + 32]
    if head.startswith(b"TAG"):  # ID3v1
        return begin + 128
    if head.startswith(b"ID3") and len(head) >= 10:  # ID3v2; its size has seven bits in each byte
        size = functools.reduce(lambda value, byte: value << 7 | byte & 0x7F, head[6:10], 0)
        return begin + 10 + size + (10 if head[5] & 0x10 else 0)
    if head.startswith(b"APETAGEX") and len(head) == 32:  # the size does not count the header
        return begin + 32 + int.from_bytes(head[12:16], "little")
    if head.startswith(b"LYRICSBEGIN"):
        end = _LYRICS_END.search(data, begin)
        return end.end() if end else len(data)
    return None
