"""The chunks of RIFF, IFF and CAF files, the boxes of MP4 files and the elements of Matroska files."""

import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

# Placeholders of SoX and FFmpeg, which do not know the size when they write to a pipe.
UNKNOWN_SIZES = (0x7FFF_F000, 0xFFFF_FFFF)
# Chunks without audio, which may be cut off at the end of a file.
METADATA = frozenset(
    b"LIST|id3 |ID3 |bext|iXML|axml|aXML|_PMX|cue |smpl|inst|fact|PEAK|JUNK|junk|PAD |FLLR|afsp|AFAn|acid|strc|umid|"
    b"minf|elm1|regn|DGDA|cart|chna|levl|plst|DISP|CSET|NAME|AUTH|(c) |ANNO|COMT|MARK|INST|MIDI|AESD|APPL|FVER|CHAN|"
    b"uuid|info".split(b"|")
)
# MP4 boxes.
INDEX, FRAGMENT, SAMPLES = b"moov", b"moof", b"mdat"
# The first element of a Matroska file, and the one that holds everything else.
EBML_ID = b"\x1a\x45\xdf\xa3"
SEGMENT, SEGMENT_ID = b"Segment", b"\x18\x53\x80\x67"


class Chunk(NamedTuple):
    """A chunk of a RIFF, IFF or CAF file, a box of an MP4 file or an element of Matroska. Positions are in bytes."""

    name: bytes
    begin: int
    """The first byte of its header."""
    content: int
    """The first byte after its header."""
    end: int | None
    """The first byte after it; None if its size is not known."""


def chunks_of(data: mmap.mmap) -> tuple[Iterator[Chunk], bytes] | None:
    """Return the chunks of a WAV, AIFF, AU or CAF file, and the name of the one with the samples; None for others."""
    match data[:4], data[8:12]:
        case (b"RIFF" | b"RF64", b"WAVE"):
            return iff_chunks(data, "<"), b"data"
        case (b"RIFX", b"WAVE"):
            return iff_chunks(data, ">"), b"data"
        case (b"FORM", b"AIFF" | b"AIFC"):
            return iff_chunks(data, ">"), b"SSND"
        case (b"caff", _):
            return _caf_chunks(data), b"data"
        case (b".snd", _):
            return _au_chunk(data), b".snd"
    return None


def boxes(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the boxes of the highest level of an MP4 file; none of other files."""
    return boxes_between(data, 0, len(data)) if data[4:8] == b"ftyp" else iter(())


def first_fragment(data: mmap.mmap) -> Chunk | None:
    """Return the first fragment of a fragmented MP4 file; None for other files."""
    return next((box for box in boxes(data) if box.name == FRAGMENT), None)


def iff_chunks(data: mmap.mmap, byte_order: str) -> Iterator[Chunk]:
    """Yield the chunks of a RIFF (byte order "<") or IFF (">") file; chunks begin at even positions."""
    position, long_size = 12, None
    while position + 8 <= len(data):
        name, size = struct.unpack_from(f"{byte_order}4sI", data, position)
        if name == b"ds64" and position + 24 <= len(data):  # RF64: sizes of 64 bits
            long_size = struct.unpack_from("<16xQ", data, position)[0]
        if name == b"data" and size == 0xFFFF_FFFF and long_size:
            size = long_size
        yield Chunk(name, position, position + 8, None if size in UNKNOWN_SIZES else position + 8 + size)
        position += 8 + size
        # Some writers forget the byte after a chunk of odd size.
        if size % 2 and data[position : position + 4] not in METADATA:
            position += 1


def _caf_chunks(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the chunks of a Core Audio file; a chunk of negative size, whose size is not known, is the last one."""
    position = 8
    while position + 12 <= len(data):
        name, size = struct.unpack_from(">4sq", data, position)
        yield Chunk(name, position, position + 12, None if size < 0 else position + 12 + size)
        position += 12 + (size if size >= 0 else len(data))


def matroska_elements(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the elements of the highest level of a Matroska or WebM file; the one with all others is `SEGMENT`."""
    position: int | None = 0
    while position is not None and (element := matroska_element(data, position)) is not None:
        yield element._replace(name=SEGMENT) if element.name == SEGMENT_ID else element
        position = element.end


def matroska_element(data: mmap.mmap, begin: int) -> Chunk | None:
    """Return the Matroska element that begins at a byte (RFC 8794); None if there is none. Its name is its ID."""
    id_bytes = 9 - data[begin].bit_length() if begin < len(data) else 9  # the first bit that is set tells the length
    size_at = begin + id_bytes
    size_bytes = 9 - data[size_at].bit_length() if id_bytes <= 4 and size_at < len(data) else 9
    content = size_at + size_bytes
    if size_bytes > 8 or content > len(data):
        return None
    all_ones = (1 << 7 * size_bytes) - 1
    size = int.from_bytes(data[size_at:content]) & all_ones
    is_known = size != all_ones  # all bits are set in a live stream
    return Chunk(data[begin:size_at], begin, content, content + size if is_known else None)


def _au_chunk(data: mmap.mmap) -> Iterator[Chunk]:
    """Yield the only chunk of a Sun or NeXT file."""
    if len(data) >= 12:
        begin, size = struct.unpack_from(">4xII", data)
        yield Chunk(b".snd", 0, begin, None if size in UNKNOWN_SIZES else begin + size)


def boxes_between(data: mmap.mmap, begin: int, end: int) -> Iterator[Chunk]:
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
