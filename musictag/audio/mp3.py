"""Find the frames of an MP3 or MP2 file, and check whether its channels may be mixed before the inverse transform.

Mixing spectra instead of samples saves half of the transforms, and is correct if both channels use the same windows.
Most files do, but the format (ISO/IEC 11172-3 and 13818-3) allows different windows.
"""

import array
import dataclasses
import math
import mmap
import re
import struct

import numpy as np
import numpy.typing as npt

from musictag.audio.mpeg_headers import (
    CRC_BYTES,
    HEADER_BYTES,
    IS_MONO,
    KINDS,
    LAYER_3,
    MPEG_1,
    RATES,
    SIDE_BYTES,
    frame_lengths,
    layer,
    version,
)
from musictag.audio.parts import merged_spans
from musictag.audio.trailing import after_tags

# The bit offsets after the header of the windows of both channels, in two granules (MPEG 1) or one (MPEG 2). A window
# has four bits: one is set if it is not the normal window, two are its type, one is set if block sizes are mixed.
WINDOWS_OF_1, WINDOWS_OF_2 = ((53, 112), (171, 230)), ((48, 111),)
# The header of a frame, and the number of frames that follow each other where it is not a chance match.
ANY_FRAME, CONSECUTIVE_FRAMES = re.compile(rb"\xff[" + b"".join(re.escape(bytes([kind])) for kind in KINDS) + rb"]"), 4
# The first frame holds a Xing or Info header within this many bytes, after at most 38 bytes of other headers.
XING_WITHIN = 64
# Where the numbers of samples that the encoder added begin in this header, after the name of the encoder.
ENCODER, ADDED_SAMPLES = 120, 141
# Samples by which a decoder delays what it decodes.
DECODER_DELAY = 529
# Without a Xing or Info header, more bytes before the first frame than this share of the file are lost frames.
MAX_JUNK_SHARE = 0.05
# A frame may use bits that are stored up to this many bytes earlier, headers not counted.
RESERVOIR_BYTES = 511
# Bytes of the smallest frame (8 kbit/s) without its header and side information.
MIN_PAYLOAD_BYTES = 11


@dataclasses.dataclass(frozen=True)
class Declared:
    """The values of the Xing or Info header in the first frame."""

    n_frames: int
    end: int
    """First byte after the last frame."""
    n_before: int
    """Samples that decoders leave out at the beginning."""
    n_after: int
    """Samples that decoders leave out at the end."""


@dataclasses.dataclass(frozen=True)
class Frames:
    """The frames of a file, all of one MPEG version and layer. A frame with a Xing or Info header is left out."""

    kind: int
    """Second byte of each header, as if no CRC followed."""
    sample_rate: int
    """Sample rate in Hz."""
    first: int
    """First byte of the first frame, which may have a Xing or Info header."""
    begins: npt.NDArray[np.int64]
    """First byte of each frame."""
    ends: npt.NDArray[np.int64]
    """First byte after each frame, according to its header."""
    is_contiguous: npt.NDArray[np.bool_]
    """Whether a frame ends where the next one begins, or where tags begin that the next one follows."""
    n_bytes_before: int
    """Bytes before the first frame that are no tag, if frames may be lost there.

    If the file has a frame with a Xing or Info header, they follow it; else they are more than a twentieth of the file.
    """
    declared: Declared | None

    @property
    def n_samples(self) -> int:
        """Samples of each frame."""
        return 1_152 if version(self.kind) == MPEG_1 or not self.is_layer_3 else 576

    @property
    def is_layer_3(self) -> bool:
        """Whether the file is MP3, and not MP2."""
        return layer(self.kind) == LAYER_3

    def side_begins(self, data: npt.NDArray[np.uint8], frames: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the first bytes of the side information of frames that begin at the bytes `frames` of `data`."""
        has_crc = data[frames + 1] & 1 == 0
        return frames + HEADER_BYTES + np.where(has_crc, CRC_BYTES, 0)

    @property
    def is_several_files(self) -> bool:
        """Whether there are more frames than the file declares: files are joined by appending one to another."""
        # Some programs declare too few bytes, others too few frames.
        declared = self.declared
        return (
            declared is not None
            and len(self.begins) > declared.n_frames + 1
            and bool(self.begins[-CONSECUTIVE_FRAMES:].min() >= declared.end)
        )

    @property
    def is_complete(self) -> bool:
        """Whether the file has all frames that its header declares."""
        return self.declared is not None and not self.missing_s

    @property
    def missing_s(self) -> float:
        """Length of the frames that the header declares and the file does not have, s."""
        n_missing = self.declared.n_frames - len(self.begins) if self.declared else 0
        return max(0, n_missing) * self.n_samples / self.sample_rate

    def n_complete(self, n_bytes: int) -> int:
        """Return the number of complete frames in a file of `n_bytes`; the last frame of a file is often cut off."""
        return len(self.ends) - int(self.ends[-1] > n_bytes)

    def spans(self) -> tuple[tuple[int, int], ...]:
        """Return the bytes of all frames, from the one with the Xing or Info header on, without tags between them."""
        return merged_spans(
            [(self.first, int(self.begins[0])), *zip(self.begins.tolist(), self.ends.tolist(), strict=True)]
        )

    def contiguous(self, first: int) -> npt.NDArray[np.int64]:
        """Return the first bytes of the frames that directly follow each other, from the one at byte `first` on."""
        index = int(np.searchsorted(self.begins, first))
        begins = self.begins[index:]
        if not len(begins) or begins[0] != first:
            return np.zeros(0, np.int64)
        breaks = np.flatnonzero(begins[1:] != self.ends[index:-1])
        return begins[: breaks[0] + 1] if len(breaks) else begins


def n_preframes(begins: npt.NDArray[np.int64]) -> int:
    """Return how many frames to decode before a part: those with bits of its first frame, and two more to settle."""
    smallest = int(np.diff(begins).min(initial=RESERVOIR_BYTES)) - HEADER_BYTES - CRC_BYTES - SIDE_BYTES
    return 2 + math.ceil(RESERVOIR_BYTES / max(MIN_PAYLOAD_BYTES, smallest))


def find_frames(data: mmap.mmap) -> Frames | None:
    """Find the frames in the bytes of a file; return None if it has no frames of MP3 or MP2."""
    start = after_tags(data, 0)
    has_header = _count_frames(data, start, 1) == 1 and _xing_header(data, start) >= 0
    begin = start if has_header else _first_frame(data, start, ANY_FRAME)
    if begin is None:
        return None
    kind, rate_code = data[begin + 1] | 1, data[begin + 2] >> 2 & 0b11
    lengths, same_kind = frame_lengths(kind), re.compile(b"\xff[" + re.escape(bytes([kind & ~1, kind])) + b"]")
    declared, first = _declared(data, begin), begin
    if _xing_header(data, begin) >= 0:
        begin += lengths[data[begin + 2]]
    begins, breaks = array.array("q"), []  # an array, because an audiobook has millions of frames
    position: int | None = begin
    end = len(data) - HEADER_BYTES
    while position is not None and position <= end:
        if data[position] == 0xFF and data[position + 1] | 1 == kind and (length := lengths[data[position + 2]]):
            begins.append(position)
            position += length
        elif (after := after_tags(data, position)) > position:
            position = after
        else:
            # Frames may begin before the position, if the last frame is not complete.
            breaks.append(len(begins) - 1)
            position = _first_frame(data, (begins[-1] if begins else begin) + HEADER_BYTES, same_kind)
    if not begins:
        return None
    frames = np.frombuffer(begins, np.int64)
    ends = frames + np.array(lengths)[np.frombuffer(data, np.uint8)[frames + 2]]
    is_contiguous = np.ones(len(begins), np.bool_)
    is_contiguous[[at for at in breaks if 0 <= at < len(begins) - 1]] = False
    rate = RATES[version(kind)][rate_code]
    if begin > first:
        n_before = max(0, int(frames[0]) - after_tags(data, begin))
    else:
        n_junk = first - after_tags(data, 0)
        n_before = n_junk if n_junk >= MAX_JUNK_SHARE * len(data) else 0
    return Frames(kind, rate, first, frames, ends, is_contiguous, n_before, declared)


def _first_frame(data: mmap.mmap, begin: int, header: "re.Pattern[bytes]") -> int | None:
    """Return the first byte of the first `CONSECUTIVE_FRAMES` frames that directly follow each other, or None."""
    for found in header.finditer(data, begin):
        if _count_frames(data, found.start(), CONSECUTIVE_FRAMES) == CONSECUTIVE_FRAMES:
            return found.start()
    return None


def _count_frames(data: mmap.mmap, begin: int, max_frames: int) -> int:
    """Return the number of frames that directly follow each other from a byte on, up to a limit."""
    n_frames = 0
    while n_frames < max_frames and begin + HEADER_BYTES <= len(data):
        kind = data[begin + 1]
        length = frame_lengths(kind)[data[begin + 2]] if data[begin] == 0xFF and kind in KINDS else 0
        if not length:
            break
        n_frames, begin = n_frames + 1, begin + length
    return n_frames


def _xing_header(data: mmap.mmap, begin: int) -> int:
    """Return the first byte of the Xing or Info header in the frame at a byte; -1 if it has none.

    Decoders leave out a frame with such a header.
    """
    return max(data.find(name, begin, begin + XING_WITHIN) for name in (b"Xing", b"Info"))


def _declared(data: mmap.mmap, begin: int) -> Declared | None:
    """Return what the Xing or Info header in the frame at a byte declares, or None."""
    header = _xing_header(data, begin)
    if header < 0 or header + ADDED_SAMPLES + 3 > len(data):
        return None
    flags, n_frames, n_bytes = struct.unpack_from(">III", data, header + 4)
    if flags & 0b11 != 0b11 or not (n_frames and n_bytes):
        return None
    added = int.from_bytes(data[header + ADDED_SAMPLES : header + ADDED_SAMPLES + 3])
    if not data[header + ENCODER]:
        return Declared(n_frames, begin + n_bytes, 0, 0)
    return Declared(n_frames, begin + n_bytes, (added >> 12) + DECODER_DELAY, (added & 0xFFF) - DECODER_DELAY)


def changes_sample_rate(data: mmap.mmap, frames: Frames) -> bool:
    """Return whether at least a twentieth of the frames of the file with the bytes `data` has another sample rate."""
    counts = np.bincount(np.frombuffer(data, np.uint8)[frames.begins + 2] >> 2 & 0b11)
    return int((counts * 20 >= len(frames.begins)).sum()) > 1


def is_uniform(data: mmap.mmap, frames: Frames) -> bool:
    """Return whether all frames of the file with the bytes `data` have the same number of channels."""
    is_mono = np.frombuffer(data, np.uint8)[frames.begins + 3] >> 6 == IS_MONO
    return bool(is_mono.all() or not is_mono.any())


def channels_agree(data: mmap.mmap, frames: Frames) -> bool:
    """Return whether both channels use the same windows in all frames of an MP3 file with the bytes `data`."""
    if not frames.is_layer_3:
        return False
    content = np.frombuffer(data, np.uint8)
    begins = frames.begins[frames.begins + HEADER_BYTES + CRC_BYTES + SIDE_BYTES < len(content)]
    stereo = frames.side_begins(content, begins[content[begins + 3] >> 6 != IS_MONO])

    def windows(bit: int) -> npt.NDArray[np.uint16]:
        two_bytes = content[stereo + bit // 8].astype(np.uint16) << 8 | content[stereo + bit // 8 + 1]
        bits = two_bytes >> (12 - bit % 8) & 0b1111
        return np.where(bits >= 0b1000, bits, 0)  # after a normal window, these bits have another meaning

    granules = WINDOWS_OF_1 if version(frames.kind) == MPEG_1 else WINDOWS_OF_2
    return all(np.array_equal(windows(left), windows(right)) for left, right in granules)
