"""Find where bytes are missing from, or were inserted into, the packets of an MP4 file.

The index stores at which byte each packet begins, so that no packet after such a place can be decoded. The boxes tell
how many bytes it is. The place is found by decoding: it is where most packets begin to fail.
"""

import io
import mmap
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from musictag.audio import ffmpeg, pcm
from musictag.audio.chunks import INDEX, SAMPLES, Chunk, boxes
from musictag.audio.ffmpeg_damage import ERRORS
from musictag.audio.mixing import Mixer
from musictag.audio.parts import ByteSpan, Part, Parts, SplicedFile

# The first box of the index.
_INDEX_HEADER = b"mvhd"
# Packets are displaced from the first one on that cannot be decoded, if this share of all packets from there on cannot
# be decoded either. Some displaced packets can be decoded by chance; after other damage, all packets can be decoded.
_MIN_FAILED = 0.6
# Packets before the first displaced one that may be wrong as well.
_N_DOUBTFUL = 2


class Packet(NamedTuple):
    """A packet, by its place in the file and in the track."""

    begin: int
    """First byte."""
    begin_s: Fraction
    is_wrong: bool
    """Whether it cannot be decoded."""


def find_parts(file: io.FileIO, data: mmap.mmap) -> Parts | None:
    """Return the content of a file with its packets where the index expects them; None if they are there already.

    Args:
        file: the open file.
        data: its bytes.
    """
    samples = next((box for box in boxes(data) if box.name == SAMPLES), None)
    n_shifted = _n_shifted(data, samples)
    if samples is None or samples.end is None or not n_shifted:
        return None
    # Until the place is known, all packets are taken to be before it.
    end_of_packets = min(samples.end, samples.end + n_shifted)
    packets = list(_packets(file, _spans(len(data), n_shifted, end_of_packets)))
    first = _first_displaced(packets)
    if first is None:
        return None
    doubtful = packets[max(0, first - _N_DOUBTFUL)]
    spans = _spans(len(data), n_shifted, doubtful.begin)
    with ffmpeg.open_file(SplicedFile(file, spans), "", Mixer()) as decoder:
        n_samples, sample_rate = decoder.n_samples, decoder.sample_rate
    if n_samples is None:
        return None
    lost = [(doubtful.begin_s, packets[min(first + 1, len(packets) - 1)].begin_s)]
    whole = Part(spans, Fraction(0))
    return Parts([whole], Fraction(n_samples, sample_rate), lost, tolerance_s=pcm.TRUNCATION_TOLERANCE_S)


def _n_shifted(data: mmap.mmap, samples: Chunk | None) -> int:
    """Return how many bytes were inserted into the packets; negative if bytes are missing; 0 if the boxes fit.

    `samples` is the box of the packets.
    """
    if samples is None or samples.end is None:
        return 0
    found = list(boxes(data))
    indices = [box.begin for box in found if box.name == INDEX]
    if indices and indices[0] < samples.begin:
        is_box = any(box.name.isalnum() for box in found if box.begin == samples.end)
        return 0 if is_box else len(data) - samples.end
    if indices:  # the boxes after the packets lead to the index
        return 0
    index = data.find(_INDEX_HEADER, samples.content)
    # The name of the header of the index follows its size and that of the index with its name.
    begin = index - 12
    return begin - samples.end if index > 0 and data[begin + 4 : begin + 8] == INDEX else 0


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
            yield Packet(packet.pos, packet.pts * packet.time_base, is_wrong)


def _first_displaced(packets: Sequence[Packet]) -> int | None:
    """Return the first packet from which on most packets cannot be decoded, or None."""
    n_wrong = sum(packet.is_wrong for packet in packets)
    for first, packet in enumerate(packets):
        if packet.is_wrong and n_wrong >= _MIN_FAILED * (len(packets) - first):
            return first
        n_wrong -= packet.is_wrong
    return None
