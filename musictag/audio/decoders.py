"""Choose the fastest decoder for the format of an audio file, and decode parts of it to blocks of mono samples.

The decoders were chosen by measurement (`docs/speed-and-memory.md`). Each reads the header with the library that knows
the format, and decodes any part of the file. Two decoders of one format give the same samples within 1e-5.
"""

import contextlib
import dataclasses
import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import miniaudio
import numpy as np
import soundfile

from musictag.audio import bitstreams, ffmpeg, integrity, mp3, mp3_parts, mpg123, ogg_pages, pcm
from musictag.audio.chained_ogg import ChainedOggDecoder
from musictag.audio.damaged import DamagedDecoder
from musictag.audio.ffmpeg import FFmpegDecoder
from musictag.audio.libsndfile import SequentialFile, SoundFileDecoder
from musictag.audio.mixing import Mixer
from musictag.audio.parts import Parts, SplicedFile, mapped
from musictag.audio.pcm import Float32
from musictag.audio.trailing import TOLERANCE_BYTES, after_tags, other_file, trailing_bytes
from musictag.audio.vorbis import VorbisDecoder
from musictag.errors import AudioCorruptError, AudioDamagedError, AudioTruncatedError, AudioUnsupportedError

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
    """Decode MP3 and MP2 with the system's libmpg123 if it is given, else with libsndfile."""

    mp3: mpg123.MP3 | None
    n_counted: int | None
    """Samples of all frames, if the header has no length; libsndfile estimates it from the bit rate."""

    @property
    def n_samples(self) -> int | None:
        """See `SoundFileDecoder.n_samples`."""
        return super().n_samples if self.n_counted is None else self.n_counted

    def blocks(self, start: int = 0, stop: float = math.inf) -> Iterator[Float32]:
        """See `SoundFileDecoder.blocks`."""
        if self.mp3 is None:
            yield from super().blocks(start, stop)
            return
        for block in self.mp3.blocks(start, stop, pcm.BLOCK_SAMPLES):
            if self.file.channels > 1:
                self.mixer.measure_mixed(block)
            yield block


Decoder = SoundFileDecoder | FFmpegDecoder | ChainedOggDecoder | DamagedDecoder


@contextlib.contextmanager
def open_decoder(path: Path, name: str, pages: ogg_pages.OggPages | None, mixer: Mixer) -> Iterator[Decoder]:
    """Open a file whose format libsndfile knows with the fastest decoder; `pages` are its pages if it is Ogg.

    Raises `AudioUnsupportedError` if libsndfile does not know the format, `AudioCorruptError` if the samples are an
    encoded stream, and `AudioDamagedError` if MP3 frames are damaged.
    """
    try:
        file = SequentialFile(path.absolute())
    except soundfile.LibsndfileError as error:
        reason = "not an MP3 file." if error.code == NO_SUCH_FILE else error.error_string
        raise AudioUnsupportedError(f"libsndfile: {reason}") from error
    except TypeError as error:  # a name that ends in .raw: soundfile asks for the sample rate
        raise AudioUnsupportedError("libsndfile: raw samples, without a header") from error
    with contextlib.ExitStack() as stack:
        stack.enter_context(file)
        if encoding := bitstreams.encoded_stream(path):
            raise bitstreams.refusal(name, encoding)
        audio: Decoder = SoundFileDecoder(file, name, mixer)
        has_no_size = audio.n_samples == 0 and integrity.extends_to_the_end(path)
        if audio.n_samples is None or has_no_size:
            # libsndfile reads no FLAC file of unknown length, and no WAV file whose recorder did not write its size.
            audio = stack.enter_context(ffmpeg.open_ffmpeg(path, name, mixer))
        elif file.format == "FLAC":
            audio = FlacDecoder(file, name, mixer)
        elif file.format == "MP3":
            audio = stack.enter_context(open_mp3(file, path, name, mixer))
        elif pages and file.subtype == "VORBIS":
            audio = VorbisDecoder(file, name, mixer, pages)
        yield audio


@contextlib.contextmanager
def open_mp3(file: soundfile.SoundFile | None, path: Path, name: str, mixer: Mixer) -> Iterator[Decoder]:
    """Open an MP3 or MP2 file; `file` is the same file opened by libsndfile, None if libsndfile finds no frame in it.

    Raises `AudioCorruptError` if other bytes follow the frames or the sample rate changes, and `AudioDamagedError` or
    `AudioTruncatedError` if frames are damaged or missing.
    """
    with mapped(path) as data:
        frames = mp3.find_frames(data)
        checked = _check_mp3(data, frames, name) if frames else None
    with contextlib.ExitStack() as stack:
        if frames is None or checked is None:
            if file is None:
                yield stack.enter_context(ffmpeg.open_ffmpeg(path, name, mixer))
            else:
                yield SoundFileDecoder(file, name, mixer)
        elif file is None or checked.needs_splicing:
            if frames.missing_s > pcm.TRUNCATION_TOLERANCE_S:  # FFmpeg does not tell the length of spliced frames
                raise AudioTruncatedError(
                    f"{name}: truncated: {frames.missing_s:.2f} s of the declared frames are missing"
                )
            stream = stack.enter_context(path.open("rb", buffering=0))
            yield stack.enter_context(ffmpeg.open_file(SplicedFile(stream, frames.spans()), name, mixer))
        else:
            library = mpg123.library() if checked.channels_agree and not mixer.separate else None
            opened = mpg123.open_mp3(library, path, name, file.samplerate, frames) if library else None
            yield MP3Decoder(file, name, mixer, stack.enter_context(opened) if opened else None, checked.n_counted)


class _CheckedMP3(NamedTuple):
    """An MP3 or MP2 file without damage, by what is needed to choose its decoder."""

    needs_splicing: bool
    """Whether the frames have to be separated from what is between them.

    libsndfile and libmpg123 read only the first of joined files, fail after 64 KiB that are no frame, and do not read
    the Xing header behind other bytes; FFmpeg fails at tags between frames.
    """
    channels_agree: bool
    """Whether libmpg123 may mix the channels."""
    n_counted: int | None
    """See `MP3Decoder`."""


def _check_mp3(data: mmap.mmap, frames: mp3.Frames, name: str) -> _CheckedMP3:
    """Check a file with `frames`. Raises `AudioCorruptError` or `AudioDamagedError`."""
    parts = mp3_parts.find_parts(data, frames)
    refusal = _mp3_refusal(data, frames, parts)
    if mp3.changes_sample_rate(data, frames):
        refusal = "the sample rate changes within the file"
    if refusal:
        raise AudioCorruptError(f"{name}: {refusal}")
    if parts and parts.is_damaged:
        raise AudioDamagedError(f"{name}: damaged: {parts.first_damage()}")
    has_junk = (
        frames.first > after_tags(data, 0) or len(data) - after_tags(data, int(frames.ends[-1])) > TOLERANCE_BYTES
    )
    return _CheckedMP3(
        frames.is_several_files or has_junk or not mp3.is_uniform(data, frames),
        mp3.channels_agree(data, frames),
        None if frames.declared else frames.n_complete(len(data)) * frames.n_samples,
    )


def _mp3_refusal(data: mmap.mmap, frames: mp3.Frames, parts: Parts | None) -> str | None:
    """Return why the bytes after the `frames` of a file are refused, or None.

    `parts` are its undamaged parts; None if less than half of the file are frames.
    """
    end = int(frames.ends[-1])
    if parts is not None and not frames.is_complete:  # other bytes at the end are damage
        return other_file(data, end)
    refusal = trailing_bytes(data, end)
    if parts is None and not frames.is_complete and len(frames.begins) >= mp3.CONSECUTIVE_FRAMES:
        refusal = refusal or "less than half of its bytes are frames"
    return refusal
