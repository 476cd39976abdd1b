"""FFmpeg by PyAV: what decodes formats that libsndfile does not know, and Ogg Vorbis."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av

from musictag.audio import pcm
from musictag.audio.pcm import Float32
from musictag.errors import AudioCorruptError, AudioUnsupportedError

# What FFmpeg may open: audio, and neither playlists nor images nor what leads to other files.
CONTAINERS = "aac,aiff,ape,asf,caf,flac,matroska,mov,mp3,ogg,tta,wav,wv"
# Of these FFmpeg guesses the length from the bit rate of the first frames.
UNDECLARED_LENGTH = ("aac", "mp3")
# What PyAV raises beside FFmpeg's own errors: of values that FFmpeg gives and it does not expect, or of our file.
ERRORS = (av.error.FFmpegError, OSError, ValueError)
# Channels of a frame that PyAV can take apart: it looks for the end of a list that has room for eight.
MOST_PLANES = 7
# What AAC's transform and its band replication reach back, samples.
AAC_REACH = 8192


@dataclasses.dataclass(frozen=True)
class FFmpegDecoder:
    """FFmpeg by PyAV: M4A, AAC, WMA and whatever else libsndfile does not know."""

    container: av.container.InputContainer
    name: str
    sample_rate: int
    """Samples per second, Hz, that the header declares: FFmpeg's own number follows the frames."""

    @property
    def tolerance_s(self) -> float:
        """As `SoundFileDecoder.tolerance_s`."""
        return pcm.TRUNCATION_TOLERANCE_S

    @property
    def stream(self) -> av.AudioStream:
        """The first audio stream."""
        return self.container.streams.audio[0]

    @property
    def n_samples(self) -> int | None:
        """Length that the header declares, in samples per channel; None if it declares none."""
        if self.container.format.name in UNDECLARED_LENGTH:
            return None
        if self.stream.duration is not None and self.stream.time_base is not None:
            return round(self.stream.duration * self.stream.time_base * self.sample_rate)
        if self.container.duration is not None:
            return self.container.duration * self.sample_rate // av.time_base
        return None

    @property
    def seeks(self) -> bool:
        """Whether a part is found without decoding what lies before it: in an MP4 file that numbers its samples.

        Noise that AAC has the decoder make up is another one then: it depends on what was decoded before.
        """
        numbered = self.stream.time_base == Fraction(1, self.sample_rate)
        return numbered and self.stream.frames > 0 and self.stream.start_time == 0

    def blocks(self, start: int = 0, stop: float = math.inf) -> Iterator[Float32]:
        """The samples [start, stop), fewer where the file ends earlier. Raises `AudioCorruptError`.

        Streams that are chained behind the first one may have other channels, but not another rate.
        """
        try:
            position, frames = self._frames_from(start)
            size = pcm.BLOCK_SAMPLES if math.isinf(stop) else int(stop - position)
            yield from pcm.between(_joined(self._of_one_rate(frames), size), position, start, stop)
        except ERRORS as error:
            raise AudioCorruptError(f"{self.name}: decoding broke off: {_reason(error)}") from error

    def _frames(self) -> Iterator[av.AudioFrame]:
        # As PyAV's own `decode`, which keeps some memory for good where not all frames are taken.
        packets = cast("Generator[av.packet.Packet[av.AudioStream]]", self.container.demux(audio=0))
        with contextlib.closing(packets):
            for packet in packets:
                yield from packet.decode()

    def _of_one_rate(self, frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
        for frame in frames:
            if frame.sample_rate != self.sample_rate:
                raise AudioCorruptError(
                    f"{self.name}: the sample rate changes from {self.sample_rate:,} to {frame.sample_rate:,} Hz"
                )
            yield frame

    def _frames_from(self, start: int) -> tuple[int, Iterator[av.AudioFrame]]:
        """Frames from `start` or earlier on, and the position of the first one."""
        frames = self._frames()
        if not self.seeks:
            return 0, frames
        self.container.seek(max(0, start - AAC_REACH), stream=self.stream)
        first = next(frames, None)
        if first is None or first.pts is None or first.pts > start:
            raise AudioCorruptError(f"{self.name}: decoding broke off: the index leads past sample {start}")
        return first.pts, itertools.chain([first], frames)


def _joined(frames: Iterable[av.AudioFrame], size: int) -> Iterator[Float32]:
    """Frames as mono blocks of `size` samples: some thousand, as a frame has, are too few for what costs per block."""
    for (_, layout), alike in itertools.groupby(frames, key=lambda frame: (frame.format.name, frame.layout.name)):
        n_channels = av.AudioLayout(layout).nb_channels
        # Planes are what most decoders give as it is, and of more of them PyAV reads where it should not.
        floats = av.AudioResampler(format="fltp" if n_channels <= MOST_PLANES else "flt")
        waiting = av.AudioFifo()
        for frame in alike:
            for part in floats.resample(frame):
                part.pts = None  # what lies between frames in time is not filled
                waiting.write(part)
            while (full := waiting.read(min(size, pcm.BLOCK_VALUES // n_channels))) is not None:
                yield mono_of(full)
        if (rest := waiting.read()) is not None:
            yield mono_of(rest)


def mono_of(frame: av.AudioFrame) -> Float32:
    """The mean of the channels of a frame of floats (samples,)."""
    samples = frame.to_ndarray()
    return pcm.mono(samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels))


@contextlib.contextmanager
def open_ffmpeg(path: Path, name: str) -> Iterator[FFmpegDecoder]:
    """The decoder of a file that FFmpeg knows. Raises `AudioUnsupportedError`."""
    # Given an open file and no protocol, FFmpeg has no way to another file or host.
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb", buffering=0))
        try:
            container = stack.enter_context(av.open(file, "r", container_options=options, metadata_errors="replace"))
        except ERRORS as error:
            raise AudioUnsupportedError(f"FFmpeg: {_reason(error)}") from error
        if not any(stream.codec_context and stream.rate for stream in container.streams.audio[:1]):
            raise AudioUnsupportedError("FFmpeg: the file has no audio stream that can be decoded")
        yield FFmpegDecoder(container, name, int(container.streams.audio[0].rate))


def _reason(error: Exception) -> str:
    """What FFmpeg says, without the path that it says it of."""
    return getattr(error, "strerror", None) or str(error)
