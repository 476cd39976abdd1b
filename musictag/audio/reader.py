"""Read local audio files as mono waveforms at a given sample rate.

Files are read and resampled in blocks, so memory does not grow with the length of a track.

Conventions: a waveform is float32 of shape (samples,), full scale at 1. Sample positions count from 0, per channel.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musictag.audio import adts, chained_ogg, decoders, ffmpeg, integrity, ogg_pages, resampling
from musictag.audio.decoders import Decoder
from musictag.audio.mixing import Mixer
from musictag.audio.vorbis import VorbisDecoder
from musictag.errors import (
    AudioCorruptError,
    AudioDamagedError,
    AudioEmptyError,
    AudioTruncatedError,
    AudioUnsupportedError,
)

Float32 = npt.NDArray[np.float32]

# Plausible sample rates in Hz, from old telephone lines to sonar recordings.
SAMPLE_RATES = range(1_000, 1_000_001)
# Full scale is 1. Peaks of float files reach 10 or so; integers that were stored as floats without scaling reach 127,
# 32,767 or more.
MAX_PEAK = 50.0
# Seconds that `check_ends` decodes at the end of a track.
END_S = 0.5
# Seconds that an excerpt needs on both sides, until the resampler's filter has settled.
RESAMPLER_MARGIN_S = 0.02


@contextlib.contextmanager
def open_audio(path: Path, name: str, mixer: Mixer | None = None) -> Iterator[Decoder]:
    """Open a local file by the first decoder that supports it.

    `name` is the file's name in errors; `mixer` mixes its channels, by default as described in `mixing`.

    Raises `AudioUnsupportedError` if no decoder does, `AudioCorruptError` if the sample rate in the header is not
    plausible, `AudioTruncatedError` if the file is shorter than its container declares, `AudioEmptyError` if it has no
    samples.
    """
    with path.open("rb") as stream:
        if not stream.read(1):
            raise AudioEmptyError(f"{name}: the file is empty (0 bytes)")
    integrity.check_complete(path, name)
    pages = ogg_pages.read_pages(path, name)
    with contextlib.ExitStack() as stack:
        audio = stack.enter_context(_open(path, name, pages, mixer or Mixer()))
        if audio.sample_rate not in SAMPLE_RATES:
            raise AudioCorruptError(f"{name}: the header declares {audio.sample_rate:,} samples per second")
        if audio.n_samples == 0:
            raise AudioEmptyError(f"{name}: the file has no audio frame")
        if pages and not isinstance(audio, VorbisDecoder):  # VorbisDecoder checks them as it decodes
            pages.check_checksums()
        if pages and audio.n_samples:
            _check_length(audio, audio.n_samples, pages.min_samples(audio.sample_rate))
        yield audio


@contextlib.contextmanager
def _open(path: Path, name: str, pages: ogg_pages.OggPages | None, mixer: Mixer) -> Iterator[Decoder]:
    with contextlib.ExitStack() as stack:
        if pages and pages.n_chained > 1:
            yield stack.enter_context(chained_ogg.open_chained_ogg(path, name, mixer, pages))
            return
        try:
            audio: Decoder = stack.enter_context(decoders.open_decoder(path, name, pages, mixer))
        except AudioUnsupportedError as libsndfile_error:
            try:
                audio = stack.enter_context(_open_ffmpeg(path, name, mixer))
            except AudioUnsupportedError as error:
                reasons = f"{libsndfile_error} {error}"
                raise AudioUnsupportedError(f"{name}: not audio in a supported format ({reasons})") from error
        yield audio


@contextlib.contextmanager
def _open_ffmpeg(path: Path, name: str, mixer: Mixer) -> Iterator[Decoder]:
    with ffmpeg.open_ffmpeg(path, name, mixer) as audio:
        if audio.format == "aac" and (parts := adts.read_parts(path)) and parts.is_damaged:
            raise AudioDamagedError(f"{name}: damaged: {parts.first_damage()}")
        if audio.format == "mp3":
            with decoders.open_mp3(None, path, name, mixer) as mp3_audio:
                yield mp3_audio
            return
        if audio.format == "mov" and audio.n_samples is not None:
            _check_length(audio, audio.n_samples, round(integrity.last_fragment_s(path) * audio.sample_rate))
        yield audio


def waveform_blocks(audio: Decoder, sample_rate: int) -> Iterator[Float32]:
    """Yield all of `audio` as blocks of mono samples at `sample_rate` Hz.

    Their length is `ceil(samples * sample_rate / audio.sample_rate)` in all. Raises `AudioCorruptError`,
    `AudioTruncatedError` or `AudioEmptyError`; if only the end is wrong, it raises instead of yielding the last block.
    """
    n_decoded = n_yielded = 0

    def counted() -> Iterator[Float32]:
        nonlocal n_decoded
        for block in audio.blocks():
            n_decoded += len(block)
            yield block

    # The last block is yielded after the check of the length, and is cut or padded to the exact total length. The
    # first yielded block is empty.
    last = resampling.EMPTY
    for block in _resampled(counted(), audio, sample_rate):
        yield last
        n_yielded, last = n_yielded + len(last), block
    _check_length(audio, n_decoded, audio.n_samples or n_decoded)
    if n_decoded == 0:
        raise AudioEmptyError(f"{audio.name}: the file has no audio frame")
    yield _cut_or_pad(last, max(0, n_resampled(n_decoded, audio.sample_rate, sample_rate) - n_yielded))


def excerpt(audio: Decoder, sample_rate: int, start: int, stop: int) -> Float32:
    """Return samples [start, stop) of the waveform, decoding only these and a margin.

    They equal those of `waveform_blocks` within 1e-5. Raises `AudioCorruptError` or `AudioTruncatedError`.
    """
    # The resampler has the same phase as for the whole track if decoding starts at a multiple of `step_in`.
    divisor = math.gcd(audio.sample_rate, sample_rate)
    step_in, step_out = audio.sample_rate // divisor, sample_rate // divisor
    margin = math.ceil(RESAMPLER_MARGIN_S * sample_rate)
    first_step = max(0, start - margin) // step_out
    last_step = -(-(stop + margin) // step_out)
    source_start, source_stop = first_step * step_in, last_step * step_in
    if audio.n_samples is not None:
        source_stop = min(source_stop, audio.n_samples)
    blocks = list(audio.blocks(source_start, source_stop))
    _check_length(audio, source_start + sum(map(len, blocks)), source_stop)
    offset = start - first_step * step_out
    samples = np.concatenate([resampling.EMPTY, *_resampled(iter(blocks), audio, sample_rate)])
    return _cut_or_pad(samples[offset:], stop - start)


def check_ends(audio: Decoder) -> None:
    """Check that the first and the last declared samples can be decoded, without decoding the rest.

    Raises `AudioCorruptError` or `AudioTruncatedError`.
    """
    # libsndfile reads nothing from a Vorbis stream with a damaged setup header, and crashes if it seeks in it.
    if not any(map(len, audio.blocks(0, 1))):
        raise AudioDamagedError(f"{audio.name}: no samples can be decoded at the beginning")
    if audio.n_samples is not None:
        start = max(0, audio.n_samples - int(END_S * audio.sample_rate))
        n_decoded = sum(map(len, audio.blocks(start, audio.n_samples)))
        _check_length(audio, start + n_decoded, audio.n_samples)


def n_resampled(n_samples: int, source_rate: int, sample_rate: int) -> int:
    """Return the length of `n_samples` at `source_rate` after resampling to `sample_rate`."""
    return -(-n_samples * sample_rate // source_rate)


def _resampled(blocks: Iterator[Float32], audio: Decoder, sample_rate: int) -> Iterator[Float32]:
    # Filtering keeps NaN and infinity, so they are checked afterwards.
    for block in resampling.resampled(blocks, audio.sample_rate, sample_rate):
        yield _checked_finite(block, audio)


def _checked_finite(block: Float32, audio: Decoder) -> Float32:
    peak = max(block.max(initial=0), -block.min(initial=0))  # NaN if any sample is NaN
    if not peak <= MAX_PEAK:
        raise AudioCorruptError(
            f"{audio.name}: the samples contain NaN, infinity or values above {MAX_PEAK:g} times full scale: their "
            f"peak is {peak:g}; were integers stored as floats?"
        )
    return block


def _check_length(audio: Decoder, n_decoded: int, n_declared: int) -> None:
    if n_declared - n_decoded > audio.tolerance_s * audio.sample_rate:
        raise AudioTruncatedError(
            f"{audio.name}: truncated: the header declares {n_declared / audio.sample_rate:.2f} s, "
            f"the file has {n_decoded / audio.sample_rate:.2f} s"
        )


def _cut_or_pad(samples: Float32, length: int) -> Float32:
    return samples[:length] if len(samples) >= length else np.pad(samples, (0, length - len(samples)))
