"""Decode an Ogg file whose streams follow each other, such as a recording of a radio, part by part.

Each part may have another sample rate and other channels. FFmpeg alone refuses such a change.
"""

import contextlib
import dataclasses
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from musictag.audio import ffmpeg, pcm, resampling
from musictag.audio.mixing import Mixer
from musictag.audio.ogg_pages import OggPages
from musictag.audio.pcm import Float32
from musictag.errors import AudioCorruptError, AudioUnsupportedError


class FileSpan(io.RawIOBase):
    """A file of its own, of the bytes from `begin` to `end` of another one."""

    def __init__(self, file: IO[bytes], begin: int, end: int) -> None:
        self._file, self._begin, self._end, self._position = file, begin, end, begin

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: self._begin, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        self._position = max(self._begin, origin + offset)
        return self.tell()

    def tell(self) -> int:
        return self._position - self._begin

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._end - self._position)
        self._file.seek(self._position)
        content = self._file.read(left if size < 0 else min(size, left))
        self._position += len(content)
        return content


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
            part = stack.enter_context(ffmpeg.open_file(FileSpan(file, *span), name, mixer))
        except AudioUnsupportedError as error:
            message = f"{name}: stream {number} of the chain, at byte {span[0]:,}, is not audio in a supported format"
            raise AudioCorruptError(f"{message} ({error})") from error
        yield part
