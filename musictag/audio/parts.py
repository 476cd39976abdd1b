"""The undamaged parts of a damaged file, and the time that is lost between them.

The modules of the formats find the parts: runs of frames or pages that are complete and follow each other. `damaged`
decodes them and puts each where it belongs in the track.
"""

import bisect
import contextlib
import dataclasses
import io
import math
import mmap
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO

ByteSpan = tuple[int, int]
"""The first byte of a part of a file, and the first byte after it."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Frames or pages of a file that a decoder can decode as a file of their own."""

    spans: tuple[ByteSpan | bytes, ...]
    """Their bytes, after those of the header if a decoder needs one; `bytes` are added to those of the file."""
    begin: "Fraction | Anchor"
    """The time of their first sample in the track, s, or the beginning of the part, whose end has a known time."""
    settling_s: float = 0.0
    """Seconds until the decoder no longer depends on what is lost before the part."""


@dataclasses.dataclass(frozen=True)
class Anchor:
    """The beginning of a part, if the format stores where it ends in the track."""

    spans: tuple[ByteSpan, ...]
    """Its bytes, which can be decoded as a file of their own."""
    end_s: Fraction
    """The time after its last sample, s."""
    follows_header: bool
    """Whether it follows the header, so that nothing is lost before it."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """All undamaged parts of a file, in their order."""

    parts: Sequence[Part]
    duration_s: Fraction
    """Length of the track, s, with what is lost."""
    lost: Sequence[tuple[Fraction, Fraction]] = ()
    """Begin and end of what is lost within parts, s."""
    begins_late: bool = False
    """Whether something is lost before the first part."""
    ends_early: bool = False
    """Whether something is lost after the last part, although no header tells the length."""
    has_other_bytes: bool = False
    """Whether some bytes belong to no part. Only formats whose checksums show all damage set this.

    If no part is damaged, such a file has the whole track.
    """
    tolerance_s: float = 0.0
    """Seconds by which the track may be shorter or longer, if its length is an estimate."""

    @property
    def is_damaged(self) -> bool:
        """Whether something is missing between or within the parts."""
        return len(self.parts) > 1 or bool(self.lost) or self.begins_late or self.ends_early

    def first_damage(self) -> str:
        """Return where the first damage is, as part of an error message."""
        places = [part.begin for part in self.parts[1:2] if isinstance(part.begin, Fraction)]
        places += [begin for begin, _ in self.lost[:1]]
        if not places and self.ends_early:
            return "bytes at the end are no frames"
        first = max(Fraction(0), min(places)) if places and not self.begins_late else Fraction(0)
        return f"frames are missing or wrong after {float(first):.2f} s"


class Damage:
    """The times of a track that are lost."""

    def __init__(self, duration_s: float = math.inf) -> None:
        """Start without damage; `duration_s` is the length of the track, s."""
        self.duration_s = duration_s
        self.spans: list[tuple[float, float]] = []
        """Begin and end of each, s; sorted, and separate from each other."""
        self.seconds = 0.0
        """Their length in all, s."""

    def add(self, begin_s: float, end_s: float) -> None:
        """Add the time from `begin_s` to `end_s`, s, which may overlap with times that were added before."""
        begin_s, end_s = max(0.0, begin_s), min(end_s, self.duration_s)
        if end_s <= begin_s:
            return
        first = bisect.bisect_left(self.spans, begin_s, key=lambda span: span[1])
        last = bisect.bisect_right(self.spans, end_s, key=lambda span: span[0])
        overlapping = self.spans[first:last]
        begin_s = min([begin_s, *(begin for begin, _ in overlapping)])
        end_s = max([end_s, *(end for _, end in overlapping)])
        self.spans[first:last] = [(begin_s, end_s)]
        self.seconds += end_s - begin_s - sum(end - begin for begin, end in overlapping)

    def touches(self, begin_s: float, end_s: float) -> bool:
        """Return whether some of the time from `begin_s` to `end_s`, s, is lost."""
        first = bisect.bisect_right(self.spans, begin_s, key=lambda span: span[1])
        return first < len(self.spans) and self.spans[first][0] < end_s


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Map the bytes of a local file, which must not be empty."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def merged_spans(spans: Iterable[ByteSpan]) -> tuple[ByteSpan, ...]:
    """Return ascending spans of bytes, of which those that directly follow each other are one."""
    merged: list[ByteSpan] = []
    for begin, end in spans:
        if merged and begin == merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((begin, end))
    return tuple(merged)


class SplicedFile(io.RawIOBase):
    """A file that is made of spans of another file and of given bytes, in their order."""

    def __init__(self, file: IO[bytes], spans: Iterable[ByteSpan | bytes]) -> None:
        self._file, self._spans, self._position = file, list(spans), 0
        # Where each span begins in this file, and where the last one ends.
        self._begins = [0]
        for span in self._spans:
            self._begins.append(self._begins[-1] + (len(span) if isinstance(span, bytes) else span[1] - span[0]))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._begins[-1]}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return bytes of one span: fewer than `size` do not mean that the file ends."""
        if self._position >= self._begins[-1]:
            return b""
        index = bisect.bisect_right(self._begins, self._position) - 1
        span, offset = self._spans[index], self._position - self._begins[index]
        n_left = self._begins[index + 1] - self._position
        n_bytes = n_left if size < 0 else min(size, n_left)
        if isinstance(span, bytes):
            content = span[offset : offset + n_bytes]
        else:
            self._file.seek(span[0] + offset)
            content = self._file.read(n_bytes)
        self._position += len(content)
        return content
