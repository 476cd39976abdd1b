"""Whether a file holds the bytes that its container declares: decoders pass over what is missing.

What declares nothing can only be taken for what is there: an MP3 without a Xing header, AAC in ADTS frames, a WAV or
AIFF whose size is the one that programs write where they do not know it. Cut off, such a file is a shorter track. What
declares samples rather than bytes (FLAC, MP3 with a Xing header, Matroska, WMA) is counted as it is decoded.
"""

import dataclasses
import io
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from musictag.errors import AudioTruncatedError

# What FFmpeg and SoX write as the size of WAV samples that they stream, and 0 as others do until they are done.
UNKNOWN_SIZES = (0, 0x7FFF_F000, 0xFFFF_FFFF)
# What careless writers miscount by: no more than some 0.02 s.
TOLERANCE_BYTES = 1_024
# A file of more chunks is made to keep us busy.
MAX_CHUNKS = 100_000
OGG_PAGE_HEADER, MAX_OGG_PAGE, OGG_END_OF_STREAM = 27, 65_307, 4


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A part of a file: `end` is the position after it, in bytes, None where it is not known."""

    name: bytes
    end: int | None


def check_complete(path: Path, name: str) -> None:
    """Check that a local file ends where its container does; `name` is what the error calls it.

    WAV, RF64, AIFF and MP4 declare sizes, the last page of an Ogg stream is marked. Other files pass.
    Raises `AudioTruncatedError`.
    """
    with path.open("rb") as stream:
        magic = stream.read(12)
        n_bytes = stream.seek(0, io.SEEK_END)
        match magic[:4], magic[4:8], magic[8:]:
            case (b"RIFF" | b"RF64", _, b"WAVE"):
                chunks = _named(_riff_chunks(stream, "<"), b"data")
            case (b"FORM", _, b"AIFF" | b"AIFC"):
                chunks = _named(_riff_chunks(stream, ">"), b"SSND")
            case (_, b"ftyp", _):
                chunks = list(_boxes(stream, n_bytes))
                if not any(chunk.name in (b"moov", b"moof") for chunk in chunks):
                    raise AudioTruncatedError(f"{name}: truncated: its index is missing (no moov box)")
            case (b"OggS", _, _):
                if not _ends_ogg(stream, n_bytes):
                    raise AudioTruncatedError(f"{name}: truncated: no page ends the Ogg stream")
                return
            case _:
                return
    for chunk in chunks:
        if chunk.end is not None and chunk.end > n_bytes + TOLERANCE_BYTES:
            part = chunk.name.decode("latin-1")
            raise AudioTruncatedError(
                f"{name}: truncated: its part {part!r} ends at byte {chunk.end:,}, the file at byte {n_bytes:,}"
            )


def _named(chunks: Iterator[Chunk], name: bytes) -> list[Chunk]:
    """The first chunk of a name: what follows the samples need not be a chunk at all."""
    return list(itertools.islice((chunk for chunk in chunks if chunk.name == name), 1))


def _riff_chunks(stream: BinaryIO, byte_order: str) -> Iterator[Chunk]:
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
        unknown = name in (b"data", b"SSND") and size in UNKNOWN_SIZES
        yield Chunk(name, None if unknown else position + 8 + size)
        position += 8 + size + size % 2


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
        position += max(size, 8)
        yield Chunk(name, position)
        if position >= n_bytes:
            return


def _ends_ogg(stream: BinaryIO, n_bytes: int) -> bool:
    """Whether the last page of an Ogg file is whole and marked as the end of its stream."""
    stream.seek(max(0, n_bytes - 2 * MAX_OGG_PAGE))
    tail = stream.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < OGG_PAGE_HEADER:
        return False
    n_segments = page[OGG_PAGE_HEADER - 1]
    n_page = OGG_PAGE_HEADER + n_segments + sum(page[OGG_PAGE_HEADER : OGG_PAGE_HEADER + n_segments])
    return bool(page[5] & OGG_END_OF_STREAM) and len(page) >= n_page
