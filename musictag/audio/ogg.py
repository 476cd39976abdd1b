"""The pages of an Ogg file: whether they are all there and as they were written, which decoders do not say.

A page (RFC 3533) has the number of its stream and its own number in it, the position in samples that it ends at, a
checksum, and marks where it begins or ends its stream. Streams may follow each other: such a file is a chain.
"""

import dataclasses
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from musictag.errors import AudioCorruptError, AudioTruncatedError

HEADER = struct.Struct("<4sBBQIIIB")
CONTINUED, FIRST, LAST = 1, 2, 4
NO_POSITION = 2**64 - 1
# Positions in Opus count samples at this rate, Hz, in other streams at their own.
OPUS_RATE = 48_000
# Where a page's checksum stands, which counts as 0 in itself.
CHECKSUM = slice(22, 26)
# A packet lies in segments of this many bytes, but for its last.
FULL_SEGMENT = 255
BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclasses.dataclass(frozen=True)
class Page:
    """Where a page lies in its file, in bytes, and what its header says."""

    begin: int
    end: int
    flags: int
    position: int
    stream: int
    number: int


@dataclasses.dataclass(frozen=True)
class Pages:
    """The pages of a whole file, and what they say of it."""

    path: Path
    name: str
    """What errors call the file."""
    pages: tuple[Page, ...]
    n_chained: int
    """Streams that follow each other; those that begin together count once."""
    n_positions: int
    """How far the positions go, which may leave out the first page; 0 where they do not tell."""
    is_opus: bool

    def n_samples(self, sample_rate: int) -> int:
        """Samples per channel that the file holds at least, at the `sample_rate` of the stream, Hz."""
        return self.n_positions * sample_rate // (OPUS_RATE if self.is_opus else sample_rate)

    def check(self) -> None:
        """Check that each page holds what was written. Raises `AudioCorruptError`: decoders leave such a page out."""
        with self.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for page in self.pages:
                self._content(data, page)

    def packets(self, first: int = 0) -> Iterator[tuple[Page, list[bytes]]]:
        """Each page from one on, and the packets that end on it, but for what begins before. Raises as `check`."""
        with self.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            packet, is_whole = b"", not self.pages[first].flags & CONTINUED
            for page in self.pages[first:]:
                content, packets = self._content(data, page), []
                begin = HEADER.size + content[HEADER.size - 1]
                for size in content[HEADER.size : begin]:
                    packet += content[begin : begin + size]
                    begin += size
                    if size < FULL_SEGMENT:
                        packets += [packet] * is_whole
                        packet, is_whole = b"", True
                yield page, packets

    def _content(self, data: mmap.mmap, page: Page) -> bytes:
        content = data[page.begin : page.end]
        if content[CHECKSUM] != checksum(content):
            raise AudioCorruptError(f"{self.name}: damaged: the Ogg page at byte {page.begin:,} is not as written")
        return content


def read_pages(path: Path, name: str) -> Pages | None:
    """Read the header of each page; None if the file is not Ogg. `name` is what errors call it.

    Raises `AudioTruncatedError` if no page ends the last stream, `AudioCorruptError` if pages are missing within.
    """
    with path.open("rb") as stream:
        if stream.read(4) != b"OggS":
            return None
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            pages = list(_pages(data))
            rest = pages[-1].end if pages else 0
            if not pages or not pages[-1].flags & LAST:
                if data.find(b"OggS", rest + 1) > 0:
                    raise AudioCorruptError(f"{name}: what lies at byte {rest:,} is no Ogg page")
                raise AudioTruncatedError(f"{name}: truncated: no page ends the Ogg stream")
            is_opus = data[pages[0].begin : pages[0].end].find(b"OpusHead") > 0
    numbers: dict[int, int] = {}
    for page in pages:
        if not page.flags & FIRST and page.number != numbers.get(page.stream, -1) + 1:
            raise AudioCorruptError(f"{name}: Ogg pages are missing before byte {page.begin:,}")
        numbers[page.stream] = page.number
    begins = [bool(page.flags & FIRST) for page in pages]
    n_chained = sum(now and not before for before, now in zip([False, *begins], begins, strict=False))
    positions = [page.position for page in pages if page.position not in (0, NO_POSITION)]
    # What was cut out of a longer stream begins at any position: the first page's samples are not counted.
    n_positions = positions[-1] - positions[0] if n_chained == 1 and len(numbers) == 1 and positions else 0
    return Pages(path, name, tuple(pages), n_chained, max(0, n_positions), is_opus)


def _pages(data: mmap.mmap) -> Iterator[Page]:
    """The pages one behind the other, up to what is none, or not whole."""
    begin, n_bytes = 0, len(data)
    while begin + HEADER.size <= n_bytes:
        magic, _, flags, position, stream, number, _, n_segments = HEADER.unpack_from(data, begin)
        body = begin + HEADER.size + n_segments
        end = body + sum(data[begin + HEADER.size : body])
        if magic != b"OggS" or end > n_bytes:
            return
        yield Page(begin, end, flags, position, stream, number)
        begin = end


def checksum(page: bytes) -> bytes:
    """What stands as the checksum in a page: zlib's, but of bits in the other order, from 0 and not inverted."""
    mirrored = page.translate(BITS_REVERSED)
    crc = zlib.crc32(mirrored[: CHECKSUM.start], 0xFFFF_FFFF)
    crc = zlib.crc32(memoryview(mirrored)[CHECKSUM.stop :], zlib.crc32(bytes(4), crc))
    return (crc ^ 0xFFFF_FFFF).to_bytes(4, "big").translate(BITS_REVERSED)
