"""Check that a file is as long as its container declares, because most decoders read a truncated file without an error.

Some files declare no size: MP3 without a Xing header, AAC in ADTS frames, and WAV or AIFF with a placeholder size
(`UNKNOWN_SIZES`). Their truncation cannot be detected; they are read as shorter tracks. Files that declare a number of
samples instead of bytes (FLAC, MP3 with a Xing header, WMA) are checked by `reader` while they are decoded,
and Ogg files by `ogg_pages`.
"""

import dataclasses
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from musictag.errors import AudioTruncatedError

# Placeholders of SoX and FFmpeg, which do not know the size when they write to a pipe.
UNKNOWN_SIZES = (0x7FFF_F000, 0xFFFF_FFFF)
# The samples may end this many bytes after the end of the file, because some programs write slightly wrong sizes. An
# unknown MP4 box that begins this close to the end is appended metadata, which may be truncated.
TOLERANCE_BYTES = 1_024
# MP4 boxes.
INDEX, FRAGMENT, SAMPLES = b"moov", b"moof", b"mdat"
# The Matroska element that holds everything but the header of the file.
SEGMENT, SEGMENT_ID = b"Segment", b"\x18\x53\x80\x67"
# MP4 boxes that contain `stsz` or `trun`, which declare numbers of samples, or each other.
PARENT_BOXES = (INDEX, b"trak", b"mdia", b"minf", b"stbl", FRAGMENT, b"traf")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A chunk of a RIFF, IFF or CAF file, a box of an MP4 file or an element of Matroska. Positions are in bytes."""

    name: bytes
    begin: int
    """The first byte of its header."""
    content: int
    """The first byte after its header."""
    end: int | None
    """The first byte after it; None if its size is not known."""


def check_complete(path: Path, name: str) -> None:
    """Raise `AudioTruncatedError` if a local file is shorter than its container declares.

    The sizes in WAV, RF64, AIFF, AU, CAF, MP4, Matroska and WebM files are checked. Other files pass, unless FFmpeg may
    take them for MP4 files that declare more samples than the file has bytes.

    Args:
        path: the file; it must not be empty.
        name: the file's name in the error message.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        match data[:4], data[4:8], data[8:12]:
            case (b"RIFF" | b"RF64", _, b"WAVE"):
                reason = _truncated_chunk(_iff_chunks(data, "<"), b"data", len(data))
            case (b"FORM", _, b"AIFF" | b"AIFC"):
                reason = _truncated_chunk(_iff_chunks(data, ">"), b"SSND", len(data))
            case (b"caff", _, _):
                reason = _truncated_chunk(_caf_chunks(data), b"data", len(data))
            case (b".snd", _, _):
                reason = _truncated_chunk(_au_chunk(data), b".snd", len(data))
            case (b"\x1a\x45\xdf\xa3", _, _):
                reason = _truncated_chunk(_matroska_elements(data), SEGMENT, len(data))
            case (_, b"ftyp", _):
                reason = _truncated_box(list(_boxes(data, 0, len(data))), len(data)) or _excessive_sample_count(data)
            case _:
                reason = _excessive_sample_count(data)  # FFmpeg reads MP4 files without an `ftyp` box
    if reason:
        raise AudioTruncatedError(f"{name}: truncated: {reason}")


def _truncated_chunk(chunks: Iterator[Chunk], name: bytes, n_bytes: int) -> str | None:
    """Return an error message if the first chunk named `name` is truncated, else None.

    Later chunks are not read, because the bytes after the samples need not be chunks.
    """
    for chunk in chunks:
        if chunk.name == name:
            return _ends_beyond(chunk, n_bytes) if chunk.end and chunk.end > n_bytes + TOLERANCE_BYTES else None
    return None


def _truncated_box(boxes: list[Chunk], n_bytes: int) -> str | None:
    """Return an error message if a box of an MP4 file is truncated or the index is missing, else None."""
    for box in boxes:
        is_metadata = box.name not in (INDEX, FRAGMENT, SAMPLES) and box.begin > n_bytes - TOLERANCE_BYTES
        if box.end and box.end > n_bytes and not is_metadata:
            return _ends_beyond(box, n_bytes)
    if not any(box.name in (INDEX, FRAGMENT) for box in boxes):
        return "the index (moov box) is missing"
    return None


def _excessive_sample_count(data: mmap.mmap) -> str | None:
    """Return an error message if an MP4 file declares more samples than it has bytes, else None.

    FFmpeg allocates memory for all declared samples: a file of a few kB could take gigabytes.
    """
    ranges = [(0, len(data))]
    while ranges:
        begin, end = ranges.pop()
        for box in _boxes(data, begin, end):
            if box.name in PARENT_BOXES:
                ranges.append((box.content, min(box.end or end, end)))
            if box.name in (b"stsz", b"trun") and box.content + 12 <= len(data):
                # After 4 bytes of version and flags: stsz has the size and the number of samples, trun the number.
                first, second = struct.unpack_from(">4xII", data, box.content)
                n_bytes = max(first, 1) * second if box.name == b"stsz" else first
                if n_bytes > len(data):
                    return f"its samples need at least {n_bytes:,} bytes, the file has {len(data):,}"
    return None


def _ends_beyond(chunk: Chunk, n_bytes: int) -> str:
    return f"its part {chunk.name.decode('latin-1')!r} ends at byte {chunk.end:,}, the file at byte {n_bytes:,}"


def _iff_chunks(data: mmap.mmap, byte_order: str) -> Iterator[Chunk]:
    """Yield the chunks of a RIFF (byte order "<") or IFF (">") file; chunks begin at even positions."""
    position, long_size = 12, None
    while position + 8 <= len(data):
        name, size = struct.unpack_from(f"{byte_order}4sI", data, position)
        if name == b"ds64" and position + 24 <= len(data):  # RF64: sizes of 64 bits
            long_size = struct.unpack_from("<16xQ", data, position)[0]
        if name == b"data" and size == 0xFFFF_FFFF and long_size:
            size = long_size
        yield Chunk(name, position, position + 8, None if size in UNKNOWN_SIZES else position + 8 + size)
        position += 8 + size + size % 2


def _caf_chunks(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the chunks of a Core Audio file; a chunk of negative size, whose size is not known, is the last one."""
    position = 8
    while position + 12 <= len(data):
        name, size = struct.unpack_from(">4sq", data, position)
        yield Chunk(name, position, position + 12, None if size < 0 else position + 12 + size)
        position += 12 + (size if size >= 0 else len(data))


def _matroska_elements(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the elements of the highest level of a Matroska or WebM file (RFC 8794)."""
    position = 0
    while position + 12 <= len(data):
        id_bytes = 9 - data[position].bit_length()  # the position of the first bit that is set tells the length
        size_bytes = 9 - data[position + id_bytes].bit_length() if id_bytes <= 4 else 9
        if size_bytes > 8:
            return
        begin = position + id_bytes
        content = begin + size_bytes
        n_bits = 7 * size_bytes
        size = int.from_bytes(data[begin:content]) & ((1 << n_bits) - 1)
        is_known = size != (1 << n_bits) - 1  # all bits are set in a live stream
        name = SEGMENT if data[position:begin] == SEGMENT_ID else b"element"
        yield Chunk(name, position, content, content + size if is_known else None)
        position = content + size if is_known else len(data)


def _au_chunk(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the only chunk of a Sun or NeXT file."""
    if len(data) >= 12:
        begin, size = struct.unpack_from(">4xII", data)
        yield Chunk(b".snd", 0, begin, None if size in UNKNOWN_SIZES else begin + size)


def _boxes(data: mmap.mmap, begin: int, end: int) -> Iterator[Chunk]:
    """Yield the boxes of one level of an MP4 file, from byte `begin` to `end`."""
    position = begin
    while position + 8 <= end:
        header_bytes = 8
        size, name = struct.unpack_from(">I4s", data, position)
        if size == 1 and position + 16 <= len(data):
            header_bytes = 16
            size = struct.unpack_from(">8xQ", data, position)[0]
        if size == 0:  # the box extends to the end of its parent
            size = end - position
        after = position + max(size, header_bytes)  # a smaller size would be wrong, and would never advance
        yield Chunk(name, position, position + header_bytes, after)
        position = after
