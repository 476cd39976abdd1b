"""Decode an Ogg file whose streams follow each other, such as a recording of a radio, part by part.

Each part may have another sample rate and other channels. FFmpeg alone refuses such a change.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

from musictag.audio import ffmpeg, pcm, resampling
from musictag.audio.mixing import Mixer
from musictag.audio.ogg_pages import OggPages
from musictag.audio.parts import SplicedFile
from musictag.audio.pcm import Float32
from musictag.errors import AudioCorruptError, AudioUnsupportedError


@dataclasses.dataclass(frozen=True)
class ChainedOggDecoder:
    """Decodes the parts one after the other, at the sample rate of the first."""

    path: Path
    name: str
    """The name of the file in error messages."""
    mixer: Mixer
    spans: tuple[tuple[int, int], ...]
    """First byte of each part, and first byte after it."""
    sample_rate: int
    """Sample rate in Hz."""

    tolerance_s = pcm.TRUNCATION_TOLERANCE_S
    n_samples = None
    """The length is not known before everything is decoded."""
    seeks = False

    def blocks(self, start: int = 0, stop: float = math.inf) -> Iterator[Float32]:
        """Yield blocks of the samples [start, stop), fewer if the file ends earlier. Raises `AudioCorruptError`."""
        return pcm.between(self._all_blocks(), 0, start, stop)

    def _all_blocks(self) -> Iterator[Float32]:
        for number, span in enumerate(self.spans, start=1):
            with _open_part(self.path, self.name, self.mixer, span, number) as part:
                yield from resampling.resampled(part.blocks(), part.sample_rate, self.sample_rate)


@contextlib.contextmanager
def open_chained_ogg(path: Path, name: str, mixer: Mixer, pages: OggPages) -> Iterator[ChainedOggDecoder]:
    """Open a file whose `pages` hold several streams that follow each other. Raises `AudioCorruptError`."""
    begins = pages.chain_begins
    spans = tuple(zip(begins, [*begins[1:], pages.pages[-1].end], strict=True))
    with _open_part(path, name, mixer, spans[0], 1) as first:
        sample_rate = first.sample_rate
    yield ChainedOggDecoder(path, name, mixer, spans, sample_rate)


@contextlib.contextmanager
def _open_part(
    path: Path, name: str, mixer: Mixer, span: tuple[int, int], number: int
) -> Iterator[ffmpeg.FFmpegDecoder]:
    with path.open("rb", buffering=0) as file, contextlib.ExitStack() as stack:
        try:
            part = stack.enter_context(ffmpeg.open_file(SplicedFile(file, [span]), name, mixer))
        except AudioUnsupportedError as error:
            message = f"{name}: stream {number} of the chain, at byte {span[0]:,}, is not audio in a supported format"
            raise AudioCorruptError(f"{message} ({error})") from error
        yield part
