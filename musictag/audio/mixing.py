"""Mix the channels of a file to one.

Two channels, and channels without a known position, are mixed to their mean. Surround channels are mixed as in
Recommendation ITU-R BS.775 (3/2 to mono), so that music in the two front channels is as loud as in a file with two
channels. If the mix has less than a thousandth of the mean energy of the channels, because the channels
cancel each other, the file is decoded again and the loudest channel is used.
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
# The energy of the mix relative to the mean energy of the channels. It is 0.5 for two unrelated channels.
_CANCELLED = 1e-3


class Mixer:
    """Mixes the blocks of a file, and measures whether its channels cancel each other."""

    def __init__(self, channel: int | None = None, *, separate: bool = False) -> None:
        """Mix, or take one `channel`; with `separate`, no decoder may mix the channels itself."""
        self.channel, self.separate = channel, separate or channel is not None
        # Sums of squares of the mix, and the mean of those of the channels.
        self._mixed_energy, self._channels_energy = 0.0, 0.0
        # The sum of squares of each channel, in blocks whose mix is quiet.
        self._energy_of_channels = np.zeros(0)
        # Of a decoder that mixes the channels itself.
        self._energy_of_decoder, self._n_of_decoder = 0.0, 0

    def mono(self, block: npt.NDArray[Any], layout: tuple[str, ...] = ()) -> Float32:
        """Mix a block (samples, channels) float32 to (samples,); `layout` names its channels as FFmpeg does."""
        n_channels = block.shape[1]
        if n_channels == 1:
            return block[:, 0]
        if self.channel is not None:
            return np.ascontiguousarray(block[:, min(self.channel, n_channels - 1)])
        with np.errstate(invalid="ignore", over="ignore"):  # the reader reports NaN and infinity
            mixed = block @ np.array(_gains(n_channels, layout), np.float32)
            self._measure(block, mixed)
        return mixed

    def _measure(self, block: npt.NDArray[Any], mixed: Float32) -> None:
        values = block.ravel(order="K")
        mixed_energy, channels_energy = float(mixed @ mixed), float(values @ values) / block.shape[1]
        self._mixed_energy += mixed_energy
        self._channels_energy += channels_energy
        if mixed_energy < _CANCELLED * channels_energy:  # rare, and slower
            energies = np.square(block, dtype=np.float64).sum(axis=0)
            n_missing = len(energies) - len(self._energy_of_channels)
            self._energy_of_channels = np.pad(self._energy_of_channels, (0, max(0, n_missing)))
            self._energy_of_channels[: len(energies)] += energies

    def measure_mixed(self, block: Float32) -> None:
        """Measure a block (samples,) of a decoder that mixes several channels itself."""
        self._energy_of_decoder += float(block @ block)
        self._n_of_decoder += len(block)

    @property
    def is_unsure(self) -> bool:
        """Whether the decoder mixed the channels itself and the mix is below -30 dBFS: they must be measured apart."""
        return self._energy_of_decoder < _CANCELLED * self._n_of_decoder

    @property
    def loudest(self) -> int | None:
        """The loudest channel, if the channels cancel each other in the mix of everything so far; else None."""
        is_cancelled = self._mixed_energy < _CANCELLED * self._channels_energy
        return int(np.argmax(self._energy_of_channels)) if is_cancelled and len(self._energy_of_channels) else None


@functools.cache
def _gains(n_channels: int, layout: tuple[str, ...]) -> tuple[float, ...]:
    if n_channels > 2 and layout and set(layout) <= _GAINS.keys():
        return tuple(_GAINS[name] for name in layout)
    return (1 / n_channels,) * n_channels
