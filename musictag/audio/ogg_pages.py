"""The pages of an Ogg file, for checks of its integrity and for the Vorbis decoder.

A page (RFC 3533) holds the serial number of its stream, its own number in that stream, the sample position at its end,
a checksum, and flags for the first and last page of a stream. Streams that follow each other in a file are a chain.
Decoders skip missing and damaged pages without an error, so this module checks them.
"""

import dataclasses
import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from musictag.audio.parts import mapped
from musictag.audio.trailing import trailing_bytes
from musictag.errors import AudioCorruptError, AudioDamagedError, AudioTruncatedError

MAGIC = b"OggS"
HEADER = struct.Struct("<4sBBQIIIB")
CONTINUED, FIRST, LAST = 1, 2, 4
# The position of a page on which no packet ends.
NO_POSITION = 2**64 - 1
# Positions in Opus count samples at this rate, Hz; in other streams at the rate of the stream.
OPUS_RATE = 48_000
# Seconds until a decoder of Opus converges after a gap (RFC 7845, section 4.6).
OPUS_SETTLING_S = 0.08
# The bytes of the checksum in a page; they count as 0 when the checksum is computed.
CHECKSUM = slice(22, 26)
# Every segment of a packet has this many bytes, except the last one, which has fewer.
FULL_SEGMENT = 255
BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclasses.dataclass(frozen=True)
class Page:
    """The byte range of a page in its file, and the fields of its header."""

    begin: int
    end: int
    flags: int
    position: int
    stream: int
    number: int


@dataclasses.dataclass(frozen=True)
class OggPages:
    """All pages of a file."""

    path: Path
    name: str
    """The name of the file in error messages."""
    pages: tuple[Page, ...]
    is_opus: bool

    @property
    def n_streams(self) -> int:
        return len({page.stream for page in self.pages})

    @property
    def chain_begins(self) -> list[int]:
        """First bytes of the streams that follow each other; streams that begin together count once."""
        is_first = [bool(page.flags & FIRST) for page in self.pages]
        before = [False, *is_first]
        return [page.begin for page, now, earlier in zip(self.pages, is_first, before, strict=False) if now > earlier]

    @property
    def n_chained(self) -> int:
        """Number of streams that follow each other."""
        return len(self.chain_begins)

    def min_samples(self, sample_rate: int) -> int:
        """Return the least number of samples per channel in the file, at the stream's `sample_rate` in Hz.

        It is 0 if the file has several streams.
        """
        positions = [page.position for page in self.pages if page.position not in (0, NO_POSITION)]
        if not positions or self.n_chained != 1 or self.n_streams != 1:
            return 0
        # A stream that was cut out of a longer one begins at any position, so the first page's samples are not counted.
        n_positions = max(0, positions[-1] - positions[0])
        return n_positions * sample_rate // (OPUS_RATE if self.is_opus else sample_rate)

    def check_checksums(self) -> None:
        """Raise `AudioDamagedError` if the content of a page does not match its checksum."""
        with mapped(self.path) as data:
            for page in self.pages:
                self._checked_content(data, page)

    def packets(self, first: int = 0) -> Iterator[tuple[Page, list[bytes]]]:
        """Yield each page from index `first` on, with the packets that end on it.

        A packet that begins before page `first` is left out. Raises `AudioDamagedError` if a page is damaged.
        """
        with mapped(self.path) as data:
            packet, is_whole = b"", not self.pages[first].flags & CONTINUED
            for page in self.pages[first:]:
                packets = []
                for segment in _segments(self._checked_content(data, page)):
                    packet += segment
                    if len(segment) < FULL_SEGMENT:
                        packets += [packet] * is_whole
                        packet, is_whole = b"", True
                yield page, packets

    def _checked_content(self, data: mmap.mmap, page: Page) -> bytes:
        content = data[page.begin : page.end]
        if not is_intact(content):
            raise AudioDamagedError(
                f"{self.name}: damaged: the Ogg page at byte {page.begin:,} does not match its checksum"
            )
        return content


def read_pages(path: Path, name: str) -> OggPages | None:
    """Read the header of each page; return None if the file is not Ogg. `name` is the file's name in errors.

    Raises `AudioTruncatedError` if the last page does not end its stream, `AudioDamagedError` if pages are missing
    between others, `AudioCorruptError` if other bytes follow the last page.
    """
    with path.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            return None
    with mapped(path) as data:
        pages = tuple(_iter_pages(data))
        _check_end(data, pages, name)
        has_opus = is_opus(data, pages[0])
    _check_numbers(pages, name)
    return OggPages(path, name, pages, has_opus)


def _iter_pages(data: mmap.mmap) -> Iterator[Page]:
    """Yield pages that directly follow each other, up to the first bytes that are not a complete page."""
    begin = 0
    while (page := parse_page(data, begin)) is not None:
        yield page
        begin = page.end


def parse_page(data: mmap.mmap, begin: int) -> Page | None:
    """Return the page that begins at a byte, or None if none does or the file ends within it."""
    if begin + HEADER.size > len(data):
        return None
    magic, _, flags, position, stream, number, _, n_segments = HEADER.unpack_from(data, begin)
    body = begin + HEADER.size + n_segments
    end = body + sum(data[begin + HEADER.size : body])
    if magic != MAGIC or end > len(data):
        return None
    return Page(begin, end, flags, position, stream, number)


def _check_end(data: mmap.mmap, pages: Sequence[Page], name: str) -> None:
    if pages and pages[-1].flags & LAST:
        if trailing := trailing_bytes(data, pages[-1].end):
            raise AudioCorruptError(f"{name}: {trailing}")
        return
    end = pages[-1].end if pages else 0
    if data.find(MAGIC, end + 1) > 0:
        raise AudioDamagedError(f"{name}: damaged: the bytes from {end:,} on are not an Ogg page")
    raise AudioTruncatedError(f"{name}: truncated: the last page of the Ogg stream is missing")


def _check_numbers(pages: Iterable[Page], name: str) -> None:
    numbers: dict[int, int] = {}
    for page in pages:
        if not page.flags & FIRST and page.number != numbers.get(page.stream, -1) + 1:
            raise AudioDamagedError(f"{name}: damaged: Ogg pages are missing before byte {page.begin:,}")
        numbers[page.stream] = page.number


def _segments(content: bytes) -> Iterator[bytes]:
    begin = HEADER.size + content[HEADER.size - 1]
    for size in content[HEADER.size : begin]:
        yield content[begin : begin + size]
        begin += size


def is_opus(data: mmap.mmap, first_page: Page) -> bool:
    """Return whether a file whose stream begins on `first_page` is Opus."""
    return b"OpusHead" in data[first_page.begin : first_page.end]


def is_intact(page: bytes) -> bool:
    """Return whether the content of a page matches its checksum."""
    return page[CHECKSUM] == checksum(page)


def checksum(page: bytes) -> bytes:
    """Compute the checksum of a page.

    It is zlib's CRC-32 with the order of the bits reversed, the initial value 0 and no inversion at the end.
    """
    mirrored = page.translate(BITS_REVERSED)
    crc = zlib.crc32(mirrored[: CHECKSUM.start], 0xFFFF_FFFF)
    crc = zlib.crc32(memoryview(mirrored)[CHECKSUM.stop :], zlib.crc32(bytes(4), crc))
    return (crc ^ 0xFFFF_FFFF).to_bytes(4, "big").translate(BITS_REVERSED)
