"""Blocks of mono samples, which all decoders yield.

Conventions: a block is float32 of shape (samples,), full scale at 1, mixed from the file's channels by `mixing`. Sample
positions count from 0, per channel.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from musictag.errors import AudioDamagedError

Float32 = npt.NDArray[np.float32]

# Largest size of a block, in samples per channel and in values of all channels: files may have 1000 channels.
BLOCK_SAMPLES, BLOCK_VALUES = 1 << 17, 1 << 19
# A file that is shorter than its header declares by less than this is not truncated: encoders round the length.
TRUNCATION_TOLERANCE_S = 0.25


class Named(Protocol):
    """A decoder, as error messages need it."""

    @property
    def name(self) -> str: ...
    @property
    def sample_rate(self) -> int: ...


def decoding_error(decoder: Named, position: int, reason: str) -> AudioDamagedError:
    """Return the error of a file that cannot be decoded from sample `position` on, or shortly after.

    `reason` names the library and holds its words.
    """
    return AudioDamagedError(f"{decoder.name}: decoding failed after {position / decoder.sample_rate:.2f} s ({reason})")


def between(blocks: Iterable[Float32], position: int, start: int, stop: float) -> Iterator[Float32]:
    """Yield the samples [start, stop) of blocks; the first block begins at sample `position`."""
    for block in blocks:
        yield block[max(0, start - position) : int(min(stop - position, len(block)))]
        position += len(block)
        if position >= stop:
            return
