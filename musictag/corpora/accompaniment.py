"""Accompany a melody with chords and bass.

====================  ============================================================================================
`drone`               the tonic and its fifth, held for four bars
`pad`                 a chord held for a bar
`broken`              the notes of the chord one after the other, two in a beat
`bass and chords`     the bass on the first beat, the chord on the other beats
`comping`             a short chord on every beat, or always half a beat later
====================  ============================================================================================

`drone` and `bass and chords` always have a bass. With the others, half of the songs have one bass note in a bar.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np

from musictag.corpora.essen import Tune
from musictag.corpora.melody import beats_per_bar, quarters_per_beat, sounding_notes, third

CHORDS_CHANNEL, BASS_CHANNEL = 2, 3
_CHORD_DEGREES = (0, 5, 7)  # do, fa, so: semitones above the last note of the tune


@dataclasses.dataclass(frozen=True)
class BarNote:
    """A note with its position in a bar."""

    beat: float
    """Beats since the start of the bar."""
    length_beats: float
    channel: int
    key: int
    accent: int
    """Added to the player's MIDI velocity."""


InstrumentPart = Callable[[int], list[BarNote]]
"""Returns the notes of one instrument in a bar, given the number of the bar from 0."""


def chord_roots(tune: Tune) -> list[int]:
    """Return the root of the chord in each bar of the tune: 0, 5 or 7 semitones above the tune's last note.

    The chord that contains the most of the melody in that bar is chosen, by length; the first one if several do.
    """
    bar_quarters = beats_per_bar(tune) * quarters_per_beat(tune)
    final = sounding_notes(tune)[-1][0]
    starts = [0.0, *itertools.accumulate(length for _, length in tune.notes)]
    quarters = np.zeros((math.ceil(starts[-1] / bar_quarters), 12))  # (bars, pitch classes above the last note)
    for (pitch, length), start in zip(tune.notes, starts, strict=False):
        if pitch is not None:
            quarters[int(start // bar_quarters), (pitch - final) % 12] += length
    contained = [
        quarters[:, [(root + interval) % 12 for interval in _chord_intervals(tune)]].sum(axis=1)
        for root in _CHORD_DEGREES
    ]
    return [_CHORD_DEGREES[best] for best in np.argmax(contained, axis=0)]


def make_accompaniment(tune: Tune, kind: str, rng: np.random.Generator, *, shift: int) -> InstrumentPart:
    """Return chords and bass for `tune`, transposed by `shift` semitones; `kind` is a row of the module's table."""
    beats = beats_per_bar(tune)
    tonic = 48 + (sounding_notes(tune)[-1][0] + shift) % 12
    roots = chord_roots(tune)
    delay_beats = 0.5 if rng.random() < 0.5 else 0.0
    with_bass = kind in ("pad", "broken", "comping") and rng.random() < 0.5

    def notes_in_bar(bar: int) -> list[BarNote]:
        root = tonic + roots[bar % len(roots)]
        chord = [root - 12 * (root >= 55) + interval for interval in _chord_intervals(tune)]
        notes = _drone_bar(tonic, beats, bar) if kind == "drone" else _chord_bar(kind, chord, beats, delay_beats)
        return notes + [BarNote(0, beats, BASS_CHANNEL, chord[0] - 12, 10)] * with_bass

    return notes_in_bar


def _chord_intervals(tune: Tune) -> tuple[int, ...]:
    """Return the notes of a chord in semitones above its root: an open fifth if the tune is neither minor nor major."""
    middle = third(tune)
    return (0, 7) if middle is None else (0, middle, 7)


def _drone_bar(tonic: int, beats: int, bar: int) -> list[BarNote]:
    if bar % 4:
        return []
    bass = BarNote(0, 4 * beats, BASS_CHANNEL, tonic - 12, 0)
    return [bass, *(BarNote(0, 4 * beats, CHORDS_CHANNEL, key, 0) for key in (tonic, tonic + 7))]


def _chord_bar(kind: str, chord: list[int], beats: int, delay_beats: float) -> list[BarNote]:
    if kind == "pad":
        return [BarNote(0, beats, CHORDS_CHANNEL, key, 0) for key in chord]
    if kind == "broken":
        rising = itertools.cycle([*chord, chord[0] + 12])
        return [
            BarNote(half / 2, 1, CHORDS_CHANNEL, key, 12 * (half == 0))
            for half, key in zip(range(2 * beats), rising, strict=False)
        ]
    if kind == "bass and chords":
        bass = BarNote(0, 0.9, BASS_CHANNEL, chord[0] - 12, 20)
        return [bass, *(BarNote(beat, 0.6, CHORDS_CHANNEL, key, 0) for beat in range(1, beats) for key in chord)]
    return [BarNote(beat + delay_beats, 0.45, CHORDS_CHANNEL, key, 0) for beat in range(beats) for key in chord]
