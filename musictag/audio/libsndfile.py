"""Decoding by libsndfile, the library of the package soundfile."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import soundfile

from musictag.audio import pcm
from musictag.audio.mixing import OGG_LAYOUTS, WAVE_LAYOUTS, Mixer
from musictag.audio.pcm import Float32

# libsndfile's number of frames if the length is not known.
UNKNOWN_LENGTH = 2**63 - 1
# Samples that are decoded before a part of an MP3 file, because small frames use bits of many earlier frames.
# libsndfile itself begins only four frames earlier.
MP3_MARGIN = 12 * 1152


class SequentialFile(soundfile.SoundFile):  # type: ignore[misc] # soundfile has no types
    """A file whose blocks are read in sequence, without seeking between them.

    After each block, soundfile seeks to the current position. For MP3, libsndfile then discards bits that later
    frames need.
    """

    def seekable(self) -> bool:
        """Return False: soundfile asks this before it seeks after a block."""
        return False


@dataclasses.dataclass(frozen=True)
class SoundFileDecoder:
    """Decode WAV, AIFF, Opus and others with libsndfile.

    Subclasses read the header with libsndfile and decode the samples with a faster library.
    """

    file: soundfile.SoundFile
    name: str
    """The name of the file in error messages."""
    mixer: Mixer
    """Mixes the channels of each block."""

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return int(self.file.samplerate)

    @property
    def n_samples(self) -> int | None:
        """Length according to the header, in samples per channel; None if the header has no length."""
        return None if self.file.frames == UNKNOWN_LENGTH else int(self.file.frames)

    @property
    def seeks(self) -> bool:
        """Whether a part can be decoded without decoding everything before it."""
        return True

    @property
    def tolerance_s(self) -> float:
        """Seconds by which the file may be shorter than its header declares."""
        return pcm.TRUNCATION_TOLERANCE_S

    @property
    def path(self) -> Path:
        return Path(self.file.name)

    def blocks(self, start: int = 0, stop: float = math.inf) -> Iterator[Float32]:
        """Yield blocks of the samples [start, stop), fewer if the file ends earlier. Raises `AudioCorruptError`."""
        return self._whole() if (start, stop) == (0, math.inf) else self._part(start, stop)

    def _whole(self) -> Iterator[Float32]:
        return self._part(0, math.inf)

    def _part(self, start: int, stop: float) -> Iterator[Float32]:
        layout = self._layout()
        block_samples = min(pcm.BLOCK_SAMPLES, pcm.BLOCK_VALUES // self.file.channels)
        try:
            if self.file.tell() != start:
                self._seek(start)
            while start < stop:
                block = self.file.read(int(min(block_samples, stop - start)), dtype="float32", always_2d=True)
                if not len(block):
                    return
                start += len(block)
                yield self.mixer.mono(block, layout)
        except (soundfile.LibsndfileError, ValueError) as error:  # ValueError: soundfile, if a seek passed the end
            # Without the path that `str(error)` holds.
            reason = getattr(error, "error_string", None) or str(error)
            raise pcm.decoding_error(self, start, f"libsndfile: {reason}") from error

    def _layout(self) -> tuple[str, ...]:
        """Return the names of the channels in the order of the format, or else of WAV; nothing if it is not known."""
        if self.file.subtype in ("OPUS", "VORBIS"):
            return OGG_LAYOUTS.get(self.file.channels, ())
        # Apple Lossless has an order of its own.
        return () if self.file.subtype.startswith("ALAC") else WAVE_LAYOUTS.get(self.file.channels, ())

    def _seek(self, position: int) -> None:
        begin = max(0, position - MP3_MARGIN) if self.file.format == "MP3" else position
        self.file.seek(begin)
        self.file.read(position - begin, dtype="float32")
