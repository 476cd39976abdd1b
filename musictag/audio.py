"""Audio files of this machine, decoded to a mono waveform at the rate that is asked for.

soundfile reads what it can (WAV, AIFF, FLAC, Ogg, Opus, MP3), PyAV the rest (M4A, AAC, WMA). Both are read in blocks,
mixed to mono and resampled on the way, so that a track of any length costs the memory of a block.

Conventions: a waveform is float32 of shape (samples,), full scale at 1. Sample positions count from 0, per channel.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from musictag import containers, ogg
from musictag.errors import (
    AudioCorruptError,
    AudioEmptyError,
    AudioTruncatedError,
    AudioUnsupportedError,
)

Float32 = npt.NDArray[np.float32]

EMPTY = np.zeros(0, np.float32)
# Samples per channel of a block, and values of all its channels together: what a file of 1000 channels is read by.
BLOCK_SAMPLES, BLOCK_VALUES = 1 << 17, 1 << 19
# Rates that audio has, Hz: from telephone lines of old to what studios and sonars record.
SAMPLE_RATES = range(1_000, 1_000_001)
# What libsndfile says where it does not know the length.
UNKNOWN_LENGTH = 2**63 - 1
# What FFmpeg may open: audio, and neither playlists nor images nor what leads to other files.
FFMPEG_CONTAINERS = "aac,aiff,ape,asf,caf,flac,matroska,mov,mp3,ogg,tta,wav,wv"
# Of these FFmpeg guesses the length from the bit rate of the first frames.
UNDECLARED_LENGTH = ("aac", "mp3")
# What PyAV raises beside FFmpeg's own errors: of values that FFmpeg gives and it does not expect, or of our file.
FFMPEG_ERRORS = (av.error.FFmpegError, OSError, ValueError)
# Far beyond what any file holds (integers written as floats reach 2e9), and below what overflows a spectrogram.
MAX_PEAK = 1e12
# Decoders round the length that a header declares; less than this is not a truncation.
TRUNCATION_TOLERANCE_S = 0.25
# What an excerpt needs on both sides for the resampler's filter to have settled.
RESAMPLER_MARGIN_S = 0.02


@dataclasses.dataclass(frozen=True)
class SoundFileAudio:
    """A file that libsndfile reads. Its seeking is exact to the sample, for compressed files too."""

    file: soundfile.SoundFile
    name: str

    @property
    def sample_rate(self) -> int:
        """Samples per second, Hz."""
        return int(self.file.samplerate)

    @property
    def n_samples(self) -> int | None:
        """Length that the header declares, in samples per channel."""
        return int(self.file.frames)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Float32]:
        """Mono samples [start, stop) in blocks; shorter where the file ends earlier."""
        try:
            if self.file.tell() != start:
                self.file.seek(start)
            remaining = math.inf if stop is None else stop - start
            size = min(BLOCK_SAMPLES, BLOCK_VALUES // self.file.channels)
            while remaining > 0:
                block = self.file.read(int(min(size, remaining)), dtype="float32", always_2d=True)
                if not len(block):
                    return
                remaining -= len(block)
                yield _mono(block)
        except (soundfile.LibsndfileError, ValueError) as error:  # soundfile's own, where a seek led past the end
            raise AudioCorruptError(f"{self.name}: decoding broke off: {_reason(error)}") from error


@dataclasses.dataclass(frozen=True)
class PyAVAudio:
    """A file that FFmpeg reads. It is decoded from its beginning: seeking in AAC is not exact."""

    container: av.container.InputContainer
    name: str
    sample_rate: int
    """Samples per second, Hz, that the header declares: FFmpeg's own number follows the frames."""

    @property
    def n_samples(self) -> int | None:
        """Length that the header declares, in samples; None if it declares none."""
        stream = self.container.streams.audio[0]
        if self.container.format.name in UNDECLARED_LENGTH:
            return None
        if stream.duration is not None and stream.time_base is not None:
            return round(stream.duration * stream.time_base * self.sample_rate)
        if self.container.duration is not None:
            return self.container.duration * self.sample_rate // av.time_base
        return None

    def blocks(self) -> Iterator[Float32]:
        """All mono samples in blocks. Streams chained behind the first may have other channels, not another rate."""
        form, floats, waiting = "", av.AudioResampler(format="flt"), av.AudioFifo()
        try:
            for frame in self.container.decode(audio=0):
                if frame.sample_rate != self.sample_rate:
                    raise AudioCorruptError(
                        f"{self.name}: the sample rate changes from {self.sample_rate:,} to {frame.sample_rate:,} Hz"
                    )
                if form != (form := f"{frame.format.name} {frame.layout.name}"):
                    if (rest := waiting.read()) is not None:
                        yield _interleaved(rest)
                    # A frame is some thousand samples: too few for what costs the same for any block.
                    floats, waiting = av.AudioResampler(format="flt"), av.AudioFifo()
                for part in floats.resample(frame):
                    part.pts = None  # what lies between frames in time is not filled
                    waiting.write(part)
                size = min(BLOCK_SAMPLES, BLOCK_VALUES // frame.layout.nb_channels)
                while (full := waiting.read(size)) is not None:
                    yield _interleaved(full)
            if (rest := waiting.read()) is not None:
                yield _interleaved(rest)
        except FFMPEG_ERRORS as error:
            raise AudioCorruptError(f"{self.name}: decoding broke off: {_reason(error)}") from error


Audio = SoundFileAudio | PyAVAudio


@contextlib.contextmanager
def open_audio(path: Path, name: str) -> Iterator[Audio]:
    """Open a local file with the first decoder that knows it; `name` is what errors call it.

    Raises `AudioUnsupportedError` if none does, `AudioCorruptError` if the header declares a rate that no audio has,
    `AudioTruncatedError` if the file ends before its container does, `AudioEmptyError` if there is no audio frame.
    """
    with path.open("rb") as stream:
        if not stream.read(1):
            raise AudioEmptyError(f"{name}: the file is empty (0 bytes)")
    containers.check_complete(path, name)
    pages = ogg.read_pages(path, name)
    with contextlib.ExitStack() as stack:
        audio: Audio
        try:
            file = stack.enter_context(soundfile.SoundFile(path))
        except soundfile.LibsndfileError as error:
            audio = _open_ffmpeg(path, name, error.error_string, stack)
        else:
            audio = SoundFileAudio(file, name)
            # libsndfile reads the first stream of a chain alone, and nothing of a FLAC of unknown length.
            if file.frames == UNKNOWN_LENGTH or (pages and pages.n_chained > 1):
                audio = _open_ffmpeg(path, name, "not read to its end.", stack)
        if audio.sample_rate not in SAMPLE_RATES:
            raise AudioCorruptError(f"{name}: the header declares {audio.sample_rate:,} samples per second")
        if audio.n_samples == 0:
            raise AudioEmptyError(f"{name}: the file holds no audio frame")
        if pages and audio.n_samples:
            _check_length(audio, audio.n_samples, pages.n_samples(audio.sample_rate))
        yield audio


def _open_ffmpeg(path: Path, name: str, others: str, stack: contextlib.ExitStack) -> PyAVAudio:
    """Open with FFmpeg, until `stack` is closed, what other decoders refused for the reason `others`."""
    # Given an open file and no protocol, FFmpeg has no way to another file or host.
    options = {"format_whitelist": FFMPEG_CONTAINERS, "protocol_whitelist": ""}
    file = stack.enter_context(path.open("rb", buffering=0))
    try:
        container = av.open(file, "r", container_options=options, metadata_errors="replace")
    except FFMPEG_ERRORS as error:
        raise AudioUnsupportedError(
            f"{name}: not audio that a decoder recognizes (libsndfile: {others} FFmpeg: {_reason(error)})"
        ) from error
    stack.enter_context(container)
    if not any(stream.codec_context and stream.rate for stream in container.streams.audio[:1]):
        raise AudioUnsupportedError(f"{name}: the file has no audio stream that can be decoded")
    return PyAVAudio(container, name, int(container.streams.audio[0].rate))


def waveform_blocks(audio: Audio, sample_rate: int) -> Iterator[Float32]:
    """All of `audio` as mono samples at `sample_rate`: `ceil(samples * sample_rate / audio.sample_rate)`, in blocks.

    Raises `AudioCorruptError`, `AudioTruncatedError` or `AudioEmptyError`, at the latest after the last block.
    """
    n_decoded = n_yielded = 0

    def counted() -> Iterator[Float32]:
        nonlocal n_decoded
        for block in audio.blocks():
            n_decoded += len(block)
            yield block

    # The last block is held back: only then is it known how long the whole is.
    last = EMPTY
    for block in _resampled(counted(), audio, sample_rate):
        yield last
        n_yielded, last = n_yielded + len(last), block
    if n_decoded == 0:
        raise AudioEmptyError(f"{audio.name}: the file holds no audio frame")
    _check_length(audio, n_decoded, audio.n_samples or n_decoded)
    yield _fit(last, max(0, n_resampled(n_decoded, audio.sample_rate, sample_rate) - n_yielded))


def excerpt(audio: SoundFileAudio, sample_rate: int, start: int, stop: int) -> Float32:
    """Samples [start, stop) of what `waveform_blocks` gives, within 1e-5, decoding only them and a margin.

    Raises `AudioCorruptError` or `AudioTruncatedError`.
    """
    # Starting at a whole multiple of the ratio's denominator keeps the resampler's phase that of the whole track.
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
    samples = np.concatenate([EMPTY, *_resampled(iter(blocks), audio, sample_rate)])
    return _fit(samples[offset:], stop - start)


def check_ends(audio: SoundFileAudio) -> None:
    """Check that the first and the last samples are there that the header declares, decoding only them.

    Raises `AudioCorruptError`, `AudioEmptyError` or `AudioTruncatedError`.
    """
    # From a Vorbis stream whose setup it does not understand libsndfile reads nothing; to seek in it, it crashes.
    if not any(map(len, audio.blocks(0, 1))):
        raise AudioEmptyError(f"{audio.name}: the file holds no audio frame")
    if audio.n_samples is not None:
        start = max(0, audio.n_samples - int(2 * TRUNCATION_TOLERANCE_S * audio.sample_rate))
        n_decoded = sum(map(len, audio.blocks(start, audio.n_samples)))
        _check_length(audio, start + n_decoded, audio.n_samples)


def n_resampled(n_samples: int, source_rate: int, sample_rate: int) -> int:
    """Length of `n_samples` at `source_rate` after resampling."""
    return -(-n_samples * sample_rate // source_rate)


def _resampled(blocks: Iterator[Float32], audio: Audio, sample_rate: int) -> Iterator[Float32]:
    checked = (_finite(block, audio) for block in blocks)
    if audio.sample_rate == sample_rate:
        yield from checked
        return
    stream = soxr.ResampleStream(audio.sample_rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in checked:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(EMPTY, last=True)


def _interleaved(frame: av.AudioFrame) -> Float32:
    """The mono samples of an FFmpeg frame of interleaved floats."""
    samples = np.asarray(frame.to_ndarray(), dtype=np.float32)
    return _mono(samples.reshape(-1, frame.layout.nb_channels))


def _mono(block: Float32) -> Float32:
    """The mean of the channels of a block (samples, channels)."""
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(invalid="ignore"):  # infinity less infinity: `_finite` says so
        return block @ np.full(block.shape[1], 1 / block.shape[1], np.float32)


def _reason(error: Exception) -> str:
    """What a decoder says, without the path that it says it of."""
    return getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)


def _finite(block: Float32, audio: Audio) -> Float32:
    peak = max(block.max(initial=0), -block.min(initial=0))  # NaN where any sample is
    if not peak <= MAX_PEAK:
        raise AudioCorruptError(
            f"{audio.name}: the samples hold NaN or infinity, or come close: their peak is {peak:g}"
        )
    return block


def _check_length(audio: Audio, n_decoded: int, n_declared: int) -> None:
    if n_declared - n_decoded > TRUNCATION_TOLERANCE_S * audio.sample_rate:
        raise AudioTruncatedError(
            f"{audio.name}: truncated: the header declares {n_declared / audio.sample_rate:.2f} s, "
            f"the file holds {n_decoded / audio.sample_rate:.2f} s"
        )


def _fit(samples: Float32, length: int) -> Float32:
    return samples[:length] if len(samples) >= length else np.pad(samples, (0, length - len(samples)))
