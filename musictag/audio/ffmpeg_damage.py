"""Decode packets with FFmpeg, and continue after those that cannot be decoded."""

import math
from collections.abc import Iterable, Iterator

import av
import numpy as np

from musictag.audio.parts import Damage
from musictag.errors import AudioDamagedError

# PyAV also raises ValueError for values from FFmpeg that it does not expect, and OSError from the open file.
ERRORS = (av.error.FFmpegError, OSError, ValueError)
# A stream whose first frame is later than this, s, has lost its beginning.
_MAX_BEGIN_S = 0.25
# Timestamps of Matroska have this unit, s.
_TIME_UNIT_S = 0.001
# A longer gap, s, is a damaged timestamp.
_MAX_GAP_S = 600.0


def frames_around_damage(
    packets: Iterable["av.packet.Packet[av.AudioStream]"],
    sample_rate: int,
    damage: Damage,
    *,
    jitter_s: float,
    overlap: bool,
    settling_s: float,
) -> Iterator[av.AudioFrame]:
    """Yield the decoded frames of packets, and silent frames for packets that are missing or cannot be decoded.

    Args:
        packets: the packets of one stream, in their order.
        sample_rate: the rate of the stream, Hz; frames with another rate count as lost.
        damage: gets the times of the silent frames, s. The first frame begins at 0.
        jitter_s: seconds by which timestamps may be wrong; a larger gap between them is a lost packet. Infinity if
            the format has no timestamps.
        overlap: whether a frame depends on the one before, so that the frame after silence is wrong as well.
        settling_s: seconds after silence that are wrong as well. If it is not 0, the decoder may yield a part of a
            frame with the next one, so that the frame before silence is wrong as well.

    Raises:
        AudioDamagedError: a timestamp is more than 600 s after the frame before, or the first one after 0.25 s. The
            message is the reason alone.
    """
    n_yielded = n_lost = 0
    expected: int | None = None  # the position after the last frame, by its timestamp
    last: av.AudioFrame | None = None
    for packet in _readable(packets):
        frames = _decoded(packet)
        if frames is None:
            n_lost += _packet_samples(packet, sample_rate) or (last.samples if last else 0)
            continue
        for frame in frames:
            is_other = last is not None and frame.layout.nb_channels != last.layout.nb_channels
            if frame.sample_rate != sample_rate or (is_other and math.isfinite(jitter_s)):
                n_lost += frame.samples
                continue
            position = _position(frame, sample_rate) if math.isfinite(jitter_s) else None
            if last is None and position is not None and position > _MAX_BEGIN_S * sample_rate:
                raise AudioDamagedError("the beginning is lost")
            is_damaged = n_lost > 0
            if position is not None and expected is not None:
                gap = position - expected
                is_damaged = is_damaged or gap > jitter_s * sample_rate
                n_lost = _whole_frames(max(0, gap), frame) if is_damaged else 0
            if is_damaged:
                begin = n_yielded - (last.samples if last and settling_s else 0)
                end = n_yielded + n_lost + (frame.samples if overlap else 0)
                damage.add(begin / sample_rate, max(end / sample_rate, (n_yielded + n_lost) / sample_rate + settling_s))
            yield from _silent_frames(frame, n_lost, sample_rate)
            yield frame
            n_yielded, n_lost, last = n_yielded + n_lost + frame.samples, 0, frame
            expected = None if position is None else position + frame.samples
    if last is not None and n_lost:
        damage.add(n_yielded / sample_rate, (n_yielded + n_lost) / sample_rate)
        yield from _silent_frames(last, n_lost, sample_rate)


def _readable(
    packets: Iterable["av.packet.Packet[av.AudioStream]"],
) -> Iterator["av.packet.Packet[av.AudioStream]"]:
    """Yield packets until the rest of the file cannot be parsed."""
    iterator = iter(packets)
    while True:
        try:
            packet = next(iterator, None)
        except ERRORS:
            return
        if packet is None:
            return
        yield packet


def _decoded(packet: "av.packet.Packet[av.AudioStream]") -> list[av.AudioFrame] | None:
    try:
        return packet.decode()
    except ERRORS:
        return None


def _packet_samples(packet: "av.packet.Packet[av.AudioStream]", sample_rate: int) -> int:
    """Return the length of a packet in samples; 0 if it is not known."""
    return round(packet.duration * packet.time_base * sample_rate) if packet.duration and packet.time_base else 0


def _whole_frames(gap: int, frame: av.AudioFrame) -> int:
    """Return a gap, in samples, as the length of whole frames if it differs from that by rounded timestamps alone."""
    n_samples = round(gap / frame.samples) * frame.samples if frame.samples else gap
    return n_samples if abs(n_samples - gap) <= _TIME_UNIT_S * frame.sample_rate else gap


def _position(frame: av.AudioFrame, sample_rate: int) -> int | None:
    if frame.pts is None or frame.time_base is None:
        return None
    return round(frame.pts * frame.time_base * sample_rate)


def _silent_frames(like: av.AudioFrame, n_samples: int, sample_rate: int) -> Iterator[av.AudioFrame]:
    """Yield silence with the channels of a frame, of a second each. Raises `AudioDamagedError`."""
    if n_samples > _MAX_GAP_S * sample_rate:
        raise AudioDamagedError(f"the timestamps jump by {n_samples / sample_rate:,.0f} s")
    n_channels = like.layout.nb_channels
    while n_samples > 0:
        n_now = min(n_samples, sample_rate)
        # Not planar: PyAV reads beyond its list of planes if there are more than seven.
        silent = av.AudioFrame.from_ndarray(np.zeros((1, n_now * n_channels), np.float32), "flt", like.layout.name)
        silent.sample_rate = sample_rate
        n_samples -= n_now
        yield silent
