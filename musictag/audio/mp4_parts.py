"""Find where bytes are missing from, or were inserted into, the packets of an MP4 file.

The index tells at which byte each packet begins, so that no packet behind such a place can be decoded. The boxes show
how many bytes it is; the place is where packets can no longer be decoded.
"""

import io
import mmap
from collections.abc import Iterator, Sequence
from fractions import Fraction

from musictag.audio import ffmpeg, integrity, pcm
from musictag.audio.ffmpeg_damage import ERRORS
from musictag.audio.integrity import INDEX, SAMPLES, Chunk
from musictag.audio.mixing import Mixer
from musictag.audio.parts import ByteSpan, Part, Parts, SplicedFile

# The first box of the index.
_INDEX_HEADER = b"mvhd"
# Share of the packets from the first displaced one on that cannot be decoded: some can be decoded by chance. Behind
# other damage, packets can be decoded again.
_MIN_FAILED = 0.6
# Packets before the first displaced one that may be wrong as well.
_N_DOUBTFUL = 2

Packet = tuple[int, Fraction, bool]
"""First byte of a packet, its time, s, and whether it cannot be decoded."""


def find_parts(file: io.FileIO, data: mmap.mmap) -> Parts | None:
    """Return the content of a file with its packets where the index expects them; None if they are there already.

    Args:
        file: the open file.
        data: its bytes.
    """
    n_shifted = _n_shifted(data)
    if not n_shifted:
        return None
    packets = list(_packets(file, _spans(len(data), n_shifted, _end_of_samples(data, n_shifted))))
    first = _first_displaced(packets)
    if first is None:
        return None
    doubtful = max(0, first - _N_DOUBTFUL)
    spans = _spans(len(data), n_shifted, packets[doubtful][0])
    with ffmpeg.open_file(SplicedFile(file, spans), "", Mixer()) as decoder:
        n_samples, sample_rate = decoder.n_samples, decoder.sample_rate
    if n_samples is None:
        return None
    lost = [(packets[doubtful][1], packets[min(first + 1, len(packets) - 1)][1])]
    whole = Part(spans, Fraction(0))
    return Parts([whole], Fraction(n_samples, sample_rate), lost, tolerance_s=pcm.TRUNCATION_TOLERANCE_S)


def _samples_box(data: mmap.mmap) -> Chunk | None:
    return next((box for box in integrity.boxes(data) if box.name == SAMPLES), None)


def _n_shifted(data: mmap.mmap) -> int:
    """Return how many bytes were inserted into the packets; negative if bytes are missing; 0 if the boxes fit."""
    samples = _samples_box(data)
    if samples is None or samples.end is None:
        return 0
    indices = [box.begin for box in integrity.boxes(data) if box.name == INDEX]
    if indices and indices[0] < samples.begin:
        is_box = any(box.name.isalnum() for box in integrity.boxes(data) if box.begin == samples.end)
        return 0 if is_box else len(data) - samples.end
    if indices:  # the boxes behind the samples lead to the index
        return 0
    index = data.find(_INDEX_HEADER, samples.content)
    # The name of the header of the index follows its size and that of the index with its name.
    begin = index - 12
    return begin - samples.end if index > 0 and data[begin + 4 : begin + 8] == INDEX else 0


def _end_of_samples(data: mmap.mmap, n_shifted: int) -> int:
    """Return the byte up to which the packets are taken to be in their places, before it is known."""
    samples = _samples_box(data)
    end = len(data) if samples is None or samples.end is None else samples.end
    return min(end, end + n_shifted)


def _spans(n_bytes: int, n_shifted: int, place: int) -> tuple[ByteSpan, ...]:
    """Return a file of `n_bytes` without the bytes inserted at a place, or with other bytes for those missing there."""
    if n_shifted > 0:
        return (0, place), (place + n_shifted, n_bytes)
    return (0, place), (0, -n_shifted), (place, n_bytes)


def _packets(file: io.FileIO, spans: Sequence[ByteSpan]) -> Iterator[Packet]:
    with ffmpeg.open_file(SplicedFile(file, spans), "", Mixer()) as decoder:
        for packet in decoder.packets():
            if packet.pos is None or packet.pts is None or packet.time_base is None:
                continue  # the end of the stream
            try:
                packet.decode()
                is_wrong = False
            except ERRORS:
                is_wrong = True
            yield packet.pos, packet.pts * packet.time_base, is_wrong


def _first_displaced(packets: Sequence[Packet]) -> int | None:
    """Return the first packet from which on most packets cannot be decoded, or None."""
    n_wrong = sum(is_wrong for _, _, is_wrong in packets)
    for first, (_, _, is_wrong) in enumerate(packets):
        if is_wrong and n_wrong >= _MIN_FAILED * (len(packets) - first):
            return first
        n_wrong -= is_wrong
    return None
