"""Choose the fastest decoder for the format of an audio file, and decode parts of it to blocks of mono samples.

The decoders were chosen by measurement (`docs/speed-and-memory.md`). Each reads the header with the library that knows
the format, and decodes any part of the file. Two decoders of one format give the same samples within 1e-5.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import miniaudio
import numpy as np
import soundfile

from musictag.audio import bitstreams, mpg123, ogg_pages, pcm
from musictag.audio.chained_ogg import ChainedOggDecoder
from musictag.audio.ffmpeg import FFmpegDecoder
from musictag.audio.libsndfile import SequentialFile, SoundFileDecoder
from musictag.audio.mixing import Mixer
from musictag.audio.pcm import Float32
from musictag.audio.vorbis import VorbisDecoder
from musictag.errors import AudioCorruptError, AudioUnsupportedError

# libsndfile's error "no such file", which it also raises for a name that ends in .mp3 if the file is not MP3.
NO_SUCH_FILE = 7


class FlacDecoder(SoundFileDecoder):
    """Decode whole FLAC files with miniaudio's dr_flac, and parts with libsndfile.

    dr_flac skips damaged frames without an error, so the number of samples must be exact. Its seeking sometimes fails
    and decodes everything before the part.
    """

    @property
    def tolerance_s(self) -> float:
        """See `SoundFileDecoder.tolerance_s`."""
        return 0.0

    def _whole(self) -> Iterator[Float32]:
        n_channels, n_decoded = self.file.channels, 0
        try:
            for values in miniaudio.stream_file(
                str(self.path),
                output_format=miniaudio.SampleFormat.FLOAT32,
                nchannels=n_channels,
                sample_rate=self.sample_rate,
                frames_to_read=min(pcm.BLOCK_SAMPLES, pcm.BLOCK_VALUES // n_channels),
            ):
                block = np.frombuffer(values, np.float32).reshape(-1, n_channels)
                yield self.mixer.mono(block, self._layout())
                n_decoded += len(block)
        except miniaudio.MiniaudioError as error:
            raise pcm.decoding_error(self, n_decoded, f"miniaudio: {error}") from error


@dataclasses.dataclass(frozen=True)
class MP3Decoder(SoundFileDecoder):
    """Decode MP3 with the system's libmpg123."""

    mp3: mpg123.MP3

    def blocks(self, start: int = 0, stop: float = math.inf) -> Iterator[Float32]:
        """See `SoundFileDecoder.blocks`."""
        for block in self.mp3.blocks(start, stop, pcm.BLOCK_SAMPLES):
            if self.file.channels > 1:
                self.mixer.measure_mixed(block)
            yield block


Decoder = SoundFileDecoder | FFmpegDecoder | ChainedOggDecoder


@contextlib.contextmanager
def open_soundfile(path: Path, name: str, pages: ogg_pages.OggPages | None, mixer: Mixer) -> Iterator[SoundFileDecoder]:
    """Open a file whose format libsndfile knows; `pages` are its pages if it is Ogg.

    Raises `AudioUnsupportedError` if libsndfile does not know the format, and `AudioCorruptError` if the samples are an
    encoded stream.
    """
    try:
        file = SequentialFile(path.absolute())
    except soundfile.LibsndfileError as error:
        reason = "not an MP3 file." if error.code == NO_SUCH_FILE else error.error_string
        raise AudioUnsupportedError(f"libsndfile: {reason}") from error
    except TypeError as error:  # a name that ends in .raw: soundfile asks for the sample rate
        raise AudioUnsupportedError("libsndfile: raw samples, without a header") from error
    with file:
        if encoding := bitstreams.encoded_stream(path):
            raise AudioCorruptError(
                f"{name}: the samples are a {encoding} stream, not sound: decode it first, for example with FFmpeg"
            )
        if file.format == "FLAC":
            yield FlacDecoder(file, name, mixer)
        elif file.format == "MP3" and not mixer.separate and (library := mpg123.library()):
            with mpg123.open_mp3(library, path, name, file.samplerate) as mp3:
                yield MP3Decoder(file, name, mixer, mp3) if mp3 else SoundFileDecoder(file, name, mixer)
        elif pages and file.subtype == "VORBIS":
            yield VorbisDecoder(file, name, mixer, pages)
        else:
            yield SoundFileDecoder(file, name, mixer)
