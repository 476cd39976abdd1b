"""Whether a file holds the bytes that its container declares: decoders pass over what is missing.

What declares nothing can only be taken for what is there: an MP3 without a Xing header, AAC in ADTS frames, a WAV or
AIFF whose size is the one that programs write where they do not know it. Cut off, such a file is a shorter track. What
declares samples rather than bytes (FLAC, MP3 with a Xing header, Matroska, WMA) is counted as it is decoded.
"""

import dataclasses
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from musictag.errors import AudioTruncatedError

# What SoX and FFmpeg write as the size of samples that they stream.
UNKNOWN_SIZES = (0x7FFF_F000, 0xFFFF_FFFF)
# What careless writers miscount by (some 0.01 s), and what others append, such as tags.
TOLERANCE_BYTES = 1_024
# A file of more chunks is made to keep us busy.
MAX_CHUNKS = 100_000
INDEX, FRAGMENT, SAMPLES = b"moov", b"moof", b"mdat"


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
    with path.open("rb") as stream:
        magic = stream.read(12)
        n_bytes = stream.seek(0, io.SEEK_END)
        match magic[:4], magic[4:8], magic[8:]:
            case (b"RIFF" | b"RF64", _, b"WAVE"):
                cut = _cut_samples(_iff_chunks(stream, "<"), b"data", n_bytes)
            case (b"FORM", _, b"AIFF" | b"AIFC"):
                cut = _cut_samples(_iff_chunks(stream, ">"), b"SSND", n_bytes)
            case (b"caff", _, _):
                cut = _cut_samples(_caf_chunks(stream), b"data", n_bytes)
            case (b".snd", _, _):
                cut = _cut_samples(_au_chunk(magic), b".snd", n_bytes)
            case (_, b"ftyp", _):
                cut = _cut_box(list(_boxes(stream, n_bytes)), n_bytes)
            case _:
                cut = None
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


def _beyond(chunk: Chunk, n_bytes: int) -> str:
    return f"its part {chunk.name.decode('latin-1')!r} ends at byte {chunk.end:,}, the file at byte {n_bytes:,}"


def _iff_chunks(stream: BinaryIO, byte_order: str) -> Iterator[Chunk]:
    """The chunks of a RIFF ("<") or IFF (">") file; they begin at even positions."""
    position, long_size = 12, None
    for _ in range(MAX_CHUNKS):
        stream.seek(position)
        header = stream.read(8)
        if len(header) < 8:
            return
        name, size = struct.unpack(f"{byte_order}4sI", header)
        if name == b"ds64":  # RF64: the sizes of the whole and of the samples, which 32 bits do not hold
            long_size = struct.unpack("<8xQ", stream.read(16).ljust(16, b"\0"))[0]
        if name == b"data" and size == 0xFFFF_FFFF and long_size:
            size = long_size
        yield Chunk(name, position, None if size in UNKNOWN_SIZES else position + 8 + size)
        position += 8 + size + size % 2


def _caf_chunks(stream: BinaryIO) -> Iterator[Chunk]:
    """The chunks of a Core Audio file."""
    position = 8
    for _ in range(MAX_CHUNKS):
        stream.seek(position)
        header = stream.read(12)
        if len(header) < 12:
            return
        name, size = struct.unpack(">4sq", header)
        yield Chunk(name, position, None if size < 0 else position + 12 + size)
        if size < 0:  # up to the end
            return
        position += 12 + size


def _au_chunk(magic: bytes) -> Iterator[Chunk]:
    """The one chunk of a Sun or NeXT file."""
    if len(magic) == 12:
        begin, size = struct.unpack(">4xII", magic)
        yield Chunk(b".snd", 0, None if size in UNKNOWN_SIZES else begin + size)


def _boxes(stream: BinaryIO, n_bytes: int) -> Iterator[Chunk]:
    """The outermost boxes of an MP4 file."""
    position = 0
    for _ in range(MAX_CHUNKS):
        stream.seek(position)
        header = stream.read(16)
        if len(header) < 8:
            return
        size, name = struct.unpack(">I4s", header[:8])
        if size == 1 and len(header) == 16:
            size = struct.unpack(">8xQ", header)[0]
        if size == 0:  # up to the end
            size = n_bytes - position
        end = position + max(size, 8)
        yield Chunk(name, position, end)
        if end >= n_bytes:
            return
        position = end
