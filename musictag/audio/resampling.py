"""Resample blocks of mono samples without keeping all of them in memory."""

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from musictag.audio.pcm import Float32

EMPTY = np.zeros(0, np.float32)


def resampled(blocks: Iterable[Float32], source_rate: int, sample_rate: int) -> Iterator[Float32]:
    """Yield blocks at `source_rate` Hz as blocks at `sample_rate` Hz; the last one may be empty."""
    if source_rate == sample_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(EMPTY, last=True)
