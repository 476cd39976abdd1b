"""Decoding by FFmpeg, through PyAV: for formats that libsndfile does not know, and for Ogg Vorbis."""

import contextlib
import dataclasses
import io
import itertools
import math
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.stream import Disposition

from musictag.audio import bitstreams, pcm
from musictag.audio.ffmpeg_damage import ERRORS, frames_around_damage
from musictag.audio.mixing import WAVE_LAYOUTS, Mixer
from musictag.audio.ogg_pages import OPUS_SETTLING_S
from musictag.audio.parts import Damage
from musictag.audio.pcm import Float32
from musictag.errors import AudioCorruptError, AudioDamagedError, AudioUnsupportedError

# The formats that FFmpeg may open: audio only. Playlists and images are not allowed, nor any format that can make
# FFmpeg open other files.
CONTAINERS = "aac,aiff,ape,asf,au,caf,dsf,flac,matroska,mov,mp3,ogg,tta,wav,wv"
# Formats without a length in the header: FFmpeg estimates it from the bit rate of the first frames.
FORMATS_WITHOUT_LENGTH = ("aac", "mp3")
# Formats that declare when the longest stream ends; FFmpeg takes this for the length of each stream.
FORMATS_WITH_ONE_LENGTH = ("asf", "matroska")
# Formats whose parts are found by other modules, or without timestamps: FFmpeg counts the samples that it finds.
FORMATS_WITHOUT_TIMESTAMPS = (*FORMATS_WITHOUT_LENGTH, "ogg", "flac", "wv", "wav", "aiff", "au", "caf")
# Seconds by which timestamps may be wrong. Those of Windows Media tell when a packet begins, not its first frame.
DEFAULT_JITTER_S = 0.02
JITTER_S = {"asf": 0.1, "matroska": 0.01, **dict.fromkeys(FORMATS_WITHOUT_TIMESTAMPS, math.inf)}
# Formats of which FFmpeg leaves out damaged packets without an error: gaps between timestamps show them.
FORMATS_WITH_SILENT_LOSS = ("asf",)
# Codecs whose frames do not depend on each other. FFmpeg ignores the checksums that some have unless it is told not to.
LOSSLESS_CODECS = ("alac", "ape", "flac", "tta", "wavpack")
OPUS_CODECS = ("opus", "libopus")
# The largest number of planar channels that PyAV reads safely: it searches for the end of a list with eight entries.
MAX_PLANES = 7
# FFmpeg's name of a channel without a position.
NO_POSITION = "NONE"
# Samples that are decoded before a part, because AAC's transform and band replication depend on them.
AAC_MARGIN = 8192


@dataclasses.dataclass(frozen=True)
class FFmpegDecoder:
    """Decode M4A, AAC, WMA and other formats with FFmpeg."""

    container: av.container.InputContainer
    stream: av.AudioStream
    """The stream that players choose: the default one, else the first."""
    name: str
    mixer: Mixer
    """Mixes the channels of each block."""
    sample_rate: int
    """Sample rate in Hz according to the header; FFmpeg changes its own value as it decodes frames."""
    damage: Damage | None = None
    """Gets the times that cannot be decoded, which become silent; if None, the first of them is an error."""

    @property
    def tolerance_s(self) -> float:
        """See `SoundFileDecoder.tolerance_s`."""
        return pcm.TRUNCATION_TOLERANCE_S

    @property
    def n_samples(self) -> int | None:
        """Length of the stream according to the header, in samples per channel; None if the header has no length."""
        if self.format in FORMATS_WITHOUT_LENGTH or (self._has_other_streams and self._has_length_of_other_streams):
            return None
        begin_s = (self.stream.start_time or 0) * (self.stream.time_base or 0)
        if self.stream.duration is not None and self.stream.time_base is not None:
            return round(self.stream.duration * self.stream.time_base * self.sample_rate)
        if self.container.duration is not None:
            return max(0, int((Fraction(self.container.duration, av.time_base) - begin_s) * self.sample_rate))
        return None

    @property
    def _has_other_streams(self) -> bool:
        """Whether there is another stream than a picture of the cover."""
        pictures = (Disposition.attached_pic in stream.disposition for stream in self.container.streams)
        return sum(not is_picture for is_picture in pictures) > 1

    @property
    def _has_length_of_other_streams(self) -> bool:
        """Whether the length of the stream may be that of another stream, or hold a gap that makes it as long.

        Fragmented MP4 files have such gaps. Their index at the beginning does not list all packets.
        """
        is_fragmented = self.format == "mov" and len(self.stream.index_entries) != self.stream.frames
        return self.format in FORMATS_WITH_ONE_LENGTH or is_fragmented

    @property
    def format(self) -> str:
        """FFmpeg's first name of the format of the file."""
        return self.container.format.name.split(",")[0]

    @property
    def seeks(self) -> bool:
        """Whether a part can be decoded without decoding everything before it: if an MP4 file's time unit is a sample.

        The noise that AAC's noise substitution generates then differs from that of the whole file.
        """
        numbered = self.stream.time_base == Fraction(1, self.sample_rate)
        return numbered and self.stream.frames > 0 and self.stream.start_time == 0

    def blocks(self, start: int = 0, stop: float = math.inf) -> Iterator[Float32]:
        """Yield blocks of the samples [start, stop), fewer if the file ends earlier. Raises `AudioCorruptError`."""
        n_yielded = 0
        try:
            position, frames = self._frames_from(start)
            size = pcm.BLOCK_SAMPLES if math.isinf(stop) else int(stop - position)
            checked = self._checked_samples(self._checked_rate(frames))
            for block in pcm.between(_mono_blocks(checked, size, self.mixer), position, start, stop):
                yield block
                n_yielded += len(block)
        except ERRORS as error:
            raise pcm.decoding_error(self, start + n_yielded, f"FFmpeg: {reason(error)}") from error

    def packets(self) -> Generator["av.packet.Packet[av.AudioStream]"]:
        """Yield the packets of the stream."""
        return cast("Generator[av.packet.Packet[av.AudioStream]]", self.container.demux(self.stream))

    def _frames(self) -> Iterator[av.AudioFrame]:
        # PyAV's own `decode` leaks memory if the caller does not read all frames.
        with contextlib.closing(self.packets()) as packets:
            if self.damage is not None:
                yield from self._frames_around_damage(packets, self.damage)
            elif self.format in FORMATS_WITH_SILENT_LOSS:
                damage = Damage()
                try:
                    for frame in self._frames_around_damage(packets, damage):
                        if damage.spans:
                            raise AudioDamagedError(f"packets are missing after {damage.spans[0][0]:.2f} s")
                        yield frame
                except AudioDamagedError as error:
                    raise AudioDamagedError(f"{self.name}: damaged: {error}") from error
            else:
                for packet in packets:
                    yield from packet.decode()

    def _frames_around_damage(
        self, packets: Iterable["av.packet.Packet[av.AudioStream]"], damage: Damage
    ) -> Iterator[av.AudioFrame]:
        codec = self.stream.codec_context.name
        return frames_around_damage(
            packets,
            self.sample_rate,
            damage,
            jitter_s=JITTER_S.get(self.format, DEFAULT_JITTER_S),
            overlap=codec not in LOSSLESS_CODECS,
            settling_s=OPUS_SETTLING_S if codec in OPUS_CODECS else 0.0,
        )

    def _checked_rate(self, frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
        for frame in frames:
            if frame.sample_rate != self.sample_rate:
                raise AudioCorruptError(
                    f"{self.name}: the sample rate changes from {self.sample_rate:,} to {frame.sample_rate:,} Hz"
                )
            yield frame

    def _checked_samples(self, frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
        """Yield frames; raise `AudioCorruptError` if the first samples that are not silent are an encoded stream."""
        content: list[bytes] = []
        n_bytes = 4 * bitstreams.N_SAMPLES  # two channels of 16 bits
        codec = self.stream.codec_context.name
        can_be_encoded = codec.startswith(("pcm_s", *LOSSLESS_CODECS)) and self.stream.channels == 2
        for frame in frames:
            if can_be_encoded:
                samples = _sixteen_bits(frame)
                if not content:  # silence before the stream
                    samples = samples[(len(samples) - len(samples.lstrip(b"\0"))) // 4 * 4 :]
                content += [samples] if samples else []
                if sum(map(len, content)) >= n_bytes:
                    if encoding := bitstreams.encoding_of(b"".join(content)):
                        raise bitstreams.refusal(self.name, encoding)
                    can_be_encoded = False
            yield frame

    def _frames_from(self, start: int) -> tuple[int, Iterator[av.AudioFrame]]:
        """Return the position of the first frame, at `start` or earlier, and the frames from there on."""
        frames = self._frames()
        if not self.seeks:
            return 0, frames
        self.container.seek(max(0, start - AAC_MARGIN), stream=self.stream)
        first = next(frames, None)
        if first is not None and first.pts is None and self.damage is not None:
            return 0, itertools.chain([first], frames)  # silence for a damaged first packet
        if first is None or first.pts is None or first.pts > start:
            raise AudioDamagedError(f"{self.name}: decoding failed: the index points past sample {start}")
        return first.pts, itertools.chain([first], frames)


def _mono_blocks(frames: Iterable[av.AudioFrame], size: int, mixer: Mixer) -> Iterator[Float32]:
    """Join frames to mono blocks of `size` samples; a frame has only about a thousand, which would make blocks slow."""
    for (_, layout), alike in itertools.groupby(frames, key=lambda frame: (frame.format.name, frame.layout.name)):
        n_channels = av.AudioLayout(layout).nb_channels
        # Most decoders yield planar frames. With more planes, PyAV reads beyond its list.
        floats = av.AudioResampler(format="fltp" if n_channels <= MAX_PLANES else "flt")
        queue = av.AudioFifo()
        for frame in alike:
            for part in floats.resample(frame):
                part.pts = None  # gaps between timestamps are not filled
                queue.write(part)
            while (full := queue.read(min(size, pcm.BLOCK_VALUES // n_channels))) is not None:
                yield mono_of(full, mixer)
        if (rest := queue.read()) is not None:
            yield mono_of(rest, mixer)


def mono_of(frame: av.AudioFrame, mixer: Mixer) -> Float32:
    """Mix the channels of a frame of floats to one (samples,)."""
    samples = frame.to_ndarray()
    block = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    layout = tuple(channel.name for channel in frame.layout.channels)
    if set(layout) == {NO_POSITION}:
        layout = WAVE_LAYOUTS.get(len(layout), ())
    return mixer.mono(block, layout)


def _sixteen_bits(frame: av.AudioFrame) -> bytes:
    """Return the samples of two channels, of integers, as 16 bits; nothing for other samples."""
    samples = frame.to_ndarray()
    if samples.dtype.kind != "i":
        return b""
    pairs = samples.T if frame.format.is_planar else samples.reshape(-1, 2)
    return np.right_shift(pairs, 8 * (samples.itemsize - 2), dtype=samples.dtype).astype("<i2").tobytes()


@contextlib.contextmanager
def open_ffmpeg(path: Path, name: str, mixer: Mixer) -> Iterator[FFmpegDecoder]:
    """Open a local file with FFmpeg. Raises `AudioUnsupportedError` as `open_file` does."""
    with path.open("rb", buffering=0) as file, open_file(file, name, mixer) as decoder:
        yield decoder


@contextlib.contextmanager
def open_file(file: io.RawIOBase, name: str, mixer: Mixer, damage: Damage | None = None) -> Iterator[FFmpegDecoder]:
    """Decode an open file with FFmpeg, around its damage if `damage` is given.

    Raises `AudioUnsupportedError` if it has no audio in a format that FFmpeg knows.
    """
    # With an open file and no allowed protocol, FFmpeg cannot open other files or connect to hosts.
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
    with contextlib.ExitStack() as stack:
        try:
            container = stack.enter_context(av.open(file, "r", container_options=options, metadata_errors="replace"))
        except ERRORS as error:
            raise AudioUnsupportedError(f"FFmpeg: {reason(error)}") from error
        streams = sorted(container.streams.audio, key=lambda stream: Disposition.default not in stream.disposition)
        if not streams or not (streams[0].codec_context and streams[0].rate):
            raise AudioUnsupportedError("FFmpeg: the file has no audio stream that can be decoded")
        if streams[0].codec_context.name in LOSSLESS_CODECS:
            streams[0].codec_context.options = {"err_detect": "crccheck+explode"}
        yield FFmpegDecoder(container, streams[0], name, mixer, int(streams[0].rate), damage)


def reason(error: Exception) -> str:
    """Return FFmpeg's message without the path."""
    return getattr(error, "strerror", None) or str(error)
