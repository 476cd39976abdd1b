"""Decode a damaged file: its undamaged parts, each at its place in the track, and silence in between.

A file is decoded here only after its own decoder reported damage, so that this costs undamaged files nothing.
"""

import contextlib
import dataclasses
import itertools
import math
import mmap
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

from musictag.audio import (
    adts,
    chunks,
    ffmpeg,
    flac_parts,
    integrity,
    matroska_parts,
    mp3,
    mp3_parts,
    mp4_parts,
    ogg_parts,
    pcm,
    wavpack_parts,
)
from musictag.audio.mixing import Mixer
from musictag.audio.parts import ByteSpan, Damage, Part, Parts, SplicedFile
from musictag.audio.pcm import Float32
from musictag.errors import AudioDamagedError, AudioUnsupportedError


@dataclasses.dataclass(frozen=True)
class DamagedDecoder:
    """Decodes the undamaged parts of a file one after the other; each is a file of its own for FFmpeg."""

    path: Path
    name: str
    """The name of the file in error messages."""
    mixer: Mixer
    parts: Parts
    sample_rate: int
    """Sample rate in Hz."""
    max_damage: float
    """Share of the track that may be lost."""
    damage: Damage
    """The times that are lost; it is complete when everything is decoded."""

    seeks = False

    @property
    def tolerance_s(self) -> float:
        """See `SoundFileDecoder.tolerance_s`."""
        return self.parts.tolerance_s

    @property
    def n_samples(self) -> int:
        """Length of the track in samples, with what is lost."""
        return self._samples(self.parts.duration_s)

    def blocks(self, start: int = 0, stop: float = math.inf) -> Iterator[Float32]:
        """Yield blocks of the samples [start, stop), with zeros for what is lost.

        Raises:
            AudioDamagedError: more than `max_damage` is lost. The message is the reason alone.
        """
        return pcm.between(self._all_blocks(), 0, start, stop)

    def _all_blocks(self) -> Iterator[Float32]:
        for begin_s, end_s in self.parts.lost:
            self._add_damage(float(begin_s), float(end_s))
        position = 0
        next_begins = [part.begin for part in self.parts.parts[1:]]
        for part, next_begin in itertools.zip_longest(self.parts.parts, next_begins):
            last = math.inf if self.tolerance_s else self.n_samples
            end = self._samples(next_begin) if isinstance(next_begin, Fraction) else last
            for block in self._blocks_of(part, position, end):
                yield block
                position += len(block)
        if self.n_samples - position > self.tolerance_s * self.sample_rate:
            self._add_damage(position / self.sample_rate, self.n_samples / self.sample_rate)
            yield from _silence(self.n_samples - position)
        if position - self.n_samples > max(self.tolerance_s, 1.0) * self.sample_rate:
            raise AudioDamagedError("the timestamps are wrong: the track is longer than its header declares")
        if len(self.parts.parts) == 1 and not self.damage.spans and not self.parts.has_other_bytes:
            raise AudioDamagedError("FFmpeg finds no damage")

    def _blocks_of(self, part: Part, position: int, end: float) -> Iterator[Float32]:
        """Yield the blocks of a part up to sample `end`, after silence from sample `position` to its begin."""
        damage = Damage()
        try:
            begin = self._begin(part)
            with self._open(part.spans, damage) as decoder:
                if begin > position:
                    self._add_damage(position / self.sample_rate, begin / self.sample_rate + part.settling_s)
                    yield from _silence(begin - position)
                yield from pcm.between(decoder.blocks(), begin, max(begin, position), end)
        except AudioUnsupportedError:
            return  # a part of a few frames, in which FFmpeg does not recognize the format
        for lost_begin_s, lost_end_s in damage.spans:
            self._add_damage(begin / self.sample_rate + lost_begin_s, begin / self.sample_rate + lost_end_s)

    def _begin(self, part: Part) -> int:
        """Return the first sample of a part. Raises `AudioDamagedError` or `AudioUnsupportedError`."""
        if isinstance(part.begin, Fraction):
            return self._samples(part.begin)
        with self._open(part.begin.spans, Damage()) as decoder:
            begin = self._samples(part.begin.end_s) - sum(map(len, decoder.blocks()))
        if part.begin.follows_header and begin > 0:
            raise AudioDamagedError("the sample positions of the Ogg pages do not begin at 0")
        return 0 if part.begin.follows_header else begin

    @contextlib.contextmanager
    def _open(self, spans: Sequence[ByteSpan | bytes], damage: Damage) -> Iterator[ffmpeg.FFmpegDecoder]:
        with (
            self.path.open("rb", buffering=0) as file,
            ffmpeg.open_file(SplicedFile(file, spans), self.name, self.mixer, damage) as decoder,
        ):
            yield decoder

    def _samples(self, seconds: Fraction) -> int:
        return round(seconds * self.sample_rate)

    def _add_damage(self, begin_s: float, end_s: float) -> None:
        self.damage.add(begin_s, end_s)
        if self.damage.seconds > self.max_damage * self.damage.duration_s:
            raise AudioDamagedError(
                f"at least {self.damage.seconds:.2f} of {self.damage.duration_s:.2f} s are lost, "
                f"--max-damage allows {self.max_damage:.2g}"
            )


@contextlib.contextmanager
def open_damaged(path: Path, name: str, mixer: Mixer, max_damage: float) -> Iterator[DamagedDecoder]:
    """Open a file whose decoder failed.

    Args:
        path: the file.
        name: the file's name in errors of FFmpeg.
        mixer: mixes the channels.
        max_damage: share of the track that may be lost.

    Raises:
        AudioDamagedError: the damage is too large, or its size is not known. The message is the reason alone.
    """
    try:
        with path.open("rb", buffering=0) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            displaced = mp4_parts.find_parts(file, data)
            spans = displaced.parts[0].spans if displaced else ((0, len(data)),)
            with ffmpeg.open_file(SplicedFile(file, spans), name, mixer) as whole:
                parts, sample_rate = displaced or _find_parts(path, data, whole, max_damage), whole.sample_rate
    except AudioUnsupportedError as error:
        raise AudioDamagedError(f"no part can be decoded ({error})") from error
    if parts is None:
        raise AudioDamagedError("how much is lost is not known")
    yield DamagedDecoder(path, name, mixer, parts, sample_rate, max_damage, Damage(float(parts.duration_s)))


def _find_parts(path: Path, data: mmap.mmap, decoder: ffmpeg.FFmpegDecoder, max_damage: float) -> Parts | None:
    """Return the undamaged parts of a file that `decoder` has opened; None if too little is known of it.

    Raises `AudioDamagedError` if more than `max_damage` is missing.
    """
    match decoder.format:
        case "aac":
            return adts.find_parts(data)
        case "flac":
            return flac_parts.find_parts(data)
        case "mp3":
            frames = mp3.find_frames(data)
            return mp3_parts.find_parts(data, frames) if frames else None
        case "ogg":
            return ogg_parts.find_parts(data, decoder.sample_rate)
        case "wv":
            return wavpack_parts.find_parts(data, decoder.sample_rate)
        case "matroska":
            parts, spans = _whole_file(path, data, decoder, max_damage), matroska_parts.undamaged(data)
            return dataclasses.replace(parts, parts=[Part(spans, Fraction(0))]) if parts and spans else parts
    return _whole_file(path, data, decoder, max_damage)


def _whole_file(path: Path, data: mmap.mmap, decoder: ffmpeg.FFmpegDecoder, max_damage: float) -> Parts | None:
    """Return a file whose packets FFmpeg finds, with its length; None if nothing tells the length.

    Raises `AudioDamagedError` if more than `max_damage` is missing at its end.
    """
    whole = [Part(((0, len(data)),), Fraction(0))]
    share = integrity.present_share(data)
    if share is not None and share < 1 - max_damage:
        raise AudioDamagedError(
            f"{float(1 - share):.1%} of the bytes are missing, --max-damage allows {max_damage:.2g}"
        )
    if share is not None and decoder.format != "asf":  # samples without packets
        return Parts(whole, _seconds(path) / share)
    if decoder.n_samples is None or chunks.first_fragment(data) is not None:
        return None
    duration_s = integrity.asf_seconds(data) or Fraction(decoder.n_samples, decoder.sample_rate)
    return Parts(whole, duration_s, tolerance_s=pcm.TRUNCATION_TOLERANCE_S)


def _seconds(path: Path) -> Fraction:
    """Return the length of the samples that a file holds, s. Raises `AudioDamagedError`."""
    try:
        info = soundfile.info(path.absolute())
    except soundfile.LibsndfileError as error:
        raise AudioDamagedError(f"libsndfile: {error.error_string}") from error
    return Fraction(info.frames, info.samplerate)


def _silence(n_samples: int) -> Iterator[Float32]:
    for begin in range(0, n_samples, pcm.BLOCK_SAMPLES):
        yield np.zeros(min(pcm.BLOCK_SAMPLES, n_samples - begin), np.float32)
