"""Find the undamaged frames of a FLAC file (RFC 9639) by their checksums."""

import mmap
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from musictag.audio import flac
from musictag.audio.flac import FrameHeader, StreamInfo
from musictag.audio.parts import Part, Parts
from musictag.audio.trailing import TOLERANCE_BYTES, n_unknown_bytes

# Frames whose checksums are computed at once, and their longest length; a frame has some 16 kB.
_FRAMES_AT_ONCE, _MAX_FRAME_BYTES = 256, 1 << 18


def find_parts(data: mmap.mmap) -> Parts | None:
    """Return the undamaged parts of a file; None if it is not FLAC, or its header does not tell the length."""
    info = flac.stream_info(data)
    if info is None or not (info.n_samples and info.sample_rate):
        return None
    header = (0, info.first_frame)
    parts: list[Part] = []
    end_byte = end_sample = 0
    for begin, end, sample, n_samples in _intact_frames(data, info):
        if parts and (begin, sample) == (end_byte, end_sample):
            parts[-1] = Part((header, (parts[-1].spans[1][0], end)), parts[-1].begin)
        elif sample >= end_sample:
            parts.append(Part((header, (begin, end)), Fraction(sample, info.sample_rate)))
        else:  # a copy of a frame
            continue
        end_byte, end_sample = end, sample + n_samples
    return Parts(parts, Fraction(info.n_samples, info.sample_rate)) if parts else None


def end_of_last_frame(data: mmap.mmap) -> int | None:
    """Return the first byte after the frame with the last sample; None if the frame is at the end of the file.

    Also return None if the frame is missing or damaged.
    """
    begin, info = flac.last_frame(data), flac.stream_info(data)
    if begin is None or info is None:
        return None
    n_bytes = len(data) - begin
    if n_bytes <= (info.max_frame_bytes or _MAX_FRAME_BYTES) + TOLERANCE_BYTES:
        return None
    crc, first_end = 0, None
    for at, byte in enumerate(data[begin : begin + _MAX_FRAME_BYTES], begin + 1):
        before, crc = crc, (crc << 8 ^ int(_CRC16_OF_BYTE[crc >> 8 ^ byte])) & 0xFFFF
        if crc == 0 and before != 0:  # at the end of the frame, and by chance elsewhere; it stays 0 in zeros
            if n_unknown_bytes(data, at) <= TOLERANCE_BYTES:
                return at
            first_end = first_end or at
    return first_end


def _intact_frames(data: mmap.mmap, info: StreamInfo) -> Iterator[tuple[int, int, int, int]]:
    """Yield first byte, byte after it, first sample and number of samples of each frame whose checksum is right."""
    found = (match.start() for match in flac.FRAME.finditer(data, info.first_frame))
    headers = ((at, flac.parse_header(data[at : at + flac.MAX_HEADER_BYTES])) for at in found)
    frames = [(at, *position) for at, header in headers if header and (position := _position(header, info))]
    if not frames:
        return
    ends = [*(at for at, _, _ in frames[1:]), len(data)]
    ends = [min(end, at + _MAX_FRAME_BYTES) for (at, _, _), end in zip(frames, ends, strict=True)]
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        some = slice(first, first + _FRAMES_AT_ONCE)
        crcs = _crc16([data[at:end] for (at, _, _), end in zip(frames[some], ends[some], strict=True)])
        for (at, sample, n_samples), end, crc in zip(frames[some], ends[some], crcs.tolist(), strict=True):
            if crc == 0:
                yield at, end, sample, n_samples


def _position(header: FrameHeader, info: StreamInfo) -> tuple[int, int] | None:
    """Return first sample and number of samples of a frame; None if the file cannot hold such a frame."""
    sample = flac.first_sample(header, info.frame_samples)
    if sample is None or sample + header.n_samples > info.n_samples:
        return None
    is_last = sample + header.n_samples == info.n_samples
    is_possible = is_last or info.frame_samples in (None, header.n_samples)
    return (sample, header.n_samples) if is_possible else None


def _crc16(contents: Sequence[bytes]) -> npt.NDArray[np.uint16]:
    """Return the CRC-16 of each content, polynomial 0x8005, initial value 0.

    It is 0 for a frame with its checksum. Zeros before a content do not change it, so all are brought to one length.
    """
    n_bytes = max(map(len, contents))
    columns = np.zeros((n_bytes, len(contents)), np.uint8)
    for column, content in enumerate(contents):
        columns[n_bytes - len(content) :, column] = np.frombuffer(content, np.uint8)
    crcs = np.zeros(len(contents), np.uint16)
    for row in columns:
        crcs = crcs << 8 ^ _CRC16_OF_BYTE[crcs >> 8 ^ row]
    return crcs


def _crc16_table() -> npt.NDArray[np.uint16]:
    crcs = np.arange(256, dtype=np.uint32) << 8
    for _ in range(8):
        crcs = crcs << 1 ^ np.where(crcs & 0x8000, 0x1_8005, 0).astype(np.uint32)
    return crcs.astype(np.uint16)


_CRC16_OF_BYTE = _crc16_table()
