"""From a folk tune to a song of the experiment: a band plays it, each time in a manner of its own.

The melody, perhaps doubled, an accompaniment and drums. All keep one time, whose beats may swing and whose tempo
drifts, each player hurrying or dragging a little.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np

from musictag.corpora.accompaniment import BASS_CHANNEL, CHORDS_CHANNEL, Part, accompany
from musictag.corpora.arrangement import DRUM_CHANNEL, Arrangement, Note, beat_quarters, beats_per_bar, sounding
from musictag.corpora.drumming import KITS, drum
from musictag.corpora.essen import Tune
from musictag.corpora.labels import describe
from musictag.corpora.manners import HELD_PROGRAMS, MELODY_PROGRAMS, STRUCK_PROGRAMS, Manner, draw_manner

MELODY_CHANNEL, SECOND_CHANNEL = 0, 1
_BASS_PROGRAMS = (32, 33, 35, 38, 43, 58)  # acoustic, fingered, fretless and synth bass, contrabass, tuba
# Softest and loudest that each player is beside the melody: nobody whom a tag names is drowned.
_BALANCE_DB = {
    MELODY_CHANNEL: (0.0, 0.0),
    SECOND_CHANNEL: (-7.0, 0.0),
    CHORDS_CHANNEL: (-11.0, -3.0),
    BASS_CHANNEL: (-11.0, -4.0),
    DRUM_CHANNEL: (-9.0, 0.0),
}

Clock = Callable[[float], float]
"""Seconds at a position in quarter notes."""


def compose(tune: Tune, rng: np.random.Generator, *, seconds: float) -> Arrangement:
    """A band's version of `tune`, repeated until `seconds` are full; all chance comes from `rng`."""
    return arrange_as(draw_manner(tune, rng), tune, rng, seconds=seconds)


def arrange_as(manner: Manner, tune: Tune, rng: np.random.Generator, *, seconds: float) -> Arrangement:
    """`tune` as a band plays it in a given manner; what the manner leaves open comes from `rng`."""
    clock = keep_time(manner, rng, beat=beat_quarters(tune))
    shift = _transposition(tune, manner)
    melody = _melody(tune, manner, rng, clock, shift=shift, seconds=seconds)
    notes = list(melody)
    if manner.second:
        notes += _doubled(melody, rng)
    if manner.style != "none":
        part = accompany(tune, manner.style, rng, shift=shift)
        notes += _played(part, tune, rng, clock, loudness=rng.uniform(58, 86), seconds=seconds)
    if manner.drums != "none":
        part = drum(manner.drums, rng, beats=beats_per_bar(tune))
        notes += _played(part, tune, rng, clock, loudness=rng.uniform(70, 105), seconds=seconds)
    notes.sort(key=lambda note: (note.start_s, note.channel, note.key))
    channels = sorted({note.channel for note in notes})
    balance = {channel: rng.uniform(*_BALANCE_DB[channel]) for channel in channels}
    # The level of the file says nothing of how the band plays.
    peak = float(np.exp(rng.uniform(np.log(0.1), np.log(0.9))))
    chord_programs = {**HELD_PROGRAMS, **STRUCK_PROGRAMS}.get(manner.chords, (0,))
    return Arrangement(
        notes=tuple(notes),
        programs={
            MELODY_CHANNEL: int(rng.choice(MELODY_PROGRAMS[manner.lead])),
            SECOND_CHANNEL: int(rng.choice(MELODY_PROGRAMS[manner.second or manner.lead])),
            CHORDS_CHANNEL: int(rng.choice(chord_programs)),
            BASS_CHANNEL: int(rng.choice(_BASS_PROGRAMS)),
        },
        reverb=manner.reverb,
        noise_db=rng.uniform(-75, -55) + 20 * math.log10(peak),
        peak=peak,
        tags=describe(
            tune,
            manner,
            mean_key=float(np.mean([note.key for note in melody])),
            onsets_per_s=len(notes) / seconds,
        ),
        drum_kit=int(rng.choice(KITS)),
        balance_db=balance,
    )


def keep_time(manner: Manner, rng: np.random.Generator, *, beat: float) -> Clock:
    """The clock of a song whose beat lasts `beat` quarter notes: swung by `manner`, its tempo drifting to and fro."""
    beat_s = 60 / manner.tempo * beat
    depth, turn, phase = rng.uniform(0, 0.04), 2 * math.pi / rng.uniform(12, 48), rng.uniform(0, 2 * math.pi)

    def seconds_at(quarter: float) -> float:
        whole, part = divmod(quarter / beat, 1)
        swung = 2 * part * manner.swing if part < 0.5 else 1 - 2 * (1 - part) * (1 - manner.swing)
        beats = whole + swung
        # The integral of a beat's length, which is 1 + depth cos(turn beats + phase).
        return beat_s * (beats + depth / turn * (math.sin(turn * beats + phase) - math.sin(phase)))

    return seconds_at


def _transposition(tune: Tune, manner: Manner) -> int:
    """Semitones that bring the tune near the manner's centre; so keys are all over."""
    total = sum(length for _, length in sounding(tune))
    return round(manner.centre - sum(pitch * length for pitch, length in sounding(tune)) / total)


def _melody(
    tune: Tune, manner: Manner, rng: np.random.Generator, clock: Clock, *, shift: int, seconds: float
) -> list[Note]:
    """The tune over and over, each time from the beginning of a bar; the first notes of bars are accented."""
    bar = beats_per_bar(tune) * beat_quarters(tune)
    loudness, jitter_s = rng.uniform(85, 115), rng.uniform(0.002, 0.012)
    held = 1 - 0.7 * manner.detached
    notes: list[Note] = []
    quarter = 0.0
    while clock(quarter) < seconds:
        for pitch, length in tune.notes:
            start_s = max(0.0, clock(quarter) + rng.normal(0, jitter_s))
            if pitch is not None and start_s < seconds:
                end_s = start_s + max(0.05, held * (clock(quarter + length) - clock(quarter)))
                velocity = _velocity(rng.normal(loudness, 6) + 14 * (quarter % bar == 0))
                notes.append(Note(start_s, end_s, MELODY_CHANNEL, pitch + shift, velocity))
            quarter += length
        quarter = bar * math.ceil(quarter / bar)
    return notes


def _doubled(melody: list[Note], rng: np.random.Generator) -> list[Note]:
    """A second player of the melody, in unison, an octave below or above, and never quite together with the first."""
    octave = int(rng.choice([-12, 0, 12], p=[0.6, 0.25, 0.15]))
    late_s = np.abs(rng.normal(0.01, 0.01, len(melody))).tolist()
    return [
        Note(note.start_s + late, note.end_s + late, SECOND_CHANNEL, note.key + octave, note.velocity)
        for note, late in zip(melody, late_s, strict=True)
    ]


def _played(
    part: Part, tune: Tune, rng: np.random.Generator, clock: Clock, *, loudness: float, seconds: float
) -> list[Note]:
    """The notes of a part, bar after bar until the song is over."""
    beats, step = beats_per_bar(tune), beat_quarters(tune)
    jitter_s = rng.uniform(0.002, 0.01)
    notes: list[Note] = []
    for bar in itertools.takewhile(lambda bar: clock(bar * beats * step) < seconds, itertools.count()):
        for stroke in part(bar):
            begin, end = ((bar * beats + beat) * step for beat in (stroke.beat, stroke.beat + stroke.beats))
            start_s = max(0.0, clock(begin) + rng.normal(0, jitter_s))
            end_s = start_s + max(0.05, 0.95 * (clock(end) - clock(begin)))
            velocity = _velocity(rng.normal(loudness + stroke.accent, 5))
            if start_s < seconds:
                notes.append(Note(start_s, end_s, stroke.channel, stroke.key, velocity))
    return notes


def _velocity(loudness: float) -> int:
    return int(min(127, max(20, loudness)))
