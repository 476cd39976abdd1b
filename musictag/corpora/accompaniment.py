"""What accompanies the melody of an experiment's song: chords that follow the tune, in one of several styles.

====================  ============================================================================================
`drone`               the tonic and its fifth, held for four bars
`pad`                 a chord held for a bar
`broken`              the chord's notes one after the other, two a beat
`bass and chords`     the bass on the first beat, the chord on the others
`comping`             the chord shortly on every beat, or always half a beat later
====================  ============================================================================================

Under all but `drone` and `bass and chords`, which have one anyway, half of the songs have a bass note a bar.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np

from musictag.corpora.arrangement import beat_quarters, beats_per_bar, sounding, third
from musictag.corpora.essen import Tune

CHORDS_CHANNEL, BASS_CHANNEL = 2, 3


@dataclasses.dataclass(frozen=True)
class Stroke:
    """A note of a bar before it has a time."""

    beat: float
    """Beats since the bar began."""
    beats: float
    """How long it is held."""
    channel: int
    key: int
    accent: int
    """Velocity above that of the player."""


Part = Callable[[int], list[Stroke]]
"""What one player does in each bar of the song, by its number from 0."""


def chord_roots(tune: Tune) -> list[int]:
    """For each bar of the tune the root of its chord, in semitones above the tune's last note: 0, 5 or 7.

    Of the chords on these three degrees, whichever holds most of what the melody dwells on; the first one if equal.
    """
    bar = beats_per_bar(tune) * beat_quarters(tune)
    final = sounding(tune)[-1][0]
    starts = [0.0, *itertools.accumulate(length for _, length in tune.notes)]
    dwelt = np.zeros((math.ceil(starts[-1] / bar), 12))  # quarter notes on each degree, bar by bar
    for (pitch, length), start in zip(tune.notes, starts, strict=False):
        if pitch is not None:
            dwelt[int(start // bar), (pitch - final) % 12] += length
    degrees = (0, 5, 7)
    held = [dwelt[:, [(root + interval) % 12 for interval in _chord(tune)]].sum(axis=1) for root in degrees]
    return [degrees[best] for best in np.argmax(held, axis=0)]


def accompany(tune: Tune, style: str, rng: np.random.Generator, *, shift: int) -> Part:
    """The chords and the bass under `tune`, which is transposed by `shift` semitones."""
    beats = beats_per_bar(tune)
    tonic = 48 + (sounding(tune)[-1][0] + shift) % 12
    roots = chord_roots(tune)
    after_beat = 0.5 if rng.random() < 0.5 else 0.0
    with_bass = style in ("pad", "broken", "comping") and rng.random() < 0.5

    def strokes_of(bar: int) -> list[Stroke]:
        root = tonic + roots[bar % len(roots)]
        chord = [root - 12 * (root >= 55) + interval for interval in _chord(tune)]
        strokes = _figure(style, chord, beats, after_beat) if style != "drone" else _drone(tonic, beats, bar)
        return strokes + [Stroke(0, beats, BASS_CHANNEL, chord[0] - 12, 10)] * with_bass

    return strokes_of


def _chord(tune: Tune) -> tuple[int, ...]:
    """Semitones of a chord above its root: in the tune's mode, or an open fifth where it has none."""
    middle = third(tune)
    return (0, 7) if middle is None else (0, middle, 7)


def _drone(tonic: int, beats: int, bar: int) -> list[Stroke]:
    if bar % 4:
        return []
    bass = Stroke(0, 4 * beats, BASS_CHANNEL, tonic - 12, 0)
    return [bass, *(Stroke(0, 4 * beats, CHORDS_CHANNEL, key, 0) for key in (tonic, tonic + 7))]


def _figure(style: str, chord: list[int], beats: int, after_beat: float) -> list[Stroke]:
    """A bar in a style on one chord."""
    if style == "pad":
        return [Stroke(0, beats, CHORDS_CHANNEL, key, 0) for key in chord]
    if style == "broken":
        rising = itertools.cycle([*chord, chord[0] + 12])
        return [
            Stroke(half / 2, 1, CHORDS_CHANNEL, key, 12 * (half == 0))
            for half, key in zip(range(2 * beats), rising, strict=False)
        ]
    if style == "bass and chords":
        bass = Stroke(0, 0.9, BASS_CHANNEL, chord[0] - 12, 20)
        return [bass, *(Stroke(beat, 0.6, CHORDS_CHANNEL, key, 0) for beat in range(1, beats) for key in chord)]
    return [Stroke(beat + after_beat, 0.45, CHORDS_CHANNEL, key, 0) for beat in range(beats) for key in chord]
