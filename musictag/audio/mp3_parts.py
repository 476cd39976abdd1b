"""Find what is damaged in an MP3 or MP2 file, as far as headers and side information show it.

Each frame of MP3 declares how many bits of sound it has and where they begin, which may be in bytes of frames before
it. Both must fit (ISO/IEC 11172-3, 2.4.3.4). Bits of sound themselves have no checksum.
"""

import itertools
import math
import mmap
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from musictag.audio import mp3
from musictag.audio.mp3 import Frames
from musictag.audio.mpeg_headers import IS_MONO, MPEG_1, version
from musictag.audio.parts import Part, Parts, merged_spans
from musictag.audio.trailing import TOLERANCE_BYTES, after_tags

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Run = tuple[int, int]
"""Complete frames that follow each other: the number of the first, and of the one after the last."""

# By whether a frame is MPEG 1, and whether it is mono: the bytes of side information, the number of bits that tell
# where the sound begins, and where the numbers of bits of its granules and channels are, which have 12 bits each.
_SIDE_INFORMATION = {
    (True, True): (17, 9, (18, 77)),
    (True, False): (32, 9, (20, 79, 138, 197)),
    (False, True): (9, 8, (9,)),
    (False, False): (17, 8, (10, 73)),
}
_LENGTH_BITS = 12
# Less than this share of a file must be frames, or little is known of its format.
_MIN_SHARE = 0.5
# Samples until a decoder no longer depends on the frame before: half a transform and the filterbank.
_SETTLING_SAMPLES = 1_152


def find_parts(data: mmap.mmap, frames: Frames) -> Parts | None:
    """Return the undamaged parts of a file with `frames`; None if less than half of it are frames."""
    n_frames = frames.n_complete(len(data))  # decoders leave out the last one if it is cut off
    n_bytes = int((frames.ends - frames.begins)[:n_frames].sum())
    if n_frames < mp3.CONSECUTIVE_FRAMES or n_bytes < _MIN_SHARE * (len(data) - int(frames.begins[0])):
        return None
    runs = _runs(frames, n_frames)
    n_lost = _lost_frames(data, frames, runs, n_bytes / n_frames)
    declared = frames.declared if not frames.is_several_files else None
    skipped = declared.n_before if declared else 0

    def seconds(n_before: int) -> Fraction:
        return Fraction(n_before * frames.n_samples - skipped, frames.sample_rate)

    content, n_before = np.frombuffer(data, np.uint8), n_lost[0]
    begins_late = n_before > 0
    parts: list[Part] = []
    lost: list[tuple[Fraction, Fraction]] = []
    for number, (run, n_missing) in enumerate(zip(runs, n_lost[1:], strict=True)):
        # Tags may be between frames.
        spans = zip(frames.begins[slice(*run)].tolist(), frames.ends[slice(*run)].tolist(), strict=True)
        parts.append(Part(merged_spans(spans), seconds(n_before), _SETTLING_SAMPLES / frames.sample_rate))
        if frames.is_layer_3:
            fits = _fits_reservoir(content, frames, run, is_first=number == 0 and not begins_late)
            # A frame overlaps with the next one.
            lost.extend((seconds(frame), seconds(frame + 2)) for frame in (np.flatnonzero(~fits) + n_before).tolist())
        n_before += run[1] - run[0] + n_missing
    duration_s = seconds(n_before) - Fraction(max(0, declared.n_after) if declared else 0, frames.sample_rate)
    ends_early = declared is None and n_lost[-1] > 0
    return Parts(parts, duration_s, lost, begins_late=begins_late, ends_early=ends_early)


def _runs(frames: Frames, n_frames: int) -> list[Run]:
    """Return the runs of complete frames, without the last one before a gap, which may be the place of the damage."""
    breaks = (np.flatnonzero(~frames.is_contiguous[: n_frames - 1]) + 1).tolist()
    runs = [*zip([0, *breaks[:-1]], [end - 1 for end in breaks], strict=True)] if breaks else []
    runs.append((breaks[-1] if breaks else 0, n_frames))
    return [(first, end) for first, end in runs if end > first]


def _lost_frames(data: mmap.mmap, frames: Frames, runs: list[Run], frame_bytes: float) -> list[int]:
    """Return how many frames, of `frame_bytes` on average, are lost before the first run and after each run."""
    lost = [_n_frames_of(frames.n_bytes_before, frame_bytes)]
    for (_, end), (next_first, _) in itertools.pairwise(runs):
        gap = int(frames.begins[next_first] - frames.ends[end - 1])
        lost.append(max(_n_frames_of(gap, frame_bytes), next_first - end))
    n_after = len(data) - after_tags(data, int(frames.ends[runs[-1][1] - 1]))
    lost.append(math.ceil(n_after / frame_bytes - 1) if n_after > max(TOLERANCE_BYTES, frame_bytes) else 0)
    if frames.declared is None or frames.is_several_files:
        return lost
    # The header tells how many are lost in all. Bytes that were inserted seem to be lost frames.
    n_missing = frames.declared.n_frames - sum(end - first for first, end in runs) - sum(lost)
    ends_early = not any(lost[:-1]) or int(frames.ends[-1]) > len(data)
    at = len(lost) - 1 if n_missing > 0 and ends_early else int(np.argmax(lost))
    lost[at] = max(0, lost[at] + n_missing)
    return lost


def _n_frames_of(n_bytes: int, frame_bytes: float) -> int:
    """Return how many frames a gap of `n_bytes` stands for: one more from a tenth of a frame on."""
    return max(0, math.ceil(n_bytes / frame_bytes - 0.1))


def _fits_reservoir(data: Bytes, frames: Frames, run: Run, *, is_first: bool) -> npt.NDArray[np.bool_]:
    """Return for each frame of a run whether the bits of its sound are where they can be.

    The first run of a file may refer to frames before it: files are cut without changing their frames.
    """
    begins, ends = frames.begins[slice(*run)], frames.ends[slice(*run)]
    side_bytes, back, sound_bits = (np.zeros(len(begins), np.int64) for _ in range(3))
    is_mono = data[begins + 3] >> 6 == IS_MONO
    for mono in (True, False):
        at = np.flatnonzero(is_mono == mono)
        side = frames.side_begins(data, begins[at])
        n_side, back_bits, lengths = _SIDE_INFORMATION[version(frames.kind) == MPEG_1, mono]
        side_bytes[at] = n_side
        back[at] = _bits(data, side, 0, back_bits)
        sound_bits[at] = sum(_bits(data, side, length, _LENGTH_BITS) for length in lengths)
    payload = ends - frames.side_begins(data, begins) - side_bytes
    end_of_payload = np.cumsum(payload)
    first_byte = end_of_payload - payload - back
    end = first_byte + -(-sound_bits // 8)
    fits: npt.NDArray[np.bool_] = end <= end_of_payload
    if not is_first:
        fits &= first_byte >= 0
    # Of two frames with the same bytes, either may be wrong.
    overlaps = first_byte[1:] < end[:-1]
    fits[1:] &= ~overlaps
    fits[:-1] &= ~overlaps
    return fits


def _bits(data: Bytes, begins: Integers, offset: int, n_bits: int) -> Integers:
    """Return the unsigned numbers of `n_bits` (up to 16), `offset` bits after each byte of `begins`."""
    at = begins + offset // 8
    three_bytes = data[at].astype(np.int64) << 16 | data[at + 1].astype(np.int64) << 8 | data[at + 2]
    return three_bytes >> (24 - offset % 8 - n_bits) & ((1 << n_bits) - 1)
