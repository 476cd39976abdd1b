"""Find the frames of an AAC file without a container (ADTS, ISO/IEC 13818-7) and what is missing between them."""

import array
import mmap
import re
from fractions import Fraction
from pathlib import Path

from musictag.audio.parts import Part, Parts, mapped
from musictag.audio.trailing import TOLERANCE_BYTES, after_tags

RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
FRAME_SAMPLES = 1_024
_HEADER_BYTES = 7
# Frames that follow each other where a header is not a chance match.
_CONSECUTIVE_FRAMES = 4
_SYNC = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]")


def read_parts(path: Path) -> Parts | None:
    """Return the undamaged parts of a local file, as `find_parts` does."""
    with mapped(path) as data:
        return find_parts(data)


def find_parts(data: mmap.mmap) -> Parts | None:
    """Return the undamaged parts of a file; None if it does not begin with an ADTS frame, or its last frame is cut off.

    No header tells how many frames there are. The number of lost ones is estimated by their bytes.
    """
    begin = after_tags(data, 0)
    first_header = data[begin : begin + 4]
    if not _frame_bytes(data, begin, first_header):
        return None
    begins, ends = array.array("q"), array.array("q")
    position: int | None = begin
    runs = [0]
    while position is not None and position < len(data):
        if length := _frame_bytes(data, position, first_header):
            begins.append(position)
            position += length
            ends.append(position)
        elif (after := after_tags(data, position)) > position:
            position = after
        else:
            # A frame may begin before the position, if the last one is not complete.
            position = _next_frame(data, begins[-1] + _HEADER_BYTES, first_header)
            runs.append(len(begins))
    if ends[-1] > len(data):  # the file is truncated
        return None
    runs = [first for first in runs if first < len(begins)]
    n_after = max(0, len(data) - after_tags(data, ends[-1]))
    return _parts_of_runs(begins, ends, runs, n_after, RATES[first_header[2] >> 2 & 0xF])


def _parts_of_runs(
    begins: "array.array[int]", ends: "array.array[int]", firsts: list[int], n_after: int, rate: int
) -> Parts:
    """Return the parts of runs that begin with the frames `firsts`, in a file with `n_after` bytes after the last."""
    mean_bytes = sum(end - begin for begin, end in zip(begins, ends, strict=True)) / len(begins)
    # One frame before a part is needed by the transform, and its first frames by the replication of bands.
    settling_s = 2 * FRAME_SAMPLES / rate
    parts: list[Part] = []
    n_before = 0
    for first, next_first in zip(firsts, [*firsts[1:], len(begins)], strict=True):
        # The last frame before a gap may be the place of the damage, and is left out.
        last = next_first - int(next_first < len(begins))
        if last > first:
            begin_s = Fraction(n_before * FRAME_SAMPLES, rate)
            parts.append(Part(((begins[first], ends[last - 1]),), begin_s, settling_s if parts else 0.0))
            n_before += last - first
        if next_first < len(begins):
            n_before += max(1, round((begins[next_first] - begins[last]) / mean_bytes))
    n_lost_at_end = round(n_after / mean_bytes) if n_after > TOLERANCE_BYTES else 0
    duration_s = Fraction((n_before + n_lost_at_end) * FRAME_SAMPLES, rate)
    return Parts(parts, duration_s, ends_early=n_lost_at_end > 0)


def _next_frame(data: mmap.mmap, begin: int, first_header: bytes) -> int | None:
    for found in _SYNC.finditer(data, begin):
        position = found.start()
        for _ in range(_CONSECUTIVE_FRAMES):
            length = _frame_bytes(data, position, first_header)
            position += length
            if not length:
                break
        else:
            return found.start()
    return None


def _frame_bytes(data: mmap.mmap, begin: int, first_header: bytes) -> int:
    """Return the length of the frame at a byte, with its header; 0 if none with the sample rate of the first begins."""
    header = data[begin : begin + _HEADER_BYTES]
    if len(header) < _HEADER_BYTES or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    is_alike = header[2] & 0x3C == first_header[2] & 0x3C  # the sample rate
    length = (header[3] & 0b11) << 11 | header[4] << 3 | header[5] >> 5
    return length if is_alike and header[2] >> 2 & 0xF < len(RATES) and length > _HEADER_BYTES else 0
