"""What decodes audio files of this machine to blocks of mono samples: for each format the decoder that is fastest.

All read a header with the library that knows the format, and give the samples of any part of the file. They were chosen
by measurement (`docs/performance.md`); two decoders of one format give the same samples within 1e-5.
"""

import bisect
import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import miniaudio
import numpy as np
import soundfile

from musictag.audio import ffmpeg, flac, mpg123, ogg_pages, pcm
from musictag.audio.ffmpeg import FFmpegDecoder
from musictag.audio.pcm import Float32
from musictag.errors import AudioCorruptError, AudioUnsupportedError

# What libsndfile says where it does not know the length.
UNKNOWN_LENGTH = 2**63 - 1
# What libsndfile says, that there is no such file, where a name ends in .mp3 and no MP3 is there.
NO_SUCH_FILE = 7
# What the bits of a small MP3 frame reach back, beside the four frames that libsndfile begins with, samples.
MP3_REACH = 12 * 1152


class SequentialFile(soundfile.SoundFile):  # type: ignore[misc] # which has no types
    """A file of which one block is read behind the other.

    soundfile seeks after each, to where it is: of MP3, libsndfile then forgets the bits that later frames need.
    """

    def seekable(self) -> bool:
        """As soundfile asks itself before it does so."""
        return False


@dataclasses.dataclass(frozen=True)
class SoundFileDecoder:
    """libsndfile: WAV, AIFF, Opus and others, and the headers of all that it knows."""

    file: soundfile.SoundFile
    name: str
    """What errors call the file."""

    @property
    def sample_rate(self) -> int:
        """Samples per second, Hz."""
        return int(self.file.samplerate)

    @property
    def n_samples(self) -> int | None:
        """Length that the header declares, in samples per channel; None if it declares none."""
        return None if self.file.frames == UNKNOWN_LENGTH else int(self.file.frames)

    @property
    def seeks(self) -> bool:
        """Whether a part is found without decoding what lies before it."""
        return True

    @property
    def tolerance_s(self) -> float:
        """How much less than is declared the file may hold."""
        return pcm.TRUNCATION_TOLERANCE_S

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.file.name)

    def blocks(self, start: int = 0, stop: float = math.inf) -> Iterator[Float32]:
        """The samples [start, stop), fewer where the file ends earlier. Raises `AudioCorruptError`."""
        return self._whole() if (start, stop) == (0, math.inf) else self._part(start, stop)

    def _whole(self) -> Iterator[Float32]:
        return self._part(0, math.inf)

    def _part(self, start: int, stop: float) -> Iterator[Float32]:
        size = min(pcm.BLOCK_SAMPLES, pcm.BLOCK_VALUES // self.file.channels)
        try:
            if self.file.tell() != start:
                begin = max(0, start - MP3_REACH) if self.file.format == "MP3" else start
                self.file.seek(begin)
                self.file.read(start - begin, dtype="float32")
            while start < stop:
                block = self.file.read(int(min(size, stop - start)), dtype="float32", always_2d=True)
                if not len(block):
                    return
                start += len(block)
                yield pcm.mono(block)
        except (soundfile.LibsndfileError, ValueError) as error:  # soundfile's own, where a seek led past the end
            raise AudioCorruptError(f"{self.name}: decoding broke off: {_reason(error)}") from error


class FlacDecoder(SoundFileDecoder):
    """FLAC by miniaudio's dr_flac, which leaves out what is damaged: so each sample must be there.

    Of parts it is given the frames alone: its own search fails now and then, and it decodes all that lies before. Where
    frames can't be found so, or are damaged, parts are libsndfile's.
    """

    @property
    def tolerance_s(self) -> float:
        """As `SoundFileDecoder.tolerance_s`."""
        return 0.0

    def _whole(self) -> Iterator[Float32]:
        try:
            yield from self._by_miniaudio(miniaudio.stream_file, str(self.path))
        except miniaudio.MiniaudioError as error:
            raise AudioCorruptError(f"{self.name}: decoding broke off: {error}") from error

    def _part(self, start: int, stop: float) -> Iterator[Float32]:
        part = flac.cut(self.path, start, int(min(stop, self.file.frames)))
        if part is not None:
            with contextlib.suppress(miniaudio.MiniaudioError):
                blocks = list(self._by_miniaudio(miniaudio.stream_memory, part.content))
                if sum(map(len, blocks)) == part.n_samples:
                    yield from pcm.between(blocks, part.start, start, stop)
                    return
        yield from super()._part(start, stop)

    def _by_miniaudio(self, stream: Callable[..., Iterable[Any]], source: str | bytes) -> Iterator[Float32]:
        n_channels = self.file.channels
        for values in stream(
            source,
            output_format=miniaudio.SampleFormat.FLOAT32,
            nchannels=n_channels,
            sample_rate=self.sample_rate,
            frames_to_read=min(pcm.BLOCK_SAMPLES, pcm.BLOCK_VALUES // n_channels),
        ):
            yield pcm.mono(np.frombuffer(values, np.float32).reshape(-1, n_channels))


@dataclasses.dataclass(frozen=True)
class MP3Decoder(SoundFileDecoder):
    """MP3 by the system's libmpg123."""

    mp3: mpg123.MP3

    def blocks(self, start: int = 0, stop: float = math.inf) -> Iterator[Float32]:
        """As `SoundFileDecoder.blocks`."""
        return self.mp3.blocks(start, stop, pcm.BLOCK_SAMPLES)


@dataclasses.dataclass(frozen=True)
class VorbisDecoder(SoundFileDecoder):
    """Ogg Vorbis by FFmpeg.

    Of parts it is given the packets: its own seeking misses by some hundred samples now and then, and so does
    libsndfile's. Where pages don't tell which samples are theirs, all that lies before is decoded.
    """

    pages: ogg_pages.OggPages

    def _whole(self) -> Iterator[Float32]:
        self.pages.check_checksums()
        try:
            with ffmpeg.open_ffmpeg(self.path, self.name) as whole:
                yield from whole.blocks()
        except AudioUnsupportedError as error:
            raise AudioCorruptError(f"{self.name}: decoding broke off: {error}") from error

    def _part(self, start: int, stop: float) -> Iterator[Float32]:
        samples = self._by_packets(start, int(min(stop, self.file.frames)))
        yield from pcm.between(self._whole(), 0, start, stop) if samples is None else [samples]

    def _by_packets(self, start: int, stop: int) -> Float32 | None:
        """The samples [start, stop); None where pages don't lead to them."""
        mark = bisect.bisect_right(self._marks, start, key=lambda mark: mark[0]) - 1
        if mark < 0:
            return None
        begin, first_page = self._marks[mark]
        position, decoded = begin, av.AudioFifo()
        pages = self.pages.packets(first_page)
        try:
            self._vorbis.flush_buffers()
            # A packet gives the samples in which it overlaps with the one before: the first gives none.
            _, before = next(pages)
            if begin and (not before or self._vorbis.decode(av.Packet(before[-1]))):
                return None
            for page, packets in pages:
                for frame in itertools.chain.from_iterable(self._vorbis.decode(av.Packet(each)) for each in packets):
                    frame.pts = None
                    decoded.write(frame)
                    position += frame.samples
                if page.position not in (position, ogg_pages.NO_POSITION) and not page.flags & ogg_pages.LAST:
                    return None
                if position >= stop:
                    break
        except ffmpeg.ERRORS:
            return None
        samples = decoded.read()
        return ffmpeg.mono_of(samples)[start - begin : stop - begin] if samples else None

    @functools.cached_property
    def _marks(self) -> list[tuple[int, int]]:
        """Positions, each with the index of the page that ends there; none if they don't count samples."""
        pages = self.pages.pages
        counts_all = pages[-1].position == self.file.frames and self.pages.n_streams == 1
        if not counts_all or self.file.channels > ffmpeg.MOST_PLANES:
            return []
        marks = [
            (page.position, at) for at, page in enumerate(pages) if page.position not in (0, ogg_pages.NO_POSITION)
        ]
        return [(0, marks[0][1] - 1), *marks]

    @functools.cached_property
    def _vorbis(self) -> av.AudioCodecContext:
        packets = itertools.chain.from_iterable(packets for _, packets in self.pages.packets())
        headers = list(itertools.islice(packets, 3))
        # As Xiph's formats have them in one: how many follow the first, the lengths of all but the last, and all.
        lengths = b"".join(bytes([255] * (len(header) // 255) + [len(header) % 255]) for header in headers[:-1])
        context = av.CodecContext.create("vorbis", "r")
        context.extradata = bytes([len(headers) - 1]) + lengths + b"".join(headers)
        return context


Decoder = SoundFileDecoder | FFmpegDecoder


@contextlib.contextmanager
def open_soundfile(path: Path, name: str, pages: ogg_pages.OggPages | None) -> Iterator[SoundFileDecoder]:
    """The decoder of a file that libsndfile knows, and whose pages these are if it is Ogg.

    Raises `AudioUnsupportedError`.
    """
    try:
        file = SequentialFile(path.absolute())
    except soundfile.LibsndfileError as error:
        reason = "no MP3." if error.code == NO_SUCH_FILE else error.error_string
        raise AudioUnsupportedError(f"libsndfile: {reason}") from error
    with file:
        if file.format == "FLAC":
            yield FlacDecoder(file, name)
        elif file.format == "MP3" and (library := mpg123.library()):
            with mpg123.open_mp3(library, path, name) as mp3:
                yield MP3Decoder(file, name, mp3) if mp3 else SoundFileDecoder(file, name)
        elif pages and file.subtype == "VORBIS":
            yield VorbisDecoder(file, name, pages)
        else:
            yield SoundFileDecoder(file, name)


def _reason(error: Exception) -> str:
    """What libsndfile says, without the path that it says it of."""
    return getattr(error, "error_string", None) or str(error)
