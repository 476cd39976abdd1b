"""Whether a file holds the bytes that its container declares: decoders pass over what is missing.

What declares nothing can only be taken for what is there: an MP3 without a Xing header, AAC in ADTS frames, a WAV or
AIFF whose size is the one that programs write where they do not know it. Cut off, such a file is a shorter track. What
declares samples rather than bytes (FLAC, MP3 with a Xing header, Matroska, WMA) is counted as it is decoded.
"""

import dataclasses
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from musictag.errors import AudioTruncatedError

# What SoX and FFmpeg write as the size of samples that they stream.
UNKNOWN_SIZES = (0x7FFF_F000, 0xFFFF_FFFF)
# What careless writers miscount by (some 0.01 s), and what others append, such as tags.
TOLERANCE_BYTES = 1_024
INDEX, FRAGMENT, SAMPLES = b"moov", b"moof", b"mdat"
# Boxes of boxes, down to those that count samples.
NESTING = (INDEX, b"trak", b"mdia", b"minf", b"stbl", FRAGMENT, b"traf")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A part of a file: the positions of its header and after it, in bytes; `end` is None where it is not known."""

    name: bytes
    begin: int
    end: int | None


def check_complete(path: Path, name: str) -> None:
    """Check that a local file holds the chunks of samples that it declares; `name` is what the error calls it.

    WAV, RF64, AIFF, AU, CAF and MP4 are checked; other files pass. Raises `AudioTruncatedError`.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        match data[:4], data[4:8], data[8:12]:
            case (b"RIFF" | b"RF64", _, b"WAVE"):
                cut = _cut_samples(_iff_chunks(data, "<"), b"data", len(data))
            case (b"FORM", _, b"AIFF" | b"AIFC"):
                cut = _cut_samples(_iff_chunks(data, ">"), b"SSND", len(data))
            case (b"caff", _, _):
                cut = _cut_samples(_caf_chunks(data), b"data", len(data))
            case (b".snd", _, _):
                cut = _cut_samples(_au_chunk(data), b".snd", len(data))
            case (_, b"ftyp", _):
                cut = _cut_box(list(_boxes(data, 0, len(data))), len(data)) or _too_many(data)
            case _:
                cut = _too_many(data)  # FFmpeg knows an MP4 file by any of its boxes
    if cut:
        raise AudioTruncatedError(f"{name}: truncated: {cut}")


def _cut_samples(chunks: Iterator[Chunk], name: bytes, n_bytes: int) -> str | None:
    """What is wrong with the first chunk of a name, if anything: what follows the samples need not be a chunk."""
    for chunk in chunks:
        if chunk.name == name:
            return _beyond(chunk, n_bytes) if chunk.end and chunk.end > n_bytes + TOLERANCE_BYTES else None
    return None


def _cut_box(boxes: list[Chunk], n_bytes: int) -> str | None:
    """What is wrong with the boxes of an MP4 file, if anything."""
    for box in boxes:
        is_tag = box.name not in (INDEX, FRAGMENT, SAMPLES) and box.begin > n_bytes - TOLERANCE_BYTES
        if box.end and box.end > n_bytes and not is_tag:
            return _beyond(box, n_bytes)
    if not any(box.name in (INDEX, FRAGMENT) for box in boxes):
        return "it has no index (no moov box)"
    return None


def _too_many(data: mmap.mmap) -> str | None:
    """What is wrong with the numbers of samples in the boxes of an MP4 file, if anything.

    FFmpeg makes room for as many as are declared: some kB of file would take GBs of memory.
    """
    ranges = [(0, len(data))]
    while ranges:
        begin, end = ranges.pop()
        for box in _boxes(data, begin, end):
            if box.name in NESTING:
                ranges.append((box.begin + 8, min(box.end or end, end)))
            if box.name in (b"stsz", b"trun") and box.begin + 20 <= len(data):
                first, second = struct.unpack_from(">12xII", data, box.begin)
                n_bytes = max(first, 1) * second if box.name == b"stsz" else first
                if n_bytes > len(data):
                    return f"its samples take {n_bytes:,} bytes or more, the file has {len(data):,}"
    return None


def _beyond(chunk: Chunk, n_bytes: int) -> str:
    return f"its part {chunk.name.decode('latin-1')!r} ends at byte {chunk.end:,}, the file at byte {n_bytes:,}"


def _iff_chunks(data: mmap.mmap, byte_order: str) -> Iterator[Chunk]:
    """The chunks of a RIFF ("<") or IFF (">") file; they begin at even positions."""
    position, long_size = 12, None
    while position + 8 <= len(data):
        name, size = struct.unpack_from(f"{byte_order}4sI", data, position)
        if name == b"ds64" and position + 24 <= len(data):  # RF64: sizes that 32 bits do not hold
            long_size = struct.unpack_from("<16xQ", data, position)[0]
        if name == b"data" and size == 0xFFFF_FFFF and long_size:
            size = long_size
        yield Chunk(name, position, None if size in UNKNOWN_SIZES else position + 8 + size)
        position += 8 + size + size % 2


def _caf_chunks(data: mmap.mmap) -> Iterator[Chunk]:
    """The chunks of a Core Audio file; of the last one the size may be unknown, which is below 0."""
    position = 8
    while position + 12 <= len(data):
        name, size = struct.unpack_from(">4sq", data, position)
        yield Chunk(name, position, None if size < 0 else position + 12 + size)
        position += 12 + (size if size >= 0 else len(data))


def _au_chunk(data: mmap.mmap) -> Iterator[Chunk]:
    """The one chunk of a Sun or NeXT file."""
    if len(data) >= 12:
        begin, size = struct.unpack_from(">4xII", data)
        yield Chunk(b".snd", 0, None if size in UNKNOWN_SIZES else begin + size)


def _boxes(data: mmap.mmap, begin: int, stop: int) -> Iterator[Chunk]:
    """The boxes of an MP4 file that lie beside each other from `begin` to `stop`."""
    position = begin
    while position + 8 <= stop:
        size, name = struct.unpack_from(">I4s", data, position)
        if size == 1 and position + 16 <= len(data):
            size = struct.unpack_from(">8xQ", data, position)[0]
        if size == 0:  # up to the end
            size = stop - position
        after = position + max(size, 8)
        yield Chunk(name, position, after)
        position = after
