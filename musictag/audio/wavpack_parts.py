"""Find the blocks of a WavPack file, each of which tells its place in the track (WavPack 4 and 5 file format)."""

import itertools
import mmap
import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from musictag.audio.parts import Part, Parts

_MAGIC = b"wvpk"
# Magic, bytes after these 8, version, upper bits of the two numbers that follow them, samples of the file, first
# sample, samples, flags.
_HEADER = struct.Struct("<4sIHBBIIII4x")
_VERSIONS = range(0x402, 0x411)
_UNKNOWN_LENGTH = 0xFFFF_FFFF
# The first of the blocks of several channels that begin at the same sample.
_IS_INITIAL = 0x800


class Block(NamedTuple):
    """A block, by its bytes and by the numbers in its header."""

    begin: int
    end: int
    n_samples_of_file: int
    sample: int
    n_samples: int
    flags: int


def find_parts(data: mmap.mmap, sample_rate: int) -> Parts | None:
    """Return the undamaged parts of a file with `sample_rate` Hz; None if no block tells the length of the track."""
    blocks = list(_find_blocks(data))
    n_samples = blocks[0].n_samples_of_file if blocks else _UNKNOWN_LENGTH
    if n_samples == _UNKNOWN_LENGTH or blocks[0].sample:
        return None
    runs: list[list[Block]] = []
    for before, block in itertools.pairwise([None, *blocks]):
        if block is None or not block.n_samples:  # a block without sound
            continue
        if before is not None and runs and block.begin == before.end:
            runs[-1].append(block)
        elif block.flags & _IS_INITIAL:
            runs.append([block])
    parts = [Part(((run[0].begin, run[-1].end),), Fraction(run[0].sample, sample_rate)) for run in runs]
    has_other_bytes = sum(block.end - block.begin for block in blocks) < len(data)
    return Parts(parts, Fraction(n_samples, sample_rate), has_other_bytes=has_other_bytes)


def end_of_file(data: mmap.mmap, begin: int) -> int | None:
    """Return the first byte after the block with the last sample of the file that begins at a byte.

    Return None if blocks before it are missing or damaged.
    """
    first, position = _parse(data, begin), begin
    while first is not None and (block := _parse(data, position)) is not None:
        position = block.end
        if block.sample + block.n_samples == first.n_samples_of_file:
            following = _parse(data, position)
            # Blocks of other channels, and blocks without sound, may follow.
            if following is None or (following.n_samples and following.sample != block.sample):
                return position
    return None


def _find_blocks(data: mmap.mmap) -> Iterator[Block]:
    """Yield the blocks that are complete: that end before the next one begins."""
    found = [block for match in re.finditer(_MAGIC, data) if (block := _parse(data, match.start())) is not None]
    for block, following in itertools.pairwise([*found, None]):
        if block is not None and block.end <= (len(data) if following is None else following.begin):
            yield block


def _parse(data: mmap.mmap, begin: int) -> Block | None:
    if data[begin : begin + 4] != _MAGIC or begin + _HEADER.size > len(data):
        return None
    _, size, version, upper_sample, upper_length, n_in_file, sample, n_samples, flags = _HEADER.unpack_from(data, begin)
    if version not in _VERSIONS:
        return None
    if n_in_file != _UNKNOWN_LENGTH:
        n_in_file += upper_length << 32
    return Block(begin, begin + 8 + size, n_in_file, sample + (upper_sample << 32), n_samples, flags)
