"""Mix the channels of a file to one.

Two channels are mixed to their mean. Surround channels are mixed as in Recommendation ITU-R BS.775 (3/2 to mono), so
that music in the two front channels is as loud as in a file with two channels. Files that do not tell the positions of
3 to 8 channels are taken to have the order of WAV files, in which programs convert them. Channels whose positions are
not known are mixed to their mean, without those that are silent in the whole file.

Channels cancel each other where the mix has less than a thousandth of their mean energy. If they do in more than a
twentieth of the time that is not silent, of more than two channels in half of it, the loudest channel is used. In this
case, and if channels do not count because they are silent, the file is decoded again.
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
# The order of channels in WAV and FLAC files, by their number.
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
# The largest share of the time in which channels may cancel each other. Of more than two channels it is larger, because
# some films have only low-frequency effects, which are not mixed, for a while.
_MAX_CANCELLED, _MAX_CANCELLED_SURROUND = 0.05, 0.5
# The mean energy of a sample in silence (-80 dBFS), and of the mix of channels that may cancel each other: of the whole
# track (-30 dBFS), and of a block (-50 dBFS).
_SILENT, _QUIET, _QUIET_BLOCK = 1e-8, 1e-3, 1e-5
# The energy of a silent channel relative to that of the loudest one.
_SILENT_CHANNEL = 1e-6


class Mixer:
    """Mixes the blocks of a file, and measures whether its channels cancel each other or are silent."""

    def __init__(self, channels: tuple[int, ...] | None = None, *, separate: bool = False) -> None:
        """Mix all channels, or take the mean of some; with `separate`, no decoder may mix the channels itself."""
        self.channels, self.separate = channels, separate or channels is not None
        # Samples per channel in blocks that are not silent, and in those of them in which the channels cancel.
        self._n_sounding, self._n_cancelled = 0, 0
        # The sum of squares of each channel: in blocks in which they cancel, and without a known position.
        self._cancelled, self._unplaced = np.zeros(0), np.zeros(0)
        # Of a decoder that mixes the channels itself.
        self._energy_of_decoder, self._n_of_decoder, self._n_quiet_of_decoder = 0.0, 0, 0

    def mono(self, block: npt.NDArray[Any], layout: tuple[str, ...] = ()) -> Float32:
        """Mix a block (samples, channels) float32 to (samples,); `layout` names its channels as FFmpeg does."""
        n_channels = block.shape[1]
        if n_channels == 1:
            return block[:, 0]
        if self.channels is not None:
            taken = sorted({min(channel, n_channels - 1) for channel in self.channels})
            return np.asarray(block[:, taken].mean(axis=1))
        with np.errstate(invalid="ignore", over="ignore"):  # the reader reports NaN and infinity
            mixed = block @ np.array(_gains(n_channels, layout), np.float32)
            self._measure(block, mixed, is_placed=n_channels == 2 or _is_placed(layout))
        return mixed

    def _measure(self, block: npt.NDArray[Any], mixed: Float32, *, is_placed: bool) -> None:
        values = block.ravel(order="K")
        mixed_energy, channels_energy = float(mixed @ mixed), float(values @ values) / block.shape[1]
        if channels_energy < _SILENT * len(block):
            return
        self._n_sounding += len(block)
        # Both are rare, and slower.
        if mixed_energy < _CANCELLED * channels_energy:
            self._n_cancelled += len(block)
            self._cancelled = _added(self._cancelled, block)
        if not is_placed:
            self._unplaced = _added(self._unplaced, block)

    def measure_mixed(self, block: Float32) -> None:
        """Measure a block (samples,) of a decoder that mixes several channels itself."""
        energy = float(block @ block)
        self._energy_of_decoder += energy
        self._n_of_decoder += len(block)
        self._n_quiet_of_decoder += len(block) if energy < _QUIET_BLOCK * len(block) else 0

    @property
    def is_unsure(self) -> bool:
        """Whether the channels must be measured apart, because the decoder mixed them itself and the mix is quiet.

        It is below -30 dBFS, or below -50 dBFS in more than a twentieth of the time.
        """
        return (
            self._energy_of_decoder < _QUIET * self._n_of_decoder
            or self._n_quiet_of_decoder > _MAX_CANCELLED * self._n_of_decoder
        )

    @property
    def better_channels(self) -> tuple[int, ...] | None:
        """The channels that are better than the mix of everything so far; None if the mix is right.

        They are the loudest channel if the channels cancel each other, or those that are not silent if the positions of
        the channels are not known.
        """
        limit = _MAX_CANCELLED if len(self._cancelled) <= 2 else _MAX_CANCELLED_SURROUND
        if self._n_cancelled > limit * self._n_sounding:
            return (int(np.argmax(self._cancelled)),)
        sounding = np.flatnonzero(self._unplaced > _SILENT_CHANNEL * self._unplaced.max(initial=0))
        return tuple(sounding.tolist()) if 0 < len(sounding) < len(self._unplaced) else None


def _added(energies: npt.NDArray[np.float64], block: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the energies of channels and of a block (samples, channels), which may have another number of channels."""
    more: npt.NDArray[np.float64] = np.square(block, dtype=np.float64).sum(axis=0)
    n_channels = max(len(energies), len(more))
    first, second = (np.pad(each, (0, n_channels - len(each))) for each in (energies, more))
    return first + second


def _is_placed(layout: tuple[str, ...]) -> bool:
    """Return whether the positions of all channels are known."""
    return bool(layout) and set(layout) <= _GAINS.keys()


@functools.cache
def _gains(n_channels: int, layout: tuple[str, ...]) -> tuple[float, ...]:
    if n_channels > 2 and _is_placed(layout):
        return tuple(_GAINS[name] for name in layout)
    return (1 / n_channels,) * n_channels
