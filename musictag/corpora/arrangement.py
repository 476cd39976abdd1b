"""Hold the notes and the sound settings of a song, between `band` (which arranges) and `rendering`."""

import dataclasses

DRUM_CHANNEL = 9


@dataclasses.dataclass(frozen=True)
class Note:
    """A note of one instrument; `channel`, `key` and `velocity` are those of MIDI."""

    start_s: float
    end_s: float
    channel: int
    key: int
    velocity: int


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """A song that can be rendered: its notes and how they sound."""

    notes: tuple[Note, ...]
    programs: dict[int, int]
    """General MIDI program (from 0) of each channel but the drums'."""
    reverb: float
    """Fraction of reverberated sound in the mix, 0-1."""
    balance_db: dict[int, float]
    """Level of every channel that has notes, relative to the other channels."""
    noise_db: float
    """Level of the noise floor relative to full scale."""
    peak: float
    """Largest sample after scaling, below 1."""
    tags: tuple[str, ...]
    drum_kit: int = 0
    """General MIDI program of the drums."""
