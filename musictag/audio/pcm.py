"""Blocks of mono samples: what decoders give, of any number of channels.

Conventions: a block is float32 of shape (samples,), full scale at 1: the mean of the file's channels. Sample positions
count from 0, per channel.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

# Samples per channel of a block, and values of all its channels together: what a file of 1000 channels is read by.
BLOCK_SAMPLES, BLOCK_VALUES = 1 << 17, 1 << 19
# Decoders round the length that a header declares; less than this is not a truncation.
TRUNCATION_TOLERANCE_S = 0.25


def mono(block: npt.NDArray[Any]) -> Float32:
    """The mean of the channels of a block (samples, channels) float32."""
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(invalid="ignore"):  # infinity less infinity is no number, which is told later
        return block @ np.full(block.shape[1], 1 / block.shape[1], np.float32)


def between(blocks: Iterable[Float32], position: int, start: int, stop: float) -> Iterator[Float32]:
    """What lies in [start, stop) of blocks that begin at `position`."""
    for block in blocks:
        yield block[max(0, start - position) : int(min(stop - position, len(block)))]
        position += len(block)
        if position >= stop:
            return
