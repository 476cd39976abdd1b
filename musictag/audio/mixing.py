"""Mix the channels of a file to one.

Two channels, and channels without a known position, are mixed to their mean. Surround channels are mixed as in
Recommendation ITU-R BS.775 (3/2 to mono), so that music in the two front channels is as loud as in a file with two
channels. If the mix has less than a thousandth of the energy of the loudest channel, because the channels
cancel each other, the file is decoded again and that channel is used.
"""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from musictag.audio.pcm import Float32

# Relative to the mean of the two front channels.
_FRONT, _CENTRE, _SURROUND = 0.5, 0.5**0.5, 0.125**0.5
_GAINS = {
    "FL": _FRONT, "FR": _FRONT, "FC": _CENTRE, "LFE": 0.0, "BC": 0.5,
    "BL": _SURROUND, "BR": _SURROUND, "SL": _SURROUND, "SR": _SURROUND,
}  # fmt: skip
# The order of channels in WAV, FLAC and CAF files, by their number.
WAVE_LAYOUTS = {
    3: ("FL", "FR", "FC"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
# The same of Opus and Vorbis.
OGG_LAYOUTS = {
    3: ("FL", "FC", "FR"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FC", "FR", "BL", "BR"),
    6: ("FL", "FC", "FR", "BL", "BR", "LFE"),
    7: ("FL", "FC", "FR", "SL", "SR", "BC", "LFE"),
    8: ("FL", "FC", "FR", "SL", "SR", "BL", "BR", "LFE"),
}
# Far quieter: the energy of the mix relative to that of the loudest channel. It is 0.5 for two unrelated channels.
_CANCELLED = 1e-3
# Mean square of a channel without sound, which is far below the last bit of 16-bit samples.
_SILENCE = 1e-12
# Channels for which energies are measured: the cost grows with the square.
_MAX_MEASURED = 8


class Mixer:
    """Mixes the blocks of a file, and measures whether its channels cancel each other."""

    def __init__(self, channel: int | None = None, *, separate: bool = False) -> None:
        """Mix, or take one `channel`; with `separate`, no decoder may mix the channels itself."""
        self.channel, self.separate = channel, separate or channel is not None
        # By gains: the sums of the products of all pairs of channels.
        self._products: dict[tuple[float, ...], npt.NDArray[np.float64]] = {}
        self._n_samples = 0
        # Of a decoder that mixes the channels itself.
        self._mixed_energy, self._n_mixed = 0.0, 0

    def mono(self, block: npt.NDArray[Any], layout: tuple[str, ...] = ()) -> Float32:
        """Mix a block (samples, channels) float32 to (samples,); `layout` names its channels as FFmpeg does."""
        n_channels = block.shape[1]
        if n_channels == 1:
            return block[:, 0]
        if self.channel is not None:
            return np.ascontiguousarray(block[:, min(self.channel, n_channels - 1)])
        gains = _gains(n_channels, layout)
        with np.errstate(invalid="ignore", over="ignore"):  # the reader reports NaN and infinity
            if n_channels <= _MAX_MEASURED:
                self._products[gains] = self._products.get(gains, 0) + (block.T @ block).astype(np.float64)
                self._n_samples += len(block)
            return block @ np.array(gains, np.float32)

    def measure_mixed(self, block: Float32) -> None:
        """Measure a block (samples,) of a decoder that mixes several channels itself."""
        self._mixed_energy += float(np.dot(block, block))
        self._n_mixed += len(block)

    @property
    def is_unsure(self) -> bool:
        """Whether the decoder mixed the channels itself and the mix is below -30 dBFS: they must be measured apart."""
        return self._mixed_energy < _CANCELLED * self._n_mixed

    @property
    def loudest(self) -> int | None:
        """The loudest channel, if the channels cancel each other in the mix of everything so far; else None."""
        channels, mix = np.zeros(_MAX_MEASURED), 0.0
        for gains, products in self._products.items():
            channels[: len(gains)] += np.diag(products)
            mix += float(np.array(gains) @ products @ np.array(gains))
        channel = int(np.argmax(channels))
        energy = float(channels[channel])
        return channel if energy > _SILENCE * self._n_samples and mix < _CANCELLED * energy else None


@functools.cache
def _gains(n_channels: int, layout: tuple[str, ...]) -> tuple[float, ...]:
    if n_channels > 2 and layout and set(layout) <= _GAINS.keys():
        return tuple(_GAINS[name] for name in layout)
    return (1 / n_channels,) * n_channels
